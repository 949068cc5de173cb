"""Crashes of the service at random moments, with back ends that lose requests and answers, are full, and carry requests
out late: at the end every guest is as desired, once, on the node that holds its resources, and nothing else is left."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hostler.core.errors import StorageFailed
from hostler.core.journal.journal import Journal
from hostler.core.lifecycle_commands import (
    AdoptGuest,
    AttachVolume,
    CreateVolume,
    DeleteGuest,
    DeleteGuestSnapshot,
    DetachVolume,
    GuestCommand,
    GuestVolume,
    LifecycleCommand,
    MoveGuest,
    ResizeGuest,
    SnapshotGuest,
    StartGuest,
    StopGuest,
)
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.writer.writer import Writer
from hostler.drivers.model.driver import Faults
from hostler.drivers.protocol import Capacity, Conflict, Mark, Permanent, Quota, Transient, Unknown
from hostler.placement.types.errors import HostlerError

from ..core.orders import asked
from ..core.simulation import Disk, MemorySnapshots, MemoryStore, same_every_time
from ..seeds import seeds
from .cloud import Running, Wrapped, create, ready, running, volume

CLASSES = (Transient, Unknown, Capacity, Quota, Conflict, Permanent)
"""Of failures; NotFound of what is there, and Denied, say something else."""


class Unreliable(Wrapped):
    """A model of which calls that change something fail by any class, ``failing`` of them, half of them after they
    were carried out."""

    failing = 0.0

    async def call(self, operation: str, work: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
        if not self.wire.happens(self.failing):
            return await work(*args, **more)
        if self.wire.happens(0.5):
            await work(*args, **more)
        raise self.wire.chance.choice(CLASSES)(f"{operation} fails")


class World:
    """One run of a seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.chance = seed, random.Random(seed)
        self.disk = Disk(random.Random(seed + 1), folder)
        self.models = [Unreliable("a", nodes=2, build_seconds=2.0), Unreliable("b", nodes=2, pools=1)]
        self.strangers = [model.world.make_strangers_guest(f"{model.name}-node-0") for model in self.models]
        self.adoptable = [model.world.make_strangers_guest(f"{model.name}-node-1") for model in self.models]
        for model in self.models:
            model.wire.chance = random.Random(self.chance.random())
        self.made = self.volumes = 0
        self.machine = ServiceMachine()

    async def run(self) -> None:
        for _ in range(self.chance.randint(3, 6)):
            self._disturb()
            with trio.move_on_after(self.chance.choice([0.5, 3.0, 20.0, 90.0])):
                with suppress(StorageFailed):
                    await self._life()
            self.disk.crashes += 1
            self.disk.broken = False
        await self._calm()

    def _disturb(self) -> None:
        for model in self.models:
            model.failing = self.chance.choice([0.0, 0.0, 0.1, 0.3])
            model.wire.faults = Faults(
                lost_requests=self.chance.choice([0.0, 0.2, 0.5]),
                lost_answers=self.chance.choice([0.0, 0.2]),
                full=self.chance.choice([0.0, 0.2]),
                late=self.chance.choice([0.0, 0.5, 1.0]),
                delay=self.chance.choice([0.0, 0.3, 3.0]),
            )

    async def _life(self) -> None:
        self.machine = ServiceMachine()
        async with running(*self.models, disk=self.disk, seed=self.seed, machine=self.machine) as life:
            while True:
                await trio.sleep(self.chance.uniform(0, self.chance.choice([0.3, 3.0])))
                with suppress(HostlerError):  # refused, or the simulated disk is broken
                    await life.submit(self._command())
                if self.chance.random() < 0.05:
                    self._lose_a_guest()

    def _lose_a_guest(self) -> None:
        """A guest that is confirmed disappears from its back end, with what was on its way to it."""
        lives = self.machine.state.lives.guests.values()
        confirmed = sorted(each.uuid for each in lives if each.status in ("active", "stopped") and each.move is None)
        for uuid in self.chance.sample(confirmed, min(1, len(confirmed))):
            for model in self.models:
                model.wire.settle_all()
                with model.world.content() as there:
                    for each in model.of(uuid):
                        there.guests.pop(each.key, None)

    def _command(self) -> LifecycleCommand:
        known = sorted(self.machine.state.lives.guests)
        if not known or self.chance.random() < 0.4:
            self.made += 1
            memory_mb = self.chance.choice([1_024, 20_000])
            number = self.made if self.chance.random() < 0.8 else self.chance.randint(1, self.made)
            volumes = tuple(self._volume() for _ in range(self.chance.choice([0, 0, 1, 2])))
            return create(number, memory_mb=memory_mb, project="p", build_seconds=60.0, volumes=volumes)
        if self.chance.random() < 0.15:
            at = self.chance.randrange(2)
            name, key = self.models[at].name, self.adoptable[at]
            node = f"{name}-node-{self.chance.choice([0, 1, 1, 1])}"
            return AdoptGuest(backend=name, key=key, node=node, request=asked(500 + at, project="p"), seconds=60.0)
        if self.chance.random() < 0.1:
            return CreateVolume(request=self._volume().request, build_seconds=60.0)
        recent = [life.uuid for life in self.machine.state.lives.guests.values()][-2:]
        uuid = self.chance.choice(recent if self.chance.random() < 0.6 else known)
        known_volumes = sorted(self.machine.state.lives.volumes)
        commands: list[GuestCommand] = [StartGuest(uuid=uuid), StopGuest(uuid=uuid), DeleteGuest(uuid=uuid)]
        commands += [MoveGuest(uuid=uuid, kind=kind, seconds=60.0) for kind in ("live_migrate", "cold_migrate")]
        request = asked(vcpus=self.chance.choice([1, 2]), memory_mb=self.chance.choice([1_024, 20_000]), project="p")
        commands += [ResizeGuest(uuid=uuid, request=request, seconds=60.0)] * 2
        commands += [SnapshotGuest(uuid=uuid, seconds=60.0)]
        snapshots = sorted(self.machine.state.lives.guests[uuid].snapshots)
        commands += [DeleteGuestSnapshot(uuid=uuid, snapshot=each) for each in snapshots] * 3
        for other in self.chance.sample(known_volumes, min(1, len(known_volumes))):
            commands += [AttachVolume(uuid=uuid, volume=other), DetachVolume(uuid=uuid, volume=other)]
        return self.chance.choice(commands)

    def _volume(self) -> GuestVolume:
        self.volumes += 1
        return volume(1_000 + self.volumes, self.chance.choice([10, 3_000]), "p", keep=self.chance.random() < 0.3)

    async def _calm(self) -> None:
        """Without faults: settle, let late requests arrive and orphans be found, then check."""
        for model in self.models:
            model.wire.faults, model.failing = Faults(), 0.0
        self.machine = ServiceMachine()
        async with ready(*self.models, disk=self.disk, seed=self.seed, machine=self.machine) as life:
            await trio.sleep(60)
            with trio.fail_after(3_600):
                await life.reconciler.until_settled()
            await life.inventories(4)
            await trio.sleep(60)
            with trio.fail_after(3_600):
                await life.reconciler.until_settled()
            await life.inventories(2)
            self._check(life)
        await self._check_replay()

    def _check(self, life: Running) -> None:
        state, installation = life.state, life.state.lives.installation
        state.fleet.check()
        found = [
            (mark.uuid, mark.claim, model.name, guest.node, guest.power, guest.vcpus, guest.memory_mb)
            for model in self.models
            for mark, guest in model.guests()
            if mark is not None and mark.installation == installation
        ]
        wanted = []
        for each in state.lives.guests.values():
            assert each.settled
            if each.status in ("active", "stopped"):
                power = "on" if each.status == "active" else "off"
                wanted.append((each.uuid, each.claim, each.backend, each.node, power, each.vcpus, each.memory_mb))
        assert sorted(found) == sorted(wanted), "desired is observed, once"
        for model, stranger in zip(self.models, self.strangers, strict=True):
            assert stranger in [guest.key for mark, guest in model.guests() if mark is None]
        left = [
            {guest.key for mark, guest in model.guests() if mark is None} - {stranger}
            for model, stranger in zip(self.models, self.strangers, strict=True)
        ]
        for key, others in zip(self.adoptable, left, strict=True):
            assert others <= {key}, "a stranger, unless it was adopted"
        holding = [each for each in state.lives.guests.values() if each.node]
        assert state.fleet._kernel.consumer_count == len(holding), "no capacity is leaked"
        for each in holding:
            assert state.fleet.consumer(each.uuid).provider == each.node
        assert state.usage.of("project:p").get("instances", 0) == len(holding)
        self._check_volumes(life)
        self._check_snapshots(life)
        used = sum(state.fleet.inventory(name)["VCPU"][1] for name in state.lives.backends["a"].nodes)
        on_a = sum(each.vcpus for each in holding if each.backend == "a")
        assert used == on_a + 1 + len(left[0]), "the guests, and the strangers"

    def _check_snapshots(self, life: Running) -> None:
        found = []
        for model in self.models:
            with model.world.content(change=False) as there:
                marks = [Mark.parse(each.mark) for each in there.snapshots.values()]
            found += [(mark.uuid, mark.claim, model.name) for mark in marks if mark is not None]
        lives = [each for guest in life.state.lives.guests.values() for each in guest.snapshots.values()]
        made = [each for each in lives if each.status == "available"]
        assert sorted(found) == sorted((each.uuid, each.claim, each.backend) for each in made), "as desired, once"
        assert {each.status for each in lives} <= {"available", "error"}

    def _check_volumes(self, life: Running) -> None:
        lives, disks = life.state.lives, self.models[1]
        found = [(mark.uuid, mark.claim, each.size_gb) for mark, each in disks.volumes() if mark is not None]
        there = [each for each in lives.volumes.values() if each.status == "available"]
        assert sorted(found) == sorted((each.uuid, each.claim, each.size_gb) for each in there), "as desired, once"
        assert set(life.state.volumes.volumes) == set(lives.volumes), "what is charged is there"
        for each in lives.guests.values():
            guests = [guest for model in self.models for guest in model.of(each.uuid)]
            for guest in guests:
                assert sorted(guest.volumes) == sorted(each.volumes), "attached as desired"
            for uuid in each.volumes:
                assert lives.volumes[uuid].guest == each.uuid
        for each_volume in lives.volumes.values():
            assert not each_volume.guest or each_volume.uuid in lives.guests[each_volume.guest].volumes
        pools = life.state.storage.pools
        waiting = sum(each.size_gb for each in lives.volumes.values() if each.status != "available")
        free = pools.columns["free"][pools.row_of["b@model#b-pool-0"]]
        # A volume that the back end refused, as others filled the pool, is in error and charged: then nothing is free.
        left = max(0, 10_000 - sum(each.size_gb for each in there) - waiting)
        assert free == left, "no capacity is leaked"

    async def _check_replay(self) -> None:
        """A recovery, from the newest snapshot on, makes the same lives."""
        again = ServiceMachine()
        journal = Journal(MemoryStore(self.disk), MemorySnapshots(self.disk))
        writer: Writer[Order, Any] = Writer(again, journal)
        await writer.recover()
        assert again.state.lives == self.machine.state.lives


def simulate(seed: int, folder: Path) -> None:
    folder.mkdir()
    with same_every_time(seed):
        trio.run(World(seed, folder).run, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("seed", seeds(8, "reconciler crashes"))
def test_after_crashes_and_faults_desired_is_observed_once(seed: int, tmp_path: Path) -> None:
    simulate(seed, tmp_path / "disk")


@pytest.mark.soak
@pytest.mark.parametrize("seed", seeds(2_000, "reconciler crashes, many"))
def test_after_crashes_and_faults_desired_is_observed_once_in_many_runs(seed: int, tmp_path: Path) -> None:
    simulate(seed, tmp_path / "disk")


def test_a_run_is_repeatable(tmp_path: Path) -> None:
    def journal(folder: Path) -> list[bytes]:
        folder.mkdir()
        with same_every_time(7):
            world = World(7, folder)
            trio.run(world.run, clock=MockClock(autojump_threshold=0))
        return [block.body for segment in world.disk.segments.values() for block in segment]

    assert journal(tmp_path / "one") == journal(tmp_path / "two")
