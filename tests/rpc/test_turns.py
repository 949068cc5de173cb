"""A user with many connections has few turns in each round of the event loop."""

from __future__ import annotations

import trio
import trio.testing

from hostler.core.rpc.turns import ROUND_TURNS, Turns

from ..patience import HANG_SECONDS


async def test_who_has_many_connections_leaves_each_round_to_others() -> None:
    turns, taken = Turns(), list[str]()

    async def connection(user: str, count: int) -> None:
        for _ in range(count):
            await turns.take(user)
            taken.append(user)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as connections:
            for _ in range(50):
                connections.start_soon(connection, "greedy", 20)
            connections.start_soon(connection, "modest", 20)
        nursery.cancel_scope.cancel()
    assert len(taken) == 51 * 20
    last = len(taken) - 1 - taken[::-1].index("modest")
    assert taken[:last].count("greedy") <= (ROUND_TURNS + 1) * 2 * 21


async def test_a_connection_that_is_closed_while_it_waits_gives_its_turn_up() -> None:
    turns = Turns()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(ROUND_TURNS):
            await turns.take("a")
        with trio.CancelScope() as scope:
            scope.cancel()
            await turns.take("a")
        assert scope.cancelled_caught
        with trio.fail_after(HANG_SECONDS):
            for _ in range(10):
                await turns.take("a")
        nursery.cancel_scope.cancel()


async def test_turns_are_free_where_nothing_counts_them() -> None:
    turns = Turns()
    for _ in range(10):
        await turns.take("a")


async def test_those_who_wait_go_on_when_the_counting_ends() -> None:
    turns, gone_on = Turns(), list[int]()

    async def connection(number: int) -> None:
        await turns.take("a")
        gone_on.append(number)

    async with trio.open_nursery() as connections, trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(9):
            connections.start_soon(connection, number)
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert sorted(gone_on) == list(range(9))
