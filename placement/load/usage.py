"""What the figures of hosts and the allocations of their guests come to together: each guest counts once.

A report says what is used, and which guests that includes. What it uses beyond them is usage without a consumer
(``base``); guests that it does not include are charged on top.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import BUILDING, NOT_INSTANCE, REPORTED, SEEN, UNCOUNTED
from ...ext.fleet_state import consumers_on_rows
from ..fleet.change_log import Rows
from ..fleet.columns import COLUMN
from ..fleet.fleet import Fleet
from ..fleet.host_reports import refresh_free_vcpus
from ..types.host import DERIVED

Amounts = dict[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Guests:
    """Consumers on some rows: ids, positions in the rows, shapes and flags, and whether their hosts' figures include
    them (``counted``) or they are charged on top of these (``on_top``). ``named``: by the report of their host;
    ``newer``: claims that the report is known not to have, as it names neither them nor what they were before."""

    ids: NDArray[np.int32]
    position: NDArray[np.int32]
    shape: NDArray[np.int32]
    flags: NDArray[np.int32]
    named: NDArray[np.bool_]
    newer: NDArray[np.bool_]

    @property
    def counted(self) -> NDArray[np.bool_]:
        # Nova's resource tracker counts both ends of a migration until it is confirmed or reverted.
        migrations = ((self.flags & NOT_INSTANCE) != 0) & ~self.newer
        counted: NDArray[np.bool_] = (self.shape >= 0) & (self.named | migrations) & ((self.flags & UNCOUNTED) == 0)
        return counted

    @property
    def on_top(self) -> NDArray[np.bool_]:
        rest: NDArray[np.bool_] = (self.shape >= 0) & ~self.counted & ((self.flags & UNCOUNTED) == 0)
        return rest


def guests_on(fleet: Fleet, rows: Rows, ids: NDArray[np.int32], positions: NDArray[np.int32]) -> Guests:
    """The consumers on ``rows``; ``ids`` are the consumers that reports name, each by the report at ``positions``.
    O(consumers)."""
    found = consumers_on_rows(fleet._kernel, np.ascontiguousarray(rows, np.int32))
    keys = found[0].astype(np.int64) * (len(rows) + 1) + found[1]
    named = np.isin(keys, ids.astype(np.int64) * (len(rows) + 1) + positions, kind="sort")
    return Guests(found[0], found[1], found[2], found[3], named, np.zeros(len(named), bool))


def with_moves(fleet: Fleet, rows: Rows, guests: Guests, reported: Sequence[tuple[float, Collection[str]]]) -> Guests:
    """``guests`` where reports are read with the moves under way; ``reported``: time and instances of each report.

    What holds the source of a move is named under its instance. It was there before if its host has ever reported it,
    and is newer than the report otherwise. A report from before a move on one host has the old size only.
    O(moves + consumers where there are some).
    """
    moves = fleet._consumers.moves
    if not moves:
        return guests
    names, find = fleet._names, fleet._kernel.consumers.get
    position_of = {row: position for position, row in enumerate(rows.tolist())}
    named, newer = guests.named.copy(), guests.newer.copy()
    index_of = {consumer: index for index, consumer in enumerate(guests.ids.tolist())}
    for move in moves.values():
        position = position_of.get(names.find(move.source))
        if position is None:
            continue
        at, uuids = reported[position]
        holder = index_of.get(find(move.migration)) if move.migration else None
        if holder is not None:
            named[holder] |= move.instance in uuids
            newer[holder] = not named[holder] and not guests.flags[holder] & SEEN
        target = index_of.get(find(move.instance)) if move.target == move.source else None
        if target is not None and move.began is not None and at < move.began:
            named[target] = False
    return replace(guests, named=named, newer=newer)


def settle(fleet: Fleet, rows: Rows, amounts: Amounts, guests: Guests, own: NDArray[np.bool_]) -> None:
    """Write figures and usage of ``rows``, whose totals are written already. ``own`` [3, rows]: inventories of VCPU,
    MEMORY_MB and DISK_GB that follow from the host's totals; the others are Placement's, where only allocations count.
    Unrecorded. O(rows + consumers)."""
    counted, on_top, count = guests.counted, guests.on_top, len(rows)
    figures = fleet._consumers.shape_figures()[np.maximum(guests.shape, 0)]
    within = [np.bincount(guests.position[counted], figures[counted, k], count) for k in range(3)]
    beyond = [np.bincount(guests.position[on_top], figures[on_top, k], count) for k in range(3)]
    instance = (guests.flags & NOT_INSTANCE) == 0
    more = np.bincount(guests.position[on_top & instance], minlength=count)
    building = np.bincount(guests.position[on_top & ((guests.flags & BUILDING) != 0)], minlength=count)
    there = counted | ((guests.flags & REPORTED) != 0) if fleet._consumers.counts_once else counted
    here = np.bincount(guests.position[there & instance], minlength=count)
    vcpus, free_ram, free_disk = reported(amounts, within)
    host = fleet._store.host
    host[COLUMN["vcpus_used"], rows] = vcpus + beyond[0]
    host[COLUMN["free_ram_mb"], rows] = free_ram - beyond[1]
    host[COLUMN["free_disk_mb"], rows] = free_disk - beyond[2]
    instances = amounts["num_instances"]
    host[COLUMN["num_instances"], rows] = np.where(instances == 0, here, instances) + more
    host[COLUMN["num_io_ops"], rows] = amounts["num_io_ops"] + building
    refresh_free_vcpus(fleet._store, rows)
    ram_left = amounts["total_usable_ram_mb"] - amounts["reserved_ram_mb"]
    disk_left = amounts["total_usable_disk_gb"] - amounts["reserved_disk_gb"]
    unexplained = (
        vcpus - within[0],
        ram_left - free_ram - within[1],
        disk_left - np.floor((free_disk + within[2]) / 1024),
    )
    blocks = fleet._store.inventory
    for resource, beside in enumerate(unexplained):
        present = own[resource] & (blocks["total"][resource, rows] > 0)
        base = np.where(present, np.maximum(beside, 0), 0).astype(np.int64)
        blocks["used"][resource, rows] += base - blocks["base"][resource, rows]
        blocks["base"][resource, rows] = base
        fleet._store.refresh_limits(resource, rows)


def reported(
    amounts: Amounts, within: Sequence[NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """vCPUs used, free memory and free disk (MiB) as hosts report them; what they leave out follows from their totals
    and the guests ``within``."""
    ram_left = amounts["total_usable_ram_mb"] - amounts["reserved_ram_mb"]
    disk_left = (amounts["total_usable_disk_gb"] - amounts["reserved_disk_gb"]) * 1024
    vcpus = np.where(amounts["vcpus_used"] == 0, within[0], amounts["vcpus_used"])
    ram, disk = amounts["free_ram_mb"], amounts["free_disk_mb"]
    free_ram = np.where(ram == DERIVED, ram_left - within[1], ram)
    free_disk = np.where(disk == DERIVED, disk_left - np.maximum(amounts["disk_mb_used"], within[2]), disk)
    return vcpus, free_ram, free_disk
