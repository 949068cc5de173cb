"""Writes compute hosts into the fleet's columns: their class, their inventories, and the columns that Nova's filters
and weighers read. Expects checked input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ..fleet.change_log import Rows
from ..fleet.columns import COLUMN, ColumnStore
from ..fleet.host_reports import refresh_free_vcpus
from ..fleet.interned_pci import weight
from ..types.errors import HostlerError
from ..types.host import DERIVED, Host, NumaTopology
from ..types.host_classes import HostClass
from ..types.networks import NetworkMetadata
from .checks import RATIOS, check_static, of_host

if TYPE_CHECKING:
    from ..fleet.fleet import Fleet

Amounts = dict[str, NDArray[np.int64]]
"""Integer arrays by field of Host."""

_COPIED: Final = (
    *("num_io_ops", "num_instances", "failed_builds", "vcpus_used", "vcpus_total"),
    *("disk_mb_used", "total_usable_ram_mb", "total_usable_disk_gb"),
)


@dataclass(slots=True)
class HostColumns:
    """Hosts by column: ``ratios`` [n, 3] of CPU, RAM and disk; ``seen`` in seconds since the epoch, NaN if heartbeats
    are not monitored; ``versions`` of the hypervisor, 0 for none; ``interned``: ids in the fleet's tables, by row
    column."""

    class_of: NDArray[np.int32]
    amounts: Amounts
    ratios: NDArray[np.float64]
    seen: NDArray[np.float64]
    versions: NDArray[np.float64]
    interned: dict[str, NDArray[np.int32]] = field(default_factory=dict)

    def taken(self, index: NDArray[np.intp]) -> HostColumns:
        """The hosts at these positions. O(positions)."""
        return HostColumns(
            class_of=self.class_of[index],
            amounts={name: values[index] for name, values in self.amounts.items()},
            ratios=self.ratios[index],
            seen=self.seen[index],
            versions=self.versions[index],
            interned={name: ids[index] for name, ids in self.interned.items()},
        )


def last_seen(last_seen_up: float | None, created_at: float | None) -> float:
    """When a service last reported, NaN for one that is not monitored."""
    seen = last_seen_up if last_seen_up is not None else created_at
    return math.nan if seen is None else float(seen)


def host_class(fleet: Fleet, host: Host) -> HostClass:
    """The static part of a host; adds its aggregates to the fleet. InvalidValue or UnknownName naming the host."""
    check_static(host)
    try:
        return HostClass(
            is_host=True,
            cell_uuid=host.cell_uuid,
            hypervisor_type=host.hypervisor_type,
            hypervisor_version=None if host.hypervisor_version is None else int(host.hypervisor_version),
            cpu_info=host.cpu_info,
            supported_instances=tuple(tuple(row) for row in host.supported_instances),
            cpu_allocation_ratio=float(host.cpu_allocation_ratio),
            ram_allocation_ratio=float(host.ram_allocation_ratio),
            disk_allocation_ratio=float(host.disk_allocation_ratio),
            disabled=host.service.disabled,
            disabled_reason=host.service.disabled_reason,
            forced_down=host.service.forced_down,
            aggregates=fleet._aggregate_ids(host.aggregates),
            traits=frozenset(host.traits),
            service_version=host.service.version,
            numa_networks=numa_networks(host.numa_topology),
        )
    except HostlerError as error:
        raise of_host(error, host.host) from None


def numa_networks(topology: NumaTopology | None) -> tuple[tuple[int, NetworkMetadata], ...]:
    """(NUMA cell id, networks whose NICs are on it), for the cells that tell. O(cells)."""
    cells = topology.cells if topology is not None else ()
    return tuple((cell.id, cell.network_metadata) for cell in cells if cell.network_metadata is not None)


def interned(values: Sequence[Any], key: Callable[[Any], Any], identify: Callable[[Any], int]) -> NDArray[np.int32]:
    """``identify(key(value))`` of each host's value, called once for equal keys; 0 for empty values. O(hosts)."""
    known: dict[Any, int] = {}
    ids = np.zeros(len(values), np.int32)
    for position, value in enumerate(values):
        if value:
            its_key = key(value)
            if its_key not in known:
                known[its_key] = identify(its_key)
            ids[position] = known[its_key]
    return ids


def write(fleet: Fleet, rows: Rows, hosts: HostColumns) -> None:
    """Write hosts to new, empty ``rows``, without their NUMA cells, PCI devices and instances. Does not log the change.
    O(rows), fastest for about ten thousand consecutive rows at a time."""
    store = fleet._store
    span = slice(int(rows[0]), int(rows[-1]) + 1) if np.all(np.diff(rows) == 1) else rows
    for name, ids in hosts.interned.items():
        store.row[name][span] = ids
    store.row["class_of"][span] = hosts.class_of
    _write_amounts(fleet, span, hosts)
    _write_inventories(fleet, span, hosts)


