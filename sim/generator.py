"""A workload generator fitted to a trace: as many years of guests as wanted, with growth. Seeded.

Batches come at random at the trace's rate for the hour of the day; each is a batch of the trace with its flavors and
lifetimes. Where the trace ended before a guest did, its lifetime is drawn from those of guests that lived longer.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..placement.errors import InvalidValue
from ..placement.request import Flavor, RequestSpec
from .workload import ALONE, NEVER, STEP_S, Workload

DAY_S: Final = 86_400
MOST_GUESTS: Final = 50_000_000


def generate(trace: Workload, *, hours: float, seed: int, growth_per_year: float = 0.0, scale: float = 1.0) -> Workload:
    """``hours`` of guests like the trace's, ``scale`` times as many, growing by a part per year. The same for the same
    seed. O(guests). InvalidValue for a trace or figures that give nothing or too much."""
    steps = max(1, round(hours * 3600 / STEP_S))
    if not 0 < hours <= 24 * 366 * 20 or not growth_per_year > -1 or not scale > 0:
        raise InvalidValue("hours, growth or scale is out of range", field="hours")
    rng = np.random.default_rng([seed, 4])
    first, sizes, order = _batches(trace)
    when = np.arange(steps)
    rate = _rates(trace, len(first))[(when * STEP_S % DAY_S) // 3600] * scale
    rate = rate * (1.0 + growth_per_year) ** (when * STEP_S / (365 * DAY_S))
    if rate.sum() * len(trace) / len(first) > MOST_GUESTS:
        raise InvalidValue(f"that would be more than {MOST_GUESTS:,} guests", field="hours")
    coming = rng.poisson(rate)
    chosen = rng.integers(0, len(first), int(coming.sum()))
    counts = sizes[chosen]
    batch = np.repeat(np.arange(len(chosen)), counts)
    guests = order[np.repeat(first[chosen] - np.cumsum(counts) + counts, counts) + np.arange(int(counts.sum()))]
    arrival = np.repeat(np.repeat(when * STEP_S, coming), counts)
    return Workload(
        name=f"{trace.name}, {hours:g} h made",
        specs=trace.specs,
        arrival_s=arrival,
        departure_s=_departures(trace, guests, arrival, rng),
        spec=trace.spec[guests],
        batch=batch,
        group=_groups(trace, guests, batch),
        standing=0,
        start_s=0,
        end_s=steps * STEP_S,
    )


def _batches(trace: Workload) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where each batch begins in the guests sorted by batch, its size, and that order."""
    order = np.argsort(trace.batch, kind="stable")
    _, first, sizes = np.unique(trace.batch[order], return_index=True, return_counts=True)
    return first, sizes, order


def _rates(trace: Workload, batches: int) -> NDArray[np.float64]:
    """Batches per step by hour of the trace's day; hours that the trace never reached have the mean rate."""
    times = trace.arrival_s[np.unique(trace.batch, return_index=True)[1]] - trace.start_s
    arrived = np.bincount(times % DAY_S // 3600, minlength=24).astype(np.float64)
    steps = np.arange((trace.end_s - trace.start_s) // STEP_S) * STEP_S
    seen = np.bincount(steps % DAY_S // 3600, minlength=24)
    mean = batches / max(1, len(steps))
    return np.where(seen > 0, arrived / np.maximum(seen, 1), mean)


def _departures(
    trace: Workload, guests: NDArray[np.int64], arrival: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    ended = trace.departure_s != NEVER
    known = np.sort((trace.departure_s - trace.arrival_s)[ended])
    lifetime = (trace.departure_s - trace.arrival_s)[guests]
    cut = np.flatnonzero(~ended[guests])
    at_least = (trace.end_s - trace.arrival_s)[guests[cut]]
    longer = np.searchsorted(known, at_least, side="right")
    drawn = longer + np.floor(rng.random(len(cut)) * (len(known) - longer)).astype(np.int64)
    found = drawn < len(known)
    lifetime[cut[found]] = known[drawn[found]]
    return np.where(np.isin(np.arange(len(guests)), cut[~found]), NEVER, arrival + lifetime)


def _groups(trace: Workload, guests: NDArray[np.int64], batch: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups of the trace, anew for each batch that repeats them."""
    grouped = trace.group[guests] != ALONE
    if not grouped.any():
        return np.full(len(guests), ALONE)
    pairs = np.stack([batch[grouped], trace.group[guests][grouped]])
    groups = np.full(len(guests), ALONE)
    groups[grouped] = np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
    return groups


DEVOPS_CLOUDS: Final = ("cloud-1", "cloud-2", "cloud-3")


def devops(*, days: int = 5, seed: int, builds_per_day: int = 50, guests_per_build: int = 30) -> Workload:
    """Builds of a working week: each starts its guests at once, in one of three clouds (zones), mostly in working
    hours, and gives all of them back after a quarter of an hour to four hours; nothing on the sixth and seventh day."""
    if days < 1 or builds_per_day < 1 or guests_per_build < 1 or days * builds_per_day * guests_per_build > MOST_GUESTS:
        raise InvalidValue("a devops preset needs days, builds and guests", field="days")
    rng = np.random.default_rng([seed, 5])
    flavors = [Flavor(name=name, vcpus=v, memory_mb=m, root_gb=40) for name, v, m in _BUILD_FLAVORS]
    specs = [RequestSpec(flavor=flavor, availability_zone=zone) for zone in DEVOPS_CLOUDS for flavor in flavors]
    working = [day for day in range(days) if day % 7 < 5]
    counts = rng.poisson(builds_per_day * 1.2, len(working)).clip(builds_per_day)
    builds = int(counts.sum())
    hour = np.clip(rng.normal(13.0, 2.5, builds), 6.0, 21.9)
    start = np.repeat(np.array(working, np.int64) * DAY_S, counts) + (hour * 3600).astype(np.int64) // STEP_S * STEP_S
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
