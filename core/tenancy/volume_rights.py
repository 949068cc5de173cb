"""Access rights to storage: the role that each command requires, and what requests of those who are not cloud admins
may specify.

Volumes, snapshots, backups and groups belong to projects; backends, backup services, migrations and volume types to the
cloud. What is refused is told alike for what is not there and for what is not the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from ...placement.storage.pools.request import VolumeSpec
from ...placement.types.validation import whole_number
from ..engine_commands import Asked
from ..lifecycle_commands import CreateGuest, CreateVolume
from ..storage_commands import (
    AskedVolume,
    BeginRetype,
    ConfirmVolumeMove,
    CreateVolumeBackup,
    CreateVolumeSnapshot,
    DeleteVolumeBackups,
    DeleteVolumeGroup,
    DeleteVolumes,
    DeleteVolumeSnapshots,
    ExtendVolume,
    PlaceTogether,
    PlaceVolume,
    PlaceVolumeGroup,
    RetryVolume,
    RevertVolumeMove,
    StorageKind,
)
from . import admission
from .errors import NotAllowed
from .rights import FOR_CLOUD_ADMINS, Facts, Need, check_request_of_reader, no_instance, not_readable, project_scope
from .tenants import CLOUD, RANK, Tenants, is_internal

SPEC_FIELDS: Final = frozenset(
    {"size_gb", "volume_type", "qos_specs", "availability_zone", "availability_zones", "scheduler_hints", "metadata"}
)
"""Fields of a VolumeSpec that tenants may give; the type by name, QoS specs as the type has them, and these hints:"""
VOLUME_HINTS: Final = ("same_host", "different_host")
"""Scheduler hints that name volumes, which must be such that the caller may see."""
GUEST_HINT: Final = "local_to_instance"
"""The one that names a guest."""


class StorageFacts(Facts, Protocol):
    """What has to be known of the state, besides the tenants."""

    def storage_project(self, kind: StorageKind, uuid: str) -> str | None:
        """Project of a volume, snapshot, backup or group; None if there is none."""

    def volume_spec_of(self, asked: AskedVolume) -> tuple[VolumeSpec, str | None]:
        """The spec of a request, and the name of the kept type in it."""

    def may_use_type(self, name: str, project: str, field: str) -> None:
        """UnknownName if there is no such volume type, or it is not for the project."""


def check(tenants: Tenants, user: str, command: Any, facts: StorageFacts, rules: int) -> Sequence[Need]:
    """NotAllowed unless the user may give the command; returns what that took. ``rules``: the revision that it was
    given under. O(names in it)."""
    if is_internal(user):
        return ()
    kind, uuids = named(command)
    found = _needs(command, kind, uuids, facts)
    for need in found:
        if tenants.role(user, need.scope) < RANK[need.role]:
            raise _refusal(user, kind, need)
    if tenants.role(user, CLOUD) >= RANK["cloud_admin"]:
        return found
    match command:
        case PlaceVolume(request=request):
            check_volumes(tenants, user, (request,), facts)
        case PlaceVolumeGroup(volumes=volumes):
            _check_group(command, facts)
            check_volumes(tenants, user, volumes, facts)
        case PlaceTogether(request=guest, volumes=volumes):
            check_request_of_reader(tenants, user, guest, facts, rules)
            check_volumes(tenants, user, volumes, facts)
        case BeginRetype(volume_type=wanted):
            if not isinstance(wanted, str):
                raise _refused("volume_type")
            facts.may_use_type(wanted, facts.storage_project("volume", command.uuid) or "", "volume_type")
    return found


def _check_group(command: PlaceVolumeGroup, facts: StorageFacts) -> None:
    if isinstance(command.group_type, str):
        facts.may_use_type(command.group_type, command.project_id, "group_type")
    elif command.group_type is not None:
        raise _refused("group_type")


def named(command: Any) -> tuple[StorageKind, Sequence[str]]:
    """What a command is about that is there already: its kind, and uuids."""
    match command:
        case DeleteVolumeSnapshots(uuids=uuids):
            return "snapshot", uuids
        case DeleteVolumeBackups(uuids=uuids):
            return "backup", uuids
        case DeleteVolumeGroup(uuid=uuid):
            return "group", (uuid,)
        case DeleteVolumes(uuids=uuids):
            return "volume", uuids
    one = getattr(command, "uuid", None)
    return "volume", () if one is None else (one,)


_OF_OWNERS: Final = (
    *(DeleteVolumes, DeleteVolumeSnapshots, DeleteVolumeBackups, DeleteVolumeGroup, ExtendVolume, BeginRetype),
    *(ConfirmVolumeMove, RevertVolumeMove, CreateVolumeSnapshot, CreateVolumeBackup, RetryVolume),
)
STORAGE_FOR_OTHERS: Final = frozenset((PlaceVolume, PlaceVolumeGroup, PlaceTogether, *_OF_OWNERS))
"""Commands on storage that others than cloud admins may give."""


def _needs(command: Any, kind: StorageKind, uuids: Sequence[str], facts: StorageFacts) -> Sequence[Need]:
    match command:
        case PlaceVolume(request=AskedVolume(project_id=project)) | PlaceTogether(request=Asked(project_id=project)):
            return (Need("member", project_scope(project)),)
        case PlaceVolumeGroup(project_id=project):
            return (Need("member", project_scope(project)),)
    if not isinstance(command, _OF_OWNERS):
        return (FOR_CLOUD_ADMINS._replace(uuid=uuids[0] if uuids else ""),)
    found: dict[str | None, Need] = {}
    for uuid in uuids:
        owner = facts.storage_project(kind, uuid)
        if owner not in found:
            known = FOR_CLOUD_ADMINS if owner is None else Need("member", project_scope(owner))
            found[owner] = known._replace(uuid=uuid)
    return list(found.values())


def check_volumes_of_guests(tenants: Tenants, user: str, command: Any, facts: StorageFacts) -> None:
    """``check_volumes`` of those that a command has back ends make. O(volumes)."""
    if is_internal(user):
        return
    match command:
        case CreateGuest(volumes=wanted) if wanted:
            check_volumes(tenants, user, (each.request for each in wanted), facts)
        case CreateVolume(request=request):
            check_volumes(tenants, user, (request,), facts)


def check_volumes(tenants: Tenants, user: str, volumes: Iterable[AskedVolume], facts: StorageFacts) -> None:
    """HostlerError if a request may come from cloud admins only, or names what its project may not use or see.
    O(requests)."""
    if tenants.role(user, CLOUD) >= RANK["cloud_admin"]:
        return
    for asked in volumes:
        tenants.require(user, "reader", project_scope(asked.project_id))
        spec, name = facts.volume_spec_of(asked)
        if name is not None:
            facts.may_use_type(name, asked.project_id, "spec.volume_type")
        _check_spec(spec, name)
        if asked.user_id not in ("", user):
            raise _refused("user_id")
        if asked.alternates:
            raise _refused("alternates")
        for hint in VOLUME_HINTS:
            for uuid in _texts(spec.scheduler_hints.get(hint, ())):
                if not may_read(tenants, user, "volume", uuid, facts):
                    raise not_yours("volume", uuid, f"spec.scheduler_hints.{hint}")
        guests = _texts(spec.scheduler_hints.get(GUEST_HINT, ()))
        unread = not_readable(tenants, user, guests, facts) if guests else None
        if unread is not None:
            raise no_instance(guests[unread], f"spec.scheduler_hints.{GUEST_HINT}")


def _check_spec(spec: VolumeSpec, type_name: str | None) -> None:
    for name in admission.given(spec):
        if name not in SPEC_FIELDS:
            raise _refused(f"spec.{name}")
    if type_name is None and (spec.volume_type is not None or spec.qos_specs is not None):
        raise _refused("spec.volume_type" if spec.volume_type is not None else "spec.qos_specs")
    for hint in spec.scheduler_hints:
        if hint not in (*VOLUME_HINTS, GUEST_HINT):
            raise _refused(f"spec.scheduler_hints.{hint}"[:200])
    whole_number(spec.size_gb, "spec.size_gb", least=1)


def _texts(value: object) -> list[str]:
    """A hint's values as texts."""
    return list(map(str, value)) if isinstance(value, list | tuple) else [str(value)]


def may_read(tenants: Tenants, user: str, kind: StorageKind, uuid: str, facts: StorageFacts) -> bool:
    """True for readers of the project of what is there."""
    project = facts.storage_project(kind, uuid)
    return project is not None and tenants.role(user, project_scope(project)) >= RANK["reader"]


def _refused(field: str) -> NotAllowed:
    hint = "name a volume type that the service keeps" if "type" in field or "qos" in field else None
    return NotAllowed(f"only cloud admins may specify {field}", field=field, hint=hint)


def _refusal(user: str, kind: StorageKind, need: Need) -> NotAllowed:
    if need.uuid:
        return not_yours(kind, need.uuid)
    return NotAllowed(
        f"user {user} is no {need.role} of {need.scope[:200]}", field="user", hint="ask an admin of that scope"
    )


def not_yours(kind: StorageKind, uuid: str, field: str = "uuid") -> NotAllowed:
    """The same error for what others have and for what there is not."""
    return NotAllowed(f"no {kind} {uuid[:40]} of a project of yours", field=field)
