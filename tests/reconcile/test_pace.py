"""What the reconciler leaves to others: of the loop, of the places for calls, and of the journal."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from hostler.core.backends.errors import Denied
from hostler.core.engine_commands import Place, PlaceMany, Release
from hostler.core.lifecycle_commands import DeleteGuest, SetBackend
from hostler.core.reconcile.backend import Backend, BackendConfig, HeldBack
from hostler.core.reconcile.pace import LOOK, MANY, SAVED, SHARE, Pace, objects_of
from hostler.core.reconcile.places import Places
from hostler.core.writer.command_queue import BATCH_COST, CommandQueue, Pending
from hostler.drivers.model.driver import Faults

from ..core.orders import asked, uuid_of
from .cloud import Model, create, ready


class Clock:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def _taken(clock: Clock, pace: Pace, commands_a_second: float, seconds: float) -> float:
    """Seconds of the loop that steps of a millisecond get, beside so many commands of others."""
    taken, owed, end = 0.0, 0.0, clock.now + seconds
    while clock.now < end:
        before = clock.now
        if pace._may_go_on():
            clock.now += 0.001
            pace.spend(0.001)
            taken += 0.001
        else:
            clock.now += LOOK
        owed += (clock.now - before) * commands_a_second
        while owed >= 1:
            pace.told()
            owed -= 1
    return taken


def test_without_other_commands_the_reconciler_has_the_loop_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert _taken(clock, Pace(), 0.0, 1.0) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("commands", [MANY * 2, MANY * 20])
def test_beside_many_commands_it_has_its_share(monkeypatch: pytest.MonkeyPatch, commands: float) -> None:
    clock = Clock(monkeypatch)
    pace = Pace()
    _taken(clock, pace, commands, 1.0)
    assert _taken(clock, pace, commands, 10.0) == pytest.approx(10 * SHARE, rel=0.2)
    assert _taken(clock, pace, 0.0, 5.0) > 4.5, "and all of it again, once they have ended"


def test_beside_few_commands_it_has_most_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = Pace()
    _taken(clock, pace, MANY / 5, 1.0)
    assert _taken(clock, pace, MANY / 5, 5.0) > 2.5
    assert pace._left <= SAVED


def test_a_pause_of_the_process_is_not_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = Pace()
    _taken(clock, pace, MANY * 2, 1.0)
    clock.now += 30.0
    pace.spend(30.0)
    assert _taken(clock, pace, MANY * 2, 1.0) > 0, "in a second, not in a quarter of an hour"


def test_a_command_on_many_counts_as_many() -> None:
    request = asked(1)
    assert objects_of(PlaceMany(requests=(request,) * 100)) == 100
    assert objects_of(Release(uuids=(uuid_of(1), uuid_of(2)))) == 2
    assert objects_of(Place(request=request)) == objects_of(Release(uuids=())) == 1


async def test_a_call_that_waited_for_its_place_is_not_made_on_a_driver_that_was_closed(
    autojump_clock: MockClock,
) -> None:
    closes, told = trio.Event(), list[str]()

    @asynccontextmanager
    async def opened(options: Any, context: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(facts=SimpleNamespace(timeout=60.0, concurrency=1))

    async def until_denied() -> None:
        await closes.wait()
        raise Denied("the credentials are refused")

    async def deny(_why: str) -> None:
        """It is told elsewhere."""

    async def call(seconds: float) -> None:
        try:
            await backend.call("console", partial(trio.sleep, seconds))
            told.append("answered")
        except HeldBack:
            told.append("held back")

    backend = Backend("a", BackendConfig(driver="x"), random.Random(0), opened)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.keep_open, "i", until_denied, deny)
        await wait_all_tasks_blocked()
        nursery.start_soon(call, 1.0)
        await wait_all_tasks_blocked()
        nursery.start_soon(call, 0.0)
        await wait_all_tasks_blocked()
        closes.set()
        await trio.sleep(2.0)
        nursery.cancel_scope.cancel()
    assert told == ["answered", "held back"]


async def test_what_is_metered_returns_raises_and_is_cancelled_as_before() -> None:
    pace, seen = Pace(), list[str]()

    async def work(result: str) -> str:
        try:
            await trio.sleep(0.01)
        finally:
            seen.append(result)
        if result == "fails":
            raise ValueError(result)
        return result

    assert await pace.metered(work("done")) == "done"
    with pytest.raises(ValueError, match="fails"):
        await pace.metered(work("fails"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await pace.metered(work("cancelled"))
    assert scope.cancelled_caught
    assert seen == ["done", "fails", "cancelled"]
    assert pace._left < SAVED


async def test_places_are_given_to_urgent_calls_first_and_none_is_lost() -> None:
    places, order = Places(1), list[str]()

    async def call(name: str, urgent: bool, release: trio.Event) -> None:
        async with places.one(urgent=urgent):
            order.append(name)
            await release.wait()

    release = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "first", False, release)
        await wait_all_tasks_blocked()
        given_up = trio.CancelScope()

        async def cancelled() -> None:
            with given_up:
                await call("given up", True, release)

        nursery.start_soon(cancelled)
        for name, urgent in (("second", False), ("urgent", True), ("third", False)):
            nursery.start_soon(call, name, urgent, release)
            await wait_all_tasks_blocked()
        given_up.cancel()
        await wait_all_tasks_blocked()
        release.set()
    assert order == ["first", "urgent", "second", "third"]
    async with places.one(urgent=False):
        order.append("free")


async def test_a_place_that_is_given_to_a_call_that_is_cancelled_goes_to_the_next() -> None:
    places, order, holding = Places(1), list[str](), trio.Event()
    scope = trio.CancelScope()

    async def hold() -> None:
        async with places.one(urgent=False):
            await holding.wait()
            scope.cancel()  # the next one is cancelled in the round in which it gets the place

    async def wait(name: str, own: trio.CancelScope) -> None:
        with own:
            async with places.one(urgent=False):
                await trio.lowlevel.checkpoint()
                order.append(name)

    async with trio.open_nursery() as nursery:
        for work in (hold, lambda: wait("cancelled", scope), lambda: wait("next", trio.CancelScope())):
            nursery.start_soon(work)
            await wait_all_tasks_blocked()
        holding.set()
    assert order == ["next"]


async def test_calls_that_wait_for_a_place_are_not_made_on_a_back_end_that_is_disabled_meanwhile(
    autojump_clock: MockClock,
) -> None:
    model = Model("a", nodes=1, concurrency=1)
    async with ready(model) as life:
        model.wire.faults = Faults(delay=5.0)
        for number in range(1, 6):
            await life.submit(create(number))
        await trio.sleep(1)
        before = len(model.world.creations)
        await life.submit(SetBackend(name="a", enabled=False))
        await trio.sleep(120)
        assert len(model.world.creations) <= before + 1, "only the one that was under way"
        await life.submit(DeleteGuest(uuid=uuid_of(5)))
        await life.submit(SetBackend(name="a", enabled=True))
        await life.until(lambda: all(life.status(number) == "active" for number in range(1, 5)))
        await life.until(lambda: life.status(5) is None)
        assert len(set(model.world.creations)) == len(model.world.creations)


async def test_the_services_own_commands_make_no_batch_shorter_and_wait_for_users_for_some_batches() -> None:
    queue: CommandQueue[str, str] = CommandQueue()

    def add(lane: str, cost: int = 1) -> None:
        queue.add(Pending("", b"", lambda _: None, None, b"", None, lane, cost))

    add("")
    assert not queue.own_alone, "no user had commands"
    queue.take()
    for _ in range(3):
        add("ann", BATCH_COST // 4)
        add("")
    assert not queue.shared
    assert not queue.own_alone
    assert len(queue.take()) == 6
    for _ in range(4):
        add("")
        assert queue.own_alone
        assert len(queue.take()) == 1
    add("")
    assert not queue.own_alone
    add("ann")
    add("bob")
    assert queue.shared
