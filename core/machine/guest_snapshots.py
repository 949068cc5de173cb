"""Commands on snapshots of guests that back ends make, on the service's state. A snapshot is an image of the disk that
a guest has of its own; it belongs to the guest, which stays as long as it has any."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ...ext.tables import format_uuid, make_many, parse_uuid
from ...placement.types.errors import DuplicateName, InUse, InvalidValue, UnknownName
from ...placement.types.uuids import plain_uuid
from ...placement.types.validation import uuid_words
from ..engine_commands import Asked
from ..lifecycle_commands import (
    BeginSnapshot,
    ClearSnapshot,
    ConfirmSnapshot,
    DeleteGuestSnapshot,
    FailSnapshot,
    LoseSnapshot,
    NoteSnapshotTrouble,
    OnSnapshotClaim,
    SnapshotGuest,
)
from .guest_moves import check_can
from .lives import Fault, GuestLife, SnapshotChange, SnapshotLife, snapshot_change_of
from .state import ServiceState

MAX_TEXT: Final = 1_000
MOST: Final = 100
"""Snapshots of one guest."""
IMAGE: Final = "snapshot:"
"""What the image of a guest begins with that is made from a snapshot; its uuid follows."""
_SEED: Final = 0x536E617073686F74


def change(state: ServiceState, life: GuestLife, command: Any, now: float) -> SnapshotChange:
    """Carry out a command on a snapshot of a guest. HostlerError, with nothing changed, if it is refused."""
    match command:
        case SnapshotGuest():
            return _begin(state, life, command, now)
        case DeleteGuestSnapshot(snapshot=uuid):
            return _remove(state, life, _known(life, uuid), now)
    return _progress(state, life, command, now)


def check_none(life: GuestLife) -> None:
    """InUse for a guest that has snapshots."""
    if life.snapshots:
        hint = "delete them first: hostler guest snapshots, delete-snapshot"
        raise InUse(f"guest {life.uuid} has {len(life.snapshots)} snapshots", field="uuid", hint=hint)


def of_image(state: ServiceState, image: str, project: str) -> SnapshotLife | None:
    """The snapshot that an image of a guest names; None for another image. InvalidValue if there is none that can be
    used in the project. O(1)."""
    if not image.startswith(IMAGE):
        return None
    uuid = plain_uuid(image.removeprefix(IMAGE))
    owner = state.lives.guest_of_snapshot(uuid)
    if owner is None or owner.project_id != project:
        raise InvalidValue(f"there is no snapshot {uuid[:40]} in the project", field="image")
    life = owner.snapshots[uuid]
    if life.shown != "available":
        raise InvalidValue(f"snapshot {uuid} is {life.shown}", field="image", hint="wait until it is available")
    return life


def on_backend_of(state: ServiceState, asked: Asked, snapshot: SnapshotLife) -> Asked:
    """What is asked, on nodes only of the back end that has a snapshot."""
    others = [node for name, each in state.lives.backends.items() if name != snapshot.backend for node in each.nodes]
    spec = msgspec.msgpack.decode(state.kept_spec(asked))
    spec["ignore_hosts"] = [*(spec.get("ignore_hosts") or ()), *others]
    return msgspec.structs.replace(asked, spec=msgspec.Raw(msgspec.msgpack.encode(spec)))


# users


def _begin(state: ServiceState, life: GuestLife, command: SnapshotGuest, now: float) -> SnapshotChange:
    lives = state.lives
    check_can(state, life.backend, "snapshot", "makes no snapshots of guests")
    if life.desired == "deleted" or life.move is not None or life.status not in ("active", "stopped"):
        hint = "wait until it is active or stopped"
        raise InvalidValue(f"guest {life.uuid} is {life.shown}", field="uuid", hint=hint)
    uuid = format_uuid(*uuid_words(command.snapshot, "snapshot")) if command.snapshot else ""
    owner = lives.guest_of_snapshot(uuid)
    if owner is life:
        return snapshot_change_of(life, life.snapshots[uuid])
    if owner is not None:
        raise DuplicateName(f"there is a snapshot {uuid}", field="snapshot")
    if len(life.snapshots) >= MOST:
        raise InvalidValue(f"guest {life.uuid} has {MOST} snapshots, the most there can be", field="uuid")
    claim = lives.next_claim()
    made = SnapshotLife(
        uuid=uuid or _made_uuid(life.uuid, claim),
        name=command.name,
        backend=life.backend,
        claim=claim,
        until=now + command.seconds,
        changed=now,
    )
    lives.add_snapshot(life, made)
    return snapshot_change_of(life, made)


def _made_uuid(guest: str, claim: int) -> str:
    """A uuid made from those of the guest and the claim, so that a replay makes the same."""
    high, low = parse_uuid(guest)
    return format_uuid(*make_many((high ^ low ^ _SEED) % 2**63, claim, 1)[0].tolist())


def _known(life: GuestLife, uuid: str) -> SnapshotLife:
    known = life.snapshots.get(uuid)
    if known is None:
        raise UnknownName(f"guest {life.uuid} has no snapshot {uuid[:40]}", field="snapshot")
    return known


def _remove(state: ServiceState, life: GuestLife, snapshot: SnapshotLife, now: float) -> SnapshotChange:
    image = IMAGE + snapshot.uuid
    made = next((each.uuid for each in state.lives.guests.values() if each.image == image), None)
    if made is not None:
        raise InUse(f"guest {made} was made from snapshot {snapshot.uuid}", field="snapshot", hint="delete it first")
    snapshot.desired, snapshot.changed = "deleted", now
    if snapshot.status == "placed":  # no call was made
        return _forget(state, life, snapshot)
    return snapshot_change_of(life, snapshot)


def _forget(state: ServiceState, life: GuestLife, snapshot: SnapshotLife) -> SnapshotChange:
    state.lives.drop_snapshot(life, snapshot)
    return msgspec.structs.replace(snapshot_change_of(life, snapshot), status="deleted")


# the reconciler


def _progress(state: ServiceState, life: GuestLife, command: OnSnapshotClaim, now: float) -> SnapshotChange:
    snapshot = _known(life, command.snapshot)
    if snapshot.claim != command.claim:
        problem = f"claim {command.claim} of snapshot {snapshot.uuid} is not the present one"
        raise InvalidValue(problem, field="claim")
    match command:
        case BeginSnapshot():
            _check(snapshot, "begun", "placed")
            snapshot.status = "building"
        case ConfirmSnapshot(key=key):
            _check(snapshot, "confirmed", "building")
            snapshot.status, snapshot.key, snapshot.fault = "available", key, None
        case FailSnapshot(failure=failure, text=text):
            _check(snapshot, "failed", "placed", "building")
            snapshot.status, snapshot.fault = "clearing", Fault(failure, text[:MAX_TEXT], now, life.node)
        case LoseSnapshot():
            _check(snapshot, "lost", "available")
            text = "the back end no longer has the snapshot, and its removal was not asked for"
            snapshot.status, snapshot.fault = "error", Fault("not_found", text, now, life.node)
        case NoteSnapshotTrouble(failure=failure, text=text):
            snapshot.fault = Fault(failure, text[:MAX_TEXT], now, life.node)
            return snapshot_change_of(life, snapshot)
        case ClearSnapshot():
            if snapshot.desired == "deleted":
                return _forget(state, life, snapshot)
            _check(snapshot, "cleared", "clearing")
            snapshot.status = "error"
    snapshot.changed = now
    return snapshot_change_of(life, snapshot)


def _check(snapshot: SnapshotLife, what: str, *statuses: str) -> None:
    if snapshot.status not in statuses or (snapshot.desired == "deleted" and what in ("begun", "lost")):
        problem = f"snapshot {snapshot.uuid} is {snapshot.shown}: it cannot be {what}"
        raise InvalidValue(problem, field="snapshot")
