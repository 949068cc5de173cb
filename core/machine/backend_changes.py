"""Commands on back ends, on the service's state: whether they are used, and reports of their nodes and pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ...placement.load.reports import report_hosts as load_reports
from ...placement.storage.pools.reports import BackendReport
from ...placement.types.errors import DuplicateName
from ...placement.types.host import Host, Service
from ...placement.types.host_report import HostReport
from ..lifecycle_commands import NodeReport, PoolReport, ReportBackend, ReportPools
from .lives import BackendLife, GuestLife
from .state import ServiceState

Amounts = tuple[int, int, int]
NEVER_EXPIRES: Final = 1e12
"""Seconds: claims of guests that back ends carry out end by their life cycle, not by a report that leaves them out."""


def set_installation(state: ServiceState, name: str) -> None:
    """Name this installation. DuplicateName if it has another name."""
    lives = state.lives
    if lives.installation not in ("", name):
        raise DuplicateName(f"this installation is {lives.installation}", field="id")
    lives.installation = name


def set_backend(state: ServiceState, name: str, *, enabled: bool, reason: str) -> None:
    """Use a back end, or do not use it."""
    backend = state.lives.backends.setdefault(name, BackendLife())
    backend.enabled, backend.reason = enabled, reason
    _set_pools_enabled(state, backend)
    for node in backend.nodes:
        if state.fleet._names.find(node) >= 0:
            state.fleet.set_service(node, disabled=not enabled, disabled_reason=reason if not enabled else None)


def report_nodes(state: ServiceState, command: ReportBackend, now: float) -> int:
    """Take in the nodes of a back end; returns how many changed."""
    lives = state.lives
    for node in command.nodes:
        if lives.backend_of(node.name) not in (None, command.name):
            raise DuplicateName(f"node {node.name} belongs to back end {lives.backend_of(node.name)}", field="nodes")
    known = lives.backends.get(command.name) or BackendLife()
    if command.at < known.reported:
        return 0
    adopted = _adopted(state, command.name, command.at)
    counted = [_without(node, adopted.get(node.name, ())) for node in command.nodes]
    reports = [state.with_pools(_host_report(state, known, node, command.at)) for node in counted]
    reported = load_reports(state.fleet, reports, claim_timeout=NEVER_EXPIRES)
    names = {node.name: None for node in command.nodes}
    for name in known.nodes:
        if name not in names and state.fleet._names.find(name) >= 0:
            state.fleet.set_service(name, forced_down=True)
    lives.set_nodes(command.name, list({**dict.fromkeys(known.nodes), **names}))
    lives.backends[command.name].reported = command.at
    lives.backends[command.name].attaches = command.attaches
    lives.backends[command.name].can = list(command.can)
    lives.backends[command.name].reports = {node.name: node for node in command.nodes}
    return reported.applied


def report_again(state: ServiceState, name: str, node: str, less: Amounts = (0, 0, 0)) -> None:
    """Report a node again as it was reported last, after a stranger on it has become a guest, or is no longer to become
    one. ``less``: CPUs, MiB and GiB of one that is about to be charged. No-op before the first report. O(guests)."""
    backend = state.lives.backends[name]
    report = backend.reports.get(node)
    if report is None:
        return
    adopted = _adopted(state, name, backend.reported).get(node, [])
    changed = _less(_without(report, adopted), *less)
    host = state.with_pools(_host_report(state, backend, changed, backend.reported))
    load_reports(state.fleet, [host], claim_timeout=NEVER_EXPIRES)


def _adopted(state: ServiceState, name: str, since: float) -> dict[str, list[GuestLife]]:
    """By node: guests that are being adopted, or were since a time. O(guests)."""
    found: dict[str, list[GuestLife]] = {}
    for life in state.lives.guests.values():
        if life.backend == name and (life.adopting or life.adopted >= since > 0):
            found.setdefault(life.node, []).append(life)
    return found


def _without(report: NodeReport, adopted: Sequence[GuestLife]) -> NodeReport:
    """A report without what it counts as used by others, and is charged to guests. O(guests of the node)."""
    for life in adopted:
        if life.uuid not in report.guests:
            report = _less(report, life.vcpus, life.memory_mb, life.disk_gb)
    return report


def _less(report: NodeReport, vcpus: int, memory_mb: int, disk_gb: int) -> NodeReport:
    return msgspec.structs.replace(
        report,
        used_vcpus=max(0, report.used_vcpus - vcpus),
        used_memory_mb=max(0, report.used_memory_mb - memory_mb),
        used_disk_gb=max(0, report.used_disk_gb - disk_gb),
    )


def _host_report(state: ServiceState, backend: BackendLife, node: NodeReport, at: float) -> HostReport:
    disabled = not backend.enabled or node.state == "maintenance"
    reason = backend.reason if not backend.enabled else "maintenance"
    host = Host(
        host=node.name,
        vcpus_total=node.vcpus,
        vcpus_used=node.used_vcpus,
        total_usable_ram_mb=node.memory_mb,
        free_ram_mb=node.memory_mb - node.used_memory_mb,
        total_usable_disk_gb=node.disk_gb,
        free_disk_mb=(node.disk_gb - node.used_disk_gb) * 1024,
        hypervisor_type=node.hypervisor,
        num_instances=node.running,
        failed_builds=state.lives.failed_builds.get(node.name, 0),
    )
    service = Service(disabled=disabled, disabled_reason=reason if disabled else None, forced_down=node.state == "down")
    return HostReport(host=host, at=at, includes=frozenset(node.guests), service=service)


def report_pools(state: ServiceState, command: ReportPools, now: float) -> int:
    """Take in the pools of a back end; returns 1, or 0 for a report that is older than the one before."""
    lives, name = state.lives, command.name
    known = lives.backends.get(name) or BackendLife()
    host = f"{name}@{command.kind}"
    if known.volume_host not in ("", host):
        raise DuplicateName(f"the pools of back end {name} are known as those of {known.volume_host}", field="kind")
    if command.at < known.pools_reported:
        return 0
    waiting = Counter[str]()
    included = {each.name: frozenset(each.volumes) for each in command.pools}
    for life in lives.volumes.values():
        if life.backend == name and life.uuid not in included.get(life.pool, ()):
            waiting[life.pool] += life.size_gb
    capabilities = {
        "volume_backend_name": name,
        "vendor_name": "Hostler",
        "driver_version": "1",
        "storage_protocol": command.kind,
        "pools": [_capabilities(each, waiting[each.name]) for each in command.pools],
    }
    report = BackendReport(host=host, capabilities=capabilities, at=min(command.at, now))
    with state.storage._context.deciding() as pools:
        pools.report(report)
        if not known.enabled:
            pools.set_service(host, disabled=True)
    lives.set_pools(name, host, [each.name for each in command.pools])
    lives.backends[name].pools_reported = command.at
    return 1


def _capabilities(pool: PoolReport, waiting_gb: int) -> dict[str, Any]:
    """A pool as Cinder's rules read it; claims that are not made yet count as provisioned."""
    return {
        "pool_name": pool.name,
        "total_capacity_gb": pool.total_gb,
        "free_capacity_gb": max(0, pool.free_gb - waiting_gb),
        "provisioned_capacity_gb": pool.provisioned_gb + waiting_gb,
        "allocated_capacity_gb": pool.provisioned_gb + waiting_gb,
        "thin_provisioning_support": pool.thin,
        "thick_provisioning_support": not pool.thin,
    }


def _set_pools_enabled(state: ServiceState, backend: BackendLife) -> None:
    """Have new volumes go to the pools of a back end, or not, as it is enabled."""
    if backend.volume_host in state.storage.pools.services:
        with state.storage._context.deciding() as pools:
            pools.set_service(backend.volume_host, disabled=not backend.enabled)
