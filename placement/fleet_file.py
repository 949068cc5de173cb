"""A whole fleet in one file: columns as arrays, the rest as JSON. A fleet that was loaded decides as the one that was
saved."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..ext import fleet_state
from ..ext.tables import NameTable
from . import snapshot
from .consumers import Extras
from .errors import HostlerError, SnapshotError
from .fleet import GROUP_POLICIES, Fleet
from .host import Aggregate, PciPool
from .host_classes import HostClass, Interned
from .numa_table import NumaTable

FORMAT: Final = 1
"""Version of what stands here in the container of snapshot.py."""

Arrays = Mapping[str, NDArray[Any]]
T = TypeVar("T", bound=Hashable)


def save(fleet: Fleet, path: snapshot.Path, *, progress: snapshot.Progress | None = None) -> None:
    """Write the fleet, as it is now, to one file; other versions of it stay out. A million hosts take about a second.

    SnapshotError if the file cannot be written; what was there before then is still there. ``progress(done, total)`` is
    called with bytes.
    """
    snapshot.write(path, _meta(fleet), _arrays(fleet), progress=progress)


def load(path: snapshot.Path) -> Fleet:
    """The fleet that ``save`` wrote. SnapshotError for a file that is damaged, foreign, or of another format."""
    meta, arrays = snapshot.read(path)
    if meta.get("kind") != "hostler fleet":
        raise SnapshotError(f"{path} is no fleet", field="path")
    if meta.get("format") != FORMAT:
        raise SnapshotError(f"{path} has the format {meta.get('format')}, this version reads {FORMAT}", field="path")
    try:
        return _fleet(meta, arrays)
    except SnapshotError:
        raise
    except (HostlerError, KeyError, TypeError, ValueError, IndexError, RuntimeError, msgspec.ValidationError) as error:
        raise SnapshotError(f"{path} holds a fleet that cannot be: {error}", field="path") from error


# writing


def _meta(fleet: Fleet) -> dict[str, Any]:
    shapes = sorted(fleet.consumers.shapes.items(), key=lambda item: item[1])
    return {
        "kind": "hostler fleet",
        "format": FORMAT,
        "seed": fleet.seed,
        "uuids_made": fleet.providers.made,
        "rows": fleet.rows,
        "now": fleet.now,
        "service_down_time": fleet.service_down_time,
        "resource_classes": fleet.resource_classes,
        "unit_rules": sorted(fleet.unit_rules),
        "classes": msgspec.to_builtins(fleet.classes.values),
        "aggregates": msgspec.to_builtins(fleet.aggregates),
        "stats": msgspec.to_builtins(fleet.stats.values),
        "metrics": msgspec.to_builtins(fleet.metrics.values),
        "pci": msgspec.to_builtins(fleet.pci_states.values),
        "projects": fleet.projects.values,
        "users": fleet.users.values,
        "groups": [[uuid, *fleet.kernel.group(index)[:2]] for index, uuid in enumerate(fleet.group_uuids)],
        "shapes": [msgspec.to_builtins(key) for key, _ in shapes],
        "extras": [[consumer, msgspec.to_builtins(extras)] for consumer, extras in fleet.extras.items()],
        "images": [[consumer, dict(properties)] for consumer, properties in fleet.image_properties.items()],
    }


def _columns(fleet: Fleet) -> dict[str, NDArray[Any]]:
    """Live views of all columns but ``first``, by name, up to the last row; what is all zero costs nothing in the
    file."""
    store, rows = fleet.store, slice(0, fleet.rows)
    columns = {f"host/{line}": block[rows] for line, block in enumerate(store.host)}
    for resource in range(len(fleet.resource_classes)):
        columns[f"ratio/{resource}"] = store.ratio[resource, rows]
        for name, block in store.inventory.items():
            columns[f"{name}/{resource}"] = block[resource, rows]
    columns.update({f"row/{name}": column[rows] for name, column in store.row.items() if name != "first"})
    return columns


def _arrays(fleet: Fleet) -> dict[str, NDArray[Any]]:
    arrays = _columns(fleet)
    tables: dict[str, Arrays] = {
        "names": fleet.names.to_arrays(),
        "services": fleet.nodes.names.to_arrays(),
        "ips": fleet.host_ips.to_arrays(),
        "numa": fleet.numa.to_arrays(),
        "consumer": fleet_state.consumers(fleet.kernel),
    }
    for prefix, table in tables.items():
        arrays.update({f"{prefix}/{name}": array for name, array in table.items()})
    return arrays


# reading


def _part(arrays: Arrays, prefix: str) -> dict[str, NDArray[Any]]:
    return {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{prefix}/")}


def _fleet(meta: Mapping[str, Any], arrays: Arrays) -> Fleet:
    rows = int(meta["rows"])
    fleet = Fleet(seed=meta["seed"], capacity=rows)
    fleet.store.reserve(rows)
    for name in meta["resource_classes"]:
        fleet.resource_class(name, create=True)
    fleet.unit_rules.update(meta["unit_rules"])
    fleet.store.set_rows(rows)
    for name, column in _columns(fleet).items():
        if arrays[name].any() or column.any():
            column[:] = arrays[name]
    _read_tables(fleet, meta, arrays)
    _read_names(fleet, arrays)
    _read_consumers(fleet, meta, arrays)
    fleet.providers.made = int(meta["uuids_made"])
    live = np.flatnonzero(_is_live(fleet)).astype(np.int32)
    fleet.ledger.constants.enter(live)
    fleet.ledger.constants.count_devices(sum(bool(extras.pci) for extras in fleet.extras.values()))
    fleet.ledger.settle()
    fleet.ledger.topology_epoch += 1
    fleet.kernel.forget_log()
    fleet.advance(meta["now"], meta["service_down_time"])
    return fleet


def _read_tables(fleet: Fleet, meta: Mapping[str, Any], arrays: Arrays) -> None:
    fleet.aggregate_table.ids(msgspec.convert(meta["aggregates"], list[Aggregate]))
    _refill(fleet.classes, msgspec.convert(meta["classes"], list[HostClass]))
    for value in fleet.classes.values:
        fleet.ledger.class_id(value)
    _refill(fleet.stats, msgspec.convert(meta["stats"], list[tuple[tuple[str, str], ...]]))
    _refill(fleet.metrics, msgspec.convert(meta["metrics"], list[tuple[tuple[str, float], ...]]))
    for pools in msgspec.convert(meta["pci"], list[tuple[PciPool, ...]]):
        fleet.pci_states.id(pools)
    _refill(fleet.projects, msgspec.convert(meta["projects"], list[str]))
    _refill(fleet.users, msgspec.convert(meta["users"], list[str]))
    fleet.providers.numa = fleet.numa = NumaTable.from_arrays(_part(arrays, "numa"))
    fleet.consumers.use_numa(fleet.numa)


def _refill(table: Interned[T], values: list[T]) -> None:
    """Give an interning table its values in the order of their ids."""
    for index, value in enumerate(values):
        if table.id(value) != index:
            raise ValueError("a value is there twice")


def _read_names(fleet: Fleet, arrays: Arrays) -> None:
    fleet.providers.names = fleet.names = NameTable.from_arrays(_part(arrays, "names"))
    fleet.nodes.names = NameTable.from_arrays(_part(arrays, "services"))
    fleet.host_ips = NameTable.from_arrays(_part(arrays, "ips"))
    live = np.flatnonzero(_is_live(fleet)).astype(np.int32)
    columns = fleet.store.row
    uuids = np.stack([columns["uuid_hi"][live], columns["uuid_lo"][live]], axis=1)
    fleet.providers.uuids.add_many(np.ascontiguousarray(uuids), live)
    nodes = live[columns["service_host"][live] >= 0]
    fleet.nodes.link(nodes, columns["service_host"][nodes])


def _is_live(fleet: Fleet) -> NDArray[np.bool_]:
    """Rows that some provider has: the freed ones are clear, and so have the uuid 0."""
    rows, columns = slice(0, fleet.rows), fleet.store.row
    live: NDArray[np.bool_] = (columns["uuid_hi"][rows] != 0) | (columns["uuid_lo"][rows] != 0)
    if np.count_nonzero(live) != len(fleet.names):
        raise ValueError("names and rows do not agree")
    return live


def _read_consumers(fleet: Fleet, meta: Mapping[str, Any], arrays: Arrays) -> None:
    policies = {number: name for name, number in GROUP_POLICIES.items()}
    for uuid, policy, at_most in meta["groups"]:
        fleet.add_server_group(uuid, policies[policy], max_server_per_host=at_most)
    for resources, vcpus, memory_mb, disk_mb in meta["shapes"]:
        fleet.shape(dict(resources), vcpus, memory_mb, disk_mb)
    fleet_state.set_consumers(fleet.kernel, **_part(arrays, "consumer"))
    for consumer, value in meta["extras"]:
        extras = msgspec.convert(value, Extras)
        pools = msgspec.convert(value["pci"], tuple[PciPool, ...])
        fleet.extras[consumer] = Extras(extras.elsewhere, extras.numa, pools)
    for consumer, properties in meta["images"]:
        fleet.image_properties[consumer] = properties


__all__ = ["FORMAT", "load", "save"]
