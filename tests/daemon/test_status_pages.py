"""The pages for monitoring, in the test's own process: how many connections they take."""

from __future__ import annotations

import pytest
import trio

from hostler.core.failures import Failures
from hostler.core.process import health
from hostler.core.process.clock import HonestClock
from hostler.core.process.health import Health, StatusPages
from hostler.core.process.metrics import Metrics

from ..patience import HANG_SECONDS


async def test_connections_beyond_those_that_may_wait_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CONNECTIONS", 1)
    monkeypatch.setattr(health, "WAITING", 1)
    pages = StatusPages(Health(), Metrics(Failures(), HonestClock()))
    async with trio.open_nursery() as nursery:
        where = await nursery.start(pages.serve, "127.0.0.1:0")
        host, _, port = where.rpartition(":")
        streams = []
        for _ in range(2):  # one that is served, and one that waits
            streams.append(await trio.open_tcp_stream(host, int(port)))
            await trio.testing.wait_all_tasks_blocked(0.01)
        third = await trio.open_tcp_stream(host, int(port))
        with trio.fail_after(HANG_SECONDS):
            assert await third.receive_some(1) == b""
        for stream in streams:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await stream.receive_some(4_096)).startswith(b"HTTP/1.1 200 ")
            await stream.aclose()
        await third.aclose()
        nursery.cancel_scope.cancel()
