"""The reconciler of one service: the work of all its back ends, apart from each other, driven by what commands change
and by inventories."""

from __future__ import annotations

import itertools
import logging
import random
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import trio

from ...placement.storage.decision import VolumeDecision
from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError, UnknownName
from ..backends.errors import Denied, DriverError, NotFound, Permanent, Transient
from ..backends.protocol import OpenDriver, has_consoles, stores
from ..backends.values import Connection, ConsoleAddress
from ..lifecycle_commands import (
    AdoptGuest,
    CreateGuest,
    CreateVolume,
    DeleteGuestSnapshot,
    Lifecycle,
    LifecycleCommand,
    OnGuest,
    OnSnapshotClaim,
    OnVolumeClaim,
    SetBackend,
    SetInstallation,
    SnapshotGuest,
)
from ..machine.lives import GuestLife, Lives, SnapshotChange, VolumeChange, VolumeLife
from ..machine.orders import AnyCommand, Order
from ..service import Service
from ..storage_commands import DeleteVolumes
from ..tasks import background
from ..tenancy.tenants import RECONCILER
from .backend import REMOVES, STEPS_A_CALL, Backend, BackendConfig, HeldBack
from .guests import GuestSteps
from .inventory import Inventory
from .pace import Pace, objects_of
from .snapshots import SnapshotSteps
from .status import BackendStatus, ReconcileStatus, StrangerLine
from .volumes import VolumeSteps
from .work_queue import SNAPSHOT, URGENT, USUAL, VOLUME

REFUSED_WAIT: Final = 1.0
"""Seconds until the next step after the service did not take a command."""
COMMAND_COST: Final = 150
"""Microseconds of the loop that a change of a life takes, about."""

log = logging.getLogger("hostler.reconcile")


class _Part:
    """One back end with its work."""

    def __init__(self, owner: Reconciler, backend: Backend, user_data: Path | None) -> None:
        self.owner, self.backend = owner, backend
        backend.enabled = self.enabled
        self.steps = GuestSteps(owner, backend, user_data)
        self.volume_steps = VolumeSteps(owner, backend, self.steps.deny)
        self.snapshot_steps = SnapshotSteps(owner, backend, self.steps.deny)
        self.inventory = Inventory(owner, backend, self.steps, self.volume_steps, self.snapshot_steps)
        self._look_now = trio.Event()

    def enabled(self) -> bool:
        known = self.owner.lives.backends.get(self.backend.name)
        return known is None or known.enabled

    def wake(self) -> None:
        """Look again whether calls may be made, at what is not as desired, and at the inventory."""
        self._look_at_all()
        self.backend.queue.wake()
        self._look_now.set()

    def _look_at_all(self) -> None:
        """Have all guests and volumes of the back end looked at that are not as desired. O(guests + volumes)."""
        lives, name = self.owner.lives, self.backend.name
        for life in lives.guests.values():
            if life.backend == name:
                self.owner.look_at(life.uuid)
            for snapshot in life.snapshots.values():
                if snapshot.backend == name:
                    self.owner.look_at_snapshot(snapshot.uuid)
        for volume in lives.volumes.values():
            if volume.backend == name:
                self.owner.look_at_volume(volume.uuid)

    async def work(self) -> None:
        """Work while the driver is open. What was under way when it was open before is begun again."""
        self._look_at_all()
        async with background() as nursery:
            nursery.start_soon(self._look)
            while True:
                assert self.backend.driver is not None
                most = self.backend.driver.facts.concurrency * STEPS_A_CALL
                pace = self.owner.pace
                if pace is not None:
                    await pace.turn()
                key, priority = await self.backend.queue.take(most, self.backend.held_back)
                REMOVES.set(priority == URGENT)  # of the task that is started
                nursery.start_soon(self._step if pace is None else self._metered_step, key)

    async def _metered_step(self, key: str) -> None:
        assert self.owner.pace is not None
        await self.owner.pace.metered(self._step(key))

    async def _step(self, key: str) -> None:
        queue, backoff = self.backend.queue, self.backend.backoff
        try:
            if key.startswith(VOLUME):
                again = await self.volume_steps.step(key.removeprefix(VOLUME))
            elif key.startswith(SNAPSHOT):
                again = await self.snapshot_steps.step(key.removeprefix(SNAPSHOT))
            else:
                again = await self.steps.step(key)
            if again is None:
                backoff.forget(key)
            elif again == 0.0:
                backoff.forget(key)
                self.owner.look_at(key)
            else:
                self.owner.look_at(key, again)
        except HeldBack:
            self.owner.look_at(key)
        except HostlerError as error:
            # A command was refused: the guest has changed meanwhile, or the service takes none now.
            log.debug("%s: %s", key, error)
            self.owner.look_at(key, backoff.next(key))
        finally:
            queue.done(key)

    async def _look(self) -> None:
        """Take inventories, one at the start and one every ``poll`` seconds."""
        driver, chance = self.backend.driver, self.owner.chance
        assert driver is not None
        while True:
            self._look_now = trio.Event()
            if self.enabled() and self.backend.breaker.wait() <= 0:
                try:
                    await self.inventory.look(driver)
                except DriverError as error:
                    self.backend.problem = error.text
                    if error.failure == "denied":
                        await self.steps.deny(str(error))
                except HostlerError as error:
                    self.backend.problem = str(error)
            with trio.move_on_after(driver.facts.poll * chance.uniform(0.9, 1.1)):
                await self._look_now.wait()

    def status(self) -> BackendStatus:
        backend, known = self.backend, self.owner.lives.backends.get(self.backend.name)
        return BackendStatus(
            name=backend.name,
            driver=backend.config.driver,
            enabled=self.enabled(),
            open=backend.driver is not None,
            breaker=backend.breaker.state,
            queued=len(backend.queue),
            running=len(backend.queue.running),
            nodes=0 if known is None else len(known.nodes),
            strangers=backend.counts.strangers,
            inventories=self.inventory.completed,
            problem=backend.problem,
            reason="" if known is None else known.reason,
        )


