"""Commands on guests that were placed: holding and moving them, and giving back what they took. A guest is counted in
the same step in which it is moved or removed, so limits hold exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Sequence
from typing import Final

import msgspec

from ...placement.decide.moves import expired, is_confirmed, pending, revert
from ...placement.plan.guests import Guests
from ...placement.types.decision import Decision
from ...placement.types.errors import InUse, InvalidValue
from ...placement.types.moves import PendingMove
from ...placement.types.request import Destination, RequestSpec
from ..engine_commands import (
    AddServerGroup,
    Asked,
    BeginMove,
    Hold,
    Move,
    RemoveServerGroup,
    Resize,
    SpecField,
)
from ..engine_commands import asked as asked_for
from ..errors import DEPENDS_ON_COMMAND
from ..tenancy.usage import INSTANCES, SERVER_GROUPS
from .edits import edit
from .guest_claims import check_claim
from .kept_requests import as_kept
from .orders import INSTANCES_BY_TYPE, KEEPING_AS_NOVA, KEEPING_GUESTS
from .placing import place_one_in_steps, unexpected
from .state import ServiceState

EXPIRING: Final = 500
"""Guests that are released in one step when their holds are over."""
ENDING: Final = 8
"""Moves that are ended in one step when their time is over."""
Held = list[tuple[str, dict[str, int]]]
"""(project, amounts with ``instances``) of consumers."""


def release(state: ServiceState, uuids: Sequence[str], claim: str = "") -> int:
    """Remove guests, all or none, with a ``claim`` those that were placed under it; what the sources of their moves
    hold goes with them."""
    if claim:
        check_claim(state, uuids, claim)
    held = state.holdings(uuids)
    held += [_source(state, uuid) for uuid in uuids if uuid in state.fleet._consumers.moves]
    count = state.engine.release(uuids)
    for project, amounts in held:
        state.usage.add(state.tenants, project, amounts, -1)
    state.requests.forget(uuids)
    state.holds.end(uuids)
    return count


def hold(state: ServiceState, command: Hold, now: float) -> Generator[None, None, Decision]:
    """Place a request, in steps; its guests are released after a time unless they are confirmed."""
    outcome = yield from place_one_in_steps(state, command.request, now)
    state.holds.add((each.instance_uuid for each in outcome.selections), now + command.expires_in)
    return outcome


def confirm_hold(state: ServiceState, uuids: Sequence[str]) -> int:
    """Have held guests stay, all or none; returns how many."""
    for uuid in uuids:
        state.project_of(uuid)  # which says if there is none
        if uuid not in state.holds:
            raise InvalidValue(f"instance {uuid} is not held", field="uuids")
    return state.holds.end(uuids)


def expire_holds(state: ServiceState, now: float) -> Generator[None, None, None]:
    """Release held guests whose time is over, in steps between which the state is that after some of them. O(those)."""
    due = state.holds.due(now)
    consumers = state.fleet._kernel.consumers
    for first in range(0, len(due), EXPIRING):
        if first:
            yield
        some = due[first : first + EXPIRING]
        standing = [uuid for uuid in some if consumers.get(uuid) >= 0]
        state.holds.end(some)
        if standing:
            release(state, standing)


def _source(state: ServiceState, uuid: str) -> tuple[str, dict[str, int]]:
    """(project, amounts) that the source of a guest's move holds; the guest itself is counted at its target."""
    move = state.fleet._consumers.moves[uuid]
    if not move.migration or state.fleet._kernel.consumers.get(move.migration) < 0:
        return state.project_of(uuid), {}
    project, amounts = state.holding(move.migration)
    return project, {name: amount for name, amount in amounts.items() if name != INSTANCES}


