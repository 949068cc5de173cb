"""Peers that misbehave lose their connection or get an error; everybody else is served all the while."""

from __future__ import annotations

import logging
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.client import Client, open_client
from hostler.core.rpc.framing import BadFrame, Framer
from hostler.core.rpc.messages import read_answer, read_call
from hostler.core.rpc.server import Limits
from hostler.core.tenancy.commands import CreateDomain, CreateUser

from .serving import Served, raw_stream, serving

SPEC = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1024}}
SMALL = Limits(frame_bytes=1 << 20, outstanding=16, backlog_bytes=1 << 20, frame_seconds=0.5, send_seconds=0.5)


@asynccontextmanager
async def watched(limits: Limits = SMALL, **options: Any) -> AsyncIterator[tuple[Served, Client]]:
    """A service, and a well-behaved client who is served before and after."""
    async with serving(limits=limits, **options) as served, open_client(served.address) as client:
        assert (await client.call("status")).ready
        yield served, client
        assert (await client.call("place", {"request": {"spec": SPEC}})).placed


async def until_closed(stream: trio.SocketStream) -> bytes:
    """What the server still says before it closes."""
    said = b""
    with trio.fail_after(10):
        try:
            while data := await stream.receive_some():
                said += data
        except trio.BrokenResourceError:
            pass
    return said


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        msgpack.packb([3, 1, "status", []]),
        msgpack.packb([1, 1, None, None]),
        msgpack.packb([0, -1, "status", []]),
        msgpack.packb([0, 2**32, "status", []]),
        msgpack.packb([0, 1, 7, []]),
        msgpack.packb({"method": "status"}),
        msgpack.packb([]),
        msgpack.packb("status"),
        b"\x91" * 5_000,
        b"\xdb\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff" * 300_000,
    ],
    ids=range(13),
)
async def test_what_is_no_call_closes_the_connection(data: bytes) -> None:
    async with watched() as (served, _):
        stream = await raw_stream(served.address)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_quietly, stream, data)
            await until_closed(stream)
        await stream.aclose()


async def send_quietly(stream: trio.SocketStream, data: bytes) -> None:
    try:
        await stream.send_all(data)
        await stream.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        return


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("plaice", [], "unknown_name"),
        ("place", 7, "invalid_value"),
        ("place", [], "invalid_value"),
        ("place", [{"request": {"spec": 7}}], "invalid_value"),
        ("place", [{"request": {"spec": {"flavor": {"name": "f", "vcpus": -1, "memory_mb": 1}}}}], "invalid_value"),
        ("place", [{"request": {"spec": {"flavor": {"name": "f", "vcpus": 1e999, "memory_mb": 1}}}}], "invalid_value"),
        ("place", [{"request": {"spec": SPEC, "instance_uuids": ["x"]}}], "invalid_value"),
        ("place", [{"request": {"spec": SPEC, "now": 7}}], "invalid_value"),
        ("place", [{"request": {"spec": SPEC}}, {"timeout": "soon"}], "invalid_value"),
        ("place", [{"request": {"spec": SPEC}}, {"key": ""}], "invalid_value"),
        ("place", [{"request": {"spec": SPEC}}, {"timeout": -1.0}], "deadline_exceeded"),
        ("hosts", [{"limit": 0}], "invalid_value"),
        ("release", [{"uuids": [None]}], "invalid_value"),
        ("heartbeats", [{"names": ["nobody"]}], "unknown_name"),
        ("report", [{"name": "node-0", "figures": {"nonsense": 1.0}}], "unknown_name"),
        ("set_policy", [{"policy": {"filter_scheduler": {"nonsense": 1}}}], "unknown_name"),
        ("batch", [{"calls": [["status"]]}], "invalid_value"),
        ("watch", [{"kinds": ["everything"]}], "invalid_value"),
        ("hello", [{"errors": "loud"}], "invalid_value"),
        ("create_domain", [{"id": "no blanks"}], "invalid_value"),
        ("add_hosts", [{"hosts": [{"host": "h", "vcpus_total": 1}]}], "invalid_value"),
    ],
)
async def test_a_bad_call_gets_an_error_and_the_connection_goes_on(method: str, params: Any, code: str) -> None:
    async with watched() as (served, _):
        stream = await raw_stream(served.address)
        unpacker = msgpack.Unpacker()
        await stream.send_all(msgpack.packb([0, 1, method, params]) + msgpack.packb([0, 2, "status", []]))
        answers: dict[int, Any] = {}
        with trio.fail_after(5):
            while len(answers) < 2:
                unpacker.feed(await stream.receive_some())
                answers |= {answer[1]: answer for answer in unpacker}
        assert answers[1][2][0] == code, answers[1]
        assert answers[2][2] is None


async def test_a_message_of_50_mb_is_refused_and_not_kept() -> None:
    async with watched() as (served, _):
        stream = await raw_stream(served.address)
        async with trio.open_nursery() as nursery:
            data = msgpack.packb([0, 1, "status", [b"x" * 50_000_000]])
            nursery.start_soon(send_quietly, stream, data)
            await until_closed(stream)