class Reconciler:
    """Brings guests to what is desired. ``run`` as a task beside a running writer."""

    def __init__(
        self,
        service: Service,
        backends: Mapping[str, BackendConfig],
        *,
        user_data: Path | None = None,
        chance: random.Random | None = None,
        drivers: Mapping[str, OpenDriver] | None = None,
        pace: Pace | None = None,
    ) -> None:
        """``user_data``: the folder of cloud-init user data. ``drivers``: functions that open drivers, by the name of
        the back end, instead of installed ones. ``pace``: what it leaves of the event loop to others; by default it
        takes what it gets."""
        self._service, self.pace = service, pace
        self.chance = chance if chance is not None else random.Random()
        self._changed = trio.Event()
        self._counts: tuple[Lives, dict[str, int], int] | None = None
        """Guests by status, and how many are unsettled, of these facts; kept while it observes commands."""
        opened = drivers if drivers is not None else {}
        self._parts = {
            name: _Part(self, Backend(name, config, self.chance, opened.get(name)), user_data)
            for name, config in sorted(backends.items())
        }

    @property
    def backends(self) -> dict[str, Backend]:
        """The back ends by name."""
        return {name: part.backend for name, part in self._parts.items()}

    # the desk

    @property
    def lives(self) -> Lives:
        """The facts as they are now."""
        return self._service.state.lives

    def now(self) -> float:
        """Seconds since the epoch, as commands carry them."""
        return self._service.now()

    async def submit(self, command: LifecycleCommand) -> Any:
        """Have a command carried out. HostlerError if it is refused."""
        if self.pace is not None:
            self.pace.spend(COMMAND_COST / 1e6)
        return await self._service.writer.submit(Order(self.now(), RECONCILER, command))

    async def connection(self, volume: VolumeLife, node: str) -> Connection:
        """How a node reaches a volume. Transient while its back end is not to be called."""
        part = self._parts.get(volume.backend)
        if part is None or part.backend.driver is None or not part.enabled() or part.backend.breaker.wait() > 0:
            raise Transient(f"back end {volume.backend}, which has volume {volume.uuid}, is not in use now")
        driver = part.backend.driver
        if not stores(driver):
            raise Transient(f"back end {volume.backend}, which has volume {volume.uuid}, has no pools now")
        try:
            return await part.backend.call("connect", lambda: driver.connect(volume.uuid, node))
        except HeldBack:
            raise Transient(f"back end {volume.backend}, which has volume {volume.uuid}, is not in use now") from None
        except Denied as error:
            await part.steps.deny(str(error))
            raise Transient(f"back end {volume.backend} refuses the credentials") from None

    # the work

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reconcile until cancelled."""
        writer = self._service.writer
        writer.observers.append(self._told)
        try:
            if not self.lives.installation:
                await self.submit(SetInstallation(id=secrets.token_hex(8)))
            async with background() as nursery:
                for part in self._parts.values():
                    nursery.start_soon(part.backend.keep_open, self.lives.installation, part.work, part.steps.deny)
                task_status.started()
        finally:
            writer.observers.remove(self._told)
            self._counts = None

    def _told(self, sequence: int, order: Order, outcome: Any) -> None:
        """A command was carried out: look at the guests that it concerns. O(1)."""
        command: AnyCommand = order.command
        if isinstance(command, Lifecycle | DeleteVolumes):
            self._counts = None
            self._changed.set()
            self._changed = trio.Event()
        elif self.pace is not None:
            self.pace.told(objects_of(command))
        if isinstance(command, CreateGuest | AdoptGuest):
            if isinstance(outcome, Decision):
                for selection in outcome.selections:
                    self._look_at_all_of(selection.instance_uuid)
        elif isinstance(command, OnSnapshotClaim | DeleteGuestSnapshot):
            self.look_at_snapshot(command.snapshot)
        elif isinstance(command, SnapshotGuest):
            if isinstance(outcome, SnapshotChange):
                self.look_at_snapshot(outcome.snapshot)
        elif isinstance(command, OnGuest):
            self._look_at_all_of(command.uuid)
        elif isinstance(command, OnVolumeClaim):
            self.look_at_volume(command.volume)
            if isinstance(outcome, VolumeChange) and outcome.guest:
                self._look_at_all_of(outcome.guest)
        elif isinstance(command, CreateVolume):
            if isinstance(outcome, VolumeDecision) and outcome.selection is not None:
                self.look_at_volume(outcome.selection.volume_id)
        elif isinstance(command, DeleteVolumes):
            for uuid in command.uuids if self.lives.volumes else ():
                self.look_at_volume(uuid)
        elif isinstance(command, SetBackend):
            part = self._parts.get(command.name)
            if part is not None:
                part.wake()

    def look_at(self, key: str, after: float = 0.0) -> None:
        """Have a guest or volume looked at by its key of the work queue, if something is to be done for it."""
        if key.startswith(VOLUME):
            self.look_at_volume(key.removeprefix(VOLUME), after)
            return
        if key.startswith(SNAPSHOT):
            self.look_at_snapshot(key.removeprefix(SNAPSHOT), after)
            return
        life = self.lives.guests.get(key)
        if life is not None and not life.settled:
            self._queue(life, after)

    def look_at_volume(self, uuid: str, after: float = 0.0) -> None:
        """Have a volume looked at, if something is to be done for it."""
        life = self.lives.volumes.get(uuid)
        part = None if life is None or life.settled else self._parts.get(life.backend)
        if life is not None and part is not None:
            urgent = life.desired == "deleted" or life.status == "clearing"
            part.backend.queue.add(VOLUME + uuid, after, URGENT if urgent else USUAL)

    def look_at_snapshot(self, uuid: str, after: float = 0.0) -> None:
        """Have a snapshot of a guest looked at, if something is to be done for it."""
        guest = self.lives.guest_of_snapshot(uuid)
        life = None if guest is None else guest.snapshots[uuid]
        part = None if life is None or life.settled else self._parts.get(life.backend)
        if life is not None and part is not None:
            urgent = life.desired == "deleted" or life.status == "clearing"
            part.backend.queue.add(SNAPSHOT + uuid, after, URGENT if urgent else USUAL)

    def _look_at_all_of(self, uuid: str) -> None:
        """Have a guest and its volumes looked at."""
        self.look_at(uuid)
        life = self.lives.guests.get(uuid)
        for volume in life.volumes if life is not None else ():
            self.look_at_volume(volume)

    def _queue(self, life: GuestLife, after: float = 0.0) -> None:
        part = self._parts.get(life.backend)
        if part is not None:
            urgent = life.desired == "deleted" or life.status == "clearing"
            part.backend.queue.add(life.uuid, after, URGENT if urgent else USUAL)

    # questions

    def names(self) -> list[str]:
        """The back ends that are configured."""
        return list(self._parts)

    def _counted(self) -> tuple[dict[str, int], int]:
        """Guests by status as shown, and how many are not as desired. O(1) where no guest has changed since the last
        time, else O(guests)."""
        lives, known = self.lives, self._counts
        if known is not None and known[0] is lives:
            return known[1:]
        guests: dict[str, int] = {}
        unsettled = 0
        for life in lives.guests.values():
            shown = life.shown
            guests[shown] = guests.get(shown, 0) + 1
            unsettled += not life.settled
        guests = dict(sorted(guests.items()))
        told = self._told in self._service.writer.observers
        self._counts = (lives, guests, unsettled) if told else None
        return guests, unsettled

    def status(self) -> ReconcileStatus:
        """How it goes. O(guests) after a change."""
        guests, unsettled = self._counted()
        return ReconcileStatus(
            installation=self.lives.installation,
            guests=guests,
            unsettled=unsettled,
            backends=[part.status() for part in self._parts.values()],
        )

    def strangers(self, name: str, after: str, limit: int) -> list[StrangerLine]:
        """Guests of others on a back end at its last inventory, by their keys, behind ``after``. UnknownName if there
        is no such back end. O(strangers)."""
        part = self._parts.get(name)
        if part is None:
            raise UnknownName.among("back end", name, self._parts, field="backend")
        found = (guest for guest in part.inventory.strangers if guest.key > after)
        return [
            StrangerLine(
                backend=name,
                key=guest.key,
                name=guest.name,
                node=guest.node,
                state=guest.state,
                vcpus=guest.vcpus,
                memory_mb=guest.memory_mb,
                installation="" if guest.mark is None else guest.mark.installation,
            )
            for guest in itertools.islice(found, limit)
        ]

    async def check(self, name: str) -> None:
        """Have a back end's driver check that it answers. UnknownName if there is no such back end; DriverError."""
        part = self._parts.get(name)
        if part is None:
            raise UnknownName.among("back end", name, self._parts, field="name")
        backend = part.backend
        if backend.driver is None:
            raise DriverError(f"back end {name} is not open: {backend.problem or 'it is being opened'}")
        await backend.call_now("check", backend.driver.check)

    async def console(self, uuid: str) -> ConsoleAddress:
        """How the console of a guest is reached. UnknownName if there is no such guest; DriverError, a Permanent one
        where its back end tells no consoles."""
        life = self.lives.guest(uuid)
        part = self._parts.get(life.backend)
        if part is None or not life.node:
            raise NotFound(f"guest {uuid} is on no back end now")
        backend, driver = part.backend, part.backend.driver
        if driver is None or not part.enabled() or backend.breaker.wait() > 0:
            raise Transient(f"back end {backend.name}, which has the guest, is not in use now")
        if not has_consoles(driver):
            raise Permanent(f"back end {backend.name}, which has the guest, tells no consoles", field="uuid")
        try:
            return await backend.call("console", lambda: driver.console(uuid))
        except HeldBack:
            raise Transient(f"back end {backend.name}, which has the guest, is not in use now") from None

    async def until_settled(self) -> None:
        """Return once every guest and volume is as desired, or in error. For tests and programs that wait."""
        lives = self.lives
        while not (
            all(life.settled for life in lives.guests.values()) and all(life.settled for life in lives.volumes.values())
        ):
            await self._changed.wait()
