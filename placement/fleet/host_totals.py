"""Totals, free amounts and allocation ratios of a host as the inventories of its provider have them: what weighers and
filters read, in Nova the ComputeNode record."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Protocol

from .change_log import ChangeLog, rows_array
from .columns import COLUMN
from .host_reports import refresh_free_vcpus
from .numa_table import NumaTable

_COLUMNS: Final = (
    ("vcpus_total", "", 0, "cpu_allocation_ratio"),
    ("total_usable_ram_mb", "free_ram_mb", 1, "ram_allocation_ratio"),
    ("total_usable_disk_gb", "free_disk_mb", 1024, "disk_allocation_ratio"),
)
"""Of VCPU, MEMORY_MB and DISK_GB: columns of the total and of the free amount, units of the latter in one of the
former, and the ratio."""


class Amounts(Protocol):
    """What of an inventory a host's figures depend on."""

    @property
    def total(self) -> int:
        """All there is."""

    @property
    def reserved(self) -> int:
        """What guests may not have."""

    @property
    def allocation_ratio(self) -> float:
        """How often it may be given."""


Changes = Mapping[int, tuple[Amounts | None, Amounts | None]]
"""Inventories by class index, before and after; None: there is none."""


def follow(change_log: ChangeLog, row: int, changes: Changes) -> None:
    """Write a host's figures after its inventories have changed, within an edit of the caller's. Where total and
    reserved amount stay, so do the figures: a report may have given others. O(changes)."""
    host, ratios = change_log.store.host, dict[str, Any]()
    for index, (before, after) in changes.items():
        if index >= len(_COLUMNS):
            continue
        total, free, units, ratio = _COLUMNS[index]
        old, new = _left(before), _left(after)
        if old != new:
            if free:
                known = host[COLUMN[total], row] - old[1]
                host[COLUMN[free], row] += units * (new[0] - new[1] - known)
            host[COLUMN[total], row] = new[0]
        if after is not None and (before is None or before.allocation_ratio != after.allocation_ratio):
            host[COLUMN[ratio], row] = after.allocation_ratio
            ratios[ratio] = after.allocation_ratio
    if ratios:
        change_log.reclass(rows_array(row), **ratios)
    refresh_free_vcpus(change_log.store, rows_array(row))


def _left(inventory: Amounts | None) -> tuple[int, int]:
    return (0, 0) if inventory is None else (inventory.total, inventory.reserved)


def follow_cells(change_log: ChangeLog, numa: NumaTable, row: int) -> None:
    """Have the NUMA cells of a host judged by its ratios of now. O(cells)."""
    topology, static = numa.get_row(row), change_log.host_class(row)
    if topology is None:
        return
    before, after = NumaTable(), NumaTable()
    before.copy_row(0, numa, row)
    after.set_row(0, topology, static.cpu_allocation_ratio, static.ram_allocation_ratio)

    def put(table: NumaTable) -> None:
        numa.copy_row(row, table, 0)
        change_log.changed(rows_array(row))

    change_log.make(partial(put, after), partial(put, before))
