"""The order in which regions are asked for a request, from their summaries and the policy. Pure: values in, names
out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from ...placement.types.errors import InvalidValue, UnknownName
from ...placement.types.request import RequestSpec
from ..machine.region_summary import SHAPE_CLASSES, VCPU_STEPS, AreaSummary, RegionSummary
from .options import RegionOptions, RegionPolicy

SURE, DOUBTFUL, FULL = range(3)
"""What a summary says of a request: it fits, it may, it does not."""
_UNKNOWN: Final = RegionSummary(-1)


class Wish(NamedTuple):
    """A request as far as regions are chosen by it. ``memory_mb`` in MiB, of each of so many ``guests``; ``regions``:
    those that it names (none: any); ``traits`` that a region must have; ``near``: a place of the latency tables."""

    vcpus: int
    memory_mb: int
    guests: int = 1
    zone: str | None = None
    regions: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    near: str | None = None


class Known(NamedTuple):
    """A region as its parent knows it now. ``summary`` None: it has told none yet. ``claimed``: (vCPUs, MiB) claimed
    there since that summary, less what was released. ``distrusted``: it has refused lately what that promised.
    ``alive``: it answers."""

    name: str
    options: RegionOptions
    summary: RegionSummary | None
    claimed: tuple[int, int] = (0, 0)
    distrusted: bool = False
    alive: bool = True


def wish_of(spec: RequestSpec, count: int) -> Wish:
    """What a request wishes. Its hints ``region`` (names, a path where regions are parents themselves: eu/fra),
    ``region_traits`` and ``near`` are the parent's."""
    hints = spec.scheduler_hints
    near = hints.get("near", ())
    return Wish(
        spec.flavor.vcpus,
        spec.flavor.memory_mb,
        max(count, 1),
        spec.availability_zone,
        tuple(each.partition("/")[0] for each in hints.get("region", ())),
        tuple(hints.get("region_traits", ())),
        near[0] if near else None,
    )


def room(summary: RegionSummary, wish: Wish, claimed: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """(at least, at most) how many such guests fit, as far as vCPUs and memory decide: of the smallest shape class that
    is no smaller, and of the largest that is no larger; less what was claimed
    since, and with what was given back (negative)."""
    areas = [each for each in summary.areas if wish.zone is None or each.zone == wish.zone]
    larger, smaller = _bounds(wish.vcpus, wish.memory_mb)
    least = max((_total(index, areas, exclusive=False) for index in larger), default=0)
    most = min((_total(index, areas, exclusive=True) for index in smaller), default=_by_sums(wish, areas))
    vcpus, memory_mb = claimed
    each = [amount / asked for amount, asked in ((vcpus, wish.vcpus), (memory_mb, wish.memory_mb)) if asked]
    taken = math.ceil(max(each, default=0.0))
    given_back = math.floor(-max(each, default=0.0))  # on whichever hosts, so that it may fit
    return max(least - max(taken, 0), 0), max(most + max(given_back, 0), least)


@lru_cache(maxsize=4_096)
def _bounds(vcpus: int, memory_mb: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Positions of the shape classes by which guests of a size are bounded: for each proportion of memory to vCPUs the
    smallest class that is no smaller, and the largest that is no larger."""
    larger, smaller = list[int](), list[int]()
    for first in range(0, len(SHAPE_CLASSES), VCPU_STEPS):
        same = range(first, first + VCPU_STEPS)
        above = [i for i in same if SHAPE_CLASSES[i].vcpus >= vcpus and SHAPE_CLASSES[i].memory_mb >= memory_mb]
        below = [i for i in same if SHAPE_CLASSES[i].vcpus <= vcpus and SHAPE_CLASSES[i].memory_mb <= memory_mb]
        larger += above[:1]
        smaller += below[-1:]
    return tuple(larger), tuple(smaller)


def _total(index: int, areas: Iterable[AreaSummary], *, exclusive: bool) -> int:
    return sum(each.fits[index] for each in areas if exclusive or not each.pool)


def _by_sums(wish: Wish, areas: Iterable[AreaSummary]) -> int:
    """For guests smaller than every shape class: what the free sums allow."""
    vcpus, memory_mb = 0, 0
    for each in areas:
        vcpus += each.free_vcpus
        memory_mb += each.free_memory_mb
    bounds = [free // asked for free, asked in ((vcpus, wish.vcpus), (memory_mb, wish.memory_mb)) if asked]
    return min(bounds, default=1)


def ordered(regions: Sequence[Known], wish: Wish, policy: RegionPolicy, *, attempts: int, doubtful: int) -> list[str]:
    """The regions to be asked, the best first: at most ``attempts``, of which at most ``doubtful`` have no room by
    their summary. Regions that are ``last`` come after all others that may have room; those that do not answer are left
    out, unless they are named. UnknownName, InvalidValue for a wish that no region can fulfil, whatever room it has
    and whether or not it answers."""
    known = {each.name: each for each in regions}
    for name in wish.regions:
        if name not in known:
            raise UnknownName.among("region", name, known, field="spec.scheduler_hints.region")
    possible = [each for each in regions if _may(each, wish)]
    if not possible:
        hint = "see hostler regions"
        raise InvalidValue("no region is what the request asks for", field="spec.scheduler_hints", hint=hint)
    ranked = []
    for position, each in enumerate(possible):
        if not each.alive and each.name not in wish.regions:
            continue
        least, most = room(each.summary or _UNKNOWN, wish, each.claimed)
        verdict = SURE if least >= wish.guests else DOUBTFUL if most >= wish.guests or each.summary is None else FULL
        if verdict == SURE and each.distrusted:
            verdict = DOUBTFUL
        tier = 4 if verdict == FULL else 2 * each.options.last + verdict
        ranked.append((tier, _preference(each.options, wish, policy, least), position, each.name, verdict))
    ranked.sort()
    names = [name for *_, name, verdict in ranked if verdict != FULL]
    full = [name for *_, name, verdict in ranked if verdict == FULL][:doubtful]
    return [*names[: max(attempts - len(full), 1)], *full][:attempts]


def _may(region: Known, wish: Wish) -> bool:
    """True unless the region is not what the request asks for, whatever room it has."""
    options = region.options
    if wish.regions and region.name not in wish.regions:
        return False
    if not set(wish.traits) <= set(options.traits):
        return False
    return wish.zone is None or not options.zones or wish.zone in options.zones


def _preference(options: RegionOptions, wish: Wish, policy: RegionPolicy, least: int) -> tuple[float, ...]:
    """Less is better: by the policy, then by price, then by latency."""
    cost = (options.price * wish.vcpus + options.price_gib * wish.memory_mb / 1_024) / options.weight
    latency = math.inf if wish.near is None else options.latency.get(wish.near, math.inf) / options.weight
    if policy == "nearest":
        return latency, cost
    if policy == "most_room":
        return -least * options.weight, cost
    return cost, latency, -least * options.weight


def stripped(
    hints: Mapping[str, tuple[str, ...]], region: str, *, of_regions: bool = False
) -> dict[str, tuple[str, ...]]:
    """Hints as a region gets them: of paths of regions, what is behind its own name; ``near`` if it is a parent
    itself."""
    rest = tuple(
        after
        for name, _, after in (each.partition("/") for each in hints.get("region", ()))
        if name == region and after
    )
    own = ("region", "region_traits") if of_regions else ("region", "region_traits", "near")
    kept = {name: values for name, values in hints.items() if name not in own}
    return {**kept, "region": rest} if rest else kept
