"""Peers that misbehave are refused or dropped with an error; no other peer notices."""

from __future__ import annotations

import os
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.errors import DeadlineExceeded, Overloaded
from hostler.core.rpc.client import Client, open_client
from hostler.core.rpc.connection import Limits
from hostler.core.rpc.methods import METHODS
from hostler.core.rpc.tls import server_context
from hostler.core.tenancy.commands import CreateDomain, CreateUser, DeleteUser
from tests.core.orders import uuid_of

from ..patience import HANG_SECONDS
from .serving import Authority, Served, raw_stream, serving, until

PLACE = {"request": {"spec": {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1}}}}
SMALL = Limits(frame_bytes=1 << 20, stranger_bytes=10_000, frame_seconds=0.2, send_seconds=0.2)


class Peer:
    """A peer that speaks MessagePack by hand."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream, self._unpacker = stream, msgpack.Unpacker(strict_map_key=False)

    async def send(self, *messages: Any) -> None:
        # Older packers of msgpack nest values less deeply than the tests do.
        await self.stream.send_all(b"".join(map(msgspec.msgpack.encode, messages)))

    async def receive(self) -> Any:
        """The next message, None at the end."""
        while True:
            for message in self._unpacker:
                return message
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._unpacker.feed(data)

    async def ask(self, method: str, *params: Any) -> Any:
        """(error, result) of a call."""
        await self.send([0, 1, method, params])
        kind, number, error, result = await self.receive()
        assert (kind, number) == (1, 1)
        return error, result

    async def dismissed(self) -> str:
        """Why the connection was closed."""
        with trio.fail_after(HANG_SECONDS):
            kind, method, ((code, text),) = await self.receive()
            assert (kind, method, code) == (2, "error", "bad_frame")
            assert await self.receive() is None
        return str(text)


@asynccontextmanager
async def peer(served: Served) -> AsyncIterator[Peer]:
    async with await raw_stream(served.address) as stream:
        yield Peer(stream)


@asynccontextmanager
async def served_with_witness(**options: Any) -> AsyncIterator[Served]:
    """A service, and at the end the check that another client was not disturbed."""
    async with serving(**options) as served, open_client(served.address) as witness:
        await witness.place_many([])
        yield served
        with trio.fail_after(HANG_SECONDS):
            assert (await witness.call("status")).hosts == len(await witness.call("hosts"))


async def send_all_it_takes(stream: trio.SocketStream, data: bytes) -> None:
    """Send what the other side takes; it may close the connection at any time."""
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError:
        return


# bytes that are not a message


async def test_a_message_of_fifty_megabytes_is_refused_and_takes_no_such_memory() -> None:
    async with served_with_witness() as served, peer(served) as rogue:
        before = resident_bytes()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all_it_takes, rogue.stream, msgpack.packb([0, 1, "place", [b"x" * 50_000_000]]))
            assert "longer than 16777216 bytes" in await rogue.dismissed()
        assert resident_bytes() - before < 120_000_000  # 50 of them are the test's own


async def test_who_has_gone_may_send_no_more_than_a_stranger() -> None:
    async with serving(limits=SMALL, open_to_all=False) as served, peer(served) as rogue:
        await served.do(CreateDomain(id="d"), CreateUser(id="ann", domain="d"))
        assert (await rogue.ask("hello", {"token": await served.token("ann")}))[0] is None
        await served.do(DeleteUser(id="ann"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all_it_takes, rogue.stream, msgpack.packb([0, 1, "place", [b"x" * 100_000]]))
            assert "longer than 10000 bytes" in await rogue.dismissed()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xc1", "not MessagePack"),
        (b"GET / HTTP/1.1\r\n\r\n", "not a call"),
        (b"\x91" * 5_000, "levels deep"),
        (msgpack.packb([0, 1, "status"]), "neither"),
        (msgpack.packb([0, -1, "status", []]), "32 bits"),
        (msgpack.packb([0, 2**32, "status", []]), "32 bits"),
        (msgpack.packb([1, 1, None, None]), "neither"),
        (msgpack.packb({"jsonrpc": "2.0"}), "not a call"),
        (msgpack.packb([0, 1, {"a": 1}, []]), "neither"),
        (msgpack.packb([3, 1, "status", []]), "must be"),
    ],
)
async def test_what_is_no_call_ends_the_connection_with_a_reason(data: bytes, why: str) -> None:
    async with served_with_witness(limits=SMALL) as served, peer(served) as rogue:
        await rogue.stream.send_all(data)
        assert why in await rogue.dismissed()


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=20))
def test_random_bytes_harm_nobody(parts: list[bytes]) -> None:
    async def main() -> None:
        async with served_with_witness(limits=SMALL) as served, peer(served) as rogue:
            for part in parts:
                await send_all_it_takes(rogue.stream, part)
            await send_all_it_takes(rogue.stream, b"\xc1")
            with trio.fail_after(HANG_SECONDS):
                while await rogue.receive() is not None:
                    pass

    trio.run(main)


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_wrong_parameters_are_an_error_of_the_caller_for_every_method(method: str) -> None:
    wrong: list[Any] = [
        7,
        None,
        "x",
        {"a": 1},
        [[]] * 9,
        [{"nonsense": 1}],
        [{1: 2}],
        [{}, {"key": 7}],
        [{}, {"timeout": -1.0}],
        [{}, {}, {}, {}, {}, {}, {}],
        [-1],
        [b"\xff"],
        [nested(900)],
        [{name: nested(20) for name in METHODS[method].params.__struct_fields__}],
        [{name: float("nan") for name in METHODS[method].params.__struct_fields__}, {"key": "k"}],
    ]
    if not METHODS[method].params.__struct_fields__:
        wrong = wrong[:13]  # the others are without parameters then, as they should be
    async with served_with_witness() as served, peer(served) as rogue:
        for params in wrong:
            await rogue.send([0, 1, method, params])
            kind, _, error, result = await rogue.receive()
            assert kind == 1
            assert error is not None, (params, result)
            assert error[0] in ("invalid_value", "unknown_name"), (params, error)
        assert served.service.writer.sequence == 2


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("method", ["", "plaice", "__class__", "x" * 5_000, "session", "batch.batch"])
async def test_unknown_methods_are_an_error(method: str) -> None:
    async with served_with_witness() as served, peer(served) as rogue:
        error, _ = await rogue.ask(method)
        assert error[0] == "unknown_name"
        assert len(error[1]) < 500


async def test_whoever_has_not_said_who_he_is_may_send_short_messages_only() -> None:
    async with serving(limits=SMALL, open_to_all=False) as served:
        async with peer(served) as stranger:
            await stranger.send([0, 1, "hello", [{"token": "x" * 20_000}]])
            assert "longer than 10000 bytes" in await stranger.dismissed()
        async with peer(served) as stranger:
            assert (await stranger.ask("place", PLACE))[0][0] == "not_authenticated"
    async with serving(limits=SMALL) as served, peer(served) as friend:
        assert (await friend.ask("release", {"uuids": ["x" * 20_000]}))[0][0] != "bad_frame"


# who is slow, or silent


async def test_a_message_that_does_not_come_to_its_end_in_time_ends_the_connection() -> None:
    async with served_with_witness(limits=SMALL) as served, peer(served) as rogue:
        await rogue.stream.send_all(msgpack.packb([0, 1, "status", []])[:-1])
        assert "too long to arrive" in await rogue.dismissed()


async def test_a_message_that_comes_byte_by_byte_is_no_reason_to_wait_for_ever() -> None:
    async with served_with_witness(limits=SMALL) as served, peer(served) as rogue, trio.open_nursery() as nursery:

        async def drip() -> None:
            while True:
                await send_all_it_takes(rogue.stream, b"\x91")
                await trio.sleep(0.01)

        await rogue.stream.send_all(b"\xdc\xff\xff")
        nursery.start_soon(drip)
        assert "too long to arrive" in await rogue.dismissed()
        nursery.cancel_scope.cancel()


async def test_a_handshake_that_is_not_finished_in_time_ends_the_connection(tmp_path: Path) -> None:
    tls: ssl.SSLContext = server_context(*Authority(tmp_path).sign("localhost"))
    async with serving("tls:127.0.0.1:0", "tcp:127.0.0.1:0", tls=tls, limits=SMALL) as served:
        async with await raw_stream(served.address) as silent, await raw_stream(served.address) as babbling:
            await babbling.send_all(b"nonsense" * 100)
            with trio.fail_after(HANG_SECONDS):
                assert await silent.receive_some() == b""
                while await Peer(babbling).receive() is not None:
                    pass
        async with open_client(served.addresses[1]) as client:
            assert (await client.call("status")).ready


async def test_idle_peers_are_dropped_where_that_is_wanted_but_not_those_who_watch() -> None:
    async with serving(limits=Limits(idle_seconds=0.5)) as served, peer(served) as watching:
        assert await watching.ask("watch", {"kinds": ["decisions"]}) == (None, 1)
        async with peer(served) as idle:
            with trio.fail_after(HANG_SECONDS):
                assert await idle.receive() is None
        assert len(served.server.connections) == 1


async def test_a_peer_that_does_not_read_is_read_no_more_and_then_dropped() -> None:
    limits = Limits(unread_bytes=100_000, long_questions=1, send_seconds=0.3)
    async with served_with_witness(count=500, limits=limits) as served, peer(served) as rogue:
        async with trio.open_nursery() as nursery:
            call = msgpack.packb([0, 1, "hosts", []])
            nursery.start_soon(send_all_it_takes, rogue.stream, call * 1_000_000)
            most = 0
            with trio.fail_after(HANG_SECONDS):
                while len(served.server.connections) > 1:
                    most = max(most, *(connection.waiting_bytes for connection in served.server.connections))
                    await trio.sleep(0.01)
        assert 0 < most < 300_000


async def test_a_stranger_who_does_not_read_has_few_unread_answers_and_few_objects() -> None:
    limits = Limits(stranger_bytes=10_000, send_seconds=0.3)
    async with serving(limits=limits, open_to_all=False) as served, peer(served) as rogue:
        async with trio.open_nursery() as nursery:
            call = msgpack.packb([0, 1, "status", []])
            nursery.start_soon(send_all_it_takes, rogue.stream, call * 1_000_000)
            most = pieces = 0
            with trio.fail_after(HANG_SECONDS):
                while served.server.connections:
                    for connection in served.server.connections:
                        most, pieces = max(most, connection.waiting_bytes), max(pieces, len(connection._out))
                    await trio.sleep(0.01)
        assert 0 < most < 11_000
        assert pieces < 10


async def test_whoever_watches_and_does_not_read_is_told_later_and_what_was_too_much_is_a_gap() -> None:
    async with (
        served_with_witness(count=1, remembered=3_000) as served,
        peer(served) as slow,
        open_client(served.address) as client,
    ):
        _, begin = await slow.ask("watch", {"kinds": ["refusals"]})
        calls = [("set_service", {"name": "x" * 200})] * 2_000
        for _ in range(6):
            await client.pipeline(calls)
        connection = max(served.server.connections, key=lambda each: each.waiting_bytes)
        assert 1_000_000 < connection.waiting_bytes < 2_000_000
        told, gaps = begin, 0
        with trio.fail_after(HANG_SECONDS):
            while told < begin + 12_000:
                _, _, (event,) = await slow.receive()
                if event["kind"] == "gap":
                    assert event["sequence"] > told + 1
                    gaps += 1
                else:
                    assert event["sequence"] == told + 1 or gaps
                told = event["sequence"] - (event["kind"] == "gap")
        assert gaps == 1


async def test_more_connections_than_are_allowed_are_closed_at_once() -> None:
    async with served_with_witness(limits=Limits(connections=3)) as served:
        async with peer(served) as first, peer(served) as second:
            assert (await first.ask("status"))[0] is None
            assert (await second.ask("status"))[0] is None
            async with peer(served) as third:
                assert (await third.receive())[2][0][0] == "overloaded"
                assert await third.receive() is None
            assert served.server.refused == 1
            async with open_client(served.address, within=1.0) as client:
                with pytest.raises(Overloaded, match="too many connections"):
                    await client.call("status")
        await until(lambda: len(served.server.connections) == 1)
        async with peer(served) as fourth:
            assert (await fourth.ask("status"))[0] is None


async def test_unfinished_messages_of_all_together_are_bounded() -> None:
    limits = Limits(unfinished_bytes=3_000_000)
    async with served_with_witness(limits=limits) as served:
        async with peer(served) as first, peer(served) as second:
            half = msgpack.packb([0, 1, "release", [[b"x" * 2_000_000]]])[:-1]
            await first.stream.send_all(half)
            await until(lambda: served.server.budget.unfinished_bytes == len(half))
            await send_all_it_takes(second.stream, half)
            assert "unfinished" in await second.dismissed()
            assert served.server.budget.unfinished_bytes == len(half)
        await until(lambda: served.server.budget.unfinished_bytes == 0)


async def test_a_peer_that_vanishes_within_a_message_is_forgotten() -> None:
    async with served_with_witness() as served:
        async with peer(served) as gone:
            await gone.stream.send_all(msgpack.packb([0, 1, "place", [PLACE]])[:-3])
            await until(lambda: served.server.budget.unfinished_bytes > 0)
            gone.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: len(served.server.connections) == 1)
        assert served.server.budget.unfinished_bytes == 0


async def test_a_long_message_within_the_limit_is_taken_whatever_pieces_it_comes_in() -> None:
    data = msgpack.packb([0, 1, "place_many", [{"requests": [{**PLACE["request"], "request_id": "x" * 200}] * 2_000}]])
    async with served_with_witness() as served, peer(served) as slow:
        for start in range(0, len(data), 9_973):
            await slow.stream.send_all(data[start : start + 9_973])
            await trio.lowlevel.checkpoint()
        with trio.fail_after(HANG_SECONDS):
            assert len((await slow.receive())[3]["hosts"]) == 2_000


async def test_a_peer_that_is_gone_takes_what_waits_with_it() -> None:
    async with serving(batch_limit=10) as served:
        async with peer(served) as gone:
            for _ in range(200):
                await gone.send(*[[0, 1, "place", [PLACE]]] * 20)
        await until(lambda: not served.server.connections)
        done = served.service.state.engine.sequence
        await trio.sleep(0.1)
        assert served.service.state.engine.sequence == done
        served.service.state.fleet.check()


# limits of calls


async def test_notifications_beyond_the_limit_of_open_calls_have_their_turn_too() -> None:
    async with served_with_witness(limits=Limits(outstanding=10)) as served, peer(served) as sender:
        await sender.send(*[[2, "place", [PLACE]]] * 100)
        with trio.fail_after(HANG_SECONDS):
            assert (await sender.ask("status"))[0] is None
        await until(lambda: served.service.state.engine.sequence == 100)


async def test_a_peer_that_notifies_and_leaves_is_let_go() -> None:
    async with served_with_witness() as served, peer(served) as sender:
        await sender.send(*[[2, "place", [PLACE]]] * 30)
        await sender.stream.send_eof()
        with trio.fail_after(HANG_SECONDS):
            assert await sender.receive() is None
        assert served.service.state.engine.sequence == 30


async def test_a_peer_has_only_so_many_calls_on_their_way_and_all_are_answered() -> None:
    limits = Limits(outstanding=10)
    async with served_with_witness(limits=limits) as served, peer(served) as eager:
        await eager.send(*[[0, number, "place", [PLACE]] for number in range(500)])
        await eager.stream.send_eof()
        most, answered = 0, []
        while (message := await eager.receive()) is not None:
            most = max(most, served.service.writer.queued)
            answered.append(message[1])
        assert sorted(answered) == list(range(500))
        assert most <= 10


async def test_a_batch_counts_as_so_many_calls() -> None:
    async with served_with_witness(limits=Limits(outstanding=10)) as served, open_client(served.address) as client:
        answers = await client.batch([("place", PLACE)] * 100 + [("status", None), ("hosts", None)])
        assert [answer["sequence"] for answer in answers[:100]] == list(range(1, 101))
        assert answers[100].code == "invalid_value"
        assert len(answers[101]) == 3


async def test_an_answer_that_is_too_long_is_an_error_alone_and_in_a_batch() -> None:
    limits = Limits(answer_bytes=20_000)
    async with served_with_witness(count=100, limits=limits) as served, open_client(served.address) as client:
        first, second, third = await client.batch([("hosts", {"limit": 100})] * 2 + [("hosts", {"limit": 1})])
        assert len(first) == 100
        assert second.code == "answer_too_long"
        assert len(third) == 1
    async with serving(count=500, limits=limits) as served, open_client(served.address) as client:
        (error,) = await client.pipeline([("hosts", None)])
        assert error.code == "answer_too_long"


async def test_a_full_queue_is_an_error_that_clients_try_again_after() -> None:
    async with serving(queue_limit=5, batch_limit=5) as served, open_client(served.address) as client:
        answers = await client.pipeline([("place", PLACE)] * 50)
        assert {type(answer) for answer in answers} == {Overloaded, type(answers[0])}
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(place, client, number)
        placed = sum(type(answer) is not Overloaded for answer in answers)
        assert served.service.state.engine.sequence == 50 + placed


async def place(client: Client, number: int) -> None:
    request = {**PLACE["request"], "instance_uuids": [uuid_of(number)]}
    await client.call("place", {"request": request}, within=HANG_SECONDS)


async def test_a_command_whose_time_is_over_before_its_turn_is_not_carried_out() -> None:
    async with served_with_witness() as served, peer(served) as late:
        error, _ = await late.ask("place", PLACE, {"timeout": 0.0})
        assert error[0] == DeadlineExceeded.code
        assert "nothing was done" in error[1]
        assert served.service.state.engine.sequence == 0


# many


async def idle_connections(count: int) -> float:
    """Bytes of memory each of so many idle connections takes, here where both ends are in one process."""
    async with served_with_witness(limits=Limits(connections=count + 10)) as served:
        before = resident_bytes()
        streams = [await raw_stream(served.address) for _ in range(count)]
        await Peer(streams[-1]).ask("status")
        assert len(served.server.connections) == count + 1
        took = (resident_bytes() - before) / count
        for stream in streams[:: max(count // 50, 1)]:
            assert (await Peer(stream).ask("place", PLACE))[0] is None
        for stream in streams:
            await stream.aclose()
        return took


async def test_a_thousand_idle_connections_take_little_and_are_answered() -> None:
    assert await idle_connections(1_000) < 60_000
