"""One peer's connection: bytes in, bytes out, a session between, and what the peer may use of the service."""

from __future__ import annotations

import logging
import math
import os
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import msgspec
import trio

from ...placement.types.errors import HostlerError
from ..failures import release_frames
from ..service import Service
from ..tenancy.errors import NotAuthenticated
from ..tenancy.tenants import CLOUD, RANK
from .framing import BadFrame, Framer
from .handshake import begins_with_tls, let_read, secured
from .messages import error_object, notification
from .session import Session
from .tls import TlsFailed, names_of
from .turns import Turns
from .watching import Watchers

READ_BYTES: Final = 64 << 10
SEND_BYTES: Final = 1 << 20
SMALL_ANSWER_BYTES: Final = 4 << 10
CHUNK_BYTES: Final = 64 << 10
"""Smaller answers that wait are kept in one chunk, up to this size: an object each would be more memory than the
answers, which alone are counted."""
LINGER_SECONDS: Final = 2.0
TURN_MESSAGES: Final = 64
TURN_BYTES: Final = 64 << 10
"""So much of one peer is taken in, about half a millisecond, before others have their turn. (No clock: a simulation
with the same seed must do the same again.)"""
ENDING: Final = "\0ending"
"""The user whose turns connections take to end: others do not wait for thousands that end at once, as with a client's
host."""
_CREDENTIALS: Final = struct.Struct("3i")
LOST: Final = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, OSError)
"""Errors of a connection that is closed or broken (an SSLError is an OSError)."""

SAY_SECONDS: Final = 60.0
"""Between two log lines about peers who have not authenticated."""

log = logging.getLogger("hostler.rpc")


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What peers may use. Sizes in bytes, times in seconds."""

    connections: int = 20_000
    """Maximum number of connections; further ones are closed immediately."""
    frame_bytes: int = 16 << 20
    """Maximum bytes of one message from an admin or reader of the cloud."""
    member_bytes: int = 4 << 20
    """Maximum bytes of one message from any other user."""
    stranger_bytes: int = 64 << 10
    """Maximum bytes of one message from an unauthenticated peer, and of the answers that it has not taken."""
    unfinished_bytes: int = 512 << 20
    """Maximum total bytes of incomplete messages of all connections; the connection that exceeds it is closed."""
    frame_seconds: float = 60.0
    """From a message's first byte to its last, and for a TLS handshake; then the connection is closed."""
    idle_seconds: float = math.inf
    """Without a message or an open call or a subscription; then the connection is closed."""
    outstanding: int = 4_096
    """Calls without an answer, of one connection; beyond that nothing more is read from it."""
    long_questions: int = 4
    """Of one connection, without an answer; beyond that nothing more is read from it."""
    outstanding_bytes: int = 32 << 20
    """Length of these calls together; beyond that nothing more is read from it."""
    unread_bytes: int = 4 << 20
    """Answers that the peer has not taken; beyond that nothing more is read from it."""
    answer_bytes: int = 64 << 20
    """Maximum bytes of one answer; a longer one becomes the error ``answer_too_long``."""
    send_seconds: float = 30.0
    """Seconds for a peer to receive the next megabyte; then the connection is closed."""


class Budget:
    """What all connections of a server use together, and the limits of each."""

    __slots__ = ("_said_at", "_unsaid", "dismissed", "limits", "turns", "unfinished_bytes")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.turns = Turns()
        """Of users who have sent messages; those who have not authenticated share theirs."""
        self.unfinished_bytes = 0
        """Of all messages that have come in part."""
        self.dismissed: Counter[str] = Counter()
        """Connections that the service ended because of what the peer sent or showed, by error code."""
        self._said_at = -math.inf
        self._unsaid = 0

    def misbehaved(self, error: HostlerError, *, known: bool) -> None:
        """Count a connection that is ended because of what its peer did. Those of peers who have not authenticated are
        logged at most once in SAY_SECONDS, with the number of those before."""
        self.dismissed[error.code] += 1
        if known:
            log.info("connection closed: %s", error)
            return
        now = trio.current_time()
        if now - self._said_at < SAY_SECONDS:
            self._unsaid += 1
            return
        others, self._unsaid, self._said_at = self._unsaid, 0, now
        log.info("connection closed: %s (and %d more of unknown peers since the last such line)", error, others)


