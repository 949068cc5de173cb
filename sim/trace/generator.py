"""A workload generator fitted to a trace: as many years of guests as wanted, with growth, day by day. Seeded.

Batches come at random at the trace's rate for the hour of the day and, if it tells of a week, for the day; each is a
batch of the trace with its flavors and lifetimes. Where the trace ended before a guest did, its lifetime is drawn from
the distribution of lifetimes (``Lifetimes``), given that it is longer.

Guests that stand at the beginning of the trace are not arrivals: what is made begins with the guests that are there at
the trace's end, with what is left of their lives. A trace without such guests tells only how many arrive: with
``warm_up`` what is made begins with the guests that days before it, which are not counted, have left standing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...placement.types.errors import InvalidValue
from ...placement.types.request import Flavor, RequestSpec
from .lifetimes import Lifetimes
from .workload import ALONE, DAY_S, NEVER, STEP_S, Workload

WEEK: Final = 7
"""Days after which a trace has told how they differ."""
MOST_GUESTS: Final = 50_000_000
"""In one workload, whose columns are in memory."""
MOST_HOURS: Final = 24 * 366 * 20
MOST_WARM_UP: Final = 365 * 3
"""Days before the beginning that may be made to find who stands at it."""
SNIFFED: Final = 20
SNIFFED_TIMES: Final = 5
"""So many guests in the trace's first step, and so many times as many as in any other, are guests that stand there."""
_COLUMNS: Final = ("arrival_s", "departure_s", "spec", "batch", "group")


