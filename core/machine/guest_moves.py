"""Moves of guests that back ends carry out, on the service's state: both ends are held until the back end has moved the
guest, or it is known to have stayed."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ...placement.types.decision import Decision
from ...placement.types.errors import InvalidValue
from ..engine_commands import Asked, BeginMove
from ..lifecycle_commands import EndMigration, MoveGuest, ResizeGuest
from . import guests, volume_lives, volumes
from .kept_requests import as_kept
from .lives import Fault, GuestLife, GuestMove
from .orders import KEEPING_AS_NOVA
from .state import ServiceState

MAX_TEXT: Final = 1_000
EVACUATING_UNSETTLED: Final = 3
"""Revision of the rules (``orders.RULES``) from which on guests are evacuated that were not yet as desired."""
KEEPING_REQUESTS: Final = 7
"""The revision from which on a guest whose move is reverted keeps what it was asked with."""
RESIZING_WITHIN: Final = 8
"""The revision from which on a guest is not resized to a node that is not of its back end."""


def begin(state: ServiceState, life: GuestLife, command: MoveGuest, now: float) -> Decision:
    """Claim a new node of its back end for a guest, and keep the old one."""
    _check(state, life, command)
    lives = state.lives
    _check_target(state, life, command.target)
    asked = None if command.target is not None else _within(state, life, life.spec)
    move = BeginMove(uuid=life.uuid, kind=command.kind, request=asked, target=command.target)
    decision = guests.begin_move(state, move, now)
    if not decision.placed:
        return decision
    (selection,) = decision.selections
    _check_selected(state, life, selection.node)
    if state.rules >= KEEPING_REQUESTS:
        state.requests.keep((life.uuid,), life.spec)
    else:
        state.requests.keep_during_move(life.uuid, life.spec)
    life.move = GuestMove(
        kind=command.kind,
        host=selection.host,
        node=selection.node,
        migration=state.fleet._consumers.moves[life.uuid].migration,
        claim=lives.next_claim() if command.kind == "evacuate" else life.claim,
        until=now + command.seconds,
    )
    life.fault = None
    return decision


def begin_resize(state: ServiceState, life: GuestLife, command: ResizeGuest, now: float) -> Decision:
    """Claim another size for a guest, on its own node or, where that has no room, on another one of its back end, and
    keep the old one."""
    check_can(state, life.backend, "resize", "resizes no guests")
    moving = "move" in state.lives.backends[life.backend].can
    if life.status not in ("active", "stopped") or not life.settled:
        hint = "wait until it is active or stopped, with its volumes and snapshots as they are to be"
        raise InvalidValue(f"guest {life.uuid} is {life.shown}", field="uuid", hint=hint)
    _check_target(state, life, command.target)
    if command.target not in (None, life.node) and not moving:
        raise InvalidValue(f"back end {life.backend}, which has the guest, moves no guests", field="target")
    spec, size = _with_flavor(state, life, command)
    targets = (command.target,) if command.target is not None else (life.node, None) if moving else (life.node,)
    for target in targets:
        again = as_kept(spec) if state.rules >= KEEPING_AS_NOVA else msgspec.Raw(spec)
        asked = Asked(spec=again, project_id=life.project_id)
        if target is None:
            asked = _within(state, life, spec)
        move = BeginMove(uuid=life.uuid, kind="resize", request=asked, target=target)
        decision = guests.begin_move(state, move, now)
        if decision.placed:
            break
    else:
        return decision
    (selection,) = decision.selections
    if state.rules >= RESIZING_WITHIN:
        _check_selected(state, life, selection.node)
    state.requests.keep((life.uuid,), spec)
    life.move = GuestMove(
        kind="resize",
        host=selection.host,
        node=selection.node,
        migration=state.fleet._consumers.moves[life.uuid].migration,
        claim=life.claim,
        until=now + command.seconds,
        vcpus=size[0],
        memory_mb=size[1],
        spec=spec,
    )
    life.fault = None
    return decision


def _with_flavor(state: ServiceState, life: GuestLife, command: ResizeGuest) -> tuple[bytes, tuple[int, int]]:
    """What the guest was asked with, but for the flavor, and the CPUs and MiB of that."""
    asked = command.request
    if asked.project_id not in ("", life.project_id):
        raise InvalidValue(f"guest {life.uuid} is in project {life.project_id!r}", field="request.project_id")
    flavor = state.spec_of(asked).flavor
    disk_gb = flavor.root_gb + flavor.ephemeral_gb
    if disk_gb != life.disk_gb:
        problem = f"the guest has a disk of {life.disk_gb} GiB, which cannot become one of {disk_gb} GiB"
        raise InvalidValue(problem, field="request.spec.flavor", hint="give a flavor with a disk of that size")
    spec: dict[str, Any] = msgspec.msgpack.decode(life.spec)
    spec["flavor"] = msgspec.msgpack.decode(state.kept_spec(asked))["flavor"]
    size = flavor.vcpus, flavor.memory_mb
    if size == life.size:
        problem = f"guest {life.uuid} has {size[0]} CPUs and {size[1]} MiB of memory already"
        raise InvalidValue(problem, field="request.spec.flavor")
    return msgspec.msgpack.encode(spec), size


def check_can(state: ServiceState, backend: str, what: str, problem: str) -> None:
    """InvalidValue for what a back end, which has the guest, cannot do, as it last reported."""
    known = state.lives.backends.get(backend)
    if known is None or what not in known.can:
        raise InvalidValue(f"back end {backend or 'none'}, which has the guest, {problem}", field="uuid")


def _check_target(state: ServiceState, life: GuestLife, target: str | None) -> None:
    if target is not None and state.lives.backend_of(target) != life.backend:
        problem = f"node {target[:100]} is not one of back end {life.backend}, which has the guest"
        raise InvalidValue(problem, field="target")
    volumes.check_zone(state, target or "", life.volumes, "target")


def _check_selected(state: ServiceState, life: GuestLife, node: str) -> None:
    """InvalidValue, with the move reverted, for a node that was selected and is not of the guest's back end."""
    if state.lives.backend_of(node) != life.backend:
        guests.end_move(state, life.uuid, confirm=False)
        raise InvalidValue(f"node {node}, which was selected, is of no back end", field="target")


