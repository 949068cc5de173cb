"""One step for one snapshot of a guest, as ``guests`` for one guest."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ..backends.errors import Capacity, Denied, DriverError, NotFound, Permanent, Quota, Transient
from ..backends.protocol import SnapshottingDriver, computes, snapshots
from ..backends.values import Mark, Snapshot
from ..lifecycle_commands import (
    BeginSnapshot,
    ClearSnapshot,
    ConfirmSnapshot,
    FailSnapshot,
    LoseSnapshot,
    NoteSnapshotTrouble,
)
from ..machine.lives import GuestLife, SnapshotLife
from .backend import Backend
from .desk import BUILDING_POLL, TROUBLE_WAIT, Desk
from .work_queue import SNAPSHOT

T = TypeVar("T")
log: Final = logging.getLogger("hostler.reconcile")


class SnapshotSteps:
    """The steps for snapshots of guests of one back end."""

    def __init__(self, desk: Desk, backend: Backend, deny: Callable[[str], Awaitable[None]]) -> None:
        """``deny`` is called when the credentials are refused."""
        self._desk, self._backend, self._deny = desk, backend, deny
        self.suspects: set[str] = set()
        """Snapshots that a listing did not have, to be looked up."""
        self.orphans: dict[str, set[int]] = {}
        """By uuid: claims of snapshots that were sighted twice and have no claim."""

    async def step(self, uuid: str) -> float | None:
        """Do what is due for a snapshot; returns the seconds until the next step, None if none is due."""
        driver = self._backend.driver
        assert driver is not None
        if not computes(driver) or not snapshots(driver):
            return None
        if uuid in self.orphans:
            await self._remove_orphans(driver, uuid)
        known = self._life(uuid)
        if known is None:
            self.suspects.discard(uuid)
            return None
        try:
            return await self._step(driver, *known)
        except Denied as error:
            await self._deny(str(error))
            return None
        except DriverError as error:
            return await self._failed(*known, error)

    def _life(self, uuid: str, claim: int | None = None) -> tuple[GuestLife, SnapshotLife] | None:
        """The snapshot with its guest, if it is of this back end and, where given, of this claim."""
        guest = self._desk.lives.guest_of_snapshot(uuid)
        life = None if guest is None else guest.snapshots[uuid]
        if guest is None or life is None or life.backend != self._backend.name or claim not in (None, life.claim):
            return None
        return guest, life

    async def _step(self, driver: SnapshottingDriver, guest: GuestLife, life: SnapshotLife) -> float | None:
        claim = {"uuid": guest.uuid, "snapshot": life.uuid, "claim": life.claim}
        if life.desired == "deleted" or life.status == "clearing":
            await self._call("delete_snapshot", lambda: driver.delete_snapshot(life.uuid))
            if await self._found(driver, life.uuid) is not None:
                return BUILDING_POLL
            await self._desk.submit(ClearSnapshot(**claim))  # type: ignore[arg-type]  # one dict for keywords of two types
            return 0.0
        if life.status == "placed":
            await self._desk.submit(BeginSnapshot(**claim))  # type: ignore[arg-type]  # as above
        if life.status == "building":
            return await self._make(driver, guest, life)
        if life.status == "available" and life.uuid in self.suspects:
            self.suspects.discard(life.uuid)
            found = await self._found(driver, life.uuid)
            if found is None or found.mark is None or found.mark.claim != life.claim:
                await self._desk.submit(LoseSnapshot(**claim))  # type: ignore[arg-type]  # as above
        return None

    async def _make(self, driver: SnapshottingDriver, guest: GuestLife, life: SnapshotLife) -> float:
        """Make a snapshot, or find it made."""
        mark = Mark(self._desk.lives.installation, life.uuid, life.claim)
        name = life.name or life.uuid
        made = await self._call("snapshot_guest", lambda: driver.snapshot_guest(guest.uuid, mark, name))
        if made.state == "error":
            raise Permanent("the back end has the snapshot in a state of error")
        if made.state == "available" and not made.key:
            raise Permanent("the driver does not name the image that was made")
        if made.state != "available":
            if self._desk.now() >= life.until:
                raise Transient("it was not made in time")
            return BUILDING_POLL
        await self._desk.submit(
            ConfirmSnapshot(uuid=guest.uuid, snapshot=life.uuid, claim=life.claim, key=made.key),
        )
        return 0.0

    async def _found(self, driver: SnapshottingDriver, uuid: str) -> Snapshot | None:
        try:
            return await self._call("get_snapshot", lambda: driver.get_snapshot(uuid))
        except NotFound:
            return None

    async def _remove_orphans(self, driver: SnapshottingDriver, uuid: str) -> None:
        for claim in sorted(self.orphans.pop(uuid)):
            known = self._life(uuid, claim)
            if known is not None and not known[1].nothing_left:
                continue
            try:
                await self._call("delete_snapshot", lambda claim=claim: driver.delete_snapshot(uuid, claim))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            except DriverError as error:
                log.warning("orphan snapshot %s of back end %s stays for now: %s", uuid, self._backend.name, error)
            else:
                self._backend.counts.orphans_removed += 1
                log.warning("orphan snapshot %s, claim %d, was removed from %s", uuid, claim, self._backend.name)

    async def _failed(self, guest: GuestLife, life: SnapshotLife, error: DriverError) -> float:
        """Decide what a failure means; returns the seconds until the next step."""
        there = self._life(life.uuid, life.claim) is not None
        final = isinstance(error, Capacity | Quota | Permanent | NotFound) or self._desk.now() >= life.until
        if there and final and life.status == "building" and life.desired != "deleted":
            failed = FailSnapshot(
                uuid=guest.uuid, snapshot=life.uuid, claim=life.claim, failure=error.failure, text=error.text
            )
            await self._desk.submit(failed)
            return 0.0
        wait = self._backend.backoff.next(SNAPSHOT + life.uuid, error.after if isinstance(error, Transient) else 0.0)
        told = life.fault is not None and life.fault.failure == error.failure
        if there and life.desired == "deleted" and wait >= TROUBLE_WAIT and not told:
            trouble = NoteSnapshotTrouble(
                uuid=guest.uuid, snapshot=life.uuid, claim=life.claim, failure=error.failure, text=error.text
            )
            await self._desk.submit(trouble)
        return wait

    async def _call(self, operation: str, work: Callable[[], Awaitable[T]]) -> T:
        return await self._backend.call(operation, work)
