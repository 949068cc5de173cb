"""Commands on storage as plain, tagged values: volume backends and what they report, volumes, their moves, snapshots,
backups and groups. What drivers carry out is not part of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

import msgspec

from ..placement.storage.decision import VolumeDecision, VolumeGroupDecision
from ..placement.storage.pools.request import VolumeSpec, VolumeType, check_volume_spec
from ..placement.storage.with_guests import Locality
from ..placement.types.errors import InvalidValue
from ..placement.types.from_builtins import from_plain
from ..placement.types.recently_used import RecentlyUsed
from .engine_commands import SPECS_BYTES, Asked, Command, bytes_decoded, decode_spec

Uuids = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=10_000)]
StorageKind = Literal["volume", "snapshot", "backup", "group"]
"""What of storage belongs to a project."""
HostName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=31_536_000)]


class AskedVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A VolumeRequest as it is sent: ``spec`` is its VolumeSpec in MessagePack, whose ``volume_type`` may be the name
    of one that the service keeps. ``source``: uuid of the volume or snapshot that it is made of; it goes to the pool of
    that, and is of its type unless it says otherwise. ``group``: uuid of the volume group that it joins. Its time is
    the command's."""

    spec: msgspec.Raw
    volume_id: str | None = None
    project_id: str = ""
    user_id: str = ""
    source: str | None = None
    group: str | None = None
    alternates: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 0
    request_id: str | None = None


class StorageBase(Command, frozen=True):
    """Base of all commands of this module."""


class OnVolume(StorageBase, frozen=True):
    """Base of commands on one volume that is there."""

    uuid: str


# backends


