"""A TCP proxy that cuts and delays: what passes through it arrives, late, or not at all, as long as it is told so."""

from __future__ import annotations

from contextlib import suppress

import trio

CHUNK = 1 << 16


class Cut:
    """A listener at ``port`` of the loopback address that forwards to ``target``: (host, port), or the path of a Unix
    socket. While ``cut`` is set, connections stay open and nothing passes, as where a network drops packets; ``delay``:
    seconds by which each piece is late."""

    def __init__(self, port: int, target: tuple[str, int] | str) -> None:
        self.port, self.target = port, target
        self.delay = 0.0
        self._passes = trio.Event()
        self._passes.set()
        self._broken: set[trio.CancelScope] = set()

    @property
    def cut(self) -> bool:
        """True while nothing passes."""
        return not self._passes.is_set()

    def sever(self) -> None:
        """Let nothing pass from now on."""
        if not self.cut:
            self._passes = trio.Event()

    def mend(self) -> None:
        """Let all pass again; connections that waited are reset, as they are after a long cut."""
        if self.cut:
            self._passes.set()
            for scope in self._broken:
                scope.cancel()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Forward for ever."""
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        task_status.started()
        await trio.serve_listeners(self._forward, listeners)

    async def _forward(self, client: trio.SocketStream) -> None:
        async with client:
            await self._passes.wait()
            try:
                server = (
                    await trio.open_unix_socket(self.target)
                    if isinstance(self.target, str)
                    else await trio.open_tcp_stream(*self.target)
                )
            except OSError:
                return
            async with server, trio.open_nursery() as nursery:
                for source, sink in ((client, server), (server, client)):
                    nursery.start_soon(self._pump, source, sink, nursery.cancel_scope)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(CHUNK):
                if self.delay:
                    await trio.sleep(self.delay)
                if self.cut:
                    self._broken.add(scope)
                    try:
                        await trio.sleep_forever()
                    finally:
                        self._broken.discard(scope)
                await sink.send_all(data)
        scope.cancel()
