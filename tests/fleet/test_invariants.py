"""``check`` finds whatever was tampered with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hostler.placement.fleet.fleet import Extras, Fleet, Inventory
from hostler.placement.load.bulk import add_hosts, load_hosts
from hostler.placement.numa.fit import fit
from hostler.placement.persist import file as fleet_file
from hostler.placement.types.host import Service

from .commands import WANTED
from .values import NOW, POOLS, aggregate, host, topology, uuid_of


def populated() -> Fleet:
    """Something of everything, a freed row and a freed consumer id among it."""
    fleet = Fleet(seed=1)
    add_hosts(fleet, [host(f"n{number}", number, aggregates=(aggregate(number % 2),)) for number in range(6)])
    nodes = [host("s", 4, nodename=f"node{number}", service=Service(last_seen_up=NOW)) for number in range(3)]
    add_hosts(fleet, nodes)
    fleet.add_provider("gone")
    fleet.add_provider("gpu", parent="n0")
    fleet.set_inventory("gpu", {"VGPU": Inventory(total=4)})
    fleet.remove_provider("gone")
    fleet.add_server_group(uuid_of(77), "affinity")
    shape = fleet._shape({0: 1, 1: 512}, 1, 512, 0)
    here = fleet._numa.get_row(1)
    assert here is not None
    extras = (
        None,
        Extras(numa=fit(here, WANTED)),
        Extras(pci=POOLS[:1]),
        Extras(((fleet.row("gpu"), fleet.resource_class("VGPU"), 1),)),
    )
    for number in range(8):
        group = 0 if number % 2 else -1
        fleet.claim(uuid_of(number), number % 4, shape, group=group, extras=extras[number] if number < 4 else None)
    fleet._release_uuids([uuid_of(4)])
    fleet.advance(NOW)
    return fleet


def add_a_name(fleet: Fleet) -> None:
    fleet._names.add("new")


def put(line: object, at: object, value: object) -> None:
    line[at] = value  # type: ignore[index]


def column(name: str, row: int, value: float) -> Callable[[Fleet], None]:
    return lambda fleet: put(fleet.column(name), row, value)


def block(name: str, resource: int, row: int, value: int) -> Callable[[Fleet], None]:
    return lambda fleet: put(fleet._store.inventory[name], (resource, row), value)


def row_column(name: str, row: int, value: int) -> Callable[[Fleet], None]:
    return lambda fleet: put(fleet._store.row[name], row, value)


def drop_extras(fleet: Fleet, consumer: int) -> None:
    del fleet._extras[consumer]


GONE, GPU = 9, 10
TAMPERED: dict[str, Callable[[Fleet], None]] = {
    "usage": block("used", 0, 0, 7),
    "usage that nobody took": block("base", 1, 4, 7),
    "usage elsewhere": lambda fleet: drop_extras(fleet, fleet.consumer_id(uuid_of(3))),
    "limit": block("limit", 0, 1, 99),
    "what is available": block("avail", 1, 2, 1),
    "a total below zero": block("total", 0, 3, -1),
    "units without an inventory": block("min_unit", 3, 3, 1),
    "a ratio": lambda fleet: put(fleet._store.ratio, (0, 0), np.nan),
    "free vCPUs": column("free_vcpus", 0, 1.0),
    "a figure that is no number": column("free_ram_mb", 0, np.nan),
    "a fraction of a vCPU": column("vcpus_used", 0, 0.5),
    "a service": column("service_up", 0, 0.0),
    "a heartbeat of no host": column("last_seen_up", GPU, NOW),
    "an allocation ratio": column("cpu_allocation_ratio", 0, 9.0),
    "the weight of devices": column("pci_weight", 2, 1.0),
    "a freed row's figure": column("num_io_ops", GONE, 1.0),
    "a freed row's root": row_column("root", GONE, 0),
    "a freed row's uuid": row_column("uuid_lo", GONE, 1),
    "a root": row_column("root", GPU, GPU),
    "a parent": row_column("parent", GPU, 1),
    "a circle": row_column("parent", 0, GPU),
    "a parent that was removed": row_column("parent", GPU, GONE),
    "a uuid": row_column("uuid_hi", 0, 1),
    "a host class": row_column("class_of", 0, 10_000),
    "a host class of another kind": row_column("class_of", 0, 0),
    "a service host": row_column("service_host", 0, 1),
    "a node of a shared service host": lambda fleet: fleet._shared_service_hosts.clear(),
    "the row of a service host": lambda fleet: put(fleet._nodes.row_of, 0, 3),
    "the first consumer": row_column("first", 0, 1),
    "no first consumer": row_column("first", 0, -1),
    "an extra of no consumer": lambda fleet: fleet._extras.update({4: Extras()}),
    "an image of no consumer": lambda fleet: fleet._image_properties.update({99: {}}),
    "a group's uuid": lambda fleet: fleet._group_uuids.append(uuid_of(1)),
    "pinned CPUs": lambda fleet: fleet._numa.set_row(1, topology(), 4.0, 1.0),
    "a name": add_a_name,
    "a unit rule": lambda fleet: put(fleet._store.inventory["min_unit"], (0, 0), 2),
    "failed builds": column("failed_builds", 0, 8.0),
    "a resource class": lambda fleet: fleet.resource_classes.append("VCPU"),
    "a project": lambda fleet: fleet._projects.values.append("p"),
}


def test_a_fleet_with_something_of_everything_passes() -> None:
    populated().check()


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_tampered_with_is_found(name: str) -> None:
    fleet = populated()
    TAMPERED[name](fleet)
    with pytest.raises(AssertionError):
        fleet.check()


def test_a_hundred_thousand_hosts_with_as_many_guests_are_checked(tmp_path: object) -> None:
    fleet = Fleet()
    load_hosts(fleet, np.char.add(b"n", np.arange(100_000).astype("S")), [host("t", 4)])
    shape = fleet._shape({0: 1}, 1, 0, 0)
    for number in range(1000):
        fleet.claim(uuid_of(number), number * 97, shape)
    fleet.check()
    assert fleet_file.FORMAT == 1