async def test_a_large_message_within_the_limit_is_taken_whatever_pieces_it_comes_in() -> None:
    requests = [{"spec": SPEC, "request_id": "x" * 200}] * 2_000
    data = msgpack.packb([0, 1, "place_many", [{"requests": requests}]])
    async with watched(count=60) as (served, _):
        stream = await raw_stream(served.address)
        for start in range(0, len(data), 9_973):
            await stream.send_all(data[start : start + 9_973])
            await trio.lowlevel.checkpoint()
        with trio.fail_after(10):
            answer = b""
            while not answer.endswith(b"\x80") and len(answer) < 10_000:
                answer += await stream.receive_some()


async def test_a_message_that_never_ends_closes_the_connection() -> None:
    async with watched() as (served, _):
        stream = await raw_stream(served.address)
        await stream.send_all(msgpack.packb([0, 1, "status", []])[:-1])
        began = trio.current_time()
        await until_closed(stream)
        assert trio.current_time() - began < 5


async def test_a_peer_that_does_not_read_is_dropped() -> None:
    async with watched() as (served, _):
        stream = await raw_stream(served.address)
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
        with trio.move_on_after(10) as limit:
            try:
                while True:
                    await stream.send_all(msgpack.packb([0, 1, "hosts", []]) * 100)
            except trio.BrokenResourceError:
                limit.cancel()
        assert not limit.deadline <= trio.current_time()
        assert len(served.server.connections) == 1


async def test_a_peer_that_vanishes_is_forgotten() -> None:
    async with watched() as (served, _):
        stream = await raw_stream(served.address)
        await stream.send_all(msgpack.packb([0, 1, "place", [{"request": {"spec": SPEC}}]])[:-3])
        linger = struct.pack("ii", 1, 0)
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
        await stream.aclose()
        for _ in range(500):
            await trio.sleep(0.01)
            if len(served.server.connections) == 1:
                break
        assert len(served.server.connections) == 1


async def test_idle_connections_cost_others_nothing() -> None:
    async with watched(Limits(connections=10_000)) as (served, client):
        idle = [await raw_stream(served.address) for _ in range(400)]
        assert (await client.call("status")).ready
        assert len(served.server.connections) == 401
        for stream in idle:
            await stream.aclose()


async def test_connections_beyond_the_limit_are_closed_at_once() -> None:
    async with watched(Limits(connections=3)) as (served, _):
        streams = [await raw_stream(served.address) for _ in range(2)]
        one_more = await raw_stream(served.address)
        assert await until_closed(one_more) == b""
        assert served.server.refused == 1
        for stream in streams:
            await stream.aclose()


async def test_more_calls_than_the_queue_holds_are_told_so() -> None:
    async with serving(queue_limit=20) as served, open_client(served.address) as client:
        answers = await client.pipeline([("place", {"request": {"spec": SPEC}})] * 300)
        codes = {getattr(answer, "code", "ok") for answer in answers}
        assert codes == {"ok", "overloaded"}


async def test_random_bytes_harm_nobody() -> None:
    chance = random.Random(5)
    async with watched() as (served, _):
        for _ in range(40):
            stream = await raw_stream(served.address)
            await send_quietly(stream, chance.randbytes(chance.randrange(1, 3_000)))
            await until_closed(stream)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=5),
    max_leaves=20,
)


@pytest.mark.property
@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), values.map(msgpack.packb)), st.integers(1, 50))
def test_the_decoder_takes_anything_and_raises_nothing_but_its_own_error(data: bytes, step: int) -> None:
    framer = Framer(1_000)
    with suppress(BadFrame):
        for start in range(0, len(data), step):
            for frame in framer.feed(data[start : start + step]):
                read_call(frame)
    with suppress(BadFrame):
        read_answer(data)


@pytest.mark.property
@settings(deadline=None)
@given(st.lists(values, max_size=5), st.integers(1, 300))
def test_messages_are_cut_where_they_end(messages: list[Any], step: int) -> None:
    packed = [msgpack.packb(message) for message in messages]
    data, framer = b"".join(packed), Framer(1 << 20)
    found = [frame for at in range(0, len(data), step) for frame in framer.feed(data[at : at + step])]
    assert found + framer.look() == packed


async def test_nothing_secret_is_in_the_logs_or_the_audit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(open_to_all=False, journal=tmp_path) as served:
        await served.do(CreateDomain(id="d"), CreateUser(id="ann", domain="d"))
        token = await served.token("ann")
        secret = token.rpartition("_")[2]
        async with open_client(served.address, token=token) as client:
            mine = await client.call("create_token", {})
        async with open_client(served.address, token=token[:-1], within=1) as client:
            with pytest.raises(Exception, match="wrong, expired or revoked"):
                await client.call("hosts")
    for text in (secret, mine.token.rpartition("_")[2]):
        assert text not in caplog.text
        for file in sorted(tmp_path.rglob("*")):  # noqa: ASYNC240
            assert not file.is_file() or text.encode() not in file.read_bytes()
