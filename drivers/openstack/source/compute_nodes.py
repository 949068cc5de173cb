"""Rows of Nova's tables ``compute_nodes`` and ``services`` as hosts, as Nova 34's HostState reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final

from ....placement.types.host import Aggregate, Host, NumaTopology, PciPool, Service
from ..nova.hosts import metrics_of, pools_of, seconds, topology_of
from ..primitives import is_primitive, listed, value_of
from .values import Row, SourceNode

NODES: Final = "compute_nodes"
NODE_COLUMNS: Final = (
    *("id", "uuid", "host", "hypervisor_hostname", "vcpus", "memory_mb", "local_gb", "vcpus_used", "local_gb_used"),
    *("free_ram_mb", "free_disk_gb", "disk_available_least", "hypervisor_type", "hypervisor_version", "cpu_info"),
    *("host_ip", "supported_instances", "metrics", "pci_stats", "stats", "numa_topology", "cpu_allocation_ratio"),
    *("ram_allocation_ratio", "disk_allocation_ratio", "updated_at"),
)
SERVICES: Final = "services"
COMPUTE: Final = "nova-compute"
"""Binary of the services of hosts."""
SERVICE_COLUMNS: Final = (
    *("id", "host", "binary", "disabled", "disabled_reason", "forced_down", "last_seen_up", "created_at", "version"),
)
DOWN_TIME: Final = 60.0
"""Seconds without a report after which a service counts as down (Nova 34 service_down_time)."""
INITIAL_RATIOS: Final = {"cpu_allocation_ratio": 4.0, "ram_allocation_ratio": 1.0, "disk_allocation_ratio": 1.0}
"""Of nodes that report none (Nova 34 initial_*_allocation_ratio)."""
TEXTS: Final = 1_024
"""Texts of NUMA cells, PCI pools and kinds of guests whose values are kept."""


class Malformed(ValueError):
    """A row that cannot be read; the text says why."""


def node_of(
    row: Any,
    service: Sequence[Any] | None,
    *,
    cell: str | None,
    now: float,
    table: str,
    aggregates: tuple[Aggregate, ...] = (),
    instances: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> SourceNode:
    """A compute node with its service (SERVICE_COLUMNS), seen at ``now`` (seconds since the epoch). Malformed if
    it has not reported yet, has no service, or a column cannot be read. O(NUMA cells + pools), less for texts that were
    read lately."""
    if service is None:
        raise Malformed(f"there is no nova-compute service on {row.host}")
    if row.free_disk_gb is None or row.uuid is None or not row.vcpus or not row.memory_mb:
        raise Malformed("it has not reported its resources yet")
    try:
        host = _host(row, service, cell, aggregates, instances)
    except Malformed:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise Malformed(f"it cannot be read: {error}") from None
    return SourceNode(host=host, up=is_up(host.service, now), row=Row(table, row.id))


def is_up(service: Service, now: float) -> bool:
    """True if a service is not forced down and has reported lately."""
    seen = service.last_seen_up if service.last_seen_up is not None else service.created_at
    return not service.forced_down and seen is not None and now - seen <= DOWN_TIME


def _host(
    row: Any,
    service: Sequence[Any],
    cell: str | None,
    aggregates: tuple[Aggregate, ...],
    instances: Mapping[str, Mapping[str, Any]],
) -> Host:
    """What `figures_of` makes of Nova's HostState after that was updated from a row; each host of a large cloud comes
    by here once a minute."""
    free_gb = row.free_disk_gb
    if row.disk_available_least is not None:
        free_gb = min(row.disk_available_least, free_gb)
    stats = _stats(row.stats)
    return Host(
        host=row.host,
        nodename=row.hypervisor_hostname,
        uuid=row.uuid,
        cell_uuid=cell,
        vcpus_total=int(row.vcpus),
        vcpus_used=int(row.vcpus_used or 0),
        cpu_allocation_ratio=float(row.cpu_allocation_ratio or INITIAL_RATIOS["cpu_allocation_ratio"]),
        total_usable_ram_mb=int(row.memory_mb),
        free_ram_mb=int(row.memory_mb if row.free_ram_mb is None else row.free_ram_mb),
        ram_allocation_ratio=float(row.ram_allocation_ratio or INITIAL_RATIOS["ram_allocation_ratio"]),
        total_usable_disk_gb=int(row.local_gb or 0),
        disk_mb_used=int(row.local_gb_used or 0) * 1024,
        free_disk_mb=int(free_gb) * 1024,
        disk_allocation_ratio=float(row.disk_allocation_ratio or INITIAL_RATIOS["disk_allocation_ratio"]),
        hypervisor_type=row.hypervisor_type,
        hypervisor_version=row.hypervisor_version,
        host_ip=None if row.host_ip is None else str(row.host_ip),
        cpu_info=row.cpu_info,
        supported_instances=_supported(row.supported_instances),
        stats=stats,
        num_instances=int(stats.get("num_instances", 0)),
        num_io_ops=int(stats.get("io_workload", 0)),
        failed_builds=int(stats.get("failed_builds", 0)),
        metrics=_metrics(row.metrics),
        service=_service(service),
        aggregates=aggregates,
        instances=dict(instances),
        numa_topology=_topology(row.numa_topology),
        pci_pools=_pools(row.pci_stats),
    )


def _service(service: Sequence[Any]) -> Service:
    _, _, _, disabled, reason, forced_down, seen, created, version = service
    return Service(
        disabled=bool(disabled),
        disabled_reason=reason,
        forced_down=bool(forced_down),
        last_seen_up=seconds(seen),
        created_at=seconds(created),
        version=version,
    )


def _metrics(text: str | None) -> dict[str, Any]:
    found = _json(text, "metrics")
    return metrics_of([SimpleNamespace(**each) for each in found]) if found else {}


def instances_counted(stats: str | None) -> int | None:
    """How many instances a compute node counts as its own, by the text of its statistics, of which one that it does not
    name is 0, as in Nova; None where it has none, or they cannot be read."""
    try:
        return None if stats is None else int(_stats(stats).get("num_instances", 0))
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


@lru_cache(maxsize=TEXTS)
def _stats(text: str | None) -> dict[str, str]:
    """Of many hosts, most of whose texts are those of others."""
    found = _json(text, "stats") or {}
    return {str(name): str(value) for name, value in found.items()}


@lru_cache(maxsize=TEXTS)
def _supported(text: str | None) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(map(str, each)) for each in _json(text, "supported_instances") or ())


@lru_cache(maxsize=TEXTS)
def _topology(text: str | None) -> NumaTopology | None:
    """Hosts of one make report the same text while no guest of theirs has NUMA cells, and each host its own again."""
    return topology_of(_object(text, "numa_topology"))


@lru_cache(maxsize=TEXTS)
def _pools(text: str | None) -> tuple[PciPool, ...]:
    found = _object(text, "pci_stats")
    if found is None:
        return ()
    pools = []
    for pool in listed(found):
        if isinstance(pool, Mapping):  # as Nova before Kilo wrote them
            pools.append(dict(pool))
            continue
        tags = dict(pool.tags) if "tags" in pool else {}
        known = {name: getattr(pool, name) for name in ("vendor_id", "product_id", "numa_node") if name in pool}
        pools.append({**tags, **known, "count": pool.count})
    return pools_of(SimpleNamespace(pools=pools))


def _json(text: str | None, column: str) -> Any:
    if not text or text == "[]":
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise Malformed(f"{column} is not JSON: {error}") from None


def _object(text: str | None, column: str) -> Any:
    """A versioned object, or a list of values, of a column."""
    found = _json(text, column)
    if isinstance(found, Mapping) and not is_primitive(found):
        raise Malformed(f"{column} is in a form from before Nova 2014.2")
    return value_of(found)


def without_heartbeat(node: SourceNode) -> Host:
    """A host for a fleet that no service reports to: a service that was down when it was read is disabled."""
    service, reason = node.host.service, node.host.service.disabled_reason
    if not node.up:
        reason = "forced down" if service.forced_down else "down when it was imported"
    disabled = service.disabled or not node.up
    kept = Service(disabled=disabled, disabled_reason=reason if disabled else None, version=service.version)
    return replace(node.host, service=kept)


__all__ = [
    "COMPUTE",
    "DOWN_TIME",
    "NODES",
    "NODE_COLUMNS",
    "SERVICES",
    "SERVICE_COLUMNS",
    "Malformed",
    "instances_counted",
    "is_up",
    "node_of",
    "without_heartbeat",
]
