"""The server groups of a run: kept in the engine while they have members, so that past ones need no memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...placement.decide.engine import Engine
from ..trace.workload import ALONE

_GROUPS: Final = "6e7a0000-0000-4000-8000-"


class Groups:
    """Groups of a run by number, and who is in them. All methods take next to no time for guests that are in none.
    ``rules``: policy, and guests that may share a host, of the groups of guests of each spec number."""

    def __init__(self, engine: Engine, rules: Sequence[tuple[str, int]]) -> None:
        self.engine, self.rules = engine, rules
        self._kept: set[int] = set()
        self._members: Counter[int] = Counter()
        self._group_of: dict[str, int] = {}

    def kept(self, groups: NDArray[np.int64], specs: NDArray[np.int64]) -> list[str | None]:
        """The uuids of the groups of guests of these spec numbers, which the engine keeps from now on; None for
        ALONE."""
        if not np.any(groups != ALONE):
            return [None] * len(groups)
        spec_of = dict(zip(groups.tolist(), specs.tolist(), strict=True))
        for group in sorted(spec_of.keys() - self._kept - {ALONE}):
            policy, most = self.rules[spec_of[group]]
            self.engine.fleet.add_server_group(f"{_GROUPS}{group:012x}", policy, max_server_per_host=most)
            self._kept.add(group)
        return [None if group == ALONE else f"{_GROUPS}{group:012x}" for group in groups.tolist()]

    def joined(self, groups: NDArray[np.int64], uuids: Iterable[str]) -> None:
        """Guests have been placed as members of ``groups``."""
        if np.any(groups != ALONE):
            pairs = [(uuid, group) for uuid, group in zip(uuids, groups.tolist(), strict=True) if group != ALONE]
            self._group_of.update(pairs)
            self._members.update(group for _, group in pairs)

    def number_of(self, uuid: str) -> int:
        """The number of a guest's group; ALONE for one in none."""
        return self._group_of.get(uuid, ALONE)

    def members(self) -> list[str]:
        """All members."""
        return list(self._group_of)

    def left(self, uuids: Iterable[str]) -> None:
        """Remove guests from their groups."""
        if not self._group_of:
            return
        for group in [self._group_of.pop(uuid) for uuid in uuids if uuid in self._group_of]:
            self._members[group] -= 1
            self._forget(group)

    def forget_empty(self, groups: NDArray[np.int64]) -> None:
        """Drop those of ``groups`` that have no members."""
        for group in sorted(set(groups.tolist()) & self._kept):
            self._forget(group)

    def _forget(self, group: int) -> None:
        if not self._members[group]:
            del self._members[group]
            self._kept.discard(group)
            self.engine.fleet.remove_server_group(f"{_GROUPS}{group:012x}")
