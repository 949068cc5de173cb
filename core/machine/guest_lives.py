"""Commands on the life cycle of guests, carried out on the service's state. Every change is decided here, by the
commands alone; drivers and clocks are the reconciler's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ...placement.storage.decision import PoolSelection
from ...placement.types.decision import Decision
from ...placement.types.errors import DuplicateName, HostlerError, InUse, InvalidValue, UnknownName
from ...placement.types.steps import finished
from ..backends.errors import FailureClass
from ..engine_commands import Asked
from ..lifecycle_commands import (
    AdoptGuest,
    AttachVolume,
    BeginBuild,
    BeginMigration,
    ClearClaim,
    ClearVolume,
    ConfirmAttachment,
    ConfirmGuest,
    CreateGuest,
    CreateVolume,
    DeleteGuest,
    DeleteGuestSnapshot,
    DetachVolume,
    EndMigration,
    FailBuild,
    FailVolume,
    LoseGuest,
    LoseVolume,
    MoveGuest,
    NoteTrouble,
    OnSnapshotClaim,
    OnVolumeClaim,
    RefuseAttachment,
    RefusePower,
    ReportBackend,
    ReportPools,
    ResizeGuest,
    SetBackend,
    SetInstallation,
    SnapshotGuest,
    StartGuest,
    StopGuest,
)
from . import adoptions, backend_changes, guest_moves, guest_snapshots, guests, volume_lives
from .guest_placing import WantedVolumes, placed, placed_with
from .lives import Fault, GuestChange, GuestLife, VolumeChange, VolumeLife, change_of
from .orders import OWN_PLACES
from .state import ServiceState
from .tenant_answers import without_places

MAX_TEXT: Final = 1_000
LETTING_GO: Final = 3
"""Revision of the rules (``orders.RULES``) from which on a guest that is lost, or is built again, lets go of its
volumes."""
MOVING_FIRST: Final = 7
"""The revision from which on a guest is not lost while it moves: the end of the move comes first."""


def change_lives(state: ServiceState, command: Any, now: float) -> Any:
    """Carry out a command. HostlerError, with nothing changed, if it is refused."""
    match command:
        case CreateGuest():
            return _create(state, command, now)
        case AdoptGuest():
            return _adopt(state, command, now)
        case StartGuest(uuid=uuid):
            return _start(state, state.lives.guest(uuid), now)
        case StopGuest(uuid=uuid):
            return _desire_stopped(state, state.lives.guest(uuid), now)
        case DeleteGuest(uuid=uuid):
            return _delete(state, state.lives.guest(uuid), now)
        case MoveGuest(uuid=uuid):
            return guest_moves.begin(state, state.lives.guest(uuid), command, now)
        case ResizeGuest(uuid=uuid):
            return guest_moves.begin_resize(state, state.lives.guest(uuid), command, now)
        case SnapshotGuest(uuid=uuid) | DeleteGuestSnapshot(uuid=uuid) | OnSnapshotClaim(uuid=uuid):
            return guest_snapshots.change(state, state.lives.guest(uuid), command, now)
        case AttachVolume(uuid=uuid):
            return volume_lives.attach(state, state.lives.guest(uuid), command, now)
        case DetachVolume(uuid=uuid):
            return volume_lives.detach(state, state.lives.guest(uuid), command, now)
        case CreateVolume():
            return volume_lives.create(state, command, now)
        case OnVolumeClaim():
            return _progress_of_volume(state, command, now)
        case SetInstallation(id=name):
            return backend_changes.set_installation(state, name)
        case SetBackend() | ReportBackend() | ReportPools():
            return finished(backend_changes.change(state, command, now))
    return _progress(state, command, now)


def check_not_carried_out(state: ServiceState, uuids: Any) -> None:
    """InUse if a back end carries out one of the guests: what it holds follows its life cycle. O(uuids)."""
    lives = state.lives.guests
    for uuid in uuids if lives else ():
        if uuid in lives:
            hint = "use start_guest, stop_guest, move_guest, resize_guest and delete_guest"
            raise InUse(f"back end {lives[uuid].backend or 'none'} carries out guest {uuid}", field="uuid", hint=hint)


# users


def _create(state: ServiceState, command: CreateGuest, now: float) -> Decision:
    asked, lives = command.request, state.lives
    if len(asked.instance_uuids) > 1:
        raise InvalidValue("one guest is made at a time", field="request.instance_uuids")
    if asked.server_group is not None and not isinstance(asked.server_group, str):
        raise InvalidValue("the server group is one that the service keeps", field="request.server_group")
    group = asked.server_group
    for uuid in asked.instance_uuids:
        if uuid in lives.guests:
            raise DuplicateName(f"there is a guest {uuid}", field="request.instance_uuids")
    if not any(backend.enabled and backend.nodes for backend in lives.backends.values()):
        hint = "configure one in [backends], and see hostler backend list"
        raise InvalidValue("no back end that is enabled has nodes", field="request", hint=hint)
    for number, each in enumerate(command.volumes):
        volume_lives.check_made_new(state, each.request, f"volumes[{number}].request")
    snapshot = guest_snapshots.of_image(state, command.image, asked.project_id)
    if snapshot is not None:
        asked = guest_snapshots.on_backend_of(state, asked, snapshot)
    flavor = state.spec_of(asked).flavor
    spec = bytes(state.kept_spec(asked))
    wanted = WantedVolumes(command.volumes, command.locality)
    decision, chosen = placed_with(state, asked, wanted, now)
    if not decision.placed:
        return decision
    (selection,) = decision.selections
    life = GuestLife(
        uuid=selection.instance_uuid,
        project_id=asked.project_id,
        user_id=asked.user_id,
        name=command.name,
        vcpus=flavor.vcpus,
        memory_mb=flavor.memory_mb,
        disk_gb=flavor.root_gb + flavor.ephemeral_gb,
        image=command.image if snapshot is None else guest_snapshots.IMAGE + snapshot.uuid,
        networks=command.networks,
        user_data=command.user_data,
        spec=spec,
        server_group=group,
        attempts=command.attempts,
        build_seconds=command.build_seconds,
        desired="stopped" if command.stopped else "active",
    )
    lives.guests[life.uuid] = life
    _claim(state, life, decision, now)
    _claim_volumes(state, life, wanted, chosen, now)
    return decision


def _adopt(state: ServiceState, command: AdoptGuest, now: float) -> Decision:
    decision, life = adoptions.begin(state, command, now, placed)
    if life is not None:
        state.lives.guests[life.uuid] = life
        _claim(state, life, decision, now)
        life.key = command.key
    return decision


def _claim_volumes(
    state: ServiceState, life: GuestLife, wanted: WantedVolumes, chosen: Sequence[PoolSelection], now: float
) -> None:
    """Begin the lives of the volumes that were placed with a guest; placed again, they keep their uuids."""
    if not chosen:
        return
    own = []
    for each, selection in zip(wanted.volumes, chosen, strict=True):
        request = msgspec.structs.replace(each.request, volume_id=selection.volume_id)
        own.append(msgspec.structs.replace(each, request=request))
        volume_lives.keep_placed(state, each, selection, life.build_seconds, now, guest=life.uuid)
    life.volumes = [selection.volume_id for selection in chosen]
    life.wanted = msgspec.msgpack.encode(WantedVolumes(tuple(own), wanted.locality))


def _claim(state: ServiceState, life: GuestLife, decision: Decision, now: float) -> None:
    (selection,) = decision.selections
    life.claim = state.lives.next_claim()
    life.host, life.node = selection.host, selection.node
    life.backend = state.lives.backend_of(selection.node) or ""
    life.until, life.key, life.elsewhere = now + life.build_seconds, "", False
    _set_status(life, "placed", now)


def _set_status(life: GuestLife, status: Any, now: float) -> None:
    life.status, life.changed = status, now


def _start(state: ServiceState, life: GuestLife, now: float) -> GuestChange:
    _check_not_deleted(life)
    if life.status == "error":
        if life.adopting:
            hint = "delete it here, and adopt the guest again"
            raise InvalidValue(f"guest {life.uuid} was not adopted", field="uuid", hint=hint)
        life.failed_hosts = []
        if not state.lives.has_volumes(life):
            raise InvalidValue(f"guest {life.uuid} has a volume that is not available", field="uuid")
        if life.node:  # nothing is known to be left there, or it is what is to be built again
            if state.rules >= LETTING_GO:
                volume_lives.let_go(state, life)
            life.attached = []
            life.claim, life.until = state.lives.next_claim(), now + life.build_seconds
            _set_status(life, "placed", now)
        else:
            decision = _place_again(state, life, now)
            if not decision.placed:
                assert decision.refusal is not None
                told = state.rules >= OWN_PLACES  # an error is the same for all users
                refusal = without_places(decision.refusal) if told else decision.refusal
                raise InvalidValue(refusal.sentence, field="uuid", hint=refusal.hint)
    life.desired = "active"
    return change_of(life)


def _desire_stopped(state: ServiceState, life: GuestLife, now: float) -> GuestChange:
    _check_not_deleted(life)
    life.desired = "stopped"
    return change_of(life)


def _check_not_deleted(life: GuestLife) -> None:
    if life.desired == "deleted":
        raise InvalidValue(f"guest {life.uuid} is being deleted", field="uuid")


def _delete(state: ServiceState, life: GuestLife, now: float) -> GuestChange:
    guest_snapshots.check_none(life)
    life.desired, life.changed = "deleted", now
    if life.status == "placed" or not life.node or life.gone:  # no call was made, or nothing is left
        return _gone(state, life, now)
    return change_of(life)


def _forget(state: ServiceState, life: GuestLife) -> GuestChange:
    _release(state, life)
    del state.lives.guests[life.uuid]
    _count_as_others(state, life, life.backend, life.node)
    return msgspec.structs.replace(change_of(life), status="deleted")


def _release(state: ServiceState, life: GuestLife) -> None:
    """Give back what a guest holds; it may have lost it through another interface."""
    try:
        state.fleet.consumer_id(life.uuid)
    except UnknownName:
        return
    guests.release(state, (life.uuid,))


def _count_as_others(state: ServiceState, life: GuestLife, backend: str, node: str) -> None:
    """What a guest was charged that was not adopted is use by others again."""
    if life.adopting and node:
        backend_changes.report_again(state, backend, node)


def _place_again(state: ServiceState, life: GuestLife, now: float) -> Decision:
    """Place a guest that holds nothing, not on hosts where it failed. What it is judged by later stays as it was."""
    spec = msgspec.msgpack.decode(life.spec)
    spec["ignore_hosts"] = [*spec.get("ignore_hosts", ()), *life.failed_hosts]
    raw = msgspec.Raw(msgspec.msgpack.encode(spec))
    asked = Asked(
        spec=raw,
        instance_uuids=(life.uuid,),
        project_id=life.project_id,
        user_id=life.user_id,
        server_group=life.server_group,
    )
    wanted = WantedVolumes()
    if life.wanted and not life.built:
        wanted = msgspec.msgpack.decode(life.wanted, type=WantedVolumes)
    decision, chosen = placed_with(state, asked, wanted, now, life.failed_pools)
    if not decision.placed:
        return decision
    state.requests.keep((life.uuid,), life.spec)
    _claim(state, life, decision, now)
    _claim_volumes(state, life, wanted, chosen, now)
    return decision


# the reconciler


def _progress(state: ServiceState, command: Any, now: float) -> GuestChange:
    life = state.lives.guest(command.uuid)
    if life.claim != command.claim:
        raise InvalidValue(f"claim {command.claim} of guest {life.uuid} is not the present one", field="claim")
    match command:
        case BeginBuild():
            if life.status != "placed" or life.desired == "deleted" or not state.lives.has_volumes(life):
                raise _wrong_status(life, "begun")
            if life.volumes:
                life.until = now + life.build_seconds
            _set_status(life, "building", now)
        case ConfirmGuest():
            return _confirm(state, life, command, now)
        case FailBuild():
            if life.status not in ("placed", "building"):
                raise _wrong_status(life, "failed")
            _fail(state, life, command, now)
        case LoseGuest():
            moving = life.move is not None and state.rules >= MOVING_FIRST
            if life.status not in ("active", "stopped") or life.desired == "deleted" or moving:
                raise _wrong_status(life, "lost")
            text = "the back end no longer has the guest, and its removal was not asked for"
            life.fault = Fault("not_found", text, now, life.node)
            if state.rules >= LETTING_GO:
                volume_lives.let_go(state, life)
            _set_status(life, "error", now)
        case ClearClaim():
            if life.gone or (life.desired != "deleted" and life.status != "clearing"):
                raise _wrong_status(life, "cleared")
            return _gone(state, life, now)
        case BeginMigration():
            guest_moves.note_begun(life)
        case EndMigration():
            guest_moves.end(state, life, command, now)
        case ConfirmAttachment(volume=volume, attached=attached):
            volume_lives.confirm_attachment(state, life, volume, now, attached=attached)
        case RefuseAttachment(volume=volume, failure=failure, text=text, attaching=attaching):
            fault = Fault(failure, text[:MAX_TEXT], now, life.node)
            volume_lives.refuse_attachment(state, life, volume, fault, now, attaching=attaching)
        case RefusePower():
            _refuse_power(life, command, now)
        case NoteTrouble(failure=failure, text=text):
            life.fault = Fault(failure, text[:MAX_TEXT], now, life.node, trouble=True)
    return change_of(life)


def _wrong_status(life: GuestLife, what: str) -> InvalidValue:
    return InvalidValue(f"guest {life.uuid} is {life.shown}: it cannot be {what}", field="uuid")


def _confirm(state: ServiceState, life: GuestLife, command: ConfirmGuest, now: float) -> GuestChange:
    if life.status not in ("building", "active", "stopped"):
        raise _wrong_status(life, "confirmed")
    if life.status == "building":
        life.fault, life.failed_hosts, life.failed_pools = None, [], []
        life.built, life.attached = True, list(life.volumes)
        if life.adopting:
            life.adopting, life.adopted = False, now
            if command.power == "off":
                life.desired = "stopped"  # it is neither started nor stopped
        state.lives.failed_builds.pop(life.node, None)
        _show_failed_builds(state, life.node)
        _spawned(state, life.uuid)
    elif command.outside and command.power == "off" and life.desired == "active":
        life.desired = "stopped"  # shut down from within or outside: as in Nova 33, it stays so
    if life.fault is not None and life.fault.trouble:
        life.fault = None
    life.key = command.key or life.key
    _set_status(life, "active" if command.power == "on" else "stopped", now)
    return change_of(life)


def _refuse_power(life: GuestLife, command: RefusePower, now: float) -> None:
    wanted = "active" if command.power == "on" else "stopped"
    if life.status not in ("active", "stopped") or life.desired != wanted or life.status == wanted:
        raise _wrong_status(life, "refused")
    life.desired = life.status
    life.fault = Fault(command.failure, command.text[:MAX_TEXT], now, life.node, trouble=True)


def _spawned(state: ServiceState, uuid: str) -> None:
    try:
        state.engine.spawned((uuid,))
    except UnknownName:
        return  # it has lost its allocation through another interface


def _fail(state: ServiceState, life: GuestLife, command: FailBuild, now: float) -> None:
    life.fault = Fault(command.failure, command.text[:MAX_TEXT], now, life.node)
    if life.host not in life.failed_hosts:
        life.failed_hosts.append(life.host)
    life.elsewhere = command.elsewhere and not life.adopting
    if life.adopting:
        _set_status(life, "clearing", now)
        return
    failed = state.lives.failed_builds
    failed[life.node] = failed.get(life.node, 0) + 1
    _show_failed_builds(state, life.node)
    _set_status(life, "clearing", now)


def _show_failed_builds(state: ServiceState, node: str) -> None:
    if state.fleet._names.find(node) >= 0:
        state.fleet.report(node, failed_builds=state.lives.failed_builds.get(node, 0))


def _gone(state: ServiceState, life: GuestLife, now: float) -> GuestChange:
    """The back end has nothing of a guest. Its volumes are removed next, where the guest was deleted or never built;
    they hold no data then, or are not to be kept."""
    lives, deleted = state.lives, life.desired == "deleted"
    volume_lives.let_go(state, life)
    life.gone = True
    if deleted or not life.built:
        for uuid in reversed(list(life.volumes)):
            volume = lives.volumes.get(uuid)
            if volume is not None and deleted and volume.keep:
                volume.guest = ""
            elif volume is not None:
                volume_lives.remove(state, volume, now)
                if uuid in lives.volumes:
                    continue
            life.volumes.remove(uuid)
        if life.volumes:
            return change_of(life)
    return _clear(state, life, now)


def _clear(state: ServiceState, life: GuestLife, now: float) -> GuestChange:
    """Nothing is left of a guest that was deleted or could not be built: it is forgotten, or placed again."""
    if life.desired == "deleted":
        return _forget(state, life)
    _release(state, life)
    backend, node = life.backend, life.node
    life.backend = life.host = life.node = life.key = ""
    _count_as_others(state, life, backend, node)
    life.gone = False
    if not life.elsewhere or len(life.failed_hosts) + len(life.failed_pools) >= life.attempts:
        _set_status(life, "error", now)
        return change_of(life)
    try:
        decision = _place_again(state, life, now)
    except HostlerError as error:
        _give_up(life, "permanent", str(error), now)
    else:
        if decision.refusal is not None:
            _give_up(life, "capacity", decision.refusal.sentence, now)
    return change_of(life)


def _progress_of_volume(state: ServiceState, command: OnVolumeClaim, now: float) -> VolumeChange:
    """What happened to a volume, and what follows for the guest that it was made for."""
    volume, change = volume_lives.progress(state, command, now)
    guest = state.lives.guests.get(volume.guest)
    if guest is None or volume.uuid not in guest.volumes:
        return change
    if isinstance(command, FailVolume | LoseVolume) and guest.status == "placed" and not guest.gone:
        _fail_by_volume(state, guest, volume, command, now)
    elif isinstance(command, ClearVolume) and volume.uuid not in state.lives.volumes:
        guest.volumes.remove(volume.uuid)
        if guest.gone and not guest.volumes:
            _clear(state, guest, now)
    return change


def _fail_by_volume(
    state: ServiceState, guest: GuestLife, volume: VolumeLife, command: FailVolume | LoseVolume, now: float
) -> None:
    """A guest that waits for its volumes cannot have one of them: what was made for it is removed."""
    fault = volume.fault
    assert fault is not None
    guest.fault = Fault(
        fault.failure, f"volume {volume.uuid} in {volume.pool}: {fault.text}"[:MAX_TEXT], now, guest.node
    )
    if guest.built:
        guest.volumes.remove(volume.uuid)
        volume.guest = ""
        _set_status(guest, "error", now)
        return
    guest.failed_pools.append(state.storage.pools.volumes[volume.uuid].backend_id)
    guest.elsewhere = isinstance(command, LoseVolume) or command.elsewhere
    _set_status(guest, "clearing", now)
    _gone(state, guest, now)


def _give_up(life: GuestLife, failure: FailureClass, text: str, now: float) -> None:
    before = "" if life.fault is None else f"; before, {life.fault.node}: {life.fault.text}"
    life.fault = Fault(failure, f"{text}{before}"[:MAX_TEXT], now, "")
    _set_status(life, "error", now)
