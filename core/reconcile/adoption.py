"""The calls that make a stranger on a back end a guest of this installation, and a stranger again. A guest that is
being adopted is never removed."""

from __future__ import annotations

from ..backends.errors import Conflict, DriverError, NotFound, Permanent
from ..backends.protocol import ComputeDriver, adopts
from ..backends.values import Guest, Mark
from ..machine.lives import GuestLife
from .backend import Backend


async def marked(
    backend: Backend, installation: str, driver: ComputeDriver, life: GuestLife, found: Guest | None
) -> Guest | None:
    """Give a stranger its mark, if it is what it was said to be. ``found``: the guest that has the uuid already.
    Returns the guest; None if it had the mark of an adoption that was given up, which is removed: then once more.
    DriverError."""
    if not adopts(driver):
        raise Permanent(f"back end {backend.name} adopts no guests")
    uuid, claim = life.uuid, life.claim
    if found is None:
        await _check_stranger(backend, driver, life)
        mark = Mark(installation, uuid, claim, adopted=True)
        try:
            return await backend.call("adopt_guest", lambda: driver.adopt_guest(life.key, mark))
        except Conflict as error:
            raise Permanent(error.text) from error
    known = found.mark
    if found.key == life.key and known is not None and known.adopted:
        if known.claim == claim:
            return found
        await disown(backend, driver, uuid, known.claim)
        return None
    raise Permanent(f"back end {backend.name} has another guest {uuid}")


async def _check_stranger(backend: Backend, driver: ComputeDriver, life: GuestLife) -> None:
    """Permanent or NotFound unless the guest is there, no one's, and on the node and of the size that are charged."""

    async def read() -> list[Guest]:
        return [guest async for page in driver.guests() for guest in page.items if guest.key == life.key]

    guests = await backend.call("guests", read)
    if not guests:
        raise NotFound(f"back end {backend.name} has no guest {life.key}")
    guest = guests[0]
    if guest.mark is not None:
        raise Permanent(f"{life.key} is of installation {guest.mark.installation} already")
    if (guest.node, guest.vcpus, guest.memory_mb) != (life.node, life.vcpus, life.memory_mb):
        is_so = f"{life.key} is on {guest.node} with {guest.vcpus} CPUs and {guest.memory_mb} MiB"
        raise Permanent(f"{is_so}, not on {life.node} with {life.vcpus} CPUs and {life.memory_mb} MiB")


async def disown(backend: Backend, driver: ComputeDriver, uuid: str, claim: int, *nodes: str) -> None:
    """Make a guest a stranger again, on the ``nodes`` that it can be on if others do not answer. DriverError."""
    if not adopts(driver):
        return  # it was never marked
    try:
        await backend.call("disown_guest", lambda: driver.disown_guest(uuid, claim))
    except DriverError as error:
        if not nodes or not error.nodes or not error.nodes.isdisjoint(nodes):
            raise
