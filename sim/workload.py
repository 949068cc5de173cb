"""What a simulation is fed: guests that come and go, as columns. Other modules make or read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..placement.request import Flavor, RequestSpec

STEP_S: Final = 300
"""Length of a time step in seconds, Azure's own: all arrivals and departures fall on one."""
EPOCH_S: Final = 1_767_225_600
"""Second 0 of every workload as engines see it: midnight of 2026-01-01 UTC."""
NEVER: Final = 1 << 60
"""Departure of a guest that outlives the workload."""
ALONE: Final = -1
"""Group of a guest that is in none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Guests in order of arrival, one per index of the columns; times in seconds from a zero of the workload's own.

    ``spec`` indexes ``specs``. Guests of one ``batch`` were asked for together; those of one ``group`` (ALONE: none)
    are members of one anti-affinity server group. ``standing`` guests come first: they are there when the story begins.
    """

    name: str
    specs: tuple[RequestSpec, ...]
    arrival_s: NDArray[np.int64]
    departure_s: NDArray[np.int64]
    spec: NDArray[np.int64]
    batch: NDArray[np.int64]
    group: NDArray[np.int64]
    standing: int
    start_s: int
    end_s: int

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def steps(self) -> range:
        """The times at which something may happen; the standing guests arrive one step before the story begins."""
        return range(self.start_s - STEP_S if self.standing else self.start_s, self.end_s, STEP_S)

    def first(self, hours: float) -> Workload:
        """The workload's first hours."""
        end_s = min(self.end_s, self.start_s + round(hours * 3600))
        last = int(np.searchsorted(self.arrival_s, end_s))
        columns = {name: getattr(self, name)[:last] for name in ("arrival_s", "departure_s", "spec", "batch", "group")}
        return replace(self, end_s=end_s, **columns)

    def amounts(self, amount: Callable[[Flavor], int]) -> NDArray[np.int64]:
        """``amount`` of each guest's flavor, such as its vCPUs."""
        return np.array([amount(spec.flavor) for spec in self.specs], np.int64)[self.spec]

    def peak(self, amount: Callable[[Flavor], int]) -> int:
        """The most that the guests of one time ask for together, departures counted first. O(guests log guests)."""
        amounts = self.amounts(amount)
        times = np.concatenate([self.departure_s, self.arrival_s])
        order = np.argsort(times, kind="stable")
        return int(np.cumsum(np.concatenate([-amounts, amounts])[order]).max(initial=0))
