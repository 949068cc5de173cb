"""The driver of the model: requests and answers take time and are lost as a seed decides, and a request whose sender
has given up may still be carried out later."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
import trio

from ..protocol import (
    Can,
    Capacity,
    Conflict,
    Connection,
    ConsoleAddress,
    Denied,
    DriverContext,
    DriverError,
    Facts,
    Guest,
    GuestSpec,
    GuestState,
    Mark,
    Node,
    Page,
    Pool,
    Power,
    Snapshot,
    SnapshotState,
    Transient,
    Unknown,
    Volume,
    VolumeSpec,
    read_options,
)
from .world import GIVEN_UP, ModelGuest, ModelSnapshot, ModelVolume, World, provisioned_gb, reachable, used_on

T = TypeVar("T")
Item = TypeVar("Item")
Chance = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
FILE_THREADS: Final = 4
"""Calls of one model whose file is read or written at a time."""


class Faults(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How often calls fail, as probabilities: the request is lost (``lost_requests``), the answer is lost
    (``lost_answers``), the node is full although it reports room (``full``). ``late``: of requests given up on their
    way, those that are carried out later all the same. ``delay``: most seconds of each way. ``seed`` decides."""

    seed: int = 0
    lost_requests: Chance = 0.0
    lost_answers: Chance = 0.0
    full: Chance = 0.0
    late: Chance = 0.0
    delay: Seconds = 0.0


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options of a model: ``nodes`` and ``pools`` of the default size (16 CPUs, 64 GiB, 1,000 GiB; 10,000 GiB), whose
    names begin with ``prefix``; a ``file`` (absolute path) to keep everything in; seconds to build a guest."""

    nodes: Annotated[int, msgspec.Meta(ge=0)] = 3
    pools: Annotated[int, msgspec.Meta(ge=0)] = 1
    prefix: str = ""
    file: str | None = None
    build_seconds: Seconds = 0.0
    poll: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    concurrency: Annotated[int, msgspec.Meta(ge=1)] = 8
    page: Annotated[int, msgspec.Meta(ge=1)] = 100
    faults: Faults = msgspec.field(default_factory=Faults)


class Wire:
    """The way between drivers and one model: delays, faults, and requests that arrive late."""

    def __init__(self, world: World, faults: Faults, clock: Callable[[], float]) -> None:
        self.world, self.faults, self._clock = world, faults, clock
        self.chance = random.Random(faults.seed)
        self.down = self.denied = False
        """True: every call fails so."""
        self.hanging: trio.Event | None = None
        """Calls wait for it, if there is one."""
        self.in_flight = self.most_in_flight = 0
        self._late: list[tuple[float, Callable[[], object]]] = []

    def settle(self) -> None:
        """Carry out the late requests whose time has come."""
        due = [each for each in self._late if each[0] <= self._clock()]
        self._late = [each for each in self._late if each[0] > self._clock()]
        for _, work in due:
            self._try(work)

    def settle_all(self) -> None:
        """Carry out all late requests."""
        late, self._late = self._late, []
        for _, work in late:
            self._try(work)

    @staticmethod
    def _try(work: Callable[[], object]) -> None:
        with suppress(DriverError):  # there is no one to answer
            work()

    def happens(self, probability: float) -> bool:
        """True as often as that."""
        return probability > 0 and self.chance.random() < probability

    async def there(self, work: Callable[[], object]) -> None:
        """The way of a request. Given up on its way, it may arrive later."""
        try:
            await self._travel()
        except trio.Cancelled:
            self._perhaps_later(work)
            raise
        if self.denied:
            raise Denied("the model refuses the credentials")
        if self.down:
            raise Transient("the model does not answer")
        if self.happens(self.faults.lost_requests):
            if self.happens(self.faults.late):
                self._perhaps_later(work)
                raise Unknown("no answer in time")
            raise Transient("the request was lost")

    async def back(self) -> None:
        """The way of an answer."""
        await self._travel()
        if self.happens(self.faults.lost_answers):
            raise Unknown("the answer was lost")

    def _perhaps_later(self, work: Callable[[], object]) -> None:
        if self.happens(self.faults.late):
            self._late.append((self._clock() + self.chance.uniform(0.1, 20.0), work))

    async def _travel(self) -> None:
        if self.hanging is not None:
            await self.hanging.wait()
        await trio.sleep(self.chance.uniform(0, self.faults.delay) if self.faults.delay else 0)


class ModelDriver:
    """Driver of compute, storage and attachment on a model."""

    def __init__(self, wire: Wire, installation: str, options: Options) -> None:
        self._wire, self._world, self._installation = wire, wire.world, installation
        self._page = options.page
        self._threads = trio.CapacityLimiter(FILE_THREADS) if options.file is not None else None
        can = Can.COMPUTE | Can.STORAGE | Can.ATTACH | Can.MOVE | Can.ADOPT | Can.RESIZE | Can.SNAPSHOT | Can.CONSOLE
        self.facts = Facts("model", "1", can, options.poll, options.concurrency, timeout=60.0)

    async def _call(self, work: Callable[[], T]) -> T:
        wire = self._wire
        wire.in_flight += 1
        wire.most_in_flight = max(wire.most_in_flight, wire.in_flight)
        try:
            await wire.there(work)
            answer = await self._done(work)
            await wire.back()
            return answer
        finally:
            wire.in_flight -= 1

    async def _done(self, work: Callable[[], T]) -> T:
        if self._threads is None:
            self._wire.settle()
            return work()
        given_up = threading.Event()
        GIVEN_UP.set(given_up)
        try:
            return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)
        except trio.Cancelled:
            given_up.set()  # or the thread would do it behind later calls
            raise

    async def check(self) -> None:
        """Check that the model answers."""
        await self._call(lambda: None)

    # compute

    async def nodes(self) -> AsyncIterator[Page[Node]]:
        """All nodes."""
        async for page in self._pages(self._nodes):
            yield page

    def _nodes(self) -> list[Node]:
        with self._world.content(change=False) as there:
            return [
                Node(each.name, each.vcpus, each.memory_mb, each.disk_gb, *used_on(there, each.name), state=each.state)  # type: ignore[arg-type]  # a text of the file
                for each in there.nodes.values()
            ]

    async def guests(self) -> AsyncIterator[Page[Guest]]:
        """All guests."""
        async for page in self._pages(self._guests):
            yield page

    def _guests(self) -> list[Guest]:
        with self._world.content(change=False) as there:
            return [self._seen(guest) for guest in reachable(there)]

    def _seen(self, guest: ModelGuest) -> Guest:
        state: GuestState = "paused" if guest.paused else guest.power
        if self._world.is_building(guest):
            state = "building"
        elif guest.broken:
            state = "error"
        mark, volumes = Mark.parse(guest.mark), tuple(guest.volumes)
        return Guest(guest.key, mark, guest.name, guest.node, state, guest.vcpus, guest.memory_mb, volumes)

    async def get_guest(self, uuid: str) -> Guest:
        """The guest of a uuid."""
        return self._seen(await self._call(lambda: self._world.guest(self._installation, uuid)))

    async def create_guest(self, want: GuestSpec) -> Guest:
        """Make a guest."""
        full = self._wire.happens(self._wire.faults.full)

        def work() -> ModelGuest:
            if full:
                raise Capacity(f"node {want.node} is full")
            return self._world.create_guest(want)

        return self._seen(await self._call(work))

    async def set_power(self, uuid: str, want: Power) -> Guest:
        """Start or stop a guest."""
        return self._seen(await self._call(lambda: self._world.set_power(self._installation, uuid, want)))

    async def move_guest(self, uuid: str, node: str, *, live: bool) -> Guest:
        """Move a guest."""
        return self._seen(await self._call(lambda: self._world.move_guest(self._installation, uuid, node, live=live)))

    async def delete_guest(self, uuid: str, claim: int | None = None) -> None:
        """Remove a guest."""
        await self._call(lambda: self._world.delete_guest(self._installation, uuid, claim))

    async def resize_guest(self, uuid: str, vcpus: int, memory_mb: int) -> Guest:
        """Give a guest another size."""
        return self._seen(
            await self._call(lambda: self._world.resize_guest(self._installation, uuid, vcpus, memory_mb))
        )

    async def console(self, uuid: str) -> ConsoleAddress:
        """A guest's console, which nothing answers at."""
        guest = await self._call(lambda: self._world.guest(self._installation, uuid))
        if guest.power != "on" or self._world.is_building(guest):
            raise Conflict(f"guest {uuid} does not run")
        return ConsoleAddress(kind="url", address=f"model://{guest.node}/{guest.key}", node=guest.node)

    async def snapshots(self) -> AsyncIterator[Page[Snapshot]]:
        """All snapshots."""
        async for page in self._pages(self._snapshots):
            yield page

    def _snapshots(self) -> list[Snapshot]:
        with self._world.content(change=False) as there:
            return [self._snapshot(each) for each in there.snapshots.values()]

    def _snapshot(self, made: ModelSnapshot) -> Snapshot:
        state: SnapshotState = "building" if self._world.is_building(made) else "available"
        return Snapshot(made.key, Mark.parse(made.mark), made.name, state)

    async def get_snapshot(self, uuid: str) -> Snapshot:
        """The snapshot of a uuid."""
        return self._snapshot(await self._call(lambda: self._world.snapshot(self._installation, uuid)))

    async def snapshot_guest(self, guest: str, mark: Mark, name: str) -> Snapshot:
        """Make a snapshot of a guest."""
        return self._snapshot(await self._call(lambda: self._world.snapshot_guest(guest, mark, name)))

    async def delete_snapshot(self, uuid: str, claim: int | None = None) -> None:
        """Remove a snapshot."""
        await self._call(lambda: self._world.delete_snapshot(self._installation, uuid, claim))

    async def adopt_guest(self, key: str, mark: Mark) -> Guest:
        """Mark a stranger's guest."""
        return self._seen(await self._call(lambda: self._world.adopt_guest(key, mark)))

    async def disown_guest(self, uuid: str, claim: int) -> None:
        """Take its mark from a guest that was adopted."""
        await self._call(lambda: self._world.disown_guest(self._installation, uuid, claim))

    async def attach(self, uuid: str, volume: Connection) -> None:
        """Attach a volume."""
        await self._call(lambda: self._world.change_volumes(self._installation, uuid, volume.volume, attached=True))

    async def detach(self, uuid: str, volume: str) -> bool:
        """Ask for a volume."""
        return await self._call(lambda: self._world.change_volumes(self._installation, uuid, volume, attached=False))

    # storage

    async def pools(self) -> AsyncIterator[Page[Pool]]:
        """All pools."""
        async for page in self._pages(self._pools):
            yield page

    def _pools(self) -> list[Pool]:
        with self._world.content(change=False) as there:
            found = []
            for pool in there.pools.values():
                used = provisioned_gb(there, pool.name)
                found.append(Pool(pool.name, pool.total_gb, pool.total_gb - used, used, state=pool.state))  # type: ignore[arg-type]  # a text of the file
            return found

    async def volumes(self) -> AsyncIterator[Page[Volume]]:
        """All volumes."""
        async for page in self._pages(self._volumes):
            yield page

    def _volumes(self) -> list[Volume]:
        with self._world.content(change=False) as there:
            used = {uuid for guest in there.guests.values() for uuid in guest.volumes}
            return [_volume(each, used) for each in there.volumes.values()]

    async def _of(self, work: Callable[[], ModelVolume]) -> Volume:
        def both() -> Volume:
            made = work()
            with self._world.content(change=False) as there:
                return _volume(made, {uuid for guest in there.guests.values() for uuid in guest.volumes})

        return await self._call(both)

    async def get_volume(self, uuid: str) -> Volume:
        """The volume of a uuid."""
        return await self._of(lambda: self._world.volume(self._installation, uuid))

    async def create_volume(self, want: VolumeSpec) -> Volume:
        """Make a volume."""
        return await self._of(lambda: self._world.create_volume(want))

    async def delete_volume(self, uuid: str, claim: int | None = None) -> None:
        """Remove a volume."""
        await self._call(lambda: self._world.delete_volume(self._installation, uuid, claim))

    async def extend_volume(self, uuid: str, size_gb: int) -> Volume:
        """Let a volume grow."""
        return await self._of(lambda: self._world.extend_volume(self._installation, uuid, size_gb))

    async def connect(self, uuid: str, node: str) -> Connection:
        """How a node reaches a volume."""
        return await self._call(lambda: self._world.connect(self._installation, uuid))

    # pages

    async def _pages(self, read: Callable[[], Sequence[Item]]) -> AsyncIterator[Page[Item]]:
        """Pages of what there is when each page is read; one empty page of nothing."""
        start = 0
        while True:
            items = await self._call(read)
            yield Page(tuple(items[start : start + self._page]))
            start += self._page
            if start >= len(items):
                return


def _volume(volume: ModelVolume, used: set[str]) -> Volume:
    mark = Mark.parse(volume.mark)
    state = "error" if volume.broken else "in_use" if mark is not None and mark.uuid in used else "available"
    return Volume(volume.key, mark, volume.name, volume.pool, volume.size_gb, state)  # type: ignore[arg-type]  # one of three names


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[ModelDriver]:
    """A model of its own, in memory or in a file."""
    settings = read_options(options, Options)
    file = None if settings.file is None else Path(settings.file)
    clock = trio.current_time if file is None else time.time
    world = World(clock, file, settings.build_seconds)
    await trio.to_thread.run_sync(lambda: world.add(settings.nodes, settings.pools, settings.prefix))
    yield ModelDriver(Wire(world, settings.faults, clock), context.installation, settings)
