"""Live views of the fleet: one host under the field names of Nova's HostState, and many rows for vectorised rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types.errors import UnknownName
from ..types.host import Aggregate, NumaTopology, PciPool, Service
from ..types.host_classes import STATIC_FIELDS, HostClass
from ..types.networks import NetworkMetadata
from .columns import COLUMN, HOST_COLUMNS
from .fleet import Fleet


class HostView:
    """One host, read from the fleet at each access. Satisfies HostState; every property is O(1) except instances, NUMA
    and PCI."""

    __slots__ = ("_class", "fleet", "row")

    def __init__(self, fleet: Fleet, row: int) -> None:
        self.fleet = fleet
        self.row = row
        self._class = fleet._host_class(row)

    def __repr__(self) -> str:
        return f"<HostView of {self.nodename}>"

    def _column(self, name: str) -> float:
        return float(self.fleet._store.host[COLUMN[name], self.row])

    def _whole(self, name: str) -> int:
        return int(self.fleet._store.host[COLUMN[name], self.row])

    @property
    def host(self) -> str:
        """Name of the service host (nova-compute)."""
        return self.fleet._service_host(self.row)

    @property
    def nodename(self) -> str:
        """Name of the node."""
        return self.fleet.name(self.row)

    @property
    def hypervisor_hostname(self) -> str:
        """The node name, as the ComputeNode record has it."""
        return self.fleet.name(self.row)

    @property
    def uuid(self) -> str:
        """Uuid of the resource provider and compute node."""
        return self.fleet.uuid(self.row)

    @property
    def cell_uuid(self) -> str | None:
        """Uuid of the cell; None if it is not known."""
        return self._class.cell_uuid

    @property
    def vcpus_total(self) -> int:
        """Number of physical CPU threads."""
        return self._whole("vcpus_total")

    @property
    def vcpus_used(self) -> int:
        """vCPUs that guests use."""
        return self._whole("vcpus_used")

    @property
    def cpu_allocation_ratio(self) -> float:
        """vCPUs that may be allocated per CPU thread."""
        return self._class.cpu_allocation_ratio

    @property
    def total_usable_ram_mb(self) -> int:
        """Memory, MiB."""
        return self._whole("total_usable_ram_mb")

    @property
    def free_ram_mb(self) -> int:
        """Free memory without over-commit, MiB; may be negative."""
        return self._whole("free_ram_mb")

    @property
    def ram_allocation_ratio(self) -> float:
        """Memory that may be allocated, as a multiple of the total."""
        return self._class.ram_allocation_ratio

    @property
    def total_usable_disk_gb(self) -> int:
        """Local disk, GiB."""
        return self._whole("total_usable_disk_gb")

    @property
    def disk_mb_used(self) -> int:
        """Local disk in use, MiB."""
        return self._whole("disk_mb_used")

    @property
    def free_disk_mb(self) -> int:
        """Free local disk, MiB; may be negative."""
        return self._whole("free_disk_mb")

    @property
    def disk_allocation_ratio(self) -> float:
        """Local disk that may be allocated, as a multiple of the total."""
        return self._class.disk_allocation_ratio

    @property
    def hypervisor_type(self) -> str | None:
        """Type of the hypervisor, such as ``QEMU``."""
        return self._class.hypervisor_type

    @property
    def hypervisor_version(self) -> int | None:
        """Version of the hypervisor as Nova's integer."""
        return self._class.hypervisor_version

    @property
    def host_ip(self) -> str | None:
        """Address of the host."""
        return self.fleet._host_ips.get(int(self.fleet._store.row["host_ip"][self.row])) or None

    @property
    def cpu_info(self) -> str | None:
        """CPU model, vendor and features."""
        return self._class.cpu_info

    @property
    def supported_instances(self) -> tuple[tuple[str, ...], ...]:
        """Triples of architecture, hypervisor type and virtual machine mode."""
        return self._class.supported_instances

    @property
    def stats(self) -> Mapping[str, str]:
        """Statistics reported by the hypervisor driver, by name."""
        return dict(self.fleet._stats[int(self.fleet._store.row["stats"][self.row])])

    @property
    def num_instances(self) -> int:
        """Number of instances."""
        return self._whole("num_instances")

    @property
    def num_io_ops(self) -> int:
        """Number of instances in an I/O-heavy task."""
        return self._whole("num_io_ops")

    @property
    def failed_builds(self) -> int:
        """Builds that failed since the last success."""
        return self._whole("failed_builds")

    @property
    def metrics(self) -> Mapping[str, float]:
        """Monitor metrics, by name."""
        return dict(self.fleet._metrics[int(self.fleet._store.row["metrics"][self.row])])

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        """Host aggregates that the host is in."""
        return tuple(self.fleet.aggregates[index] for index in self._class.aggregates)

    @property
    def traits(self) -> frozenset[str]:
        """Traits of the resource provider."""
        return self._class.traits

    @property
    def instances(self) -> Mapping[str, Mapping[str, Any]]:
        """Instances on the host, by uuid."""
        return self.fleet.instances(self.row)

    @property
    def service(self) -> Service:
        """State of the nova-compute service."""
        self.fleet._services.last_seen_is_read()
        seen = self._column("last_seen_up")
        return Service(
            disabled=self._class.disabled,
            disabled_reason=self._class.disabled_reason,
            forced_down=self._class.forced_down,
            last_seen_up=None if math.isnan(seen) else seen,
            version=self._class.service_version,
        )

    @property
    def numa_topology(self) -> NumaTopology | None:
        """NUMA cells; None if the host reports none."""
        topology = self.fleet._numa.get_row(self.row)
        return topology if topology is None else with_networks(topology, self._class.numa_networks)

    @property
    def pci_pools(self) -> tuple[PciPool, ...]:
        """Pools of free PCI devices."""
        return self.fleet.pci_pools(self.row)


