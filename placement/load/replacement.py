"""The columns, NUMA cells and PCI devices of hosts replaced by those of their reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices.pci import take
from ..devices.sriov import linked
from ..fleet.change_log import Rows, rows_array
from ..fleet.columns import COLUMN
from ..fleet.consumers import Extras
from ..fleet.fleet import Fleet
from ..fleet.interned_pci import weight
from ..fleet.inventories import Inventory
from ..fleet.numa_table import NumaTable
from ..types.errors import CapacityExceeded, HostlerError, InvalidValue
from ..types.from_builtins import from_plain
from ..types.host import Service
from ..types.host_classes import HostClass, Interned
from ..types.host_report import HostReport
from .checks import of_host
from .columns import HostColumns, write_totals
from .usage import Guests, settle


def replace_columns(
    fleet: Fleet,
    reports: Sequence[HostReport],
    rows: Rows,
    new: NDArray[np.bool_],
    columns: HostColumns,
    guests: Guests,
) -> None:
    """Make ``rows`` what their reports say, one each; ``new``: which of them were no hosts. InvalidValue naming the
    host whose NUMA cells or inventories are malformed. O(rows + guests)."""
    change_log, store = fleet._change_log, fleet._store
    columns.class_of[:] = _classes(fleet, reports, rows, new, columns.class_of)
    static = not np.array_equal(columns.class_of, store.row["class_of"][rows])
    _replace_cells(fleet, reports, rows, columns, guests)
    pci = _pci_states(fleet, reports, guests)
    own = _own_inventories(fleet, reports, rows)
    totals = store.inventory["total"][:, rows].astype(bool)
    generations = store.row["generation"][rows]
    with change_log.editing(rows):
        for name in ("stats", "metrics", "host_ip"):
            store.row[name][rows] = columns.interned.get(name, 0)
        store.row["class_of"][rows] = columns.class_of
        store.row["pci"][rows] = pci
        store.row["reported"][rows] = [report.at for report in reports]
        states = fleet._pci_states.values
        store.host[COLUMN["pci_weight"], rows] = [weight(states[state]) for state in pci.tolist()]
        write_totals(store, rows, columns, own)
        _write_seen(fleet, reports, rows, new, columns)
        for position, report in enumerate(reports):
            if report.inventories is not None:
                _put_inventories(fleet, int(rows[position]), report)
        settle(fleet, rows, columns.amounts, guests, own)
        store.row["generation"][rows] = generations - 1  # Placement's clients see no change of the provider
    if static or not np.array_equal(totals, store.inventory["total"][: len(totals), rows].astype(bool)):
        change_log.topology_epoch += 1
    fleet._services.judge(rows)


def _classes(
    fleet: Fleet, reports: Sequence[HostReport], rows: Rows, new: NDArray[np.bool_], reported: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Host classes as reported, with what has other sources as it is. O(rows), and O(distinct classes)."""
    before = fleet._store.row["class_of"][rows]
    classes, known = np.empty(len(rows), np.int32), dict[tuple[object, ...], int]()
    for position, report in enumerate(reports):
        key = (int(reported[position]), int(before[position]), bool(new[position]), _state(report.service))
        found = known.get(key)
        if found is None:
            found = known[key] = _class(fleet, report, *key[:3])
        classes[position] = found
    return classes


def _class(fleet: Fleet, report: HostReport, reported: object, before: object, new: object) -> int:
    assert isinstance(reported, int)
    assert isinstance(before, int)
    value, old = fleet._classes[reported], fleet._classes[before]
    service = report.service if report.service is not None else report.host.service if new else old
    kept = tuple(index for index in old.aggregates if fleet.aggregates[index].name == fleet.aggregates[index].uuid)
    aggregates = (*value.aggregates, *(index for index in kept if index not in value.aggregates))
    return fleet._change_log.class_id(
        replace(
            value,
            disabled=service.disabled,
            disabled_reason=service.disabled_reason,
            forced_down=service.forced_down,
            service_version=_version(fleet, report.service, value, old),
            traits=value.traits or old.traits,
            aggregates=aggregates,
        )
    )


def _state(service: Service | None) -> tuple[object, ...] | None:
    """What a class has of a service: all but its times."""
    if service is None:
        return None
    return service.disabled, service.disabled_reason, service.forced_down, service.version


def _version(fleet: Fleet, service: Service | None, value: HostClass, old: HostClass) -> int | None:
    """The version of a service: as reported, where it is; else the known one, unless the report tells of a service."""
    if not fleet._services.versions_stay:
        return value.service_version
    found = value.service_version if service is None or service.version is None else service.version
    return old.service_version if found is None and service is None else found


def _write_seen(
    fleet: Fleet, reports: Sequence[HostReport], rows: Rows, new: NDArray[np.bool_], columns: HostColumns
) -> None:
    """Heartbeats, where a report or a new host has some."""
    given = new.copy()
    for position, report in enumerate(reports):
        if report.service is not None:
            seen = report.service.last_seen_up
            seen = report.service.created_at if seen is None else seen
            columns.seen[position] = np.nan if seen is None else seen
            given[position] = True
    fleet._store.host[COLUMN["last_seen_up"], rows[given]] = columns.seen[given]


