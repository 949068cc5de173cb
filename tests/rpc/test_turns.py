"""A user with many connections has few turns in each round of the event loop."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
import trio.testing

from hostler.core.rpc.turns import ROUND_TURNS, Turns

from ..patience import HANG_SECONDS
from .serving import serving


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


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_connections_that_end_together_end_a_few_in_each_round(how: str) -> None:
    async with serving() as served:
        server = served.server
        port = int(served.address.rpartition(":")[2])
        peers = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(100)]
        with trio.fail_after(HANG_SECONDS):
            while len(server.connections) < 100:
                await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        for peer in peers:
            if how == "reset":
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.socket.close()
        most = ended = 0
        with trio.fail_after(HANG_SECONDS):
            while server.ended < 100:
                await trio.lowlevel.checkpoint()
                most, ended = max(most, server.ended - ended), server.ended
        assert most <= 2 * ROUND_TURNS


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
