"""A fleet's columns, names, NUMA cells and consumers as named arrays, and back. Lines with only default values are
omitted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ...ext.fleet_state import consumers, set_consumers
from ...ext.tables import NameTable
from ..fleet import invariants
from ..fleet.columns import COLUMN, ROW_COLUMNS
from ..fleet.numa_table import NumaTable
from ..types.limits import MAX_AMOUNT

if TYPE_CHECKING:
    from ..fleet.fleet import Fleet

Arrays = dict[str, NDArray[Any]]

_DERIVED_BLOCKS: Final = ("limit", "avail")
_DERIVED_HOST: Final = ("service_up",)
_DERIVED_ROW: Final = ("first",)
_INDICES: Final = ("class_of", "stats", "metrics", "host_ip", "pci")
"""Row columns that hold ids of a table."""


def write_arrays(fleet: Fleet) -> Arrays:
    """The arrays; some of them are views. O(rows * columns in use + consumers)."""
    arrays = dict(_lines(fleet))
    for name, table in (("names", fleet._names), ("service_hosts", fleet._nodes.names), ("host_ips", fleet._host_ips)):
        arrays |= {f"{name}/{part}": array for part, array in table.to_arrays().items()}
    arrays |= {f"numa/{part}": array for part, array in fleet._numa.to_arrays().items()}
    arrays |= {f"consumers/{part}": array for part, array in consumers(fleet._kernel).items()}
    return arrays


def _lines(fleet: Fleet) -> Iterator[tuple[str, NDArray[Any]]]:
    """Each line of the columns that differs from the initial values."""
    store, rows = fleet._store, fleet.rows
    for name, index in COLUMN.items():
        line = store.host[index, :rows]
        if name not in _DERIVED_HOST and (not np.isnan(line).all() if name == "last_seen_up" else line.any()):
            yield f"host/{name}", line
    blocks: Arrays = {**store.inventory, "ratio": store.ratio}
    for name, block in blocks.items():
        for resource, line in zip(fleet.resource_classes, block[:, :rows], strict=True):
            if name not in _DERIVED_BLOCKS and line.any():
                yield f"inventory/{resource}/{name}", narrow(line)
    for name, column in store.row.items():
        line = column[:rows]
        if name not in _DERIVED_ROW and not np.array_equal(line, _at_first(name, rows)):
            yield f"row/{name}", narrow(line)


def narrow(line: NDArray[Any]) -> NDArray[Any]:
    """Integers in half the bytes if they fit."""
    if line.dtype != np.int64 or line.min(initial=0) < -MAX_AMOUNT or line.max(initial=0) > MAX_AMOUNT:
        return line
    return line.astype(np.int32)


def _at_first(name: str, rows: int) -> NDArray[Any]:
    """The value of a row column for empty providers."""
    if name == "root":
        return np.arange(rows, dtype=np.int32)
    return np.full(rows, -1 if name in ("parent", "service_host") else 0, ROW_COLUMNS[name])


def read_arrays(fleet: Fleet, arrays: Arrays, rows: int, made: int) -> None:
    """Fill a new fleet, whose tables are restored already, from ``arrays``, which are consumed. ValueError, TypeError,
    KeyError, IndexError or OverflowError for inconsistent arrays. O(rows * columns in use + consumers)."""
    providers, store = fleet._providers, fleet._store
    providers.names = NameTable.from_arrays(_taken(arrays, "names/"))
    fleet._nodes.names = NameTable.from_arrays(_taken(arrays, "service_hosts/"))
    fleet._host_ips = NameTable.from_arrays(_taken(arrays, "host_ips/"))
    _demand(providers.names.span == rows >= 0 <= made, "the numbers of rows and names differ")
    store.reserve(rows)
    store.set_rows(rows)
    store.set_empty(slice(0, rows))
    _read_lines(fleet, arrays, rows)
    live = np.ones(rows, bool)
    live[providers.names.to_arrays()["free"]] = False
    identified = np.flatnonzero(live).astype(np.int32)
    providers.uuids.add_many(providers.words(identified), identified)
    providers.made = made
    providers.numa = NumaTable.from_arrays(_taken(arrays, "numa/"))
    for resource in range(store.classes):
        store.refresh_limits(resource, slice(0, rows))
        if np.any(store.inventory["min_unit"][resource, :rows] > 1) or np.any(
            store.inventory["step_size"][resource, :rows] > 1
        ):
            fleet._inventories.need_unit_rules(resource)
    fleet._nodes.relink_all()
    _read_consumers(fleet, _taken(arrays, "consumers/"), live)
    fleet._change_log.constants.enter(np.arange(rows, dtype=np.int32))
    fleet._change_log.settle()
    fleet._change_log.topology_epoch += 1
    fleet._kernel.forget_log()


def _read_consumers(fleet: Fleet, table: Arrays, live: NDArray[np.bool_]) -> None:
    set_consumers(fleet._kernel, **table)
    there = table["row"] >= 0
    _demand(bool(live[table["row"][there]].all()), "a consumer is on a freed row")
    for name, count in (("project", len(fleet._projects)), ("user", len(fleet._users))):
        _demand(_within(table[name][there], 0, count - 1), f"a {name} does not exist")
    few = [*fleet._extras, *fleet._image_properties, *fleet._consumers.notes, *fleet._consumers.missing]
    _demand(_within(np.array(few, np.int64), 0, len(there) - 1) and bool(there[few].all()), "a consumer does not exist")
    _demand(all(0 <= row < len(live) and live[row] for row in fleet._consumers.also_on), "instances stand nowhere")
    for extras in fleet._extras.values():
        for row, resource, _ in extras.elsewhere:
            known = 0 <= row < len(live) and live[row] and 0 <= resource < len(fleet.resource_classes)
            _demand(known, "a consumer has allocations on a provider that does not exist")


def _read_lines(fleet: Fleet, arrays: Arrays, rows: int) -> None:
    store = fleet._store
    blocks: Arrays = {**store.inventory, "ratio": store.ratio}
    targets = {f"host/{name}": store.host[index] for name, index in COLUMN.items() if name not in _DERIVED_HOST}
    targets |= {f"row/{name}": column for name, column in store.row.items() if name not in _DERIVED_ROW}
    targets |= {
        f"inventory/{resource}/{name}": block[index]
        for index, resource in enumerate(fleet.resource_classes)
        for name, block in blocks.items()
        if name not in _DERIVED_BLOCKS
    }
    for name, line in targets.items():
        given = arrays.pop(name, None)
        if given is not None:
            _demand(given.shape == (rows,) and np.can_cast(given.dtype, line.dtype, "safe"), f"{name} is malformed")
            line[:rows] = given
    _check_lines(fleet, rows)


def _check_lines(fleet: Fleet, rows: int) -> None:
    """Check that indices, and values that could overflow, are in range."""
    store = fleet._store
    counts = (len(fleet._classes), len(fleet._stats), len(fleet._metrics), fleet._host_ips.span, len(fleet._pci_states))
    for name, count in zip(_INDICES, counts, strict=True):
        _demand(_within(store.row[name][:rows], 0, count - 1), f"row/{name} is out of range")
    _demand(
        _within(store.row["service_host"][:rows], -1, fleet._nodes.names.span - 1), "service hosts are out of range"
    )
    for name in ("parent", "root"):
        _demand(_within(store.row[name][:rows], -1 if name == "parent" else 0, rows - 1), f"row/{name} is out of range")
    for name in ("total", "reserved", "min_unit", "max_unit", "step_size"):
        for line in store.inventory[name][:, :rows]:
            _demand(_within(line, 0, MAX_AMOUNT), f"{name} is out of range")
    for line in (*store.ratio[:, :rows], *store.host[: COLUMN["last_seen_up"], :rows]):
        _demand(
            bool(np.isfinite(line.min(initial=0)) and np.isfinite(line.max(initial=0))),
            "a value is not a finite number",
        )
    try:
        invariants.check_trees(fleet)
    except AssertionError as error:
        raise ValueError(f"provider trees: {error}") from None


def _within(line: NDArray[Any], least: int, most: int) -> bool:
    return len(line) == 0 or bool(line.min() >= least and line.max() <= most)


def _taken(arrays: Arrays, prefix: str) -> Arrays:
    """Remove and return the arrays of one part."""
    return {name.removeprefix(prefix): arrays.pop(name) for name in list(arrays) if name.startswith(prefix)}


def _demand(fine: bool, problem: str) -> None:
    if not fine:
        raise ValueError(problem)
