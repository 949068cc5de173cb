"""A service with a reconciler on model back ends, on a simulated clock and disk."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from hostler.core.backends.protocol import DriverContext
from hostler.core.backends.values import Mark
from hostler.core.engine_commands import Asked, EngineCommand
from hostler.core.journal.journal import Journal
from hostler.core.lifecycle_commands import CreateGuest, GuestVolume, LifecycleCommand, guest_volume
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.reconcile.backend import BackendConfig
from hostler.core.reconcile.reconciler import Reconciler
from hostler.core.service import Service
from hostler.core.tasks import background
from hostler.core.writer.writer import open_writer
from hostler.drivers.model.driver import Faults, ModelDriver, Options, Wire
from hostler.drivers.model.world import ModelGuest, ModelVolume, World

from ..core.orders import LOCAL, NOW, asked, uuid_of
from ..core.simulation import Disk, MemorySnapshots, MemoryStore

CHANGES = (
    *("create_guest", "set_power", "delete_guest", "move_guest", "resize_guest", "attach", "detach", "snapshot_guest"),
    *("delete_snapshot", "create_volume", "delete_volume"),
)
"""Operations of a driver that change something."""


class Model:
    """A model back end that outlives the service."""

    def __init__(
        self, name: str, *, nodes: int = 2, pools: int = 0, build_seconds: float = 0.0, concurrency: int = 8
    ) -> None:
        self.name = name
        self.options = Options(prefix=f"{name}-", poll=5.0, page=7, concurrency=concurrency)
        self.world = World(trio.current_time, build_seconds=build_seconds)
        self.world.add(nodes=nodes, pools=pools, prefix=f"{name}-")
        self.wire = Wire(self.world, Faults(), trio.current_time)

    def open(self, options: Mapping[str, Any], context: DriverContext) -> AbstractAsyncContextManager[ModelDriver]:
        return self._open(context)

    @asynccontextmanager
    async def _open(self, context: DriverContext) -> AsyncIterator[ModelDriver]:
        yield ModelDriver(self.wire, context.installation, self.options)

    def guests(self) -> list[tuple[Mark | None, ModelGuest]]:
        """All guests with their marks."""
        with self.world.content(change=False) as there:
            return [(Mark.parse(each.mark), each) for each in there.guests.values()]

    def volumes(self) -> list[tuple[Mark | None, ModelVolume]]:
        """All volumes with their marks."""
        with self.world.content(change=False) as there:
            return [(Mark.parse(each.mark), each) for each in there.volumes.values()]

    def of(self, uuid: str) -> list[ModelGuest]:
        return [each for mark, each in self.guests() if mark is not None and mark.uuid == uuid]


class Wrapped(Model):
    """A model with calls that change something each made by ``call``, which may fail."""

    def open(self, options: Mapping[str, Any], context: DriverContext) -> AbstractAsyncContextManager[ModelDriver]:
        return self._wrapped(context)

    @asynccontextmanager
    async def _wrapped(self, context: DriverContext) -> AsyncIterator[ModelDriver]:
        driver = ModelDriver(self.wire, context.installation, self.options)
        for name in CHANGES:
            setattr(driver, name, partial(self.call, name, getattr(driver, name)))
        yield driver

    async def call(self, operation: str, work: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
        """One call of an operation."""
        return await work(*args, **more)


class Running:
    """One life of the service."""

    def __init__(self, service: Service, reconciler: Reconciler) -> None:
        self.service, self.reconciler = service, reconciler
        self.state = service.state

    async def submit(self, command: LifecycleCommand | EngineCommand, user: str = LOCAL) -> Any:
        return await self.service.writer.submit(Order(self.service.now(), user, command))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition of the state or the model."""
        with trio.fail_after(600):
            while not condition():  # noqa: ASYNC110  # what it looks at has no events
                await trio.sleep(0.05)

    def status(self, number: int) -> str | None:
        life = self.state.lives.guests.get(uuid_of(number))
        return None if life is None else life.shown

    def volume_status(self, number: int) -> str | None:
        life = self.state.lives.volumes.get(uuid_of(number))
        return None if life is None else life.shown

    async def inventories(self, count: int = 1) -> None:
        """Wait for so many more complete inventories of every back end."""
        parts = {each.name: each.inventories for each in self.reconciler.status().backends}
        await self.until(
            lambda: all(
                each.inventories >= parts[each.name] + count or not each.enabled
                for each in self.reconciler.status().backends
            )
        )


def create(number: int, **what: Any) -> CreateGuest:
    spec = {name: what.pop(name) for name in ("vcpus", "memory_mb", "project") if name in what}
    request: Asked = asked(number, **spec)
    return CreateGuest(request=request, **what)


def volume(number: int, size_gb: int = 10, project: str = "", **what: Any) -> GuestVolume:
    return guest_volume(size_gb, uuid=uuid_of(number), project_id=project, **what)


@asynccontextmanager
async def running(
    *models: Model, disk: Disk | None = None, seed: int = 0, machine: ServiceMachine | None = None, **config: Any
) -> AsyncIterator[Running]:
    """A service and its reconciler; with a disk it recovers from it."""
    machine = machine if machine is not None else ServiceMachine()
    journal = None if disk is None else Journal(MemoryStore(disk), MemorySnapshots(disk))
    user_data: Path | None = config.pop("user_data", None)
    limits = {} if disk is None else {"snapshot_every": 20}
    async with open_writer(machine, journal, None, **limits) as writer:
        service = Service(machine, writer, clock=lambda: NOW + trio.current_time())
        configs = {model.name: BackendConfig(driver="model", **{"grace": 8.0, **config}) for model in models}
        drivers = {model.name: model.open for model in models}
        chance = random.Random(seed)
        reconciler = Reconciler(service, configs, chance=chance, drivers=drivers, user_data=user_data)
        async with background() as nursery:
            await nursery.start(reconciler.run)
            try:
                yield Running(service, reconciler)
            finally:  # a failure ends it too
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def ready(*models: Model, **options: Any) -> AsyncIterator[Running]:
    """The same, once all nodes are known."""
    async with running(*models, **options) as life:
        await life.inventories()
        yield life
