"""Questions about volumes, their snapshots, backups and groups, and volume types, and their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Annotated, Any, Final

import msgspec

from ...placement.decide.fits import Fit
from ...placement.storage.explain import VolumeExplanation
from ...placement.storage.pools.backend_names import backend_part
from ...placement.storage.pools.request import VolumeSpec, VolumeType
from ...placement.types.errors import UnknownName
from ..storage_commands import AskedVolume, StorageKind
from ..tenancy.catalog import KeptVolumeType, may_use, shown_projects, visible
from ..tenancy.rights import project_scope
from ..tenancy.tenants import CLOUD, RANK
from ..tenancy.volume_rights import check_volumes, not_yours
from .question import Page, Query
from .state import ServiceState
from .volume_records import KeptVolume
from .volumes import prepared

MANY: Final = 2_000
"""Volumes or pools from which on an answer takes more than about a millisecond."""
USER_VISIBLE: Final = frozenset({"RESKEY:availability_zones", "multiattach", "replication_enabled"})
"""Extra specs of volume types that users see (Cinder 29, user visible extra specs)."""


class Volumes(Query, frozen=True):
    """Volumes in the order of their uuids, behind the one named ``after``: of a ``project``, on a ``backend`` (a pool,
    or ``host@backend``; for readers of the cloud), of a ``volume_type``, in a ``group``, each where it is given.
    Readers of the cloud see all, others those of projects that they may read."""

    project: str | None = None
    backend: str | None = None
    volume_type: str | None = None
    group: str | None = None
    after: str | None = None
    limit: Page = 1_000


class ShowVolume(Query, frozen=True):
    """One volume in full. For readers of its project."""

    uuid: str


class VolumeSnapshots(Query, frozen=True):
    """Snapshots in the order of their uuids, behind the one named ``after``: of a ``volume``, of a ``project``, each
    where it is given. Rights as for volumes."""

    volume: str | None = None
    project: str | None = None
    after: str | None = None
    limit: Page = 1_000


class VolumeBackups(Query, frozen=True):
    """Backups in the order of their uuids. As for snapshots; the volume may be gone."""

    volume: str | None = None
    project: str | None = None
    after: str | None = None
    limit: Page = 1_000


class VolumeGroups(Query, frozen=True):
    """Volume groups in the order of their uuids, with their volumes. Rights as for volumes."""

    project: str | None = None
    after: str | None = None
    limit: Page = 1_000


class VolumeTypes(Query, frozen=True):
    """Volume types that the service keeps, by name: all for readers of the cloud; for others those that are for all, or
    for their projects. ``project``: those that it may use."""

    project: str | None = None


class ShowVolumeType(Query, frozen=True):
    """One volume type that the service keeps. As for volume types."""

    name: str


class ExplainVolume(Query, frozen=True):
    """Why each pool would be refused, and what the best ``top`` score. For readers of the cloud."""

    request: AskedVolume
    top: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 5


class FitsVolume(Query, frozen=True):
    """How many more volumes of this kind fit, on which pools (readers of the cloud only). ``limit``: count no further;
    needed where the number is unbounded. For readers of the request's project, within what members may place."""

    request: AskedVolume
    limit: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None


class VolumeLine(msgspec.Struct, frozen=True, kw_only=True):
    """A volume: the pool that it is on, and the one that it comes back to if its move (``retype`` or ``migrate``) is
    reverted."""

    uuid: str
    project_id: str
    size_gb: int
    volume_type: str
    backend_id: str
    availability_zone: str
    group: str | None = None
    snapshots: int = 0
    move: str | None = None
    moved_from: str | None = None


class VolumeDetail(VolumeLine, frozen=True, kw_only=True):
    """A volume in full; in its spec of the type, who is no reader of the cloud sees what ``volume_type`` shows.
    ``charged`` pools have its size taken of them. ``new_type``: its type once its retype is
    confirmed; ``expires``: when its move is reverted. Times in seconds since the epoch."""

    user_id: str
    spec: VolumeSpec
    source: str | None
    created: float
    snapshot_ids: list[str]
    charged: list[str]
    new_type: str | None = None
    expires: float | None = None


class SnapshotLine(msgspec.Struct, frozen=True):
    """A snapshot: the pool that was charged for it."""

    uuid: str
    volume: str
    project_id: str
    size_gb: int
    backend_id: str
    created: float


class BackupLine(msgspec.Struct, frozen=True):
    """A backup: the host of its backup service."""

    uuid: str
    volume: str
    project_id: str
    size_gb: int
    host: str
    created: float


class VolumeGroupLine(msgspec.Struct, frozen=True):
    """A volume group."""

    uuid: str
    project_id: str
    backend: str
    group_type: str
    volumes: list[str]


