"""Ways to call the API: in this process without sockets, over a stream in memory, and as a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import trio
import trio.testing

from hostler.core.http.access_log import AccessLog
from hostler.core.http.api import Api, InMemory
from hostler.core.http.config import PlacementConfig
from hostler.core.http.connection import Connection
from hostler.core.http.messages import Request
from hostler.placement.api.placement_model import PlacementModel
from hostler.placement.fleet.fleet import Fleet

from ..patience import HANG_SECONDS

HOSTLER = Path(sys.executable).with_name("hostler")
NOW = 1_700_000_000.0


@dataclass
class Answer:
    """Status, headers and body of a response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is empty."""
        return json.loads(self.body) if self.body else None

    @property
    def error(self) -> dict[str, Any]:
        """The one error of a refusal."""
        (error,) = self.json["errors"]
        assert isinstance(error, dict)
        return error


@dataclass
class Caller:
    """The API on a fleet of its own, called as a function. Time stands still; uuids count up."""

    config: PlacementConfig = field(default_factory=lambda: PlacementConfig(auth="none"))
    fleet: Fleet = field(default_factory=Fleet)

    def __post_init__(self) -> None:
        self.model = PlacementModel(self.fleet)
        self.api = Api(self.model, InMemory(self.model), self.config, clock=lambda: NOW)

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        version: str = "1.39",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call once. ``body`` is sent as JSON unless it is bytes."""
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        target, _, query = path.partition("?")
        given = {"host": "api.example", "openstack-api-version": f"placement {version}"}
        if body is not None:
            given |= {"content-type": "application/json", "content-length": str(len(raw))}
        given |= headers or {}

        async def read() -> bytes:
            return raw

        async def respond() -> Answer:
            request = Request(method, target, query, given, read)
            response, exchange = await self.api.respond(request)
            assert exchange.problem is None, exchange.problem
            sent = dict(response.headers)
            if response.content_type:
                sent["content-type"] = response.content_type
            return Answer(response.status, sent, response.body)

        return trio.run(respond)


@asynccontextmanager
async def connected(config: PlacementConfig) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    """The client's end of a connection, in memory, to an API on an empty fleet."""
    model = PlacementModel(Fleet())
    api = Api(model, InMemory(model), config)
    ours, theirs = trio.testing.memory_stream_pair()
    connection = Connection(theirs, api, AccessLog(file=io.BytesIO()), "client")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        yield ours
        await ours.aclose()


async def read_answer(stream: trio.abc.ReceiveStream, method: str = "GET") -> Answer | None:
    """The next answer on a stream; None if it ends instead."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    answer: Answer | None = None
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            try:
                client.receive_data(bytes(await stream.receive_some(65_536)))
            except trio.BrokenResourceError:
                client.receive_data(b"")
        elif isinstance(event, h11.Response):
            headers = {name.decode(): value.decode() for name, value in event.headers}
            answer = Answer(event.status_code, headers, b"")
        elif isinstance(event, h11.Data):
            assert answer is not None
            answer.body += event.data
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return answer


@dataclass
class Process:
    """``hostler serve`` as a process, at ``url``."""

    popen: subprocess.Popen[str]
    url: str
    log: list[str]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rpartition(":")[2].partition("/")[0])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(HANG_SECONDS)


@contextmanager
def serving(*options: str, env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """``hostler serve`` with the options, on a free port, ready to answer."""
    command = [str(HOSTLER), "serve", "--placement", "127.0.0.1:0", *options]
    popen = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    assert popen.stdout is not None
    assert popen.stderr is not None
    log: list[str] = []
    reader = threading.Thread(target=log.extend, args=(popen.stderr,), daemon=True)
    reader.start()
    try:
        ready = popen.stdout.readline()
        assert "ready on" in ready, "".join(log)
        yield Process(popen, ready.rpartition(" ")[2].strip(), log)
    finally:
        if popen.poll() is None:
            popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                popen.wait(HANG_SECONDS)
            popen.kill()
        popen.wait()
        popen.stdout.close()
        reader.join(HANG_SECONDS)
        popen.stderr.close()
