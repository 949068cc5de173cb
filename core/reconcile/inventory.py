"""The inventory of one back end: its nodes as reports, its guests compared with what is known, orphans and
strangers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar

import trio

from ..backends.protocol import ComputeDriver
from ..backends.values import Guest, Node, Page
from ..lifecycle_commands import NodeReport, ReportBackend
from ..machine.lives import GuestLife
from .backend import Backend
from .guests import Desk, GuestSteps
from .work_queue import USUAL

T = TypeVar("T")
PARTS: Final = 500
"""Guests that are looked at between two turns of other tasks."""


class Inventory:
    """What is seen of one back end, again and again."""

    def __init__(self, desk: Desk, backend: Backend, steps: GuestSteps) -> None:
        self._desk, self._backend, self._steps = desk, backend, steps
        self._sighted: dict[tuple[str, int], float] = {}
        """Guests of this installation without a claim, and when they were first seen, on trio's clock."""
        self._reported: tuple[NodeReport, ...] | None = None
        self.completed = 0
        """Number of complete inventories."""

    async def look(self, driver: ComputeDriver) -> None:
        """One inventory. DriverError if any part cannot be read: nothing is then concluded from the rest."""
        at = self._desk.now()
        guests = await self._all("guests", driver.guests)
        nodes = await self._all("nodes", driver.nodes)
        await self._report(at, nodes, guests)
        await self._compare(at, guests)
        self.completed += 1

    async def _all(self, operation: str, listing: Callable[[], AsyncIterator[Page[T]]]) -> list[T]:
        async def read() -> list[T]:
            return [item async for page in listing() for item in page.items]

        return await self._backend.call(operation, read)

    async def _report(self, at: float, nodes: list[Node], guests: list[Guest]) -> None:
        lives = self._desk.lives
        ours: dict[str, list[str]] = {}
        running: dict[str, int] = {}
        for guest in guests:
            running[guest.node] = running.get(guest.node, 0) + 1
            life = self._life_of(guest)
            if life is not None and life.node == guest.node:
                ours.setdefault(guest.node, []).append(life.uuid)
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
        known = lives.backends.get(self._backend.name)
        if reports != self._reported or known is None or not known.reported:
            await self._desk.submit(ReportBackend(name=self._backend.name, at=at, nodes=reports))
            self._reported = reports

    def _life_of(self, guest: Guest) -> GuestLife | None:
        """The guest that has this claim on this back end; None for orphans and strangers."""
        lives, mark = self._desk.lives, guest.mark
        if mark is None or mark.installation != lives.installation:
            return None
        life = lives.guests.get(mark.uuid)
        if life is None or life.claim != mark.claim or life.backend != self._backend.name:
            return None
        return life

    async def _compare(self, at: float, guests: list[Guest]) -> None:
        """Queue the guests that differ from what is known."""
        lives, name = self._desk.lives, self._backend.name
        seen: dict[str, Guest] = {}
        sighted: dict[tuple[str, int], float] = {}
        strangers = 0
        for number, guest in enumerate(guests):
            if number % PARTS == PARTS - 1:
                await trio.lowlevel.checkpoint()
            if guest.mark is None or guest.mark.installation != lives.installation:
                strangers += 1
            elif self._life_of(guest) is not None:
                seen[guest.mark.uuid] = guest
            else:
                self._sight(sighted, guest.mark.uuid, guest.mark.claim)
        self._sighted = sighted
        self._backend.counts.strangers = strangers
        for number, life in enumerate(list(lives.guests.values())):
            if number % PARTS == PARTS - 1:
                await trio.lowlevel.checkpoint()
            confirmed = life.backend == name and life.changed < at and life.status in ("active", "stopped")
            if confirmed and self._differs(life, seen.get(life.uuid)):
                self._steps.suspects.add(life.uuid)
                self._backend.queue.add(life.uuid, priority=USUAL)

    @staticmethod
    def _differs(life: GuestLife, guest: Guest | None) -> bool:
        if guest is None:
            return True
        if guest.state in ("building", "deleting"):
            return False
        return (guest.state in ("on", "paused")) != (life.status == "active")

    def _sight(self, sighted: dict[tuple[str, int], float], uuid: str, claim: int) -> None:
        """Note a guest without a claim; at its second sighting, ``grace`` later, have it removed."""
        now = trio.current_time()
        first = sighted[uuid, claim] = self._sighted.get((uuid, claim), now)
        if (uuid, claim) in self._sighted and now - first >= self._backend.config.grace:
            self._steps.orphans.setdefault(uuid, set()).add(claim)
            self._backend.queue.add(uuid, priority=USUAL)