def _own_inventories(fleet: Fleet, reports: Sequence[HostReport], rows: Rows) -> NDArray[np.bool_]:
    """Which inventories of VCPU, MEMORY_MB and DISK_GB follow from the totals, bool [3, rows]."""
    own: NDArray[np.bool_] = fleet._store.inventory["updated"][:3, rows] == 0
    own[:, [report.inventories is not None for report in reports]] = False
    return own


def _put_inventories(fleet: Fleet, row: int, report: HostReport) -> None:
    """Replace all inventories of a host's own provider; what is used stays used."""
    assert report.inventories is not None
    try:
        given = from_plain(dict(report.inventories), dict[str, Inventory], "inventories")
        checked = {
            fleet.resource_class(name, create=True): value.validated(f"inventories.{name}")
            for name, value in given.items()
        }
    except HostlerError as error:
        raise of_host(error, report.host.host) from None
    for index in range(fleet._store.classes):
        fleet._inventories.write(row, index, checked.get(index))


# NUMA cells and devices


def _replace_cells(
    fleet: Fleet, reports: Sequence[HostReport], rows: Rows, columns: HostColumns, guests: Guests
) -> None:
    made: dict[tuple[int, float, float], NumaTable] = {}  # many reports have one topology
    none = NumaTable()
    for position, report in enumerate(reports):
        row, topology = int(rows[position]), report.host.numa_topology
        if topology is None and fleet._numa.same_row(row, none, 0):
            continue
        try:
            cpu, ram, _ = columns.ratios[position].tolist()
            key = id(topology), cpu, ram
            if key not in made:
                made[key] = NumaTable()
                made[key].set_row(0, topology, cpu, ram)
            after = made[key]
        except (AttributeError, TypeError, InvalidValue) as error:
            problem = InvalidValue(f"numa_topology is malformed: {error}", field="numa_topology")
            raise of_host(problem, report.host.host) from None
        if fleet._extras:
            after = _copy(after, 0)
            _charge_cells(fleet, after, guests, position)
        if fleet._numa.same_row(row, after, 0):
            continue  # most report what they reported before
        put = partial(_put_cells, fleet, row)
        fleet._change_log.make(partial(put, after), partial(put, _copy(fleet._numa, row)))


def _copy(table: NumaTable, row: int) -> NumaTable:
    """A table whose first row is a row of another."""
    found = NumaTable()
    found.copy_row(0, table, row)
    return found


def _put_cells(fleet: Fleet, row: int, table: NumaTable) -> None:
    fleet._numa.copy_row(row, table, 0)
    fleet._change_log.changed(rows_array(row))


def _charge_cells(fleet: Fleet, table: NumaTable, guests: Guests, position: int) -> None:
    """Take what the guests on top hold; a guest whose cells a report contradicts is held to have none of its own: the
    host knows better where it put it."""
    here = guests.position == position
    scratch = _copy(table, 0)
    for consumer, on_top in zip(guests.ids[here].tolist(), guests.on_top[here].tolist(), strict=True):
        extras = fleet._extras.get(consumer)
        if extras is None or extras.numa is None:
            continue
        try:
            if on_top:
                table.consume(0, extras.numa)
                scratch.consume(0, extras.numa)
            scratch.release(0, extras.numa)
        except HostlerError:
            _forget(fleet, consumer, replace(extras, numa=None))


def _pci_states(fleet: Fleet, reports: Sequence[HostReport], guests: Guests) -> NDArray[np.int32]:
    """Free devices of each host: those reported, less what the guests on top hold."""
    states = np.array([fleet._pci_states.id(linked(report.host.pci_pools)) for report in reports], np.int32)
    if not fleet._extras:
        return states
    on_top = guests.on_top
    for consumer, position in zip(guests.ids[on_top].tolist(), guests.position[on_top].tolist(), strict=True):
        extras = fleet._extras.get(consumer)
        if extras is None or not extras.pci:
            continue
        try:
            left = take(fleet._pci_states.values[states[position]], extras.pci)
            states[position] = fleet._pci_states.id(left)
        except CapacityExceeded:
            _forget(fleet, consumer, replace(extras, pci=()))
    return states


def _forget(fleet: Fleet, consumer: int, extras: Extras) -> None:
    fleet._consumers.put_extras(consumer, extras if extras != Extras() else None)


def shrink_tables(fleet: Fleet) -> None:
    """Forget metrics and stats that no host has any more, once they are most of what is kept."""
    if fleet._history.recording:
        return
    tables: tuple[tuple[str, Interned[Any]], ...] = (("metrics", fleet._metrics), ("stats", fleet._stats))
    for name, table in tables:
        if len(table) > 2 * fleet.rows + 1024:
            column = fleet._store.row[name]
            live, ids = np.unique(column[: fleet.rows], return_inverse=True)
            values = [table[0], *(table[index] for index in live.tolist() if index)]
            shift = 0 if len(live) and live[0] == 0 else 1
            table.truncate(0)
            for value in values:
                table.id(value)
            column[: fleet.rows] = ids.reshape(-1) + shift


__all__ = ["replace_columns", "shrink_tables"]
