"""The order of work on one back end, and the waits between repetitions."""

from __future__ import annotations

import random

import trio
from trio.testing import MockClock

from hostler.core.reconcile.breaker import LONGEST_ASKED, LONGEST_WAIT, Backoff
from hostler.core.reconcile.work_queue import URGENT, USUAL, WorkQueue


async def _taken(queue: WorkQueue, count: int) -> list[str]:
    return [(await queue.take(1_000_000, lambda: 0.0))[0] for _ in range(count)]


async def test_what_is_urgent_goes_first_however_much_is_due(autojump_clock: MockClock) -> None:
    queue = WorkQueue(trio.current_time)
    for number in range(500):
        queue.add(f"usual-{number}")
    await trio.sleep(1)
    queue.add("urgent", priority=URGENT)
    queue.add("later", after=5.0, priority=URGENT)
    queue.add("usual-300", priority=URGENT)
    assert await _taken(queue, 3) == ["usual-300", "urgent", "usual-0"], "it keeps the time since which it is due"
    await trio.sleep(5)
    assert await _taken(queue, 2) == ["later", "usual-1"]
    assert len(queue) == 497
    assert len(set(await _taken(queue, 497))) == 497


async def test_a_key_that_is_added_while_it_is_worked_on_keeps_the_more_urgent_wish(autojump_clock: MockClock) -> None:
    queue = WorkQueue(trio.current_time)
    queue.add("a")
    assert await _taken(queue, 1) == ["a"]
    queue.add("a", after=1.0, priority=URGENT)
    queue.add("a", after=0.0, priority=USUAL)
    queue.add("b")
    queue.done("a")
    assert await _taken(queue, 2) == ["a", "b"]


async def test_a_worker_that_is_cancelled_loses_no_key(autojump_clock: MockClock) -> None:
    queue = WorkQueue(trio.current_time)
    queue.add("a")
    with trio.CancelScope() as scope:
        scope.cancel()
        await queue.take(1, lambda: 0.0)
    assert scope.cancelled_caught
    assert not queue.running
    assert await _taken(queue, 1) == ["a"]


def test_waits_double_and_what_a_back_end_asks_for_is_bounded() -> None:
    backoff = Backoff(random.Random(1))
    waits = [backoff.next("a") for _ in range(12)]
    assert all(0.25 * 2**at <= wait <= 0.5 * 2**at for at, wait in enumerate(waits[:6]))
    assert max(waits) <= LONGEST_WAIT
    assert backoff.next("b", 100.0) == 100.0
    assert backoff.next("b", float("inf")) == LONGEST_ASKED
    backoff.forget("a")
    assert backoff.next("a") <= 0.5
