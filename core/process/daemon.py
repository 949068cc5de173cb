"""The daemon: recovers, listens, reports its state to systemd and over HTTP, and stops without losing an answer."""

from __future__ import annotations

import logging
import os
import resource
import signal
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from ...placement.types.errors import HostlerError
from .. import tracing
from ..engine_commands import SetPolicy
from ..errors import InternalError, StateUnknown
from ..failures import Failures
from ..http.config import MEMORY
from ..journal.journal import Journal
from ..journal.protocol import CommandJournal
from ..journal.store import about_last
from ..machine.event_log import KEPT, History
from ..machine.machine import ServiceMachine
from ..machine.order_policies import PolicyValues, with_present_defaults
from ..machine.orders import Order
from ..machine.replicated import Replayed
from ..reconcile.pace import Pace
from ..reconcile.reconciler import Reconciler
from ..regions.cascade import Cascade
from ..rpc.server import Limits, RpcServer
from ..rpc.tls import server_context
from ..service import Service
from ..shadow.shadowing import Shadowing
from ..tasks import background, in_thread
from ..tenancy.tenants import LOCAL
from ..writer.writer import Writer, open_writer
from . import logs
from .audit import AuditLog, take_up
from .clock import POLL_SECONDS, HonestClock
from .config import Loaded
from .exposure import exposures, in_clear
from .gc_policy import collect, no_automatic_collection
from .hangs import LoopWatch, end_with_threads
from .health import Health, StatusPages
from .metrics import Metrics
from .nova import open_bus
from .settings import Config, changed_for_a_start
from .systemd import notify, watchdog_seconds
from .task_tree import tell_on_signal

if TYPE_CHECKING:
    from .clustering import Clustered

SPARE_FILES: Final = 100
"""For the journal, snapshots, logs, children and the Placement API."""
LEAST_CONNECTIONS: Final = 8
FEW_CONNECTIONS: Final = 1_000
"""Fewer than these are worth a warning."""
HARD_STOP_SECONDS: Final = 5.0
"""From the signal to stop at once to the end of the process, if its disk hangs so that tasks cannot end."""
PROGRESS_SECONDS: Final = 1.0
RECORD_SECONDS: Final = 1.0
"""Interval after which a loss of acknowledged commands, by a machine whose disk loses synced data, is noticed."""

log = logging.getLogger("hostler.daemon")


