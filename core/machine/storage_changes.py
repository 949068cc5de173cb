"""Which function carries out each command on storage."""

from __future__ import annotations

from typing import Any

from ...placement.types.steps import finished
from .. import storage_commands as s
from . import storage_backends, volume_lives, volume_moves, volumes
from .state import ServiceState


def change_storage(state: ServiceState, command: s.StorageBase, now: float) -> Any:
    """Execute a command; returns its answer. HostlerError, with nothing changed, if it is refused."""
    volume_lives.check_not_carried_out(state, command)
    match command:
        case s.PlaceVolume(request=request):
            return volumes.place(state, request, now)
        case s.DeleteVolumes():
            return volume_lives.delete(state, command, now)
        case s.ExtendVolume():
            return volumes.extend(state, command, now)
        case s.RetryVolume(uuid=uuid):
            return volumes.retry(state, uuid, now)
        case s.ManageVolume():
            return volumes.manage(state, command, now)
        case s.PlaceVolumeGroup():
            return finished(volumes.place_group(state, command, now))
        case s.DeleteVolumeGroup(uuid=uuid):
            return volumes.delete_group(state, uuid)
        case s.PlaceTogether():
            return volumes.place_with_guest(state, command, now)
        case s.BeginRetype():
            return volume_moves.begin_retype(state, command, now)
        case s.BeginVolumeMigration():
            return volume_moves.begin_migration(state, command, now)
        case s.ConfirmVolumeMove(uuid=uuid):
            return volume_moves.end(state, uuid, confirm=True)
        case s.RevertVolumeMove(uuid=uuid):
            return volume_moves.end(state, uuid, confirm=False)
    return _change_others(state, command, now)


def _change_others(state: ServiceState, command: s.StorageBase, now: float) -> Any:
    match command:
        case s.CreateVolumeSnapshot():
            return volumes.snapshot(state, command, now)
        case s.DeleteVolumeSnapshots(uuids=uuids):
            return volumes.delete_snapshots(state, uuids)
        case s.CreateVolumeBackup():
            return volumes.backup(state, command, now)
        case s.DeleteVolumeBackups(uuids=uuids):
            return volumes.delete_backups(state, uuids)
        case s.ReportVolumeBackends():
            return finished(storage_backends.report(state, command, now))
        case s.SetVolumeBackend():
            return finished(storage_backends.set_backend(state, command))
        case s.RemoveVolumeBackend():
            return storage_backends.remove_backend(state, command)
        case s.SetBackupService():
            return storage_backends.set_backup_service(state, command)
        case s.RemoveBackupService():
            return storage_backends.remove_backup_service(state, command)
    raise TypeError(f"{type(command).__name__} is no command on storage")
