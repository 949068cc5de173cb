"""Attaching volumes to guests that run or are stopped, and detaching them: one at a time, as part of a step."""

from __future__ import annotations

from typing import Final

import trio

from ..backends.errors import Capacity, Conflict, DriverError, NotFound, Permanent, Quota, Transient, Unknown
from ..backends.protocol import ComputeDriver, attaches
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
        await self._attach(driver, life, coming)
        return 0.0

    async def _detach(self, driver: ComputeDriver, life: GuestLife, leaving: str) -> float:
        """Ask for a volume, again and again until the time for it is over: then the guest keeps it."""
        uuid, claim = life.uuid, life.claim
        error: DriverError = Transient("the guest has not let the volume go in time")
        try:
            if not attaches(driver):
                raise Permanent(f"back end {self._backend.name} detaches no volumes")
            gone = False
            with trio.move_on_after(DETACH_WAIT):
                # A driver whose detach returns nothing returns when the guest has let go.
                gone = await self._backend.call("detach", lambda: driver.detach(uuid, leaving)) is not False
            if gone:
                await self._desk.submit(ConfirmAttachment(uuid=uuid, claim=claim, volume=leaving, attached=False))
                return 0.0
        except NotFound:
            self._suspects.add(uuid)
            return BUILDING_POLL
        except Permanent as caught:
            error = caught
        except (Transient, Unknown, Conflict, Capacity, Quota) as caught:
            if not self._is_late(life, leaving):
                raise
            error = caught
        if not self._is_late(life, leaving) and not isinstance(error, Permanent):
            return BUILDING_POLL
        kept = RefuseAttachment(uuid=uuid, claim=claim, volume=leaving, failure=error.failure, text=error.text)
        await self._desk.submit(kept)
        return 0.0

    def _is_late(self, life: GuestLife, leaving: str) -> bool:
        return self._desk.now() >= life.detaching.get(leaving, float("inf"))

    async def _attach(self, driver: ComputeDriver, life: GuestLife, coming: str) -> None:
        uuid, claim = life.uuid, life.claim
        try:
            if not attaches(driver):
                raise Permanent(f"back end {self._backend.name} attaches no volumes")
            connection = await self._desk.connection(self._desk.lives.volume(coming), life.node)
            await self._backend.call("attach", lambda: driver.attach(uuid, connection))
        except (Permanent, Capacity, Quota, NotFound) as error:
            refused = RefuseAttachment(uuid=uuid, claim=claim, volume=coming, failure=error.failure, text=error.text)
            await self._desk.submit(refused)
        else:
            await self._desk.submit(ConfirmAttachment(uuid=uuid, claim=claim, volume=coming, attached=True))
