"""Commands on volumes: placing them within the quotas of their projects, growth, snapshots, backups, groups, and giving
back what they took. Moves are in volume_moves, backends in storage_backends.

What a volume counts is known before and after each command (``VolumeRecords.amounts``); the difference is what quotas
are asked for, and what the usage of its project changes by.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, NamedTuple

import msgspec

from ...ext.draws import Draws, word
from ...placement.storage.decision import PoolSelection, VolumeDecision
from ...placement.storage.pools.backend_names import backend_part, host_part
from ...placement.storage.pools.request import Retry, VolumeGroupRequest, VolumeRequest, VolumeSpec, VolumeType
from ...placement.storage.with_guests import JointDecision, JointRequest, Locality, place_together, zone_of_row
from ...placement.types.errors import HostlerError, InUse, InvalidValue, NoValidHost, UnknownName
from ...placement.types.validation import uuid_words
from ..errors import DEPENDS_ON_COMMAND, InternalError, checked_outcome
from ..storage_commands import (
    AskedVolume,
    BackupPlaced,
    CreateVolumeBackup,
    CreateVolumeSnapshot,
    DeleteVolumes,
    ExtendVolume,
    GroupPlaced,
    ManageVolume,
    PlaceTogether,
    PlaceVolumeGroup,
    SnapshotPlaced,
)
from ..tenancy.bounds import BOUNDED
from .state import ServiceState
from .volume_records import (
    BACKUP_GIGABYTES,
    BACKUPS,
    GROUPS,
    PER_VOLUME,
    KeptBackup,
    KeptGroup,
    KeptSnapshot,
    KeptVolume,
    amounts_of,
    difference,
)

log: Final = logging.getLogger("hostler.volumes")
ONE_ZONE: Final = 5
"""Revision of the rules (``orders.RULES``) from which on ``[cinder] cross_az_attach`` counts."""
MOST_TRIED: Final = 400
"""Volumes of a group that are placed on one backend after the other until one of them holds all: some 0.1 ms each."""


class Prepared(NamedTuple):
    """A volume that is asked for: the request as the engine reads it, and the record that it gets."""

    request: VolumeRequest
    record: KeptVolume


@contextmanager
def faults_refused() -> Iterator[None]:
    """Errors that depend on the command only, of a rule or Hostler's own, refuse it."""
    try:
        yield
    except HostlerError:
        raise
    except DEPENDS_ON_COMMAND as error:
        checked_outcome(error)
        log.exception("a command on volumes failed in an unexpected way; it counts as refused")
        raise InternalError("the command failed in an unexpected way; the service's log says how") from None


# what is asked for


def prepared(state: ServiceState, asked: AskedVolume, now: float) -> Prepared:
    """The request and the record of a new volume. InvalidValue or UnknownName if it is malformed, or names a source or
    group that its project does not have."""
    known = state.volume_specs.of(asked)
    spec, name = known.spec, known.volume_type
    if name is None:
        name = spec.volume_type.name if spec.volume_type is not None else ""
    place = None
    if asked.source is not None:
        source, size_gb, place = _source(state, asked)
        if spec.size_gb < size_gb:
            problem = f"a volume made of {asked.source} has at least {size_gb} GiB, got {spec.size_gb}"
            raise InvalidValue(problem, field="spec.size_gb")
        if spec.volume_type is None:
            typed = source.spec
            spec, name = replace(spec, volume_type=typed.volume_type, qos_specs=typed.qos_specs), source.volume_type
    if asked.group is not None:
        place = _group(state, asked).backend
    if place is not None:
        if spec.resource_backend not in (None, place):
            problem = f"its source or group is on {place}, not on {spec.resource_backend}"
            raise InvalidValue(problem, field="spec.resource_backend")
        spec = replace(spec, resource_backend=place)
    request = VolumeRequest(
        spec=spec,
        volume_id=asked.volume_id,
        project_id=asked.project_id,
        user_id=asked.user_id,
        now=now,
        alternates=asked.alternates,
        request_id=asked.request_id,
    )
    record = KeptVolume(
        spec=spec,
        project_id=asked.project_id,
        user_id=asked.user_id,
        volume_type=name,
        group=asked.group,
        source=asked.source,
        created=now,
    )
    return Prepared(request, record)


