"""Claims whose answers were lost: the service, or the conductor that asked, was killed between claim and answer. Nova
takes such a guest for one without a host, so that its claim is given back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import numpy as np

from ....core.engine_commands import Release
from ....core.machine.destinations import held_of, is_lost, write_of
from ....core.machine.doubled import without
from ....core.machine.orders import PlacementWrite
from ....core.machine.placement_writes import ServiceModel
from ....core.machine.state import ServiceState
from ....ext.constants import REPORTED, SEEN, UNCOUNTED
from ....ext.fleet_state import consumers_on_rows
from ....ext.tables import format_uuid
from ....placement.api.errors import Conflict
from ....placement.types.errors import UnknownName

log = logging.getLogger("hostler.nova")

SEEK_SECONDS: Final = 10.0
"""Between two searches."""


class LostClaims:
    """Finds and releases them. In the event loop; ``unplaced`` reads databases in a thread."""

    def __init__(
        self,
        state: Callable[[], ServiceState],
        unplaced: Callable[[list[str]], Awaitable[list[str]]],
        unmoved: Callable[[dict[str, str]], Awaitable[list[str]]],
        submit: Callable[[Any], Awaitable[Any]],
    ) -> None:
        """``unplaced``: of uuids those of instances that Nova is done with; ``unmoved``: of instances, by uuid with the
        node that each was to come to, those that it moves no longer; ``submit``: has a command carried out."""
        self._state, self._unplaced, self._unmoved, self._submit = state, unplaced, unmoved, submit
        self._asked: set[str] = set()

    def asked(self, uuids: Iterable[str]) -> None:
        """Hosts for these instances are asked for now: what was read of them before says nothing about that."""
        self._asked.update(uuids)

    async def release(self) -> int:
        """Release the claims, which neither a host nor a client of Placement has shown to know, of instances that Nova
        is done with; how many there were. SourceFailed if a database fails. O(consumers)."""
        self._asked.clear()
        claims = waiting_claims(self._state())
        lost = await self._unplaced(claims) if claims else ()
        count = 0
        for uuid in lost:
            if uuid in self._asked or not is_lost(self._state(), uuid):
                continue
            try:
                await self._submit(Release(uuids=(uuid,)))
            except UnknownName:  # released by others meanwhile
                continue
            log.info("the claim of %s is given back: its answer was lost", uuid)
            count += 1
        return count + await self._release_doubled()

    async def _release_doubled(self) -> int:
        """Release what instances were given beside what they held (an evacuation), of those that Nova moves no longer.
        O(such instances)."""
        nodes = {uuid: each.node for uuid, each in self._state().requests.doubled.items()}
        count = 0
        for uuid in await self._unmoved(nodes) if nodes else ():
            state = self._state()
            if uuid in self._asked or uuid not in state.requests.doubled or state.fleet._kernel.consumers.get(uuid) < 0:
                continue
            left, view = (
                without(state.requests.doubled, uuid, held_of(state, uuid)),
                ServiceModel(state).allocations(uuid),
            )
            generation = None if view is None else view.generation
            write = write_of(state, uuid, left, state.fleet.now or 0.0, generation)
            try:
                await self._submit(PlacementWrite(command=write))
            except (UnknownName, Conflict):  # changed by others meanwhile
                continue
            log.info("what %s was given on %s is given back: the answer was lost", uuid, nodes[uuid])
            count += 1
        return count


def waiting_claims(state: ServiceState) -> list[str]:
    """Instances whose claim was neither reported by a host nor touched by a client of Placement, and that are not being
    moved. O(consumers)."""
    fleet = state.fleet
    where = np.flatnonzero(fleet.is_host[: fleet.rows]).astype(np.int32)
    consumers, _, _, flags = consumers_on_rows(fleet._kernel, where)
    found: list[int] = consumers[flags & (REPORTED | SEEN | UNCOUNTED) == 0].tolist()
    if not found:
        return []
    moves = fleet._consumers.moves
    ends = {*moves, *(move.migration for move in moves.values())}
    uuids = (format_uuid(*fleet._kernel.consumer(consumer)[:2]) for consumer in found)
    return [uuid for uuid in uuids if uuid not in ends and is_lost(state, uuid)]


__all__ = ["SEEK_SECONDS", "LostClaims", "waiting_claims"]
