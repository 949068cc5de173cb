"""Three HTTP pages for monitoring: /metrics, /healthz and /readyz. Nothing else is served on this address.

They are available before the recovery begins, so that a long one can be monitored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import h11
import msgspec
import trio

from ...placement.types.errors import HostlerError
from ..cluster_status import Cluster
from ..journal.protocol import CommandJournal
from ..rpc.listening import bound, listen
from ..service import Service
from .metrics import CONTENT_TYPE, Metrics
from .settings import http_address

SECONDS: Final = 10.0
"""For a client to ask and to take the answer."""
ANSWERS_AGE: Final = 2.0
"""Seconds by which the state of a member that follows may be behind while load balancers are to ask it."""
CONNECTIONS: Final = 64
"""At one time; more wait."""
WAITING: Final = 192
"""Connections that wait at most; more are closed, so that files are left for the service."""

Page = tuple[int, str, bytes]


class Health:
    """What the process is doing: ``state`` is starting, recovering, serving or stopping. ``expected`` is about where
    the recovery will end. ``cluster``: the member of a cluster that it is, if any."""

    def __init__(self) -> None:
        self.state = "starting"
        self.expected = 0
        self.journal: CommandJournal | None = None
        self.service: Service | None = None
        self.cluster: Cluster | None = None
        self.etcd: Callable[[], HostlerError | None] = lambda: None
        """Why etcd does not do what this member of a cluster asks it for; None while it does."""

    @property
    def ready(self) -> bool:
        """True while commands are taken."""
        return self.state == "serving" and self.service is not None and self.service.writer.writable

    def progress(self) -> tuple[int, int]:
        """(last command that was recovered, about the last that there is)."""
        reached = self.journal.last if self.journal is not None else 0
        return reached, max(reached, self.expected)

    @property
    def loading(self) -> int:
        """The snapshot that the recovery is loading, 0 if none."""
        return self.journal.loading if self.journal is not None else 0

    def recovering(self) -> str:
        """How far the recovery is, in words."""
        reached, end = self.progress()
        if (waits := self.etcd()) is not None:
            return f"waiting for etcd: {waits}"
        return f"loading snapshot {self.loading}" if self.loading else f"command {reached} of about {end}"

    def page(self) -> Page:
        """``/readyz``: 200 while commands are accepted, else 503 with the reason."""
        answer: dict[str, object] = {"ready": self.ready, "state": self.state}
        if self.state == "recovering":
            answer["recovered"], answer["of_about"] = self.progress()
            if self.loading:
                answer["loading_snapshot"] = self.loading
        if (waits := self.etcd()) is not None:
            answer["trouble"] = str(waits)
        if self.service is not None:
            writer = self.service.writer
            answer |= {"writable": writer.writable, "sequence": writer.sequence, "queued": writer.queued}
            if writer.broken is not None:
                answer["trouble"] = str(writer.broken.args[0])
        cluster = self.cluster
        if cluster is not None:
            age = cluster.age
            answer |= {"role": cluster.role, "term": cluster.term, "leader": cluster.leader_addresses}
            answer |= {"behind_ms": None if age is None else round(1000 * age, 1), "behind_commands": cluster.behind}
        return 200 if self.ready else 503, "application/json", msgspec.json.encode(answer) + b"\n"

    def questions_page(self) -> Page:
        """``/readyz/questions``: 200 while questions are answered from a state that is at most ANSWERS_AGE old."""
        age = 0.0 if self.cluster is None else self.cluster.age
        fine = self.state == "serving" and age is not None and age <= ANSWERS_AGE
        return 200 if fine else 503, *self.page()[1:]


class StatusPages:
    """``/healthz`` is 200 while the process answers at all."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._pages: dict[str, Callable[[], Page]] = {
            "/metrics": lambda: (200, CONTENT_TYPE, metrics.text()),
            "/healthz": lambda: (200, "text/plain", b"alive\n"),
            "/readyz": health.page,
            "/readyz/questions": health.questions_page,
        }
        self._room = trio.CapacityLimiter(CONNECTIONS)
        self._failures = metrics.failures

    async def serve(self, where: str, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve on HOST:PORT until cancelled; started with the address as it was bound. AddressInUse."""
        address = http_address(where)
        listeners = await listen(address)
        task_status.started(str(bound(address, listeners[0])).removeprefix("tcp:"))
        await trio.serve_listeners(self._answer, listeners)

    async def _answer(self, stream: trio.SocketStream) -> None:
        if self._room.statistics().tasks_waiting >= WAITING:
            await trio.aclose_forcefully(stream)
            return
        try:
            with trio.move_on_after(SECONDS):
                async with self._room:
                    await self._exchange(h11.Connection(h11.SERVER, max_incomplete_event_size=16_384), stream)
        except (trio.BrokenResourceError, h11.LocalProtocolError):
            return  # the client is gone
        except Exception as error:
            self._failures.failed("metrics", error)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await trio.aclose_forcefully(stream)

    async def _exchange(self, connection: h11.Connection, stream: trio.SocketStream) -> None:
        request = await _request(connection, stream)
        if connection.our_state is not h11.SEND_RESPONSE:
            return  # the client left without a word
        status, kind, body = self._page(request)
        headers = [("content-type", kind), ("content-length", str(len(body))), ("connection", "close")]
        start = connection.send(h11.Response(status_code=status, headers=headers)) or b""
        if request is None or request.method != b"HEAD":
            start += connection.send(h11.Data(data=body)) or b""
        await stream.send_all(start)

    def _page(self, request: h11.Request | None) -> Page:
        if request is None:
            return 400, "text/plain", b"not HTTP\n"
        if request.method not in (b"GET", b"HEAD"):
            return 405, "text/plain", b"only GET and HEAD are served\n"
        page = self._pages.get(request.target.decode("latin-1").partition("?")[0])
        if page is None:
            return 404, "text/plain", f"there are {', '.join(self._pages)}\n".encode()
        try:
            return page()
        except Exception as error:
            self._failures.failed("metrics", error)
            return 500, "text/plain", b"the page could not be made; the service's log says why\n"


async def _request(connection: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """A request without its body; None if it is malformed."""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return None
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(4096))
        else:
            return event if isinstance(event, h11.Request) else None