def _source(state: ServiceState, asked: AskedVolume) -> tuple[KeptVolume, int, str]:
    """The volume that a new one is made of, or whose snapshot it is; the least size; and the pool."""
    records, uuid = state.volumes, asked.source or ""
    snapshot = records.snapshots.get(uuid)
    volume = records.volumes.get(uuid if snapshot is None else snapshot.volume)
    if volume is None or volume.project_id != asked.project_id:
        raise UnknownName(f"there is no volume or snapshot {uuid[:60]} of this project", field="source")
    if snapshot is not None:
        return volume, snapshot.size_gb, snapshot.backend_id
    return volume, volume.size_gb, state.storage.pools.volumes[uuid].backend_id


def _group(state: ServiceState, asked: AskedVolume) -> KeptGroup:
    group = state.volumes.groups.get(asked.group or "")
    if group is None or group.project_id != asked.project_id:
        raise UnknownName(f"there is no volume group {(asked.group or '')[:60]} of this project", field="group")
    return group


def later(uuid: str, volume: KeptVolume, now: float) -> VolumeRequest:
    """The request by which a volume that is there is judged: its size, type and zone; hints and places were for its
    first placement (Cinder 29)."""
    spec = later_spec(volume)
    project, user = volume.project_id, volume.user_id
    return VolumeRequest(spec=spec, volume_id=uuid, project_id=project, user_id=user, now=now)


def later_spec(volume: KeptVolume) -> VolumeSpec:
    """See ``later``."""
    zone = volume.zone or None
    free = replace(volume.spec, scheduler_hints={}, resource_backend=None, availability_zones=())
    return replace(free, availability_zone=zone)


# quotas


def check_quota(state: ServiceState, project: str, more: Mapping[str, int], sizes: Iterable[int] = ()) -> None:
    """QuotaExceeded if a project may not have so much more, or a volume of one of these sizes. O(amounts)."""
    usage, tenants = state.usage, state.tenants
    wanted = {name: amount for name, amount in more.items() if amount > 0}
    usage.check(tenants, project, wanted)
    usage.check_most(tenants, project, wanted)
    usage.check(tenants, project, {PER_VOLUME: max(sizes, default=0)})


def keep(state: ServiceState, uuid: str, record: KeptVolume) -> None:
    """Keep a volume that is new or has changed, and count it."""
    before = state.volumes.amounts(uuid) if uuid in state.volumes.volumes else {}
    state.volumes.put(uuid, record)
    state.usage.add(state.tenants, record.project_id, difference(state.volumes.amounts(uuid), before))


def forget(state: ServiceState, uuid: str) -> None:
    """Keep a volume and its snapshots no longer, nor count them."""
    project, amounts = state.volumes.volumes[uuid].project_id, state.volumes.amounts(uuid)
    state.volumes.drop(uuid)
    state.usage.add(state.tenants, project, amounts, -1)


# new volumes


def place(state: ServiceState, asked: AskedVolume, now: float) -> VolumeDecision:
    """Place a new volume."""
    request, record = prepared(state, asked, now)
    check_quota(state, record.project_id, amounts_of(record), (record.size_gb,))
    with faults_refused():
        decision = state.storage.place(request)
    _keep_placed(state, record, decision.selection, decision)
    return decision


def _keep_placed(
    state: ServiceState, record: KeptVolume, chosen: PoolSelection | None, decision: VolumeDecision | None = None
) -> None:
    if chosen is not None:
        retry = decision.retry if decision is not None else None
        placed = msgspec.structs.replace(record, zone=chosen.availability_zone, retry=retry)
        keep(state, chosen.volume_id, placed)


def retry(state: ServiceState, uuid: str, now: float) -> VolumeDecision:
    """Place a new volume again that its backend failed to make; one that is refused is removed."""
    volume, storage = state.volumes.volume(uuid), state.storage
    if volume.retry is None or volume.snapshots or volume.move is not None:
        problem = f"volume {uuid} is in use since it was placed, or attempts at making it are not counted"
        raise InvalidValue(problem, field="uuid")
    project, user = volume.project_id, volume.user_id
    request = VolumeRequest(
        spec=volume.spec, volume_id=uuid, project_id=project, user_id=user, retry=volume.retry, now=now
    )
    with faults_refused(), storage._context.deciding() as pools:
        decision = storage.place(request)
        if decision.selection is None and uuid in pools.volumes:
            storage.release(uuid)
    if decision.selection is None:
        forget(state, uuid)
    else:
        _keep_placed(state, volume, decision.selection, decision)
    return decision


