"""Caches let go of what they forget a little at a time, and without garbage that only the collector finds."""

from __future__ import annotations

import gc
import itertools
import weakref

import pytest

from hostler import Engine, Flavor, Fleet, Host, Request, RequestSpec
from hostler.placement.decide import shape_table
from hostler.placement.load.adding import add_hosts
from hostler.placement.types.recently_used import FREED, RecentlyUsed
from hostler.placement.types.slowly_freed import SlowlyFreed


class Value:
    """Something that can be seen to be freed."""


def test_entries_are_freed_a_few_at_a_time_whatever_holds_them() -> None:
    freed = SlowlyFreed()
    values = [Value() for _ in range(10)]
    there = [weakref.ref(each) for each in values]
    freed.add({}, [], dict(enumerate(values[:5])), values[5:])
    values.clear()
    left = []
    while freed.parts:
        freed.free(3)
        left.append(sum(each() is not None for each in there))
    assert left == [7, 4, 1, 0]
    freed.free(3)  # of nothing


def test_a_half_of_a_cache_that_is_forgotten_is_freed_with_those_that_come() -> None:
    cache: RecentlyUsed[int, Value] = RecentlyUsed(200)
    there = []
    for number in range(200):  # the first hundred become the older half at 101
        value = Value()
        there.append(weakref.ref(value))
        cache.keep(number, value, 1)
        del value
    living = [sum(each() is not None for each in there[:100])]
    for number in range(200, 220):
        cache.keep(number, Value(), 1)
        living.append(sum(each() is not None for each in there[:100]))
    assert living[0] == 100
    assert living[-1] == 0
    assert all(before - after <= FREED + 1 for before, after in itertools.pairwise(living))
    cache.clear()
    assert not cache.both()
    assert cache.nbytes == 0


def test_new_shapes_without_end_leave_no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_table, "PARTS", 100)
    engine = Engine(Fleet())
    add_hosts(engine.fleet, [Host(host="h", vcpus_total=10_000, total_usable_ram_mb=1 << 30)])
    memory = iter(range(64, 10_000))
    batches = [
        [Request(spec=RequestSpec(flavor=Flavor(name="own", vcpus=1, memory_mb=next(memory)))) for _ in range(50)]
        for _ in range(20)
    ]
    tables = []
    gc.collect()
    gc.disable()
    try:
        for batch in batches:
            engine.place_many(batch)
            tables.append(weakref.ref(engine._context.compiled.shapes))
        assert len({id(table()) for table in tables} - {id(None)}) == 1
        assert sum(table() is None for table in tables) > 10
    finally:
        gc.enable()