class Made:
    """``hours`` of guests like the trace's, ``scale`` times as many, growing by a part per year, which each seed draws
    with the standard deviation ``growth_error``. Days are made in turn, each from the seed and its number: the same for
    the same seed, and no more than one is in memory. ``notes`` says what was assumed. Without ``standing`` no guest
    stands at the beginning.

    InvalidValue for a trace or figures that give nothing: a trace all of whose guests come in one step has no rate.
    """

    def __init__(
        self,
        trace: Workload,
        *,
        hours: float,
        seed: int,
        growth_per_year: float = 0.0,
        growth_error: float = 0.0,
        scale: float = 1.0,
        warm_up: bool = False,
        standing: bool = True,
    ) -> None:
        if not 0 < hours <= MOST_HOURS or not growth_per_year > -1 or not scale > 0 or not growth_error >= 0:
            raise InvalidValue("hours, growth or scale is out of range", field="hours")
        self.notes: list[str] = list(trace.notes)
        trace = self._sniffed(trace)
        stood = _part(trace, slice(0, trace.standing))
        self.trace = trace = _arriving(trace)
        if trace.end_s - trace.start_s < DAY_S:
            seen_h = (trace.end_s - trace.start_s) / 3600
            self.notes.append(f"the trace tells of {seen_h:.1f} h only: all other hours have the mean rate")
        self.seed, self.scale = seed, scale
        drawn = np.random.default_rng([seed, 6]).normal(growth_per_year, growth_error)
        self.growth_per_year = max(-0.99, float(drawn)) if growth_error else growth_per_year
        self.name = f"{trace.name}, {hours:g} h made"
        self.specs, self.terms = trace.specs, trace.terms
        self.start_s, self.end_s = 0, max(1, round(hours * 3600 / STEP_S)) * STEP_S
        self.memory_per_vcpu = trace.memory_per_vcpu
        """The trace's."""
        self._first, self._sizes, self._order = _batches(trace)
        self._rates, self._days = _rates(trace, len(self._first))
        self._seen_s = max(trace.horizon_s, stood.horizon_s)
        """Until when the trace's guests were under observation."""
        # The first day that is made is that of the week which follows the trace's last.
        self._phase_s = round((trace.end_s - trace.start_s) / DAY_S) * DAY_S
        self.epoch_s: int | None = None
        if trace.epoch_s is not None:
            self.epoch_s = (trace.epoch_s + trace.start_s) // DAY_S * DAY_S + self._phase_s
        self._lifetimes = np.where(trace.departure_s == NEVER, NEVER, trace.departure_s - trace.arrival_s)
        aged = stood.arrival_s < trace.start_s - STEP_S
        self._fitted = _fitted([trace, _part(stood, aged)], trace.start_s, self._seen_s)
        self._grouped = bool((trace.group != ALONE).any() or (stood.group != ALONE).any())
        if not standing:
            self._standing = _part(trace, slice(0, 0))
        elif len(stood):
            self._standing = self._left_standing(stood, aged)
            self.notes.append(f"begins with the {len(self._standing):,} guests that stand at the trace's end")
        else:
            self._standing = self._warmed_up() if warm_up else _part(trace, slice(0, 0))
        self.standing = len(self._standing)
        self.notes.append(str(self._fitted))

    @property
    def horizon_s(self) -> int:
        """The end of what is made."""
        return self.end_s

    @property
    def steps(self) -> range:
        """The times at which guests may come; the standing ones do one step before the beginning."""
        return range(self.start_s - STEP_S if self.standing else self.start_s, self.end_s, STEP_S)

    @property
    def lifetimes(self) -> Lifetimes:
        """The distribution that lifetimes are drawn from."""
        return self._fitted

    def left_of_others(self, count: int, seed: int) -> NDArray[np.int64]:
        """What is left of the lives of ``count`` other guests that stand at the beginning, in seconds; NEVER for those
        that never end."""
        return self._fitted.left(self._seen_s - self.trace.start_s, count, np.random.default_rng([seed, 8]))

    def rate(self, at_s: NDArray[np.int64]) -> NDArray[np.float64]:
        """Batches that come in the step that begins then, on average."""
        growth: NDArray[np.float64] = (1.0 + self.growth_per_year) ** (at_s / (365 * DAY_S))
        day = (at_s + self._phase_s) // DAY_S % WEEK
        return self._rates[at_s % DAY_S // 3600] * self._days[day] * self.scale * growth

    @property
    def expected(self) -> float:
        """How many guests arrive on average. O(steps)."""
        when = np.arange(self.start_s, self.end_s, STEP_S)
        return float(self.rate(when).sum()) * len(self.trace) / len(self._first)

    def parts(self) -> Iterator[Workload]:
        """The standing guests, if there are any, then a day in each part. O(guests)."""
        batches = groups = 0
        if self.standing:
            yield self._standing
            batches = int(self._standing.batch.max()) + 1
            groups = int(self._standing.group.max()) + 1
        for start_s in range(self.start_s, self.end_s, DAY_S):
            part = self._day(start_s, batches, groups)
            batches = int(part.batch[-1]) + 1 if len(part) else batches
            groups = max(groups, int(part.group.max(initial=ALONE)) + 1)
            yield part

    def whole(self) -> Workload:
        """All guests at once. InvalidValue for more than MOST_GUESTS."""
        if self.expected + self.standing > MOST_GUESTS:
            raise InvalidValue(f"that would be more than {MOST_GUESTS:,} guests", field="hours")
        parts = list(self.parts())
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        whole: dict[str, Any] = {"start_s": self.start_s, "end_s": self.end_s, "standing": self.standing}
        return replace(parts[0], closed=True, **whole, **columns)

    def _day(self, start_s: int, batches: int, groups: int) -> Workload:
        """The guests of a day; ``batches`` and ``groups`` came before."""
        day = start_s // DAY_S
        rng = np.random.default_rng([self.seed, 4, day] if day >= 0 else [self.seed, 7, -day])
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
            terms=self.terms,
            arrival_s=arrival,
            departure_s=self._departures(guests, arrival, rng),
            spec=self.trace.spec[guests],
            batch=batch,
            group=self._groups(guests, batch, groups),
            standing=0,
            start_s=start_s,
            end_s=end_s,
        )

    # who stands at the beginning

    def _sniffed(self, trace: Workload) -> Workload:
        """The trace with guests taken for standing that come together in its first step as never again."""
        if trace.standing or not len(trace):
            return trace
        _, counts = np.unique(trace.arrival_s, return_counts=True)
        first = int(counts[0])
        if len(counts) < 2 or first < SNIFFED or first < SNIFFED_TIMES * int(counts[1:].max()):
            return trace
        self.notes.append(f"the {first:,} guests of the trace's first step are taken for guests that stood there")
        return replace(trace, standing=first)

    def _left_standing(self, standing: Workload, aged: NDArray[np.bool_]) -> Workload:
        """The guests that are there at the trace's end, from the beginning of what is made."""
        trace, end_s = self.trace, self.trace.end_s
        rng = np.random.default_rng([self.seed, 5])
        # Of guests whose age is not known, what is left of their lives is what is left of such guests' lives.
        unknown = _part(standing, ~aged)
        since_start = replace(unknown, arrival_s=np.full(len(unknown), trace.start_s))
        left = _fitted([since_start], trace.start_s, self._seen_s)
        parts = []
        for each, lifetimes in ((_part(standing, aged), self._fitted), (since_start, left), (trace, self._fitted)):
            here = _part(each, each.departure_s > end_s)
            never = here.departure_s == NEVER
            ages = np.maximum(self._seen_s - here.arrival_s, 0)[never]
            lives = lifetimes.beyond(ages, rng.random(len(ages)))
            departure = here.departure_s.copy()
            departure[never] = np.where(lives == NEVER, NEVER, here.arrival_s[never] + lives)
            parts.append(replace(here, departure_s=np.where(departure == NEVER, NEVER, departure - end_s)))
        if len(unknown):
            self.notes.append(f"of the guests that stood at its beginning: {left}")
        return self._stand(parts)

    def _warmed_up(self) -> Workload:
        """The guests that stand at the beginning after days that are not counted."""
        settled = self._fitted.settled_s()
        seen = max(1, math.ceil((self.trace.end_s - self.trace.start_s) / DAY_S))
        days = seen if math.isinf(settled) else min(max(1, math.ceil(settled / DAY_S)), MOST_WARM_UP)
        parts = []
        for day in range(-days, 0):
            part = self._day(day * DAY_S, 0, 0)
            parts.append(_part(part, part.departure_s > 0))
        why = f" (as long as the trace: {100 * self._fitted.forever:.1f} % never end)" if math.isinf(settled) else ""
        self.notes.append(
            f"begins as after a warm-up of {days:,} day{'s' if days > 1 else ''} that is not counted{why}"
        )
        return self._stand(parts)

    def _stand(self, parts: Sequence[Workload]) -> Workload:
        """Guests that stand at the beginning, with new numbers of their batches and groups."""
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        count = len(columns["arrival_s"])
        if not count:
            return replace(self.trace, name=self.name, standing=0, start_s=0, end_s=0, **columns)
        part_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        for name in ("batch", "group"):
            pairs = np.stack([part_of, columns[name]])
            columns[name] = np.where(
                columns[name] == ALONE, ALONE, np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
            )
        columns["arrival_s"] = np.full(count, -STEP_S)
        return replace(self.trace, name=self.name, standing=count, start_s=0, end_s=0, **columns)

    def _departures(
        self, guests: NDArray[np.int64], arrival: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        lifetime = self._lifetimes[guests]
        cut = np.flatnonzero(lifetime == NEVER)
        at_least = (self._seen_s - self.trace.arrival_s)[guests[cut]]
        lifetime[cut] = self._fitted.beyond(at_least, rng.random(len(cut)))
        return np.where(lifetime == NEVER, NEVER, arrival + lifetime)

    def _groups(self, guests: NDArray[np.int64], batch: NDArray[np.int64], known: int) -> NDArray[np.int64]:
        """Groups of the trace, renumbered for each batch that repeats them; ``known`` numbers are in use. O(guests)."""
        groups = np.full(len(guests), ALONE)
        if not self._grouped:
            return groups
        grouped = self.trace.group[guests] != ALONE
        pairs = np.stack([batch[grouped], self.trace.group[guests][grouped]])
        groups[grouped] = known + np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
        return groups


def _part(trace: Workload, which: slice | NDArray[np.bool_]) -> Workload:
    """Some of a trace's guests, none of them standing."""
    return replace(trace, standing=0, **{name: getattr(trace, name)[which] for name in _COLUMNS})


def _fitted(groups: list[Workload], start_s: int, seen_s: int) -> Lifetimes:
    """The lifetimes of guests that arrived, and of standing ones whose age is known."""
    columns = []
    for each in groups:
        ended = each.departure_s < NEVER
        leave = np.where(ended, each.departure_s, seen_s) - each.arrival_s
        columns.append((np.maximum(start_s - each.arrival_s, 0), leave, ended))
    entry, leave, ended = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Lifetimes(entry, leave, ended)


def generate(trace: Workload, *, hours: float, seed: int, growth_per_year: float = 0.0, scale: float = 1.0) -> Workload:
    """The guests of ``Made`` all at once. O(guests). InvalidValue for a trace or figures that give nothing or too
    much."""
    return Made(trace, hours=hours, seed=seed, growth_per_year=growth_per_year, scale=scale).whole()


def _arriving(trace: Workload) -> Workload:
    """The trace without its standing guests, which came at times that it does not tell."""
    if trace.standing >= len(trace):
        raise InvalidValue(f"{trace.name}: no guest arrives", field="trace")
    if not trace.closed and trace.end_s - trace.start_s <= STEP_S:
        problem = f"{trace.name}: all guests come in one step, so that nothing tells how many come later"
        raise InvalidValue(problem, field="trace", hint="a trace of some days is needed to make guests like its own")
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
    # A trace that ends with an arrival was seen for so long because of it: one arrival less gives its rate.
    counted = 1.0 if trace.closed or batches < 2 else (batches - 1) / batches
    by_hour = counted * np.where(seen > 0, arrived / np.maximum(seen, 1), batches / max(1, len(steps)))
    if len(steps) * STEP_S < WEEK * DAY_S:
        return by_hour, np.ones(WEEK)
    expected = np.bincount(steps // DAY_S % WEEK, by_hour[steps % DAY_S // 3600], minlength=WEEK)
    came = np.bincount(times // DAY_S % WEEK, minlength=WEEK)
    # The hours have that correction already, and what is expected with them: the days must not take it back.
    return by_hour, counted * came / expected


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