def manage(state: ServiceState, command: ManageVolume, now: float) -> VolumeDecision:
    """Take over a volume that is there."""
    request, record = prepared(state, command.request, now)
    wanted = request.spec.resource_backend
    if wanted not in (None, command.backend, backend_part(command.backend)):
        raise InvalidValue(f"its source or group is on {wanted}, not on {command.backend}", field="backend")
    check_quota(state, record.project_id, amounts_of(record), (record.size_gb,))
    with faults_refused():
        decision = state.storage.manage(request, command.backend)
    _keep_placed(state, record, decision.selection)
    return decision


def place_group(state: ServiceState, command: PlaceVolumeGroup, now: float) -> Generator[None, None, GroupPlaced]:
    """Make a volume group with its volumes, all or none, in steps; between two of them nothing has changed."""
    records, project = state.volumes, command.project_id
    if command.group_id is not None:
        uuid_words(command.group_id, "group_id")
        records.check_new("volume group", records.groups, command.group_id, "group_id")
    group_type = command.group_type
    if isinstance(group_type, str):
        group_type = state.catalog.volume_type(group_type, "group_type")
    wanted = [prepared(state, each, now) for each in command.volumes]
    for volume in command.volumes:
        if volume.project_id != project or volume.group is not None:
            raise InvalidValue("volumes of a group are of its project, and of no other group", field="volumes")
    total = _total(each.record for each in wanted)
    total[GROUPS] = 1
    check_quota(state, project, total, (each.record.size_gb for each in wanted))
    request = VolumeGroupRequest(
        volumes=tuple(each.request for each in wanted),
        group_type=group_type,
        availability_zone=command.availability_zone,
        now=now,
        request_id=command.request_id,
    )
    yield
    with faults_refused():
        most_tried = MOST_TRIED if state.rules >= BOUNDED else None
        decision = yield from state.storage.place_group_in_steps(request, most_tried=most_tried)
    uuid = command.group_id or ""
    if decision.backend is not None:
        uuid = uuid or records.new_uuid("group")
        name = group_type.name if isinstance(group_type, VolumeType) else ""
        records.groups[uuid] = KeptGroup(project_id=project, backend=decision.backend, group_type=name, created=now)
        state.usage.add(state.tenants, project, {GROUPS: 1})
        for each, chosen in zip(wanted, decision.selections, strict=True):
            _keep_placed(state, msgspec.structs.replace(each.record, group=uuid), chosen)
    return GroupPlaced(group_id=uuid, decision=decision)


def delete_group(state: ServiceState, uuid: str) -> None:
    """Remove a group without volumes."""
    group = state.volumes.group(uuid)
    members = state.volumes.members(uuid)
    if members:
        raise InUse(f"volume group {uuid} has {len(members)} volumes", field="uuid", hint="delete these first")
    del state.volumes.groups[uuid]
    state.usage.add(state.tenants, group.project_id, {GROUPS: 1}, -1)


def within_zones(state: ServiceState) -> bool:
    """True if guests and their volumes are to be in one availability zone (``[cinder] cross_az_attach``)."""
    return state.rules >= ONE_ZONE and not state.engine.policy.options.cinder.cross_az_attach


def check_zone(state: ServiceState, node: str, uuids: Iterable[str], field: str) -> None:
    """InvalidValue if volumes are to be in the zone of a node and one is in another."""
    row = state.fleet._names.find(node) if node and within_zones(state) else -1
    zone = zone_of_row(state.engine, row) if row >= 0 else ""
    for uuid in uuids if zone else ():
        record = state.volumes.volumes.get(uuid)
        if record is not None and record.zone != zone:
            problem = f"volume {uuid} is in availability zone {record.zone}, node {node} in {zone}"
            raise InvalidValue(problem, field=field, hint="[cinder] cross_az_attach of the policy would allow it")


