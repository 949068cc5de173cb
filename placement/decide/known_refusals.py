"""Refusals that were worked out for a compiled request, until anything that they say may have changed."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from ..fleet.fleet import Fleet
from ..types.decision import Refusal

KEPT: Final = 64
"""Refusals of one compiled request at most."""


class KnownRefusals:
    """Refusals by who asks, each for a state of the fleet and a spec. As a reader of the change log it forgets them
    before names or classes of rows change, which no version of the columns tells."""

    __slots__ = ("__weakref__", "_by_asker")

    def __init__(self) -> None:
        self._by_asker: dict[Hashable, tuple[Hashable, Refusal]] = {}

    def find(self, fleet: Fleet, asker: Hashable, spec: Hashable) -> Refusal | None:
        """The refusal of the same request to this asker, if nothing has changed since. O(1)."""
        known = self._by_asker.get(asker)
        return known[1] if known is not None and known[0] == (_state(fleet), spec) else None

    def keep(self, fleet: Fleet, asker: Hashable, spec: Hashable, refusal: Refusal) -> None:
        """Note a refusal of the fleet as it is. O(1)."""
        if len(self._by_asker) >= KEPT:
            self._by_asker.clear()
        self._by_asker[asker] = ((_state(fleet), spec), refusal)
        fleet._change_log.add_reader(self)

    def settle(self) -> None:
        """Forget all: names or classes of rows are about to change."""
        self._by_asker.clear()


def _state(fleet: Fleet) -> Hashable:
    return fleet.version, fleet._static_epoch, fleet._topology_epoch, fleet.now, fleet.service_down_time