def _connections_for_files(limits: Limits) -> Limits:
    """Have as many descriptors as the system lets us; fewer connections, and a log line, where these are too few."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most == resource.RLIM_INFINITY or most >= limits.connections + SPARE_FILES:
        return limits
    connections = max(most - SPARE_FILES, LEAST_CONNECTIONS)
    level = logging.WARNING if connections < FEW_CONNECTIONS else logging.DEBUG
    log.log(level, "%d files may be open: %d connections are taken, not %d", most, connections, limits.connections)
    return msgspec.structs.replace(limits, connections=connections)


async def run(load: Callable[[], Loaded], *, ready: Callable[[list[str]], None] = lambda addresses: None) -> None:
    """Serve until SIGTERM or SIGINT; a second one stops immediately. ``ready`` is called with the addresses once calls
    are accepted; on SIGHUP ``load`` reads the configuration again. HostlerError if the configuration cannot be
    served."""
    end_with_threads()
    daemon = Daemon(load, ready)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with background() as nursery:
            nursery.start_soon(daemon.obey, signals)
            nursery.start_soon(daemon.say_that_it_lives)
            nursery.start_soon(tell_on_signal)
            try:
                await daemon.serve()
            except BaseExceptionGroup as group:
                if (lost := group.subgroup(StateUnknown)) is not None:
                    raise InternalError(f"the service ended: {_first(lost)}", hint="start it again") from group
                if group.split(HostlerError)[1] is None:  # such as another member of the same name
                    raise _first(group) from group
                raise
            finally:
                nursery.cancel_scope.cancel()
    log.info("stopped")


def _end_process_after(seconds: float, status: int) -> None:
    """End the process without further ado, should it still be there then: what was acknowledged is on the disk."""

    def end() -> None:
        log.error("something hangs: the process ends now")
        logs.drain()
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Daemon:
    """The service of one process, and its signals."""

    def __init__(self, load: Callable[[], Loaded], ready: Callable[[list[str]], None]) -> None:
        self._load, self._loaded, self._ready = load, load(), ready
        self._stop = trio.Event()
        self._scope = trio.CancelScope()
        """Everything; cancelled to stop at once."""
        self.failures, self.clock = Failures(), HonestClock()
        self.health, self.metrics = Health(), Metrics(self.failures, self.clock)
        self._server: RpcServer | None = None
        self._shadow: Shadowing | None = None
        self._clustered: Clustered | None = None
        self._cascade: Cascade | None = None
        self._policy: PolicyValues | None = None
        """Of the configuration as it was read last; in force here once this process takes commands."""

    @property
    def config(self) -> Config:
        """As it was at the start; a reload changes the policy, the certificates and the log only."""
        return self._loaded.config

    # signals

    async def obey(self, signals: AsyncIterator[int]) -> None:
        """Handle signals."""
        async for number in signals:
            if number == signal.SIGHUP:
                await self._reload()
            elif self.health.state == "serving" and not self._stop.is_set():
                log.info("stopping: %s", signal.Signals(number).name)
                self._stop.set()
            else:
                log.warning("stopping at once: %s while %s", signal.Signals(number).name, self.health.state)
                _end_process_after(HARD_STOP_SECONDS, 128 + number)
                self._scope.cancel()

    async def _reload(self) -> None:
        """Reload the configuration. Commands continue; the new policy is applied between two of them."""
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            loaded = self._load()
            policy, shadow = loaded.policy_values(), _present(loaded.shadow_policy_values())
            context = await in_thread(lambda: _context(loaded.config))
            read = [await part.read_again() for part in (self._clustered, self._cascade) if part is not None]
            follows = self.health.cluster is not None and self.health.cluster.role != "leader"
            if self.health.service is not None and self.health.state == "serving" and not follows:
                await put_policy(self.health.service, policy)
                if self._shadow is not None and shadow is not None:
                    self._shadow.replace(shadow)
            self._policy = policy
            self._take_certificates(context)
            for take in read:
                take()
            for key in changed_for_a_start(self.config, loaded.config):
                log.warning("%s has changed, which needs a restart", key)
            logs.configure(loaded.config.operation.log_level, loaded.config.operation.log_format)
            if self.metrics.audit is not None:
                self.metrics.audit.reopen()
            if self.metrics.bus is not None:
                self.metrics.bus.reload()
        except Exception as error:
            unexpected = None if isinstance(error, HostlerError) else error
            log.error("the configuration stays as it was: %s", error, exc_info=unexpected)
            self.metrics.reloads["failed"] += 1
        else:
            log.info("the configuration was read again")
            self.metrics.reloads["ok"] += 1
        notify("READY=1")

    def _take_certificates(self, context: ssl.SSLContext | None) -> None:
        """Use the certificates that were read for new connections; open connections keep theirs."""
        if self._server is not None and self._server.tls is not None and context is not None:
            self._server.tls = context

    async def say_that_it_lives(self) -> None:
        """Notify systemd's watchdog, at twice the required rate, while the event loop and the writer get on."""
        wanted = watchdog_seconds()
        if wanted is None:
            return
        before: int | None = None
        while True:
            busy = self._writer_is_busy_at()
            if busy is None or busy != before:
                notify("WATCHDOG=1")
            before = busy
            await trio.sleep(wanted / 2)

    def _connections_ended(self) -> int:
        return 0 if self._server is None else self._server.ended

    def _writer_is_busy_at(self) -> int | None:
        """The current command of the writer; None while it is idle or the disk reports errors. Only a disk that does
        not respond counts as a hang."""
        service, journal = self.health.service, self.health.journal
        if service is None or not service.writer.writable:
            return None
        appending = journal is not None and journal.broken  # until it has succeeded
        return service.writer.sequence if appending or service.writer.queued else None

    # serving

    async def serve(self) -> None:
        """Serve until stopped."""
        config = self.config
        logs.configure(config.operation.log_level, config.operation.log_format)
        if config.operation.traces is not None:
            tracing.export(config.operation.traces)
        with self._scope:
            async with background() as nursery:
                try:
                    if config.operation.http is not None:
                        pages = StatusPages(self.health, self.metrics)
                        where = await nursery.start(pages.serve, config.operation.http)
                        log.info("metrics, health and readiness at http://%s", where)
                    await self._recover_and_serve(nursery)
                finally:
                    nursery.cancel_scope.cancel()

    async def _recover_and_serve(self, nursery: trio.Nursery) -> None:
        config, data = self.config, self.config.data
        rpc_limits = _connections_for_files(config.rpc.limits)
        for _, problem in exposures(config.rpc.auth, config.rpc.listen, config.placement, config.hooks):
            log.warning("insecure: %s", problem)
        etcd = data.etcd
        for problem in in_clear(etcd.endpoints if etcd is not None and etcd.user else (), config.regions):
            log.warning("insecure: %s", problem)
        tls, context = config.rpc.tls, _context(config)
        required = tls is not None and tls.client_certificates == "required"
        policy, shadow = self._loaded.policy_values(), _present(self._loaded.shadow_policy_values())
        self._policy, journal = policy, self._opened_journal()
        clustered = self._clustered
        if clustered is not None:
            await nursery.start(clustered.register)
        limits = {"queue_limit": data.queue, "answers_kept": data.keys_kept, "snapshot_every": data.snapshot_every}
        machine = ServiceMachine()  # the policy comes as a command, so that a replay has it
        history = History(machine)
        began, progress = time.monotonic(), trio.CancelScope()
        nursery.start_soon(self._tell_progress, progress)
        with ExitStack() as last:
            audit = self._opened_audit()
            if audit is not None:
                last.callback(audit.close)
            replayed = self._told_of_replays(history, audit)
            async with open_writer(machine, journal, replayed, self.failures, **limits) as writer:
                progress.cancel()
                if audit is not None:
                    take_up(audit, writer)
                self.metrics.recovery = writer.recovered, time.monotonic() - began
                log.info("recovered", extra={"sequence": writer.sequence, "replayed": writer.recovered.replayed})
                service = self.health.service = self._service(machine, writer, history)
                if clustered is not None:
                    lead = partial(self._while_leading, service)
                    cluster = await clustered.join(service, machine, self.failures, lead)
                    service.cluster = self.metrics.cluster = self.health.cluster = cluster
                regions = self._regions(service)
                reconciler = self._reconciler(service) if clustered is None else None
                server = RpcServer(service, rpc_limits, tls=context, certificates_required=required)
                self._server = server
                self.metrics.watch(service, server)
                async with background() as tasks:
                    try:
                        if clustered is None:
                            await put_policy(service, policy)
                        last.enter_context(no_automatic_collection())
                        if shadow is not None:
                            service.shadow = self.metrics.shadow = self._shadow = Shadowing(service, shadow)
                        for name, work in self._tasks(service, journal, regions, reconciler).items():
                            tasks.start_soon(self.failures.keep_running, name, work)
                        await self._until_stopped(service, server, tasks)
                    finally:
                        tasks.cancel_scope.cancel()

    def _service(self, machine: ServiceMachine, writer: Writer[Order, Any], history: History) -> Service:
        config = self.config
        return Service(
            machine,
            writer,
            clock=self.clock,
            expiry_clock=self.clock.latest,
            open_to_all=config.rpc.auth == "none",
            history=history,
            limits=config.limits,
            tenancy=config.tenancy,
            rates=config.rates,
        )

    def _tasks(
        self, service: Service, journal: CommandJournal | None, regions: Cascade | None, reconciler: Reconciler | None
    ) -> dict[str, Callable[[], Awaitable[None]]]:
        """What runs beside the work, by name. Of a cluster only the leader has regions and a reconciler."""
        tasks: dict[str, Callable[[], Awaitable[None]]] = {
            "loop watch": self._loop_watch(journal).run,
            "clock": self._watch_clock,
            "record": self._sync_record,
            "garbage collection": partial(collect, lambda: service.writer.sequence, self._connections_ended),
        }
        if regions is not None and self._clustered is None:
            tasks["regions"] = regions.run
        if reconciler is not None:
            tasks["reconciler"] = reconciler.run
        if self._shadow is not None:
            tasks["shadow policy"] = self._shadow.run
        return tasks

    async def _while_leading(self, service: Service) -> None:
        """What only the member that leads does."""
        try:
            await put_policy(service, self._policy)
        except HostlerError as error:
            log.warning("the policy of the configuration is not in force: %s", error)
        reconciler = self._reconciler(service)
        async with trio.open_nursery() as nursery:
            if isinstance(service.regions, Cascade):
                nursery.start_soon(self.failures.keep_running, "regions", service.regions.run)
            if self.metrics.bus is not None:
                nursery.start_soon(self.failures.keep_running, "bus", self.metrics.bus.lead)
            if reconciler is not None:
                try:
                    await self.failures.keep_running("reconciler", reconciler.run)
                finally:
                    service.reconciler = self.metrics.reconciler = None

    def _regions(self, service: Service) -> Cascade | None:
        if not self.config.regions:
            return None
        self._cascade = Cascade(service, self.config.regions, self.config.cascade)
        service.regions = self.metrics.regions = self._cascade
        return self._cascade

    def _reconciler(self, service: Service) -> Reconciler | None:
        backends, folder = self.config.backends, self.config.reconcile.user_data
        if not backends:
            return None
        found = Reconciler(service, backends, user_data=None if folder is None else Path(folder), pace=Pace())
        service.reconciler = self.metrics.reconciler = found
        return found

    @staticmethod
    def _loop_watch(journal: CommandJournal | None) -> LoopWatch:
        return LoopWatch(*journal.loops) if isinstance(journal, Journal) else LoopWatch()

    async def _sync_record(self) -> None:
        """Once a second, have the number of the last durable command reach the disk."""
        journal = self.health.journal
        synced = -1
        while journal is not None:
            if journal.last != synced:
                synced = journal.last
                await journal.sync_record()
            await trio.sleep(RECORD_SECONDS)

    async def _watch_clock(self) -> None:
        """Read the clock regularly, so that a jump is noticed between calls, and followed if it lasts."""
        while True:
            self.clock()
            await trio.sleep(POLL_SECONDS)

    def _opened_audit(self) -> AuditLog | None:
        if self.config.folder is None or not self.config.data.audit:
            return None
        data = self.config.data
        audit = AuditLog(
            Path(self.config.folder), self.failures, files=data.audit_files, file_bytes=data.audit_file_bytes
        )
        self.metrics.audit = audit
        return audit

    def _told_of_replays(self, history: History, audit: AuditLog | None) -> Replayed[Order, Any]:
        """Passes replayed commands to the history of events and, from its last line on, to the audit log."""
        remembered = self.health.expected - KEPT
        audited = audit.last if audit is not None and audit.last else sys.maxsize

        def tell(sequence: int, order: Order, outcome: Any) -> None:
            try:
                if sequence > remembered:
                    history.add(sequence, order, outcome)
                if audit is not None and sequence > audited:
                    audit.replayed(sequence, order, outcome)
            except Exception as error:
                self.failures.failed("history", error)

        return Replayed(min(remembered, audited), tell)

    def _opened_journal(self) -> CommandJournal | None:
        data, folder = self.config.data, self.config.folder
        if folder is None:
            log.warning("there is no data folder: all state is lost when this process ends")
            return None
        if self.config.placement.data not in ("", MEMORY, folder):
            log.warning("the Placement API is served from %s, not from %s", folder, self.config.placement.data)
        if data.store == "etcd":
            from .clustering import Clustered  # takes its time to import

            self._clustered = Clustered(self.config, aside=in_thread, committed=self.metrics.committed)
            self.health.etcd = self.metrics.etcd = self._clustered.trouble
            self.health.journal, self.health.state = self._clustered.journal, "recovering"
            return self._clustered.journal
        keep, committed, failures = data.keep_history, self.metrics.committed, self.failures
        journal = Journal.in_folder(folder, keep_history=keep, committed=committed, aside=in_thread, failures=failures)
        self.health.journal, self.health.expected, self.health.state = journal, about_last(Path(folder)), "recovering"
        return journal

    async def _tell_progress(self, scope: trio.CancelScope) -> None:
        """Tell systemd how far the recovery is, so that it does not lose patience with a long one."""
        with scope:
            while True:
                notify(f"STATUS=recovering: {self.health.recovering()}", "EXTEND_TIMEOUT_USEC=60000000")
                await trio.sleep(PROGRESS_SECONDS)

    async def _until_stopped(self, service: Service, server: RpcServer, tasks: trio.Nursery) -> None:
        """Be there for clients; in the end take nothing new, answer all that was taken, and close the connections."""
        config, others = self.config, list[str]()
        placement = hooks = None
        if config.placement.listen:
            from ..http.service import OnService  # takes its time to import

            placement = OnService(config.placement, service)
            others = [await tasks.start(placement.serve)]
        if config.hooks.listen:
            from ..http.service import HooksOnService  # takes its time to import

            hooks = HooksOnService(config.hooks, service)
            others.append(await tasks.start(hooks.serve))
        bus = self.metrics.bus = open_bus(config.nova, service, drain_seconds=config.operation.drain_seconds)
        if bus is not None:
            others.append(await (bus.stand_by() if self._clustered else tasks.start(bus.serve)))
        addresses = [str(address) for address in await tasks.start(server.serve, config.addresses)]
        log.info("serving %s, after command %d", ", ".join(addresses), service.writer.sequence)
        if self._clustered is not None:
            self._clustered.advertise(addresses, others[0] if placement is not None else "")
            tasks.start_soon(self._clustered.run)
        self.health.state = "serving"
        self._ready([*addresses, *others])
        notify("READY=1", f"STATUS=serving {len(addresses)} addresses")
        await self._stop.wait()
        self.health.state = "stopping"
        notify("STOPPING=1", "STATUS=finishing current requests")
        if self._clustered is not None:
            await self._clustered.leave()
        server.stop_accepting()
        for part in (bus, placement, hooks):
            if part is not None:
                await part.drain()  # a request under way may still have to write
        service.writer.stop()
        await server.drain(config.operation.drain_seconds)
        if self._clustered is not None:
            await self._clustered.resign()


async def put_policy(service: Service, policy: PolicyValues | None) -> None:
    """Have the file's policy in force, as a command among the others."""
    policy = _present(policy)
    if policy is not None and policy != service.state.policy:
        await service.writer.submit(Order(service.now(), LOCAL, SetPolicy(policy=policy)))
        log.info("policy %s is in force", service.state.engine.policy.digest[:12])


def _present(policy: PolicyValues | None) -> PolicyValues | None:
    return None if policy is None else with_present_defaults(policy)


def _context(config: Config) -> ssl.SSLContext | None:
    """What TLS needs, as the files have it now; None without [rpc.tls]. InvalidValue if a file cannot be used."""
    tls = config.rpc.tls
    if tls is None:
        return None
    return server_context(tls.certificate, tls.key, tls.client_ca, minimum_version=tls.minimum_version)