def _put(line: NDArray[Any], span: Rows | slice, values: NDArray[Any]) -> None:
    """Write values over zeros. Zeros are not written, so that untouched pages use no memory."""
    if values.any():
        line[span] = values


def _write_amounts(fleet: Fleet, span: Rows | slice, hosts: HostColumns) -> None:
    host, amounts = fleet._store.host, hosts.amounts
    for name in _COPIED:
        _put(host[COLUMN[name]], span, amounts[name])
    for column, name in enumerate(RATIOS):
        host[COLUMN[name], span] = hosts.ratios[:, column]
    free_ram_mb, free_disk_mb = _free(amounts)
    _put(host[COLUMN["free_ram_mb"]], span, free_ram_mb)
    _put(host[COLUMN["free_disk_mb"]], span, free_disk_mb)
    _put(host[COLUMN["hypervisor_version"]], span, hosts.versions)
    host[COLUMN["last_seen_up"], span] = hosts.seen
    host[COLUMN["pci_weight"], span] = weight(())
    refresh_free_vcpus(fleet._store, span)


def write_totals(store: ColumnStore, rows: Rows, hosts: HostColumns, own: NDArray[np.bool_]) -> None:
    """Replace totals, ratios, counts and versions of hosts, and those inventories of VCPU, MEMORY_MB and DISK_GB that
    are their ``own`` (bool [3, rows]), but for what is used. Within an edit of the caller's. O(rows)."""
    host, amounts = store.host, hosts.amounts
    for name in _COPIED:
        host[COLUMN[name], rows] = amounts[name]
    for column, name in enumerate(RATIOS):
        host[COLUMN[name], rows] = hosts.ratios[:, column]
    host[COLUMN["hypervisor_version"], rows] = hosts.versions
    totals = (
        (amounts["vcpus_total"], amounts["reserved_vcpus"]),
        (amounts["total_usable_ram_mb"], amounts["reserved_ram_mb"]),
        (amounts["total_usable_disk_gb"], amounts["reserved_disk_gb"]),
    )
    for resource, (total, reserved) in enumerate(totals):
        mine, present = rows[own[resource]], (total > 0)[own[resource]]
        total, reserved = total[own[resource]], reserved[own[resource]]
        values = {"total": total, "max_unit": total, "reserved": reserved, "min_unit": present, "step_size": present}
        for name, amount in values.items():
            store.inventory[name][resource, mine] = amount * present
        store.ratio[resource, mine] = hosts.ratios[own[resource], resource] * present


def _free(amounts: Amounts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Free memory and disk in MiB: as reported, else the totals less reserved and used amounts."""
    ram, disk = amounts["free_ram_mb"], amounts["free_disk_mb"]
    ram_left = amounts["total_usable_ram_mb"] - amounts["reserved_ram_mb"]
    disk_left = (amounts["total_usable_disk_gb"] - amounts["reserved_disk_gb"]) * 1024 - amounts["disk_mb_used"]
    return np.where(ram == DERIVED, ram_left, ram), np.where(disk == DERIVED, disk_left, disk)


def _write_inventories(fleet: Fleet, span: Rows | slice, hosts: HostColumns) -> None:
    """Write VCPU, MEMORY_MB and DISK_GB as Nova's compute node reports them; reported usage is usage without a
    consumer."""
    store, amounts = fleet._store, hosts.amounts
    free_ram_mb, free_disk_mb = _free(amounts)
    ram_left = amounts["total_usable_ram_mb"] - amounts["reserved_ram_mb"]
    disk_left = amounts["total_usable_disk_gb"] - amounts["reserved_disk_gb"]
    inventories = (
        (amounts["vcpus_total"], amounts["reserved_vcpus"], amounts["vcpus_used"]),
        (amounts["total_usable_ram_mb"], amounts["reserved_ram_mb"], np.maximum(ram_left - free_ram_mb, 0)),
        (amounts["total_usable_disk_gb"], amounts["reserved_disk_gb"], np.maximum(disk_left - free_disk_mb // 1024, 0)),
    )
    for resource, (total, reserved, used) in enumerate(inventories):
        present = total > 0
        if not present.any():
            continue
        values = {"total": total, "max_unit": total, "reserved": reserved, "used": used, "base": used}
        for name, amount in values.items():
            _put(store.inventory[name][resource], span, amount * present)
        for name in ("min_unit", "step_size"):
            store.inventory[name][resource, span] = present
        store.ratio[resource, span] = hosts.ratios[:, resource] * present
        store.refresh_limits(resource, span)
