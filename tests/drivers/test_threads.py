"""Blocking calls in threads: their order, cancellation, and that a call that never ends holds up only its object."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from hostler.drivers.threads import MOST_LEFT, Threads

pytestmark = pytest.mark.trio


async def begun(threads: Threads, work: threading.Event, key: str) -> None:
    """A call that waits in its thread for the event, and whose caller is cancelled once it has begun."""
    running = trio.Event()
    loop = trio.lowlevel.current_trio_token()

    def wait() -> None:
        loop.run_sync_soon(running.set)
        work.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.run, wait, key)
        await running.wait()
        nursery.cancel_scope.cancel()


async def test_calls_on_an_object_are_made_in_order_and_none_of_it_is_kept() -> None:
    threads, done = Threads(4), list[int]()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(threads.run, lambda number=number: done.append(number), "guest")
            await trio.testing.wait_all_tasks_blocked()
    assert done == list(range(20))
    assert await threads.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0, "guest")
    assert not len(threads.turns)
    await threads.ended()


async def test_a_cancelled_call_that_waits_is_never_made_and_the_next_one_follows_it() -> None:
    threads, go_on, made = Threads(1), threading.Event(), list[str]()
    await begun(threads, go_on, "guest")
    with trio.CancelScope() as scope:
        scope.cancel()
        await threads.run(lambda: made.append("cancelled"), "guest")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.run, lambda: made.append("next"), "guest")
        await trio.testing.wait_all_tasks_blocked()
        assert not made
        go_on.set()
    assert made == ["next"]
    assert not len(threads.turns)


async def test_calls_that_never_end_hold_up_their_own_objects_only() -> None:
    """However many there are, the others have as many threads as before."""
    threads, go_on = Threads(1), threading.Event()
    for number in range(3):
        await begun(threads, go_on, f"stuck-{number}")
    assert await threads.run(lambda: "made", "other") == "made"
    with trio.move_on_after(0.01) as scope:
        await threads.run(lambda: None, "stuck-0")
    assert scope.cancelled_caught
    assert len(threads.turns) == 3
    go_on.set()
    await threads.ended()
    assert not len(threads.turns)
    assert threads._limiter.total_tokens == 1


async def test_the_number_of_threads_left_alone_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_LEFT < 1_000
    monkeypatch.setattr("hostler.drivers.threads.MOST_LEFT", 1)
    threads, go_on = Threads(1), threading.Event()
    await begun(threads, go_on, "a")
    await begun(threads, go_on, "b")
    with trio.move_on_after(0.01) as scope:
        await threads.run(lambda: None, "c")
    assert scope.cancelled_caught, "both threads are taken"
    go_on.set()
    assert await threads.run(lambda: 1, "c") == 1
    await threads.ended()
