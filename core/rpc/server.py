"""The server: listening addresses and accepted connections. An error on one connection affects no other."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence

import trio

from ...placement.types.errors import InvalidValue
from ..errors import Overloaded
from ..failures import release_frames
from ..service import Service
from .addresses import Address
from .connection import LOST, Budget, Connection, Limits, farewell, is_own, keep_alive
from .listening import bound, forget, listen
from .watching import Watchers

__all__ = ["Limits", "RpcServer"]

log = logging.getLogger("hostler.rpc")


class RpcServer:
    """Serves one service on any number of addresses. With ``certificates_required`` a TLS peer without a certificate
    gets an error and is disconnected."""

    def __init__(
        self,
        service: Service,
        limits: Limits | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        certificates_required: bool = False,
    ) -> None:
        self.service, self.tls = service, tls
        self.budget = Budget(limits or Limits())
        self.certificates_required = certificates_required
        self.watchers = Watchers(service, self.budget.turns)
        self.connections: set[Connection] = set()
        self.ended = 0
        """Connections that were served, and are no more."""
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
                failures = self.service.writer.failures
                nursery.start_soon(failures.keep_running, "watchers", self.watchers.tell_capacity)
                nursery.start_soon(failures.keep_running, "watchers", self.watchers.tell_summary)
                nursery.start_soon(failures.keep_running, "turns", self.budget.turns.run)
                with self._accepting:
                    async with trio.open_nursery() as accepting:
                        for address, listener in listeners:
                            accepting.start_soon(self._accept, address, listener, nursery)
        finally:
            for address, _ in listeners:
                forget(address)

    def stop_accepting(self) -> None:
        """Accept no new connections; existing ones continue."""
        self._accepting.cancel()

    async def drain(self, seconds: float) -> None:
        """Read nothing more, answer all that was read, and close all connections; after so long in any case."""
        with trio.move_on_after(seconds):
            for connection in list(self.connections):
                connection.leave()
            for connection in list(self.connections):
                await connection.ended()
        for connection in list(self.connections):
            connection.scope.cancel()

    async def _accept(self, address: Address, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        async def handle(stream: trio.SocketStream) -> None:
            await self._serve(address, stream)

        await trio.serve_listeners(handle, [listener], handler_nursery=nursery)

    async def _serve(self, address: Address, raw: trio.SocketStream) -> None:
        if len(self.connections) >= self.budget.limits.connections:
            self.refused += 1
            if address.kind != "tls":
                await farewell(raw, Overloaded("there are too many connections", hint="try again later"))
            await trio.aclose_forcefully(raw)
            return
        keep_alive(raw)
        if address.kind == "tls":
            await self.serve_stream(raw, tls=self.tls)
        else:
            await self.serve_stream(raw, local=address.kind == "unix" and is_own(raw))

    async def serve_stream(
        self, stream: trio.abc.Stream, *, local: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        """Serve one peer until it disconnects or must be disconnected; ``local``: it is the service's own user;
        ``tls``: TLS is required."""
        connection = Connection(
            self.service,
            self.watchers,
            self.budget,
            stream,
            tls=tls,
            certificates_required=self.certificates_required,
        )
        self.connections.add(connection)
        try:
            with connection.scope:
                await connection.run(local=local)
        except LOST as error:
            log.debug("connection lost before it was one: %s", error)
            release_frames(error)
        except Exception:  # a fault in one connection must not end the others
            log.exception("a connection failed unexpectedly")
        finally:
            self.connections.discard(connection)
            self.ended += 1
            connection.end()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await trio.aclose_forcefully(connection.stream)
