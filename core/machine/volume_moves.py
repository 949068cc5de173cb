"""Retypes and migrations of volumes in two steps: both ends are charged, and both types counted, until the move is
confirmed or reverted. A revert cannot fail: nothing has been given back."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Final

import msgspec

from ...placement.storage.decision import VolumeDecision
from ...placement.storage.pools.request import VolumeSpec, VolumeType, check_volume_type
from ...placement.types.errors import InUse, InvalidValue
from ..storage_commands import BeginRetype, BeginVolumeMigration, VolumeMoved
from .state import ServiceState
from .volume_records import KeptVolume, VolumeMove, amounts_of, difference
from .volumes import check_quota, check_settled, faults_refused, keep, later

ENDING: Final = 8
"""Moves that are reverted in one step when their time is over."""
_ALONE: Final = "remove it from there first"


def begin_retype(state: ServiceState, command: BeginRetype, now: float) -> VolumeDecision:
    """Claim what a volume needs for another type."""
    uuid, volume = command.uuid, state.volumes.volume(command.uuid)
    _check_movable(uuid, volume)
    spec, name = _typed(state, volume, command.volume_type)
    if name == volume.volume_type and spec.volume_type == volume.spec.volume_type:
        raise InvalidValue(f"volume {uuid} is of the type {name!r} already", field="volume_type")
    move = VolumeMove(
        kind="retype", spec=spec, volume_type=name, zone=volume.zone, elsewhere=False, expires=_end(command, now)
    )
    sizes = [state.volumes.snapshots[each].size_gb for each in volume.snapshots]
    moving = msgspec.structs.replace(volume, move=move, retry=None)
    more = difference(amounts_of(moving, sizes), amounts_of(volume, sizes))
    check_quota(state, volume.project_id, more)
    request = later(uuid, msgspec.structs.replace(volume, spec=spec), now)
    policy = command.migration_policy
    if volume.snapshots and policy == "on-demand":
        policy = "never"  # Cinder: a volume with snapshots is not migrated
    before = state.storage.pools.volumes[uuid].backend_id
    with faults_refused():
        decision = state.storage.retype(request, migration_policy=policy)
    _keep_moving(state, uuid, moving, decision, before)
    return decision


def begin_migration(state: ServiceState, command: BeginVolumeMigration, now: float) -> VolumeDecision:
    """Claim room for a volume on another pool."""
    uuid, volume = command.uuid, state.volumes.volume(command.uuid)
    _check_movable(uuid, volume)
    if volume.snapshots:
        raise InUse(f"volume {uuid} has {len(volume.snapshots)} snapshots, so that it cannot migrate", field="uuid")
    move = VolumeMove(
        kind="migrate",
        spec=volume.spec,
        volume_type=volume.volume_type,
        zone=volume.zone,
        elsewhere=True,
        expires=_end(command, now),
    )
    before = state.storage.pools.volumes[uuid].backend_id
    with faults_refused():
        decision = state.storage.migrate(later(uuid, volume, now), command.target)
    _keep_moving(state, uuid, msgspec.structs.replace(volume, move=move, retry=None), decision, before)
    return decision


def _keep_moving(state: ServiceState, uuid: str, moving: KeptVolume, decision: VolumeDecision, before: str) -> None:
    chosen = decision.selection
    if chosen is None:
        return
    assert moving.move is not None
    elsewhere = chosen.backend_id != before
    move = msgspec.structs.replace(moving.move, zone=chosen.availability_zone, elsewhere=elsewhere)
    keep(state, uuid, msgspec.structs.replace(moving, move=move))


def _check_movable(uuid: str, volume: KeptVolume) -> None:
    """Cinder 29, volume API: a volume of a group neither migrates nor changes its type."""
    check_settled(uuid, volume)
    if volume.group is not None:
        raise InUse(f"volume {uuid} is in volume group {volume.group}", field="uuid", hint=_ALONE)


def _end(command: BeginRetype | BeginVolumeMigration, now: float) -> float | None:
    return None if command.expires_in is None else now + command.expires_in


def _typed(state: ServiceState, volume: KeptVolume, wanted: str | VolumeType) -> tuple[VolumeSpec, str]:
    """A volume's spec with another type, and the type's name."""
    if isinstance(wanted, str):
        kept = state.catalog.volume_type(wanted, "volume_type")
        spec = replace(volume.spec, volume_type=kept, qos_specs=state.catalog.qos_specs(wanted))
        return spec, wanted
    check_volume_type(wanted, "volume_type")
    return replace(volume.spec, volume_type=wanted), wanted.name


def end(state: ServiceState, uuid: str, *, confirm: bool) -> VolumeMoved:
    """Confirm or revert the move of a volume."""
    volume, storage = state.volumes.volume(uuid), state.storage
    move = volume.move
    if move is None:
        raise InvalidValue(f"volume {uuid} has no retype or migration under way", field="uuid")
    if move.elsewhere and confirm:
        storage.migrated(uuid)
    elif move.elsewhere:
        storage.reverted(uuid)
    stays = msgspec.structs.replace(volume, move=None)
    if confirm:
        stays = msgspec.structs.replace(stays, spec=move.spec, volume_type=move.volume_type, zone=move.zone)
    keep(state, uuid, stays)
    where = storage.pools.volumes[uuid].backend_id
    return VolumeMoved(uuid=uuid, kind=move.kind, backend_id=where, volume_type=stays.volume_type)


def expire(state: ServiceState, now: float) -> Generator[None, None, None]:
    """Revert the moves whose time is over, in steps. O(those)."""
    for number, uuid in enumerate(state.volumes.ends.due(now)):
        if number and number % ENDING == 0:
            yield
        end(state, uuid, confirm=False)
