"""Nova's scheduler RPC on the state of a service. oslo.messaging receives and answers in threads of its own; each call
crosses to the event loop once, as one command, and at most ``threads`` of them at a time."""

from __future__ import annotations

import dataclasses
import logging
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import trio

from ....core.engine_commands import Heartbeats, SetService, UpdateAggregate, asked
from ....core.machine.orders import Order, SelectDestinations
from ....core.machine.report_columns import columns_of
from ....core.process.nova import NovaOptions
from ....core.service import Service
from ....core.tenancy.tenants import LOCAL
from ....placement.types.decision import Decision
from ....placement.types.errors import HostlerError, InvalidValue, UnknownName
from ....placement.types.extras import import_extra
from ....placement.types.host import Host
from ....placement.types.host_report import HostReport
from ....placement.types.request import Request
from ..source.databases import Database, url_of
from ..source.nova_databases import cells_of
from ..source.options import cells_named
from .follower import Changes, Follower
from .wire import NoValidHost, old_selections, read_request, selections

log = logging.getLogger("hostler.nova")

CHUNK: Final = 200
"""Hosts of one report, so that calls have their turns between them."""
GONE: Final = "its compute node is gone"


class NovaBus:
    """nova-scheduler's place on one message bus."""

    def __init__(self, options: NovaOptions, service: Service, *, drain_seconds: float = 10.0) -> None:
        """InvalidValue if oslo.messaging is not installed, or a URL cannot be one."""
        import_extra("oslo_messaging", "openstack", field="nova.transport_url")
        self._options, self._service, self._drain_seconds = options, service, drain_seconds
        self._url = url_of(options.transport_url)
        api = Database("nova.database", options.database)
        self._api, self._named = api, cells_named(options.cells) if options.cells else None
        self._stop, self._ended, self._wake = trio.Event(), trio.Event(), trio.Event()
        self._stale: set[str] = set()
        self._look_at_all = True
        self._token: trio.lowlevel.TrioToken | None = None
        self._reader = trio.CapacityLimiter(1)
        self._shown = ""

    # serving

    async def serve(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Read the state of the cloud, answer calls, and follow the databases, until `drain` or cancelled. SourceFailed
        if a database cannot be read at the start, InvalidValue if the bus cannot be used."""
        self._token = trio.lowlevel.current_trio_token()
        follower = await self._in_thread(self._opened_follower)
        await self._follow(follower)
        server = await self._in_thread(self._opened_server)
        log.info("connecting to the bus")
        try:
            await self._in_thread(server.start)
            log.info("answering %s on %s", self._options.topic, self._shown)
            task_status.started(self._shown)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_always, follower)
                await self._stop.wait()
                await self._stopped(server)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(self._drain_seconds):
                await self._stopped(server)
            self._ended.set()

    async def drain(self) -> None:
        """Consume no more calls, and wait until those under way are answered."""
        self._stop.set()
        await self._ended.wait()

    async def _stopped(self, server: Any) -> None:
        await self._in_thread(server.stop)
        await self._in_thread(server.wait)

    async def _in_thread(self, work: Any) -> Any:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._reader)

    def _opened_follower(self) -> Follower:
        return Follower(self._named if self._named is not None else cells_of(self._api), self._api)

    def _opened_server(self) -> Any:
        import oslo_messaging
        from oslo_config import cfg

        from .endpoints import BaseEndpoint, SchedulerEndpoint

        # The process's own: oslo.messaging 18 registers and reads some options nowhere else.
        options, conf = self._options, cfg.CONF
        conf([], project="hostler", default_config_files=list(options.config_files))
        try:
            transport = oslo_messaging.get_rpc_transport(conf, url=self._url)
        except (oslo_messaging.InvalidTransportURL, ValueError):  # whose text has the URL in it, and so a password
            raise InvalidValue("the URL of the bus is malformed", field="nova.transport_url") from None
        except oslo_messaging.DriverLoadFailure as error:
            raise InvalidValue(f"the bus cannot be used: {error}", field="nova.transport_url") from None
        host = options.host or socket.gethostname()
        target = oslo_messaging.Target(exchange=options.exchange, topic=options.topic, server=host)
        self._shown = f"nova:{options.exchange}/{options.topic}/{host}"
        server = oslo_messaging.get_rpc_server(
            transport,
            target,
            [SchedulerEndpoint(self), BaseEndpoint()],
            access_policy=oslo_messaging.DefaultRPCAccessPolicy,
        )
        conf.set_override("executor_thread_pool_size", options.threads)
        return server

    # calls, in threads of oslo.messaging

    def select(
        self, context: Mapping[str, Any], spec: Any, uuids: Sequence[str] | None, *, objects: bool, alternates: bool
    ) -> list[Any]:
        """The answer of select_destinations. NoValidHost, and no other error, if there is none."""
        received = time.time()
        try:
            self._check_age(context, received)
            count = self._options.max_attempts - 1 if alternates else 0
            request = read_request(spec, uuids, alternates=count, now=received)
            decision: Decision = trio.from_thread.run(self._decided, request, trio_token=self._token)
            if decision.refusal is not None:
                raise NoValidHost(f"{decision.refusal.sentence} {decision.refusal.hint or ''}".strip())
        except HostlerError as error:
            log.warning("request %s is refused: %s", context.get("request_id", ""), error)
            raise NoValidHost(str(error)) from error
        except trio.RunFinishedError:
            raise NoValidHost("the scheduler has ended") from None
        if not objects:
            return old_selections(decision)
        return [*selections(decision, claimed=not request.is_rebuild)]

    def _check_age(self, context: Mapping[str, Any], now: float) -> None:
        """InvalidValue for a call of a request that is older than any caller waits."""
        text = context.get("timestamp")
        try:
            begun = datetime.fromisoformat(str(text))
        except ValueError:
            return  # the age is not told
        begun = begun if begun.tzinfo is not None else begun.replace(tzinfo=UTC)
        age = now - begun.timestamp()
        if age > self._options.stale_seconds:
            problem = f"the request is {age:.0f} s old, and nobody waits for its answer"
            raise InvalidValue(problem, field="timestamp")

    def aggregates_changed(self) -> None:
        """Have the aggregates read."""
        self._told(self._note_all)

    def instances_changed(self, host: str) -> None:
        """Have a service host read."""
        self._told(partial(self._note_host, host))

    def _told(self, note: Any) -> None:
        try:
            trio.from_thread.run_sync(note, trio_token=self._token)
        except trio.RunFinishedError:
            log.debug("a message came after the end")

    # in the event loop

    def _note_all(self) -> None:
        self._look_at_all = True
        self._wake.set()

    def _note_host(self, host: str) -> None:
        self._stale.add(host)
        self._wake.set()

    async def _decided(self, request: Request) -> Decision:
        """One command, which chooses and claims. It is not carried out once its turn comes too late."""
        service = self._service
        command = SelectDestinations(request=asked(request))
        service.limits.check(command)
        deadline = trio.current_time() + self._options.call_seconds
        decision: Decision = await service.writer.submit(Order(service.now(), LOCAL, command), deadline=deadline)
        return decision

    async def _follow_always(self, follower: Follower) -> None:
        options = self._options
        full = trio.current_time() + options.full_seconds
        failing = False
        while True:
            with trio.move_on_after(options.poll_seconds):
                await self._wake.wait()
            self._wake = trio.Event()
            if trio.current_time() >= full:
                self._look_at_all, full = True, trio.current_time() + options.full_seconds
            try:
                await self._follow(follower)
                if failing:
                    log.info("the databases of Nova are read again")
                failing = False
            except HostlerError as error:
                if not failing:
                    log.error("the state of the cloud is not followed: %s", error)
                failing = True
                await trio.sleep(options.poll_seconds)
            except Exception:  # calls are answered from the state as it was
                log.exception("a look at the databases failed in an unexpected way")
                await trio.sleep(options.poll_seconds)

    async def _follow(self, follower: Follower) -> None:
        """Bring the state to what Nova's databases say. What failed to be read is read again the next time."""
        stale, full = frozenset(self._stale), self._look_at_all
        look = partial(follower.look, now=time.time(), full=full, stale=stale)
        changes: Changes = await self._in_thread(look)
        self._stale -= stale
        self._look_at_all = self._look_at_all and not full
        await self._learn_aggregates(follower)
        for start in range(0, len(changes.hosts), CHUNK):
            await self._report(changes.hosts[start : start + CHUNK])
        known = self._service.state.fleet._names
        heard = tuple(name for name in changes.heard if known.find(name) >= 0)
        if heard:
            await self._submit(Heartbeats(names=heard))
        for name in changes.gone:
            if known.find(name) >= 0:
                await self._submit(SetService(name=name, disabled=True, disabled_reason=GONE))

    async def _learn_aggregates(self, follower: Follower) -> None:
        """Bring known aggregates to the names and metadata that Nova has."""
        for aggregate in {each.uuid: each for mine in follower.aggregates.values() for each in mine}.values():
            try:
                known = self._service.state.fleet.aggregate(aggregate.uuid)
            except UnknownName:
                continue
            if known != aggregate:
                await self._submit(UpdateAggregate(aggregate=aggregate))

    async def _report(self, hosts: Sequence[Host]) -> None:
        """Have hosts be as they report themselves; one that cannot be is said, and left as it was."""
        reports = [self._report_of(host) for host in hosts]
        try:
            await self._submit(columns_of(reports))
        except HostlerError as error:
            if len(hosts) > 1:
                for host in hosts:
                    await self._report((host,))
            else:
                log.warning("compute node %s is left as it was: %s", hosts[0].nodename, error)

    def _report_of(self, host: Host) -> HostReport:
        """Figures of a class that nova-compute keeps no inventory of in Placement (a shared disk) are no inventory."""
        fleet = self._service.state.fleet
        row = fleet._names.find(host.nodename)
        if row >= 0 and bool(fleet._store.row["updated"][row] > 0):
            totals = fleet._store.inventory["total"]
            if not totals[2, row]:
                host = dataclasses.replace(host, total_usable_disk_gb=0)
        return HostReport(host=host, at=self._service.now(), service=host.service)

    async def _submit(self, command: Any) -> Any:
        service = self._service
        return await service.writer.submit(Order(service.now(), LOCAL, command))


__all__ = ["NovaBus"]
