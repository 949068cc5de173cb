"""Commands on volumes that back ends carry out, on the service's state: making and removing them, and attaching them to
guests. Where a volume goes, and what it counts, is decided in ``volumes``."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ...placement.storage.decision import PoolSelection, VolumeDecision
from ...placement.types.errors import InUse, InvalidValue
from ..engine_commands import Asked
from ..lifecycle_commands import (
    DETACH_SECONDS,
    AttachVolume,
    BeginVolume,
    ClearVolume,
    ConfirmVolume,
    CreateVolume,
    DetachVolume,
    FailVolume,
    GuestVolume,
    LoseVolume,
    NoteVolumeTrouble,
)
from ..storage_commands import AskedVolume, DeleteVolumes, OnVolume
from . import volumes
from .lives import Fault, GuestChange, GuestLife, VolumeChange, VolumeLife, change_of, volume_change_of
from .state import ServiceState

MAX_TEXT: Final = 1_000
REFUSING_SOURCES: Final = 3
BOOTING_BY_GUEST: Final = 3
DETACHING_UNCONFIRMED: Final = 7
KEEPING_TIMES: Final = 8
"""Revisions of the rules (``orders.RULES``) from which on this is so."""


def check_not_carried_out(state: ServiceState, command: Any) -> None:
    """InUse for a change of a volume that a back end carries out, which would not follow it. O(1)."""
    if isinstance(command, OnVolume) and command.uuid in state.lives.volumes:
        name = state.lives.volumes[command.uuid].backend
        hint = "only delete_volumes, attach_volume and detach_volume change it"
        raise InUse(f"back end {name} carries out volume {command.uuid}", field="uuid", hint=hint)


# users


def create(state: ServiceState, command: CreateVolume, now: float) -> VolumeDecision:
    """Place a volume in a pool of a back end."""
    if not any(each.enabled and each.pools for each in state.lives.backends.values()):
        hint = "configure one in [backends], and see hostler backend list"
        raise InvalidValue("no back end that is enabled has pools", field="request", hint=hint)
    check_made_new(state, command.request, "request")
    decision = volumes.place(state, command.request, now)
    if decision.selection is not None:
        wanted = GuestVolume(request=command.request, name=command.name, image=command.image, keep=True)
        keep_placed(state, wanted, decision.selection, command.build_seconds, now)
    return decision


def check_made_new(state: ServiceState, asked: AskedVolume, field: str) -> None:
    """InvalidValue for a volume with a source or group: drivers make volumes blank or from an image, each by itself."""
    for name in ("source", "group") if state.rules >= REFUSING_SOURCES else ():
        if getattr(asked, name) is not None:
            hint = "leave it out, or place the volume without a back end (place_volume)"
            raise InvalidValue(f"back ends make no volumes with a {name}", field=f"{field}.{name}", hint=hint)


def keep_placed(
    state: ServiceState, wanted: GuestVolume, chosen: PoolSelection, build_seconds: float, now: float, guest: str = ""
) -> VolumeLife:
    """Begin the life of a volume that was placed. InvalidValue, with the volume removed, if no back end has the
    pool."""
    lives, uuid = state.lives, chosen.volume_id
    backend = lives.backend_of_pool(chosen.backend_id)
    if backend is None:
        volumes.delete(state, DeleteVolumes(uuids=(uuid,)))
        raise InvalidValue(f"pool {chosen.backend_id}, which was selected, belongs to no back end", field="request")
    record = state.volumes.volume(uuid)
    life = VolumeLife(
        uuid=uuid,
        project_id=record.project_id,
        name=wanted.name,
        size_gb=record.size_gb,
        image=wanted.image,
        backend=backend,
        pool=chosen.pool_name,
        claim=lives.next_claim(),
        build_seconds=build_seconds,
        until=now + build_seconds,
        changed=now,
        guest=guest,
        keep=wanted.keep,
    )
    lives.volumes[uuid] = life
    return life


def delete(state: ServiceState, command: DeleteVolumes, now: float) -> int:
    """Have volumes removed, all or none: at once, or, where a back end has them, once it has removed them."""
    lives = state.lives
    carried_out = [lives.volumes[uuid] for uuid in dict.fromkeys(command.uuids) if uuid in lives.volumes]
    for life in carried_out:
        if life.guest:
            hint = "detach it, or delete the guest"
            raise InUse(f"volume {life.uuid} is of guest {life.guest}", field="uuids", hint=hint)
    others = tuple(uuid for uuid in command.uuids if uuid not in lives.volumes)
    if others:
        volumes.delete(state, msgspec.structs.replace(command, uuids=others))
    for life in carried_out:
        remove(state, life, now)
    return len(others) + len(carried_out)


def remove(state: ServiceState, life: VolumeLife, now: float) -> None:
    """Have a volume removed; one for which no call was made is forgotten at once."""
    life.desired, life.changed = "deleted", now
    if life.status == "placed":
        forget(state, life)


def forget(state: ServiceState, life: VolumeLife) -> None:
    """Give back what a volume holds. It may have lost it through another interface."""
    del state.lives.volumes[life.uuid]
    if life.uuid in state.volumes.volumes:
        volumes.delete(state, DeleteVolumes(uuids=(life.uuid,), cascade=True))


def on_attaching(state: ServiceState, asked: Asked) -> Asked:
    """What is asked, on none of the nodes whose back ends attach no volumes; the same object if there are none."""
    others = [node for each in state.lives.backends.values() if not each.attaches for node in each.nodes]
    if not others:
        return asked
    spec = msgspec.msgpack.decode(asked.spec)
    spec["ignore_hosts"] = [*(spec.get("ignore_hosts") or ()), *others]
    return msgspec.structs.replace(asked, spec=msgspec.Raw(msgspec.msgpack.encode(spec)))


def attach(state: ServiceState, guest: GuestLife, command: AttachVolume, now: float) -> GuestChange:
    """Have a volume attached to a guest."""
    life = state.lives.volumes.get(command.volume)
    if life is None or life.project_id != guest.project_id:
        raise InvalidValue(f"no back end has a volume {command.volume[:40]} of the guest's project", field="volume")
    _check_changeable(guest)
    if command.volume in guest.volumes:
        return change_of(guest)
    if life.guest:
        raise InUse(f"volume {life.uuid} is of guest {life.guest}", field="volume", hint="detach it first")
    if life.status != "available" or life.desired == "deleted":
        raise InvalidValue(f"volume {life.uuid} is {life.shown}", field="volume")
    backend = state.lives.backends.get(guest.backend)
    if backend is not None and not backend.attaches:
        raise InvalidValue(f"back end {guest.backend}, which has the guest, attaches no volumes", field="uuid")
    volumes.check_zone(state, guest.node, (life.uuid,), "volume")
    life.guest = guest.uuid
    guest.volumes.append(life.uuid)
    guest.attaching[life.uuid] = now + command.seconds
    return change_of(guest)


def detach(state: ServiceState, guest: GuestLife, command: DetachVolume, now: float) -> GuestChange:
    """Have a volume detached from a guest."""
    _check_changeable(guest)
    if command.volume not in guest.volumes:
        raise InvalidValue(f"guest {guest.uuid} has no volume {command.volume[:40]}", field="volume")
    if command.volume == guest.volumes[0] and _boots_from_volume(state, guest):
        raise InvalidValue(f"guest {guest.uuid} boots from volume {command.volume}", field="volume")
    guest.volumes.remove(command.volume)
    if command.volume not in guest.attached and state.rules >= DETACHING_UNCONFIRMED:
        guest.attached.append(command.volume)  # the call that attaches it may be under way
    guest.attaching.pop(command.volume, None)
    guest.detaching[command.volume] = now + command.seconds
    return change_of(guest)


def _boots_from_volume(state: ServiceState, guest: GuestLife) -> bool:
    """True for a guest that was made with volumes and without an image of its own: it boots from the first one."""
    if state.rules >= BOOTING_BY_GUEST:
        return not guest.image and bool(guest.wanted)
    return bool(state.lives.volume(guest.volumes[0]).image)


def _check_changeable(guest: GuestLife) -> None:
    if guest.desired == "deleted" or guest.move is not None or guest.status not in ("active", "stopped"):
        raise InvalidValue(
            f"guest {guest.uuid} is {guest.shown}", field="uuid", hint="wait until it is active or stopped"
        )


# the reconciler


def let_go(state: ServiceState, guest: GuestLife) -> None:
    """The back end has nothing of a guest: it has no volume attached, and those that were being detached are free."""
    for uuid in guest.attached:
        if uuid not in guest.volumes and uuid in state.lives.volumes:
            state.lives.volumes[uuid].guest = ""
    guest.attached, guest.attaching, guest.detaching = [], {}, {}


def confirm_attachment(state: ServiceState, guest: GuestLife, uuid: str, now: float, *, attached: bool) -> None:
    """A guest has a volume, or has it no longer. One that it is to have, and has lost, is attached again."""
    there = {*guest.attached, uuid} if attached else {*guest.attached} - {uuid}
    guest.attached = _ordered(guest, there)
    guest.attaching.pop(uuid, None)
    if not attached or uuid in guest.volumes or state.rules < KEEPING_TIMES:  # else it was to be detached meanwhile
        guest.detaching.pop(uuid, None)
    if not attached and uuid in guest.volumes:
        guest.attaching[uuid] = now + DETACH_SECONDS
    if not attached and uuid not in guest.volumes and uuid in state.lives.volumes:
        state.lives.volumes[uuid].guest = ""


def refuse_attachment(
    state: ServiceState, guest: GuestLife, uuid: str, fault: Fault, now: float, *, attaching: bool
) -> None:
    """A volume cannot be attached: the guest goes on without it. Or it cannot be detached: the guest keeps it.
    ``attaching``: a call that attaches it has failed; if it is to be detached by now, the guest has let it go."""
    if attaching and uuid in guest.attached and uuid not in guest.volumes:
        confirm_attachment(state, guest, uuid, now, attached=False)
        return
    if (uuid in guest.volumes) == (uuid in guest.attached):
        raise InvalidValue(f"volume {uuid} is not about to be attached to guest {guest.uuid}", field="volume")
    guest.fault = fault
    if uuid in guest.attached:
        guest.volumes.append(uuid)
        guest.attached = _ordered(guest, set(guest.attached))
        guest.detaching.pop(uuid, None)
        return
    guest.volumes.remove(uuid)
    guest.attaching.pop(uuid, None)
    if uuid in state.lives.volumes:
        state.lives.volumes[uuid].guest = ""


def _ordered(guest: GuestLife, attached: set[str]) -> list[str]:
    """Volumes that a guest has, in the order of those that it is to have."""
    return [each for each in dict.fromkeys((*guest.volumes, *guest.attached)) if each in attached]


def progress(state: ServiceState, command: Any, now: float) -> tuple[VolumeLife, VolumeChange]:
    """Carry out what the reconciler tells of a volume; returns its life too, which may have ended."""
    life = state.lives.volume(command.volume)
    if life.claim != command.claim:
        raise InvalidValue(f"claim {command.claim} of volume {life.uuid} is not the present one", field="claim")
    match command:
        case BeginVolume():
            _check(life, "begun", "placed")
            life.status = "building"
        case ConfirmVolume(key=key):
            _check(life, "confirmed", "building")
            life.status, life.key, life.fault = "available", key, None
        case FailVolume(failure=failure, text=text):
            _check(life, "failed", "placed", "building")
            life.fault = Fault(failure, text[:MAX_TEXT], now, life.pool)
            life.status = "clearing"
        case LoseVolume(text=text):
            _check(life, "lost", "available")
            gone = "the back end no longer has the volume, and its removal was not asked for"
            life.fault = Fault("permanent" if text else "not_found", text[:MAX_TEXT] or gone, now, life.pool)
            life.status = "error"
        case NoteVolumeTrouble(failure=failure, text=text):
            life.fault = Fault(failure, text[:MAX_TEXT], now, life.pool)
            return life, volume_change_of(life)
        case ClearVolume():
            return life, _clear(state, life, now)
    life.changed = now
    return life, volume_change_of(life)


def _check(life: VolumeLife, what: str, *statuses: str) -> None:
    if life.status not in statuses or (life.desired == "deleted" and what in ("begun", "lost")):
        raise InvalidValue(f"volume {life.uuid} is {life.shown}: it cannot be {what}", field="volume")


def _clear(state: ServiceState, life: VolumeLife, now: float) -> VolumeChange:
    if life.desired == "deleted":
        change = msgspec.structs.replace(volume_change_of(life), status="deleted")
        forget(state, life)
        return change
    _check(life, "cleared", "clearing")
    life.status, life.changed = "error", now
    return volume_change_of(life)
