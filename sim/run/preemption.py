"""Guests that give way: a guest that finds no host takes the place of preemptible ones with a smaller priority."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ...placement.decide.engine import Engine
from ...placement.types.request import Request, RequestSpec
from ..trace.terms import Terms
from .evacuation import Evacuation
from .observer import Observer

TRIED: Final = 20
"""Hosts that are tried for a guest at most."""


class Holder(Protocol):
    """What knows the engine and what guests asked for."""

    engine: Engine
    evacuation: Evacuation

    def spec_of(self, uuid: str) -> RequestSpec:
        """What a guest asked for."""
        ...


class Preemption(Observer):
    """The preemptible guests of a run that have a host. ``terms``: by spec number."""

    def __init__(self, run: Holder, terms: Sequence[Terms]) -> None:
        self.run, self.terms = run, terms
        self.priority: dict[str, int] = {}
        """Guest -> priority, in the order in which they came."""

    def came(self, uuid: str, row: int, spec: int) -> None:
        """A guest of a spec number has a host."""
        if self.terms[spec].preemptible:
            self.priority[uuid] = self.terms[spec].priority

    def left(self, uuids: Sequence[str]) -> None:
        """Guests have left their hosts."""
        if self.priority:
            for uuid in uuids:
                self.priority.pop(uuid, None)

    def places(
        self, requests: Sequence[Request], priorities: Sequence[int], without: Sequence[int], at_s: int
    ) -> Iterator[tuple[int, NDArray[np.integer[Any]]]]:
        """Give guests ``without`` a host, by position, the places of preemptible ones: the position and row of each
        that has one then."""
        for position in without if self.priority else ():
            victims = self.victims(requests[position], priorities[position])
            if victims:
                self.run.evacuation.preempt(victims, at_s)
                yield position, self.run.engine.place_many([requests[position]]).rows

    def victims(self, request: Request, priority: int) -> list[str]:
        """The guests whose release would give the request a host: of one host, with the least priority, the fewest
        vCPUs; empty if there are none. O(preemptible guests), and a fork for each host that is tried."""
        fleet = self.run.engine.fleet
        on: defaultdict[int, list[str]] = defaultdict(list)
        for uuid, given in self.priority.items():
            if given < priority:
                on[fleet._kernel.consumer(fleet.consumer_id(uuid))[2]].append(uuid)
        asked = _amounts(request.spec)
        blocks = fleet._store.inventory
        found: list[tuple[int, int, int, list[str]]] = []
        for row, uuids in on.items():
            free = blocks["limit"][:3, row] - blocks["used"][:3, row]
            chosen = self._chosen(uuids, asked - free)
            if chosen is not None:
                vcpus = sum(self.run.spec_of(uuid).flavor.vcpus for uuid in chosen)
                found.append((max(self.priority[uuid] for uuid in chosen), vcpus, row, chosen))
        for _, _, _, chosen in sorted(found, key=lambda each: each[:3])[:TRIED]:
            trial = self.run.engine.fork()
            trial.release(chosen)
            if trial.place(request).placed:
                return chosen
        return []

    def _chosen(self, uuids: Sequence[str], missing: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str] | None:
        """The guests that free what is missing: those with the least priority first, of these the last that came;
        without those that turn out not to be needed. None if all do not free it."""
        newest = list(reversed(uuids))
        order = sorted(newest, key=self.priority.__getitem__)
        chosen: list[str] = []
        left = missing.copy()
        for uuid in order:
            if np.all(left <= 0) and chosen:
                break
            chosen.append(uuid)
            left = left - _amounts(self.run.spec_of(uuid))
        if np.any(left > 0) or not chosen:
            return None
        for uuid in list(chosen[:-1]):
            amounts = _amounts(self.run.spec_of(uuid))
            if np.all(left + amounts <= 0):
                left = left + amounts
                chosen.remove(uuid)
        return chosen


def _amounts(spec: RequestSpec) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    disk = 0 if spec.is_bfv else spec.flavor.root_gb
    return np.array([spec.flavor.vcpus, spec.flavor.memory_mb, disk], np.int64)
