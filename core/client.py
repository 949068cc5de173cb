"""Clients of the service: one for trio, and a blocking one made of the same code.

async with open_client("unix:/run/hostler/rpc.sock") as client:
    decision = await client.place(Request(spec=spec))

with BlockingClient("tls:scheduler:7777", token=token, tls=client_context(ca)) as client:
    print(client.call("usage", {"scope": "project:p1"}))
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, TypeVar

import msgspec
import trio

from ..placement.commands import Placed
from ..placement.decision import Decision
from ..placement.errors import HostlerError
from ..placement.request import Request
from .errors import Stopped
from .rpc.addresses import Address
from .rpc.caller import (
    TIMEOUT,
    Caller,
    ConnectionLost,
    Params,
    Wire,
    batch_of,
    late,
    place_params,
    read_event,
    read_result,
)
from .rpc.framing import BadFrame
from .rpc.messages import Answer, Notification, encode, read_error
from .rpc.methods import Event
from .rpc.tls import client_context
from .tasks import background

T = TypeVar("T")

READ_BYTES = 256 << 10
EVENTS_KEPT = 10_000


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
    """A connection of the trio client, and the calls that wait for their answers on it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream, self.wire = stream, Wire()
        self.waiting: dict[int, _Waiter] = {}
        self.lost = False
        self._out: list[bytes] = []
        self._wake = trio.lowlevel.ParkingLot()

    async def ask(self, numbers: Sequence[int], data: bytes, deadline: float) -> dict[int, Answer]:
        """Send calls, and wait for all their answers. ConnectionLost, DeadlineExceeded."""
        if not numbers:
            return {}
        waiter = _Waiter(len(numbers))
        self.waiting.update(dict.fromkeys(numbers, waiter))
        self._out.append(data)
        self._wake.unpark_all()
        try:
            with trio.move_on_at(deadline):
                await waiter.event.wait()
        finally:
            for number in numbers:
                self.waiting.pop(number, None)
        if waiter.left:
            raise ConnectionLost("the connection broke") if self.lost else late()
        return waiter.answers

    async def write(self) -> None:
        """Send what there is to send, for ever."""
        while True:
            if not self._out:
                await self._wake.park()
                continue
            chunks, self._out = self._out, []
            await self.stream.send_all(b"".join(chunks))

    def lose(self) -> None:
        """Wake all that wait; they find no answer."""
        self.lost = True
        for waiter in self.waiting.values():
            waiter.event.set()


