"""Values that compute nodes report and weighers read. Capacity is decided by the allocations, not by these."""

from __future__ import annotations

from typing import Final

import numpy as np

from ...ext.constants import BUILDING, NOT_INSTANCE, UNCOUNTED
from ...ext.fleet_state import consumers_on_rows
from ..types.errors import InvalidValue, UnknownName
from ..types.validation import finite, shown
from .change_log import ChangeLog, Rows, rows_array
from .columns import COLUMN, ColumnStore
from .consumers import Consumers

REPORTED_FIELDS: Final = (
    "free_ram_mb",
    "free_disk_mb",
    "vcpus_used",
    "num_io_ops",
    "num_instances",
    "failed_builds",
)
OF_CLAIMS: Final = frozenset(REPORTED_FIELDS) - {"failed_builds"}
"""Figures that what guests take bounds."""
_READ: Final = ("total", "reserved", "base", "updated", "used", "limit")
_LIMIT: Final = 2.0**52
"""Magnitude within which whole numbers are added and subtracted exactly."""


def report(
    change_log: ChangeLog,
    consumers: Consumers,
    row: int,
    figures: dict[str, float],
    *,
    at: float | None = None,
    keeps_claims: bool = True,
) -> None:
    """Store values that a node reports (MiB, vCPUs, counts). UnknownName or InvalidValue, with nothing changed.

    A report that is older than the one that is known is left aside. While guests of the host are being built, a report
    may have been made before they were claimed: no figure then says that less is used than the guests take, unless not
    ``keeps_claims``. O(values + the row's consumers).
    """
    checked = {}
    for figure, value in figures.items():
        if figure not in REPORTED_FIELDS:
            raise UnknownName.among("reported figure", figure, REPORTED_FIELDS)
        checked[figure] = _whole(value, figure)
    time = None if at is None else finite(at, "at")
    if time is not None and time < change_log.store.row["reported"][row]:
        return
    host = change_log.store.host
    of_claims = not OF_CLAIMS.isdisjoint(checked)
    if time is None and not of_claims and all(host[COLUMN[name], row] == value for name, value in checked.items()):
        return
    if keeps_claims and of_claims:
        for figure, (bound, least) in _claimed(change_log, consumers, row).items():
            if figure in checked:
                checked[figure] = max(checked[figure], bound) if least else min(checked[figure], bound)
    with change_log.editing(rows_array(row)):
        for figure, value in checked.items():
            host[COLUMN[figure], row] = value
        refresh_free_vcpus(change_log.store, rows_array(row))
        if time is not None:
            change_log.store.row["reported"][row] = time


def _claimed(change_log: ChangeLog, consumers: Consumers, row: int) -> dict[str, tuple[float, bool]]:
    """What the guests of a row take, as bounds of its figures, and whether each is a least value; empty unless some of
    them are being built."""
    lines = [change_log.kernel.consumer(consumer) for consumer in change_log.kernel.consumers_on(row)]
    lines = [line for line in lines if line[3] >= 0 and not line[7] & UNCOUNTED]
    building = sum(bool(line[7] & BUILDING) for line in lines)
    if not building:
        return {}
    vcpus, memory, disk = consumers.shape_figures()[[line[3] for line in lines]].sum(axis=0).tolist()
    store = change_log.store
    reserved = store.inventory["reserved"][:3, row].tolist()
    total_ram, total_disk = (
        float(store.host[COLUMN[name], row]) for name in ("total_usable_ram_mb", "total_usable_disk_gb")
    )
    return {
        "free_ram_mb": (total_ram - reserved[1] - memory, False),
        "free_disk_mb": ((total_disk - reserved[2]) * 1024 - disk, False),
        "vcpus_used": (vcpus, True),
        "num_io_ops": (building, True),
        "num_instances": (sum(not line[7] & NOT_INSTANCE for line in lines), True),
    }


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


def drift(change_log: ChangeLog, consumers: Consumers, rows: Rows | None = None) -> Rows:
    """Of ``rows`` (all by default) those of hosts whose reported free memory, disk or used vCPUs differ from what their
    guests take and was used without a consumer, that hold more than they may give, or that have guests their reports
    have left out for good. O(rows + their consumers)."""
    store = change_log.store
    chosen = np.arange(change_log.rows, dtype=np.int32) if rows is None else np.ascontiguousarray(rows, np.int32)
    _, position, shapes, flags = consumers_on_rows(change_log.kernel, chosen)
    counted = (shapes >= 0) & ((flags & UNCOUNTED) == 0)
    figures = consumers.shape_figures()[np.maximum(shapes[counted], 0)]
    vcpus, memory, disk = (np.bincount(position[counted], figures[:, k], len(chosen)) for k in range(3))
    host, blocks = store.host[:, chosen], {name: store.inventory[name][:3, chosen] for name in _READ}
    present = blocks["total"] > 0
    own = blocks["updated"] == 0
    left = blocks["total"] - blocks["reserved"] - blocks["base"]
    disk_left = left[2] - np.floor((host[COLUMN["free_disk_mb"]] + disk) / 1024)
    differs = present[0] & own[0] & (host[COLUMN["vcpus_used"]] - vcpus != blocks["base"][0])
    differs |= present[1] & own[1] & (host[COLUMN["free_ram_mb"]] + memory != left[1])
    differs |= present[2] & own[2] & (disk_left != 0)
    differs |= np.any(present & (blocks["used"] > np.maximum(blocks["limit"], 0)), axis=0)
    lost = (flags & UNCOUNTED) != 0
    differs |= np.bincount(position[lost & (flags & NOT_INSTANCE == 0)], minlength=len(chosen)) > 0
    is_host = change_log.is_host()[store.row["class_of"][chosen]]
    found: Rows = chosen[differs & is_host]
    return found