class VolumeBackendReport(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """All that a volume service knows of its backend ``host`` (``host@backend``), or of that of its cluster:
    ``capabilities`` as a driver's ``get_volume_stats`` gives them, capacities in GiB. ``at``: time of the report in
    seconds since the epoch; the command's where it is left out or later. ``availability_zone``: of a service that is
    new (default: nova)."""

    host: HostName
    capabilities: dict[str, Any]
    at: float | None = None
    cluster_name: str | None = None
    availability_zone: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None


class ReportVolumeBackends(StorageBase, frozen=True, tag="report_volume_backends"):
    """Complete reports of volume backends; all or none. Services that are not known are added, pools that a report
    leaves out are gone. A report that is older than the one before it is left aside, and one that was made before a
    volume was placed does not undo what that took. Answers how many were taken in."""

    reports: Annotated[tuple[VolumeBackendReport, ...], msgspec.Meta(max_length=10_000)]


class SetVolumeBackend(StorageBase, frozen=True, tag="set_volume_backend"):
    """Change what is known of a volume service: whether it is ``up``, ``disabled`` or ``frozen``, and its zone; omitted
    settings are kept. No volumes go to a backend without a service that is up, enabled and not frozen; those that are
    there stay."""

    host: HostName
    up: bool | None = None
    disabled: bool | None = None
    frozen: bool | None = None
    availability_zone: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None


class RemoveVolumeBackend(StorageBase, frozen=True, tag="remove_volume_backend"):
    """Forget a volume service, and its backend with the last one. One with volumes is refused unless ``force`` is
    given; they then stay known, and take nothing of any pool until the backend reports again."""

    host: HostName
    force: bool = False


class SetBackupService(StorageBase, frozen=True, tag="set_backup_service"):
    """Add a backup service, or change what is known of it; omitted settings are kept."""

    host: HostName
    availability_zone: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None
    up: bool | None = None
    disabled: bool | None = None


class RemoveBackupService(StorageBase, frozen=True, tag="remove_backup_service"):
    """Forget a backup service. Its backups stay."""

    host: HostName


# volumes


class PlaceVolume(StorageBase, frozen=True, tag="place_volume"):
    """Choose a pool for a new volume, and charge it."""

    request: AskedVolume


class RetryVolume(OnVolume, frozen=True, tag="retry_volume"):
    """The backend of a new volume failed to make it: it is placed again by what was asked, at most
    ``scheduler_max_attempts`` times in all; on a pool that was not tried, where the policy has
    IgnoreAttemptedHostsFilter. A volume that is refused is removed."""


class ManageVolume(StorageBase, frozen=True, tag="manage_volume"):
    """Take over a volume that is on ``backend`` (``host@backend#pool``) already; its pool is charged nothing."""

    request: AskedVolume
    backend: str


class DeleteVolumes(StorageBase, frozen=True, tag="delete_volumes"):
    """Remove volumes, all or none, and give back what they took, at both ends of a move. Those with snapshots are
    refused unless ``cascade`` is given: their snapshots are then removed too. Backups stay."""

    uuids: Uuids
    cascade: bool = False


class ExtendVolume(OnVolume, frozen=True, tag="extend_volume"):
    """Let a volume grow to ``new_size_gb`` GiB where it is; its pool is charged the difference."""

    new_size_gb: Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class BeginRetype(OnVolume, frozen=True, tag="begin_retype"):
    """Give a volume another type, until confirm_volume_move or revert_volume_move. It stays on its pool if that has the
    type; elsewhere it goes only by the migration policy ``on-demand``, and then both pools are charged. Both types
    count in the quotas. ``expires_in``: seconds after which it is reverted."""

    volume_type: str | VolumeType
    migration_policy: str = "never"
    expires_in: Seconds | None = None


class BeginVolumeMigration(OnVolume, frozen=True, tag="begin_volume_migration"):
    """Claim room for a volume on another pool and keep the old one until confirm_volume_move or revert_volume_move.
    ``target``: the pool or backend that it goes to (left out: the best one), judged by every filter.
    ``expires_in``: seconds after which it is reverted."""

    target: str | None = None
    expires_in: Seconds | None = None


class ConfirmVolumeMove(OnVolume, frozen=True, tag="confirm_volume_move"):
    """A volume has its new type, or is on its new pool: what it had before is given back."""


class RevertVolumeMove(OnVolume, frozen=True, tag="revert_volume_move"):
    """A volume keeps its type, and is where it was: what was claimed for it is given back."""


class CreateVolumeSnapshot(OnVolume, frozen=True, tag="create_volume_snapshot"):
    """Make room for a snapshot of a volume on its pool, which is charged the volume's size, as Cinder does."""

    snapshot_id: str | None = None


class DeleteVolumeSnapshots(StorageBase, frozen=True, tag="delete_volume_snapshots"):
    """Remove snapshots, all or none, and give back what they took."""

    uuids: Uuids


class CreateVolumeBackup(OnVolume, frozen=True, tag="create_volume_backup"):
    """Choose the backup service for a backup of a volume. With ``same_host`` it is the one on the volume's host
    (Cinder: ``backup_use_same_host``), else one of those of the zone: the one that is named, else the volume's."""

    backup_id: str | None = None
    availability_zone: str | None = None
    same_host: bool = False


class DeleteVolumeBackups(StorageBase, frozen=True, tag="delete_volume_backups"):
    """Remove backups, all or none."""

    uuids: Uuids


class PlaceVolumeGroup(StorageBase, frozen=True, tag="place_volume_group"):
    """Make a volume group with volumes on one backend, all or none. ``group_type`` must be satisfied too: a type that
    the service keeps, or (for cloud admins) one of their own. All volumes are of the group's project."""

    volumes: Annotated[tuple[AskedVolume, ...], msgspec.Meta(min_length=1, max_length=1_000)]
    project_id: str = ""
    group_id: str | None = None
    group_type: str | VolumeType | None = None
    availability_zone: str | None = None
    request_id: str | None = None


class DeleteVolumeGroup(StorageBase, frozen=True, tag="delete_volume_group"):
    """Remove a volume group that has no volumes."""

    uuid: str


class PlaceTogether(StorageBase, frozen=True, tag="place_together"):
    """Place a guest and its volumes, all or nothing, with storage near it as ``locality`` says. All are of the guest's
    project."""

    request: Asked
    volumes: Annotated[tuple[AskedVolume, ...], msgspec.Meta(max_length=100)]
    locality: Locality | None = None


BackendCommand = ReportVolumeBackends | SetVolumeBackend | RemoveVolumeBackend | SetBackupService | RemoveBackupService
VolumeCommand = (
    PlaceVolume
    | RetryVolume
    | ManageVolume
    | DeleteVolumes
    | ExtendVolume
    | BeginRetype
    | BeginVolumeMigration
    | ConfirmVolumeMove
    | RevertVolumeMove
    | CreateVolumeSnapshot
    | DeleteVolumeSnapshots
    | CreateVolumeBackup
    | DeleteVolumeBackups
    | PlaceVolumeGroup
    | DeleteVolumeGroup
    | PlaceTogether
)
StorageCommand = BackendCommand | VolumeCommand


class SnapshotPlaced(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to CreateVolumeSnapshot: the decision, whose selection is the pool that was charged."""

    snapshot_id: str
    decision: VolumeDecision


class GroupPlaced(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to PlaceVolumeGroup."""

    group_id: str
    decision: VolumeGroupDecision


class VolumeMoved(msgspec.Struct, frozen=True, kw_only=True):
    """A volume after the end of its move: where it is, and its type."""

    uuid: str
    kind: Literal["retype", "migrate"]
    backend_id: str
    volume_type: str


class BackupPlaced(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to CreateVolumeBackup: the host of the backup service that makes it."""

    backup_id: str
    host: str
    size_gb: int


class KeptTypes(Protocol):
    """Volume types that the service keeps. UnknownName for others."""

    def volume_type(self, name: str) -> VolumeType:
        """The volume type of a name."""

    def qos_specs(self, name: str) -> dict[str, Any] | None:
        """The QoS specs that belong to the type of a name."""


class KnownVolumeSpec(msgspec.Struct):
    """A spec that was sent, and the name of the kept type in it (None: the type came with it, or there is none)."""

    spec: VolumeSpec
    volume_type: str | None = None


class VolumeSpecs(RecentlyUsed[bytes, KnownVolumeSpec]):
    """VolumeSpecs by their bytes: requests that are sent with equal ones share an object. A spec is read when it is
    first asked for (``specs[data]``): InvalidValue or UnknownName, naming the field, if it is malformed."""

    def __init__(self, kept: KeptTypes) -> None:
        super().__init__(SPECS_BYTES)
        self._kept = kept

    def __missing__(self, data: bytes) -> KnownVolumeSpec:
        return self.again(data) or self.keep(data, self._read(data), bytes_decoded(data))

    def of(self, asked: AskedVolume) -> KnownVolumeSpec:
        """The spec of a request. Errors as above. O(1) if known."""
        return self[bytes(asked.spec)]

    def forget_all(self, kept: KeptTypes) -> None:
        """Volume types have changed: specs are read again. O(specs)."""
        self._kept = kept
        self.clear()

    def _read(self, data: bytes) -> KnownVolumeSpec:
        value = decode_spec(data)
        name = None
        if isinstance(value, dict) and isinstance(value.get("volume_type"), str):
            name = value["volume_type"]
            kept, qos_specs = self._kept.volume_type(name), self._kept.qos_specs(name)
            if value.get("qos_specs") is not None:
                problem = f"the volume type {name} that the service keeps has its own QoS specs"
                raise InvalidValue(problem, field="spec.qos_specs")
            value = {**value, "volume_type": msgspec.to_builtins(kept), "qos_specs": qos_specs}
        return KnownVolumeSpec(check_volume_spec(from_plain(value, VolumeSpec, "spec")), name)
