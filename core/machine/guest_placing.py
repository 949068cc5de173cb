"""Placing a guest that a back end is to carry out, with the volumes that are made for it, on the service's state."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ...placement.storage.decision import PoolSelection
from ...placement.storage.with_guests import Locality
from ...placement.types.decision import Decision
from ...placement.types.errors import InvalidValue
from ..engine_commands import Asked
from ..lifecycle_commands import GuestVolume
from ..storage_commands import DeleteVolumes, PlaceTogether
from . import guests, placing, volume_lives, volumes
from .state import ServiceState


class WantedVolumes(msgspec.Struct, frozen=True, array_like=True):
    """The volumes of a guest as they were asked for."""

    volumes: tuple[GuestVolume, ...] = ()
    locality: Locality | None = None


def placed_with(
    state: ServiceState, asked: Asked, wanted: WantedVolumes, now: float, failed_pools: Sequence[str] = ()
) -> tuple[Decision, Sequence[PoolSelection]]:
    """Place a guest with the volumes that are made for it, all or nothing, on back ends. InvalidValue, with nothing
    placed, if one is on a node or pool that belongs to none."""
    chosen: Sequence[PoolSelection] = ()
    if wanted.volumes:
        requests = tuple(each.request for each in wanted.volumes)
        suited = volume_lives.on_attaching(state, asked)
        together = PlaceTogether(request=suited, volumes=requests, locality=wanted.locality)
        joint = volumes.place_with_guest(state, together, now, tuple(failed_pools))
        if joint.guest is None:
            sequence = state.engine.sequence
            none: dict[str, int] = {}
            refused = Decision(sequence=sequence, request_id=asked.request_id, considered=0, removed=none)
            return msgspec.structs.replace(refused, refusal=joint.refusal), ()
        decision, chosen = joint.guest, [each.selected for each in joint.volumes] if joint.placed else ()
        if joint.placed and suited is not asked:
            state.requests.keep((decision.selected.instance_uuid,), state.kept_spec(asked))
    else:
        decision = placed(state, asked, now)
    if decision.placed:
        node = decision.selections[0].node
        others = [each.backend_id for each in chosen if state.lives.backend_of_pool(each.backend_id) is None]
        if others or state.lives.backend_of(node) is None:
            guests.release(state, (decision.selections[0].instance_uuid,))
            if chosen:
                volumes.delete(state, DeleteVolumes(uuids=tuple(each.volume_id for each in chosen)))
            what = f"pool {others[0]}" if others else f"node {node}"
            raise InvalidValue(f"{what}, which was selected, belongs to no back end", field="request")
    return decision, chosen


def placed(state: ServiceState, asked: Asked, now: float) -> Decision:
    """Place a guest. HostlerError."""
    return placing.place_one(state, asked, now)
