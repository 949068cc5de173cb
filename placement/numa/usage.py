"""Charges and releases a fitted guest on a host's NUMA cells (Nova 33 hardware.py NUMA usage)."""

from __future__ import annotations

from dataclasses import replace

from ..types.errors import InvalidValue
from ..types.host import MemoryPages, NumaCell, NumaTopology
from ..types.request import InstanceNumaTopology
from .fit import FittedCell, FittedNuma


def usage(host: NumaTopology, fitted: FittedNuma, free: bool = False) -> NumaTopology:
    """``host`` with ``fitted`` on it, or with ``free`` without it. O(cells).

    Charges also where Nova 33 fails to (``FittedNuma.nova_charges``). As in Nova, usage does not go below zero.
    InvalidValue if a host cell is unknown or given twice, a CPU to pin is not free, or a CPU to release is not pinned.
    """
    if len({part.host_cell for part in fitted.cells}) < len(fitted.cells):
        raise InvalidValue("two guest NUMA cells are on one host cell", field="fitted")
    cells = {cell.id: cell for cell in host.cells}
    for part in fitted.cells:
        if part.host_cell not in cells:
            raise InvalidValue(f"the host has no NUMA cell {part.host_cell}", field="numa_topology")
        cells[part.host_cell] = _changed(cells[part.host_cell], part, -1 if free else 1)
    return NumaTopology(cells=tuple(cells[cell.id] for cell in host.cells))


def settled(wanted: InstanceNumaTopology, fitted: FittedNuma) -> InstanceNumaTopology:
    """The topology that Nova 33 requests for the next guest of the same request: page sizes small, large and any are
    replaced by the chosen size.

    (Nova overwrites the request with the fitted topology when it charges a host.)
    """
    pairs = zip(wanted.cells, fitted.cells, strict=True)
    cells = tuple(replace(cell, pagesize=part.page_kb) if cell.pagesize else cell for cell, part in pairs)
    return replace(wanted, cells=cells)


def _changed(cell: NumaCell, part: FittedCell, sign: int) -> NumaCell:
    return replace(
        cell,
        cpu_usage=max(0, cell.cpu_usage + sign * part.shared_cpus),
        memory_usage=max(0, cell.memory_usage + sign * part.memory),
        pinned_cpus=_pinned(cell, part.taken_cpus) if sign > 0 else _unpinned(cell, part.taken_cpus),
        mempages=tuple(_pages(pages, part, sign) for pages in cell.mempages),
    )


def _pages(pages: MemoryPages, part: FittedCell, sign: int) -> MemoryPages:
    if pages.size_kb != part.page_kb:
        return pages
    return replace(pages, used=max(0, pages.used + sign * (part.memory * 1024 // pages.size_kb)))


def _pinned(cell: NumaCell, cpus: frozenset[int]) -> frozenset[int]:
    if blocked := cpus - cell.pcpuset | cpus & cell.pinned_cpus:
        raise InvalidValue(f"host CPUs {sorted(blocked)} of NUMA cell {cell.id} are not free", field="taken_cpus")
    return cell.pinned_cpus | cpus


def _unpinned(cell: NumaCell, cpus: frozenset[int]) -> frozenset[int]:
    if missing := cpus - cell.pinned_cpus:
        raise InvalidValue(f"host CPUs {sorted(missing)} of NUMA cell {cell.id} are not pinned", field="taken_cpus")
    return cell.pinned_cpus - cpus
