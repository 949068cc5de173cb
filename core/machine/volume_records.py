"""What the service keeps of volumes beside the pools that they are on: what each was asked with, its type, snapshots,
backups, group and move, and what that counts in quotas. It knows no fleet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, TypeVar
from uuid import UUID, uuid5

import msgspec

from ...placement.storage.pools.request import Retry, VolumeSpec
from ...placement.types.errors import DuplicateName, UnknownName
from ..storage_commands import StorageKind
from .holds import Holds

VOLUMES: Final = "volumes"
GIGABYTES: Final = "gigabytes"
SNAPSHOTS: Final = "snapshots"
BACKUPS: Final = "backups"
BACKUP_GIGABYTES: Final = "backup_gigabytes"
GROUPS: Final = "groups"
PER_VOLUME: Final = "per_volume_gigabytes"
"""Names of Cinder's quotas; those of one volume type have its name behind them: ``gigabytes_gold``."""


class VolumeMove(msgspec.Struct, frozen=True, kw_only=True):
    """A retype or migration under way: the spec and the type that the volume has once it is confirmed, and whether it
    goes to another pool. ``expires``: seconds since the epoch at which it is reverted."""

    kind: Literal["retype", "migrate"]
    spec: VolumeSpec
    volume_type: str
    zone: str
    elsewhere: bool
    expires: float | None = None


class KeptVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One volume: ``spec`` has its present size and type, ``volume_type`` the name that quotas count it by (empty:
    none), ``zone`` is that of its pool. ``retry``: what the next attempt at making it must carry."""

    spec: VolumeSpec
    project_id: str = ""
    user_id: str = ""
    volume_type: str = ""
    zone: str = ""
    group: str | None = None
    source: str | None = None
    created: float = 0.0
    snapshots: tuple[str, ...] = ()
    retry: Retry | None = None
    move: VolumeMove | None = None

    @property
    def size_gb(self) -> int:
        """Its size in GiB."""
        return self.spec.size_gb


class KeptSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot: its volume, the pool that was charged its size, and when it was made."""

    volume: str
    backend_id: str
    size_gb: int
    created: float


class KeptBackup(msgspec.Struct, frozen=True, kw_only=True):
    """One backup: the volume that it was made of, the host of the backup service, and when it was made."""

    volume: str
    project_id: str
    host: str
    size_gb: int
    created: float


class KeptGroup(msgspec.Struct, frozen=True, kw_only=True):
    """One volume group: all of its volumes are on ``backend`` (``host@backend``)."""

    project_id: str
    backend: str
    group_type: str
    created: float


class BackupService(msgspec.Struct, frozen=True, kw_only=True):
    """A backup service."""

    availability_zone: str = "nova"
    up: bool = True
    disabled: bool = False


Kept = TypeVar("Kept")
_NAMESPACE: Final = UUID("2f3c1a8e-9a57-4d43-8f7e-5d0e6b1b7c11")


