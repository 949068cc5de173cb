"""Nova's scheduler RPC on the state of a service. oslo.messaging receives and answers in threads of its own; each call
crosses to the event loop once, as one command, and at most ``threads`` of them at a time."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import trio

from ....core.errors import DeadlineExceeded, LeadershipLost, NotLeader, Stopped
from ....core.machine.orders import Order, SelectDestinations
from ....core.process.bus_metrics import BusMetrics, CallOutcome
from ....core.process.nova import NovaOptions
from ....core.service import Service
from ....core.tenancy.tenants import LOCAL
from ....placement.types.decision import Decision, Refusal
from ....placement.types.errors import HostlerError, InvalidValue
from ....placement.types.extras import import_extra
from ..source.databases import Database, SourceFailed, url_of
from ..source.nova_databases import Cell, cells_of
from ..source.options import cells_named
from .follower import Follower
from .following import Following
from .service_row import ServiceRow, row_of
from .waiting import age_of
from .wire import NoValidHost, command_of, old_selections, read_request, selections

LANE: Final = "@nova"
"""The lane of the calls of Nova's conductors, which wait for their answers as users do."""

log = logging.getLogger("hostler.nova")

CONNECT_SECONDS: Final = 3.0
"""How long the start waits for the bus; from then on the connection is made beside the service."""

_OF_THE_TERM: Final = (LeadershipLost, NotLeader, Stopped)
"""Errors of a member that leads no more."""
TERM_SECONDS: Final = 1.0
"""For calls in hand when a member leads no more. What a broker does not take back within that is left to its caller."""


