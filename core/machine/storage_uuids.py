"""Uuids that callers give to new volumes, snapshots, backups and volume groups: none of them is one of another kind's.
A ``source`` is a volume or a snapshot, and what a uuid names must not depend on who looks it up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...placement.types.errors import DuplicateName
from ..lifecycle_commands import CreateGuest, CreateVolume
from ..storage_commands import (
    AskedVolume,
    CreateVolumeBackup,
    CreateVolumeSnapshot,
    ManageVolume,
    PlaceTogether,
    PlaceVolume,
    PlaceVolumeGroup,
)
from .volume_records import VolumeRecords


def check_apart(records: VolumeRecords, command: Any) -> None:
    """DuplicateName if a new volume, snapshot, backup or volume group of a command would have the uuid of something of
    another kind, or two of them that of each other. O(new ones)."""
    kept: dict[str, Mapping[str, object]] = {
        "volume": records.volumes,
        "snapshot": records.snapshots,
        "backup": records.backups,
        "volume group": records.groups,
    }
    new: dict[str, str] = {}
    for kind, uuid, field in _new(command):
        other = new.get(uuid, kind)
        if other == kind:
            other = next((each for each, known in kept.items() if each != kind and uuid in known), kind)
        if other != kind:
            problem = f"{other} {uuid} exists, and a {kind} cannot have its uuid"
            raise DuplicateName(problem, field=field, hint="give another uuid, or none")
        new[uuid] = kind


def _new(command: Any) -> Iterator[tuple[str, str, str]]:
    """(kind, uuid, field) of what is to be made under a uuid that was given."""
    volumes: Sequence[AskedVolume] = ()
    match command:
        case PlaceVolume(request=request) | ManageVolume(request=request) | CreateVolume(request=request):
            volumes = (request,)
        case PlaceVolumeGroup(volumes=volumes, group_id=group):
            if group is not None:
                yield "volume group", group, "group_id"
        case PlaceTogether(volumes=volumes):
            pass
        case CreateGuest(volumes=of_guest):
            volumes = tuple(each.request for each in of_guest)
        case CreateVolumeSnapshot(snapshot_id=str(uuid)):
            yield "snapshot", uuid, "snapshot_id"
        case CreateVolumeBackup(backup_id=str(uuid)):
            yield "backup", uuid, "backup_id"
    for each in volumes:
        if each.volume_id is not None:
            yield "volume", each.volume_id, "volume_id"
