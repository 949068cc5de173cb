"""The daemon: recovers, listens, reports its state to systemd and over HTTP, and stops without losing an answer."""

from __future__ import annotations

import logging
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
import trio

from ...placement.types.errors import HostlerError
from .. import tracing
from ..engine_commands import SetPolicy
from ..http.config import MEMORY
from ..journal.journal import Journal
from ..journal.store import about_last
from ..machine.event_log import KEPT, History
from ..machine.machine import ServiceMachine
from ..machine.orders import Order
from ..machine.replicated import Replayed
from ..machine.state import PolicyValues
from ..rpc.server import RpcServer
from ..rpc.tls import server_context
from ..service import Service
from ..tasks import background, in_thread
from ..tenancy.tenants import LOCAL
from ..writer.writer import open_writer
from . import logs
from .audit import AuditLog
from .config import Loaded
from .gc_policy import collect, no_automatic_collection
from .health import Health, StatusPages
from .metrics import Metrics
from .settings import Config
from .systemd import notify, watchdog_seconds

FLUSH_SECONDS: Final = 1.0
SPARE_FILES: Final = 100
"""For the journal, snapshots, logs and children."""
PROGRESS_SECONDS: Final = 1.0

log = logging.getLogger("hostler.daemon")


def _allow_files(connections: int) -> None:
    """Raise the limit of open files to the maximum, and warn if that is too low for all connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and most < connections + SPARE_FILES:
        log.warning("%d files may be open, too few for %d connections: raise LimitNOFILE", most, connections)


async def run(load: Callable[[], Loaded], *, ready: Callable[[list[str]], None] = lambda addresses: None) -> None:
    """Serve until SIGTERM or SIGINT; a second one stops immediately. ``ready`` is called with the addresses once calls
    are accepted; on SIGHUP ``load`` reads the configuration again. HostlerError if the configuration cannot be
    served."""
    daemon = Daemon(load, ready)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with background() as nursery:
            nursery.start_soon(daemon.obey, signals)
            nursery.start_soon(daemon.say_that_it_lives)
            try:
                await daemon.serve()
            finally:
                nursery.cancel_scope.cancel()
    log.info("stopped")


class Daemon:
    """The service of one process, and its signals."""

    def __init__(self, load: Callable[[], Loaded], ready: Callable[[list[str]], None]) -> None:
        self._load, self._loaded, self._ready = load, load(), ready
        self._stop = trio.Event()
        self._scope = trio.CancelScope()
        """Cancel scope of all tasks; cancelled to stop immediately."""
        self.health, self.metrics = Health(), Metrics()

    @property
    def config(self) -> Config:
        """As it was at the start; a reload changes the policy and the log only."""
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
                log.warning("stopping immediately: %s while %s", signal.Signals(number).name, self.health.state)
                self._scope.cancel()

    async def _reload(self) -> None:
        """Reload the configuration. Commands continue; the new policy is applied between two of them."""
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            loaded = self._load()
            policy = loaded.policy_values()
            if self.health.service is not None and self.health.state == "serving":
                await _put_policy(self.health.service, policy)
            operation = loaded.config.operation
            for key in _changed(self.config, loaded.config):
                log.warning("%s has changed, which needs a restart", key)
            logs.configure(operation.log_level, operation.log_format)
        except HostlerError as error:
            log.error("the configuration stays as it was: %s", error)
            self.metrics.reloads["failed"] += 1
        else:
            log.info("the configuration was read again")
            self.metrics.reloads["ok"] += 1
        notify("READY=1")

    # systemd's watchdog

    async def say_that_it_lives(self) -> None:
        """Notify systemd's watchdog, at twice the required rate, while the event loop runs and the writer makes
        progress."""
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
        _allow_files(config.rpc.limits.connections)
        tls = config.rpc.tls
        context = None
        if tls is not None:
            context = server_context(tls.certificate, tls.key, tls.client_ca, minimum_version=tls.minimum_version)
        required = tls is not None and tls.client_certificates == "required"
        policy = self._loaded.policy_values()
        journal = self._opened_journal()
        limits = {"queue_limit": data.queue, "answers_kept": data.keys_kept, "snapshot_every": data.snapshot_every}
        machine = ServiceMachine()  # the policy comes as a command, so that a replay has it
        history = History(machine)
        replayed = Replayed(self.health.expected - KEPT, history.add)
        began, progress = time.monotonic(), trio.CancelScope()
        nursery.start_soon(self._tell_progress, progress)
        with ExitStack() as last:
            async with open_writer(machine, journal, replayed, **limits) as writer:
                progress.cancel()
                self.metrics.recovery = writer.recovered, time.monotonic() - began
                log.info("recovered", extra={"sequence": writer.sequence, "replayed": writer.recovered.replayed})
                open_to_all = config.rpc.auth == "none"
                service = self.health.service = Service(machine, writer, open_to_all=open_to_all, history=history)
                server = RpcServer(service, config.rpc.limits, tls=context, certificates_required=required)
                self.metrics.watch(service, server)
                async with background() as tasks:
                    try:
                        if config.folder is not None and data.audit:
                            self.metrics.audit = audit = AuditLog(Path(config.folder))
                            writer.observers.append(audit)
                            last.callback(audit.close)
                            tasks.start_soon(_flush, audit)
                        await _put_policy(service, policy)
                        last.enter_context(no_automatic_collection())
                        tasks.start_soon(collect, lambda: writer.sequence)
                        await self._until_stopped(service, server, tasks)
                    finally:
                        tasks.cancel_scope.cancel()

    def _opened_journal(self) -> Journal | None:
        data, folder = self.config.data, self.config.folder
        if folder is None:
            log.warning("there is no data folder: all state is lost when this process ends")
            return None
        if self.config.placement.data not in ("", MEMORY, folder):
            log.warning("the Placement API is served from %s, not from %s", folder, self.config.placement.data)
        committed = self.metrics.committed
        journal = Journal.in_folder(folder, keep_history=data.keep_history, committed=committed, aside=in_thread)
        self.health.journal, self.health.expected = journal, about_last(Path(folder))
        self.health.state = "recovering"
        return journal

    async def _tell_progress(self, scope: trio.CancelScope) -> None:
        """Tell systemd how far the recovery is, so that it does not lose patience with a long one."""
        with scope:
            while True:
                notify(f"STATUS=recovering: {self.health.recovering()}", "EXTEND_TIMEOUT_USEC=60000000")
                await trio.sleep(PROGRESS_SECONDS)

    async def _until_stopped(self, service: Service, server: RpcServer, tasks: trio.Nursery) -> None:
        """Be there for clients; in the end take nothing new, answer all that was taken, and close the connections."""
        config, others, placement = self.config, list[str](), None
        if config.placement.listen:
            from ..http.service import OnService  # takes its time to import

            placement = OnService(config.placement, service)
            others = [await tasks.start(placement.serve)]
        addresses = [str(address) for address in await tasks.start(server.serve, config.addresses)]
        log.info("serving %s, after command %d", ", ".join(addresses), service.writer.sequence)
        self.health.state = "serving"
        self._ready([*addresses, *others])
        notify("READY=1", f"STATUS=serving {len(addresses)} addresses")
        await self._stop.wait()
        self.health.state = "stopping"
        notify("STOPPING=1", "STATUS=finishing current requests")
        server.stop_accepting()
        if placement is not None:
            await placement.drain()  # a request under way may still have to write
        service.writer.stop()
        await server.drain(config.operation.drain_seconds)


async def _put_policy(service: Service, policy: PolicyValues | None) -> None:
    """Have the file's policy in force, as a command among the others."""
    if policy is not None and policy != service.state.policy:
        await service.writer.submit(Order(service.now(), LOCAL, SetPolicy(policy=policy)))
        log.info("policy %s is in force", service.state.engine.policy.digest[:12])


def _changed(old: Config, new: Config) -> list[str]:
    """Dotted keys that differ, of those that only a start reads."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    for values in (before, after):
        del values["policy"], values["operation"]["log_level"], values["operation"]["log_format"]
    return [
        f"{table}.{key}" for table, keys in before.items() for key, value in keys.items() if after[table][key] != value
    ]


async def _flush(audit: AuditLog) -> None:
    while True:
        await trio.sleep(FLUSH_SECONDS)
        audit.flush()