def _check(state: ServiceState, life: GuestLife, command: MoveGuest) -> None:
    live = command.kind == "live_migrate"
    right = life.status == "active" if live else life.status in ("active", "stopped")
    hint = "wait until it is " + ("active" if live else "active or stopped")
    if command.kind == "evacuate" and state.rules >= EVACUATING_UNSETTLED:  # on its node, nothing can be finished
        right = right and life.desired != "deleted" and life.move is None
    elif right and not all(each.settled for each in life.snapshots.values()):
        problem = f"a snapshot of guest {life.uuid} is being made or removed"
        raise InvalidValue(problem, field="uuid", hint="wait until that is done")
    elif right and life.move is None and life.status == life.desired and life.volumes != life.attached:
        problem = f"volumes of guest {life.uuid} are being attached or detached"
        raise InvalidValue(problem, field="uuid", hint="wait until that is done")
    else:
        right = right and life.settled
    if not right:
        raise InvalidValue(f"guest {life.uuid} is {life.shown}", field="uuid", hint=hint)


def _within(state: ServiceState, life: GuestLife, kept: bytes) -> Asked:
    """What a guest is asked with, on nodes of its back end only."""
    spec: dict[str, Any] = msgspec.msgpack.decode(as_kept(kept) if state.rules >= KEEPING_AS_NOVA else kept)
    others = (node for name, each in state.lives.backends.items() if name != life.backend for node in each.nodes)
    spec["ignore_hosts"] = [*spec.get("ignore_hosts", ()), *others]
    zones = [state.volumes.volumes[uuid].zone for uuid in life.volumes if uuid in state.volumes.volumes]
    if zones and volumes.within_zones(state):
        spec["availability_zone"] = zones[0]
    return Asked(spec=msgspec.Raw(msgspec.msgpack.encode(spec)), project_id=life.project_id)


def note_begun(life: GuestLife) -> None:
    """Calls that move a guest are about to be made. InvalidValue if no move is under way, or has begun."""
    if life.move is None or life.move.begun or life.desired == "deleted":
        raise InvalidValue(f"guest {life.uuid} is {life.shown}: no move of it can be begun", field="uuid")
    life.move = msgspec.structs.replace(life.move, begun=True)


def end(state: ServiceState, life: GuestLife, command: EndMigration, now: float) -> None:
    """A guest is on the target of its move, or has stayed on its source. InvalidValue if no move is under way."""
    move = life.move
    if move is None or life.desired == "deleted":
        raise InvalidValue(f"guest {life.uuid} is {life.shown}: no move of it can be ended", field="uuid")
    if life.uuid in state.fleet._consumers.moves:
        guests.end_move(state, life.uuid, confirm=command.moved)
    life.move, life.changed = None, now
    if not command.moved:
        life.fault = Fault(command.failure, command.text[:MAX_TEXT], now, move.node)
        if command.stayed is not None:
            life.status = "active" if command.stayed == "on" else "stopped"
        return
    if move.kind == "evacuate" and state.rules >= EVACUATING_UNSETTLED:  # it was made with the volumes it is to have
        volume_lives.let_go(state, life)
        life.attached = list(life.volumes)
    if move.kind == "resize":
        life.vcpus, life.memory_mb, life.spec = move.vcpus, move.memory_mb, move.spec
    life.host, life.node, life.claim = move.host, move.node, move.claim
    life.key = command.key or life.key
    life.status = "active" if command.power == "on" else "stopped"