def begin_move(state: ServiceState, command: BeginMove, now: float) -> Decision:
    """Claim a new place for a guest and keep the old one. Both count in the project's usage, the instance once."""
    uuid = command.uuid
    consumer = state.fleet.consumer(uuid)
    asked = again(state, uuid, command.request, command.changes)
    known = asked is not None or command.target is None or state.requests.get(uuid) is not None
    if asked is None:
        asked = state.asked_of(uuid) if known else derived(state, uuid)
    project, before = consumer.project_id, _held_by(state, (uuid,))
    if asked.project_id not in ("", project):
        raise InvalidValue(f"instance {uuid} is in project {project!r}", field="project_id")
    asked = msgspec.structs.replace(asked, project_id=project)
    request = state.request(asked, now, (uuid,)).with_changes(user_id=consumer.user_id)
    if command.target is not None:
        request = request.with_changes(spec=_to(state, request.spec, command.target))
    more = {name: amount for name, amount in state.amounts(request).items() if name != INSTANCES}
    state.usage.check(state.tenants, project, more)
    expires = None if command.expires_in is None else now + command.expires_in
    options = {"kind": command.kind, "migration": command.migration, "on_expiry": command.on_expiry}
    try:
        decision = state.engine.begin_move(uuid, request, expires=expires, **options)  # type: ignore[arg-type]  # one dict for keywords of several types
    except DEPENDS_ON_COMMAND:
        raise unexpected() from None
    if decision.placed:
        ends = (uuid, state.fleet._consumers.moves[consumer.uuid].migration)
        _count_change(state, before, _held_by(state, ends))
        if known:
            state.requests.keep_during_move(uuid, state.kept_spec(asked))
    return decision


def again(state: ServiceState, uuid: str, given: Asked | None, changes: Sequence[SpecField] | None) -> Asked | None:
    """A request to place a guest again: as given, or what it was asked with but for the fields in ``changes``, and
    without the hosts that were named. O(size of the specs)."""
    kept = state.requests.get(uuid) if changes is not None else None
    if given is None or changes is None or kept is None:
        return given
    kept = as_kept(kept) if state.rules >= KEEPING_AS_NOVA else kept
    spec, new = msgspec.msgpack.decode(kept), msgspec.msgpack.decode(state.kept_spec(given))
    for name in ("force_hosts", "force_nodes", *changes):
        spec.pop(name, None)
    spec.update((name, new[name]) for name in changes if name in new)
    return msgspec.structs.replace(given, spec=msgspec.Raw(msgspec.msgpack.encode(spec)))


def check_no_sources(state: ServiceState, uuids: Sequence[str]) -> None:
    """InUse for the consumer that holds the source of a move: the end of the move gives it back. O(uuids + moves)."""
    known, moves = state.fleet._kernel.consumers, state.fleet._consumers.moves
    sources = {known.get(move.migration): uuid for uuid, move in moves.items() if move.migration}
    for consumer in state.fleet._consumers.find(uuids).tolist():
        if consumer >= 0 and consumer in sources:
            problem = f"it holds the source of the move of instance {sources[consumer]}"
            raise InUse(problem, field="uuid", hint="confirm or revert that move")


def derived(state: ServiceState, uuid: str) -> Asked:
    """A request for what an instance holds. InvalidValue if none can be derived."""
    guests = Guests(state.fleet, {"kind": "cold_migrate"})
    guest = guests.of(state.fleet.consumer_id(uuid, field="uuid"))
    if guest.request is None:
        raise InvalidValue(f"instance {uuid} cannot move: {guest.stays}", field="request", hint="give the request")
    return asked_for(guest.request.with_changes(server_group=None))


def _to(state: ServiceState, spec: RequestSpec, node: str) -> RequestSpec:
    """A spec for one node only."""
    host = state.fleet._service_host(state.fleet.row(node, field="target"))
    destination = spec.requested_destination or Destination()
    return dataclasses.replace(spec, requested_destination=dataclasses.replace(destination, host=host, node=node))


