"""Hosts chosen and claimed as Nova's scheduler does for its conductors: claims are allocations that the Placement API
shows, and an instance that is asked for again is on its way to another host, or its first answer was lost."""

from __future__ import annotations

import msgspec

from ...ext.constants import REPORTED, SEEN
from ...placement.api import commands as api
from ...placement.api.allocations import INSTANCE
from ...placement.decide.moves import hold_source
from ...placement.types.decision import Decision
from ...placement.types.errors import DuplicateName, HostlerError, InvalidValue
from ...placement.types.steps import finished
from ...placement.types.validation import uuid_words
from ..engine_commands import Asked
from ..errors import DEPENDS_ON_COMMAND
from .doubled import Doubled, settle, without
from .guests import release
from .placement_writes import carry_out
from .placing import place_one
from .state import ServiceState


def select_destinations(state: ServiceState, asked: Asked, now: float, *, replaces: bool) -> Decision:
    """Choose and claim a host for each instance of a request, all or none.

    A claim of this service that no host has included in a report yet is replaced: its answer was lost, and the caller
    asks again. An instance that holds allocations (an evacuation) keeps them and holds those of the new host beside
    them, as Nova's claim_resources doubles them up, and with ``replaces`` without what an earlier call so claimed and
    whose answer may be lost; one that a host reports and that holds none, as what it held is
    with its migration, is claimed on the new host and stands on the old one too. The check of a rebuild claims nothing.
    A refusal changes nothing but that lost claims are given back. InvalidValue for a malformed uuid, DuplicateName if
    several instances are asked for and one of them is known. O(as a placement), for a rebuild O(hosts).
    """
    if not asked.instance_uuids:
        raise InvalidValue("the instances are not named", field="request.instance_uuids")
    for uuid in asked.instance_uuids:
        uuid_words(uuid, "request.instance_uuids")
    request = state.request(asked, now)
    if request.is_rebuild:
        fleet = state.fleet
        rows = [row for row, is_host in enumerate(fleet.is_host) if is_host]
        return state.engine.choose(request, candidates={fleet.uuid(row): [{}] for row in rows})
    known = [uuid for uuid in asked.instance_uuids if state.fleet._kernel.consumers.get(uuid) >= 0]
    lost = [uuid for uuid in known if is_lost(state, uuid)]
    if lost:
        release(state, lost)
        known = [uuid for uuid in known if uuid not in lost]
    if known and len(asked.instance_uuids) > 1:
        raise DuplicateName(f"instance {known[0]} exists", field="request.instance_uuids")
    if not known:
        return _placed(state, asked, now)
    uuid = known[0]
    if _flags(state, uuid) & REPORTED:
        return _beside_the_reported(state, asked, uuid, now)
    return _doubled_up(state, asked, uuid, now, replaces=replaces)


def are_new(state: ServiceState, asked: Asked, now: float) -> bool:
    """True if a request is for instances of which none is known, so that they are placed as any others."""
    try:
        if state.request(asked, now).is_rebuild:
            return False
        return bool((state.fleet._consumers.find(asked.instance_uuids) < 0).all())
    except (HostlerError, *DEPENDS_ON_COMMAND):
        return False  # which is said when it is carried out


def _flags(state: ServiceState, uuid: str) -> int:
    kernel = state.fleet._kernel
    return int(kernel.consumer(kernel.consumers.get(uuid))[7])


def is_lost(state: ServiceState, uuid: str) -> bool:
    """True for a claim of the service's own that neither a host nor a client of Placement has shown to know; False for
    one that is not there any more."""
    fleet = state.fleet
    consumer = fleet._kernel.consumers.get(uuid)
    if consumer < 0:
        return False
    return not _flags(state, uuid) & (SEEN | REPORTED) and consumer not in fleet._consumers.notes


def _placed(state: ServiceState, asked: Asked, now: float) -> Decision:
    return place_one(state, asked, now)


def _beside_the_reported(state: ServiceState, asked: Asked, uuid: str, now: float) -> Decision:
    fleet = state.fleet
    start = fleet._history.hold()
    try:
        hold_source(fleet, uuid, None)
        decision = _placed(state, asked, now)
    except BaseException:
        fleet._history.go(start)
        raise
    if not decision.placed:
        fleet._history.go(start)
    return decision


def _doubled_up(state: ServiceState, asked: Asked, uuid: str, now: float, *, replaces: bool) -> Decision:
    fleet, engine = state.fleet, state.engine
    holds, request = held_of(state, uuid), state.request(asked, now)
    held = without(state.requests.doubled, uuid, holds) if replaces else holds
    start = fleet._history.hold()
    try:
        hold_source(fleet, uuid, None)
        decision = engine.place(request)
    finally:
        fleet._history.go(start)
    new: dict[str, dict[str, int]] = {}
    if decision.placed:
        # As with Nova's report client, providers that it has already, such as a shared disk, stay as they are.
        given = decision.selected.allocations
        new = {provider: dict(each) for provider, each in given.items() if provider not in held}
    elif held == holds:
        return decision
    write = write_of(state, uuid, held | new, now)
    finished(carry_out(state, write, state.rules, None))
    settle(state.requests.doubled, (uuid,))
    if decision.placed:
        if replaces and new:
            state.requests.doubled[uuid.lower()] = Doubled(node=decision.selected.node, allocations=new)
        state.requests.keep((uuid,), state.kept_spec(asked))
    return decision


def write_of(
    state: ServiceState, uuid: str, allocations: dict[str, dict[str, int]], now: float, generation: int | None = None
) -> api.SetAllocations:
    """The write that has a known instance hold these allocations, if its generation is still that one."""
    consumer = state.fleet.consumer(uuid)
    write = api.ConsumerAllocations(
        allocations=allocations,
        project_id=consumer.project_id,
        user_id=consumer.user_id,
        generation=msgspec.UNSET if generation is None else generation,
        consumer_type=INSTANCE,
    )
    return api.SetAllocations(now=now, consumers={uuid: write}, infer_types=True)


def held_of(state: ServiceState, uuid: str) -> dict[str, dict[str, int]]:
    """{provider uuid: {resource class: amount}} of an instance."""
    consumer = state.fleet.consumer(uuid)
    held = {name: dict(amounts) for name, amounts in consumer.elsewhere.items()}
    if consumer.resources:
        held[consumer.provider] = dict(consumer.resources)
    fleet = state.fleet
    return {fleet.uuid(fleet.row(name)): amounts for name, amounts in held.items()}


__all__ = ["held_of", "is_lost", "select_destinations", "write_of"]
