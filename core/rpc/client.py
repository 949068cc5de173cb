"""The client of the service for trio; ``BlockingClient``, for code without an event loop, is made of the same code.

async with open_client("unix:/run/hostler/rpc.sock") as client:
    decision = await client.place(Request(spec=spec))

with BlockingClient("tls:scheduler:7777", token=token, tls=client_context(ca)) as client:
    print(client.call("usage", {"scope": "project:p1"}))
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import trio

from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError
from ...placement.types.request import Request
from ..engine_commands import Placed
from ..errors import Stopped
from ..machine.event_log import Event
from ..tasks import background
from .blocking_client import BlockingClient
from .caller import (
    EVENTS_KEPT,
    HANGS_SECONDS,
    LONGEST_PAUSE,
    TIMEOUT,
    AnyAddress,
    Caller,
    ConnectionLost,
    Params,
    Wire,
    late,
    place_many_params,
    place_params,
)
from .framing import BadFrame
from .handshake import secured
from .messages import Answer
from .tls import client_context, failure

__all__ = ["BlockingClient", "Client", "ConnectionLost", "open_client"]

READ_BYTES: Final = 256 << 10


class _Waiter:
    """One or more calls that are waited for together."""

    def __init__(self, calls: int) -> None:
        self.left, self.answers, self.event = calls, dict[int, Answer](), trio.Event()

    def take(self, answer: Answer) -> None:
        self.answers[answer.id] = answer
        self.left -= 1
        if not self.left:
            self.event.set()


class _Link:
    """A connection, and the calls that wait for their answers on it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream, self.wire = stream, Wire()
        self.waiting: dict[int, _Waiter] = {}
        self.lost = self.retired = False
        self.scope = trio.CancelScope()
        """Of the task that reads and writes."""
        self._out: list[bytes] = []
        self._wake = trio.lowlevel.ParkingLot()

    async def ask(self, calls: Sequence[tuple[int, bytes]], deadline: float) -> Mapping[int, Answer]:
        """Send calls, and wait for all their answers."""
        waiter = _Waiter(len(calls))
        if self.lost:
            raise self.wire.lost("the connection broke")
        if not calls:
            return waiter.answers
        for number, data in calls:
            self.waiting[number] = waiter
            self._out.append(data)
        self._wake.unpark_all()
        try:
            with trio.move_on_at(deadline):
                await waiter.event.wait()
        finally:
            for number, _ in calls:
                self.waiting.pop(number, None)
        if waiter.left:
            raise self.wire.lost("the connection broke") if self.lost else late()
        return waiter.answers

    async def write(self) -> None:
        """Send what there is to send, for ever."""
        while True:
            if not self._out:
                await self._wake.park()
                continue
            chunks, self._out = self._out, []
            await self.stream.send_all(b"".join(chunks))

    def retire(self) -> None:
        """Have no more calls sent here: closed once those that wait have their answers."""
        self.retired = True
        if not self.waiting:
            self.scope.cancel()

    def lose(self) -> None:
        """Wake all that wait; they find no answer."""
        self.lost = True
        for waiter in self.waiting.values():
            waiter.event.set()


