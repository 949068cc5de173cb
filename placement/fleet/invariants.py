"""The invariants of a fleet. ``check`` asserts all of them, for tests and for files of doubtful origin."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import BUILDING, NOT_INSTANCE, REPORTED, SEEN, UNCOUNTED
from ...ext.fleet_state import consumers as consumer_arrays
from ...ext.fleet_state import find_uuids
from ..devices.sriov import available
from .aggregates import NONE
from .columns import COLUMN, HOST_COLUMNS
from .interned_pci import weight
from .parts import FleetParts
from .shared_facts import Constants

FLAGS: Final = BUILDING | REPORTED | SEEN | UNCOUNTED | NOT_INSTANCE
Table = dict[str, NDArray[Any]]
"""Consumer columns, as ext.fleet_state.consumers gives them."""

_CONSTRAINED: Final = frozenset({"service_up", "free_vcpus", "pci_weight", "last_seen_up"})
"""Host columns that have an invariant of their own, or may be NaN."""


def check(fleet: FleetParts) -> None:
    """Assert every invariant. O(rows * columns + consumers): about a second for 100,000 hosts."""
    table = consumer_arrays(fleet._kernel)
    check_names(fleet)
    check_classes(fleet)
    check_trees(fleet)
    check_service_hosts(fleet)
    check_freed_rows(fleet)
    check_inventories(fleet)
    check_usage(fleet, table)
    check_host_columns(fleet, table)
    check_consumers(fleet, table)
    check_lists(fleet, table)
    check_groups(fleet, table)
    check_devices(fleet)
    check_cells(fleet)
    check_constants(fleet)
    fleet.pools.check()


def _live(fleet: FleetParts) -> NDArray[np.bool_]:
    """The rows that have a provider."""
    live = np.ones(fleet.rows, bool)
    live[fleet._names.to_arrays()["free"]] = False
    return live


def check_names(fleet: FleetParts) -> None:
    """Names, uuids and rows belong together one to one."""
    providers, live = fleet._providers, _live(fleet)
    fleet._names.check()
    providers.uuids.check()
    assert fleet._names.span == fleet.rows == fleet._kernel.rows <= fleet._store.capacity
    assert len(fleet._names) == len(providers.uuids) == np.count_nonzero(live) == len(fleet)
    rows = np.flatnonzero(live).astype(np.int32)
    assert np.array_equal(find_uuids(providers.uuids, providers.words(rows)), rows), "a uuid leads to another row"


def check_trees(fleet: FleetParts) -> None:
    """Every row leads to its root through its parents, without a cycle, over rows that have a provider."""
    parents, roots = (fleet._store.row[name][: fleet.rows] for name in ("parent", "root"))
    live = _live(fleet)
    assert np.all((parents >= -1) & (parents < fleet.rows))
    assert np.all(live[parents[parents >= 0]]), "a parent is not in the fleet"
    top = np.arange(fleet.rows)
    for _ in range(fleet.rows + 1):
        below = parents[top] >= 0
        if not below.any():
            break
        top[below] = parents[top[below]]
    else:
        raise AssertionError("the parents form a cycle")
    assert np.array_equal(roots, top), "a root has a parent"


def check_service_hosts(fleet: FleetParts) -> None:
    """The nodes of each service host are those whose column refers to it. Every host has a service host, and no other
    row has one."""
    nodes, column = fleet._nodes, fleet._store.row["service_host"][: fleet.rows]
    nodes.names.check()
    assert np.array_equal(column >= 0, fleet.is_host), (
        "a host without a service host, or a service host on a row that is not a host"
    )
    rows = np.flatnonzero(column >= 0)
    assert np.all(column < nodes.names.span)
    count = np.bincount(column[rows], minlength=len(nodes.row_of))
    first = np.full(len(count), -1, np.int64)
    first[column[rows][::-1]] = rows[::-1]
    known = np.full(len(count), -1, np.int64)
    known[: len(nodes.row_of)] = nodes.row_of
    assert np.array_equal(known, first), "a service host leads to another row"
    several = rows[count[column[rows]] > 1]
    shared: dict[int, list[int]] = {}
    for row, host in zip(several.tolist(), column[several].tolist(), strict=True):
        shared.setdefault(host, []).append(row)
    assert nodes.shared == shared


def check_classes(fleet: FleetParts) -> None:
    """Ids are within their tables."""
    columns, rows = fleet._store.row, fleet.rows
    tables = {
        "class_of": len(fleet._classes),
        "stats": len(fleet._stats),
        "metrics": len(fleet._metrics),
        "host_ip": fleet._host_ips.span,
        "pci": len(fleet._pci_states),
    }
    for name, count in tables.items():
        assert np.all((columns[name][:rows] >= 0) & (columns[name][:rows] < count)), name
    for table in (fleet._classes, fleet._stats, fleet._metrics, fleet._projects, fleet._users):
        assert table.ids == {value: index for index, value in enumerate(table.values)}
    used = np.unique(columns["class_of"][:rows])
    known, values = len(fleet._aggregate_table), fleet.aggregates
    members = {index for number in used for index in fleet._classes[int(number)].aggregates}
    assert all(index < known and values[index] is not NONE for index in members)
    found = {each.uuid: index for index, each in enumerate(values[:known]) if each is not NONE}
    assert found == {uuid: fleet._aggregate_table.find(uuid) for uuid in found}
    assert all(each is NONE for each in values[known:])
    assert fleet.resource_classes == list(dict.fromkeys(fleet.resource_classes))
    assert len(fleet.resource_classes) == fleet._store.classes


def check_freed_rows(fleet: FleetParts) -> None:
    """A freed row holds nothing."""
    store, freed = fleet._store, np.flatnonzero(~_live(fleet))
    for block in (store.host[: COLUMN["last_seen_up"]], store.ratio, *store.inventory.values()):
        assert not block[:, freed].any()
    assert np.all(np.isnan(store.host[COLUMN["last_seen_up"], freed]))
    for name, column in store.row.items():
        wanted = {"first": -1, "parent": -1, "service_host": -1, "root": freed}.get(name, 0)
        assert np.all(column[freed] == wanted), name


def check_inventories(fleet: FleetParts) -> None:
    """Limits and available amounts follow from the inventories; without an inventory all values are zero."""
    store, rows = fleet._store, fleet.rows
    blocks = {name: block[:, :rows] for name, block in store.inventory.items()}
    ratio = store.ratio[:, :rows]
    absent = blocks["total"] == 0
    for name in ("total", "reserved", "min_unit", "max_unit", "step_size"):
        assert np.all((blocks[name] >= 0) & (blocks[name] < 2**31)), name
        assert not blocks[name][absent].any(), name
    for name in ("min_unit", "max_unit", "step_size"):
        assert np.all(blocks[name][~absent] > 0), name
    assert np.all(np.isfinite(ratio) & (ratio >= 0))
    assert not ratio[absent].any()
    limit = np.clip(np.floor((blocks["total"] - blocks["reserved"]) * ratio), -(2.0**62), 2.0**62).astype(np.int64)
    assert np.array_equal(blocks["limit"], limit)
    assert np.array_equal(blocks["avail"], np.minimum(limit - blocks["used"], blocks["max_unit"]))
    unusual = np.any((blocks["min_unit"] > 1) | (blocks["step_size"] > 1), axis=1)
    assert set(np.flatnonzero(unusual).tolist()) <= fleet._unit_rules


def check_usage(fleet: FleetParts, table: Table) -> None:
    """used = base + allocations of consumers, on their hosts and elsewhere, per resource class and row."""
    used = fleet._store.inventory["base"][:, : fleet.rows].copy()
    amounts = np.zeros((len(used), len(fleet._consumers.shapes) + 1), np.int64)
    for (resources, *_), shape in fleet._consumers.shapes.items():
        for resource, amount in resources:
            amounts[resource, shape] = amount
    held = (table["row"] >= 0) & (table["shape"] >= 0)
    for line, by_shape in zip(used, amounts, strict=True):
        np.add.at(line, table["row"][held], by_shape[table["shape"][held]])
    for extras in fleet._extras.values():
        for row, resource, amount in extras.elsewhere:
            used[resource, row] += amount
    assert np.array_equal(used, fleet._store.inventory["used"][:, : fleet.rows]), (
        "usage differs from the allocations of consumers"
    )


def check_host_columns(fleet: FleetParts, table: Table) -> None:
    """Host columns hold whole numbers, derived columns follow from the others, and services are evaluated for the
    current time."""
    host, rows, is_host = fleet._store.host[:, : fleet.rows], fleet.rows, fleet.is_host
    figure = {name: host[index] for name, index in COLUMN.items()}
    for name in set(HOST_COLUMNS) - _CONSTRAINED:
        assert np.all(np.isfinite(figure[name])), name
        assert name.endswith("_ratio") or np.all(figure[name] == np.floor(figure[name])), name
    wanted = figure["vcpus_total"] * figure["cpu_allocation_ratio"] - figure["vcpus_used"]
    assert np.array_equal(figure["free_vcpus"], wanted)
    ratios = [
        [getattr(value, f"{name}_allocation_ratio") if value.is_host else 0.0 for name in ("cpu", "ram", "disk")]
        for value in fleet._classes.values
    ]
    by_row = np.array(ratios)[fleet._store.row["class_of"][:rows]]
    for column, name in enumerate(("cpu", "ram", "disk")):
        assert np.array_equal(figure[f"{name}_allocation_ratio"], by_row[:, column])
    seen = figure["last_seen_up"]
    assert not np.any(np.isinf(seen))
    assert np.all(np.isnan(seen[~is_host]))
    up = np.isnan(seen) if fleet.now is not None else np.ones(len(seen), bool)
    if fleet.now is not None:
        up |= np.abs(fleet.now - seen) <= fleet.service_down_time
    down = np.array([value.disabled or value.forced_down for value in fleet._classes.values])
    up &= is_host & ~down[fleet._store.row["class_of"][:rows]]
    assert np.array_equal(figure["service_up"], up), "a service is not evaluated for the current time"


def check_consumers(fleet: FleetParts, table: Table) -> None:
    """Consumers are on rows that have a provider, are found by their uuids, and have known shapes, projects, users and
    groups."""
    live = table["row"] >= 0
    ids = np.flatnonzero(live).astype(np.int32)
    assert len(ids) == fleet._kernel.consumer_count == len(fleet._kernel.consumers)
    fleet._kernel.consumers.check()
    found = find_uuids(fleet._kernel.consumers, np.ascontiguousarray(table["uuid"][live]))
    assert np.array_equal(found, ids), "a uuid leads to another consumer"
    assert np.all(_live(fleet)[table["row"][live]])
    assert sorted(fleet._consumers.shapes.values()) == list(range(len(fleet._consumers.shapes)))
    limits = (("shape", -1, len(fleet._consumers.shapes)), ("group", -1, len(fleet._group_uuids)))
    for name, least, count in (*limits, ("project", 0, len(fleet._projects)), ("user", 0, len(fleet._users))):
        assert np.all((table[name][live] >= least) & (table[name][live] < count)), name
    assert np.all(table["generation"][live] >= 1)
    assert np.all(table["flags"][live] & ~FLAGS == 0)
    reported = (table["flags"][live] & REPORTED) != 0
    assert np.array_equal(reported, table["shape"][live] == -1), "exactly the reported consumers have no allocation"
    projects = table["project"][live]
    for project in np.unique(projects).tolist():
        mine = fleet._kernel.consumers_of(project)
        columns = [ids[projects == project], *(table[name][live][projects == project] for name in ("shape", "user"))]
        assert np.array_equal(mine, columns), "the list of a project's consumers"
    assert sorted(table["free"].tolist()) == np.flatnonzero(~live).tolist(), "freed ids"
    assert set(fleet._extras) <= set(ids.tolist())
    assert set(fleet._image_properties) <= set(ids.tolist())
    assert set(fleet._consumers.notes) <= set(ids.tolist())
    assert set(fleet._consumers.missing) <= set(ids.tolist())
    assert all(_live(fleet)[row] and held for row, held in fleet._consumers.also_on.items())
    elsewhere: dict[int, set[int]] = {}
    for consumer, extras in fleet._extras.items():
        for row, _, _ in extras.elsewhere:
            elsewhere.setdefault(row, set()).add(consumer)
    assert {row: held for row, held in fleet._consumers.elsewhere.items() if held} == elsewhere
    assert fleet._consumers.elsewhere.hosts() == {row for row in elsewhere if fleet.is_host[row]}
    fleet._registry.demand_sound()
    for key, shape in fleet._consumers.shapes.items():
        classes, amounts, *figures = fleet._kernel.shape(shape)
        assert (tuple(zip(classes, amounts, strict=True)), *figures) == key


def check_lists(fleet: FleetParts, table: Table) -> None:
    """Each consumer is listed once, on its row."""
    following, at = table["next"], fleet._store.row["first"][: fleet.rows]
    rows = np.flatnonzero(at >= 0)
    at, listed = at[rows], 0
    while len(at):
        assert np.all((at < len(following)) & (table["row"][at] == rows)), "a list refers to another row"
        listed += len(at)
        assert listed <= fleet._kernel.consumer_count, "a list is endless"
        at, rows = following[at], rows[following[at] >= 0]
        at = at[at >= 0]
    assert listed == fleet._kernel.consumer_count, "a consumer is not listed"


def check_groups(fleet: FleetParts, table: Table) -> None:
    """A group's members on each row are the consumers that were placed with it."""
    assert fleet._groups == {uuid: index for index, uuid in enumerate(fleet._group_uuids) if uuid}
    assert sorted(fleet._server_groups.removed) == [index for index, uuid in enumerate(fleet._group_uuids) if not uuid]
    members = (table["row"] >= 0) & (table["group"] >= 0)
    counted = Counter(zip(table["group"][members].tolist(), table["row"][members].tolist(), strict=True))
    groups = {group: fleet._kernel.group(group)[2] for group in range(len(fleet._group_uuids))}
    kept = {(group, row): count for group, rows in groups.items() for row, count in rows.items()}
    assert kept == counted


