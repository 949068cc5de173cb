"""How long guests live, estimated from guests of which many are still there: Kaplan and Meier's product limit, for
guests that were seen from some age on (left truncation) until their end or some age (right censoring), with an
exponential tail.

The product limit is used up to the age from which fewer than 30 guests are under observation, or fewer than 5 % of all
that live so long.
From there on ends come at a constant rate: that of all guest-hours above the smallest age from which the rate does not
change significantly. Where no guest ends any more it is 0: the rest never end.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .workload import NEVER, STEP_S

LEAST_AT_RISK: Final = 30
LEAST_PART: Final = 0.05
"""Guests that must be under observation for the product limit: this many, and this part of all that live so long."""
SIGNIFICANT: Final = 2.0
"""Standard errors by which two rates must differ."""
LEAST_EVENTS: Final = 10
"""Ends on either side of a comparison of rates."""
MOST_AGE_S: Final = 3 * 366 * 86_400
"""Age of a guest that is met at some moment at most."""
Whole = NDArray[np.int64]
Real = NDArray[np.float64]


class Lifetimes:
    """The distribution of lifetimes, in seconds, of guests that were under observation from the ages ``entry`` to the
    ages ``leave``, at which they ``ended`` or were still there. O(guests log guests)."""

    def __init__(self, entry: Whole, leave: Whole, ended: NDArray[np.bool_]) -> None:
        seen = leave > entry
        entry, leave, ended = entry[seen], leave[seen], ended[seen]
        ages, events = np.unique(leave[ended], return_counts=True)
        risk = np.searchsorted(np.sort(entry), ages, side="left") - np.searchsorted(np.sort(leave), ages, side="left")
        survival = np.cumprod(1.0 - events / risk)
        # Of those that live so long, the part that is still under observation.
        expected = float(risk.max(initial=0)) * np.concatenate([[1.0], survival[:-1]])
        enough = (risk >= LEAST_AT_RISK) & (risk >= LEAST_PART * expected)
        kept = len(ages) if not np.any(~ended) else int(np.argmin(enough)) if not enough.all() else len(ages)
        self.ages: Whole = ages[:kept]
        """Ages at which guests end, up to the tail."""
        self.survival: Real = np.cumprod(1.0 - events[:kept] / risk[:kept], dtype=np.float64)
        """Part of the guests that live longer than each of the ages."""
        self.tail_from_s = int(self.ages[-1]) if kept else 0
        self.tail_part = float(self.survival[-1]) if kept else 1.0
        """Part of the guests that live longer than ``tail_from_s``."""
        self.ends, self.guest_s = _constant(entry, leave, ages, events)
        self.rate = self.ends / self.guest_s if self.guest_s else 0.0
        """Ends per guest-second in the tail."""

    @property
    def mean_s(self) -> float:
        """The mean lifetime; infinite if some never end."""
        starts = np.concatenate([[0], self.ages])
        held = np.concatenate([[1.0], self.survival])[: len(self.ages)]
        known = float((np.diff(starts) * held).sum())
        if self.tail_part <= 0:
            return known
        return known + self.tail_part / self.rate if self.rate else math.inf

    @property
    def forever(self) -> float:
        """Part of the guests that never end."""
        return 0.0 if self.rate else self.tail_part

    def settled_s(self, rest: float = 0.003) -> float:
        """Age after which at most the part ``rest`` of the mean lifetime is left; infinite if some never end."""
        if self.tail_part <= 0 or not len(self.ages):
            return (
                float(self.tail_from_s)
                if self.tail_part <= 0
                else -math.log(rest) / self.rate
                if self.rate
                else math.inf
            )
        if not self.rate:
            return math.inf
        beyond = self.tail_part / self.rate / (rest * self.mean_s)
        return self.tail_from_s + max(0.0, math.log(beyond)) / self.rate

    def beyond(self, ages: Whole, draws: Real) -> Whole:
        """Lifetimes of guests that have reached the ages, one for each uniform draw from [0, 1); NEVER for those that
        never end. Multiples of a step."""
        held = np.concatenate([[1.0], self.survival])
        reached = held[np.searchsorted(self.ages, ages, side="right")]
        late = np.maximum(ages - self.tail_from_s, 0)
        reached = np.where(late > 0, self.tail_part * np.exp(-self.rate * late), reached)
        target = reached * (1.0 - draws)
        found: Whole = np.full(len(ages), NEVER)
        inside = (late == 0) & (target > self.tail_part) if self.tail_part > 0 else late == 0
        # The first age that no larger part survives: survival falls, so its negative is sorted.
        place = np.searchsorted(-self.survival, -target[inside], side="left")
        found[inside] = self.ages[np.minimum(place, max(len(self.ages) - 1, 0))] if len(self.ages) else NEVER
        if self.rate:
            start = np.maximum(ages, self.tail_from_s)[~inside]
            part = np.where(late[~inside] > 0, reached[~inside], self.tail_part)
            longer = -np.log(np.maximum(target[~inside], 1e-300) / np.maximum(part, 1e-300)) / self.rate
            found[~inside] = np.ceil((start + longer) / STEP_S).astype(np.int64) * STEP_S
        return np.maximum(found, ages // STEP_S * STEP_S + STEP_S)

    def left(self, seen_s: int, count: int, rng: np.random.Generator) -> Whole:
        """What is left of the lives of ``count`` guests that are met at some moment: of ages as guests have them that
        came at a steady rate, for as long as lifetimes settle (``seen_s`` where some never end). NEVER for those that
        never end. Multiples of a step, one at least."""
        settled = self.settled_s()
        most = max(STEP_S, seen_s if math.isinf(settled) else min(round(settled), MOST_AGE_S))
        ages = np.arange(0, most + STEP_S, STEP_S)
        alive = np.concatenate([[1.0], self.survival])[np.searchsorted(self.ages, ages, side="right")]
        late = np.maximum(ages - self.tail_from_s, 0)
        alive = np.where(late > 0, self.tail_part * np.exp(-self.rate * late), alive)
        there = np.cumsum(alive)
        age = ages[np.minimum(np.searchsorted(there, rng.random(count) * there[-1], side="right"), len(ages) - 1)]
        lives = self.beyond(age, rng.random(count))
        return np.where(lives == NEVER, NEVER, np.maximum(lives - age, STEP_S))

    def __str__(self) -> str:
        days = f"{self.tail_from_s / 86_400:.3g} days"
        if self.tail_part <= 0:
            return f"lifetimes up to {days}, all seen"
        if not self.rate and not self.tail_from_s:
            return "no guest was seen to end: they are taken to stay"
        if not self.rate:
            return f"{100 * self.tail_part:.1f} % of the guests live longer than {days}: none of these was seen to end"
        return (
            f"lifetimes by Kaplan and Meier up to {days}; {100 * self.tail_part:.1f} % of the guests live longer, "
            f"{1 / self.rate / 86_400:.3g} days more on average (exponential tail, from {self.ends:,} ends)"
        )


def _constant(entry: Whole, leave: Whole, ages: Whole, events: Whole) -> tuple[int, float]:
    """Ends, and guest-seconds, above the smallest of some ages from which the rate of ends does not change."""
    total = int(events.sum())
    counted = np.cumsum(events)
    for part in np.linspace(0.0, 0.95, 20).tolist():
        left = total - int(part * total)
        if left < 2 * LEAST_EVENTS:
            break
        at = int(ages[np.searchsorted(counted, total - left, side="right")]) if part else 0
        above = int(events[ages > at].sum())
        middle = int(ages[min(int(np.searchsorted(counted, total - above // 2)), len(ages) - 1)])
        early, late = int(events[(ages > at) & (ages <= middle)].sum()), int(events[ages > middle].sum())
        early_s, late_s = _exposure(entry, leave, at, middle), _exposure(entry, leave, middle, None)
        if min(early, late) < LEAST_EVENTS:
            continue
        change = math.log(early / early_s) - math.log(late / late_s)
        if abs(change) < SIGNIFICANT * math.sqrt(1 / early + 1 / late):
            return early + late, early_s + late_s
    return _last(entry, leave, ages, events)


def _last(entry: Whole, leave: Whole, ages: Whole, events: Whole) -> tuple[int, float]:
    """Ends and guest-seconds above the age that the last few ends come after; no ends if the guests live on for much
    longer than the intervals between these let expect."""
    if not len(ages):
        return 0, _exposure(entry, leave, 0, None)
    counted = np.cumsum(events)
    before = np.searchsorted(counted, max(0, int(counted[-1]) - 2 * LEAST_EVENTS), side="right")
    at = int(ages[before - 1]) if before else 0
    few, few_s = int(events[ages > at].sum()), _exposure(entry, leave, at, int(ages[-1]))
    rest_s = _exposure(entry, leave, int(ages[-1]), None)
    if few and few_s and rest_s * few / few_s > _SURELY:
        return 0, rest_s
    return few, few_s + rest_s


_SURELY: Final = 7.0
"""Ends that should have come: that none did has a probability below 0.1 %."""


def _exposure(entry: Whole, leave: Whole, after: int, until: int | None) -> float:
    """Guest-seconds under observation between two ages."""
    end = leave if until is None else np.minimum(leave, until)
    return float(np.maximum(end - np.maximum(entry, after), 0).sum())
