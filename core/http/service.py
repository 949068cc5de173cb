"""The Placement API as a process: settings, data, listening, signals, and the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING

import trio
from msgspec import structs

from ...placement.api.placement_model import PlacementModel
from ...placement.fleet.fleet import Fleet
from ...placement.request.placement_query import PlacementQuery, RequestGroup
from ...placement.types.errors import InvalidValue
from .access_log import AccessLog
from .api import Api, InMemory
from .config import MEMORY, PlacementConfig, address, check, is_loopback, load_config
from .handling import Writer
from .hooks.config import HooksConfig
from .server import Server

if TYPE_CHECKING:
    from ..service import Service


def settled(
    file: Path | None,
    *,
    listen: str | None = None,
    auth: str | None = None,
    data: str | None = None,
    insecure: bool = False,
) -> PlacementConfig:
    """The settings of a file with those of the command line on top. Raises InvalidValue."""
    config = load_config(file) if file is not None else PlacementConfig()
    given = {"listen": listen, "auth": auth, "data": data}
    settings = structs.replace(config, **{name: value for name, value in given.items() if value is not None})
    return with_auth(settings, insecure=insecure)


def with_auth(config: PlacementConfig, *, insecure: bool) -> PlacementConfig:
    """The settings, checked, with the default method of authentication: ``none`` on loopback addresses. InvalidValue
    for bad settings, and unless ``insecure`` for an API that other machines reach without authentication."""
    host, _ = address(config.listen)
    if not config.auth:
        if not is_loopback(host):
            hint = "say --auth static or keystone; --auth none --insecure lets every client do everything"
            raise InvalidValue(f"{config.listen} can be reached from elsewhere", field="auth", hint=hint)
        config = structs.replace(config, auth="none")
    elif config.auth in ("none", "noauth2") and not insecure and not is_loopback(host):
        hint = "say --auth static or keystone, or --insecure, if that is meant"
        problem = f"auth {config.auth} lets every client that reaches {config.listen} do everything"
        raise InvalidValue(problem, field="auth", hint=hint)
    check(config)
    return config


async def run(
    config: PlacementConfig,
    *,
    signals: Sequence[Signals] = (),
    clock: Callable[[], float] = time.time,
    expiry_clock: Callable[[], float] | None = None,
) -> None:
    """Serve until one of the signals arrives or the task is cancelled. Prints a line on standard output when ready.
    Clocks as of ``Service``."""
    host, port = address(config.listen)
    stop = trio.Event()
    with trio.open_signal_receiver(*signals) as arrived:
        log = AccessLog(requests=config.access_log)
        async with _opened(config, log, clock) as (model, writer):
            api = Api(model, writer, config, clock=clock, expiry_clock=expiry_clock)
            try:
                warm(model)
                listeners = await _listening(host, port)
                async with trio.open_nursery() as nursery:
                    await nursery.start(Server(api, log).serve, listeners, stop)
                    bound = listeners[0].socket.getsockname()[1]
                    print(f"hostler: Placement API ready on http://{_shown(host)}:{bound}{config.prefix}", flush=True)
                    async for _ in arrived:
                        stop.set()
                        break
            finally:
                if api.auth is not None:
                    await api.auth.aclose()


class OnService:
    """The API on the state of a service, for as long as its task runs."""

    def __init__(self, config: PlacementConfig, service: Service) -> None:
        """InvalidValue for a configuration that cannot be."""
        self._config, self._service = with_auth(config, insecure=True), service  # the start has been judged
        self._stop, self._ended = trio.Event(), trio.Event()

    async def serve(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `drain` or cancelled; started with the address. InvalidValue if the address is unusable."""
        from ..machine.placement_writes import ServiceModel
        from .placement_writer import ServiceWriter

        config = self._config
        host, port = address(config.listen)
        service = self._service
        model = ServiceModel(service.state)
        warm(model)
        api = Api(
            model,
            ServiceWriter(service),
            config,
            clock=service.clock,
            expiry_clock=service.expiry_clock,
            children=service.children,
        )
        server = Server(api, AccessLog(requests=config.access_log))
        try:
            listeners = await _listening(host, port)
            bound = listeners[0].socket.getsockname()[1]
            async with trio.open_nursery() as nursery:
                await nursery.start(server.serve, listeners, self._stop)
                task_status.started(f"http://{_shown(host)}:{bound}{config.prefix}")
        finally:
            self._ended.set()
            if api.auth is not None:
                with trio.CancelScope(shield=True):
                    await api.auth.aclose()

    async def drain(self) -> None:
        """Accept no more requests, and wait at most ``drain_seconds`` for current ones to be answered."""
        self._stop.set()
        await self._ended.wait()


def warm(model: PlacementModel) -> None:
    """Search for one candidate, so that what a first search prepares is not paid by a caller. O(providers)."""
    model.allocation_candidates(PlacementQuery(groups=(RequestGroup(resources=(("VCPU", 1),)),), limit=1))


class HooksOnService:
    """The hooks of other schedulers on the state of a service, for as long as their task runs."""

    def __init__(self, config: HooksConfig, service: Service) -> None:
        self._config, self._service = config, service
        self._stop, self._ended = trio.Event(), trio.Event()

    async def serve(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """As ``OnService.serve``."""
        from .hooks.api import HooksApi

        config = self._config
        host, port = address(config.listen)
        api = HooksApi(self._service, config, clock=self._service.expiry_clock)
        server = Server(api, AccessLog(requests=config.access_log))
        try:
            listeners = await _listening(host, port, field="hooks")
            bound = listeners[0].socket.getsockname()[1]
            async with trio.open_nursery() as nursery:
                await nursery.start(server.serve, listeners, self._stop)
                task_status.started(f"http://{_shown(host)}:{bound}{config.prefix}")
        finally:
            self._ended.set()

    async def drain(self) -> None:
        """As ``OnService.drain``."""
        self._stop.set()
        await self._ended.wait()


async def _listening(host: str, port: int, field: str = "placement") -> list[trio.SocketListener]:
    try:
        return list(await trio.open_tcp_listeners(port, host=host))
    except OSError as error:
        raise InvalidValue(f"cannot listen on {host}:{port}: {error}", field=field) from error


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@asynccontextmanager
async def _opened(
    config: PlacementConfig, log: AccessLog, clock: Callable[[], float]
) -> AsyncIterator[tuple[PlacementModel, Writer]]:
    """The model and its writer, as the data folder has them, until the end of the context."""
    if config.data in ("", MEMORY):
        model = PlacementModel(Fleet())
        yield model, InMemory(model)
        return
    from ..journal.journal import Journal  # the rest of the service takes its time to import
    from ..machine.machine import ServiceMachine
    from ..machine.placement_writes import ServiceModel
    from ..service import Service
    from ..writer.writer import open_writer
    from .placement_writer import ServiceWriter

    machine = ServiceMachine()
    async with open_writer(machine, Journal.in_folder(config.data)) as writer:
        service = Service(machine, writer, clock=clock)
        log.note("recovered", commands=writer.sequence, providers=len(machine.state.fleet))
        yield ServiceModel(machine.state), ServiceWriter(service)
