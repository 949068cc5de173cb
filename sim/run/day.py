"""A made-up day of a cloud: guests that come and go as Azure's did in 2017, so many that a given fleet is half full.

Flavors, batch sizes, the shape of the day and lifetimes are drawn from azure2017.py, each by itself. What it does not
hold is made up here: disks, zones, tiers, a trait, anti-affinity groups, and requests that no host can take.
"""

from __future__ import annotations

import itertools
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...placement.types.ordered_sum import ordered_sum
from ...placement.types.request import Flavor, RequestSpec
from ..trace import azure2017
from ..trace.workload import ALONE, STEP_S, Workload
from .cloud import NVME, ZONES, Cloud

FILL: Final = 0.5
"""Part of the fleet's vCPUs that the standing guests take, and that arrivals replace on average over a day."""
OUTLIVING_S: Final = 864_000
"""Lifetime of the guests that outlive the trace's four days; it can't say more of them."""
DISK_GB_PER_VCPU: Final = 20
LARGE_MEMORY_MB_PER_VCPU: Final = 7_000
"""A flavor with as much memory as this belongs to the tier "memory"."""
MISFIT: Final = Flavor(name="giant", vcpus=96, memory_mb=786_432, root_gb=100)
"""Larger than any host."""

IN_A_ZONE: Final = 0.30
"""Share of the tenant batches that name a zone."""
WITH_NVME: Final = 0.01
MISFITS: Final = 0.0002
"""Share of the small batches that need the trait NVME, and that ask for MISFIT; no standing guest does."""
APART: Final = 0.25
"""Share of the small batches of two and more that form an anti-affinity group."""
SMALL: Final = 10
"""Guests of a small batch at most; larger ones have no special wishes."""

_KINDS: Final = (len(azure2017.FLAVORS), len(ZONES) + 1, 2)
"""Requests by flavor, zone (the last: any) and whether they need NVME."""

Column = NDArray[np.int64]


def made_up_day(cloud: Cloud, *, seed: int, hours: int = 24) -> Workload:
    """The standing guests of ``cloud`` and the arrivals of the hours from midnight on. The same for the same seed."""
    rng = np.random.default_rng([seed, 2])
    flavors = np.array(azure2017.FLAVORS, np.float64)
    mean_vcpus = float(np.average(flavors[:, 0], weights=flavors[:, 2]))
    standing = round(FILL * cloud.vcpus / mean_vcpus)
    arrival_s, batch = _arrivals(rng, standing / mean_lifetime_s(), hours)
    arrival_s = np.concatenate([np.full(standing, -STEP_S), arrival_s])
    batch = np.concatenate([np.arange(standing), batch + standing])
    sizes = np.bincount(batch)
    special = (sizes <= SMALL) & (np.arange(len(sizes)) >= standing)
    lifetime_s = _lifetimes(rng, batch, len(sizes))
    lifetime_s[:standing] = _left_of_standing(rng, standing)
    return Workload(
        name={1: "a made-up hour", 24: "a made-up day"}.get(hours, f"{hours} made-up hours"),
        specs=_catalogue(),
        arrival_s=arrival_s,
        departure_s=arrival_s + lifetime_s,
        spec=_specs(rng, special)[batch],
        batch=batch,
        group=_groups(rng, special & (sizes > 1))[batch],
        standing=standing,
        start_s=0,
        end_s=hours * 3600,
    )


def mean_lifetime_s() -> float:
    """Of the lifetimes that are drawn here."""
    ends, starts, shares = _bins()
    return float(((starts + STEP_S + ends) / 2) @ shares)


# when guests come and go


def _bins() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Ends, starts and shares of the lifetime bins; the last is that of the guests that outlive the trace."""
    ends = np.array([*azure2017.LIFETIME_UP_TO_S, OUTLIVING_S], np.float64)
    starts = np.concatenate([[0.0], ends[:-2], [ends[-1] - STEP_S]])
    shares = np.array([*azure2017.LIFETIMES, 1.0 - ordered_sum(azure2017.LIFETIMES)])
    return ends, starts, shares


def _arrivals(rng: np.random.Generator, guests_per_s: float, hours: int) -> tuple[Column, Column]:
    """Arrival and batch of each guest that comes: batches at random with a rate that follows the hour."""
    shape = np.array(azure2017.BATCHES_BY_HOUR)
    steps = np.arange(0, hours * 3600, STEP_S)
    rate = guests_per_s * STEP_S / _mean_batch() * shape / shape.mean()
    batches = rng.poisson(rate[steps // 3600 % len(rate)])
    sizes = _batch_sizes(rng, int(batches.sum()))
    return np.repeat(np.repeat(steps, batches), sizes), np.repeat(np.arange(len(sizes)), sizes)


def _batch_table() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Least and greatest size of each row of BATCH_SIZES, and its share."""
    most, counts = np.array(azure2017.BATCH_SIZES, np.int64).T
    least = np.concatenate([[1], most[:-1] + 1])
    return least, most, counts / counts.sum()