class VolumeTypeLine(msgspec.Struct, frozen=True):
    """A volume type that the service keeps, and the projects that may use it (empty: all). Who is no reader of the
    cloud sees of the projects their own, of the extra specs those that Cinder shows to users, and no QoS specs."""

    name: str
    volume_type: VolumeType
    qos_specs: dict[str, str] | None
    projects: list[str]


# volumes and what belongs to them


def volumes(state: ServiceState, user: str, query: Volumes) -> list[VolumeLine]:
    everything = state.tenants.role(user, CLOUD) >= RANK["reader"]
    if query.backend is not None and not everything:
        state.tenants.require(user, "reader", CLOUD)
    records, pools = state.volumes, state.storage.pools
    names = records.volumes if query.group is None else records.members(query.group)

    def fits(uuid: str) -> bool:
        record = records.volumes[uuid]
        if query.volume_type not in (None, record.volume_type):
            return False
        if query.backend is None:
            return True
        where = pools.volumes[uuid].backend_id
        return query.backend in (where, backend_part(where))

    owners = ((uuid, records.volumes[uuid].project_id) for uuid in names)
    found = _page(state, user, owners, query.project, query.after, query.limit, fits)
    return [_volume_line(state, uuid) for uuid in found]


def _page(
    state: ServiceState,
    user: str,
    owners: Iterator[tuple[str, str]],
    project: str | None,
    after: str | None,
    limit: int,
    fits: Callable[[str], bool] = lambda uuid: True,
) -> list[str]:
    """The uuids of a page of those that a user may see. NotAllowed for a project that they may not read."""
    tenants = state.tenants
    if project is not None:
        tenants.require(user, "reader", project_scope(project))
    readable: dict[str, bool] = {}
    found = []
    for uuid, owner in owners:
        if project not in (None, owner) or (after is not None and uuid <= after):
            continue
        if owner not in readable:
            readable[owner] = tenants.role(user, project_scope(owner)) >= RANK["reader"]
        if readable[owner] and fits(uuid):
            found.append(uuid)
    return sorted(found)[:limit]


def _volume_line(state: ServiceState, uuid: str) -> VolumeLine:
    return VolumeLine(**_line_of(state, uuid, state.volumes.volumes[uuid]))


def _line_of(state: ServiceState, uuid: str, record: KeptVolume) -> dict[str, Any]:
    known = state.storage.pools.volumes[uuid]
    before = known.moved_from
    return {
        "uuid": uuid,
        "project_id": record.project_id,
        "size_gb": record.size_gb,
        "volume_type": record.volume_type,
        "backend_id": known.backend_id,
        "availability_zone": record.zone,
        "group": record.group,
        "snapshots": len(record.snapshots),
        "move": None if record.move is None else record.move.kind,
        "moved_from": None if before is None else before[1] or before[0],
    }


def volume(state: ServiceState, user: str, query: ShowVolume) -> VolumeDetail:
    uuid, records = query.uuid, state.volumes
    _check_seen(state, user, "volume", uuid)
    record = records.volume(uuid)
    move = record.move
    return VolumeDetail(
        **_line_of(state, uuid, record),
        user_id=record.user_id,
        spec=record.spec if _reads_all(state, user) else _spec_as_users_see(record.spec),
        source=record.source,
        created=record.created,
        snapshot_ids=list(record.snapshots),
        charged=list(state.storage.pools.volumes[uuid].charged),
        new_type=None if move is None or move.kind != "retype" else move.volume_type,
        expires=None if move is None else move.expires,
    )


def _check_seen(state: ServiceState, user: str, kind: StorageKind, uuid: str) -> None:
    """The same error for what is not there and for what others have; readers of the cloud learn which."""
    project = state.volumes.project_of(kind, uuid)
    scope = CLOUD if project is None else project_scope(project)
    if state.tenants.role(user, scope) < RANK["reader"]:
        raise not_yours(kind, uuid)


def snapshots(state: ServiceState, user: str, query: VolumeSnapshots) -> list[SnapshotLine]:
    records = state.volumes
    if query.volume is not None:
        _check_seen(state, user, "volume", query.volume)
        names = dict.fromkeys(records.volume(query.volume, "volume").snapshots)
    else:
        names = dict.fromkeys(records.snapshots)
    owners = ((uuid, records.volumes[records.snapshots[uuid].volume].project_id) for uuid in names)
    lines = []
    for uuid in _page(state, user, owners, query.project, query.after, query.limit):
        each = records.snapshots[uuid]
        project = records.volumes[each.volume].project_id
        lines.append(SnapshotLine(uuid, each.volume, project, each.size_gb, each.backend_id, each.created))
    return lines


