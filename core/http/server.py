"""Listens, and serves each connection in a task of its own, until it is stopped."""

from __future__ import annotations

from functools import partial

import trio

from .access_log import AccessLog
from .answering import Answering
from .connection import Connection


class Server:
    """The API on a set of listening sockets."""

    def __init__(self, api: Answering, log: AccessLog) -> None:
        self._api, self._log = api, log
        self._open: set[Connection] = set()
        self._room = trio.CapacityLimiter(api.config.limits.connections)

    async def serve(
        self,
        listeners: list[trio.SocketListener],
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until ``stop`` is set and the requests under way are answered, or their time is up."""
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(self._accept, listener, connections)
                task_status.started()
                await stop.wait()
                accepting.cancel_scope.cancel()
            for listener in listeners:
                await listener.aclose()
            for connection in tuple(self._open):
                connection.stop()
            connections.cancel_scope.deadline = trio.current_time() + self._api.config.limits.drain_seconds

    async def _accept(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        """Take connections while there is room for them; more wait in the kernel's queue."""
        while True:
            token = object()
            await self._room.acquire_on_behalf_of(token)
            try:
                stream = await listener.accept()
            except OSError as error:
                self._room.release_on_behalf_of(token)
                self._log.note("accept failed", error=str(error))
                await trio.sleep(0.1)  # out of descriptors: some will be given back
                continue
            connections.start_soon(partial(self._serve, stream, token))

    async def _serve(self, stream: trio.SocketStream, token: object) -> None:
        try:
            connection = Connection(stream, self._api, self._log, _peer(stream))
            self._open.add(connection)
            try:
                await connection.serve()
            finally:
                self._open.discard(connection)
        finally:
            self._room.release_on_behalf_of(token)


def _peer(stream: trio.SocketStream) -> str:
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:
        return "-"
