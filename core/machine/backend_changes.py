"""Commands on back ends, on the service's state: whether they are used, and reports of their nodes and pools, in steps
of about a millisecond. A command that does not come to its end is undone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from typing import Any, Final

import msgspec

from ...placement.load.bulk import all_or_nothing
from ...placement.load.reports import report_hosts as load_reports
from ...placement.load.reports_in_steps import report_hosts_in_steps
from ...placement.storage.pools.reports import BackendReport
from ...placement.types.errors import DuplicateName
from ...placement.types.host import Host, Service
from ...placement.types.host_report import HostReport
from ...placement.types.steps import finished, in_pieces
from ..lifecycle_commands import NodeReport, PoolReport, ReportBackend, ReportPools, SetBackend
from .lives import BackendLife, GuestLife
from .state import ServiceState

Amounts = tuple[int, int, int]
NEVER_EXPIRES: Final = 1e12
"""Seconds: claims of guests that back ends carry out end by their life cycle, not by a report that leaves them out."""
LOOKED_AT: Final = 2_000
"""Nodes, guests or volumes that are looked up in one step."""
READ: Final = 50
"""Reports of nodes that are read in one step."""
FEW_POOLS: Final = 500
"""Reports of pools that are read in one step."""
SERVICES: Final = 200
"""Compute services that are changed in one step."""


def set_installation(state: ServiceState, name: str) -> None:
    """Name this installation. DuplicateName if it has another name."""
    lives = state.lives
    if lives.installation not in ("", name):
        raise DuplicateName(f"this installation is {lives.installation}", field="id")
    lives.installation = name


def change(
    state: ServiceState, command: SetBackend | ReportBackend | ReportPools, now: float
) -> Generator[None, None, int | None]:
    """The steps of a command on a back end, all or none."""
    match command:
        case SetBackend():
            return set_backend(state, command)
        case ReportBackend():
            return report_nodes(state, command, now)
    return report_pools(state, command, now)


def set_backend(state: ServiceState, command: SetBackend) -> Generator[None, None, None]:
    """Use a back end, or do not use it, in steps."""
    enabled, reason, context = command.enabled, command.reason, state.storage._context
    known = state.lives.backends.get(command.name) or BackendLife()
    with all_or_nothing(state.fleet):
        if known.volume_host in state.storage.pools.services:
            with context.deciding() as pools:
                yield from context.at_own_version(pools.set_service_in_steps(known.volume_host, disabled=not enabled))
        settings: Any = {"disabled": not enabled, "disabled_reason": reason if not enabled else None}
        yield from _set_services(state, known.nodes, **settings)
    backend = state.lives.backends.setdefault(command.name, known)
    backend.enabled, backend.reason = enabled, reason


def _set_services(state: ServiceState, nodes: Sequence[str], **settings: Any) -> Generator[None, None, None]:
    """Change the compute services of those nodes that are there."""
    find = state.fleet._names.find
    for some in in_pieces(nodes, SERVICES):
        there = [node for node in some if find(node) >= 0]
        if there:
            state.fleet.set_service(there, **settings)
        yield


def report_nodes(state: ServiceState, command: ReportBackend, now: float) -> Generator[None, None, int]:
    """Take in the nodes of a back end, in steps; returns how many changed."""
    lives = state.lives
    for some in in_pieces(command.nodes, LOOKED_AT):
        for node in some:
            if lives.backend_of(node.name) not in (None, command.name):
                problem = f"node {node.name} belongs to back end {lives.backend_of(node.name)}"
                raise DuplicateName(problem, field="nodes")
        yield
    known = lives.backends.get(command.name) or BackendLife()
    if command.at < known.reported:
        return 0
    adopted = yield from _adopted(state, command.name, command.at)
    reports: list[HostReport] = []
    for some in in_pieces(command.nodes, READ):
        counted = [_without(node, adopted.get(node.name, ())) for node in some]
        reports += [state.with_pools(_host_report(state, known, node, command.at)) for node in counted]
        yield
    names = {node.name: None for node in command.nodes}
    with all_or_nothing(state.fleet):
        reported = yield from report_hosts_in_steps(state.fleet, reports, claim_timeout=NEVER_EXPIRES)
        gone = [name for name in known.nodes if name not in names]
        yield from _set_services(state, gone, forced_down=True)
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
    adopted = finished(_adopted(state, name, backend.reported)).get(node, [])
    changed = _less(_without(report, adopted), *less)
    host = state.with_pools(_host_report(state, backend, changed, backend.reported))
    load_reports(state.fleet, [host], claim_timeout=NEVER_EXPIRES)


def _adopted(state: ServiceState, name: str, since: float) -> Generator[None, None, dict[str, list[GuestLife]]]:
    """By node: guests that are being adopted, or were since a time. O(guests)."""
    found: dict[str, list[GuestLife]] = {}
    for number, life in enumerate(state.lives.guests.values(), 1):
        if number % LOOKED_AT == 0:
            yield
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


def report_pools(state: ServiceState, command: ReportPools, now: float) -> Generator[None, None, int]:
    """Take in the pools of a back end, in steps; returns 1, or 0 for a report that is older than the one before."""
    lives, name = state.lives, command.name
    known = lives.backends.get(name) or BackendLife()
    host = f"{name}@{command.kind}"
    if known.volume_host not in ("", host):
        raise DuplicateName(f"the pools of back end {name} are known as those of {known.volume_host}", field="kind")
    if command.at < known.pools_reported:
        return 0
    waiting = yield from _waiting_gb(state, command)
    reported: list[dict[str, Any]] = []
    for some in in_pieces(command.pools, FEW_POOLS):
        reported += [_capabilities(each, waiting[each.name]) for each in some]
        yield
    capabilities = {
        "volume_backend_name": name,
        "vendor_name": "Hostler",
        "driver_version": "1",
        "storage_protocol": command.kind,
        "pools": reported,
    }
    report = BackendReport(host=host, capabilities=capabilities, at=min(command.at, now))
    context = state.storage._context
    with context.deciding() as pools:
        yield from context.at_own_version(pools.report_in_steps(report))
        if not known.enabled:
            yield from context.at_own_version(pools.set_service_in_steps(host, disabled=True))
    lives.set_pools(name, host, [each.name for each in command.pools])
    lives.backends[name].pools_reported = command.at
    return 1


def _waiting_gb(state: ServiceState, command: ReportPools) -> Generator[None, None, Counter[str]]:
    """GiB of the volumes that a report does not include, by pool. O(volumes)."""
    waiting = Counter[str]()
    included: dict[str, frozenset[str]] = {}
    for some in in_pieces(command.pools, FEW_POOLS):
        included |= {each.name: frozenset(each.volumes) for each in some}
        yield
    for number, life in enumerate(state.lives.volumes.values(), 1):
        if number % LOOKED_AT == 0:
            yield
        if life.backend == command.name and life.uuid not in included.get(life.pool, ()):
            waiting[life.pool] += life.size_gb
    return waiting


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
