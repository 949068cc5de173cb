"""Caches are bounded by bytes: what was used least recently goes, and long texts do not stay."""

from __future__ import annotations

import random
import tracemalloc

from hostler.placement.types.cached_texts import LONGEST, cached_texts
from hostler.placement.types.recently_used import RecentlyUsed

from ..seeds import seeds


def test_what_is_used_again_stays_and_what_is_not_goes() -> None:
    cache: RecentlyUsed[str, str] = RecentlyUsed(1_000)
    cache.keep("often", "value", 100)
    for number in range(100):
        assert (cache.get("often") or cache.again("often")) == "value"
        cache.keep(f"once {number}", "x", 100)
        assert cache.nbytes <= 1_100
    assert cache.get("once 0") is None
    assert cache.again("once 0") is None


def test_bytes_are_what_the_values_that_can_be_found_take() -> None:
    chance, cache, sizes = random.Random(seeds(1, "cache")[0]), RecentlyUsed[int, int](2_000), dict[int, int]()
    for _ in range(3_000):
        key = chance.randrange(40)
        match chance.randrange(4):
            case 0:
                cache.forget(key)
            case 1:
                found = cache.get(key) or cache.again(key)
                assert found in (None, sizes.get(key))
            case _:
                sizes[key] = cache.keep(key, chance.randrange(1, 300), sizes.get(key, 1)) or 0
                cache.keep(key, sizes[key], sizes[key])
        held = dict(cache.both())
        assert len(held) == len(cache.both())
        assert all(sizes[each] == value for each, value in held.items())
        assert cache.nbytes == sum(held.values()) <= 2_300
    cache.clear()
    assert cache.nbytes == len(cache.both()) == 0


def test_long_texts_are_read_each_time() -> None:
    read: list[str] = []

    @cached_texts(100)
    def length(text: str) -> int:
        read.append(text)
        return len(text)

    short, long = "a" * LONGEST, "a" * (LONGEST + 1)
    assert [length(each) for each in (short, short, long, long)] == [LONGEST, LONGEST, LONGEST + 1, LONGEST + 1]
    assert read == [short, long, long]


def test_a_hundred_megabytes_of_requirements_leave_nothing_behind() -> None:
    from hostler.placement.types.extra_specs import parse

    tracemalloc.start()
    try:
        for number in range(100):
            parse(f"<in> {number}" + "x" * 1_000_000)
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()
