"""What the hosts of a run give and have given, as columns in the order of the site's places."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...ext.devices import WHOLE
from ...placement.gpu.providers import GPU_MILLI, GpuTable
from ...placement.types.ordered_sum import ordered_sum
from .hardware import PCPU
from .site import Site

RESOURCES: Final = ("VCPU", "MEMORY_MB", "DISK_GB")
GPU: Final = "GPU"
"""What GPUs are called beside the resource classes; counted in thousandths."""
Whole = NDArray[np.int64]


class HostColumns:
    """Rows, limits, zones and prices of the hosts of a site, brought up to date by ``rows`` when hosts come."""

    def __init__(self, site: Site) -> None:
        self.site = site
        kinds = site.plan.hardware
        self._classes = (*RESOURCES, PCPU) if any(kind.dedicated_vcpus for kind in kinds) else RESOURCES
        self.names = (*self._classes, GPU) if any(kind.gpus for kind in kinds) else self._classes
        """The resources of all columns."""
        self._gpus: GpuTable | None = None
        self._prices = {kind.name: kind.price_per_hour for kind in site.plan.hardware}
        self._known_places = -1
        self._rows: Whole | slice = slice(0, 0)
        self._every_row: Whole = np.empty(0, np.int64)
        self._positions: Whole = np.empty(0, np.int64)
        """By row of the fleet, when there were ``_positions_at`` places."""
        self._positions_at = -1
        self.limits: Whole = np.zeros(len(self.names), np.int64)
        """What all hosts can give of each resource."""
        self.price_per_hour = 0.0
        """Of all hosts."""
        self._zones: list[str] = []
        self._zone_of: Whole = np.empty(0, np.int64)
        self._seen: tuple[int, ...] = ()
        """What ``_used`` was read of."""
        self._used: Whole = np.zeros((len(self.names), 0), np.int64)
        self._percent = np.zeros(len(self.names))
        self._limit_of: tuple[int | str, ...] = ()
        """The number of places, and the hosts that are down, that ``_running_limit`` is of."""
        self._running_limit: Whole = self._used
        self._fleet = site.engine.fleet
        self._laid_out: tuple[int, ...] = ()
        """The layout of providers that ``_of_all`` is of."""
        self._of_all: tuple[Whole, Whole, NDArray[np.int32]] = (self._zone_of, self._zone_of, np.empty(0, np.int32))

    def rows(self) -> Whole | slice:
        """Rows of the hosts, in the order of the site's places; a slice where they are neighbours."""
        places, fleet = self.site.places, self.site.engine.fleet
        if len(places) != self._known_places:
            found = np.array([fleet.row(place.host) for place in places], np.int64)
            self._known_places, self._rows, self._every_row = len(places), found, found
            if len(found) and np.all(np.diff(found) == 1):
                self._rows = slice(int(found[0]), int(found[-1]) + 1)
            self.limits = self._block("limit", self._rows).sum(axis=1)
            self.price_per_hour = ordered_sum(self._prices[place.hardware] for place in places)
            self._zones = sorted({place.zone for place in places})
            self._zone_of = np.array([self._zones.index(place.zone) for place in places], np.int64)
        return self._rows

    def positions(self, rows: NDArray[np.int32]) -> Whole:
        """The positions of hosts among the site's places. O(rows), or O(hosts) where these have changed."""
        here = self.rows()
        if isinstance(here, slice):
            found: Whole = rows.astype(np.int64) - here.start
            return found
        if self._positions_at != self._known_places:
            self._positions = np.zeros(int(here.max(initial=-1)) + 1, np.int64)
            self._positions[here] = np.arange(len(here))
            self._positions_at = self._known_places
        return self._positions[rows]

    def used(self) -> Whole:
        """What each host has given of each resource, int64 [resources, hosts]. O(hosts) where something has changed."""
        self._catch_up()
        return self._used

    def percent(self) -> NDArray[np.float64]:
        """Percent of each resource that is given, of what the hosts that run can give; as ``used``."""
        self._catch_up()
        return self._percent

    def _catch_up(self) -> None:
        rows, fleet = self.rows(), self.site.engine.fleet
        seen = (fleet.version, fleet._topology_epoch, self._known_places)
        if seen != self._seen or fleet is not self._fleet:
            self._used = self._block("used", rows)
            self._percent = percent_of(self._used.sum(axis=1), self.limits - self.limits_down())
            self._seen, self._fleet = seen, fleet

    def _block(self, block: str, rows: Whole | slice | list[int]) -> Whole:
        """A block of the inventories of hosts; of GPUs those below each of them together."""
        fleet = self.site.engine.fleet
        # Nova's classes are the first of every fleet.
        found: Whole = fleet._store.inventory[block][: len(self._classes)][:, rows]
        if len(self.names) == len(self._classes) or GPU_MILLI not in fleet.resource_classes:
            return found if len(self.names) == len(found) else np.vstack([found, np.zeros(found.shape[1], np.int64)])
        hosts, starts, gpus = self._below(rows)
        sums = np.zeros(found.shape[1], np.int64)
        if len(gpus):
            amounts = fleet._store.inventory[block][fleet.resource_class(GPU_MILLI)]
            sums[hosts] = np.add.reduceat(amounts[gpus], starts)
        return np.vstack([found, sums])

    def _below(self, rows: Whole | slice | list[int]) -> tuple[Whole, Whole, NDArray[np.int32]]:
        """Positions of the hosts that have GPUs, where the GPUs of each begin, and the rows of these."""
        fleet = self.site.engine.fleet
        if self._gpus is None or self._gpus.fleet is not fleet:
            self._gpus, self._laid_out = GpuTable(fleet), ()
        layout = (fleet._topology_epoch, len(fleet), fleet._store.capacity, self._known_places)
        if rows is self._rows and layout == self._laid_out:
            return self._of_all
        every = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else np.array(rows, np.int64)
        below = self._gpus.below(every)
        counts = np.count_nonzero(below >= 0, axis=1)
        hosts = np.flatnonzero(counts)
        found = hosts, np.cumsum(counts[hosts]) - counts[hosts], below[below >= 0]
        if rows is self._rows:
            self._of_all, self._laid_out = found, layout
        return found

    def capacity(self) -> dict[str, float]:
        """What the hosts that run can give, in vCPUs, MiB, GiB and GPUs."""
        there = self.limits - self.limits_down()
        parts = [WHOLE if name == GPU else 1 for name in self.names]
        return {name: n / part for name, n, part in zip(self.names, there.tolist(), parts, strict=True)}

    def limits_down(self) -> Whole | int:
        """What the hosts that are down could give of each resource."""
        down = self.site.hosts_down
        if not down:
            return 0
        fleet = self.site.engine.fleet
        found: Whole = self._block("limit", [fleet.row(host) for host in down]).sum(axis=1)
        return found

    def running(self) -> tuple[Whole, NDArray[np.float64]]:
        """Rows of the hosts that run, and their cores."""
        self.rows()
        fleet, rows = self.site.engine.fleet, self._every_row
        down = [fleet.row(host) for host in self.site.hosts_down]
        rows = rows[~np.isin(rows, down)] if down else rows
        return rows, fleet.column("vcpus_total")[rows].astype(np.float64)

    def _limit(self) -> Whole:
        """What each host that runs can give, int64 [resources, hosts]. O(hosts) where hosts have come, stopped or
        started, else O(hosts that are down)."""
        rows, down = self.rows(), self.site.hosts_down
        known: tuple[int | str, ...] = (self._known_places, *down)
        if known != self._limit_of:
            limit = self._block("limit", rows)
            if down:
                limit = limit.copy()
                places = {place.host: number for number, place in enumerate(self.site.places)}
                limit[:, [places[host] for host in down]] = 0
            self._limit_of, self._running_limit = known, limit.copy()
        return self._running_limit

    def percent_by_zone(self, used: Whole) -> dict[str, dict[str, float]]:
        """Percent of each resource that is given, by zone, where there are several. ``used`` [resources, hosts]."""
        self.rows()
        if len(self._zones) < 2:
            return {}
        limit, found = self._limit(), {}
        for number, zone in enumerate(self._zones):
            here = self._zone_of == number
            parts = percent_of(used[:, here].sum(axis=1), limit[:, here].sum(axis=1))
            found[zone] = dict(zip(self.names, parts.round(3).tolist(), strict=True))
        return found

    def stranded_percent(self, used: Whole, memory_per_vcpu: float) -> float:
        """Percent of the idle vCPUs beside which no memory is left for a mean guest."""
        idle = np.maximum(self._limit() - used, 0)
        if not idle[0].any():
            return 0.0
        useful = np.minimum(idle[0], idle[1] / max(memory_per_vcpu, 1e-9))
        return round(100.0 * (1.0 - float(useful.sum()) / max(float(idle[0].sum()), 1.0)), 3)


def percent_of(used: Whole, limit: Whole) -> NDArray[np.float64]:
    """Percent of each limit; 0 of none. ``used``: [resources], or [steps, resources]."""
    parts: NDArray[np.float64] = np.divide(100.0 * used, limit, out=np.zeros(used.shape), where=limit > 0)
    return parts
