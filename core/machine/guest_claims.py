"""Guests that a parent of regions has had placed: which claim of the parent each belongs to. The region is asked again
under the same claim where an answer was lost, and must neither place twice nor release what is another's."""

from __future__ import annotations

from collections.abc import Sequence

from ...placement.types.decision import Decision, Selection
from ...placement.types.errors import UnknownName
from ..engine_commands import Asked
from .state import ServiceState


def claimed_before(state: ServiceState, asked: Asked) -> Decision | None:
    """The decision on a request all of whose instances stand, placed under the same claim; None if not all do. It has
    where they are now and what they take, and neither scores nor alternates. O(instances)."""
    claims, consumers = state.requests.claims, state.fleet._kernel.consumers
    uuids = asked.instance_uuids
    if not uuids or any(claims.get(uuid) != asked.claim or consumers.get(uuid) < 0 for uuid in uuids):
        return None
    if any(state.project_of(uuid) != asked.project_id for uuid in uuids):
        return None
    return Decision(
        sequence=state.engine.sequence,
        request_id=asked.request_id,
        considered=0,
        removed={},
        selections=tuple(_selection(state, uuid) for uuid in uuids),
    )


def _selection(state: ServiceState, uuid: str) -> Selection:
    fleet = state.fleet
    consumer = fleet.consumer(uuid)
    row = fleet.row(consumer.provider)
    static = fleet._host_class(row)
    taken = {consumer.provider: consumer.resources, **consumer.elsewhere}
    return Selection(
        instance_uuid=uuid,
        host=fleet._service_host(row),
        node=consumer.provider,
        provider_uuid=fleet.uuid(row),
        cell_uuid=static.cell_uuid,
        availability_zone=state.engine._context.zone_of(static),
        weight=0.0,
        allocations={fleet.uuid(fleet.row(name)): dict(amounts) for name, amounts in taken.items() if amounts},
    )


def check_claim(state: ServiceState, uuids: Sequence[str], claim: str) -> None:
    """UnknownName unless all guests were placed under the claim. O(guests)."""
    for uuid in uuids:
        if state.requests.claims.get(uuid) != claim:
            raise UnknownName(f"no consumer {uuid[:40]} of claim {claim}", field="uuids")


def forget_gone(state: ServiceState, uuids: Sequence[str]) -> None:
    """Drop the claims of consumers that are not there any more: one that comes later is another's. O(consumers)."""
    claims, consumers = state.requests.claims, state.fleet._kernel.consumers
    for uuid in uuids if claims else ():
        if uuid in claims and consumers.get(uuid) < 0:
            del claims[uuid]
