"""Values that compute nodes report and weighers read. Capacity is decided by the allocations, not by these."""

from __future__ import annotations

from typing import Final

import numpy as np

from ..types.errors import InvalidValue, UnknownName
from ..types.validation import finite, shown
from .change_log import ChangeLog, Rows, rows_array
from .columns import COLUMN, ColumnStore

REPORTED_FIELDS: Final = (
    "free_ram_mb",
    "free_disk_mb",
    "vcpus_used",
    "num_io_ops",
    "num_instances",
    "failed_builds",
)
_LIMIT: Final = 2.0**52
"""Magnitude within which whole numbers are added and subtracted exactly."""


def report(change_log: ChangeLog, row: int, figures: dict[str, float]) -> None:
    """Store values that a node reports (MiB, vCPUs, counts). UnknownName or InvalidValue, with nothing changed.
    O(values)."""
    checked = {}
    for figure, value in figures.items():
        if figure not in REPORTED_FIELDS:
            raise UnknownName.among("reported figure", figure, REPORTED_FIELDS)
        checked[figure] = _whole(value, figure)
    with change_log.editing(rows_array(row)):
        for figure, value in checked.items():
            change_log.store.host[COLUMN[figure], row] = value
        refresh_free_vcpus(change_log.store, rows_array(row))


def _whole(value: object, figure: str) -> float:
    """``value`` as a float that claims and releases can change without rounding; InvalidValue otherwise."""
    number = finite(value, figure)
    if not number.is_integer() or abs(number) > _LIMIT:
        raise InvalidValue(f"{figure} must be a whole number, got {shown(value)}", field=figure)
    return number


def refresh_free_vcpus(store: ColumnStore, rows: Rows | slice) -> None:
    """free_vcpus = vcpus_total * cpu_allocation_ratio - vcpus_used (Nova 33 CPUWeigher). O(rows)."""
    host = store.host
    total, used = host[COLUMN["vcpus_total"], rows], host[COLUMN["vcpus_used"], rows]
    host[COLUMN["free_vcpus"], rows] = total * host[COLUMN["cpu_allocation_ratio"], rows] - used


def drift(change_log: ChangeLog) -> Rows:
    """Rows of hosts whose reported free memory, free disk or used vCPUs differ from their allocations. O(rows)."""
    host, blocks, rows = change_log.store.host, change_log.store.inventory, change_log.rows
    used = blocks["used"][:, :rows]
    left = blocks["total"][:, :rows] - blocks["reserved"][:, :rows] - used
    differs = host[COLUMN["vcpus_used"], :rows] != used[0]
    differs |= host[COLUMN["free_ram_mb"], :rows] != left[1]
    differs |= np.floor(host[COLUMN["free_disk_mb"], :rows] / 1024) != left[2]
    is_host = change_log.is_host()[change_log.store.row["class_of"][:rows]]
    return np.flatnonzero(differs & is_host).astype(np.int32)
