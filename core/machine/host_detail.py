"""What a host has of NUMA cells and PCI devices, as plain values for answers."""

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
    ``pinned`` are taken. ``siblings``: threads of one core. Memory in MiB."""

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


class PciPoolDetail(msgspec.Struct, frozen=True, kw_only=True):
    """PCI devices with equal tags on one NUMA cell: how many are ``free`` for guests, and of how many."""

    tags: dict[str, Any]
    numa_node: int | None
    card: str | None
    free: int
    total: int | None


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