class Client(Caller):
    """Client for trio: any number of tasks may call concurrently over one connection. Created by ``open_client``."""

    def __init__(
        self,
        address: AnyAddress,
        nursery: trio.Nursery,
        *,
        token: str | None = None,
        within: float = TIMEOUT,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(address, token=token, within=within)
        self._nursery, self._tls = nursery, tls
        self._link: _Link | None = None
        self._connecting = trio.Lock()
        self._events_in, self.events = trio.open_memory_channel[Event](EVENTS_KEPT)
        """``events`` gives what ``watch`` asked for; when it is full, events are left out and counted in ``missed``."""
        self.missed = 0

    async def call(
        self,
        method: str,
        params: Params = None,
        *,
        key: str | None = None,
        within: float | None = None,
        stale_ms: float | None = None,
    ) -> Any:
        """Call a method of docs/rpc.md; returns its result with the type given there, or raises its error. ``within``:
        seconds, including retries, before DeadlineExceeded or ConnectionLost. ``stale_ms``, of a question: the age in
        milliseconds that the state of a following member may have; the leader is asked where it is older."""
        return await self._call(method, params, key, within, stale_ms)

    async def place(self, request: Request, *, key: str | None = None, within: float | None = None) -> Decision:
        """Place one request."""
        decision: Decision = await self._call("place", place_params(request), key, within)
        return decision

    async def place_many(
        self, requests: Iterable[Request], *, key: str | None = None, within: float | None = None
    ) -> Placed:
        """Place many requests in one command."""
        placed: Placed = await self._call("place_many", place_many_params(requests), key, within)
        return placed

    async def release(self, uuids: Sequence[str], *, key: str | None = None, within: float | None = None) -> int:
        """Release instances."""
        count: int = await self._call("release", {"uuids": list(uuids)}, key, within)
        return count

    async def batch(self, calls: Iterable[tuple[str, Params]], *, within: float | None = None) -> list[Any]:
        """Several calls in one message; for each its result as plain values, or its error as a value. Not repeated
        where the connection is lost."""
        return await self._batch(calls, within)

    async def pipeline(self, calls: Iterable[tuple[str, Params]], *, within: float | None = None) -> list[Any]:
        """Send many calls without waiting in between; returns for each its result, or its error as a value. Calls have
        no keys and are not repeated: ConnectionLost if the connection is lost."""
        return await self._pipeline(calls, within)

    # interface of Caller

    @property
    def _wire(self) -> Wire:
        return self._living().wire

    def _living(self) -> _Link:
        if self._link is None:
            raise ConnectionLost("the connection broke")
        if self._link.lost:
            raise self._link.wire.lost("the connection broke")
        return self._link

    async def _transfer(self, calls: Sequence[tuple[int, bytes]], deadline: float) -> Mapping[int, Answer]:
        return await self._living().ask(calls, deadline)

    async def _connect(self, deadline: float) -> None:
        if self._link is not None and not self._link.lost:
            await trio.lowlevel.checkpoint_if_cancelled()
            if not self._connecting.locked():
                return
        with trio.move_on_at(deadline):
            async with self._connecting:
                await self._connect_alone(deadline)
                return
        raise ConnectionLost(f"no connection to {self.address} in time")

    async def _connect_alone(self, deadline: float) -> None:
        if self._link is not None and not self._link.lost:
            return
        link = await self._linked(deadline)
        self._link = link
        try:
            await self._nursery.start(self._serve, link)
            await self._greet(deadline)
        except BaseException:
            link.lose()
            self._link = None
            await trio.aclose_forcefully(link.stream)
            raise

    async def _linked(self, deadline: float) -> _Link:
        patience = HANGS_SECONDS if len(self.addresses) > 1 else math.inf
        with trio.move_on_after(patience):
            return _Link(await self._open(deadline))
        raise ConnectionLost(f"no connection to {self.address} in time")

    async def _open(self, deadline: float) -> trio.abc.Stream:
        """A new connection, at best before ``deadline``. ConnectionLost, TlsFailed."""
        address = self.address
        try:
            if address.kind == "unix":
                return await trio.open_unix_socket(address.host)
            stream = await trio.open_tcp_stream(address.host, address.port)
            if address.kind == "tcp":
                return stream
            context = self._tls if self._tls is not None else client_context()
            try:
                return await secured(stream, context, service=address.host)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        except (OSError, trio.BrokenResourceError) as error:
            raise ConnectionLost(f"no connection to {address}: {error.__cause__ or error}") from error

    async def _serve(self, link: _Link, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read answers and write calls until the connection is lost; then reconnect, if there is a subscription."""
        try:
            with link.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_until_lost, link.write)
                    task_status.started()
                    await _until_lost(lambda: self._read_all(link))
                    nursery.cancel_scope.cancel()
        finally:
            link.lose()
            await trio.aclose_forcefully(link.stream)
        if self._watched is not None and self._link is link:
            with suppress(HostlerError):
                await self._watch_again()

    async def _watch_again(self) -> None:
        pause = 0.0
        while True:
            await self._sleep(pause * (0.5 + self._pauses.random() / 2))
            with suppress(ConnectionLost, Stopped):
                return await self._connect(self._now() + self.within)
            pause = min(2 * pause + 0.02, LONGEST_PAUSE)

    async def _read_all(self, link: _Link) -> None:
        try:
            await self._read(link)
        except trio.BrokenResourceError as error:
            # With TLS 1.3 the client's handshake ends before the service has checked the client's certificate.
            if isinstance(error.__cause__, ssl.SSLError) and link.wire.dismissal is None:
                link.wire.dismissal = failure(error.__cause__, after_handshake=True)
            raise

    async def _read(self, link: _Link) -> None:
        while data := await link.stream.receive_some(READ_BYTES):
            for message in link.wire.feed(bytes(data)):
                if isinstance(message, Event):
                    if not link.retired:
                        self._happened(message)
                elif (waiter := link.waiting.pop(message.id, None)) is not None:
                    waiter.take(message)
                    if link.retired and not link.waiting:
                        return

    def _happened(self, event: Event) -> None:
        if not self._progress.is_new(event):
            return
        try:
            self._events_in.send_nowait(event)
        except trio.WouldBlock:
            self.missed += 1

    def _leave(self) -> None:
        link, self._link = self._link, None
        if link is None or link.lost:
            return
        link.retire()
        if self._watched is not None and not self._connecting.locked():
            self._nursery.start_soon(self._resume_watch)

    async def _resume_watch(self) -> None:
        with suppress(HostlerError):
            await self._watch_again()

    async def _sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def _now(self) -> float:
        return trio.current_time()


async def _until_lost(work: Callable[[], Awaitable[None]]) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError, BadFrame):
        await work()


@asynccontextmanager
async def open_client(
    address: AnyAddress,
    *,
    token: str | None = None,
    within: float = TIMEOUT,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Client]:
    """A client, connected on first use. ``within``: default timeout of calls in seconds; ``tls`` from
    ``hostler.core.rpc.tls.client_context``."""
    async with background() as nursery:
        try:
            yield Client(address, nursery, token=token, within=within, tls=tls)
        finally:
            nursery.cancel_scope.cancel()
