"""What a simulation is fed: guests that come and go, as columns, at once or part by part. Other modules make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ...placement.types.request import Flavor, RequestSpec
from .terms import PLAIN, Terms

STEP_S: Final = 300
"""Length of a time step in seconds, Azure's own: all arrivals and departures fall on one."""
DAY_S: Final = 86_400
EPOCH_S: Final = 1_767_225_600
"""Second 0 of every workload as engines see it: midnight of 2026-01-01 UTC."""
NEVER: Final = 1 << 60
"""Departure of a guest that outlives the workload."""
ALONE: Final = -1
"""Group of a guest that is in none."""


class Guests(Protocol):
    """Guests in parts that follow each other in time, so that never all of them need to be in memory. ``notes``
    says what was assumed of them."""

    @property
    def name(self) -> str: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def epoch_s(self) -> int | None:
        """Unix time of second 0, if it is known."""
        ...

    @property
    def specs(self) -> tuple[RequestSpec, ...]:
        """What the guests of all parts ask for."""
        ...

    @property
    def terms(self) -> tuple[Terms, ...]:
        """What is said of the guests of each spec beside it."""
        ...

    @property
    def start_s(self) -> int: ...
    @property
    def end_s(self) -> int: ...
    @property
    def horizon_s(self) -> int:
        """When the last guest with a known end leaves, if runs are to go on until then; else ``end_s``."""
        ...

    @property
    def steps(self) -> range:
        """The times at which guests may come: those of the parts, one after the other."""
        ...

    @property
    def memory_per_vcpu(self) -> float:
        """MiB beside each vCPU of the mean guest."""
        ...

    def parts(self) -> Iterator[Workload]:
        """The guests in order of arrival, from the start at each call; every part has the same ``specs``."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """Guests in order of arrival, one per index of the columns; times in seconds from a zero of the workload's own.

    ``spec`` indexes ``specs``, and ``terms``, what is said of these guests beside it (left out: nothing): specs may be
    there several times with different terms. Guests of one ``batch`` were asked for together; those of one ``group``
    (ALONE: none) are members of one server group, of the policy in their terms. ``standing`` guests come first: they
    are there when the story begins, since their arrival; STEP_S before the beginning stands for an unknown time.
    ``closed``: nothing is known after ``end_s``, where runs end. ``epoch_s``: Unix time of second 0, if it is known.
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
    closed: bool = False
    epoch_s: int | None = None
    notes: list[str] = field(default_factory=list)
    terms: tuple[Terms, ...] = ()

    def __post_init__(self) -> None:
        if len(self.terms) != len(self.specs):
            object.__setattr__(self, "terms", (PLAIN,) * len(self.specs))

    def __len__(self) -> int:
        return len(self.arrival_s)

    @cached_property
    def horizon_s(self) -> int:
        """When the last guest with a known end leaves; ``end_s`` if the workload is closed."""
        known = self.departure_s[self.departure_s < NEVER]
        return self.end_s if self.closed else max(self.end_s, int(known.max(initial=0)))

    @property
    def steps(self) -> range:
        """The times at which guests may come; the standing ones do one step before the story begins."""
        return range(self.start_s - STEP_S if self.standing else self.start_s, self.end_s, STEP_S)

    @property
    def memory_per_vcpu(self) -> float:
        """MiB beside each vCPU of the mean guest. O(guests)."""
        asked = zip(self.specs, np.bincount(self.spec, minlength=len(self.specs)).tolist(), strict=True)
        told: list[tuple[int, int]] = [
            (guests * spec.flavor.vcpus, guests * spec.flavor.memory_mb) for spec, guests in asked
        ]
        return sum(memory_mb for _, memory_mb in told) / max(sum(vcpus for vcpus, _ in told), 1)

    def parts(self) -> Iterator[Workload]:
        """The workload itself, in one part."""
        yield self

    def first(self, hours: float) -> Workload:
        """The workload's first hours."""
        end_s = min(self.end_s, self.start_s + round(hours * 3600))
        last = int(np.searchsorted(self.arrival_s, end_s))
        columns = {name: getattr(self, name)[:last] for name in ("arrival_s", "departure_s", "spec", "batch", "group")}
        return replace(self, end_s=end_s, closed=True, **columns)

    def arriving(self) -> Workload:
        """The workload without the guests that stand at its beginning."""
        if not self.standing:
            return self
        columns = {
            name: getattr(self, name)[self.standing :]
            for name in ("arrival_s", "departure_s", "spec", "batch", "group")
        }
        note = f"the {self.standing:,} guests that stand at the beginning of the trace are left out: the state's stand"
        return replace(self, standing=0, notes=[*self.notes, note], **columns)

    def amounts(self, amount: Callable[[Flavor], int]) -> NDArray[np.int64]:
        """``amount`` of each guest's flavor, such as its vCPUs."""
        return np.array([amount(spec.flavor) for spec in self.specs], np.int64)[self.spec]

    def peak(self, amount: Callable[[Flavor], int]) -> int:
        """The most that the guests of one time ask for together, departures counted first. O(guests log guests)."""
        amounts = self.amounts(amount)
        times = np.concatenate([self.departure_s, self.arrival_s])
        order = np.argsort(times, kind="stable")
        return int(np.cumsum(np.concatenate([-amounts, amounts])[order]).max(initial=0))


def dated(guests: Guests) -> str | None:
    """Date and time of the beginning (ISO 8601, UTC), where the trace has dates."""
    if guests.epoch_s is None:
        return None
    return datetime.fromtimestamp(guests.epoch_s + guests.start_s, UTC).isoformat()


def peaks(guests: Guests, amounts: Sequence[Callable[[RequestSpec], int]]) -> tuple[int, list[int]]:
    """How many guests there are, and for each of ``amounts`` the most that the guests of one step ask for together,
    departures counted first. O(guests), and memory for the steps only."""
    steps, count = guests.steps, 0
    changes = np.zeros((len(amounts), len(steps) + 1), np.int64)
    asked_by = [np.array([amount(spec) for spec in guests.specs], np.int64) for amount in amounts]
    for part in guests.parts():
        count += len(part)
        come = np.clip(-(-(part.arrival_s - steps.start) // STEP_S), 0, len(steps))
        go = np.clip(-(-(part.departure_s - steps.start) // STEP_S), come, len(steps))
        for change, asked in zip(changes, asked_by, strict=True):
            np.add.at(change, come, asked[part.spec])
            np.subtract.at(change, go, asked[part.spec])
    return count, [int(np.cumsum(change[:-1]).max(initial=0)) for change in changes]
