"""The whole service under a simulated clock: crashes, broken disks, lost connections and jumping clocks, as a seed has
it. What was acknowledged is there, once; what was refused is not; live and replayed state are the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from hostler.core.engine_commands import AddHosts
from hostler.core.errors import DeadlineExceeded, StorageFailed
from hostler.core.journal.journal import Journal
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.rpc.caller import ConnectionLost
from hostler.core.rpc.server import RpcServer
from hostler.core.service import Service
from hostler.core.tasks import background
from hostler.core.writer.writer import Writer, open_writer
from hostler.placement.types.errors import UnknownName

from ..seeds import seeds
from .orders import LOCAL, NOW, hosts, uuid_of
from .simulation import (
    Disk,
    MemorySnapshots,
    MemoryStore,
    Network,
    Pipe,
    SimulatedClient,
    same_every_time,
    simulated_client,
)

SPEC = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1024}}
UNSURE = (StorageFailed, DeadlineExceeded, ConnectionLost)


class Guests:
    """What one client knows of its guests."""

    def __init__(self, number: int) -> None:
        self.number, self.made = number, 0
        self.there: dict[str, str] = {}
        self.unsure: set[str] = set()

    async def step(self, client: SimulatedClient, chance: random.Random) -> None:
        sure = sorted(set(self.there) - self.unsure)
        if sure and chance.random() < 0.3:
            uuid = chance.choice(sure)
            self.unsure.add(uuid)
            await client.release([uuid])
            del self.there[uuid]
        else:
            self.made += 1
            uuid = uuid_of(self.number * 10_000 + self.made)
            self.unsure.add(uuid)
            request = {"spec": SPEC, "instance_uuids": [uuid], "project_id": f"p{self.number}"}
            self.there[uuid] = (await client.call("place", {"request": request})).host
        self.unsure.discard(uuid)


class World:
    """One simulated run."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.disk = Disk(random.Random(seed + 1), folder)
        self.guests = [Guests(number) for number in range(3)]
        self.skew = 0.0
        self.machine = ServiceMachine()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            network = Network(random.Random(self.chance.random()), nursery)
            async with trio.open_nursery() as clients:
                nursery.start_soon(self._lives, network)
                for guests in self.guests:
                    clients.start_soon(self._client, network, guests, random.Random(self.chance.random()))
            self.disk.broken = False
            async with simulated_client(network) as client:
                await self._check(client)
            nursery.cancel_scope.cancel()
        await self._check_replay()

    async def _client(self, network: Network, guests: Guests, chance: random.Random) -> None:
        async with simulated_client(network) as client:
            for _ in range(25):
                try:
                    await guests.step(client, chance)
                except UNSURE:
                    await trio.sleep(0.2)

    async def _lives(self, network: Network) -> None:
        """The service, again and again: each life ends in a crash."""
        while True:
            with trio.move_on_after(self.chance.choice([0.3, 1.0, 3.0, 20.0])):
                try:
                    await self._life(network)
                except StorageFailed:
                    self.disk.broken = False  # it could not even start
            network.serve = None
            network.cut()
            self.disk.crashes += 1
            await trio.sleep(self.chance.choice([0.0, 0.1, 1.0]))

    async def _life(self, network: Network) -> None:
        self.machine = ServiceMachine()
        journal = Journal(MemoryStore(self.disk), MemorySnapshots(self.disk))
        limits = {"snapshot_every": self.chance.choice([5, 20, 1_000])}
        async with open_writer(self.machine, journal, None, **limits) as writer:
            if not len(self.machine.state.fleet):
                await writer.submit(Order(NOW, LOCAL, AddHosts(hosts=hosts(4))))
            service = Service(self.machine, writer, clock=lambda: NOW + trio.current_time() + self.skew)
            server = RpcServer(service)
            async with background() as nursery:
                network.serve = lambda stream: nursery.start_soon(self._serve, server, stream)
                try:
                    await self._trouble()
                finally:
                    network.serve = None

    async def _serve(self, server: RpcServer, stream: Pipe) -> None:
        await server.serve_stream(stream, local=True)

    async def _trouble(self) -> None:
        """A disk that breaks and is mended, and a clock that jumps."""
        while True:
            await trio.sleep(self.chance.uniform(0.05, 2))
            self.disk.broken = self.chance.random() < 0.3
            self.skew = self.chance.choice([0.0, -100.0, 3_600.0])

    async def _check(self, client: SimulatedClient) -> None:
        """What the clients were told is so, as seen while no straggler of theirs is carried out."""
        for _ in range(50):
            before = (await self._insist(client, "status", None)).sequence
            seen = [await self._look(client, guests) for guests in self.guests]
            used = (await self._insist(client, "capacity", None))["VCPU"].used
            if (await self._insist(client, "status", None)).sequence == before:
                break
        else:
            raise AssertionError("it never comes to rest")
        assert all(instances == len(found) for found, instances in seen)
        assert used == sum(instances for _, instances in seen)

    async def _look(self, client: SimulatedClient, guests: Guests) -> tuple[dict[str, str], int]:
        """Where a client's guests are, and how many its project is said to have."""
        found: dict[str, str] = {}
        for uuid in sorted({*guests.there, *guests.unsure}):
            try:
                found[uuid] = (await self._insist(client, "instance", {"uuid": uuid})).node
            except UnknownName:
                assert uuid in guests.unsure, f"{uuid} is lost"
            else:
                assert uuid in guests.unsure or guests.there[uuid] == found[uuid]
        usage = await self._insist(client, "usage", {"scope": f"project:p{guests.number}"})
        return found, usage.used.get("instances", 0)

    async def _insist(self, client: SimulatedClient, method: str, params: Any) -> Any:
        for _ in range(50):
            try:
                return await client.call(method, params)
            except ConnectionLost:
                await trio.sleep(0.5)
        raise AssertionError(f"{method} is never answered")

    async def _check_replay(self) -> None:
        """The disk makes the state that the last life had, or one that lies a batch in flight further."""
        again, disk = ServiceMachine(), self.disk
        disk.broken = False
        journal = Journal(MemoryStore(disk), MemorySnapshots(disk))
        writer: Writer[Order, Any] = Writer(again, journal)
        found = await writer.recover()
        assert found.damage == []
        again.state.fleet.check()
        genesis = ServiceMachine()
        if 1 in disk.segments:
            for segment in sorted(disk.segments):
                async for records in journal.records(segment):
                    genesis.apply_batch([genesis.decode(record.body) for record in records])
            assert genesis.state.engine.sequence == again.state.engine.sequence
            assert msgspec.to_builtins(genesis.state.usage) == msgspec.to_builtins(again.state.usage)


def simulate(seed: int, folder: Path) -> Disk:
    """One world from its beginning to its end; what its disk then holds."""
    folder.mkdir()
    try:
        with same_every_time(seed):
            world = World(seed, folder)
            trio.run(world.run, clock=MockClock(autojump_threshold=0))
    except BaseException:
        print(f"seed {seed}")
        raise
    return world.disk


@pytest.mark.parametrize("seed", seeds(2, "same world"))
def test_a_seed_makes_the_same_world_each_time(seed: int, tmp_path: Path) -> None:
    first, second = (simulate(seed, tmp_path / name) for name in ("one", "two"))
    assert first.segments == second.segments
    assert first.segments


@pytest.mark.parametrize("seed", seeds(12, "simulation"))
def test_a_service_that_crashes_and_stumbles_keeps_its_word(seed: int, tmp_path: Path) -> None:
    simulate(seed, tmp_path / "disk")


@pytest.mark.soak
@pytest.mark.parametrize("block", range(20))
def test_thousands_of_lives(block: int, tmp_path: Path) -> None:
    for seed in seeds(100, f"soak {block}"):
        simulate(seed, tmp_path / str(seed))