def with_networks(topology: NumaTopology, networks: tuple[tuple[int, NetworkMetadata], ...]) -> NumaTopology:
    """``topology`` with the networks of its cells, by cell id. O(cells)."""
    if not networks:
        return topology
    near = dict(networks)
    cells = tuple(replace(cell, network_metadata=near.get(cell.id)) for cell in topology.cells)
    return NumaTopology(cells=cells)


class ClassView:
    """The static fields of one host class, for rules that read only these. Any other HostState field raises: a filter
    that declares its fields incorrectly is reported."""

    __slots__ = ("_class", "_fleet")

    def __init__(self, fleet: Fleet, host_class: HostClass) -> None:
        self._fleet = fleet
        self._class = host_class

    def __getattr__(self, name: str) -> Any:
        if name not in STATIC_FIELDS:
            raise AttributeError(f"a rule read the host field {name!r} that it does not declare")
        return getattr(self._class, name)

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        return tuple(self._fleet.aggregates[index] for index in self._class.aggregates)


class FleetView:
    """Some rows of a fleet (all by default) for filters with a ``mask`` method and vectorised weighers. Rows that are
    not hosts may be included; results for them are ignored."""

    def __init__(self, fleet: Fleet, row_ids: NDArray[np.int32] | None = None) -> None:
        self.fleet = fleet
        self.row_ids = np.arange(fleet.rows, dtype=np.int32) if row_ids is None else row_ids

    def __repr__(self) -> str:
        return f"<FleetView of {self.rows} rows>"

    @property
    def rows(self) -> int:
        """Length of every column."""
        return len(self.row_ids)

    def column(self, name: str) -> NDArray[np.float64]:
        """Copy of a host column, float64[rows]; UnknownName for an unknown column."""
        if name not in COLUMN:
            raise UnknownName.among("column", name, HOST_COLUMNS)
        if name == "last_seen_up":
            self.fleet._services.last_seen_is_read()
        column: NDArray[np.float64] = self.fleet._store.host[COLUMN[name], self.row_ids]
        return column

    def by_class(self, function: Callable[[HostClass], Any], dtype: Any = np.bool_) -> NDArray[Any]:
        """``function`` of each row's static fields, called once per host class. O(classes) calls + O(rows)."""
        values = np.array([function(value) for value in self.fleet._classes.values], dtype)
        by_row: NDArray[Any] = values[self.fleet._store.row["class_of"][self.row_ids]]
        return by_row

    def host(self, index: int) -> HostView:
        """The host at position ``index`` of the view."""
        return HostView(self.fleet, int(self.row_ids[index]))
