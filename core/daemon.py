"""The daemon: recovers, listens, tells systemd and whoever scrapes it how it is, and stops without losing an answer."""

from __future__ import annotations

import gc
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import trio

from ..placement.commands import SetPolicy
from ..placement.errors import HostlerError
from .audit import AuditLog
from .config import Config
from .http_status import StatusPages
from .journal import Journal
from .machine import Order, ServiceMachine
from .metrics import Metrics
from .rpc.server import RpcServer
from .rpc.tls import server_context
from .service import Service
from .systemd import notify
from .tasks import background
from .tenancy.tenants import LOCAL
from .writer import Writer, open_writer

FLUSH_SECONDS: Final = 1.0
GC_THRESHOLDS: Final = (50_000, 20, 20)
"""Of the garbage collector: nearly all that a command makes is freed without it."""

log = logging.getLogger("hostler.daemon")


async def serve_rpc(
    config: Config,
    *,
    reread: Callable[[], Config] | None = None,
    ready: Callable[[list[str]], None] = lambda addresses: None,
) -> None:
    """Serve until SIGTERM or SIGINT. ``ready`` is called with the addresses once calls are taken; SIGHUP has
    ``reread`` read the configuration again, whose policy is then in force. HostlerErrors for what cannot be served."""
    data, policy = config.data, config.policy_values()
    journal = None
    if data.folder is not None:
        journal = Journal.in_folder(data.folder, keep_history=data.keep_history)
    limits = {"queue_limit": data.queue, "answers_kept": data.keys_kept, "snapshot_every": data.snapshot_every}
    machine = ServiceMachine()  # the policy comes as a command, so that a replay has it
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals, ExitStack() as last:
        async with open_writer(machine, journal, **limits) as writer:
            service = Service(machine, writer, open_to_all=config.rpc.auth == "none")
            await _put_policy(service, policy)
            gc.collect()
            gc.freeze()  # the fleet stays: no need to walk it again and again
            gc.set_threshold(*GC_THRESHOLDS)
            async with background() as nursery:
                if data.folder is not None and data.audit:
                    audit = AuditLog(Path(data.folder))
                    writer.observers.append(audit)
                    last.callback(audit.close)
                    nursery.start_soon(_flush, audit)
                try:
                    served, drained = await _placement(config, service, nursery)
                    server = await _listen(config, service, nursery, lambda found: ready([*found, *served]))
                    await _obey(signals, service, reread)
                    await _stop(server, writer, config.operation.drain_seconds, drained)
                finally:
                    nursery.cancel_scope.cancel()


async def _listen(
    config: Config, service: Service, nursery: trio.Nursery, ready: Callable[[list[str]], None]
) -> RpcServer:
    """Be there for clients, and say so."""
    tls = None
    if config.rpc.tls is not None:
        tls = server_context(config.rpc.tls.certificate, config.rpc.tls.key, config.rpc.tls.client_ca)
    server = RpcServer(service, config.rpc.limits, tls=tls)
    if config.operation.http is not None:
        pages = StatusPages(service, Metrics(service, server))
        log.info("metrics, health and readiness at http://%s", await nursery.start(pages.serve, config.operation.http))
    addresses = [str(address) for address in await nursery.start(server.serve, config.addresses)]
    log.info("serving %s, after command %d", ", ".join(addresses), service.writer.sequence)
    ready(addresses)
    notify("READY=1", f"STATUS=serving {len(addresses)} addresses")
    return server


async def _placement(
    config: Config, service: Service, nursery: trio.Nursery
) -> tuple[list[str], Callable[[], Awaitable[None]]]:
    """Serve the Placement API on the service's state, if it is wanted: its addresses, and how to end it."""
    if not config.placement.listen:
        return [], trio.lowlevel.checkpoint
    from .http.service import OnService  # takes its time to import

    placement = OnService(config.placement, service)
    return [await nursery.start(placement.serve)], placement.drain


async def _obey(signals: Any, service: Service, reread: Callable[[], Config] | None) -> None:
    """Read the policy again at each SIGHUP, until another signal comes."""
    async for number in signals:
        if number != signal.SIGHUP:
            return
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            if reread is not None:
                await _put_policy(service, reread().policy_values())
            log.info("the configuration was read again")
        except HostlerError as error:
            log.error("the policy stays as it was: %s", error)
        notify("READY=1")


async def _put_policy(service: Service, policy: dict[str, dict[str, Any]] | None) -> None:
    """Have the file's policy in force, as a command among the others."""
    if policy is not None and policy != service.state.policy:
        await service.writer.submit(Order(service.now(), LOCAL, SetPolicy(policy=policy)))


async def _stop(
    server: RpcServer, writer: Writer[Order, Any], seconds: float, drained: Callable[[], Awaitable[None]]
) -> None:
    """Take nothing new, answer all that was taken, and close the connections. HTTP requests under way may still have to
    write, so they come before the writer ends."""
    log.info("stopping")
    notify("STOPPING=1")
    server.stop_accepting()
    await drained()
    writer.stop()
    await server.drain(seconds)


async def _flush(audit: AuditLog) -> None:
    while True:
        await trio.sleep(FLUSH_SECONDS)
        audit.flush()
