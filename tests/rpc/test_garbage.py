"""A daemon rarely has time to look for garbage, so there must be none to look for."""

from __future__ import annotations

import gc
import socket
import struct
import weakref
from collections.abc import Awaitable, Callable, Iterator

import msgpack
import pytest
import trio

from tests.core.orders import uuid_of

from .serving import raw_stream, serving, until

PLACE = {"request": {"spec": {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1024}}}}


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collection meanwhile."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


MESSAGES: list[list[object]] = [
    [[0, 1, "status", []]],
    [[0, 1, "place", [PLACE]], [2, "place", [PLACE]], [0, 2, "release", [[uuid_of(1)]]]],
    [[0, 1, "watch", []], [0, 2, "place", [PLACE]]],
    [[0, 1, "batch", [[["hosts", []], ["place", [PLACE]]]]]],
    [[0, 1, "nonsense", []], [7]],
]


async def closed(stream: trio.SocketStream) -> None:
    """The peer has read an answer, and says goodbye."""
    await stream.receive_some()
    await stream.aclose()


async def left(stream: trio.SocketStream) -> None:
    """The peer reads nothing, which to the server is an error of writing."""
    await stream.aclose()


async def reset(stream: trio.SocketStream) -> None:
    """The peer is gone without a goodbye, which to the server is an error of reading."""
    await stream.receive_some()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


@pytest.mark.parametrize("end", [closed, left, reset])
@pytest.mark.parametrize("messages", MESSAGES)
async def test_a_connection_that_has_ended_is_nowhere(
    uncollected: None, messages: list[object], end: Callable[[trio.SocketStream], Awaitable[None]]
) -> None:
    async with serving() as served:
        stream = await raw_stream(served.address)
        await until(lambda: bool(served.server.connections))
        (connection,) = served.server.connections
        known = weakref.ref(connection)
        del connection
        await stream.send_all(b"".join(map(msgpack.packb, messages)))
        await end(stream)
        await until(lambda: not served.server.connections)
        await until(lambda: known() is None)
