"""What a host has reported, with its NUMA cells and PCI devices, as plain values for answers."""

from __future__ import annotations

from typing import Any

import msgspec

from ...placement.fleet.host_view import HostView
from ...placement.types.host import PciPool


class PagesDetail(msgspec.Struct, frozen=True):
    """Pages of one size on a NUMA cell: ``size_kb`` in KiB, the rest in pages."""

    size_kb: int
    total: int
    used: int
    reserved: int


class CellDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A NUMA cell. ``cpus``: for guests whose vCPUs float; ``pinnable``: for dedicated ones, of which those in
    ``pinned`` are taken. ``siblings``: threads of one core. Memory in MiB. ``physnets``, ``tunneled``: networks whose
    NICs are on the cell."""

    id: int
    cpus: list[int]
    cpu_usage: int
    pinnable: list[int]
    pinned: list[int]
    siblings: list[list[int]]
    memory: int
    memory_usage: int
    pages: list[PagesDetail]
    socket: int | None
    physnets: list[str] = []
    tunneled: bool = False


class PciPoolDetail(msgspec.Struct, frozen=True, kw_only=True):
    """PCI devices with equal tags on one NUMA cell: how many are ``free`` for guests, and of how many."""

    tags: dict[str, Any]
    numa_node: int | None
    card: str | None
    free: int
    total: int | None


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What filters and weighers read of a host beside its free amounts, as it was reported. Disk in MiB, but for the
    total in GiB; ``reported_at``: time of the last report (seconds since the epoch), None if there was none."""

    reported_at: float | None
    cell_uuid: str | None
    host_ip: str | None
    hypervisor_type: str | None
    hypervisor_version: int | None
    cpu_info: str | None
    supported_instances: list[list[str]]
    cpu_allocation_ratio: float
    ram_allocation_ratio: float
    disk_allocation_ratio: float
    total_usable_disk_gb: int
    disk_mb_used: int
    num_io_ops: int
    failed_builds: int
    stats: dict[str, str]
    metrics: dict[str, float]


def facts_of(view: HostView) -> HostFacts:
    """What a host has reported."""
    reported = float(view.fleet._store.row["reported"][view.row])
    return HostFacts(
        reported_at=reported if reported > 0 else None,
        cell_uuid=view.cell_uuid,
        host_ip=view.host_ip,
        hypervisor_type=view.hypervisor_type,
        hypervisor_version=view.hypervisor_version,
        cpu_info=view.cpu_info,
        supported_instances=[list(each) for each in view.supported_instances],
        cpu_allocation_ratio=view.cpu_allocation_ratio,
        ram_allocation_ratio=view.ram_allocation_ratio,
        disk_allocation_ratio=view.disk_allocation_ratio,
        total_usable_disk_gb=view.total_usable_disk_gb,
        disk_mb_used=view.disk_mb_used,
        num_io_ops=view.num_io_ops,
        failed_builds=view.failed_builds,
        stats=dict(view.stats),
        metrics=dict(view.metrics),
    )


def cells_of(view: HostView) -> list[CellDetail]:
    """The NUMA cells of a host; empty if it reports none."""
    topology = view.numa_topology
    return [
        CellDetail(
            id=cell.id,
            cpus=sorted(cell.cpuset),
            cpu_usage=cell.cpu_usage,
            pinnable=sorted(cell.pcpuset),
            pinned=sorted(cell.pinned_cpus),
            siblings=sorted(map(sorted, cell.siblings)),
            memory=cell.memory,
            memory_usage=cell.memory_usage,
            pages=[PagesDetail(each.size_kb, each.total, each.used, each.reserved) for each in cell.mempages],
            socket=cell.socket,
            physnets=sorted(cell.network_metadata.physnets) if cell.network_metadata is not None else [],
            tunneled=cell.network_metadata is not None and cell.network_metadata.tunneled,
        )
        for cell in (() if topology is None else topology.cells)
    ]


def pools_of(view: HostView) -> list[PciPoolDetail]:
    """The pools of PCI devices of a host. ``free``: what guests may take: none of a card of which another function is
    taken."""
    free = {_which(pool): pool.count for pool in view.pci_pools}
    return [
        PciPoolDetail(
            tags=dict(pool.tags),
            numa_node=pool.numa_node,
            card=pool.card,
            free=free.get(_which(pool), 0),
            total=pool.total,
        )
        for pool in view.fleet._pci_states.of(view.row)
    ]


def _which(pool: PciPool) -> tuple[Any, ...]:
    return pool.numa_node, pool.card, tuple(sorted((name, repr(value)) for name, value in pool.tags.items()))