class Client(Caller):
    """For trio: any number of tasks may call at once, over one connection. Made by ``open_client``."""

    def __init__(
        self,
        address: str | Address,
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
        """``events`` gives what ``watch`` asked for; when it is full, events are left out."""

    async def call(
        self, method: str, params: Params = None, *, key: str | None = None, within: float | None = None
    ) -> Any:
        """Call a method of docs/rpc.md; its answer as the type named there, or its error raised. ``within`` so many
        seconds, tries again included; then DeadlineExceeded or ConnectionLost."""
        return await self._call(method, params, key, within)

    async def place(self, request: Request, *, key: str | None = None, within: float | None = None) -> Decision:
        """Place one request."""
        decision: Decision = await self._call("place", place_params(request), key, within)
        return decision

    async def place_many(
        self, requests: Iterable[Request], *, key: str | None = None, within: float | None = None
    ) -> Placed:
        """Place many requests in one command."""
        params = {"requests": [place_params(request)["request"] for request in requests]}
        placed: Placed = await self._call("place_many", params, key, within)
        return placed

    async def release(self, uuids: Sequence[str], *, key: str | None = None, within: float | None = None) -> int:
        """Release instances."""
        count: int = await self._call("release", {"uuids": list(uuids)}, key, within)
        return count

    async def batch(self, calls: Iterable[tuple[str, Params]], *, within: float | None = None) -> list[Any]:
        """Several calls in one message; for each its result as plain values, or its error as a value. Not repeated
        where the connection is lost."""
        answers: list[tuple[Any, Any]] = await self._call("batch", batch_of(calls), None, within)
        return [result if error is None else _error(error) for error, result in answers]

    async def pipeline(self, calls: Iterable[tuple[str, Params]], *, within: float | None = None) -> list[Any]:
        """Many calls at once without waiting in between; for each its result, or its error as a value. Without keys, so
        not repeated: ConnectionLost if the connection breaks."""
        deadline = self._now() + (self.within if within is None else within)
        await self._connect(deadline)
        link = self._living()
        made = [(method, *link.wire.call(method, params, {})) for method, params in calls]
        answers = await link.ask([number for _, number, _ in made], b"".join(data for *_, data in made), deadline)
        results: list[Any] = []
        for method, number, _ in made:
            answer = answers[number]
            results.append(answer.error if answer.error is not None else read_result(method, answer.result))
        return results

    # what Caller wants

    async def _connect(self, deadline: float) -> None:
        async with self._connecting:
            if self._link is not None and not self._link.lost:
                return
            link = _Link(await self._open(deadline))
            self._link = link
            await self._nursery.start(self._serve, link)
            try:
                await self._greet(deadline)
            except BaseException:
                link.lose()
                self._link = None
                raise

    async def _open(self, deadline: float) -> trio.abc.Stream:
        address = self.address
        try:
            with trio.fail_at(deadline):
                if address.kind == "unix":
                    return await trio.open_unix_socket(address.host)
                stream = await trio.open_tcp_stream(address.host, address.port)
                if address.kind == "tcp":
                    return stream
                context = self._tls if self._tls is not None else client_context()
                secured = trio.SSLStream(stream, context, server_hostname=address.host, https_compatible=True)
                await secured.do_handshake()
                return secured
        except trio.TooSlowError:
            raise ConnectionLost(f"no connection to {address} in time") from None
        except (OSError, trio.BrokenResourceError) as error:
            raise ConnectionLost(f"no connection to {address}: {error.__cause__ or error}") from error

    async def _serve(self, link: _Link, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read answers and write calls until the connection is lost."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_lost, link.write, nursery.cancel_scope)
                task_status.started()
                await _until_lost(lambda: self._read(link), nursery.cancel_scope)
        finally:
            link.lose()
            await trio.aclose_forcefully(link.stream)

    async def _read(self, link: _Link) -> None:
        while data := await link.stream.receive_some(READ_BYTES):
            for message in link.wire.feed(bytes(data)):
                if isinstance(message, Notification):
                    self._notified(message)
                elif (waiter := link.waiting.pop(message.id, None)) is not None:
                    waiter.take(message)

    def _notified(self, note: Notification) -> None:
        event = read_event(note)
        if event is not None:
            try:
                self._events_in.send_nowait(event)
            except trio.WouldBlock:
                return

    async def _exchange(self, method: str, params: Params, options: Mapping[str, Any], deadline: float) -> Answer:
        link = self._living()
        number, data = link.wire.call(method, params, options)
        return (await link.ask([number], data, deadline))[number]

    def _living(self) -> _Link:
        if self._link is None or self._link.lost:
            raise ConnectionLost("the connection broke")
        return self._link

    async def _sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def _now(self) -> float:
        return trio.current_time()


async def _until_lost(work: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError, BadFrame):
        await work()
    scope.cancel()


def _error(value: Any) -> HostlerError:
    return read_error(msgspec.Raw(encode(value)))


@asynccontextmanager
async def open_client(
    address: str | Address,
    *,
    token: str | None = None,
    within: float = TIMEOUT,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Client]:
    """A client, connected when first needed. ``within`` in seconds is for calls that name none; ``tls`` from
    ``hostler.core.rpc.tls.client_context``."""
    async with background() as nursery:
        try:
            yield Client(address, nursery, token=token, within=within, tls=tls)
        finally:
            nursery.cancel_scope.cancel()


class BlockingClient(Caller):
    """For code without an event loop; one thread at a time."""

    def __init__(
        self,
        address: str | Address,
        *,
        token: str | None = None,
        within: float = TIMEOUT,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(address, token=token, within=within)
        self._tls = tls
        self._socket: socket.socket | None = None
        self._wire = Wire()
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._closed = False

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls are errors from now on."""
        self._closed = True
        self._drop()

    def call(self, method: str, params: Params = None, *, key: str | None = None, within: float | None = None) -> Any:
        """As ``Client.call``."""
        if self._closed:
            raise Stopped("the client is closed")
        return _run(self._call(method, params, key, within))

    def place(self, request: Request, *, key: str | None = None, within: float | None = None) -> Decision:
        """Place one request."""
        decision: Decision = self.call("place", place_params(request), key=key, within=within)
        return decision

    def events(self, within: float | None = None) -> Iterator[Event]:
        """What ``watch`` asked for, as it comes; ends when nothing has come for ``within`` seconds. ConnectionLost."""
        while True:
            while self._events:
                yield self._events.popleft()
            deadline = time.monotonic() + within if within is not None else float("inf")
            try:
                self._take(deadline)
            except TimeoutError:
                return

    # what Caller wants

    async def _connect(self, deadline: float) -> None:
        if self._socket is not None:
            return
        address, left = self.address, max(deadline - self._now(), 0.001)
        try:
            if address.kind == "unix":
                made = socket.socket(socket.AF_UNIX)
                made.settimeout(left)
                made.connect(address.host)
            else:
                made = socket.create_connection((address.host, address.port), timeout=left)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.kind == "tls":
                context = self._tls if self._tls is not None else client_context()
                made = context.wrap_socket(made, server_hostname=address.host)
        except OSError as error:
            raise ConnectionLost(f"no connection to {address}: {error}") from error
        self._socket, self._wire = made, Wire()
        try:
            await self._greet(deadline)
        except BaseException:
            self._drop()
            raise

    async def _exchange(self, method: str, params: Params, options: Mapping[str, Any], deadline: float) -> Answer:
        number, data = self._wire.call(method, params, options)
        try:
            assert self._socket is not None
            self._socket.settimeout(max(deadline - self._now(), 0.001))
            self._socket.sendall(data)
            while True:
                for answer in self._take(deadline):
                    if answer.id == number:
                        return answer
        except TimeoutError:
            self._drop()  # or the late answer would be in the way
            raise late() from None
        except OSError as error:
            self._drop()
            raise ConnectionLost(f"the connection broke: {error}") from error

    def _take(self, deadline: float) -> list[Answer]:
        """Answers that have come; events are kept. TimeoutError, OSError or ConnectionLost."""
        if self._socket is None:
            raise ConnectionLost("there is no connection")
        left = deadline - self._now()
        self._socket.settimeout(max(left, 0.001) if left != float("inf") else None)
        data = self._socket.recv(READ_BYTES)
        if not data:
            self._drop()
            raise ConnectionLost("the server closed the connection")
        answers = []
        for message in self._wire.feed(data):
            if isinstance(message, Answer):
                answers.append(message)
            elif (event := read_event(message)) is not None:
                self._events.append(event)
        return answers

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  there is no event loop

    def _now(self) -> float:
        return time.monotonic()


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits for an event loop."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("the blocking client's code has waited for an event loop")
