"""The server: sockets, TLS and limits around sessions. A peer that misbehaves loses its connection, and no other."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
import trio

from ...placement.errors import InvalidValue
from ..service import Identity, Service
from ..tenancy.errors import NotAuthenticated
from .addresses import Address, bound, forget, listen
from .framing import BadFrame, Framer
from .session import Session
from .tls import names_of
from .watching import Watchers

READ_BYTES: Final = 64 << 10
_CREDENTIALS: Final = struct.Struct("3i")

LOST: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
"""What a connection raises when it is no more (an SSLError is an OSError)."""

Stream = trio.abc.Stream

log = logging.getLogger("hostler.rpc")


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a peer may use. Sizes in bytes, times in seconds."""

    connections: int = 20_000
    """All together; more are closed at once."""
    frame_bytes: int = 16 << 20
    """Of one message."""
    frame_seconds: float = 60.0
    """From a message's first byte to its last, and for a TLS handshake."""
    outstanding: int = 4_096
    """Calls without an answer, of one connection; beyond that nothing more is read from it."""
    backlog_bytes: int = 32 << 20
    """Answers that wait to be read, of one connection; beyond that it is closed."""
    send_seconds: float = 60.0
    """For a peer to take what is sent to it, before its connection is closed."""


class RpcServer:
    """Serves one service on any number of addresses."""

    def __init__(self, service: Service, limits: Limits | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.service, self.limits, self.tls = service, limits or Limits(), tls
        self.watchers = Watchers(service)
        self.connections: set[_Connection] = set()
        self.refused = 0
        """Connections closed because there were too many."""
        self._accepting = trio.CancelScope()

    async def serve(
        self, addresses: Sequence[Address], *, task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen and serve until cancelled; started with the addresses as they were bound. AddressInUse."""
        if self.tls is None and any(address.kind == "tls" for address in addresses):
            raise InvalidValue("tls: needs a certificate and a key", field="tls", hint="see [rpc.tls]")
        listeners: list[tuple[Address, trio.SocketListener]] = []
        try:
            for address in addresses:
                listeners += [(address, listener) for listener in await listen(address)]
            async with trio.open_nursery() as nursery:
                task_status.started([bound(address, listener) for address, listener in listeners])
                with self._accepting:
                    async with trio.open_nursery() as accepting:
                        for address, listener in listeners:
                            accepting.start_soon(self._accept, address, listener, nursery)
        finally:
            for address, _ in listeners:
                forget(address)

    def stop_accepting(self) -> None:
        """Take no new connections; those that are there go on."""
        self._accepting.cancel()

    async def drain(self, seconds: float) -> None:
        """Wait until all answers have been sent, at most so long, then close all connections."""
        with trio.move_on_after(seconds):
            for connection in list(self.connections):
                await connection.idle()
        for connection in list(self.connections):
            connection.scope.cancel()

    async def _accept(self, address: Address, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        async def handle(stream: trio.SocketStream) -> None:
            await self._serve(address, stream)

        await trio.serve_listeners(handle, [listener], handler_nursery=nursery)

    async def _serve(self, address: Address, raw: trio.SocketStream) -> None:
        if len(self.connections) >= self.limits.connections:
            self.refused += 1
            await trio.aclose_forcefully(raw)
            return
        if address.kind == "tls":
            assert self.tls is not None
            await self.serve_stream(trio.SSLStream(raw, self.tls, server_side=True, https_compatible=True))
        else:
            await self.serve_stream(raw, local=address.kind == "unix" and _is_own(raw))

    async def serve_stream(self, stream: Stream, *, local: bool = False) -> None:
        """Serve one peer until it goes or has to; ``local``: it is the service's own user."""
        connection = _Connection(self, stream)
        self.connections.add(connection)
        try:
            with connection.scope:
                await connection.run(local=local)
        except (trio.TooSlowError, *LOST) as error:
            log.debug("connection lost before it was one: %s", error)
        except NotAuthenticated as error:
            log.info("connection refused: %s", error)
        finally:
            self.connections.discard(connection)
            connection.end()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await trio.aclose_forcefully(connection.stream)


class _Connection:
    """One peer's connection: bytes in, bytes out, and a session between."""

    def __init__(self, server: RpcServer, stream: Stream) -> None:
        self.server, self.limits, self.stream = server, server.limits, stream
        self.scope = trio.CancelScope()
        self.session: Session | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._wake = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    @property
    def busy(self) -> bool:
        """True while calls have no answer yet, or answers wait to be sent."""
        return self._out_bytes > 0 or (self.session is not None and self.session.outstanding > 0)

    async def idle(self) -> None:
        """Wait until all calls are answered, and all answers sent."""
        while self.busy:
            await self._room.park()

    def end(self) -> None:
        self._room.unpark_all()
        if self.session is not None:
            self.session.close()

    async def run(self, *, local: bool) -> None:
        names: tuple[str, ...] = ()
        if isinstance(self.stream, trio.SSLStream):
            with trio.fail_after(self.limits.frame_seconds):
                await self.stream.do_handshake()
            names = names_of(self.stream.getpeercert())
        identity = self.server.service.newcomer(local=local, certificate=names)
        async with trio.open_nursery() as nursery:
            self.session = self._session(identity, nursery)
            nursery.start_soon(self._until_lost, self._send_all)
            await self._until_lost(self._read)
            nursery.cancel_scope.cancel()

    async def _until_lost(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except LOST as error:
            log.debug("connection lost: %s", error)
            self.scope.cancel()

    def _session(self, identity: Identity, nursery: trio.Nursery) -> Session:
        server = self.server
        return Session(
            server.service,
            server.watchers,
            identity,
            self.send,
            backlog=lambda: self._out_bytes,
            spawn=lambda work: nursery.start_soon(work),
        )

    # in

    async def _read(self) -> None:
        """Read until the peer has closed, and all it asked has been answered."""
        assert self.session is not None
        framer, session, began = Framer(self.limits.frame_bytes), self.session, 0.0
        try:
            while True:
                data = await self._receive(framer, began)
                if data == b"":
                    break
                frames = framer.look() if data is None else framer.feed(data)
                for frame in frames:
                    session.feed(frame)
                if not framer.unfinished:
                    began = 0.0
                elif frames or not began:
                    began = trio.current_time()
                while session.outstanding >= self.limits.outstanding:
                    await self._room.park()
        except BadFrame as error:
            log.info("connection closed: %s", error)
            return
        await self.idle()

    async def _receive(self, framer: Framer, began: float) -> bytes | None:
        """What comes next; None if it is time to look at what there is. BadFrame for a message that takes too long."""
        if not began:
            return bytes(await self.stream.receive_some(READ_BYTES))
        limit = began + self.limits.frame_seconds
        if trio.current_time() > limit:
            raise BadFrame("a message took too long to arrive")
        patience = trio.current_time() + framer.patience if framer.patience else limit
        with trio.move_on_at(min(limit, patience)):
            return bytes(await self.stream.receive_some(READ_BYTES))
        return None

    # out

    def send(self, data: bytes) -> None:
        """Have bytes sent; a peer that does not read loses its connection."""
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes > self.limits.backlog_bytes:
            log.info("connection closed: %d bytes wait to be read", self._out_bytes)
            self.scope.cancel()
        if self._wake:
            self._wake.unpark_all()
        if self._room:
            self._room.unpark_all()

    async def _send_all(self) -> None:
        while True:
            if not self._out:
                await self._wake.park()
            chunks, self._out = self._out, []
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            with trio.move_on_after(self.limits.send_seconds) as limit:
                await self.stream.send_all(data)
            if limit.cancelled_caught:
                log.info("connection closed: the peer does not read")
                self.scope.cancel()
                await trio.lowlevel.checkpoint()
            self._out_bytes -= len(data)
            self._room.unpark_all()


def _is_own(stream: trio.SocketStream) -> bool:
    """True if a Unix socket's peer is the user that this process is, or root."""
    data: Any = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(data)
    return user in (0, os.geteuid())
