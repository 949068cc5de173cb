"""A daemon rarely has time to look for garbage, so there must be none to look for."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import msgpack
import pytest
import trio
import trio.testing

from hostler.core.rpc.connection import Connection
from tests.core.orders import uuid_of

from ..patience import HANG_SECONDS
from .serving import Served, raw_stream, serving

PLACE = {"request": {"spec": {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1024}}}}


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collection meanwhile."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def gone(served: Served, messages: list[object]) -> weakref.ref[Connection]:
    """A connection that has said something, and been closed."""
    stream = await raw_stream(served.address)
    await stream.send_all(b"".join(map(msgpack.packb, messages)))
    await stream.receive_some()
    (connection,) = served.server.connections
    known = weakref.ref(connection)
    del connection
    await stream.aclose()
    with trio.fail_after(HANG_SECONDS):
        while served.server.connections:  # noqa: ASYNC110  # no event tells of it
            await trio.sleep(0.01)
    await trio.testing.wait_all_tasks_blocked()
    return known


@pytest.mark.parametrize(
    "messages",
    [
        [[0, 1, "status", []]],
        [[0, 1, "place", [PLACE]], [2, "place", [PLACE]], [0, 2, "release", [[uuid_of(1)]]]],
        [[0, 1, "watch", []], [0, 2, "place", [PLACE]]],
        [[0, 1, "batch", [[["hosts", []], ["place", [PLACE]]]]]],
        [[0, 1, "nonsense", []], [7]],
    ],
)
async def test_a_connection_that_has_ended_is_nowhere(uncollected: None, messages: list[object]) -> None:
    async with serving() as served:
        assert (await gone(served, messages))() is None