def place_with_guest(
    state: ServiceState, command: PlaceTogether, now: float, failed_pools: tuple[str, ...] = ()
) -> JointDecision:
    """Place a guest and its volumes, all or nothing. ``failed_pools`` were tried before, which
    IgnoreAttemptedHostsFilter reads."""
    asked = command.request
    guest = state.request(asked, now)
    if any(each.project_id != asked.project_id for each in command.volumes):
        raise InvalidValue("the volumes of a guest are of its project", field="volumes")
    wanted = [prepared(state, each, now) for each in command.volumes]
    if failed_pools:
        retry = Retry(backends=None, hosts=failed_pools)  # nothing is charged there that would be given back
        wanted = [each._replace(request=each.request.with_changes(retry=retry)) for each in wanted]
    total = _total(each.record for each in wanted)
    total.update(state.amounts(guest))
    check_quota(state, asked.project_id, total, (each.record.size_gb for each in wanted))
    volumes, locality = tuple(each.request for each in wanted), command.locality
    if within_zones(state) and (locality is None or locality.mode == "weight"):
        locality = Locality(level="zone")  # as Nova 33 refuses volumes of other zones
    with faults_refused():
        decision = place_together(
            state.engine, state.storage, JointRequest(guest=guest, volumes=volumes, locality=locality)
        )
    if decision.placed and decision.guest is not None:
        uuid = decision.guest.selected.instance_uuid
        project, amounts = state.holding(uuid)
        state.usage.add(state.tenants, project, amounts)
        state.requests.keep((uuid,), state.kept_spec(asked))
        for each, placed in zip(wanted, decision.volumes, strict=True):
            _keep_placed(state, each.record, placed.selection, placed)
    return decision


def _total(records: Iterable[KeptVolume]) -> Counter[str]:
    total = Counter[str]()
    for record in records:
        total.update(amounts_of(record))
    return total


# volumes that are there


def delete(state: ServiceState, command: DeleteVolumes) -> int:
    """Remove volumes, all or none."""
    records, storage = state.volumes, state.storage
    known = {uuid: records.volume(uuid, "uuids") for uuid in command.uuids}
    for uuid, volume in known.items():
        if volume.snapshots and not command.cascade:
            problem = f"volume {uuid} has {len(volume.snapshots)} snapshots"
            raise InUse(problem, field="uuids", hint="delete these first, or use cascade")
    with faults_refused(), storage._context.deciding():
        storage.release(command.uuids)
        for volume in known.values():
            for snapshot in map(records.snapshots.__getitem__, volume.snapshots):
                storage.give_back(snapshot.backend_id, snapshot.size_gb)
    for uuid in known:
        forget(state, uuid)
    return len(known)


def extend(state: ServiceState, command: ExtendVolume, now: float) -> VolumeDecision:
    """Let a volume grow where it is."""
    uuid, volume = command.uuid, state.volumes.volume(command.uuid)
    check_settled(uuid, volume)
    grown = msgspec.structs.replace(volume, spec=replace(volume.spec, size_gb=command.new_size_gb), retry=None)
    if grown.size_gb > volume.size_gb:
        more = difference(amounts_of(grown), amounts_of(volume))
        check_quota(state, volume.project_id, more, (grown.size_gb,))
    with faults_refused():
        decision = state.storage.extend(later(uuid, volume, now), command.new_size_gb)
    if decision.placed:
        keep(state, uuid, grown)
    return decision


def check_settled(uuid: str, volume: KeptVolume) -> None:
    """InvalidValue for a volume whose move has not ended."""
    if volume.move is not None:
        problem = f"volume {uuid} has a {volume.move.kind} under way"
        raise InvalidValue(problem, field="uuid", hint="confirm_volume_move or revert_volume_move first")


# snapshots and backups


