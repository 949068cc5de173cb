"""What a region tells its parent: how many more guests of each of a few shapes fit, and what is free, by availability
zone and exclusive resource pool. A few KiB, kept up to date from the rows that have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...placement.fleet.fleet import Fleet
from .state import ServiceState

VCPU_STEPS: Final = 8
"""Shape classes have 1, 2, 4, ... 128 vCPUs,"""
GIB_STEPS: Final = 5
"""and of each vCPU 1, 2, 4, 8, 16 GiB of memory."""


class ShapeClass(NamedTuple):
    """A size of guests: memory in MiB."""

    vcpus: int
    memory_mb: int


SHAPE_CLASSES: Final = tuple(
    ShapeClass(1 << vcpus, 1_024 << vcpus + gib) for gib in range(GIB_STEPS) for vcpus in range(VCPU_STEPS)
)
_SHIFTS: Final = tuple((vcpus, 10 + vcpus + gib) for gib in range(GIB_STEPS) for vcpus in range(VCPU_STEPS))
_FREE: Final = 3
"""Resource classes whose free sums are told: VCPU, MEMORY_MB, DISK_GB."""


class AreaSummary(msgspec.Struct, frozen=True, array_like=True):
    """The hosts of one availability zone that are enabled and up, those of an exclusive ``pool`` apart. ``fits``: how
    many more guests of each of SHAPE_CLASSES fit, as far as vCPUs and memory decide. ``free_memory_mb`` in MiB,
    ``free_disk_gb`` in GiB."""

    zone: str
    pool: str
    hosts: int
    free_vcpus: int
    free_memory_mb: int
    free_disk_gb: int
    fits: tuple[int, ...]

    @property
    def largest(self) -> ShapeClass | None:
        """The largest shape class of which one fits, by vCPUs, then memory; None if none does."""
        return max((shape for shape, count in zip(SHAPE_CLASSES, self.fits, strict=True) if count), default=None)


class RegionSummary(msgspec.Struct, frozen=True, array_like=True):
    """All areas of a region as of ``version``, which changes whenever they may have. ``of_regions``: it is a parent of
    regions itself. ``parents``: random names of all parents that it is the sum of, so that one finds out if it is among
    its own regions."""

    version: int
    areas: tuple[AreaSummary, ...] = ()
    of_regions: bool = False
    parents: tuple[str, ...] = ()


MOST_PARENTS: Final = 10_000
"""Parents below a region at most."""
MOST: Final = 2**53
"""Largest figure of a summary that is taken for true."""


def problem_of(summary: RegionSummary) -> str | None:
    """Why a summary cannot be used, whatever it says: another number of shape classes, as another version of Hostler
    would send, or figures that are negative or too large; None if it can."""
    if len(summary.parents) > MOST_PARENTS:
        return f"it is of {len(summary.parents)} parents"
    for area in summary.areas:
        where = f"zone {area.zone[:40]!r}" + (f", pool {area.pool[:40]!r}" if area.pool else "")
        if len(area.fits) != len(SHAPE_CLASSES):
            return f"{where} has {len(area.fits)} shape classes instead of {len(SHAPE_CLASSES)}"
        figures = (area.hosts, area.free_vcpus, area.free_memory_mb, area.free_disk_gb, *area.fits)
        if min(figures) < 0 or max(figures) > MOST:
            return f"{where} has the figure {min(figures) if min(figures) < 0 else max(figures)}"
    return None


def merged(version: int, summaries: Sequence[RegionSummary], parent: str = "") -> RegionSummary:
    """The summary of several regions as one, of a ``parent``. Areas of the same zone and pool are added up."""
    parents = {parent} if parent else set()
    areas: dict[tuple[str, str], AreaSummary] = {}
    for summary in summaries:
        parents |= set(summary.parents)
        for area in summary.areas:
            known = areas.get((area.zone, area.pool))
            areas[area.zone, area.pool] = area if known is None else _added(known, area)
    return RegionSummary(version, tuple(areas[each] for each in sorted(areas)), True, tuple(sorted(parents)))


def _added(one: AreaSummary, other: AreaSummary) -> AreaSummary:
    return AreaSummary(
        one.zone,
        one.pool,
        one.hosts + other.hosts,
        one.free_vcpus + other.free_vcpus,
        one.free_memory_mb + other.free_memory_mb,
        one.free_disk_gb + other.free_disk_gb,
        tuple(mine + theirs for mine, theirs in zip(one.fits, other.fits, strict=True)),
    )


class Summarizer:
    """Keeps the summary of a state's fleet. O(rows) at first, then O(rows changed since the last call)."""

    def __init__(self) -> None:
        self._fleet: Fleet | None = None
        self._seen = self._epoch = -1
        self._per_row: NDArray[np.int64] = np.zeros((0, 0), np.int64)
        """[figure, row]: hosts, free amounts, and how many of each shape class fit."""
        self._area_of: NDArray[np.int32] = np.zeros(0, np.int32)
        self._areas: dict[tuple[str, str], int] = {}
        self._area_of_class: dict[int, int] = {}
        self._pools: Mapping[str, str] = {}
        self._totals: NDArray[np.int64] = np.zeros((0, 0), np.int64)
        """[area, figure]."""

    def summary(self, state: ServiceState, version: int) -> RegionSummary:
        """The summary as of now."""
        fleet = state.fleet
        pools = {pool.uuid: name for name, pool in state.pools.pools.items() if pool.exclusive}
        known = fleet is self._fleet and pools == self._pools and fleet._static_epoch == self._epoch
        changed = fleet._kernel.changed(self._seen) if known and self._seen >= 0 else None
        if changed is None:
            self._begin(fleet, pools)
            rows = np.arange(fleet.rows, dtype=np.int32)
        else:
            rows = np.unique(changed).astype(np.int32)
            rows = rows[rows < fleet.rows]
            self._grow(fleet.rows)
        self._fleet, self._seen, self._epoch = fleet, fleet.version, fleet._static_epoch
        if len(rows):
            self._update(state, rows)
        areas = []
        for (zone, pool), index in sorted(self._areas.items()):
            hosts, vcpus, memory_mb, disk_gb, *fits = self._totals[index].tolist()
            if hosts:
                areas.append(AreaSummary(zone, pool, hosts, vcpus, memory_mb, disk_gb, tuple(fits)))
        return RegionSummary(version, tuple(areas))

    def _begin(self, fleet: Fleet, pools: Mapping[str, str]) -> None:
        self._pools, self._areas, self._area_of_class = pools, {}, {}
        figures = 1 + _FREE + len(SHAPE_CLASSES)
        self._per_row, self._area_of = np.zeros((figures, 0), np.int64), np.zeros(0, np.int32)
        self._totals = np.zeros((0, figures), np.int64)
        self._grow(fleet.rows)

    def _grow(self, rows: int) -> None:
        have = len(self._area_of)
        if rows > have:
            more = max(rows, 2 * have) - have
            self._per_row = np.pad(self._per_row, ((0, 0), (0, more)))
            self._area_of = np.pad(self._area_of, (0, more))

    def _update(self, state: ServiceState, rows: NDArray[np.int32]) -> None:
        fleet = state.fleet
        classes = fleet._store.row["class_of"][rows]
        known, positions = np.unique(classes, return_inverse=True)
        for index in known.tolist():
            self._area(state, index)
        new_area = np.array([self._area_of_class[index] for index in known.tolist()], np.int32)[positions]
        new = self._figures(fleet, rows)
        old, old_area = self._per_row[:, rows], self._area_of[rows]
        areas = len(self._areas)
        if len(self._totals) < areas:
            self._totals = np.pad(self._totals, ((0, areas - len(self._totals)), (0, 0)))
        for area in np.union1d(old_area, new_area).tolist():
            if area < areas:
                self._totals[area] += new[:, new_area == area].sum(axis=1) - old[:, old_area == area].sum(axis=1)
        self._per_row[:, rows], self._area_of[rows] = new, new_area

    def _area(self, state: ServiceState, index: int) -> None:
        """Note the area of a host class."""
        if index in self._area_of_class:
            return
        fleet = state.fleet
        static = fleet._classes[index]
        zone, pool = state.engine._context.zone_of(static) or "", ""
        for aggregate in static.aggregates:
            pool = self._pools.get(fleet.aggregates[aggregate].uuid, pool)
        self._area_of_class[index] = self._areas.setdefault((zone, pool), len(self._areas))

    @staticmethod
    def _figures(fleet: Fleet, rows: NDArray[np.int32]) -> NDArray[np.int64]:
        counted = fleet.is_host[rows] & (fleet.column("service_up")[rows] > 0)
        stock = fleet._store.inventory
        free = np.maximum(stock["limit"][:_FREE, rows] - stock["used"][:_FREE, rows], 0) * counted
        figures = np.empty((1 + _FREE + len(SHAPE_CLASSES), len(rows)), np.int64)
        figures[0], figures[1 : 1 + _FREE] = counted, free
        for position, (vcpus, memory) in enumerate(_SHIFTS):
            np.minimum(free[0] >> vcpus, free[1] >> memory, out=figures[1 + _FREE + position])
        return figures