class NovaBus:
    """nova-scheduler's place on one message bus."""

    def __init__(self, options: NovaOptions, service: Service, *, drain_seconds: float = 10.0) -> None:
        """InvalidValue if oslo.messaging is not installed, or a URL cannot be one."""
        import_extra("oslo_messaging", "openstack", field="nova.transport_url")
        self._options, self._service, self._drain_seconds = options, service, drain_seconds
        self._url = url_of(options.transport_url)
        self._api = Database("nova.database", options.database, kept=True)
        self._opened: dict[tuple[str, str], Database] = {}
        self._named = cells_named(options.cells, self._open) if options.cells else None
        self._host = options.host or socket.gethostname()
        self._stop, self._ended = trio.Event(), trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self.metrics = BusMetrics()
        self._following = Following(service, Follower(self._cells, self._api), self.metrics)
        self._transport: Any = None
        self._row: ServiceRow | None = None
        self._serving = False
        self._given_up = trio.Event()
        """Set once this member, of a cluster, leads no more."""
        self._shown = f"nova:{options.exchange}/{options.topic}/{self._host}"

    def _cells(self) -> Sequence[Cell]:
        return self._named if self._named is not None else cells_of(self._api, self._open)

    def _open(self, name: str, url: str) -> Database:
        """A cell's database, the same as long as its name and URL are, with a connection that is kept."""
        known = self._opened.get((name, url))
        if known is None:
            known = self._opened[name, url] = Database(name, url, kept=True)
        return known

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
        self._serving = True
        await self._following.look()
        self._row = await _in_thread(self._service_row)
        await self._answer(self._drain_seconds, task_status)

    async def stand_by(self) -> str:
        """What is to be shown as the address. InvalidValue if the bus cannot be used."""
        await _in_thread(self._opened_transport)
        return self._shown

    async def lead(self) -> None:
        """`serve` for one term of a member that leads. While databases fail, its calls are answered from the state of
        its journal, or wait with the broker where that knows no host. At the end of the term it takes no more calls,
        and those in hand that the writer refuses go back to the bus, for the next leader."""
        self._serving, self._given_up, self._ended = True, trio.Event(), trio.Event()
        self._following = Following(self._service, Follower(self._cells, self._api), self.metrics)
        try:
            await self._look_or_know()
            await self._answer(TERM_SECONDS)
        finally:
            self._given_up.set()
            self._ended.set()
            self.metrics.has_cells(frozenset())

    async def _look_or_know(self) -> None:
        """Have looked at the databases once, or know of hosts without."""
        while not self._stop.is_set():
            try:
                await self._following.look()
            except HostlerError as error:
                log.error("the databases of the cloud are not followed yet: %s", error)
                if len(self._service.state.fleet):
                    return
                with trio.move_on_after(self._options.poll_seconds):
                    await self._stop.wait()
            else:
                return

    async def _answer(self, seconds: float, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer calls and follow the databases, until `drain` or cancelled, when calls in hand have ``seconds``."""
        self._token = trio.lowlevel.current_trio_token()
        options = self._options
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
                if options.services_database:
                    nursery.start_soon(self._beat)
                await self._stop.wait()
                await self._finish(server, self._drain_seconds)
                nursery.cancel_scope.cancel()
        finally:
            self._given_up.set()
            with trio.CancelScope(shield=True):
                await self._finish(server, seconds)
            end_watch()
            self._following.close()
            self._ended.set()

    async def drain(self) -> None:
        """Consume no more calls, and wait until those under way are answered, for at most ``drain_seconds``."""
        self._stop.set()
        if self._serving:
            await self._ended.wait()

    def reload(self) -> None:
        """Have cells, aggregates and nodes read again."""
        self._following.note_all()

    async def _connect(self, server: Any, connected: trio.Event) -> None:
        log.info("connecting to the bus")
        await _in_thread(server.begin)
        self.metrics.consuming(True)
        log.info("answering %s on %s", self._options.topic, self._shown)
        connected.set()

    async def _finish(self, server: Any, seconds: float) -> None:
        """Have a server take no more calls, and wait for those in hand, for at most ``seconds``."""
        self.metrics.consuming(False)
        with trio.move_on_after(seconds) as limit:
            await _in_thread(server.end)
        if limit.cancelled_caught:
            log.warning("calls under way were not answered within %g s", seconds)

    async def _beat(self) -> None:
        """Keep the row in Nova's table services alive."""
        failing = False
        while True:
            try:
                await _in_thread(partial(self._beat_once, self._following.newest))
                self.metrics.heartbeat(failed=False)
                failing = False
            except (SourceFailed, InvalidValue) as error:  # a row that is old shows the service as down, no more
                self.metrics.heartbeat(failed=True)
                if not failing:
                    log.error("the row of this service in Nova's table services is not written: %s", error)
                failing = True
            await trio.sleep(self._options.report_seconds)

    def _beat_once(self, version: int) -> None:
        if self._row is None:
            self._row = self._service_row()
        if self._row is not None:
            self._row.beat(now=self._service.clock(), version=version)

    def _opened_transport(self) -> Any:
        """What connections to the bus are made by, the same for all terms."""
        import oslo_messaging
        from oslo_config import cfg

        if self._transport is not None:
            return self._transport
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
        self._transport = transport
        return transport

    def _opened_server(self) -> tuple[Any, Callable[[], None]]:
        """A server that is not connected yet, and what ends the watch over its connections."""
        import oslo_messaging

        from .endpoints import BaseEndpoint, SchedulerEndpoint
        from .server import ConnectionWatch, rpc_server

        options, transport = self._options, self._opened_transport()
        target = oslo_messaging.Target(exchange=options.exchange, topic=options.topic, server=self._host)
        endpoints = [SchedulerEndpoint(self), BaseEndpoint()]
        seconds = options.call_seconds
        server = rpc_server(
            transport,
            target,
            endpoints,
            limit=options.threads,
            metrics=self.metrics,
            seconds=seconds,
            clock=self._service.clock,
        )
        return server, ConnectionWatch(self.metrics, server.waiting).begin()

    # calls, in threads of oslo.messaging

    def select(
        self, context: Mapping[str, Any], spec: Any, uuids: Sequence[str] | None, *, objects: bool, alternates: bool
    ) -> list[Any]:
        """The answer of select_destinations. NoValidHost, and no other error, if there is none; GivenBack where this
        member of a cluster leads no more."""
        from .server import GivenBack, current

        received = current.received
        outcome: CallOutcome = "failed"
        try:
            outcome, answer = self._selected(context, spec, uuids, objects=objects, alternates=alternates)
        finally:
            self.metrics.called("select_destinations", outcome, time.monotonic() - received)
        if answer is None:
            raise GivenBack
        if isinstance(answer, NoValidHost):
            raise answer
        return answer

    def _selected(
        self, context: Mapping[str, Any], spec: Any, uuids: Sequence[str] | None, *, objects: bool, alternates: bool
    ) -> tuple[CallOutcome, list[Any] | NoValidHost | None]:
        """What became of a call, and its answer; None if it is for the next leader to answer."""
        now = self._service.clock()
        try:
            self._check_age(context, now)
            count = self._options.max_attempts - 1 if alternates else 0
            request = read_request(spec, uuids, alternates=count, now=now)
            command = command_of(request)
        except DeadlineExceeded as error:
            return "gave_up", _refused(context, error)
        except HostlerError as error:
            return "refused", _refused(context, error)
        clustered = self._service.cluster is not None
        try:
            work = partial(self._decided, command, self._patience(), self._key() if clustered else None)
            decision: Decision = trio.from_thread.run(work, trio_token=self._token)
        except DeadlineExceeded as error:
            return "gave_up", _refused(context, error)
        except HostlerError as error:
            if clustered and isinstance(error, _OF_THE_TERM):
                return "given_back", None
            return "failed", _refused(context, error)
        except (trio.RunFinishedError, trio.Cancelled):
            return ("given_back", None) if clustered else ("failed", NoValidHost("The scheduler has ended."))
        if decision.refusal is not None:
            return "no_valid_host", NoValidHost(_reason(decision.refusal))
        if not objects:
            return "ok", old_selections(decision)
        return "ok", [*selections(decision, claimed=not request.is_rebuild)]

    def _check_age(self, context: Mapping[str, Any], now: float) -> None:
        """DeadlineExceeded for a call of a request that is older than any caller waits, and that may have waited for as
        long: one that came while nothing waited is answered, whatever the clocks say."""
        from .server import current

        age = age_of(context, now)
        if age is not None and min(age, current.waited) > self._options.stale_seconds:
            problem = f"the request is {age:.0f} s old, and nobody waits for its answer"
            raise DeadlineExceeded(problem, field="timestamp")

    def _patience(self) -> float:
        """Seconds for which the caller of this thread's call waits at least; not above 0 if it may have given up."""
        from .server import current

        limit = self._options.call_seconds
        if current.patience is not None:
            limit = min(limit, current.patience)
        waited = 0.0 if math.isinf(current.waited) else current.waited
        return limit - (time.monotonic() - current.received) - waited

    @staticmethod
    def _key() -> str | None:
        """By which this thread's call is decided once, by whichever member: a call that is given back may have been
        carried out. None where the bus does not tell calls apart."""
        from .server import current

        return f"nova:{current.id}" if current.id else None

    def aggregates_changed(self) -> None:
        """Have the aggregates read."""
        self._told(self._following.note_aggregates)

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

    async def _decided(self, command: SelectDestinations, patience: float, key: str | None = None) -> Decision:
        """One command, which chooses and claims. It is not carried out once its turn comes ``patience`` seconds from
        now or later. ``key``: one of its own, by which a repetition gets the first answer."""
        service = self._service
        service.limits.check(command)
        deadline = trio.current_time() + patience
        order = Order(service.now(), LOCAL, command)
        self._following.claims.asked(command.request.instance_uuids)
        try:
            decision: Decision = await service.writer.submit(order, key=key, deadline=deadline, lane=LANE)
        except _OF_THE_TERM:
            with trio.move_on_after(TERM_SECONDS):  # else this member might take the call again, and again
                await self._given_up.wait()
            raise
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
