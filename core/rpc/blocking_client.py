"""The client of the service for code without an event loop."""

from __future__ import annotations

import math
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar

from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError
from ...placement.types.request import Request
from ..engine_commands import Placed
from ..errors import Stopped
from ..machine.event_log import Event
from .caller import (
    EVENTS_KEPT,
    HANGS_SECONDS,
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
from .messages import Answer
from .tls import client_context, failure

T = TypeVar("T")

READ_BYTES: Final = 256 << 10
SEND_BYTES: Final = 256 << 10
_WAIT: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BlockingClient(Caller):
    """For code without an event loop; one thread at a time. Connected when first needed."""

    def __init__(
        self,
        address: AnyAddress,
        *,
        token: str | None = None,
        within: float = TIMEOUT,
        patience: float = math.inf,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(address, token=token, within=within, patience=patience)
        self._tls = tls
        self._link: tuple[socket.socket, Wire] | None = None
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

    def call(
        self,
        method: str,
        params: Params = None,
        *,
        key: str | None = None,
        within: float | None = None,
        stale_ms: float | None = None,
    ) -> Any:
        """As ``Client.call``."""
        return self._run(self._call(method, params, key, within, stale_ms))

    def place(self, request: Request, *, key: str | None = None, within: float | None = None) -> Decision:
        """Place one request."""
        decision: Decision = self.call("place", place_params(request), key=key, within=within)
        return decision

    def place_many(self, requests: Iterable[Request], *, key: str | None = None, within: float | None = None) -> Placed:
        """Place many requests in one command."""
        placed: Placed = self.call("place_many", place_many_params(requests), key=key, within=within)
        return placed

    def release(self, uuids: Sequence[str], *, key: str | None = None, within: float | None = None) -> int:
        """Release instances."""
        count: int = self.call("release", {"uuids": list(uuids)}, key=key, within=within)
        return count

    def batch(self, calls: Iterable[tuple[str, Params]], *, within: float | None = None) -> list[Any]:
        """As ``Client.batch``."""
        return self._run(self._batch(calls, within))

    def pipeline(self, calls: Iterable[tuple[str, Params]], *, within: float | None = None) -> list[Any]:
        """As ``Client.pipeline``."""
        return self._run(self._pipeline(calls, within))

    def events(self, within: float | None = None) -> Iterator[Event]:
        """The events of ``watch``; ends when none has arrived for ``within`` seconds. Reconnects automatically;
        ConnectionLost if that takes longer than the client's own ``within``."""
        while True:
            while self._events:
                yield self._events.popleft()
            deadline = self._now() + within if within is not None else float("inf")
            try:
                self._take(*self._living(), deadline)
            except TimeoutError:
                return
            except ConnectionLost:
                self._run(self._until_answered("status", None, None, self._deadline(None)))

    # interface of Caller

    @property
    def _wire(self) -> Wire:
        return self._living()[1]

    def _living(self) -> tuple[socket.socket, Wire]:
        if self._link is None:
            raise ConnectionLost("there is no connection")
        return self._link

    async def _connect(self, deadline: float) -> None:
        if self._link is not None:
            return
        address, left = self.address, max(deadline - self._now(), 0.001)
        made = None
        if len(self.addresses) > 1:
            left = min(left, HANGS_SECONDS)
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
            if made is not None:
                made.close()
            if isinstance(error, ssl.SSLError) and (failed := failure(error)) is not None:
                raise failed from error
            raise ConnectionLost(f"no connection to {address}: {error}") from error
        made.setblocking(False)
        self._link = (made, Wire())
        try:
            await self._greet(deadline)
        except BaseException:
            self._drop()
            raise

    async def _transfer(self, calls: Sequence[tuple[int, bytes]], deadline: float) -> Mapping[int, Answer]:
        """Send and receive at the same time: a server that waits for its answers to be read does not read."""
        answers: dict[int, Answer] = {}
        made, wire = self._living()
        waiting, unsent = {number for number, _ in calls}, memoryview(b"".join(data for _, data in calls))
        try:
            while waiting:
                sent = self._send(made, unsent)
                unsent = unsent[sent:]
                came = self._receive(made, wire)
                for answer in came or ():
                    answers[answer.id] = answer
                    waiting.discard(answer.id)
                if waiting and not sent and came is None:
                    self._wait(made, deadline, writing=bool(unsent))
        except TimeoutError:
            self._drop()  # or the late answer would be in the way
            raise late() from None
        except (OSError, BadFrame) as error:
            raise self._broken(wire, error) from error
        return answers

    def _take(self, made: socket.socket, wire: Wire, deadline: float) -> None:
        """Wait for input. TimeoutError, ConnectionLost."""
        try:
            while self._receive(made, wire) is None:
                self._wait(made, deadline, writing=False)
        except TimeoutError:
            raise
        except (OSError, BadFrame) as error:
            raise self._broken(wire, error) from error

    def _broken(self, wire: Wire, error: Exception) -> HostlerError:
        """Drop the connection; returns the error with the reason."""
        self._drop()
        # With TLS 1.3 the client's handshake ends before the service has checked the client's certificate.
        failed = failure(error, after_handshake=True) if isinstance(error, ssl.SSLError) else None
        return failed or wire.lost(f"the connection broke: {error}")

    def _send(self, made: socket.socket, data: memoryview) -> int:
        """Send what can be sent now."""
        if not data:
            return 0
        try:
            return made.send(data[:SEND_BYTES])
        except _WAIT:
            return 0
        except OSError:
            # The reason why the server stopped reading may be in the socket's buffer.
            return 0

    def _receive(self, made: socket.socket, wire: Wire) -> list[Answer] | None:
        """Received answers, None if there is no input; events are stored. ConnectionResetError at the end."""
        try:
            data = made.recv(READ_BYTES)
        except _WAIT:
            return None
        if not data:
            raise ConnectionResetError("the server closed it")
        answers = []
        for message in wire.feed(data):
            if not isinstance(message, Event):
                answers.append(message)
            elif self._progress.is_new(message):
                self._events.append(message)
        return answers

    def _wait(self, made: socket.socket, deadline: float, *, writing: bool) -> None:
        """Wait until something can be received, or sent. TimeoutError."""
        left = deadline - self._now()
        if left <= 0:
            raise TimeoutError
        if not hasattr(select, "poll"):  # patched by eventlet, which waits for the socket itself
            waits = None if left == math.inf else left
            if not any(select.select([made], [made] if writing else [], [], waits)):
                raise TimeoutError
            return
        select_on = select.poll()
        select_on.register(made, select.POLLIN | (select.POLLOUT if writing else 0))
        ready = select_on.poll(None if left == math.inf else left * 1000)
        if ready and ready[0][1] & (select.POLLERR | select.POLLHUP) and not ready[0][1] & select.POLLIN:
            raise ConnectionResetError("the server has closed the connection")

    def _drop(self) -> None:
        if self._link is not None:
            self._link[0].close()
            self._link = None

    def _leave(self) -> None:
        self._drop()

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  there is no event loop

    def _now(self) -> float:
        return time.monotonic()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that never waits for an event loop."""
        if self._closed:
            work.close()
            raise Stopped("the client is closed")
        try:
            work.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        work.close()
        raise RuntimeError("the blocking client's code has waited for an event loop")