def _mean_batch() -> float:
    least, most, shares = _batch_table()
    return float((least + most) / 2 @ shares)


def _batch_sizes(rng: np.random.Generator, count: int) -> Column:
    least, most, shares = _batch_table()
    row = rng.choice(len(shares), count, p=shares)
    return rng.integers(least[row], most[row], endpoint=True)


def _lifetimes(rng: np.random.Generator, batch: Column, batches: int) -> Column:
    """Lifetime of each guest. Guests take their batch's bin so often that two of it agree as often as they should."""
    ends, starts, shares = _bins()
    by_chance = float(shares @ shares)
    both_follow = (azure2017.SAME_LIFETIME - by_chance) / (1.0 - by_chance)
    own = rng.choice(len(shares), len(batch), p=shares)
    of_batch = rng.choice(len(shares), batches, p=shares)
    bin_of = np.where(rng.random(len(batch)) < math.sqrt(both_follow), of_batch[batch], own)
    first, last = starts[bin_of] // STEP_S + 1, ends[bin_of] // STEP_S
    steps: Column = rng.integers(first.astype(np.int64), last.astype(np.int64), endpoint=True)
    return steps * STEP_S


def _left_of_standing(rng: np.random.Generator, count: int) -> Column:
    """What is left of lives that are met at a random moment: in proportion to their length, at any point of them."""
    ends, starts, shares = _bins()
    means = (starts + STEP_S + ends) / 2
    bin_of = rng.choice(len(shares), count, p=shares * means / (shares @ means))
    left: Column = rng.integers(1, (means[bin_of] // STEP_S).astype(np.int64), endpoint=True)
    # The first step is the one before the story begins.
    return (left + 1) * STEP_S


# what guests ask for


def _catalogue() -> tuple[RequestSpec, ...]:
    """All requests that are made, in the order of _KINDS, and MISFIT."""
    specs = [
        RequestSpec(flavor=_flavor(vcpus, memory_mb, nvme), availability_zone=zone)
        for (vcpus, memory_mb, _), zone, nvme in itertools.product(azure2017.FLAVORS, (*ZONES, None), (False, True))
    ]
    return (*specs, RequestSpec(flavor=MISFIT))


def _flavor(vcpus: int, memory_mb: int, nvme: bool) -> Flavor:
    tier = "memory" if memory_mb / vcpus > LARGE_MEMORY_MB_PER_VCPU and not nvme else "general"
    extra_specs = {"aggregate_instance_extra_specs:tier": tier} | ({f"trait:{NVME}": "required"} if nvme else {})
    name = f"{tier[0]}{vcpus}.{memory_mb / 1024:g}{'.nvme' if nvme else ''}"
    return Flavor(
        name=name, vcpus=vcpus, memory_mb=memory_mb, root_gb=DISK_GB_PER_VCPU * vcpus, extra_specs=extra_specs
    )


def _specs(rng: np.random.Generator, special: NDArray[np.bool_]) -> Column:
    """What each batch asks for, as an index of the catalogue; ``special``: which batches may have special wishes."""
    batches = len(special)
    counts = np.array([guests for *_, guests in azure2017.FLAVORS])
    flavor = rng.choice(len(counts), batches, p=counts / counts.sum())
    named = rng.choice(len(ZONES), batches, p=list(ZONES.values()))
    zone = np.where(rng.random(batches) < IN_A_ZONE, named, len(ZONES))
    nvme = (special & (rng.random(batches) < WITH_NVME)).astype(np.int64)
    asked = np.ravel_multi_index((flavor, zone, nvme), _KINDS)
    return np.where(special & (rng.random(batches) < MISFITS), math.prod(_KINDS), asked)


def _groups(rng: np.random.Generator, several: NDArray[np.bool_]) -> Column:
    """The group that each batch forms, or ALONE; ``several``: which ones may."""
    apart = several & (rng.random(len(several)) < APART)
    return np.where(apart, np.cumsum(apart) - 1, ALONE)