def snapshot(state: ServiceState, command: CreateVolumeSnapshot, now: float) -> SnapshotPlaced:
    """Make room for a snapshot where its volume is."""
    records, uuid = state.volumes, command.uuid
    volume = records.volume(uuid)
    check_settled(uuid, volume)
    if command.snapshot_id is not None:
        uuid_words(command.snapshot_id, "snapshot_id")
        records.check_new("snapshot", records.snapshots, command.snapshot_id, "snapshot_id")
    sizes = [records.snapshots[each].size_gb for each in volume.snapshots]
    more = difference(amounts_of(volume, [*sizes, volume.size_gb]), amounts_of(volume, sizes))
    check_quota(state, volume.project_id, more)
    with faults_refused():
        decision = state.storage.snapshot(later(uuid, volume, now))
    made = command.snapshot_id or ""
    if decision.selection is not None:
        made = made or records.new_uuid("snapshot")
        where, size = decision.selection.backend_id, volume.size_gb
        before = records.amounts(uuid)
        records.snapshots[made] = KeptSnapshot(volume=uuid, backend_id=where, size_gb=size, created=now)
        records.put(uuid, msgspec.structs.replace(volume, snapshots=(*volume.snapshots, made), retry=None))
        state.usage.add(state.tenants, volume.project_id, difference(records.amounts(uuid), before))
    return SnapshotPlaced(snapshot_id=made, decision=decision)


def delete_snapshots(state: ServiceState, uuids: Sequence[str]) -> int:
    """Remove snapshots, all or none."""
    records, storage = state.volumes, state.storage
    known = {uuid: records.snapshot(uuid) for uuid in uuids}
    if len(known) < len(uuids):
        raise InvalidValue("a snapshot is named twice", field="uuids")
    with faults_refused(), storage._context.deciding():
        for each in known.values():
            storage.give_back(each.backend_id, each.size_gb)
    of_volume: dict[str, set[str]] = {}
    for uuid, each in known.items():
        of_volume.setdefault(each.volume, set()).add(uuid)
    for name, gone in of_volume.items():
        volume, before = records.volumes[name], records.amounts(name)
        left = tuple(other for other in volume.snapshots if other not in gone)
        records.put(name, msgspec.structs.replace(volume, snapshots=left))
        for uuid in gone:
            del records.snapshots[uuid]
        state.usage.add(state.tenants, volume.project_id, difference(records.amounts(name), before))
    return len(known)


def backup(state: ServiceState, command: CreateVolumeBackup, now: float) -> BackupPlaced:
    """Choose the backup service for a backup of a volume (Cinder 29, HostManager.get_backup_host)."""
    records, uuid = state.volumes, command.uuid
    volume = records.volume(uuid)
    if command.backup_id is not None:
        uuid_words(command.backup_id, "backup_id")
        records.check_new("backup", records.backups, command.backup_id, "backup_id")
    amounts = {BACKUPS: 1, BACKUP_GIGABYTES: volume.size_gb}
    check_quota(state, volume.project_id, amounts)
    host = _backup_host(state, command, volume)
    made = records.new_uuid("backup")  # also where it comes with one: the number draws the next service
    made = command.backup_id or made
    size, project = volume.size_gb, volume.project_id
    records.backups[made] = KeptBackup(volume=uuid, project_id=project, host=host, size_gb=size, created=now)
    state.usage.add(state.tenants, project, amounts)
    return BackupPlaced(backup_id=made, host=host, size_gb=size)


def _backup_host(state: ServiceState, command: CreateVolumeBackup, volume: KeptVolume) -> str:
    records = state.volumes
    zone = command.availability_zone or volume.zone
    fitting = [
        host
        for host, each in records.backup_services.items()
        if each.up and not each.disabled and (not zone or each.availability_zone == zone)
    ]
    where = f" of zone {zone}" if zone else ""
    if command.same_host:
        host = host_part(backend_part(state.storage.pools.volumes[command.uuid].host))
        fitting = [each for each in fitting if each == host]
        where = f" of the volume's host{where}"
    if not fitting:
        raise NoValidHost(f"no backup service{where} is up and enabled", removed={}, hint="set_backup_service")
    return fitting[Draws(word(state.storage.seed, records.made)).below(len(fitting))]


def delete_backups(state: ServiceState, uuids: Sequence[str]) -> int:
    """Remove backups, all or none."""
    records = state.volumes
    known = {uuid: records.backup(uuid) for uuid in uuids}
    if len(known) < len(uuids):
        raise InvalidValue("a backup is named twice", field="uuids")
    for uuid, each in known.items():
        del records.backups[uuid]
        amounts = {BACKUPS: 1, BACKUP_GIGABYTES: each.size_gb}
        state.usage.add(state.tenants, each.project_id, amounts, -1)
    return len(known)