class VolumeRecords(msgspec.Struct, dict=True):
    """All of them by uuid. Names of one kind are unique; each method that changes something does so as a whole."""

    volumes: dict[str, KeptVolume] = {}
    snapshots: dict[str, KeptSnapshot] = {}
    backups: dict[str, KeptBackup] = {}
    groups: dict[str, KeptGroup] = {}
    backup_services: dict[str, BackupService] = {}
    made: int = 0
    """Uuids that were made here."""

    def __post_init__(self) -> None:
        # Ends of moves and members of groups; derived, so that snapshots do not hold them.
        self.ends = Holds(_ends(self.volumes))
        self._members: dict[str, dict[str, None]] = {}
        for uuid, volume in self.volumes.items():
            if volume.group is not None:
                self._members.setdefault(volume.group, {})[uuid] = None

    def copy(self) -> VolumeRecords:
        """Records that change apart from these. O(volumes)."""
        return VolumeRecords(
            dict(self.volumes),
            dict(self.snapshots),
            dict(self.backups),
            dict(self.groups),
            dict(self.backup_services),
            self.made,
        )

    # volumes

    def volume(self, uuid: str, field: str = "uuid") -> KeptVolume:
        """The volume of a uuid; UnknownName if there is none. O(1)."""
        return _known(self.volumes, "volume", uuid, field)

    def put(self, uuid: str, volume: KeptVolume) -> None:
        """Keep a volume, in place of the one of this uuid, of the same group. O(log moves)."""
        self.ends.end((uuid,))
        self.volumes[uuid] = volume
        if volume.group is not None:
            self._members.setdefault(volume.group, {})[uuid] = None
        if volume.move is not None and volume.move.expires is not None:
            self.ends.add((uuid,), volume.move.expires)

    def drop(self, uuid: str) -> None:
        """Forget a volume with its snapshots. O(snapshots of it)."""
        known = self.volumes.pop(uuid)
        self.ends.end((uuid,))
        if known.group is not None:
            members = self._members[known.group]
            del members[uuid]
            if not members:
                del self._members[known.group]
        for snapshot in known.snapshots:
            del self.snapshots[snapshot]

    def new_uuid(self, kind: str) -> str:
        """A uuid for something that comes without one, which nothing kept has; the same commands make the same."""
        while True:
            self.made += 1
            made = str(uuid5(_NAMESPACE, f"{kind}/{self.made}"))
            if not any(made in kept for kept in (self.snapshots, self.backups, self.groups)):
                return made

    def has_type(self, name: str) -> bool:
        """True if a volume is of a type, or is to be. O(volumes)."""
        return any(
            volume.volume_type == name or (volume.move is not None and volume.move.volume_type == name)
            for volume in self.volumes.values()
        )

    def members(self, group: str) -> list[str]:
        """Uuids of a group's volumes, in the order in which they came. O(members)."""
        return list(self._members.get(group, ()))

    # others

    def snapshot(self, uuid: str, field: str = "uuids") -> KeptSnapshot:
        """The snapshot of a uuid; UnknownName if there is none. O(1)."""
        return _known(self.snapshots, "snapshot", uuid, field)

    def backup(self, uuid: str, field: str = "uuids") -> KeptBackup:
        """The backup of a uuid; UnknownName if there is none. O(1)."""
        return _known(self.backups, "backup", uuid, field)

    def group(self, uuid: str, field: str = "uuid") -> KeptGroup:
        """The group of a uuid; UnknownName if there is none. O(1)."""
        return _known(self.groups, "volume group", uuid, field)

    def check_new(self, kind: str, kept: Mapping[str, object], uuid: str, field: str) -> None:
        """DuplicateName if there is something of this kind with this uuid. O(1)."""
        if uuid in kept:
            raise DuplicateName(f"{kind} {uuid} exists", field=field)

    # owners

    def project_of(self, kind: StorageKind, uuid: str) -> str | None:
        """Project of a volume, snapshot, backup or group; None if there is none of this uuid. O(1)."""
        if kind == "snapshot":
            snapshot = self.snapshots.get(uuid)
            return None if snapshot is None else self.volumes[snapshot.volume].project_id
        kept: Mapping[str, KeptVolume | KeptBackup | KeptGroup] = self.volumes
        if kind != "volume":
            kept = self.backups if kind == "backup" else self.groups
        return kept[uuid].project_id if uuid in kept else None

    # quotas

    def amounts(self, uuid: str) -> dict[str, int]:
        """What a volume and its snapshots count. O(snapshots of it)."""
        volume = self.volumes[uuid]
        sizes = [self.snapshots[each].size_gb for each in volume.snapshots]
        return amounts_of(volume, sizes)

    def totals(self) -> Iterator[tuple[str, dict[str, int]]]:
        """(project, amounts) of everything, one by one. O(all)."""
        for uuid, volume in self.volumes.items():
            yield volume.project_id, self.amounts(uuid)
        for backup in self.backups.values():
            yield backup.project_id, {BACKUPS: 1, BACKUP_GIGABYTES: backup.size_gb}
        for group in self.groups.values():
            yield group.project_id, {GROUPS: 1}


def amounts_of(volume: KeptVolume, snapshots: Iterable[int] = ()) -> dict[str, int]:
    """What a volume counts with snapshots of these sizes in GiB: by Cinder's names, each also by the volume's type, and
    during a retype by both types (Cinder 29, get_volume_type_reservation)."""
    sizes = list(snapshots)
    plain = {VOLUMES: 1, GIGABYTES: volume.size_gb + sum(sizes), SNAPSHOTS: len(sizes)}
    types = [volume.volume_type] if volume.volume_type else []
    if volume.move is not None and volume.move.volume_type not in ("", volume.volume_type):
        types.append(volume.move.volume_type)
    found = dict(plain)
    for name in types:
        found.update((f"{resource}_{name}", amount) for resource, amount in plain.items())
    return {name: amount for name, amount in found.items() if amount}


def difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """What there is more of; negative where there is less."""
    names = dict.fromkeys((*before, *after))
    changes = {name: after.get(name, 0) - before.get(name, 0) for name in names}
    return {name: change for name, change in changes.items() if change}


def _ends(volumes: Mapping[str, KeptVolume]) -> dict[str, float]:
    moves = ((uuid, volume.move) for uuid, volume in volumes.items() if volume.move is not None)
    return {uuid: move.expires for uuid, move in moves if move.expires is not None}


def _known(kept: Mapping[str, Kept], kind: str, uuid: str, field: str) -> Kept:
    found = kept.get(uuid)
    if found is None:
        raise UnknownName(f"there is no {kind} {uuid[:60]}", field=field)
    return found