def end_move(state: ServiceState, uuid: str, *, confirm: bool) -> PendingMove:
    """Confirm or revert the move of a guest: one of its ends no longer counts. One that clients of the Placement API
    have confirmed is not reverted, as the guest would be left with nothing."""
    fleet = state.fleet
    under_way = pending(fleet, uuid)  # which says if there is none
    uuid, ends = under_way.instance, (under_way.instance, under_way.migration)
    confirmed = confirm or (state.rules >= KEEPING_GUESTS and is_confirmed(fleet, under_way))
    before = _held_by(state, ends)
    move = state.engine.confirm(uuid) if confirmed else revert(fleet, uuid)
    _count_change(state, before, _held_by(state, ends))
    state.requests.end_move(uuid, confirm=confirmed)
    state.forget_gone((uuid,))
    return move


def _count_change(state: ServiceState, before: Held, after: Held) -> None:
    """Count what consumers hold instead of what they held."""
    for sign, held in ((-1, before), (1, after)):
        for project, amounts in held:
            state.usage.add(state.tenants, project, amounts, sign)


def _held_by(state: ServiceState, ends: Iterable[str]) -> Held:
    """(project, amounts) of the ends of a move; clients of the Placement API may have removed either of them."""
    consumers = state.fleet._kernel.consumers
    held = [state.holding(uuid) for uuid in ends if uuid and consumers.get(uuid) >= 0]
    if state.rules >= INSTANCES_BY_TYPE:
        return held
    return [(project, {name: n for name, n in amounts.items() if name != INSTANCES}) for project, amounts in held]


def expire_moves(state: ServiceState, now: float) -> Generator[None, None, None]:
    """End the moves whose time is over, in steps; those that clients of the Placement API have confirmed so. O(1)
    before that of the next one, else O(moves)."""
    for number, move in enumerate(expired(state.fleet, now)):
        if number and number % ENDING == 0:
            yield
        end_move(state, move.instance, confirm=move.on_expiry == "confirm")


def replace(state: ServiceState, command: Move | Resize, now: float, *, rules: int) -> Decision:
    """Place a guest again, in the pools of its project: on another host, or (Resize) wherever it fits with another
    flavor. Without a request it is judged by what was asked when it was placed. Under rules 0 a request without a
    project is in no pools."""
    uuid, leave = command.uuid, isinstance(command, Move)
    consumer = state.fleet.consumer(uuid)
    given = again(state, uuid, command.request, command.changes)
    asked = given if given is not None else state.asked_of(uuid)
    project, before = state.holding(uuid)
    if asked.project_id not in ("", project):
        raise InvalidValue(f"instance {uuid} is in project {project!r}", field="project_id")
    if rules:
        asked = msgspec.structs.replace(asked, project_id=project)
    request = state.request(asked, now, (uuid,)).with_changes(project_id=project, user_id=consumer.user_id)
    engine, tenants, usage = state.engine, state.tenants, state.usage
    usage.add(tenants, project, before, -1)
    after = before
    try:
        usage.check(tenants, project, state.amounts(request))
        decision = engine.move(uuid, request) if leave else engine.resize(uuid, request)
        if decision.placed:
            after = state.holding(uuid)[1]
            state.requests.keep((uuid,), state.kept_spec(asked))
        return decision
    except DEPENDS_ON_COMMAND:
        raise unexpected() from None
    finally:
        usage.add(tenants, project, after)


def change_groups(state: ServiceState, command: AddServerGroup | RemoveServerGroup, now: float) -> None:
    """Add or remove a server group; a group of a project counts towards its limit."""
    tenants, usage, owners = state.tenants, state.usage, state.group_owners
    if isinstance(command, AddServerGroup):
        project = command.project_id
        if project:
            usage.check_groups(tenants, project)
        edit(state.engine, command, now)
        if project:
            owners[state.fleet._server_groups.kept(command.uuid)] = project
            usage.add(tenants, project, {SERVER_GROUPS: 1})
        return
    uuid = state.fleet._server_groups.kept(command.uuid)
    edit(state.engine, command, now)
    owner = owners.pop(uuid, None)
    if owner is not None:
        usage.add(tenants, owner, {SERVER_GROUPS: 1}, -1)