class Connection:
    """Transport of one connection. ``run`` serves until the peer disconnects or must be disconnected."""

    def __init__(
        self,
        service: Service,
        watchers: Watchers,
        budget: Budget,
        stream: trio.abc.Stream,
        *,
        tls: ssl.SSLContext | None = None,
        certificates_required: bool = False,
    ) -> None:
        self.limits, self.stream = budget.limits, stream
        self._service, self._watchers, self._budget = service, watchers, budget
        self._tls, self._certificates_required = tls, certificates_required
        self.scope = trio.CancelScope()
        self.waiting_bytes = 0
        self._session: Session | None = None
        self._nursery: trio.Nursery | None = None
        self._framer = Framer(self.limits.stranger_bytes)
        self._taking = self._leaving = self._ended = self._said_all = False
        self._receiving = trio.CancelScope()
        self._user: str | None = None
        """Whose calls were taken last; None for a stranger, and for one whose token or user has gone."""
        self._began = 0.0
        """When the first byte of the incomplete message was received."""
        self._out: list[bytes | bytearray] = []
        self._wake = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    @property
    def busy(self) -> bool:
        """True while calls that were read have no answer yet, or answers wait to be sent."""
        if self._taking or self.waiting_bytes > 0:
            return True
        return self._session is not None and self._session.outstanding > 0

    async def idle(self) -> None:
        """Wait until all calls are answered, and all answers sent, or the connection is lost."""
        while self.busy:
            await self._room.park()

    def leave(self) -> None:
        """Stop reading; close once all received calls are answered and the peer has had time to read the answers."""
        self._leaving = True
        self._receiving.cancel()

    async def ended(self) -> None:
        """Wait until the connection is closed."""
        while not self._ended:
            await self._room.park()

    def end(self) -> None:
        """Release the resources of a closed connection."""
        self._ended = True
        self._budget.unfinished_bytes -= self._framer.unfinished
        self._out.clear()
        self.waiting_bytes = 0
        if self._session is not None:
            self._session.close()
            self._session.outstanding = 0
        self._room.unpark_all()
        self._session = self._nursery = None  # nothing is left that the garbage collector would have to find

    async def run(self, *, local: bool) -> None:
        """Serve the peer."""
        try:
            identity = self._service.newcomer(local=local, certificate=await self._certificate())
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._session = Session(
                    self._service, self._watchers, identity, self, answer_bytes=self.limits.answer_bytes
                )
                nursery.start_soon(self._until_lost, self._send_all)
                await self._until_lost(self._read)
                if self._leaving:
                    await self._until_lost(self._linger)
                nursery.cancel_scope.cancel()
        except (NotAuthenticated, TlsFailed) as error:
            self._budget.misbehaved(error, known=False)
            if error.field != "tls" or isinstance(self.stream, trio.SSLStream):
                await farewell(self.stream, error)
            release_frames(error)
        except LOST as error:
            log.debug("connection lost: %s", error)
            release_frames(error)

    async def _certificate(self) -> tuple[str, ...]:
        """The names in the peer's certificate, if any, after the handshake. NotAuthenticated if a required certificate
        is missing; TlsFailed if the handshake fails."""
        if self._tls is None:
            return ()
        raw = self.stream
        assert isinstance(raw, trio.SocketStream)
        with trio.move_on_after(self.limits.frame_seconds) as limit:
            if not await begins_with_tls(raw):
                raise TlsFailed("this port speaks TLS, and nothing else", field="address", hint="use tls:HOST:PORT")
            self.stream = stream = await secured(raw, self._tls)
        if limit.cancelled_caught:
            raise trio.BrokenResourceError("no TLS handshake in time")
        shown = stream.getpeercert()
        if self._certificates_required and not shown:
            raise NotAuthenticated("a client certificate is required here", field="tls", hint="show one")
        return names_of(shown)

    async def _until_lost(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except LOST as error:
            log.debug("connection lost: %s", error)
            release_frames(error)
            self.scope.cancel()

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have work done that ends with the connection."""
        assert self._nursery is not None
        self._nursery.start_soon(work)

    # in

    async def _read(self) -> None:
        """Read until the peer has closed, and all it asked has been answered."""
        try:
            while data := await self._receive():
                before = self._framer.unfinished
                self._framer.feed(data)
                del data  # before the next wait: it holds a part of READ_BYTES that nothing else could use
                self._taking = True
                try:
                    await self._take()
                finally:
                    self._taking = False
                    self._room.unpark_all()
                    self._budget.unfinished_bytes += self._framer.unfinished - before
                if self._budget.unfinished_bytes > self.limits.unfinished_bytes:
                    raise BadFrame("the service has too many unfinished messages", hint="try again later")
        except BadFrame as error:
            self._budget.misbehaved(error, known=self._session is not None and self._session.user is not None)
            await self._dismiss(error)
        else:
            await self.idle()

    async def _take(self) -> None:
        """Give the session all messages that are complete, as fast as it may have them."""
        session, framer = self._session, self._framer
        assert session is not None
        found, messages, size = False, 0, 0
        turns = self._budget.turns
        while True:
            if not messages or self._user is None:
                self._user = session.user
                framer.limit = self._longest(self._user)
            if not messages and framer.unfinished:
                await turns.take(self._user or "")
            frame = framer.next()
            if frame is None:
                break
            found = True
            messages, size = messages + 1, size + len(frame)
            if session.feed(frame) or messages >= TURN_MESSAGES or size >= TURN_BYTES:
                await trio.lowlevel.checkpoint()
                messages = size = 0
            while session.step():
                await trio.lowlevel.checkpoint()
                await turns.take(self._user or "")
            while not self._has_room(session):
                await self._room.park()
        if found or not self._began:
            self._began = trio.current_time() if framer.unfinished else 0.0

    def _longest(self, user: str | None) -> int:
        """Bytes of the longest message that a user, or a stranger, may send."""
        limits = self.limits
        if user is None:
            return limits.stranger_bytes
        if self._service.state.tenants.role(user, CLOUD) >= RANK["reader"]:
            return limits.frame_bytes
        return min(limits.frame_bytes, limits.member_bytes)

    def _has_room(self, session: Session) -> bool:
        limits = self.limits
        return (
            session.outstanding < limits.outstanding
            and session.aside < limits.long_questions
            and session.outstanding_bytes < limits.outstanding_bytes
            and self.waiting_bytes < (limits.unread_bytes if self._user else limits.stranger_bytes)
        )

    async def _receive(self) -> bytes:
        """The next input; empty at the end, if the peer was idle for too long, or when closing. BadFrame for a message
        that takes too long."""
        while not self._leaving:
            self._receiving = trio.CancelScope(deadline=self._patience())
            data, lost = None, None
            with self._receiving:
                try:
                    data = bytes(await self.stream.receive_some(READ_BYTES))
                except LOST as error:
                    lost = error
            if lost is not None or data == b"":
                await self._budget.turns.take(ENDING)
            if lost is not None:
                raise lost
            if data is not None:
                return data
            if self._leaving:
                break
            if self._began:
                raise BadFrame("a message took too long to arrive")
            if not self.busy and self._session not in self._watchers:
                log.info("connection closed: idle")
                break
        return b""

    def _patience(self) -> float:
        """The deadline for input."""
        if self._began:
            return self._began + self.limits.frame_seconds
        return trio.current_time() + self.limits.idle_seconds

    async def _dismiss(self, error: BadFrame) -> None:
        """Tell the peer why it loses its connection, and give it time to read that."""
        assert self._session is not None
        self._budget.unfinished_bytes -= self._framer.unfinished
        self._framer = Framer(0)
        self.send(notification("error", error_object(error, self._session.style)))
        await self._linger()

    async def _linger(self) -> None:
        """Give the peer time to read: closing with unread input would discard what was sent."""
        with trio.move_on_after(LINGER_SECONDS):
            while self.waiting_bytes:
                await self._room.park()
            self._said_all = True  # an event or answer that comes now would be sent while the stream is being closed
            raw: trio.abc.Stream = self.stream
            if isinstance(raw, trio.SSLStream):
                raw = raw.transport_stream
            if isinstance(raw, trio.abc.HalfCloseableStream):
                await let_read(raw)

    # out

    def settled(self) -> None:
        """A call has ended that nothing is sent for."""
        self._room.unpark_all()

    def send(self, data: bytes, *, soon: bool = False) -> None:
        """Have bytes sent; ``soon``: at once, as far as the system takes them. No-op once the connection is closing."""
        if self._said_all:
            return
        if soon and not self.waiting_bytes and isinstance(self.stream, trio.SocketStream):
            data = data[self._sent_at_once(data) :]
            if not data:
                self._room.unpark_all()
                return
        out = self._out
        if not out:
            self._wake.unpark_all()
        if len(data) >= SMALL_ANSWER_BYTES:
            out.append(data)
        elif out and type(last := out[-1]) is bytearray and len(last) < CHUNK_BYTES:
            last += data
        else:
            out.append(bytearray(data))
        self.waiting_bytes += len(data)

    def _sent_at_once(self, data: bytes) -> int:
        """Number of bytes that the system accepts; errors are reported by the task that sends the rest."""
        assert isinstance(self.stream, trio.SocketStream)
        try:
            return os.write(self.stream.socket.fileno(), data)
        except OSError:
            return 0

    async def _send_all(self) -> None:
        while True:
            if not self._out:
                await self._wake.park()
            chunks, self._out = self._out, []
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            del chunks
            for start in range(0, len(data), SEND_BYTES):
                part = data if len(data) <= SEND_BYTES else memoryview(data)[start : start + SEND_BYTES]
                with trio.move_on_after(self.limits.send_seconds) as limit:
                    await self.stream.send_all(part)
                if limit.cancelled_caught:
                    raise trio.BrokenResourceError("the peer does not read")
                self.waiting_bytes -= len(part)
                self._room.unpark_all()


async def farewell(stream: trio.abc.Stream, error: HostlerError) -> None:
    """Send the reason to a peer that is not served; it is short enough for any socket buffer."""
    with trio.move_on_after(LINGER_SECONDS):
        try:
            await stream.send_all(notification("error", error_object(error, "list")))
        except LOST as lost:
            release_frames(lost)


def is_own(stream: trio.SocketStream) -> bool:
    """True if a Unix socket's peer is the user that this process is, or root."""
    data: Any = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(data)
    return user in (0, os.geteuid())


def keep_alive(stream: trio.SocketStream) -> None:
    """Enable TCP keepalive: an unreachable peer is detected after about two minutes."""
    if stream.socket.family in (socket.AF_INET, socket.AF_INET6):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
