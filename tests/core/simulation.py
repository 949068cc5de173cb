"""A disk and a network that exist in memory only, on trio's clock, with faults that a seed decides."""

from __future__ import annotations

import random
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from unittest import mock

import trio
from trio._core import _run
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

from hostler.core.errors import StorageFailed
from hostler.core.journal.snapshots import Write, check_folder, write_folder
from hostler.core.journal.store import Block
from hostler.core.rpc.caller import ConnectionLost
from hostler.core.rpc.client import Client
from hostler.core.tasks import background


@contextmanager
def same_every_time(seed: int) -> Iterator[None]:
    """All chance within comes from the seed, the order in which trio's tasks have their turn included."""
    chance = random.Random(seed)
    _run._r.seed(seed)
    with (
        mock.patch.object(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        mock.patch.object(secrets, "randbits", chance.getrandbits),
        mock.patch.object(secrets, "token_hex", lambda count: chance.randbytes(count).hex()),
    ):
        yield


Pipe = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


class Disk:
    """What outlives a crash: segments of blocks, and a folder of snapshots. ``broken`` makes everything fail."""

    def __init__(self, chance: random.Random, folder: Path) -> None:
        self.chance, self.folder = chance, folder
        self.segments: dict[int, list[Block]] = {}
        self.broken = False
        self.crashes = 0

    async def work(self, what: str) -> None:
        """Take the time that a disk takes, and fail if it is broken."""
        await trio.sleep(self.chance.choice([0.0, 0.0005, 0.002, 0.03]))
        if self.broken:
            raise StorageFailed(f"cannot {what}: the simulated disk is broken", field="data")


class MemoryStore:
    """A store on a disk, of one process: it forgets when that dies."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._current: int | None = None

    async def segments(self) -> list[int]:
        return sorted(self._disk.segments)

    async def read(self, first: int, after: int, limit: int) -> list[Block]:
        await trio.lowlevel.checkpoint()
        return [block for block in self._disk.segments[first] if block.first > after][:limit]

    async def begin(self, first: int) -> None:
        await self._disk.work("create")
        self._disk.segments[first] = []
        self._current = first

    async def resume(self, first: int, last: int, *, room: int = 0) -> None:
        await self._disk.work("write")
        self._disk.segments[first] = [block for block in self._disk.segments[first] if block.first <= last]
        self._current = first

    async def append(self, block: Block) -> None:
        """What fails, or is cut off by a crash, may be on the disk all the same, but whole or not at all."""
        segment, disk = self._disk.segments[self._current or 0], self._disk
        early = disk.chance.random() < 0.5
        if early:
            segment.append(block)
        crashes = disk.crashes
        try:
            await disk.work("write")
        except BaseException:
            self._current = None
            if early and disk.chance.random() < 0.5:
                segment.pop()
            raise
        assert disk.crashes == crashes
        if not early:
            segment.append(block)

    async def remove(self, first: int) -> None:
        del self._disk.segments[first]

    async def set_aside(self, first: int) -> str:
        raise AssertionError("the simulated disk damages nothing")

    async def close(self) -> None:
        self._current = None


class MemorySnapshots:
    """Snapshots in real files, since machines write files, but in the simulation's time."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def known(self) -> list[int]:
        return sorted(int(path.name) for path in self._disk.folder.iterdir() if path.name.isdigit())

    async def take(
        self, sequence: int, write: Write, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        new = self._disk.folder / f"{sequence}.tmp"
        shutil.rmtree(new, ignore_errors=True)
        write_folder(new, sequence, write)
        task_status.started()
        await self._disk.work("snapshot")
        new.rename(self._disk.folder / str(sequence))

    def find(self, sequence: int) -> Path:
        path = self._disk.folder / str(sequence)
        check_folder(path, sequence)
        return path

    def remove(self, sequence: int) -> None:
        shutil.rmtree(self._disk.folder / str(sequence))

    def set_aside(self, sequence: int) -> str:
        raise AssertionError("the simulated disk damages nothing")


class Network:
    """Connections that carry bytes late, in pieces, and break now and then. ``serve`` answers at present."""

    def __init__(self, chance: random.Random, nursery: trio.Nursery) -> None:
        self.chance, self._nursery = chance, nursery
        self.serve: Callable[[Pipe], None] | None = None
        self._open: list[trio.CancelScope] = []

    def connect(self) -> Pipe:
        """A new connection. ConnectionLost while no service answers."""
        if self.serve is None or self.chance.random() < 0.1:
            raise ConnectionLost("no service answers in the simulated network")
        mine, near = memory_stream_pair()
        far, theirs = memory_stream_pair()
        self._nursery.start_soon(self._carry, near, far)
        self.serve(theirs)
        return mine

    def cut(self) -> None:
        """Break every connection."""
        for scope in self._open:
            scope.cancel()

    async def _carry(self, near: Pipe, far: Pipe) -> None:
        with trio.CancelScope(deadline=trio.current_time() + self.chance.uniform(0.5, 30)) as scope:
            self._open.append(scope)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._forward, near, far, scope)
                nursery.start_soon(self._forward, far, near, scope)
        self._open.remove(scope)
        for end in (near, far):
            await trio.aclose_forcefully(end)

    async def _forward(self, source: Pipe, to: Pipe, scope: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(self.chance.choice([7, 300, 65_536])):
                await trio.sleep(self.chance.choice([0, 0, 0.001, 0.05]))
                await to.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


class SimulatedClient(Client):
    """The real client on the simulated network."""

    def __init__(self, network: Network, nursery: trio.Nursery) -> None:
        super().__init__("unix:simulated", nursery, within=5.0)
        self._network = network

    async def _open(self, deadline: float) -> trio.abc.Stream:
        await trio.sleep(0.001)
        return self._network.connect()


@asynccontextmanager
async def simulated_client(network: Network) -> AsyncIterator[SimulatedClient]:
    async with background() as nursery:
        try:
            yield SimulatedClient(network, nursery)
        finally:
            nursery.cancel_scope.cancel()