def check_devices(fleet: FleetParts) -> None:
    """The column that PCIWeigher reads follows from the pools."""
    states, hosts = fleet._store.row["pci"][: fleet.rows], fleet.is_host
    weights = np.array([weight(available(pools)) for pools in fleet._pci_states.values])
    assert np.array_equal(fleet.column("pci_weight")[hosts], weights[states[hosts]])
    assert not states[~hosts].any()
    assert not fleet.column("pci_weight")[~hosts].any()
    assert fleet._pci_states.values[0] == ()
    assert [fleet._pci_states.id(pools) for pools in fleet._pci_states.values] == list(range(len(fleet._pci_states)))


def check_cells(fleet: FleetParts) -> None:
    """Usage of NUMA cells is at least that of the consumers on them; a CPU is pinned for one consumer only."""
    fleet._numa.check()
    taken: dict[int, list[Any]] = {}
    for consumer, extras in fleet._extras.items():
        if extras.numa is not None:
            taken.setdefault(int(fleet._kernel.consumer(consumer)[2]), []).extend(extras.numa.cells)
    for row, parts in taken.items():
        topology = fleet._numa.get_row(row)
        assert topology is not None
        for cell in topology.cells:
            here = [part for part in parts if part.host_cell == cell.id]
            pinned = [cpu for part in here for cpu in part.taken_cpus]
            assert len(set(pinned)) == len(pinned)
            assert set(pinned) <= cell.pinned_cpus
            assert cell.cpu_usage >= sum(part.shared_cpus for part in here)
            assert cell.memory_usage >= sum(part.memory for part in here)
            for pages in cell.mempages:
                held = sum(part.memory * 1024 // pages.size_kb for part in here if part.page_kb == pages.size_kb)
                assert pages.used >= held


def check_constants(fleet: FleetParts) -> None:
    """The counts of facts that signatures treat as constant equal a new count."""
    change_log = fleet._change_log
    fresh = Constants(fleet._store, change_log.is_host, change_log.service_version)
    fresh.enter(np.arange(fleet.rows, dtype=np.int32))
    fresh.count_devices(sum(bool(extras.pci) for extras in fleet._extras.values()))
    assert fresh.counts() == change_log.constants.counts()
    assert change_log.settled(), "a fact has changed, and the epoch has not"
