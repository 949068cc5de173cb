"""Three pages over HTTP for whoever watches the service: /metrics, /health and /ready. Nothing else is served there."""

from __future__ import annotations

from typing import Final

import h11
import trio

from .metrics import Metrics
from .rpc.addresses import Address, bound, listen
from .service import Service

SECONDS: Final = 10.0
"""For a client to ask and to take the answer."""


class StatusPages:
    """``/health``: 200 while the process answers at all. ``/ready``: 200 while commands are taken, else 503."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service, self._metrics = service, metrics

    async def serve(self, where: str, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve on HOST:PORT until cancelled; started with the address as it was bound. AddressInUse."""
        address = Address.parse(f"tcp:{where}")
        listeners = await listen(address)
        task_status.started(str(bound(address, listeners[0])).removeprefix("tcp:"))
        await trio.serve_listeners(self._answer, listeners)

    async def _answer(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16_384)
        try:
            with trio.move_on_after(SECONDS):
                request = await self._request(connection, stream)
                status, kind, body = (400, "text/plain", b"a GET request is needed\n")
                if request is not None:
                    status, kind, body = self._page(request)
                headers = [("content-type", kind), ("content-length", str(len(body))), ("connection", "close")]
                start = connection.send(h11.Response(status_code=status, headers=headers))
                await stream.send_all((start or b"") + (connection.send(h11.Data(data=body)) or b""))
        except (trio.BrokenResourceError, h11.LocalProtocolError):
            return
        finally:
            await trio.aclose_forcefully(stream)

    async def _request(self, connection: h11.Connection, stream: trio.SocketStream) -> str | None:
        """The path of a GET request; None for what is none."""
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                return None
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(4096))
            elif isinstance(event, h11.Request):
                return event.target.decode().partition("?")[0] if event.method == b"GET" else None
            else:
                return None

    def _page(self, path: str) -> tuple[int, str, bytes]:
        writable = self._service.writer.writable
        match path:
            case "/metrics":
                return 200, "text/plain; version=0.0.4; charset=utf-8", self._metrics.page()
            case "/health":
                return 200, "text/plain", b"alive\n"
            case "/ready":
                return (200, "text/plain", b"ready\n") if writable else (503, "text/plain", b"no writes now\n")
        return 404, "text/plain", b"there are /metrics, /health and /ready\n"
