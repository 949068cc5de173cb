"""What tests of compute drivers do with guests again and again."""

from __future__ import annotations

import trio

from ..protocol import ComputeDriver, Guest, GuestSpec, Mark, Snapshot, SnapshottingDriver
from .bench import PATIENCE, all_of, settled


async def state_of(driver: ComputeDriver, uuid: str, state: str) -> Guest:
    """The guest, once it is in a state."""
    with trio.fail_after(PATIENCE):
        while True:
            found = await driver.get_guest(uuid)
            if found.state == state:
                return found
            await trio.sleep(0.05)


async def made(driver: ComputeDriver, spec: GuestSpec) -> Guest:
    """A guest that is made, and in the state that it is to have."""
    await settled(lambda: driver.create_guest(spec))
    return await state_of(driver, spec.mark.uuid, spec.power)


async def ours_of(driver: ComputeDriver, uuid: str) -> list[Guest]:
    """The guests of a uuid that have a mark."""
    return [each for each in await all_of(driver.guests()) if each.mark is not None and each.mark.uuid == uuid]


async def removed(driver: ComputeDriver, uuid: str) -> None:
    """Delete a guest, until its back end has nothing of it."""
    with trio.fail_after(PATIENCE):
        await settled(lambda: driver.delete_guest(uuid))
        while await ours_of(driver, uuid):  # noqa: ASYNC110  # a back end has no events
            await trio.sleep(0.05)


async def made_snapshot(driver: SnapshottingDriver, guest: str, mark: Mark) -> Snapshot:
    """A snapshot that is made, and available."""
    with trio.fail_after(PATIENCE):
        while True:
            found = await settled(lambda: driver.snapshot_guest(guest, mark, "name"))
            if found.state == "available":
                return found
            await trio.sleep(0.05)
