"""The order in which regions are asked."""

from __future__ import annotations

import random

import pytest

from hostler.core.machine.region_summary import SHAPE_CLASSES, AreaSummary, RegionSummary
from hostler.core.regions.choice import Known, Wish, ordered, room, stripped
from hostler.core.regions.options import RegionOptions
from hostler.placement.types.errors import InvalidValue, UnknownName


def summary_of(hosts: list[tuple[int, int]], zone: str = "nova", pool: str = "") -> RegionSummary:
    """Of hosts with free (vCPUs, MiB)."""
    fits = [sum(min(v // shape.vcpus, m // shape.memory_mb) for v, m in hosts) for shape in SHAPE_CLASSES]
    vcpus, memory_mb = sum(v for v, _ in hosts), sum(m for _, m in hosts)
    return RegionSummary(1, (AreaSummary(zone, pool, len(hosts), vcpus, memory_mb, 0, tuple(fits)),))


def known(name: str, free: int | None, *, distrusted: bool = False, **options: object) -> Known:
    """A region of one host with so many free vCPUs, of 4 GiB each; None: it has told nothing."""
    summary = None if free is None else summary_of([(free, 4_096 * free)])
    made = RegionOptions(addresses=("unix:/none",), **options)  # type: ignore[arg-type]  # options of these types
    return Known(name, made, summary, (0, 0), distrusted)


def order(
    regions: list[Known], wish: Wish, policy: str = "cheapest", attempts: int = 9, doubtful: int = 9
) -> list[str]:
    return ordered(regions, wish, policy, attempts=attempts, doubtful=doubtful)  # type: ignore[arg-type]  # one of them


WISH = Wish(4, 8_192)


def test_what_fits_lies_within_the_bounds_of_the_summary() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        hosts = [(chance.randrange(64), chance.randrange(200_000)) for _ in range(chance.randint(1, 6))]
        wish = Wish(chance.randint(0, 40), chance.randint(1, 90_000))
        exact = sum(min(v // wish.vcpus if wish.vcpus else 10**9, m // wish.memory_mb) for v, m in hosts)
        least, most = room(summary_of(hosts), wish)
        assert least <= exact <= most


def test_regions_with_room_come_by_the_policy_and_full_ones_last() -> None:
    regions = [
        known("dear", 64, price=3.0, latency={"x": 1.0}),
        known("cheap", 8, price=1.0, latency={"x": 9.0}),
        known("full", 0, price=0.1),
        known("unknown", None, price=0.5),
    ]
    assert order(regions, WISH) == ["cheap", "dear", "unknown", "full"]
    assert order(regions, WISH, "most_room") == ["dear", "cheap", "unknown", "full"]
    assert order(regions, WISH._replace(near="x"), "nearest") == ["dear", "cheap", "unknown", "full"]
    assert order(regions, WISH, doubtful=0) == ["cheap", "dear", "unknown"]
    assert order(regions, WISH, attempts=2, doubtful=1) == ["cheap", "full"]


def test_a_public_cloud_comes_after_all_that_may_have_room() -> None:
    regions = [known("public", 64, last=True), known("own", 8, price=9.0), known("liar", 8, distrusted=True)]
    assert order(regions, WISH) == ["own", "liar", "public"]


def test_what_was_claimed_since_the_summary_counts_as_taken_and_what_was_released_as_free() -> None:
    full = known("a", 0)._replace(claimed=(-4, -8_192))
    taken = known("b", 8)._replace(claimed=(8, 8_192))
    assert order([taken, full], WISH, doubtful=0) == ["b", "a"]
    assert order([taken, known("c", 8, price=5.0)], WISH) == ["c", "b"]


def test_a_wish_that_no_region_can_fulfil_is_an_error() -> None:
    regions = [known("eu", 8, traits=("GDPR",), zones=("eu-1",)), known("us", 8)]
    assert order(regions, WISH._replace(traits=("GDPR",))) == ["eu"]
    assert order(regions, WISH._replace(regions=("us",))) == ["us"]
    with pytest.raises(UnknownName):
        order(regions, WISH._replace(regions=("mars",)))
    with pytest.raises(InvalidValue):
        order(regions, WISH._replace(traits=("GDPR",), zone="eu-2"))


def test_a_wish_that_a_region_could_fulfil_is_no_error_while_that_does_not_answer() -> None:
    away = known("eu", 8, traits=("GDPR",), zones=("eu-1",))._replace(alive=False)
    regions = [away, known("us", 8)]
    assert order(regions, WISH._replace(traits=("GDPR",))) == []
    assert order(regions, WISH._replace(regions=("eu",))) == ["eu"]
    with pytest.raises(InvalidValue):
        order(regions, WISH._replace(traits=("FAST",)))


def test_a_region_gets_the_rest_of_the_path_and_not_its_parents_hints() -> None:
    hints = {"region": ("eu/fra", "us"), "region_traits": ("GDPR",), "near": ("x",), "same_host": ("u",)}
    assert stripped(hints, "eu", of_regions=True) == {"region": ("fra",), "near": ("x",), "same_host": ("u",)}
    assert stripped(hints, "us") == {"same_host": ("u",)}
