"""Commands on volume backends and backup services: reports, settings and removal."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Final

import msgspec

from ...placement.storage.pools.backend_names import backend_part
from ...placement.storage.pools.reports import BackendReport, check_report
from ...placement.storage.pools.volumes import Volume
from ...placement.types.errors import InUse, InvalidValue, UnknownName
from ...placement.types.steps import finished, in_pieces
from ...placement.types.validation import MAX_NESTING, check_text, is_deeper
from ..storage_commands import (
    RemoveBackupService,
    RemoveVolumeBackend,
    ReportVolumeBackends,
    SetBackupService,
    SetVolumeBackend,
    VolumeBackendReport,
)
from .state import ServiceState
from .volume_records import BackupService

POOLS: Final = 24
"""Pools of which reports are taken in in one step."""
CHECKED: Final = 250
"""Pools of one report whose capabilities are checked in one step."""
READ: Final = 500
"""Reports that are looked through in one step."""


def report(state: ServiceState, command: ReportVolumeBackends, now: float) -> Generator[None, None, int]:
    """Take in reports of backends, all or none, in steps; how many were not older than what was known. Reports by which
    services join or leave clusters are taken in at once."""
    read = list[tuple[BackendReport, str | None]]()
    weight = 0
    for at, each in enumerate(command.reports):
        if weight > POOLS:
            yield
            weight = 0
        read.append(((yield from _report(each, now, f"reports[{at}]")), each.availability_zone))
        weight += _pools_of(each.capabilities)
    for number, (given, zone) in enumerate(read):
        if number and number % READ == 0:
            yield
        check_report(given)
        check_text(zone or "nova", "availability_zone")
    context, taken = state.storage._context, 0
    keys = {host: service.key for host, service in context.pools.services.items()}
    joined = any(keys.get(given.host, given.host) != (given.cluster_name or given.host) for given, _ in read)
    yield
    with context.deciding():
        for number, (given, zone) in enumerate(read):
            if number and weight > POOLS and not joined:
                yield
                weight = 0
            steps = context.pools.report_in_steps(given, availability_zone=zone)
            if joined or _pools_of(given.capabilities) <= POOLS:
                taken += finished(steps)
            else:
                taken += yield from context.at_own_version(steps)
            weight += _pools_of(given.capabilities)
        services = context.pools.services
        now_of = ((key, services[host].key) for host, key in keys.items())
        renamed = {before: after for before, after in now_of if before != after}
    if renamed:
        _follow(state, renamed)
    return taken


def _pools_of(capabilities: Mapping[str, Any]) -> int:
    pools = capabilities.get("pools")
    return len(pools) if isinstance(pools, list) and pools else 1


def _follow(state: ServiceState, renamed: Mapping[str, str]) -> None:
    """Snapshots and groups of volumes whose backends have joined a cluster, or left it, are where these are. O(all)."""
    records, volumes = state.volumes, state.storage.pools.volumes
    for uuid, snapshot in records.snapshots.items():
        where = volumes[snapshot.volume].backend_id
        records.snapshots[uuid] = msgspec.structs.replace(snapshot, backend_id=where)
    for uuid, group in records.groups.items():
        members = records.members(uuid)
        backend = backend_part(volumes[members[0]].backend_id) if members else renamed.get(group.backend, group.backend)
        records.groups[uuid] = msgspec.structs.replace(group, backend=backend)


def _report(given: VolumeBackendReport, now: float, field: str) -> Generator[None, None, BackendReport]:
    """A report as the pools read it; one from the future counts as of now, so that none after it is left aside."""
    at, capabilities = now if given.at is None else min(given.at, now), given.capabilities
    if (yield from _in_parts(capabilities, _is_too_deep)):
        problem = f"{field}.capabilities of {given.host} is nested more than {MAX_NESTING} levels deep"
        raise InvalidValue(problem, field=f"{field}.capabilities")
    if (yield from _in_parts(capabilities, _is_not_plain)):
        problem = f"{field}.capabilities of {given.host} must be values that JSON has"
        raise InvalidValue(problem, field=f"{field}.capabilities")
    return BackendReport(host=given.host, capabilities=capabilities, at=at, cluster_name=given.cluster_name)


def _in_parts(capabilities: dict[str, Any], refused: Callable[[dict[str, Any]], bool]) -> Generator[None, None, bool]:
    """Whether capabilities are refused, of which a long list of pools is looked at in parts."""
    pools = capabilities.get("pools")
    if not isinstance(pools, list) or len(pools) <= CHECKED:
        return refused(capabilities)
    if refused(capabilities | {"pools": []}):
        return True
    for some in in_pieces(pools, CHECKED):
        yield
        if refused({"pools": some}):
            return True
    return False


def _is_too_deep(capabilities: dict[str, Any]) -> bool:
    return is_deeper(capabilities, MAX_NESTING)


def _is_not_plain(capabilities: dict[str, Any]) -> bool:
    """False for what a snapshot can hold: no bytes, times, or numbers that are not finite."""
    try:
        differs: bool = msgspec.json.decode(msgspec.json.encode(capabilities)) != capabilities
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return True
    return differs


def set_backend(state: ServiceState, command: SetVolumeBackend) -> Generator[None, None, None]:
    """Change the settings of a volume service, in steps."""
    context = state.storage._context
    with context.deciding() as pools:
        steps = pools.set_service_in_steps(
            command.host,
            up=command.up,
            disabled=command.disabled,
            frozen=command.frozen,
            availability_zone=command.availability_zone,
        )
        yield from context.at_own_version(steps)


def remove_backend(state: ServiceState, command: RemoveVolumeBackend) -> None:
    """Forget a volume service, unless it is the last one of a backend with volumes."""
    with state.storage._context.deciding() as pools:
        service = pools.services.get(command.host)
        if service is not None and not command.force:
            last = sum(each.key == service.key for each in pools.services.values()) == 1
            there = sum(service.key in _backends_of(each) for each in pools.volumes.values()) if last else 0
            if there:
                problem = f"volume backend {service.key} has {there} volumes"
                raise InUse(problem, field="host", hint="migrate or delete them first, or use force")
        pools.remove_service(command.host)


def _backends_of(volume: Volume) -> Iterator[str]:
    """Backends that a volume is on, or comes back to if its move is reverted."""
    yield backend_part(volume.backend_id)
    if volume.moved_from is not None:
        host, cluster_name = volume.moved_from
        yield backend_part(cluster_name or host)


def set_backup_service(state: ServiceState, command: SetBackupService) -> None:
    """Add a backup service, or change its settings."""
    known = state.volumes.backup_services
    given = {"availability_zone": command.availability_zone, "up": command.up, "disabled": command.disabled}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    known[command.host] = msgspec.structs.replace(known.get(command.host, BackupService()), **changes)


def remove_backup_service(state: ServiceState, command: RemoveBackupService) -> None:
    """Forget a backup service."""
    known = state.volumes.backup_services
    if command.host not in known:
        raise UnknownName.among("backup service", command.host, known, field="host")
    del known[command.host]
