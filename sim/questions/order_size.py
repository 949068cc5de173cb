"""The fewest hosts of an order with which capacity lasts from one day through another in enough of the seeds.

The search begins at what the guests of each seed ask for beyond the hosts there are, and remembers of every seed which
numbers held and which did not: a seed is not played again where a smaller number held or a greater one did not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..run.fleet_plan import MOST_HOSTS, FleetPlan, Growth
from ..run.hardware import Hardware
from ..run.holding import DIMENSIONS, asked, classes_of, holds
from ..run.outcome import Outcome, exhausted_day
from ..trace.workload import DAY_S, Guests
from .least import stay
from .tasks import Task, planned, source_of, workload_of

MOST_TIMES: Final = 64
"""So many times the hosts that there are, and 1,000 more, are the most that one order may have."""
STRIDES: Final = 64
"""The first step from what guests ask for is this part of it."""
Play = Callable[[Sequence[Task]], Sequence[Outcome]]
"""Plays tasks, and gives their outcomes in order."""
Real = NDArray[np.float64]


class Least(NamedTuple):
    """The fewest hosts that are enough, None if no number is; of how many that was ``tried`` last, and why guests were
    refused then."""

    hosts: int | None
    tried: int
    why: str


class Demand:
    """What the guests of each task ask for at most on each day, in numbers that can be summed."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = list(tasks)
        self._peaks: list[tuple[tuple[str, ...], Real]] = []

    def wanted(self, kind: str, needed: int, last: int, plan: FleetPlan) -> list[int]:
        """By task, hosts of a kind for what is asked for from one day through another beyond what the hosts of the plan
        give. O(guests) at first, then O(days)."""
        (bought,) = (each for each in plan.hardware if each.name == kind)
        self._peaks = self._peaks or [_peaks(task) for task in self._tasks]
        found = []
        for classes, peaks in self._peaks:
            have, each = _given(plan, classes, peaks.shape[1]), np.array(holds(bought, classes))
            some = slice(max(0, needed - 1), max(needed, min(last, peaks.shape[1])))
            lacks = np.maximum(peaks - have, 0.0)[:, some]
            parts = np.divide(lacks, each[:, None], out=np.zeros_like(lacks), where=each[:, None] > 0)
            found.append(math.ceil(float(parts.max(initial=0.0)) - 1e-9))
        return found


def _peaks(task: Task) -> tuple[tuple[str, ...], Real]:
    workload = workload_of(source_of(task), task.seed)
    classes = classes_of(workload.specs)
    sizes = np.array([asked(spec, classes) for spec in workload.specs], np.int64)
    return classes, daily_peaks(workload, sizes)


def daily_peaks(workload: Guests, sizes: NDArray[np.int64]) -> Real:
    """The most of each column of the sizes, which are by spec, that the guests have on each day, [columns, days]; those
    that stand at the beginning are of the first day. O(guests)."""
    steps = workload.steps
    changes = np.zeros((sizes.shape[1], len(steps) + 1), np.int64)
    for part in workload.parts():
        come, go = stay(part.arrival_s, part.departure_s, steps)
        for change, column in zip(changes, sizes.T, strict=True):
            if column.any():
                np.add.at(change, come, column[part.spec])
                np.subtract.at(change, go, column[part.spec])
    there = np.cumsum(changes[:, :-1], axis=1)
    day = np.maximum(np.arange(steps.start, steps.stop, steps.step) - workload.start_s, 0) // DAY_S
    begins = np.flatnonzero(np.diff(day, prepend=-1))
    peaks: Real = np.maximum.reduceat(there, begins, axis=1).astype(np.float64)
    return peaks


