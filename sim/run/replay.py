"""The event loop of a simulation: per time step guests leave, builds end, guests arrive. Counts and shows nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...placement.decide.batch_decisions import Decisions
from ...placement.decide.engine import Engine
from ...placement.types.request import Request
from ..trace.workload import ALONE, EPOCH_S, Workload

_GUESTS: Final = "6e750000-0000-4000-8000-"
_GROUPS: Final = "6e760000-0000-4000-8000-"


@dataclass(slots=True)
class Stopwatch:
    """Time spent within it, added up: on the wall and on the CPU."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def __enter__(self) -> None:
        self.wall_s -= time.perf_counter()
        self.cpu_s -= time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall_s += time.perf_counter()
        self.cpu_s += time.process_time()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happened at one time: guests ``departed``, and ``guests`` (a slice of the workload) made ``requests``."""

    at_s: int
    departed: NDArray[np.int64]
    guests: slice
    requests: Sequence[Request]
    decisions: Decisions


class Replay:
    """A workload played on an engine. Deterministic: the same workload on the same fleet takes the same steps.

    A guest counts as building, among its host's io operations, until the next step: builds take less than STEP_S.
    """

    def __init__(self, engine: Engine, workload: Workload) -> None:
        self.engine = engine
        self.workload = workload
        self.placing = Stopwatch()
        self.uuids = [f"{_GUESTS}{guest:012x}" for guest in range(len(workload))]
        self.alive: NDArray[np.bool_] = np.zeros(len(workload), np.bool_)
        """Which guests hold a place now."""
        self._leaving = np.argsort(workload.departure_s, kind="stable")
        self._departures = workload.departure_s[self._leaving]
        self._left = 0
        self._building: NDArray[np.int64] = np.empty(0, np.int64)
        self._groups: dict[int, str | None] = {ALONE: None}

    def steps(self) -> Iterator[Step]:
        """Play the workload, a step at a time."""
        arrivals = self.workload.arrival_s
        for at_s in self.workload.steps:
            departed = self._depart(at_s)
            self._finish_builds()
            first, last = np.searchsorted(arrivals, [at_s, at_s + 1]).tolist()
            yield self._arrive(at_s, slice(first, last), departed)

    def _depart(self, at_s: int) -> NDArray[np.int64]:
        """Release the guests whose time has come, as far as they were placed."""
        first, self._left = self._left, int(np.searchsorted(self._departures, at_s, side="right"))
        due = self._leaving[first : self._left]
        departed = due[self.alive[due]]
        self.engine.release(self.uuids[guest] for guest in departed.tolist())
        self.alive[departed] = False
        return departed

    def _finish_builds(self) -> None:
        """The guests of the step before have been built, unless they are gone already."""
        built = self._building[self.alive[self._building]]
        self.engine.spawned(self.uuids[guest] for guest in built.tolist())

    def _arrive(self, at_s: int, guests: slice, departed: NDArray[np.int64]) -> Step:
        requests = self._requests(at_s, guests)
        with self.placing:
            decisions = self.engine.place_many(requests)
        placed = decisions.rows >= 0
        self.alive[guests] = placed
        self._building = np.flatnonzero(placed) + guests.start
        return Step(at_s=at_s, departed=departed, guests=guests, requests=requests, decisions=decisions)

    def _requests(self, at_s: int, guests: slice) -> list[Request]:
        workload, now = self.workload, float(EPOCH_S + at_s)
        specs, groups = workload.specs, self._groups
        wanted = workload.spec[guests].tolist(), workload.group[guests].tolist()
        for group in sorted(set(wanted[1]) - groups.keys()):
            groups[group] = f"{_GROUPS}{group:012x}"
            self.engine.fleet.add_server_group(f"{_GROUPS}{group:012x}", "anti-affinity")
        return [
            Request(spec=specs[spec], instance_uuids=(uuid,), server_group=groups[group], now=now)
            for uuid, spec, group in zip(self.uuids[guests], *wanted, strict=True)
        ]
