"""The daemon: recovers, listens, tells systemd and whoever scrapes it how it is, and stops without losing an answer."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

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
from .state import ServiceState
from .systemd import notify
from .tasks import background
from .tenancy.tenants import LOCAL
from .writer import Writer, open_writer

FLUSH_SECONDS = 1.0

log = logging.getLogger("hostler.daemon")


async def serve_rpc(
    config: Config,
    *,
    reread: Callable[[], Config] | None = None,
    ready: Callable[[list[str]], None] = lambda addresses: None,
    task_status: trio.TaskStatus[Service] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until SIGTERM or SIGINT. ``ready`` is called with the addresses once calls are taken; SIGHUP has
    ``reread`` read the configuration again, whose policy is then in force. HostlerErrors for what cannot be served."""
    tls = None
    if config.rpc.tls is not None:
        tls = server_context(config.rpc.tls.certificate, config.rpc.tls.key, config.rpc.tls.client_ca)
    journal = None
    if config.data.folder is not None:
        journal = Journal.in_folder(config.data.folder, keep_history=config.data.keep_history)
    limits = {
        "queue_limit": config.data.queue,
        "answers_kept": config.data.keys_kept,
        "snapshot_every": config.data.snapshot_every,
    }
    policy = config.policy_values()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        machine = ServiceMachine(ServiceState(policy))
        async with open_writer(machine, journal, **limits) as writer:
            service = Service(machine, writer, open_to_all=config.rpc.auth == "none")
            await _put_policy(service, policy)
            server = RpcServer(service, config.rpc.limits, tls=tls)
            task_status.started(service)
            async with background() as nursery:
                with ExitStack() as stack:
                    if journal is not None and config.data.audit:
                        audit = AuditLog(Path(str(config.data.folder)))
                        writer.observers.append(audit)
                        stack.callback(audit.close)
                        nursery.start_soon(_flush, audit)
                    if config.operation.http is not None:
                        pages = StatusPages(service, Metrics(service, server))
                        log.info("metrics at http://%s", await nursery.start(pages.serve, config.operation.http))
                    addresses = [str(address) for address in await nursery.start(server.serve, config.addresses)]
                    log.info("serving %s from command %d on", ", ".join(addresses), writer.sequence)
                    ready(addresses)
                    notify("READY=1", f"STATUS=serving {len(addresses)} addresses")
                    await _obey(signals, service, reread)
                    await _stop(server, writer, config.operation.drain_seconds)
                nursery.cancel_scope.cancel()


async def _obey(signals: Any, service: Service, reread: Callable[[], Config] | None) -> None:
    """Read the policy again at each SIGHUP, until another signal comes."""
    async with aclosing(signals) as received:
        async for number in received:
            if number != signal.SIGHUP:
                return
            notify("RELOADING=1", f"MONOTONIC_USEC={math.floor(trio.current_time() * 1e6)}")
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


async def _stop(server: RpcServer, writer: Writer[Order, Any], seconds: float) -> None:
    """Take nothing new, answer all that was taken, and close the connections."""
    log.info("stopping")
    notify("STOPPING=1")
    server.stop_accepting()
    writer.stop()
    await server.drain(seconds)


async def _flush(audit: AuditLog) -> None:
    while True:
        await trio.sleep(FLUSH_SECONDS)
        audit.flush()
