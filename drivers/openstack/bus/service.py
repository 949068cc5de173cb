"""Nova's scheduler RPC on the state of a service. oslo.messaging receives and answers in threads of its own; each call
crosses to the event loop once, as one command, and at most ``threads`` of them at a time."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import trio

from ....core.engine_commands import asked
from ....core.errors import DeadlineExceeded
from ....core.machine.orders import Order, SelectDestinations
from ....core.process.bus_metrics import BusMetrics, CallOutcome
from ....core.process.nova import NovaOptions
from ....core.service import Service
from ....core.tenancy.tenants import LOCAL
from ....placement.types.decision import Decision, Refusal
from ....placement.types.errors import HostlerError, InvalidValue
from ....placement.types.extras import import_extra
from ....placement.types.request import Request
from ..source.databases import Database, SourceFailed, url_of
from ..source.nova_databases import Cell, cells_of
from ..source.options import cells_named
from .follower import Follower
from .following import Following
from .service_row import ServiceRow, row_of
from .wire import NoValidHost, old_selections, read_request, selections

log = logging.getLogger("hostler.nova")

CONNECT_SECONDS: Final = 3.0
"""How long the start waits for the bus; from then on the connection is made beside the service."""


class NovaBus:
    """nova-scheduler's place on one message bus."""

    def __init__(self, options: NovaOptions, service: Service, *, drain_seconds: float = 10.0) -> None:
        """InvalidValue if oslo.messaging is not installed, or a URL cannot be one."""
        import_extra("oslo_messaging", "openstack", field="nova.transport_url")
        self._options, self._service, self._drain_seconds = options, service, drain_seconds
        self._url = url_of(options.transport_url)
        self._api = Database("nova.database", options.database)
        self._named = cells_named(options.cells) if options.cells else None
        self._host = options.host or socket.gethostname()
        self._stop, self._ended = trio.Event(), trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self.metrics = BusMetrics()
        self._following = Following(service, Follower(self._cells, self._api), self.metrics)
        self._is_stopped = False
        self._shown = f"nova:{options.exchange}/{options.topic}/{self._host}"

    def _cells(self) -> Sequence[Cell]:
        return self._named if self._named is not None else cells_of(self._api)

    def _service_row(self) -> ServiceRow | None:
        given = self._options.services_database
        if not given:
            return None
        return ServiceRow(row_of(given, self._api), host=self._host, topic=self._options.topic)

    # serving

    async def serve(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Read the state of the cloud, answer calls, and follow the databases, until `drain` or cancelled. SourceFailed
        if the databases cannot be read at the start, InvalidValue if the bus cannot be used. A broker that does not
        answer at the start is waited for beside the service."""
        self._token = trio.lowlevel.current_trio_token()
        options = self._options
        await self._following.look()
        row = await _in_thread(self._service_row)
        server, end_watch = await _in_thread(self._opened_server)
        connected = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._connect, server, connected)
                with trio.move_on_after(CONNECT_SECONDS):
                    await connected.wait()
                if not connected.is_set():
                    log.warning("the bus does not answer yet: calls are taken once it does")
                task_status.started(self._shown)
                follow = partial(
                    self._following.run, poll_seconds=options.poll_seconds, full_seconds=options.full_seconds
                )
                nursery.start_soon(follow)
                if row is not None:
                    nursery.start_soon(self._beat, row)
                await self._stop.wait()
                await self._stopped(server, connected)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._stopped(server, connected)
            end_watch()
            self._ended.set()

    async def drain(self) -> None:
        """Consume no more calls, and wait until those under way are answered, for at most ``drain_seconds``."""
        self._stop.set()
        await self._ended.wait()

    def reload(self) -> None:
        """Have cells, aggregates and nodes read again."""
        self._following.note_all()

    async def _connect(self, server: Any, connected: trio.Event) -> None:
        log.info("connecting to the bus")
        await _in_thread(server.start)
        self.metrics.consuming(True)
        log.info("answering %s on %s", self._options.topic, self._shown)
        connected.set()

    async def _stopped(self, server: Any, connected: trio.Event) -> None:
        """Stop a server that is connected; one that is not takes no calls, and ends with the process."""
        self.metrics.consuming(False)
        if self._is_stopped or not connected.is_set():
            return
        with trio.move_on_after(self._drain_seconds) as limit:
            await _in_thread(server.finish)
        if limit.cancelled_caught:
            log.warning("calls under way were not answered within %g s", self._drain_seconds)
        self._is_stopped = True

    async def _beat(self, row: ServiceRow) -> None:
        """Keep the row in Nova's table services alive."""
        failing = False
        while True:
            try:
                await _in_thread(partial(row.beat, now=time.time(), version=self._following.newest))
                self.metrics.heartbeat(failed=False)
                failing = False
            except SourceFailed as error:  # a row that is old shows the service as down, no more
                self.metrics.heartbeat(failed=True)
                if not failing:
                    log.error("the row of this service in Nova's table services is not written: %s", error)
                failing = True
            await trio.sleep(self._options.report_seconds)

    def _opened_server(self) -> tuple[Any, Callable[[], None]]:
        """A server that is not connected yet, and what ends the watch over its connections."""
        import oslo_messaging
        from oslo_config import cfg

        from .endpoints import BaseEndpoint, SchedulerEndpoint
        from .server import ConnectionWatch, rpc_server

        # The process's own: oslo.messaging 18 registers and reads some options nowhere else.
        options, conf = self._options, cfg.CONF
        conf([], project="hostler", default_config_files=list(options.config_files))
        try:
            transport = oslo_messaging.get_rpc_transport(conf, url=self._url)
        except (oslo_messaging.InvalidTransportURL, ValueError):  # whose text has the URL in it, and so a password
            raise InvalidValue("the URL of the bus is malformed", field="nova.transport_url") from None
        except oslo_messaging.DriverLoadFailure as error:
            raise InvalidValue(f"the bus cannot be used: {error}", field="nova.transport_url") from None
        if "oslo_messaging_rabbit" in conf and not conf.oslo_messaging_rabbit.rabbit_qos_prefetch_count:
            # What this process does not carry out yet stays with the broker, which drops it once its caller gave up.
            conf.set_override("rabbit_qos_prefetch_count", options.threads, "oslo_messaging_rabbit")
        target = oslo_messaging.Target(exchange=options.exchange, topic=options.topic, server=self._host)
        endpoints = [SchedulerEndpoint(self), BaseEndpoint()]
        server = rpc_server(transport, target, endpoints, limit=options.threads, metrics=self.metrics)
        return server, ConnectionWatch(self.metrics).begin()

    # calls, in threads of oslo.messaging

    def select(
        self, context: Mapping[str, Any], spec: Any, uuids: Sequence[str] | None, *, objects: bool, alternates: bool
    ) -> list[Any]:
        """The answer of select_destinations. NoValidHost, and no other error, if there is none."""
        from .server import current

        received = current.received
        outcome: CallOutcome = "failed"
        try:
            outcome, answer = self._selected(context, spec, uuids, objects=objects, alternates=alternates)
        finally:
            self.metrics.called("select_destinations", outcome, time.monotonic() - received)
        if isinstance(answer, NoValidHost):
            raise answer
        return answer

    def _selected(
        self, context: Mapping[str, Any], spec: Any, uuids: Sequence[str] | None, *, objects: bool, alternates: bool
    ) -> tuple[CallOutcome, list[Any] | NoValidHost]:
        now = time.time()
        try:
            self._check_age(context, now)
            count = self._options.max_attempts - 1 if alternates else 0
            request = read_request(spec, uuids, alternates=count, now=now)
        except DeadlineExceeded as error:
            return "gave_up", _refused(context, error)
        except HostlerError as error:
            return "refused", _refused(context, error)
        try:
            decision: Decision = trio.from_thread.run(self._decided, request, self._patience(), trio_token=self._token)
        except DeadlineExceeded as error:
            return "gave_up", _refused(context, error)
        except HostlerError as error:
            return "failed", _refused(context, error)
        except (trio.RunFinishedError, trio.Cancelled):
            return "failed", NoValidHost("The scheduler has ended.")
        if decision.refusal is not None:
            return "no_valid_host", NoValidHost(_reason(decision.refusal))
        if not objects:
            return "ok", old_selections(decision)
        return "ok", [*selections(decision, claimed=not request.is_rebuild)]

    def _check_age(self, context: Mapping[str, Any], now: float) -> None:
        """DeadlineExceeded for a call of a request that is older than any caller waits."""
        text = context.get("timestamp")
        try:
            begun = datetime.fromisoformat(str(text))
        except ValueError:
            return  # the age is not told
        begun = begun if begun.tzinfo is not None else begun.replace(tzinfo=UTC)
        age = now - begun.timestamp()
        if age > self._options.stale_seconds:
            problem = f"the request is {age:.0f} s old, and nobody waits for its answer"
            raise DeadlineExceeded(problem, field="timestamp")

    def _patience(self) -> float:
        """Seconds for which the caller of this thread's call still waits; not above 0 if it has given up."""
        from .server import current

        limit = self._options.call_seconds
        if current.patience is not None:
            limit = min(limit, current.patience)
        return limit - (time.monotonic() - current.received)

    def aggregates_changed(self) -> None:
        """Have the aggregates read."""
        self._told(self._following.note_all)

    def instances_changed(self, host: str) -> None:
        """Have a service host read."""
        self._told(partial(self._following.note_host, host))

    def cast(self, method: str) -> None:
        """Count a fan-out."""
        self.metrics.cast(method)

    def _told(self, note: Callable[[], None]) -> None:
        try:
            trio.from_thread.run_sync(note, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled):
            log.debug("a message came after the end")

    # in the event loop

    async def _decided(self, request: Request, patience: float) -> Decision:
        """One command, which chooses and claims. It is not carried out once its turn comes ``patience`` seconds from
        now or later."""
        service = self._service
        command = SelectDestinations(request=asked(request))
        service.limits.check(command)
        deadline = trio.current_time() + patience
        decision: Decision = await service.writer.submit(Order(service.now(), LOCAL, command), deadline=deadline)
        return decision


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a thread of its own, which a cancellation leaves behind: the bus and its databases may hang."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))


def _refused(context: Mapping[str, Any], error: HostlerError) -> NoValidHost:
    log.warning("request %s is refused: %s", context.get("request_id", ""), error)
    return NoValidHost(_sentence(str(error)))


def _reason(refusal: Refusal) -> str:
    """A refusal as what follows Nova's "No valid host was found."."""
    first = _sentence(refusal.sentence.removeprefix("No valid host was found").removeprefix(": "))
    return f"{first} {_sentence(refusal.hint or '')}".strip()


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


__all__ = ["NovaBus"]
