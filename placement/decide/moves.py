"""Moves in two phases: the new place is claimed and the old one kept, as Nova's migration consumer does, until the move
is confirmed or reverted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ...ext.constants import NOT_INSTANCE, REPORTED
from ...ext.tables import format_uuid, make_many, parse_uuid
from ..fleet.consumers import Detail, Note
from ..fleet.fleet import Fleet
from ..types.errors import DuplicateName, InUse, InvalidValue, UnknownName
from ..types.moves import KINDS, Expiry, MoveKind, PendingMove
from ..types.request import Destination, RequestSpec
from ..types.uuids import plain_uuid
from ..types.validation import finite, uuid_words

MIGRATION: Final = "MIGRATION"
"""Placement's type of a consumer that holds a migration's source."""
EXPIRIES: Final[tuple[Expiry, ...]] = ("revert", "confirm")
_MIGRATION_SEED: Final = 0x4D6F76696E67


def spec_for(fleet: Fleet, spec: RequestSpec, row: int, kind: MoveKind) -> RequestSpec:
    """What is asked of the new place: Nova's conductor keeps flavor, image, zone, traits, hints and group, drops forced
    hosts, leaves the source out (but for a resize and an unshelving, which may end where the guest was), and stays in
    the guest's cell unless the request allows another."""
    destination = spec.requested_destination or Destination()
    cell = fleet._host_class(row).cell_uuid
    if not destination.allow_cross_cell_move and destination.cell_uuid is None and cell is not None:
        destination = replace(destination, cell_uuid=cell)
    ignored = spec.ignore_hosts
    if kind != "resize" and (kind != "unshelve" or not fleet._consumers.counts_standing):
        ignored = (*ignored, fleet._service_host(row))
    named = destination if destination != Destination() else None
    return replace(spec, ignore_hosts=ignored, force_hosts=(), force_nodes=(), requested_destination=named)


def check_kind(kind: object, on_expiry: object) -> None:
    """InvalidValue for a kind of move, or an end at expiry, that there is not."""
    if kind not in KINDS:
        raise InvalidValue(f"kind must be one of {', '.join(KINDS)}, got {kind!r}", field="kind")
    if on_expiry not in EXPIRIES:
        raise InvalidValue(f"on_expiry must be revert or confirm, got {on_expiry!r}", field="on_expiry")


def check_source(fleet: Fleet, row: int, kind: MoveKind) -> None:
    """InvalidValue for the evacuation of a host whose compute service is up, disabled or not (Nova:
    ComputeServiceInUse)."""
    if kind != "evacuate":
        return
    up = fleet.column("service_up")[row] if fleet._services.disabled_is_down else fleet._services.is_alive(row)
    if up:
        hint = "force the service down, or migrate the guest live"
        raise InvalidValue(f"the compute service of {fleet._service_host(row)} is up", field="kind", hint=hint)


def hold_source(fleet: Fleet, uuid: str, migration: str | None) -> str:
    """Give the guest's allocation on its source to a migration consumer, so that the guest's uuid is free for the
    target; the guest stands on the source all the same. Returns the migration's uuid, empty where the source holds no
    allocation. InUse if a move is under way, DuplicateName if the migration's uuid is taken. O(1)."""
    consumers = fleet._consumers
    if uuid in consumers.moves:
        raise InUse(f"instance {uuid} is being moved", field="uuid", hint="confirm or revert that move first")
    consumer = fleet.consumer_id(uuid, field="uuid")
    line = fleet._kernel.consumer(consumer)
    row, properties = line[2], fleet._image_properties.get(consumer, {})
    if line[7] & REPORTED:
        fleet.release([consumer])
        _stand(fleet, row, uuid, properties)
        return ""
    holder = migration if migration is not None else _made(fleet, uuid)
    words = uuid_words(holder, "migration")
    if fleet._kernel.consumers.get(holder) >= 0:
        raise DuplicateName(f"consumer {holder} exists", field="migration")
    consumers.mark([consumer], [line[3]], [line[7] | NOT_INSTANCE])
    consumers.rename(consumer, words)
    note = consumers.notes.get(consumer)
    held = Note(1 if note is None else note.generation, MIGRATION, 0.0 if note is None else note.updated)
    consumers.put_note(consumer, held)
    _stand(fleet, row, uuid, properties)
    return format_uuid(*words)


def _made(fleet: Fleet, uuid: str) -> str:
    """A uuid for the migration, made from the guest's and the fleet's version of it."""
    high, low = parse_uuid(uuid)
    number = 0
    while True:
        made = format_uuid(*make_many((high ^ low ^ _MIGRATION_SEED) % 2**63, number, 1)[0].tolist())
        if fleet._kernel.consumers.get(made) < 0:
            return made
        number += 1


