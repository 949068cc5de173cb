"""Nova's HostState as a Host: what its filters and weighers read. Works on any object with HostState's attributes;
imports nothing of Nova."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from ....placement.types.host import Aggregate, Host, MemoryPages, NumaCell, NumaTopology, PciPool, Service
from ....placement.types.networks import NetworkMetadata
from .reading import field

_EPOCH: Final = datetime(1970, 1, 1)
_NOT_TAGS: Final = frozenset({"count", "numa_node", "devices"})


def host_of(state: Any, *, read_images: bool = False) -> Host:
    """A HostState, updated from its compute node, service, aggregates and instances. ``read_images``: with the image
    properties of the instances, which Nova may load from its database one by one. O(instances + NUMA cells + pools)."""
    return Host(
        **figures_of(state),
        aggregates=tuple(aggregate_of(each) for each in sorted(state.aggregates, key=lambda each: int(each.id))),
        instances={uuid: _properties(each) if read_images else {} for uuid, each in list(state.instances.items())},
        numa_topology=topology_of(state.numa_topology),
        pci_pools=pools_of(state.pci_stats),
    )


def figures_of(state: Any) -> dict[str, Any]:
    """Of a HostState, all fields of a Host but its aggregates, instances, NUMA cells and PCI pools. O(figures)."""
    return {
        "host": state.host,
        "nodename": state.nodename,
        "uuid": state.uuid,
        "cell_uuid": state.cell_uuid,
        "vcpus_total": int(state.vcpus_total),
        "vcpus_used": int(state.vcpus_used),
        "cpu_allocation_ratio": float(state.cpu_allocation_ratio),
        "total_usable_ram_mb": int(state.total_usable_ram_mb),
        "free_ram_mb": int(state.free_ram_mb),
        "ram_allocation_ratio": float(state.ram_allocation_ratio),
        "total_usable_disk_gb": int(state.total_usable_disk_gb),
        "disk_mb_used": int(state.disk_mb_used),
        "free_disk_mb": int(state.free_disk_mb),
        "disk_allocation_ratio": float(state.disk_allocation_ratio),
        "hypervisor_type": state.hypervisor_type,
        "hypervisor_version": state.hypervisor_version,
        "host_ip": None if state.host_ip is None else str(state.host_ip),
        "cpu_info": state.cpu_info,
        "supported_instances": tuple(tuple(map(str, each)) for each in state.supported_instances or ()),
        "stats": {str(name): str(value) for name, value in (state.stats or {}).items()},
        "num_instances": state.num_instances,
        "num_io_ops": state.num_io_ops,
        "failed_builds": state.failed_builds,
        "metrics": metrics_of(state.metrics or ()),
        "service": service_of(state.service),
    }


def aggregate_of(aggregate: Any) -> Aggregate:
    """A host aggregate of Nova."""
    metadata = {str(key): str(value) for key, value in (aggregate.metadata or {}).items()}
    return Aggregate(uuid=aggregate.uuid, name=aggregate.name, metadata=metadata)


def service_of(service: Mapping[str, Any]) -> Service:
    """The row of a nova-compute service, as a mapping."""
    return Service(
        disabled=bool(service.get("disabled")),
        disabled_reason=service.get("disabled_reason"),
        forced_down=bool(service.get("forced_down")),
        last_seen_up=seconds(service.get("last_seen_up")),
        created_at=seconds(service.get("created_at")),
        version=service.get("version"),
    )


def seconds(moment: datetime | None) -> float | None:
    """Seconds since the epoch of a time of Nova's, which is UTC where it names no zone."""
    if moment is None:
        return None
    return moment.timestamp() if moment.tzinfo is not None else (moment - _EPOCH).total_seconds()


def metrics_of(metrics: Iterable[Any]) -> dict[str, Any]:
    """Metrics that are one number; a memory bandwidth per NUMA cell has no ``value``, and nothing weighs it."""
    values = {metric.name: field(metric, "value") for metric in metrics}
    return {name: value for name, value in values.items() if value is not None}


def _properties(instance: Any) -> dict[str, Any]:
    image = instance.image_meta
    properties = None if image is None else field(image, "properties")
    return {} if properties is None else image_properties(properties)


def image_properties(properties: Any) -> dict[str, Any]:
    """The properties of an image that are set, under Nova's canonical names, as plain values."""
    found = {}
    for name in properties.fields:
        value = field(properties, name)
        if value is not None:
            found[name] = value if isinstance(value, (str, int, float, bool)) else _text(value)
    return found


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple, set, frozenset)):
        return ",".join(str(each) for each in value)
    return str(value)


def topology_of(topology: Any) -> NumaTopology | None:
    """NUMA cells of a host; None for none. O(cells)."""
    return None if topology is None else NumaTopology(cells=tuple(_cell(cell) for cell in topology.cells))


def _cell(cell: Any) -> NumaCell:
    networks = field(cell, "network_metadata")
    return NumaCell(
        id=cell.id,
        cpuset=frozenset(cell.cpuset),
        pcpuset=frozenset(field(cell, "pcpuset") or ()),
        memory=cell.memory,
        cpu_usage=cell.cpu_usage,
        memory_usage=cell.memory_usage,
        pinned_cpus=frozenset(field(cell, "pinned_cpus") or ()),
        siblings=tuple(frozenset(core) for core in field(cell, "siblings") or ()),
        mempages=tuple(_pages(each) for each in field(cell, "mempages") or ()),
        socket=field(cell, "socket"),
        network_metadata=None if networks is None else networks_of(networks),
    )


def _pages(pages: Any) -> MemoryPages:
    return MemoryPages(
        size_kb=pages.size_kb, total=pages.total, used=field(pages, "used") or 0, reserved=field(pages, "reserved") or 0
    )


def networks_of(metadata: Any) -> NetworkMetadata:
    """Physical networks and tunnels."""
    return NetworkMetadata(physnets=frozenset(metadata.physnets), tunneled=bool(metadata.tunneled))


def pools_of(stats: Any) -> tuple[PciPool, ...]:
    """PCI pools, as Nova's PciDeviceStats keeps them; None for none."""
    return tuple(_pools(stats))


def _pools(stats: Any) -> Iterable[PciPool]:
    for pool in () if stats is None else stats.pools:
        tags = {key: value for key, value in pool.items() if key not in _NOT_TAGS and value is not None}
        yield PciPool(count=pool["count"], numa_node=pool.get("numa_node"), tags=tags)
