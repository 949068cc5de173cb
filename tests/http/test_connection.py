"""One connection: what it answers, and how it deals with clients that are slow, silent, generous or wrong."""

from __future__ import annotations

import gc
import io
import weakref

import msgspec
import pytest
import trio
import trio.testing

from hostler.core.http.access_log import AccessLog
from hostler.core.http.api import Api, InMemory
from hostler.core.http.config import Limits, PlacementConfig
from hostler.core.http.connection import Connection
from hostler.placement.api.placement_model import PlacementModel
from hostler.placement.fleet.fleet import Fleet

from .calling import connected, read_answer

CONFIG = PlacementConfig(
    auth="none",
    limits=Limits(header_bytes=2_000, body_bytes=100_000, idle_seconds=30, head_seconds=5, body_seconds=20),
)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def post(length: int, *more: str) -> bytes:
    lines = ("POST /resource_providers HTTP/1.1", "Host: x", "Content-Type: application/json", *more)
    return "\r\n".join((*lines, f"Content-Length: {length}", "", "")).encode()


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with connected(CONFIG) as client:
        for _ in range(3):
            await client.send_all(GET)
            answer = await read_answer(client)
            assert answer is not None
            assert (answer.status, answer.json["versions"][0]["max_version"]) == (200, "1.39")


async def test_requests_sent_before_the_answers_are_all_answered() -> None:
    async with connected(CONFIG) as client:
        await client.send_all(GET + GET.replace(b"GET / ", b"GET /nothing ") + GET)
        await client.send_eof()
        received = b""
        while chunk := await client.receive_some():
            received += chunk
    assert received.count(b"HTTP/1.1 200") == 2
    assert received.count(b"HTTP/1.1 404") == 1


async def test_head_has_no_body() -> None:
    async with connected(CONFIG) as client:
        await client.send_all(GET.replace(b"GET", b"HEAD"))
        answer = await read_answer(client, "HEAD")
        assert answer is not None
        assert (answer.status, answer.body) == (405, b"")


async def test_connection_close_is_honoured() -> None:
    async with connected(CONFIG) as client:
        await client.send_all(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = await read_answer(client)
        assert answer is not None
        assert answer.headers["connection"] == "close"
        assert await client.receive_some() == b""


async def test_a_client_that_waits_to_send_its_body_is_told_to_go_on() -> None:
    async with connected(CONFIG) as client:
        await client.send_all(post(2, "Expect: 100-continue"))
        assert (await client.receive_some()).startswith(b"HTTP/1.1 100")
        await client.send_all(b"{}")
        answer = await read_answer(client)
        assert answer is not None
        assert "'name' is a required property" in answer.error["detail"]


async def test_a_silent_connection_is_closed_without_a_word(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(CONFIG) as client:
        assert await client.receive_some() == b""
        assert trio.current_time() - 30 < 1


async def test_headers_that_do_not_end_in_time_get_408(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(CONFIG) as client:
        start = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                for byte in GET * 10:
                    await client.send_all(bytes([byte]).replace(b"\r", b"x"))
                    await trio.sleep(1)

            nursery.start_soon(drip)
            answer = await read_answer(client)
            nursery.cancel_scope.cancel()
        assert answer is not None
        assert answer.status == 408
        assert trio.current_time() - start < 7


async def test_a_body_that_does_not_end_in_time_gets_408(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(CONFIG) as client:
        await client.send_all(post(10))
        await client.send_all(b"{")
        answer = await read_answer(client)
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (408, "close")


async def test_a_body_that_is_declared_too_large_is_refused_unread() -> None:
    async with connected(CONFIG) as client:
        await client.send_all(post(50_000_000))
        answer = await read_answer(client)
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (413, "close")


async def test_a_body_in_chunks_is_refused_once_it_is_too_large() -> None:
    head = post(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    async with connected(CONFIG) as client:
        await client.send_all(head)
        async with trio.open_nursery() as nursery:

            async def pour() -> None:
                for _ in range(20):
                    await client.send_all(b"2710\r\n" + b"x" * 10_000 + b"\r\n")

            nursery.start_soon(pour)
            answer = await read_answer(client)
        assert answer is not None
        assert answer.status == 413


async def test_a_body_in_chunks_is_read() -> None:
    head = post(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    async with connected(CONFIG) as client:
        await client.send_all(head + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n" + GET)
        answer = await read_answer(client)
        assert answer is not None
        assert "'name' is a required property" in answer.error["detail"]


async def test_the_connection_outlives_a_refusal_before_its_short_body_was_read() -> None:
    async with connected(CONFIG) as client:
        await client.send_all(post(5).replace(b"/resource_providers", b"/nothing") + b"12345")
        first = await read_answer(client)
        await client.send_all(GET)
        second = await read_answer(client)
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (404, 200)


async def test_a_body_that_breaks_off_is_no_fault_of_the_server() -> None:
    async with connected(CONFIG) as client:
        await client.send_all(post(10) + b"{")
        await client.send_eof()
        answer = await read_answer(client)
        assert answer is not None
        assert answer.status == 400


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
async def test_headers_that_are_too_large_get_431(end: bytes) -> None:
    async with connected(CONFIG) as client:
        await client.send_all(GET.replace(b"\r\n\r\n", b"\r\nX-Long: " + b"y" * 3_000 + end))
        answer = await read_answer(client)
        assert answer is not None
        assert answer.status == 431


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        post(0).replace(b": 0", b": ten"),
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
    ],
    ids=["TLS", "no host", "no colon", "two lengths", "a length in words", "unknown coding", "zeros"],
)
async def test_what_is_no_http_gets_a_reason_in_json_and_the_connection_ends(sent: bytes) -> None:
    async with connected(CONFIG) as client:
        await client.send_all(sent)
        answer = await read_answer(client)
        assert answer is not None
        assert answer.status in (400, 501)
        assert answer.error["detail"]
        assert answer.headers["connection"] == "close"
        assert await client.receive_some() == b""


async def test_a_mount_prefix_is_taken_off_paths_and_put_before_links() -> None:
    config = msgspec.structs.replace(CONFIG, prefix="/placement")
    async with connected(config) as client:
        for path, status in ((b"/placement", 200), (b"/placement/", 200), (b"/traits", 404), (b"/placementx", 404)):
            await client.send_all(GET.replace(b"GET / ", b"GET %s " % path))
            answer = await read_answer(client)
            assert answer is not None
            assert answer.status == status, path


async def test_a_connection_whose_client_is_gone_is_nowhere_at_once() -> None:
    """A daemon looks for garbage rarely, so that there must be none."""
    model = PlacementModel(Fleet())
    ours, theirs = trio.socket.socketpair()
    connection = Connection(
        trio.SocketStream(theirs), Api(model, InMemory(model), CONFIG), AccessLog(file=io.BytesIO()), "client"
    )
    known = weakref.ref(connection)
    gc.collect()
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.serve)
            del connection
            await ours.send(GET)
            await trio.testing.wait_all_tasks_blocked()
            ours.close()  # with the answer unread, which to the server is an error of reading
        assert known() is None
    finally:
        gc.enable()
