"""Giving a guest another size on its back end: the calls of one step, forward and back. Which of the two it is at, the
back end is asked. How far a move is, too."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from ...placement.types.errors import InvalidValue
from ..backends.errors import NotFound, Permanent, Transient
from ..backends.protocol import ComputeDriver, moves, resizes
from ..backends.values import Guest
from ..engine_commands import Asked
from ..lifecycle_commands import ResizeGuest
from ..machine.lives import GuestLife, GuestMove
from .backend import Backend
from .desk import Desk

log: Final = logging.getLogger("hostler.reconcile")


def is_done(found: Guest, move: GuestMove) -> bool:
    """True for a guest that is on the node, and has the size, that its move or resize gives it."""
    return found.node == move.node and (move.kind != "resize" or (found.vcpus, found.memory_mb) == move.size)


def is_stopped(driver: ComputeDriver, life: GuestLife, found: Guest) -> bool:
    """True for a guest that is to run, but was stopped for its move or resize and has not been started again. One that
    is evacuated, and others that cannot be put back, are started once that has ended."""
    move = life.move
    if move is None or found.state != "off" or (life.status, life.desired) != ("active", "active"):
        return False
    return resizes(driver) if move.kind == "resize" else moves(driver) and move.kind != "evacuate"


async def resized(
    backend: Backend, driver: ComputeDriver, uuid: str, move: GuestMove, found: Guest | None, now: float
) -> Guest:
    """Bring a guest to the node and size that it is to have, or find it so. Returns it, which may not be there yet.
    DriverError; Transient once its time is over."""
    if found is None:
        raise NotFound(f"back end {backend.name} has no guest {uuid}")
    if is_done(found, move) or found.state in ("building", "deleting"):
        return found
    if now >= move.until:
        raise Transient("it was not resized in time")
    if found.state == "paused":
        raise Permanent("the guest is paused: stopping it would end what it does", hint="let it go on first")
    if found.node != move.node:
        if not moves(driver):
            raise Permanent(f"back end {backend.name} moves no guests")
        found = await backend.call("move_guest", lambda: driver.move_guest(uuid, move.node, live=False))
        return found if is_done(found, move) else await _to_size(backend, driver, uuid, move.size)
    return await _to_size(backend, driver, uuid, move.size)


async def _to_size(backend: Backend, driver: ComputeDriver, uuid: str, size: tuple[int, int]) -> Guest:
    if not resizes(driver):
        raise Permanent(f"back end {backend.name} resizes no guests")
    return await backend.call("resize_guest", lambda: driver.resize_guest(uuid, *size))


async def put_back(backend: Backend, driver: ComputeDriver, life: GuestLife, found: Guest | None) -> Guest | None:
    """Have a guest whose resize has failed be on its node with its size. Returns it, None if there is none.
    DriverError: the next step tries again."""
    uuid = life.uuid
    if found is None:
        return None
    if found.state in ("building", "deleting"):
        raise Transient(f"guest {uuid} is {found.state}")
    if (found.vcpus, found.memory_mb) != life.size:
        found = await _to_size(backend, driver, uuid, life.size)
    if found.node != life.node and moves(driver):
        found = await backend.call("move_guest", lambda: driver.move_guest(uuid, life.node, live=False))
    return found


async def follow(desk: Desk, backend: Backend, driver: ComputeDriver, life: GuestLife, found: Guest) -> None:
    """A guest was resized outside, or by a request that arrived late: charge what it has, as by a resize that finds it
    done. If its node has no room for that, or its flavor cannot be so, it gets back the size that it is to have."""
    spec = msgspec.msgpack.decode(life.spec)
    spec["flavor"] = {**spec["flavor"], "vcpus": found.vcpus, "memory_mb": found.memory_mb}
    asked = Asked(spec=msgspec.Raw(msgspec.msgpack.encode(spec)), project_id=life.project_id)
    try:
        placed = (await desk.submit(ResizeGuest(uuid=life.uuid, request=asked, target=life.node))).placed
    except InvalidValue as error:
        log.debug("guest %s cannot be charged with the size that it has: %s", life.uuid, error)
        placed = False
    if not placed:
        log.warning("guest %s has another size than it is to have, and gets that back", life.uuid)
        await _to_size(backend, driver, life.uuid, life.size)
