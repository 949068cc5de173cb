"""Attaching volumes to guests that run or are stopped, and detaching them: one at a time, as part of a step."""

from __future__ import annotations

from typing import Final

from ..backends.errors import Capacity, Conflict, DriverError, NotFound, Permanent, Quota, Transient, Unknown
from ..backends.protocol import AttachingDriver, ComputeDriver, attaches
from ..backends.values import Guest
from ..lifecycle_commands import ConfirmAttachment, RefuseAttachment
from ..machine.lives import GuestLife
from .backend import Backend
from .desk import BUILDING_POLL, Desk

DETACH_WAIT: Final = 5.0
"""Seconds that one request to let a volume go may take: a guest may never let it go, and other steps wait."""


class Attachments:
    """The volumes of the guests of one back end."""

    def __init__(self, desk: Desk, backend: Backend, suspects: set[str]) -> None:
        """``suspects``: guests that are to be looked up, to which those are added that were not found."""
        self._desk, self._backend, self._suspects = desk, backend, suspects

    async def change(self, driver: ComputeDriver, life: GuestLife) -> float:
        """Detach or attach one volume."""
        leaving = next((each for each in life.attached if each not in life.volumes), None)
        if leaving is not None:
            return await self._detach(driver, life, leaving)
        coming = next(each for each in life.volumes if each not in life.attached)
        return await self._attach(driver, life, coming)

    def differ(self, life: GuestLife, guest: Guest) -> bool:
        """True if a guest has not the volumes that it is known to have, of those that this service knows."""
        driver = self._backend.driver
        if driver is None or not attaches(driver) or life.volumes != life.attached:
            return False
        known = self._desk.lives.volumes
        return {each for each in guest.volumes if each in known} != {each for each in life.attached if each in known}

    async def follow(self, driver: AttachingDriver, life: GuestLife, guest: Guest) -> float:
        """Others have detached a volume of a guest, which is attached again, or attached one, which is detached."""
        known = self._desk.lives.volumes
        gone = next((each for each in life.attached if each in known and each not in guest.volumes), None)
        if gone is not None:
            await self._confirm(life, gone, attached=False)
            return 0.0
        for other in guest.volumes:
            if other in known and other not in life.attached:
                await self._backend.call("detach", lambda other=other: driver.detach(life.uuid, other))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        return BUILDING_POLL

    async def _detach(self, driver: ComputeDriver, life: GuestLife, leaving: str) -> float:
        """Ask for a volume, again and again until the time for it is over: then the guest keeps it."""
        uuid = life.uuid
        error: DriverError = Transient("the guest has not let the volume go in time")
        try:
            if not attaches(driver):
                raise Permanent(f"back end {self._backend.name} detaches no volumes")

            async def let_go() -> bool:  # a driver whose detach returns nothing returns when the guest has let go
                return await driver.detach(uuid, leaving) is not False

            if await self._backend.call_within(DETACH_WAIT, "detach", let_go):
                await self._confirm(life, leaving, attached=False)
                return 0.0
        except (Permanent, NotFound) as caught:
            return await self._refused(driver, life, leaving, caught)
        except (Transient, Unknown, Conflict, Capacity, Quota) as caught:
            if not self._is_late(life, leaving):
                raise
            error = caught
        if not self._is_late(life, leaving):
            return BUILDING_POLL
        return await self._refused(driver, life, leaving, error)

    def _is_late(self, life: GuestLife, volume: str) -> bool:
        until = life.attaching if volume in life.volumes else life.detaching
        return self._desk.now() >= until.get(volume, float("inf"))

    async def _attach(self, driver: ComputeDriver, life: GuestLife, coming: str) -> float:
        """Attach a volume, tried again until the time for it is over: then the guest goes on without it."""
        uuid = life.uuid
        try:
            if not attaches(driver):
                raise Permanent(f"back end {self._backend.name} attaches no volumes")
            connection = await self._desk.connection(self._desk.lives.volume(coming), life.node)
            await self._backend.call("attach", lambda: driver.attach(uuid, connection))
        except (Permanent, Capacity, Quota, NotFound) as error:
            return await self._refused(driver, life, coming, error, attaching=True)
        except (Transient, Unknown, Conflict) as error:
            if not self._is_late(life, coming):
                raise
            return await self._refused(driver, life, coming, error, attaching=True)
        await self._confirm(life, coming, attached=True)
        return 0.0

    async def _refused(
        self, driver: ComputeDriver, life: GuestLife, volume: str, error: DriverError, *, attaching: bool = False
    ) -> float:
        """A volume is not attached, or not detached, unless the back end has done so before it failed. A guest that is
        there after all, of which a volume could not be found, is asked again while there is time. One that is there
        although its attaching failed, and is to be detached by now, is detached next."""
        try:
            found = await self._backend.call("get_guest", lambda: driver.get_guest(life.uuid))
        except NotFound:
            self._suspects.add(life.uuid)
            return BUILDING_POLL
        attached = volume in found.volumes
        if attached == (volume in life.volumes):
            await self._confirm(life, volume, attached=attached)
            return 0.0
        if attaching and attached:
            return 0.0
        if isinstance(error, NotFound) and attached and not self._is_late(life, volume):
            raise error
        refused = RefuseAttachment(
            uuid=life.uuid,
            claim=life.claim,
            volume=volume,
            failure=error.failure,
            text=error.text,
            attaching=attaching,
        )
        await self._desk.submit(refused)
        return 0.0

    async def _confirm(self, life: GuestLife, volume: str, *, attached: bool) -> None:
        command = ConfirmAttachment(uuid=life.uuid, claim=life.claim, volume=volume, attached=attached)
        await self._desk.submit(command)
