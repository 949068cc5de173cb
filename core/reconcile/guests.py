"""One step for one guest: what differs between desired and observed, and the call that brings them closer. After any
crash the same step is taken again; for a claim that is not confirmed the back end is asked first."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from ...placement.types.errors import HostlerError
from ..backends.errors import (
    Capacity,
    Conflict,
    Denied,
    DriverError,
    NotFound,
    Permanent,
    Quota,
    Transient,
    Unknown,
)
from ..backends.protocol import ComputeDriver, attaches, computes, moves, resizes
from ..backends.values import Can, Guest, GuestSpec, Mark
from ..lifecycle_commands import (
    BeginBuild,
    BeginMigration,
    ClearClaim,
    ConfirmGuest,
    EndMigration,
    FailBuild,
    LoseGuest,
    MoveGuest,
    NoteTrouble,
    RefusePower,
    SetBackend,
)
from ..machine.guest_snapshots import IMAGE as SNAPSHOT_IMAGE
from ..machine.lives import GuestLife, GuestMove
from . import adoption, resizing
from .attachments import Attachments
from .backend import Backend
from .desk import BUILDING_POLL, TROUBLE_WAIT, Desk
from .user_data import create_guest, read_user_data

T = TypeVar("T")
IN_ERROR: Final = "the back end has the guest in a state of error"
log = logging.getLogger("hostler.reconcile")


class GuestSteps:
    """The steps for guests of one back end."""

    def __init__(self, desk: Desk, backend: Backend, user_data: Path | None) -> None:
        self._desk, self._backend, self._user_data = desk, backend, user_data
        self.suspects: set[str] = set()
        """Guests whose listing differed from what is known, to be looked up."""
        self.orphans: dict[str, set[int]] = {}
        """By uuid: claims of guests that were sighted twice and have no claim, or had gone."""
        self.attachments = Attachments(desk, backend, self.suspects)
        self.adopted_orphans: set[tuple[str, int]] = set()
        """Those of them that were adopted: they are not removed, and are strangers again."""

    async def step(self, uuid: str) -> float | None:
        """Do what is due for a guest; returns the seconds until the next step, None if none is due."""
        driver = self._backend.driver
        assert driver is not None
        assert computes(driver)
        if uuid in self.orphans:
            await self._remove_orphans(driver, uuid)
        life = self._life(uuid)
        if life is None:
            self.suspects.discard(uuid)
            return None
        try:
            return await self._step(driver, life)
        except Denied as error:
            await self.deny(str(error))
            return None
        except DriverError as error:
            return await self._failed(life, error)

    def _life(self, uuid: str, claim: int | None = None) -> GuestLife | None:
        """The guest, if it is still this back end's and, where given, of this claim."""
        life = self._desk.lives.guests.get(uuid)
        if life is None or life.backend != self._backend.name or claim not in (None, life.claim):
            return None
        return life

    async def _step(self, driver: ComputeDriver, life: GuestLife) -> float | None:
        if life.desired == "deleted" or life.status == "clearing":
            return None if life.gone else await self._clear(driver, life)
        if life.status == "placed":
            if not self._desk.lives.has_volumes(life):
                return None  # the last of them has the guest looked at
            uuid, claim = life.uuid, life.claim
            await self._desk.submit(BeginBuild(uuid=uuid, claim=claim))
            return await self._build(driver, uuid, claim, fresh=True)
        if life.status == "building":
            return await self._build(driver, life.uuid, life.claim, fresh=False)
        if life.status in ("active", "stopped"):
            return await self._run(driver, life)
        if life.move is not None:  # it was lost when its move began
            text = "the guest is not on its back end"
            ended = EndMigration(uuid=life.uuid, claim=life.claim, moved=False, failure="not_found", text=text)
            await self._desk.submit(ended)
        return None

    # building

    async def _build(self, driver: ComputeDriver, uuid: str, claim: int, *, fresh: bool) -> float | None:
        """Make a guest, or find it made. ``fresh``: no call for this claim was made before."""
        life = self._life(uuid, claim)
        if life is None or life.status != "building" or life.desired == "deleted":
            return 0.0
        if life.adopting:
            return await self._adopt(driver, life)
        guest = None if fresh else await self._found(driver, uuid, life.node)
        if guest is None:
            want = await self._spec(life, life.node, claim)
            guest = await self._create(driver, want)
        if guest.state == "error" and self._is_right(driver, life, guest):
            await self._fail(life, Permanent(IN_ERROR), elsewhere=True)
            return 0.0
        if not self._is_right(driver, life, guest):
            other = None if guest.mark is None else guest.mark.claim
            await self._call("delete_guest", lambda: driver.delete_guest(uuid, other))
            return BUILDING_POLL if guest.state == "deleting" else 0.0
        if guest.state in ("building", "deleting"):
            if self._desk.now() >= life.until:
                await self._fail(life, Transient(f"not built in {life.build_seconds:g} s"), elsewhere=True)
                return 0.0
            return BUILDING_POLL
        began = life.until - life.build_seconds
        self._backend.counts.builds += 1
        self._backend.counts.build_seconds += max(0.0, self._desk.now() - began)
        await self._confirm(uuid, claim, guest)
        return 0.0

    async def _create(self, driver: ComputeDriver, want: GuestSpec) -> Guest:
        return await self._call("create_guest", lambda: create_guest(driver, want))

    async def _adopt(self, driver: ComputeDriver, life: GuestLife) -> float:
        """Mark a stranger, or find it marked."""
        found = await self._found(driver, life.uuid, life.node)
        guest = await adoption.marked(self._backend, self._desk.lives.installation, driver, life, found)
        if guest is not None:
            await self._confirm(life.uuid, life.claim, guest)
        return 0.0

    def _is_right(self, driver: ComputeDriver, life: GuestLife, guest: Guest) -> bool:
        mine = guest.mark is not None and guest.mark.claim == life.claim
        place = Can.CHOOSES_HOST in driver.facts.can or guest.node == life.node
        return mine and place

    async def _found(self, driver: ComputeDriver, uuid: str, *nodes: str) -> Guest | None:
        """The guest; None if it is not there: on none of the ``nodes`` that it can be on, if others do not answer."""
        try:
            return await self._call("get_guest", lambda: driver.get_guest(uuid))
        except NotFound:
            return None
        except DriverError as error:
            if not error.nodes or not error.nodes.isdisjoint(nodes):
                raise
            return None

    async def _spec(self, life: GuestLife, node: str, claim: int) -> GuestSpec:
        user_data = ""
        if life.user_data is not None:
            user_data = await trio.to_thread.run_sync(read_user_data, self._user_data, life.user_data)
        lives = self._desk.lives
        volumes = [await self._desk.connection(lives.volume(uuid), node) for uuid in life.volumes]
        return GuestSpec(
            mark=Mark(lives.installation, life.uuid, claim),
            name=life.name or life.uuid,
            node=node,
            vcpus=life.vcpus,
            memory_mb=life.memory_mb,
            disk_gb=life.disk_gb,
            image=self._image(life),
            networks=tuple(self._backend.network(name) for name in life.networks),
            volumes=tuple(volumes),
            user_data=user_data,
            power="off" if life.desired == "stopped" else "on",
        )

    def _image(self, life: GuestLife) -> str:
        """The back end's name of a guest's image."""
        if not life.image.startswith(SNAPSHOT_IMAGE):
            name = self._backend.image(life.image)
            if self._desk.lives.is_snapshot(self._backend.name, name):  # which is its project's
                raise Permanent(f"there is no image {name}", hint=f"name a snapshot as {SNAPSHOT_IMAGE}UUID")
            return name
        uuid = life.image.removeprefix(SNAPSHOT_IMAGE)
        owner = self._desk.lives.guest_of_snapshot(uuid)
        snapshot = None if owner is None else owner.snapshots[uuid]
        if snapshot is None or snapshot.backend != self._backend.name or snapshot.shown != "available":
            raise Permanent(f"back end {self._backend.name} no longer has snapshot {uuid}")
        return snapshot.key

    async def _confirm(self, uuid: str, claim: int, guest: Guest, *, outside: bool = False) -> None:
        power: Any = "on" if guest.state in ("on", "paused") else "off"
        command = ConfirmGuest(uuid=uuid, claim=claim, power=power, key=guest.key, outside=outside)
        await self._desk.submit(command)

    # running

    async def _run(self, driver: ComputeDriver, life: GuestLife) -> float | None:
        uuid, claim = life.uuid, life.claim
        if life.move is not None:
            return await self._move(driver, life, life.move)
        if uuid in self.suspects:
            self.suspects.discard(uuid)
            found = await self._found(driver, uuid, life.node)
            if found is None or found.mark is None or found.mark.claim != claim:
                await self._desk.submit(LoseGuest(uuid=uuid, claim=claim))
                return None
            if self.is_elsewhere(life, found):
                return await self._follow(driver, life, found)
            if self.has_other_size(life, found):
                await resizing.follow(self._desk, self._backend, driver, life, found)
                return 0.0
            if attaches(driver) and self.attachments.differ(life, found):
                return await self.attachments.follow(driver, life, found)
            shown = "active" if found.state in ("on", "paused") else "stopped"
            if shown != life.status and found.state not in ("building", "deleting"):
                await self._confirm(uuid, claim, found, outside=True)
                return 0.0
        if life.status != life.desired:
            try:
                return await self._set_power(driver, life)
            except Denied:
                raise
            except DriverError as error:
                if life.volumes == life.attached:  # else a volume may be what prevents it
                    return await self._power_failed(driver, life, error)
        if life.volumes == life.attached:
            return None
        return await self.attachments.change(driver, life)

    async def _set_power(self, driver: ComputeDriver, life: GuestLife) -> float | None:
        uuid, claim = life.uuid, life.claim
        power: Any = "on" if life.desired == "active" else "off"
        try:
            guest = await self._call("set_power", lambda: driver.set_power(uuid, power))
        except NotFound:
            self.suspects.add(uuid)  # it is looked up before it is lost
            raise
        except DriverError as error:
            if error.nodes and life.node not in error.nodes:  # it is not on its node
                self.suspects.add(uuid)
            raise
        if guest.state == "error":
            raise Permanent(IN_ERROR)
        if (guest.state in ("on", "paused")) != (power == "on"):
            return BUILDING_POLL  # a guest may take its time to shut down
        await self._confirm(uuid, claim, guest)
        return 0.0

    async def _power_failed(self, driver: ComputeDriver, life: GuestLife, error: DriverError) -> float | None:
        """A guest is not started or stopped: where that is for good it stays as it is, unless it was done before it
        failed."""
        if not isinstance(error, Permanent | Capacity | Quota):
            raise error
        uuid, claim = life.uuid, life.claim
        found = await self._found(driver, uuid, life.node)
        if found is None:
            await self._desk.submit(LoseGuest(uuid=uuid, claim=claim))
            return None
        power: Any = "on" if life.desired == "active" else "off"
        if found.state != "error" and (found.state in ("on", "paused")) == (power == "on"):
            await self._confirm(uuid, claim, found)
            return 0.0
        await self._desk.submit(
            RefusePower(uuid=uuid, claim=claim, power=power, failure=error.failure, text=error.text)
        )
        return 0.0

    # moving

    def is_elsewhere(self, life: GuestLife, guest: Guest) -> bool:
        """True if a guest is on another node than the one that is charged for it."""
        driver = self._backend.driver
        return driver is not None and Can.CHOOSES_HOST not in driver.facts.can and guest.node != life.node

    def has_other_size(self, life: GuestLife, guest: Guest) -> bool:
        """True if a guest has not the size that is charged, on a back end that gives guests other sizes: others may
        round theirs."""
        driver, building = self._backend.driver, guest.state in ("building", "deleting")
        return driver is not None and resizes(driver) and not building and (guest.vcpus, guest.memory_mb) != life.size

    async def _follow(self, driver: ComputeDriver, life: GuestLife, found: Guest) -> float | None:
        """A guest was moved outside, or by a request that arrived late: charge the node where it is, as by a move that
        finds it there. If that has no room for it, it is moved back, where the driver can do that."""
        kind: Any = "live_migrate" if life.status == "active" else "cold_migrate"
        decision = await self._desk.submit(MoveGuest(uuid=life.uuid, kind=kind, target=found.node))
        if decision.placed:
            return 0.0
        log.warning("guest %s is on node %s, which has no room, not on %s", life.uuid, found.node, life.node)
        if not moves(driver) or found.state in ("building", "deleting"):
            return None
        live = found.state in ("on", "paused")
        await self._call("move_guest", lambda: driver.move_guest(life.uuid, life.node, live=live))
        return None

    async def _move(self, driver: ComputeDriver, life: GuestLife, move: GuestMove) -> float | None:
        """Bring a guest to the target of its move, or find it there."""
        uuid, claim = life.uuid, life.claim
        found = None
        if move.kind != "evacuate":
            found = await self._found(driver, uuid, life.node, move.node)
        elif move.begun:
            found = await self._found(driver, uuid, move.node)
        if not move.begun:
            await self._desk.submit(BeginMigration(uuid=uuid, claim=claim))
        try:
            if move.kind == "evacuate":
                guest = await self._evacuated(driver, life, move, found)
            elif move.kind == "resize":
                guest = await resizing.resized(self._backend, driver, uuid, move, found, self._desk.now())
            else:
                guest = await self._migrated(driver, uuid, move, found)
            guest = await self._started(driver, life, move, guest)
        except (Permanent, Capacity, Quota, NotFound, Conflict, Transient, Unknown) as error:
            late = self._desk.now() >= move.until
            if isinstance(error, Conflict | Transient | Unknown) and not late:
                raise
            moved = await self._stay(driver, life, move, error)
            if moved is None:
                return 0.0
            if not late:
                raise  # what is left on its source is still to be removed
            guest = moved
        if (
            not resizing.is_done(guest, move)
            or guest.state in ("building", "deleting")
            or resizing.is_stopped(driver, life, guest)
        ):
            return BUILDING_POLL
        power: Any = "on" if guest.state in ("on", "paused") else "off"
        await self._desk.submit(EndMigration(uuid=uuid, claim=claim, moved=True, power=power, key=guest.key))
        return 0.0

    async def _started(self, driver: ComputeDriver, life: GuestLife, move: GuestMove, guest: Guest) -> Guest:
        """Start a guest that is on the target of its move and does not run yet: if it cannot, it has not moved."""
        if not resizing.is_done(guest, move) or not resizing.is_stopped(driver, life, guest):
            return guest
        self._check_time(move)
        return await self._call("set_power", lambda: driver.set_power(life.uuid, "on"))

    async def _migrated(self, driver: ComputeDriver, uuid: str, move: GuestMove, found: Guest | None) -> Guest:
        if found is None:
            raise NotFound(f"back end {self._backend.name} has no guest {uuid}")
        if found.node == move.node and not moves(driver):
            return found
        if not moves(driver):
            raise Permanent(f"back end {self._backend.name} moves no guests")
        if found.node != move.node:
            self._check_time(move)
            if move.kind == "cold_migrate" and found.state == "paused":
                raise Permanent("the guest is paused: stopping it would end what it does", hint="move it live")
        # One that is there already may have left a definition on its source: the driver removes that.
        live = move.kind == "live_migrate" and found.state in ("on", "paused")
        return await self._call("move_guest", lambda: driver.move_guest(uuid, move.node, live=live))

    async def _evacuated(self, driver: ComputeDriver, life: GuestLife, move: GuestMove, found: Guest | None) -> Guest:
        if found is not None and found.mark is not None and found.mark.claim == move.claim:
            if found.state == "error":
                raise Permanent(IN_ERROR)
            if found.state in ("building", "deleting"):
                self._check_time(move)
            return found
        self._check_time(move)
        want = await self._spec(life, move.node, move.claim)
        made = await self._create(driver, want)
        if made.state == "error":
            raise Permanent(IN_ERROR)
        return made

    def _check_time(self, move: GuestMove) -> None:
        if self._desk.now() >= move.until:
            raise Transient("it was not moved in time")

    async def _stay(self, driver: ComputeDriver, life: GuestLife, move: GuestMove, error: DriverError) -> Guest | None:
        """A move has failed: make sure that the guest is on its source, and give the target back. Returns a guest that
        is on its target after all."""
        uuid, claim = life.uuid, life.claim
        stayed: Any = None
        if move.kind == "evacuate":
            await self._delete(driver, uuid, move.claim, move.node)
        else:
            found = await self._found(driver, uuid, life.node, move.node)
            done = found is not None and resizing.is_done(found, move)
            if found is not None and done and not resizing.is_stopped(driver, life, found):
                return found
            if move.kind == "resize":
                found = await resizing.put_back(self._backend, driver, life, found)
            elif done and moves(driver):  # it does not start there
                found = await self._call("move_guest", lambda: driver.move_guest(uuid, life.node, live=False))
            if found is not None and found.state in ("on", "paused", "off"):
                stayed = "off" if found.state == "off" else "on"  # stopped for a cold move, it is started again
        stays = EndMigration(uuid=uuid, claim=claim, moved=False, stayed=stayed, failure=error.failure, text=error.text)
        await self._desk.submit(stays)
        return None

    # removing

    async def _clear(self, driver: ComputeDriver, life: GuestLife) -> float | None:
        uuid, claim = life.uuid, life.claim
        nodes = (life.node,) if life.move is None else (life.node, life.move.node)
        if life.adopting:
            await adoption.disown(self._backend, driver, uuid, claim, *nodes)
            await self._desk.submit(ClearClaim(uuid=uuid, claim=claim))
            return 0.0
        await self._delete(driver, uuid, None, *nodes)
        if await self._found(driver, uuid, *nodes) is not None:
            return BUILDING_POLL
        await self._desk.submit(ClearClaim(uuid=uuid, claim=claim))
        return 0.0

    async def _delete(self, driver: ComputeDriver, uuid: str, claim: int | None, *nodes: str) -> None:
        """Remove a guest from the ``nodes`` that it can be on. What is left on others is an orphan."""
        try:
            await self._call("delete_guest", lambda: driver.delete_guest(uuid, claim))
        except DriverError as error:
            if not error.nodes or not error.nodes.isdisjoint(nodes):
                raise

    async def _remove_orphans(self, driver: ComputeDriver, uuid: str) -> None:
        for claim in sorted(self.orphans.pop(uuid)):
            life = self._life(uuid, claim)
            if life is not None and not life.gone:  # one that was gone may be made by a request that arrived late
                continue
            adopted = (uuid, claim) in self.adopted_orphans
            self.adopted_orphans.discard((uuid, claim))
            try:
                if not adopted:
                    await self._call("delete_guest", lambda claim=claim: driver.delete_guest(uuid, claim))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                else:
                    await adoption.disown(self._backend, driver, uuid, claim)
            except DriverError as error:
                log.warning("orphan %s of back end %s stays for now: %s", uuid, self._backend.name, error)
            else:
                self._backend.counts.orphans_removed += not adopted
                what = "is a stranger again on" if adopted else "was removed from"
                log.warning("orphan %s, claim %d, %s back end %s", uuid, claim, what, self._backend.name)

    # failures

    async def _failed(self, life: GuestLife, error: DriverError) -> float:
        """Decide what a failure means; returns the seconds until the next step."""
        backoff, uuid = self._backend.backoff, life.uuid
        current = self._life(uuid, life.claim)
        if current is not None and current.status == "building" and current.desired != "deleted":
            if isinstance(error, Capacity):
                await self._fail(current, error, elsewhere=True)
                return 0.0
            if isinstance(error, Quota | Permanent | NotFound):
                await self._fail(current, error, elsewhere=False)
                return 0.0
            if self._desk.now() >= current.until:
                await self._fail(current, error, elsewhere=True)
                return 0.0
        wait = backoff.next(uuid, error.after if isinstance(error, Transient) else 0.0)
        if current is not None and wait >= TROUBLE_WAIT and _is_trouble(current, error):
            await self._desk.submit(NoteTrouble(uuid=uuid, claim=current.claim, failure=error.failure, text=error.text))
        return wait

    async def _fail(self, life: GuestLife, error: DriverError, *, elsewhere: bool) -> None:
        command = FailBuild(
            uuid=life.uuid, claim=life.claim, failure=error.failure, text=error.text, elsewhere=elsewhere
        )
        await self._desk.submit(command)

    async def deny(self, reason: str) -> None:
        """The credentials are refused: no more calls until an operator enables the back end again. If the service takes
        no commands now, the next refusal disables it."""
        log.error("back end %s is disabled: it refuses the credentials: %s", self._backend.name, reason)
        command = SetBackend(name=self._backend.name, enabled=False, reason=f"denied: {reason}"[:1_000])
        try:
            await self._desk.submit(command)
        except HostlerError as error:
            log.error("back end %s could not be disabled: %s", self._backend.name, error)

    async def _call(self, operation: str, work: Callable[[], Awaitable[T]]) -> T:
        return await self._backend.call(operation, work)


def _is_trouble(life: GuestLife, error: DriverError) -> bool:
    """True if users are to see a failure that is not the one that they see already: of a guest that is
    removed, started or stopped. Of others the end of what is done tells it."""
    changing = life.status in ("active", "stopped") and life.status != life.desired and life.move is None
    told = life.fault is not None and life.fault.failure == error.failure
    return (life.desired == "deleted" or changing) and not told