def _given(plan: FleetPlan, classes: Sequence[str], days: int) -> Real:
    """What the hosts give on each day, those that come later included, [columns, days]."""
    kinds = {kind.name: np.array(holds(kind, classes)) for kind in plan.hardware}
    counts = Counter({kind.name: kind.count for kind in plan.hardware}) + Counter(host.hardware for host in plan.named)
    have = np.zeros((len(DIMENSIONS) + len(classes), days))
    for name, count in counts.items():
        have += (kinds[name] * count)[:, None]
    for growth in plan.growth:
        have[:, min(days, int(growth.at_hours // 24)) :] += (kinds[growth.hardware] * growth.add)[:, None]
    return have


class SeedSearch:
    """Which number to try next, of seeds each of which holds from some number on; it is enough that all hold but so
    many as are ``allowed`` not to. ``wanted``: where to begin, by seed."""

    def __init__(self, wanted: Sequence[int], allowed: int) -> None:
        self._allowed, self._first = allowed, self._rank([max(1, each) for each in wanted], allowed)
        self._low = [0] * len(wanted)
        self._high: list[float] = [math.inf] * len(wanted)
        self._stride = max(1, self._first // STRIDES)

    @staticmethod
    def _rank(values: Sequence[float], allowed: int) -> int:
        return int(sorted(values, reverse=True)[min(allowed, len(values) - 1)])

    @property
    def too_few(self) -> int:
        """The greatest number that is known not to be enough."""
        return self._rank(self._low, self._allowed)

    @property
    def enough(self) -> int | None:
        """The smallest number that is known to be enough; None before one is."""
        found = sorted(self._high, reverse=True)[min(self._allowed, len(self._high) - 1)]
        return None if math.isinf(found) else int(found)

    @property
    def candidate(self) -> int | None:
        """The number to try next; None when the search has ended."""
        few, enough = self.too_few, self.enough
        if enough is None:
            return self._first if not few else few + self._stride
        if enough - few <= 1:
            return None
        return (few + enough) // 2 if few else max(1, enough - self._stride)

    def open(self, hosts: int) -> list[int]:
        """Seeds of which it is not known whether so many are enough."""
        return [at for at, (low, high) in enumerate(zip(self._low, self._high, strict=True)) if low < hosts < high]

    def note(self, hosts: int, held: Sequence[tuple[int, bool]]) -> None:
        """What came of the seeds that were played with so many hosts."""
        before = self.too_few, self.enough
        for at, holds_it in held:
            if holds_it:
                self._high[at] = min(self._high[at], hosts)
            else:
                self._low[at] = max(self._low[at], hosts)
        if before[0] == 0 or before[1] is None:
            self._stride *= 2


def least(
    tasks: Sequence[Task], kind: Hardware, needed: int, last: int, *, allowed: int, demand: Demand, play: Play
) -> Least:
    """The fewest hosts of a kind that have capacity last from one day through another, in all seeds but the
    ``allowed``. ``demand`` of the tasks as they were at first."""
    plan, why = planned(tasks[0]), ""
    search = SeedSearch(demand.wanted(kind.name, needed, last, plan), allowed)
    there = plan.hosts + sum(growth.add for growth in plan.growth)
    most = min(MOST_TIMES * there + 1_000, MOST_HOSTS - there)
    while (hosts := search.candidate) is not None:
        if search.too_few >= most:
            return Least(None, search.too_few, why)
        hosts = min(hosts, most)
        some = search.open(hosts)
        until = [ordered(tasks[at], kind, hosts, needed, until_day=last) for at in some]
        results = play(until)
        days = [exhausted_day(outcome, tasks[0].stop_percent) for outcome in results]
        held = [day is None or day > last for day in days]
        why = why if all(held) else _most_refused(results)
        search.note(hosts, list(zip(some, held, strict=True)))
    return Least(search.enough, search.too_few, why)


def _most_refused(results: Sequence[Outcome]) -> str:
    """What most guests were refused for."""
    refused = sum((Counter(outcome.refusals) for outcome in results), Counter[str]())
    return min(refused, key=lambda what: (-refused[what], what), default="")


def ordered(task: Task, kind: Hardware, hosts: int, day: int, *, until_day: int | None = None) -> Task:
    """The task with hosts that come at the beginning of a day."""
    growth = Growth(hardware=kind.name, add=hosts, at_hours=24.0 * (day - 1))
    plan = msgspec.structs.replace(task.plan, growth=(*task.plan.growth, growth))
    changed = msgspec.structs.replace(task, plan=plan)
    return changed if until_day is None else msgspec.structs.replace(changed, until_hours=until_day * 24.0)
