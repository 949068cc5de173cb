"""Guests that ask for a host in one step of a run, as columns."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..trace.workload import Guests

Whole = NDArray[np.int64]


class Coming(NamedTuple):
    """Guests that ask for a host in a step, as columns of equal length; ``number`` counts all guests of the run."""

    number: Whole
    arrived_s: Whole
    departure_s: Whole
    spec: Whole
    group: Whole

    def of(self, which: Whole) -> Coming:
        """Those at the positions ``which``."""
        return Coming(*(column[which] for column in self))

    def between(self, first: int, last: int) -> Coming:
        """Those from one position up to another."""
        return Coming(*(column[first:last] for column in self))


NOBODY: Final = Coming(*[np.empty(0, np.int64)] * 5)


def arrivals(workload: Guests, played: int) -> Iterator[Coming]:
    """The arrivals in each step of the workload but the first ``played``. Guests that are there before the first step
    come in it."""
    number = step = 0
    for part in workload.parts():
        ends = np.searchsorted(part.arrival_s, np.array(part.steps), side="right").tolist()
        first = 0
        for at_s, last in zip(part.steps, ends, strict=True):
            if step >= played:
                numbers = np.arange(number, number + last - first)
                arrived = np.maximum(part.arrival_s[first:last], at_s)
                columns = (part.departure_s, part.spec, part.group)
                yield Coming(numbers, arrived, *(column[first:last] for column in columns))
            number, first, step = number + last - first, last, step + 1


class Arrivals:
    """The arrivals in the steps of a workload from step ``played`` on, of which some may be looked at ahead."""

    def __init__(self, workload: Guests, played: int) -> None:
        self._rest = arrivals(workload, played)
        self._ahead: deque[Coming] = deque()

    def take(self) -> Coming:
        """The arrivals of the next step; no arrivals after the last one."""
        return self._ahead.popleft() if self._ahead else next(self._rest, NOBODY)

    def ahead(self, number: int) -> Coming:
        """The arrivals of the step which is so many behind the next one. O(steps that were not looked at)."""
        while len(self._ahead) <= number:
            self._ahead.append(next(self._rest, NOBODY))
        return self._ahead[number]
