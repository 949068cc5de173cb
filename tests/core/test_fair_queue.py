"""The command queue: each user's commands in order, users in turns by work, and a full queue shared."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from hostler.core.engine_commands import AddHosts
from hostler.core.errors import Overloaded
from hostler.core.http.placement_writer import ServiceWriter
from hostler.core.machine.machine import ServiceMachine
from hostler.core.process.scheduler import Scheduler
from hostler.core.service import Service
from hostler.core.tenancy.tenants import LOCAL, PLACEMENT
from hostler.core.writer.command_queue import BATCH_COST, OWN_LANE, SHARED_BATCH_COST, CommandQueue, Pending
from hostler.core.writer.writer import Writer, open_writer
from hostler.placement.api.commands import CreateTrait

from ..patience import HANG_SECONDS
from .ledgers import Ledger, Pay
from .orders import hosts

Queue = CommandQueue[Pay, int]


def pending(lane: str, cost: int = 15, *, size: int = 1, key: str | None = None, said: list[Any] | None = None) -> Any:
    done = (lambda each: said.append((lane, each.error))) if said is not None else (lambda _: None)
    return Pending(Pay(lane, 1), b"x" * size, done, key, b"", None, lane, cost)


def drained(queue: Queue) -> list[str]:
    order: list[str] = []
    while len(queue):
        order += [each.lane for each in queue.take()]
    return order


async def test_one_users_commands_keep_their_order_whatever_others_do() -> None:
    queue = Queue()
    mine = [pending("a", cost) for cost in (15, 9_000, 15, 3_000, 15)]
    for each in mine:
        queue.add(each)
        queue.add(pending("b", 700))
    taken = []
    while len(queue):
        taken += queue.take()
    assert [each for each in taken if each.lane == "a"] == mine


async def test_who_asks_for_little_does_not_wait_behind_who_asks_for_much() -> None:
    queue = Queue()
    for _ in range(10):
        queue.add(pending("greedy", 8_000))
    for _ in range(3):
        queue.add(pending("modest", 300))
    assert drained(queue)[:3] == ["modest"] * 3


async def test_users_get_equal_shares_of_time_while_all_have_work() -> None:
    queue = Queue()
    for _ in range(2_000):
        queue.add(pending("small", 50))
    for _ in range(200):
        queue.add(pending("large", 500))
    work = {"small": 0, "large": 0}
    for each in (each for _ in range(25) for each in queue.take()):
        work[each.lane] += each.cost
    assert abs(work["small"] - work["large"]) <= 2_000
    assert sum(work.values()) >= 20 * SHARED_BATCH_COST


async def test_a_command_of_much_work_is_a_batch_of_its_own() -> None:
    queue = Queue()
    queue.add(pending("a", 15))
    queue.add(pending("a", 5 * BATCH_COST))
    queue.add(pending("a", 15))
    assert [[each.cost for each in queue.take()] for _ in range(3)] == [[15], [5 * BATCH_COST], [15]]


async def test_batches_are_short_while_several_users_have_commands_and_long_again_later() -> None:
    queue = Queue()
    for _ in range(9_000):
        queue.add(pending("greedy", 50))
    assert sum(each.cost for each in queue.take()) == BATCH_COST
    queue.add(pending("modest", 50))
    assert sum(each.cost for each in queue.take()) == SHARED_BATCH_COST
    costs = [sum(each.cost for each in queue.take()) for _ in range(40)]
    assert costs[:30] == [SHARED_BATCH_COST] * 30
    assert costs[-1] == BATCH_COST


async def test_a_single_user_fills_a_batch_to_its_limit() -> None:
    queue = Queue(batch_limit=1_024)
    for _ in range(2_000):
        queue.add(pending("a"))
    assert len(queue.take()) == 1_024


async def test_in_a_full_queue_the_longest_lane_makes_room_for_another_users_command() -> None:
    queue, said = Queue(limit=10), list[Any]()
    for _ in range(10):
        queue.add(pending("greedy", said=said))
    with pytest.raises(Overloaded):
        queue.require_place("greedy")
    for _ in range(4):
        queue.require_place("modest")
        queue.add(pending("modest"))
    assert [(lane, type(error)) for lane, error in said] == [("greedy", Overloaded)] * 4
    assert (len(queue), queue.pushed_out) == (10, 4)
    for _ in range(1):
        queue.add(pending("modest"))
    with pytest.raises(Overloaded):
        queue.require_place("modest")


async def test_bytes_are_shared_in_the_same_way() -> None:
    queue, said = Queue(byte_limit=1_000), list[Any]()
    for _ in range(10):
        queue.add(pending("greedy", size=100, said=said))
    queue.add(pending("modest", size=250))
    assert len(said) == 3
    assert queue.bytes <= 1_000
    with pytest.raises(Overloaded):
        queue.add(pending("greedy", size=400))


async def test_who_repeats_a_command_that_lost_its_place_is_told_the_same() -> None:
    queue, said = Queue(limit=3), list[Any]()
    for number in range(3):
        queue.add(pending("greedy", key=f"k{number}", said=said))
    queue.add(pending("greedy", key="k2", said=said))
    queue.add(pending("modest"))
    assert len(said) == 2
    assert drained(queue) == ["greedy", "greedy", "modest"]
    assert queue.bytes == 3  # of those that were taken, until they are answered


async def test_a_heavy_users_commands_do_not_delay_the_answers_of_others_in_the_same_batch() -> None:
    order: list[str] = []
    writer: Writer[Pay, int] = Writer(Ledger())
    for _ in range(20):
        writer.enqueue(Pay("greedy", 1), lambda _: order.append("greedy"), lane="greedy", cost=5_000)
    writer.enqueue(Pay("modest", 1), lambda _: order.append("modest"), lane="modest")
    writer.stop()
    with trio.fail_after(HANG_SECONDS):
        await writer.run()
    assert order.index("modest") <= 1
    assert len(order) == 21


async def test_those_who_wait_for_answers_have_a_lane_beside_the_services_own(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes, add = list[str](), CommandQueue.add

    def seen(queue: CommandQueue[Any, Any], command: Pending[Any, Any]) -> None:
        lanes.append(command.lane)
        add(queue, command)

    monkeypatch.setattr(CommandQueue, "add", seen)
    async with open_writer(ServiceMachine()) as writer:
        service = Service(writer.machine, writer)  # type: ignore[arg-type]  # it is a ServiceMachine
        await ServiceWriter(service).submit(CreateTrait(now=1.0, name="CUSTOM_A"))
        await Scheduler(service, None).submit(AddHosts(hosts=hosts(1)))
    assert lanes == [PLACEMENT, LOCAL]
    assert OWN_LANE not in lanes