def backups(state: ServiceState, user: str, query: VolumeBackups) -> list[BackupLine]:
    records = state.volumes
    owners = ((uuid, each.project_id) for uuid, each in records.backups.items() if query.volume in (None, each.volume))
    lines = []
    for uuid in _page(state, user, owners, query.project, query.after, query.limit):
        each = records.backups[uuid]
        lines.append(BackupLine(uuid, each.volume, each.project_id, each.size_gb, each.host, each.created))
    return lines


def groups(state: ServiceState, user: str, query: VolumeGroups) -> list[VolumeGroupLine]:
    records = state.volumes
    owners = ((uuid, each.project_id) for uuid, each in records.groups.items())
    lines = []
    for uuid in _page(state, user, owners, query.project, query.after, query.limit):
        each = records.groups[uuid]
        lines.append(VolumeGroupLine(uuid, each.project_id, each.backend, each.group_type, records.members(uuid)))
    return lines


# types


def volume_types(state: ServiceState, user: str, query: VolumeTypes) -> list[VolumeTypeLine]:
    tenants, kept = state.tenants, state.catalog.volume_types
    if query.project is not None:
        tenants.require(user, "reader", project_scope(query.project))
    everything = tenants.role(user, CLOUD) >= RANK["reader"]
    lines = []
    for name, each in sorted(kept.items(), key=itemgetter(0)):
        if (
            may_use(tenants, each, query.project)
            if query.project is not None
            else (everything or visible(tenants, user, each))
        ):
            lines.append(_type_line(state, user, name, each))
    return lines


def _type_line(state: ServiceState, user: str, name: str, kept: KeptVolumeType) -> VolumeTypeLine:
    everything = _reads_all(state, user)
    shown = kept.volume_type if everything else _as_users_see(kept.volume_type)
    qos_specs = kept.qos_specs if everything else None
    return VolumeTypeLine(name, shown, qos_specs, shown_projects(state.tenants, user, kept))


def _reads_all(state: ServiceState, user: str) -> bool:
    return state.tenants.role(user, CLOUD) >= RANK["reader"]


def _as_users_see(kept: VolumeType) -> VolumeType:
    shown = {name: value for name, value in kept.extra_specs.items() if name in USER_VISIBLE}
    return kept if len(shown) == len(kept.extra_specs) else replace(kept, extra_specs=shown)


def _spec_as_users_see(spec: VolumeSpec) -> VolumeSpec:
    kept = spec.volume_type
    return replace(spec, volume_type=None if kept is None else _as_users_see(kept), qos_specs=None)


def volume_type(state: ServiceState, user: str, query: ShowVolumeType) -> VolumeTypeLine:
    each = state.catalog.volume_types.get(query.name)
    if each is not None and (state.tenants.role(user, CLOUD) >= RANK["reader"] or visible(state.tenants, user, each)):
        return _type_line(state, user, query.name, each)
    found = (each.name for each in volume_types(state, user, VolumeTypes()))
    raise UnknownName.among("volume type", query.name, found, field="name")


# what would be decided


def explain(state: ServiceState, user: str, query: ExplainVolume) -> VolumeExplanation:
    request, _ = prepared(state, query.request, state.storage.pools.now)
    return state.storage.explain(request, top=query.top)


def fits(state: ServiceState, user: str, query: FitsVolume) -> Fit:
    state.tenants.require(user, "reader", project_scope(query.request.project_id))
    check_volumes(state.tenants, user, (query.request,), state)
    request, _ = prepared(state, query.request, state.storage.pools.now)
    found = state.storage.fits(request.with_changes(volume_id=None), limit=query.limit)
    everything = state.tenants.role(user, CLOUD) >= RANK["reader"]
    return found if everything else Fit(found.count, {})


def takes_long(state: ServiceState, query: Query) -> bool:
    """True for a question that others should not have to wait for."""
    records, pools = state.volumes, len(state.fleet.pools)
    match query:
        case VolumeTypes():
            return len(state.catalog.volume_types) > MANY // 10
        case Volumes():
            return len(records.volumes) > MANY
        case VolumeSnapshots() | VolumeBackups() | VolumeGroups():
            return len(records.snapshots) + len(records.backups) + len(records.groups) > MANY
        case ExplainVolume():
            return pools > MANY // 10
        case FitsVolume():
            return pools > MANY // 10 or len(records.volumes) > MANY // 10 or (query.limit or 0) > MANY
    return False


QUESTIONS: Final[Mapping[type[Query], Callable[[ServiceState, str, Any], Any]]] = {
    Volumes: volumes,
    ShowVolume: volume,
    VolumeSnapshots: snapshots,
    VolumeBackups: backups,
    VolumeGroups: groups,
    VolumeTypes: volume_types,
    ShowVolumeType: volume_type,
    ExplainVolume: explain,
    FitsVolume: fits,
}
FOR_CLOUD_READERS: Final = frozenset({ExplainVolume})