def _stand(fleet: Fleet, row: int, uuid: str, properties: Mapping[str, Any]) -> None:
    fleet._consumers.stand_on(row, {**fleet._consumers.also_on.get(row, {}), uuid: properties})


def _leave(fleet: Fleet, row: int, uuid: str) -> None:
    here = fleet._consumers.also_on.get(row, {})
    if uuid in here:
        fleet._consumers.stand_on(row, {other: known for other, known in here.items() if other != uuid})


def pending(fleet: Fleet, uuid: str) -> PendingMove:
    """The move of a guest; UnknownName if none is under way. O(1)."""
    move = fleet._consumers.moves.get(plain_uuid(uuid)) if isinstance(uuid, str) else None
    if move is None:
        raise UnknownName(f"no move of instance {uuid} is under way", field="uuid")
    return move


def note_move(fleet: Fleet, move: PendingMove) -> None:
    """Remember a move whose target has been claimed. InvalidValue for times that are not finite numbers. O(1)."""
    if move.expires is not None:
        finite(move.expires, "expires")
    fleet._consumers.put_move(move.instance, move)


def confirm(fleet: Fleet, uuid: str) -> PendingMove:
    """The guest has moved: its source is given back. UnknownName if no move is under way. O(1)."""
    move = pending(fleet, uuid)
    uuid = move.instance
    with fleet._history.undoing():
        fleet._consumers.put_move(uuid, None)
        holder = fleet._kernel.consumers.get(move.migration) if move.migration else -1
        if holder >= 0:
            _count_as_instance(fleet, holder)
            _release(fleet, holder)
        _leave(fleet, fleet._names.find(move.source), uuid)
    return move


def revert(fleet: Fleet, uuid: str) -> PendingMove:
    """The guest stays, or is back, where it was: the target is given back. It needs no room, so it cannot fail, also
    where the target or the source holds nothing any more. UnknownName if no move is under way. O(1)."""
    move = pending(fleet, uuid)
    uuid = move.instance
    with fleet._history.undoing():
        fleet._consumers.put_move(uuid, None)
        target = fleet._kernel.consumers.get(uuid)
        properties = fleet._image_properties.get(target) if target >= 0 else None
        if target >= 0:
            _release(fleet, target)
        row = fleet._names.find(move.source)
        _leave(fleet, row, uuid)
        holder = fleet._kernel.consumers.get(move.migration) if move.migration else -1
        if holder >= 0:
            _count_as_instance(fleet, holder)
            fleet._consumers.rename(holder, uuid_words(uuid, "uuid"))
            note = fleet._consumers.notes.get(holder)
            if note is not None:
                fleet._consumers.put_note(holder, note._replace(consumer_type=None) if note.updated else None)
        elif not move.migration and row >= 0:
            project, user = fleet._projects.id(""), fleet._users.id("")
            words = uuid_words(uuid, "uuid")
            fleet._consumers.claim_many([Detail(words, row, -1, project, user, -1, REPORTED, None, properties)])
    return move


def _count_as_instance(fleet: Fleet, consumer: int) -> None:
    line = fleet._kernel.consumer(consumer)
    fleet._consumers.mark([consumer], [line[3]], [line[7] & ~NOT_INSTANCE])


def _release(fleet: Fleet, consumer: int) -> None:
    """Remove a consumer, whatever its host says of the NUMA cells it holds."""
    try:
        fleet.release([consumer])
    except InvalidValue:
        fleet._consumers.put_extras(consumer, replace(fleet._extras[consumer], numa=None))
        fleet.release([consumer])


def release(fleet: Fleet, uuids: Sequence[str]) -> int:
    """Remove guests with what the sources of their moves hold; returns how many guests. Errors as
    ``Fleet.release_uuids``."""
    with fleet._history.undoing():
        count = fleet._release_uuids(uuids)
        for uuid in uuids:
            move = fleet._consumers.moves.get(plain_uuid(uuid)) if fleet._consumers.moves else None
            if move is not None:
                confirm(fleet, uuid)
    return count


def is_confirmed(fleet: Fleet, move: PendingMove) -> bool:
    """True if clients of the Placement API have given back what the source of a move held and left its target, as Nova
    does when it confirms a move: to revert it would leave the guest with nothing. O(1)."""
    find = fleet._kernel.consumers.get
    return bool(move.migration) and find(move.migration) < 0 <= find(move.instance)


def expired(fleet: Fleet, now: float) -> list[PendingMove]:
    """Moves whose time is over, in order of their instances. O(1) before that of the next one, else O(moves)."""
    return fleet._consumers.moves.due(now)


__all__ = [
    "MIGRATION",
    "PendingMove",
    "confirm",
    "expired",
    "hold_source",
    "is_confirmed",
    "note_move",
    "pending",
    "revert",
    "spec_for",
]
