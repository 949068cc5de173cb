"""One step for one volume, as ``guests`` for one guest."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ..backends.errors import Capacity, Denied, DriverError, NotFound, Permanent, Quota, Transient
from ..backends.protocol import StorageDriver, stores
from ..backends.values import Mark, Volume, VolumeSpec
from ..lifecycle_commands import BeginVolume, ClearVolume, ConfirmVolume, FailVolume, LoseVolume, NoteVolumeTrouble
from ..machine.lives import VolumeLife
from .backend import Backend
from .desk import BUILDING_POLL, TROUBLE_WAIT, Desk
from .work_queue import VOLUME

T = TypeVar("T")
IN_ERROR: Final = "the back end has the volume in a state of error"

log: Final = logging.getLogger("hostler.reconcile")


class VolumeSteps:
    """The steps for volumes of one back end."""

    def __init__(self, desk: Desk, backend: Backend, deny: Callable[[str], Awaitable[None]]) -> None:
        """``deny`` is called when the credentials are refused."""
        self._desk, self._backend, self._deny = desk, backend, deny
        self.suspects: set[str] = set()
        """Volumes that a listing did not have, or had in a state of error, to be looked up."""
        self.orphans: dict[str, set[int]] = {}
        """By uuid: claims of volumes that were sighted twice and have no claim."""

    async def step(self, uuid: str) -> float | None:
        """Do what is due for a volume; returns the seconds until the next step, None if none is due."""
        driver = self._backend.driver
        assert driver is not None
        if not stores(driver):
            return None
        if uuid in self.orphans:
            await self._remove_orphans(driver, uuid)
        life = self._life(uuid)
        if life is None:
            self.suspects.discard(uuid)
            return None
        try:
            return await self._step(driver, life)
        except Denied as error:
            await self._deny(str(error))
            return None
        except DriverError as error:
            return await self._failed(life, error)

    def _life(self, uuid: str, claim: int | None = None) -> VolumeLife | None:
        life = self._desk.lives.volumes.get(uuid)
        if life is None or life.backend != self._backend.name or claim not in (None, life.claim):
            return None
        return life

    async def _step(self, driver: StorageDriver, life: VolumeLife) -> float | None:
        uuid, claim = life.uuid, life.claim
        if life.desired == "deleted" or life.status == "clearing":
            return await self._clear(driver, uuid, claim)
        if life.status == "placed":
            await self._desk.submit(BeginVolume(volume=uuid, claim=claim))
            return await self._make(driver, uuid, claim, fresh=True)
        if life.status == "building":
            return await self._make(driver, uuid, claim, fresh=False)
        if life.status == "available" and uuid in self.suspects:
            self.suspects.discard(uuid)
            found = await self._found(driver, uuid)
            if found is None or found.mark is None or found.mark.claim != claim:
                await self._desk.submit(LoseVolume(volume=uuid, claim=claim))
            elif found.state == "error":
                await self._desk.submit(LoseVolume(volume=uuid, claim=claim, text=IN_ERROR))
        return None

    async def _make(self, driver: StorageDriver, uuid: str, claim: int, *, fresh: bool) -> float | None:
        """Make a volume, or find it made. ``fresh``: no call for this claim was made before."""
        life = self._life(uuid, claim)
        if life is None or life.status != "building" or life.desired == "deleted":
            return 0.0
        volume = None if fresh else await self._found(driver, uuid)
        if volume is None:
            want = self._spec(life)
            volume = await self._call("create_volume", lambda: driver.create_volume(want))
        mine = volume.mark is not None and volume.mark.claim == claim and volume.pool == life.pool
        if mine and volume.state == "error":
            await self._fail(life, Permanent(IN_ERROR), elsewhere=True)
            return 0.0
        if not mine:
            other = None if volume.mark is None else volume.mark.claim
            await self._call("delete_volume", lambda: driver.delete_volume(uuid, other))
            return BUILDING_POLL if volume.state == "deleting" else 0.0
        if volume.state in ("building", "deleting"):
            if self._desk.now() >= life.until:
                late = Transient(f"not made in {life.build_seconds:g} s")
                await self._fail(life, late, elsewhere=True)
                return 0.0
            return BUILDING_POLL
        await self._desk.submit(ConfirmVolume(volume=uuid, claim=claim, key=volume.key or uuid))
        return 0.0

    def _spec(self, life: VolumeLife) -> VolumeSpec:
        return VolumeSpec(
            mark=Mark(self._desk.lives.installation, life.uuid, life.claim),
            name=life.name or life.uuid,
            pool=life.pool,
            size_gb=life.size_gb,
            image=self._backend.image(life.image),
        )

    async def _found(self, driver: StorageDriver, uuid: str) -> Volume | None:
        try:
            return await self._call("get_volume", lambda: driver.get_volume(uuid))
        except NotFound:
            return None

    async def _clear(self, driver: StorageDriver, uuid: str, claim: int) -> float | None:
        await self._call("delete_volume", lambda: driver.delete_volume(uuid))
        if await self._found(driver, uuid) is not None:
            return BUILDING_POLL
        await self._desk.submit(ClearVolume(volume=uuid, claim=claim))
        return 0.0

    async def _remove_orphans(self, driver: StorageDriver, uuid: str) -> None:
        for claim in sorted(self.orphans.pop(uuid)):
            life = self._life(uuid, claim)
            if life is not None and not life.nothing_left:
                continue
            try:
                await self._call("delete_volume", lambda claim=claim: driver.delete_volume(uuid, claim))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            except DriverError as error:
                log.warning("orphan volume %s of back end %s stays for now: %s", uuid, self._backend.name, error)
            else:
                self._backend.counts.orphans_removed += 1
                log.warning("orphan volume %s, claim %d, was removed from %s", uuid, claim, self._backend.name)

    async def _failed(self, life: VolumeLife, error: DriverError) -> float:
        """Decide what a failure means; returns the seconds until the next step."""
        current = self._life(life.uuid, life.claim)
        if current is not None and current.status == "building" and current.desired != "deleted":
            final = isinstance(error, Quota | Permanent | NotFound)
            if final or isinstance(error, Capacity) or self._desk.now() >= current.until:
                await self._fail(current, error, elsewhere=not final)
                return 0.0
        wait = self._backend.backoff.next(VOLUME + life.uuid, error.after if isinstance(error, Transient) else 0.0)
        told = current is not None and current.fault is not None and current.fault.failure == error.failure
        if current is not None and current.desired == "deleted" and wait >= TROUBLE_WAIT and not told:
            await self._desk.submit(
                NoteVolumeTrouble(volume=life.uuid, claim=life.claim, failure=error.failure, text=error.text)
            )
        return wait

    async def _fail(self, life: VolumeLife, error: DriverError, *, elsewhere: bool) -> None:
        failed = FailVolume(
            volume=life.uuid, claim=life.claim, failure=error.failure, text=error.text, elsewhere=elsewhere
        )
        await self._desk.submit(failed)

    async def _call(self, operation: str, work: Callable[[], Awaitable[T]]) -> T:
        return await self._backend.call(operation, work)
