"""When garbage is collected: new objects soon, all when no call waits, and at the latest after an hour."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from hostler.bench.growth_changes import Library, spec_of
from hostler.core.process import gc_policy
from hostler.core.process.gc_policy import (
    ALL_SECONDS,
    FEW,
    GROWN_BYTES,
    GROWN_SECONDS,
    LONGEST_SECONDS,
    MANY_ENDED,
    NEW_SECONDS,
    REST_SECONDS,
    collect,
    no_automatic_collection,
)
from hostler.placement.types.request import Request


class Ring:
    """What only the collector frees."""

    def __init__(self) -> None:
        self.me = self


def ring() -> weakref.ref[Ring]:
    return weakref.ref(Ring())


def old_ring() -> weakref.ref[Ring]:
    """One that was looked at while it was no garbage, and is not new any more."""
    kept = Ring()
    gc.collect(0)
    return weakref.ref(kept)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No collection but those that are asked for."""
    with no_automatic_collection():
        yield


@pytest.fixture
def steps() -> list[int]:
    """How far the service has come."""
    return [0]


@pytest.fixture
async def collecting(uncollected: None, nursery: trio.Nursery, steps: list[int]) -> None:
    nursery.start_soon(collect, lambda: steps[0])
    await trio.testing.wait_all_tasks_blocked()


async def busy(seconds: float, steps: list[int]) -> None:
    for _ in range(round(seconds / 10)):
        steps[0] += 1
        await trio.sleep(10)


def test_nothing_is_collected_by_itself_until_the_end() -> None:
    assert gc.isenabled()
    with no_automatic_collection():
        with no_automatic_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
        made = [ring() for _ in range(2_000)]
        assert all(each() is not None for each in made)
    assert gc.isenabled()
    gc.collect()
    assert all(each() is None for each in made)


async def test_what_is_new_goes_soon(autojump_clock: MockClock, collecting: None) -> None:
    new = ring()
    assert new() is not None
    await trio.sleep(2 * NEW_SECONDS)
    assert new() is None


async def test_what_is_new_is_looked_for_less_often_while_there_is_little(
    autojump_clock: MockClock, collecting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, found = list[float](), gc.collect

    def counted(generation: int = 2) -> int:
        looks.append(trio.current_time())
        return found(generation)

    monkeypatch.setattr(gc, "collect", counted)
    await trio.sleep(20 * REST_SECONDS)
    assert len(looks) <= 23, "an idle service does not spend its time so"
    new = ring()
    await trio.sleep(REST_SECONDS + 0.01)
    assert new() is None
    kept = list[list[int]]()
    looks.clear()
    for _ in range(40):
        kept += [[] for _ in range(FEW)]
        await trio.sleep(NEW_SECONDS)
    assert len(looks) >= 30, "they are frequent where there is much"


async def test_what_is_old_goes_when_nothing_has_happened_for_a_while(
    autojump_clock: MockClock, collecting: None, steps: list[int]
) -> None:
    old = old_ring()
    await busy(2 * ALL_SECONDS, steps)
    assert old() is not None
    await trio.sleep(ALL_SECONDS + 1)
    assert old() is None


async def test_what_is_old_goes_after_an_hour_whatever_happens(
    autojump_clock: MockClock, collecting: None, steps: list[int]
) -> None:
    old = old_ring()
    await busy(LONGEST_SECONDS - 100, steps)
    assert old() is not None
    await busy(200, steps)
    assert old() is None


async def test_all_is_looked_at_but_once_while_nothing_happens(
    autojump_clock: MockClock, collecting: None, steps: list[int]
) -> None:
    await busy(20, steps)
    await trio.sleep(ALL_SECONDS + 1)
    old = old_ring()
    await trio.sleep(10 * ALL_SECONDS)
    assert old() is not None


async def test_what_connections_leave_goes_too_and_its_memory_back_to_the_system(
    autojump_clock: MockClock, uncollected: None, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, given_back = [0], [0]

    def count() -> None:
        given_back[0] += 1

    monkeypatch.setattr(gc_policy, "give_back", count)
    nursery.start_soon(collect, lambda: 0, lambda: ended[0])
    await trio.sleep(3 * ALL_SECONDS)
    assert given_back == [0]
    old = old_ring()
    for _ in range(5):
        ended[0] += 1
        await trio.sleep(1.0)
    await trio.sleep(2 * NEW_SECONDS)
    assert (old(), given_back) == (None, [1])
    old = old_ring()
    ended[0] += 1
    await trio.sleep(ALL_SECONDS / 2)
    assert old() is not None
    await trio.sleep(ALL_SECONDS / 2 + NEW_SECONDS)
    assert (old(), given_back) == (None, [2])


async def test_the_memory_of_many_connections_goes_back_under_load_too(
    autojump_clock: MockClock, uncollected: None, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, steps, given_back = [0], [0], list[int]()
    monkeypatch.setattr(gc_policy, "give_back", lambda: given_back.append(ended[0]))
    nursery.start_soon(collect, lambda: steps[0], lambda: ended[0])
    for now in (0, MANY_ENDED - 1, MANY_ENDED, 2 * MANY_ENDED - 1, 2 * MANY_ENDED + 5):
        ended[0] = now
        await busy(GROWN_SECONDS + 1, steps)
    assert given_back == [MANY_ENDED, 2 * MANY_ENDED + 5]


async def test_all_is_collected_and_given_back_when_the_process_has_grown(
    autojump_clock: MockClock, uncollected: None, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, size, given_back = [0], [10 * GROWN_BYTES], list[int]()
    monkeypatch.setattr(gc_policy, "give_back", lambda: given_back.append(size[0]))
    nursery.start_soon(collect, lambda: steps[0], lambda: 0, lambda: size[0])
    await trio.testing.wait_all_tasks_blocked()
    old = old_ring()
    await busy(50, steps)
    size[0] += 2 * GROWN_BYTES
    await busy(50, steps)
    assert old() is not None
    size[0] += GROWN_BYTES
    await busy(30, steps)
    assert old() is None
    assert given_back == [13 * GROWN_BYTES]


async def test_what_was_in_use_is_looked_at_again_when_nothing_happens(
    autojump_clock: MockClock, uncollected: None, nursery: trio.Nursery
) -> None:
    steps, size, kept = [0], [10 * GROWN_BYTES], Ring()
    nursery.start_soon(collect, lambda: steps[0], lambda: 0, lambda: size[0])
    await trio.testing.wait_all_tasks_blocked()
    size[0] += 3 * GROWN_BYTES
    await busy(30, steps)
    frozen, before = gc.get_freeze_count(), weakref.ref(kept)
    assert frozen
    del kept
    size[0] += 5 * GROWN_BYTES
    await busy(30, steps)
    assert before() is not None  # it was frozen, and that took no time
    await trio.sleep(ALL_SECONDS + 1)
    assert before() is None


def test_what_compiled_requests_let_go_of_is_freed_at_once(uncollected: None) -> None:
    engine = Library().engine
    for number in range(40):
        engine.release(engine.place(Request(spec=spec_of(number))).selected.instance_uuid)
    gc.collect()
    made = [weakref.ref(known.signature) for known in engine._context.compiled.by_spec.values()]
    assert len(made) == 40
    engine._context.compiled.forget()
    assert [each for each in made if each() is not None] == []
