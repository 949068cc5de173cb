"""The inventory of one back end: its nodes and pools as reports, its guests and volumes compared with what is known,
orphans and strangers."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar

import trio

from ..backends.protocol import (
    AnyDriver,
    ComputeDriver,
    SnapshottingDriver,
    StorageDriver,
    attaches,
    computes,
    snapshots,
    stores,
)
from ..backends.values import Can, Guest, Node, Page, Pool
from ..lifecycle_commands import NodeReport, PoolReport, ReportBackend, ReportPools
from ..machine.lives import GuestLife
from .backend import Backend
from .desk import Desk
from .guests import GuestSteps
from .sightings import Sightings
from .snapshots import SnapshotSteps
from .volumes import VolumeSteps
from .work_queue import SNAPSHOT, USUAL, VOLUME

T = TypeVar("T")
STRANGERS: Final = 10_000
ABILITIES: Final = (Can.ADOPT, Can.CONSOLE, Can.MOVE, Can.RESIZE, Can.SNAPSHOT)
"""Capabilities that are reported, by name, so that commands on guests are refused that their back end cannot do."""
PARTS: Final = 500
"""Guests that are looked at between two turns of other tasks."""


class Inventory:
    """What is seen of one back end, again and again."""

    def __init__(
        self,
        desk: Desk,
        backend: Backend,
        steps: GuestSteps,
        volume_steps: VolumeSteps,
        snapshot_steps: SnapshotSteps,
    ) -> None:
        self._desk, self._backend, self._steps, self._volume_steps = desk, backend, steps, volume_steps
        self._snapshot_steps = snapshot_steps
        grace = backend.config.grace
        self._guests, self._volumes, self._snapshots = Sightings(grace), Sightings(grace), Sightings(grace)
        self._reported: tuple[NodeReport, ...] | None = None
        self._charged: frozenset[tuple[str, int, int]] = frozenset()
        """What was charged for guests, by uuid, that the last report includes: use by others is the rest of it."""
        self._held_beside: frozenset[tuple[str, str, bool]] = frozenset()
        """Guests that hold what the last report does not include: it is counted again when that changes, as what a
        moving guest holds is counted otherwise."""
        self._pools_reported: tuple[PoolReport, ...] | None = None
        self.strangers: list[Guest] = []
        """Guests of others at the last inventory, at most STRANGERS of them, by their keys."""
        self.completed = 0
        """Number of complete inventories."""

    async def look(self, driver: AnyDriver) -> None:
        """One inventory. DriverError if any part cannot be read: nothing is then concluded from the rest."""
        if stores(driver):
            await self._look_at_volumes(driver)
        if computes(driver):
            await self._look_at_guests(driver)
            if snapshots(driver):
                await self._look_at_snapshots(driver)
        self.completed += 1

    async def _look_at_guests(self, driver: ComputeDriver) -> None:
        at = self._desk.now()
        guests = await self._all("guests", driver.guests)
        nodes = await self._all("nodes", driver.nodes)
        await self._report(at, nodes, guests, driver)
        await self._compare(at, guests, frozenset(node.name for node in nodes if node.state != "down"))

    async def _all(self, operation: str, listing: Callable[[], AsyncIterator[Page[T]]]) -> list[T]:
        async def read() -> list[T]:
            return [item async for page in listing() for item in page.items]

        return await self._backend.call_now(operation, read)  # beside the steps

    async def _report(self, at: float, nodes: list[Node], guests: list[Guest], driver: ComputeDriver) -> None:
        lives, attaching = self._desk.lives, attaches(driver)
        can = tuple(str(each.name).lower() for each in ABILITIES if each in driver.facts.can)
        ours: dict[str, list[str]] = {}
        running: dict[str, int] = {}
        charged = list[tuple[str, int, int]]()
        down = {node.name for node in nodes if node.state == "down"}
        for life in lives.guests.values() if down else ():  # not listed; the last use that was seen includes them
            consumer = life.consumer_on(life.node)
            if life.node in down and life.backend == self._backend.name and life.built and consumer is not None:
                ours.setdefault(life.node, []).append(consumer)
        for guest in guests:
            running[guest.node] = running.get(guest.node, 0) + 1
            owner = self._life_of(guest)
            consumer = None if owner is None else owner.consumer_on(guest.node, (guest.vcpus, guest.memory_mb))
            if owner is not None and consumer is not None:
                ours.setdefault(guest.node, []).append(consumer)
                charged.append((owner.uuid, *owner.size))
        reports = tuple(
            NodeReport(
                name=node.name,
                vcpus=node.vcpus,
                memory_mb=node.memory_mb,
                disk_gb=node.disk_gb,
                used_vcpus=node.used_vcpus,
                used_memory_mb=node.used_memory_mb,
                used_disk_gb=node.used_disk_gb,
                running=running.get(node.name, 0),
                state=node.state,
                hypervisor=node.hypervisor,
                guests=tuple(sorted(ours.get(node.name, ()))),
            )
            for node in nodes
        )
        backend = lives.backends.get(self._backend.name)
        same = backend is not None and (backend.attaches, tuple(backend.can)) == (attaching, can)
        beside = self._beside({uuid for uuid, _, _ in charged})
        sizes = frozenset(charged)
        unchanged = (reports, sizes, beside) == (self._reported, self._charged, self._held_beside)
        if not unchanged or backend is None or not backend.reported or not same:
            name = self._backend.name
            await self._desk.submit(ReportBackend(name=name, at=at, nodes=reports, attaches=attaching, can=can))
            self._reported, self._charged, self._held_beside = reports, sizes, beside

    def _beside(self, listed: set[str]) -> frozenset[tuple[str, str, bool]]:
        """Guests that hold what no report includes: uuid, node, whether it moves. O(guests)."""
        name = self._backend.name
        return frozenset(
            (life.uuid, life.node, life.move is not None)
            for life in self._desk.lives.guests.values()
            if life.backend == name and life.uuid not in listed
        )

    def _life_of(self, guest: Guest) -> GuestLife | None:
        """The guest that has this claim on this back end; None for orphans and strangers."""
        lives, mark = self._desk.lives, guest.mark
        if mark is None or mark.installation != lives.installation:
            return None
        life = lives.guests.get(mark.uuid)
        if life is None or life.backend != self._backend.name:
            return None
        moving = None if life.move is None else life.move.claim
        return life if mark.claim in (life.claim, moving) else None

    async def _compare(self, at: float, guests: list[Guest], nodes_up: frozenset[str]) -> None:
        """Queue the guests that differ from what is known. Of guests on nodes that are down nothing is known."""
        lives, name = self._desk.lives, self._backend.name
        seen: dict[str, Guest] = {}
        self._guests.begin()
        strangers = list[Guest]()
        for number, guest in enumerate(guests):
            if number % PARTS == PARTS - 1:
                await trio.lowlevel.checkpoint()
            if guest.mark is None or guest.mark.installation != lives.installation:
                strangers.append(guest)
            elif (life := self._life_of(guest)) is not None and not life.gone:
                seen[guest.mark.uuid] = guest
            else:
                uuid, claim = guest.mark.uuid, guest.mark.claim
                if self._guests.sight(uuid, claim):
                    self._steps.orphans.setdefault(uuid, set()).add(claim)
                    if guest.mark.adopted:
                        self._steps.adopted_orphans.add((uuid, claim))
                    self._backend.queue.add(uuid, priority=USUAL)
        self._backend.counts.strangers = len(strangers)
        self.strangers = heapq.nsmallest(STRANGERS, strangers, key=lambda guest: guest.key)
        for number, life in enumerate(list(lives.guests.values())):
            if number % PARTS == PARTS - 1:
                await trio.lowlevel.checkpoint()
            confirmed = life.backend == name and life.changed < at and life.status in ("active", "stopped")
            if confirmed and life.move is None and self._differs(life, seen.get(life.uuid), nodes_up):
                self._steps.suspects.add(life.uuid)
                self._backend.queue.add(life.uuid, priority=USUAL)

    def _differs(self, life: GuestLife, guest: Guest | None, nodes_up: frozenset[str]) -> bool:
        if guest is None:
            return life.node in nodes_up
        if guest.state in ("building", "deleting"):
            return False
        if self._steps.is_elsewhere(life, guest) or self._steps.has_other_size(life, guest):
            return True
        if self._steps.attachments.differ(life, guest):
            return True
        return life.node in nodes_up and (guest.state in ("on", "paused")) != (life.status == "active")

    # snapshots

    async def _look_at_snapshots(self, driver: SnapshottingDriver) -> None:
        at, lives, name = self._desk.now(), self._desk.lives, self._backend.name
        found = await self._all("snapshots", driver.snapshots)
        there = set[str]()
        self._snapshots.begin()
        for snapshot in found:
            mark = snapshot.mark
            if mark is None or mark.installation != lives.installation:
                continue
            guest = lives.guest_of_snapshot(mark.uuid)
            life = None if guest is None else guest.snapshots[mark.uuid]
            if life is not None and life.claim == mark.claim and life.backend == name and not life.nothing_left:
                there.add(mark.uuid)
            elif self._snapshots.sight(mark.uuid, mark.claim):
                self._snapshot_steps.orphans.setdefault(mark.uuid, set()).add(mark.claim)
                self._backend.queue.add(SNAPSHOT + mark.uuid, priority=USUAL)
        for number, guest in enumerate(list(lives.guests.values())):
            if number % PARTS == PARTS - 1:
                await trio.lowlevel.checkpoint()
            for life in guest.snapshots.values():
                made = life.backend == name and life.changed < at and life.status == "available"
                if made and life.uuid not in there:
                    self._snapshot_steps.suspects.add(life.uuid)
                    self._backend.queue.add(SNAPSHOT + life.uuid, priority=USUAL)

    # volumes

    async def _look_at_volumes(self, driver: StorageDriver) -> None:
        at, lives, name = self._desk.now(), self._desk.lives, self._backend.name
        volumes = await self._all("volumes", driver.volumes)
        pools = await self._all("pools", driver.pools)
        seen: dict[str, list[str]] = {}
        broken = set[str]()
        strangers = 0
        self._volumes.begin()
        for volume in volumes:
            mark = volume.mark
            life = None if mark is None else lives.volumes.get(mark.uuid)
            if mark is None or mark.installation != lives.installation:
                strangers += 1
            elif life is not None and life.claim == mark.claim and life.backend == name and not life.nothing_left:
                seen.setdefault(volume.pool, []).append(mark.uuid)
                if volume.state == "error":
                    broken.add(mark.uuid)
            elif self._volumes.sight(mark.uuid, mark.claim):
                self._volume_steps.orphans.setdefault(mark.uuid, set()).add(mark.claim)
                self._backend.queue.add(VOLUME + mark.uuid, priority=USUAL)
        self._backend.counts.strange_volumes = strangers
        await self._report_pools(at, driver.facts.kind, pools, seen)
        there = {uuid for uuids in seen.values() for uuid in uuids}
        for number, life in enumerate(list(lives.volumes.values())):
            if number % PARTS == PARTS - 1:
                await trio.lowlevel.checkpoint()
            confirmed = life.backend == name and life.changed < at and life.status == "available"
            if confirmed and (life.uuid not in there or life.uuid in broken):
                self._volume_steps.suspects.add(life.uuid)
                self._backend.queue.add(VOLUME + life.uuid, priority=USUAL)

    async def _report_pools(self, at: float, kind: str, pools: list[Pool], seen: dict[str, list[str]]) -> None:
        reports = tuple(
            PoolReport(
                name=pool.name,
                total_gb=pool.total_gb,
                free_gb=pool.free_gb,
                provisioned_gb=pool.provisioned_gb,
                thin=pool.thin,
                volumes=tuple(sorted(seen.get(pool.name, ()))),
            )
            for pool in pools
            if pool.state == "up"
        )
        known = self._desk.lives.backends.get(self._backend.name)
        if reports != self._pools_reported or known is None or not known.pools_reported:
            await self._desk.submit(ReportPools(name=self._backend.name, kind=kind, at=at, pools=reports))
            self._pools_reported = reports
