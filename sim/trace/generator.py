"""A workload generator fitted to a trace: as many years of guests as wanted, with growth, day by day. Seeded.

Batches come at random at the trace's rate for the hour of the day and, if it tells of a week, for the day; each is a
batch of the trace with its flavors and lifetimes. Where the trace ended before a guest did, its lifetime is drawn from
those of guests that lived longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...placement.types.errors import InvalidValue
from ...placement.types.request import Flavor, RequestSpec
from .workload import ALONE, NEVER, STEP_S, Workload

DAY_S: Final = 86_400
WEEK: Final = 7
"""Days after which a trace has told how they differ."""
MOST_GUESTS: Final = 50_000_000
"""In one workload, whose columns are in memory."""
MOST_HOURS: Final = 24 * 366 * 20
_COLUMNS: Final = ("arrival_s", "departure_s", "spec", "batch", "group")


class Made:
    """``hours`` of guests like the trace's, ``scale`` times as many, growing by a part per year. Days are made in turn,
    each from the seed and its number: the same for the same seed, and no more than one is in memory.

    InvalidValue for a trace or figures that give nothing.
    """

    def __init__(
        self, trace: Workload, *, hours: float, seed: int, growth_per_year: float = 0.0, scale: float = 1.0
    ) -> None:
        if not 0 < hours <= MOST_HOURS or not growth_per_year > -1 or not scale > 0:
            raise InvalidValue("hours, growth or scale is out of range", field="hours")
        self.trace = trace = _arriving(trace)
        self.seed, self.growth_per_year, self.scale = seed, growth_per_year, scale
        self.name = f"{trace.name}, {hours:g} h made"
        self.specs = trace.specs
        self.start_s, self.end_s = 0, max(1, round(hours * 3600 / STEP_S)) * STEP_S
        self.memory_per_vcpu = trace.memory_per_vcpu
        """The trace's."""
        self._first, self._sizes, self._order = _batches(trace)
        self._rates, self._days = _rates(trace, len(self._first))
        ended = trace.departure_s != NEVER
        self._lifetimes = np.where(ended, trace.departure_s - trace.arrival_s, NEVER)
        self._known = np.sort(self._lifetimes[ended])
        self._grouped = bool((trace.group != ALONE).any())

    @property
    def horizon_s(self) -> int:
        """The end of what is made."""
        return self.end_s

    @property
    def steps(self) -> range:
        """The times at which guests may come."""
        return range(self.start_s, self.end_s, STEP_S)

    def rate(self, at_s: NDArray[np.int64]) -> NDArray[np.float64]:
        """Batches that come in the step that begins then, on average."""
        growth: NDArray[np.float64] = (1.0 + self.growth_per_year) ** (at_s / (365 * DAY_S))
        return self._rates[at_s % DAY_S // 3600] * self._days[at_s // DAY_S % WEEK] * self.scale * growth

    @property
    def expected(self) -> float:
        """How many guests there are on average. O(steps)."""
        return float(self.rate(np.array(self.steps)).sum()) * len(self.trace) / len(self._first)

    def parts(self) -> Iterator[Workload]:
        """The guests, a day in each part. O(guests)."""
        batches = groups = 0
        for start_s in range(self.start_s, self.end_s, DAY_S):
            part = self._day(start_s, batches, groups)
            batches = int(part.batch[-1]) + 1 if len(part) else batches
            groups = max(groups, int(part.group.max(initial=ALONE)) + 1)
            yield part

    def whole(self) -> Workload:
        """All guests at once. InvalidValue for more than MOST_GUESTS."""
        if self.expected > MOST_GUESTS:
            raise InvalidValue(f"that would be more than {MOST_GUESTS:,} guests", field="hours")
        parts = list(self.parts())
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        return replace(parts[0], start_s=self.start_s, end_s=self.end_s, closed=True, **columns)

    def _day(self, start_s: int, batches: int, groups: int) -> Workload:
        """The guests of a day; ``batches`` and ``groups`` came before."""
        rng = np.random.default_rng([self.seed, 4, start_s // DAY_S])
        end_s = min(start_s + DAY_S, self.end_s)
        when = np.arange(start_s, end_s, STEP_S)
        coming = rng.poisson(self.rate(when))
        chosen = rng.integers(0, len(self._first), int(coming.sum()))
        counts = self._sizes[chosen]
        batch = np.repeat(np.arange(batches, batches + len(chosen)), counts)
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        guests = self._order[np.repeat(self._first[chosen], counts) + within]
        arrival = np.repeat(np.repeat(when, coming), counts)
        return Workload(
            name=self.name,
            specs=self.specs,
            arrival_s=arrival,
            departure_s=self._departures(guests, arrival, rng),
            spec=self.trace.spec[guests],
            batch=batch,
            group=self._groups(guests, batch, groups),
            standing=0,
            start_s=start_s,
            end_s=end_s,
        )

    def _departures(
        self, guests: NDArray[np.int64], arrival: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        lifetime = self._lifetimes[guests]
        cut = np.flatnonzero(lifetime == NEVER)
        at_least = (self.trace.end_s - self.trace.arrival_s)[guests[cut]]
        longer = np.searchsorted(self._known, at_least, side="right")
        drawn = longer + np.floor(rng.random(len(cut)) * (len(self._known) - longer)).astype(np.int64)
        found = drawn < len(self._known)
        lifetime[cut[found]] = self._known[drawn[found]]
        return np.where(lifetime == NEVER, NEVER, arrival + lifetime)

    def _groups(self, guests: NDArray[np.int64], batch: NDArray[np.int64], known: int) -> NDArray[np.int64]:
        """Groups of the trace, renumbered for each batch that repeats them; ``known`` numbers are in use."""
        groups = np.full(len(guests), ALONE)
        if not self._grouped:
            return groups
        grouped = self.trace.group[guests] != ALONE
        pairs = np.stack([batch[grouped], self.trace.group[guests][grouped]])
        groups[grouped] = known + np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
        return groups


def generate(trace: Workload, *, hours: float, seed: int, growth_per_year: float = 0.0, scale: float = 1.0) -> Workload:
    """The guests of ``Made`` all at once. O(guests). InvalidValue for a trace or figures that give nothing or too
    much."""
    return Made(trace, hours=hours, seed=seed, growth_per_year=growth_per_year, scale=scale).whole()


def _arriving(trace: Workload) -> Workload:
    """The trace without its standing guests, which came at times that it does not tell."""
    if trace.standing >= len(trace):
        raise InvalidValue(f"{trace.name}: no guest arrives", field="trace")
    return replace(trace, standing=0, **{name: getattr(trace, name)[trace.standing :] for name in _COLUMNS})


def _batches(trace: Workload) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where each batch begins in the guests sorted by batch, its size, and that order."""
    order = np.argsort(trace.batch, kind="stable")
    _, first, sizes = np.unique(trace.batch[order], return_index=True, return_counts=True)
    return first, sizes, order


def _rates(trace: Workload, batches: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Batches per step by hour of the trace's day, hours that it never reached at the mean rate; and how many times as
    many come on each day of its week, 1 for all if it is shorter."""
    times = trace.arrival_s[np.unique(trace.batch, return_index=True)[1]] - trace.start_s
    steps = np.arange((trace.end_s - trace.start_s) // STEP_S) * STEP_S
    arrived = np.bincount(times % DAY_S // 3600, minlength=24).astype(np.float64)
    seen = np.bincount(steps % DAY_S // 3600, minlength=24)
    by_hour = np.where(seen > 0, arrived / np.maximum(seen, 1), batches / max(1, len(steps)))
    if len(steps) * STEP_S < WEEK * DAY_S:
        return by_hour, np.ones(WEEK)
    expected = np.bincount(steps // DAY_S % WEEK, by_hour[steps % DAY_S // 3600], minlength=WEEK)
    came = np.bincount(times // DAY_S % WEEK, minlength=WEEK)
    return by_hour, came / expected


DEVOPS_CLOUDS: Final = ("cloud-1", "cloud-2", "cloud-3")


def devops(
    *,
    days: int = 5,
    seed: int,
    builds_per_day: int = 50,
    guests_per_build: int = 30,
    growth_per_year: float = 0.0,
    scale: float = 1.0,
) -> Workload:
    """Builds of a working week: each starts its guests at once, in one of three clouds (zones), mostly in working
    hours, and gives all of them back after a quarter of an hour to four hours; nothing on the sixth and seventh day.
    ``scale`` times as many builds a day, growing by a part per year. InvalidValue for figures that give nothing or too
    much."""
    if days < 1 or builds_per_day < 1 or guests_per_build < 1 or not scale > 0 or not growth_per_year > -1:
        raise InvalidValue("a devops preset needs days, builds and guests", field="days")
    rng = np.random.default_rng([seed, 5])
    flavors = [Flavor(name=name, vcpus=v, memory_mb=m, root_gb=40) for name, v, m in _BUILD_FLAVORS]
    specs = [RequestSpec(flavor=flavor, availability_zone=zone) for zone in DEVOPS_CLOUDS for flavor in flavors]
    working = np.array([day for day in range(days) if day % 7 < 5], np.int64)
    wanted = builds_per_day * scale * (1.0 + growth_per_year) ** (working / 365)
    if not float(wanted.sum()) * 1.2 * guests_per_build <= MOST_GUESTS:
        raise InvalidValue(f"that would be more than {MOST_GUESTS:,} guests", field="days")
    counts = np.maximum(rng.poisson(wanted * 1.2), np.floor(wanted).astype(np.int64))
    builds = int(counts.sum())
    hour = np.clip(rng.normal(13.0, 2.5, builds), 6.0, 21.9)
    start = np.repeat(working * DAY_S, counts) + (hour * 3600).astype(np.int64) // STEP_S * STEP_S
    start.sort()
    lasts = np.clip(rng.lognormal(np.log(3000), 0.7, builds), 900, 14_400).astype(np.int64) // STEP_S * STEP_S + STEP_S
    cloud = rng.integers(0, len(DEVOPS_CLOUDS), builds)
    batch = np.repeat(np.arange(builds), guests_per_build)
    kind = rng.choice(len(flavors), len(batch), p=_BUILD_SHARES)
    return Workload(
        name=f"devops, {days} days",
        specs=tuple(specs),
        arrival_s=start[batch],
        departure_s=(start + lasts)[batch],
        spec=cloud[batch] * len(flavors) + kind,
        batch=batch,
        group=np.full(len(batch), ALONE),
        standing=0,
        start_s=0,
        end_s=days * DAY_S,
    )


_BUILD_FLAVORS: Final = (("build.s", 2, 4096), ("build.m", 4, 8192), ("build.l", 8, 16_384), ("build.xl", 16, 32_768))
_BUILD_SHARES: Final = (0.45, 0.35, 0.15, 0.05)
"""Of the guests, by flavor."""
