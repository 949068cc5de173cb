"""A request with one wrong field is refused whole: the error names the field, and nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hostler.placement.decide.engine import Engine
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.load.bulk import add_hosts
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import Host
from hostler.placement.types.request import (
    Destination,
    Flavor,
    Image,
    InstanceNumaCell,
    InstanceNumaTopology,
    PciRequest,
    Request,
    RequestSpec,
    ServerGroup,
)

from .dump import dump
from .values import guest_uuid

pytestmark = pytest.mark.kernel_twin

NAN, INFINITY, HUGE = float("nan"), float("inf"), 2**70
TAKEN, GROUP = guest_uuid(0), guest_uuid(6000)

GOOD = Request(
    spec=RequestSpec(
        prepare=False,
        flavor=Flavor(name="f", vcpus=1, memory_mb=512),
        image=Image(),
        requested_destination=Destination(),
        pci_requests=(PciRequest(count=1, spec=({"vendor_id": "8086"},)),),
        numa_topology=InstanceNumaTopology(cells=(InstanceNumaCell(id=0, cpuset=frozenset({0}), memory=512),)),
    ),
    instance_uuids=(guest_uuid(1),),
    server_group=ServerGroup(uuid=GROUP, policy="affinity"),
)

NUMBERS: tuple[Any, ...] = (-1, 1.5, True, "1", None, NAN, INFINITY, HUGE, [])
TEXTS: tuple[Any, ...] = (5, b"x", ["x"], {}, "x" * 256)
LISTS = (5, "h1", {"h1": 1}, (5,), (None,))
SETS = (5, "h1", ("h1",), {"h1": 1}, frozenset({5}))

WRONG: dict[str, tuple[Any, ...]] = {
    "spec": (None, "spec", 5),
    "instance_uuids": (
        5,
        "abc",
        None,
        {"a"},
        (5,),
        ("no uuid",),
        ("",),
        (guest_uuid(1),) * 2,
        (TAKEN,),
        ("x",) * 100_001,
    ),
    "project_id": (None, *TEXTS),
    "user_id": (None, *TEXTS),
    "server_group": (5, [], "no uuid", guest_uuid(6001), b"x"),
    "now": (NAN, INFINITY, -INFINITY, "5", True, 1j, []),
    "alternates": (-1, 1.5, True, "1", None, NAN, HUGE, 0.0, [], 1001),
    "request_id": (5, b"x", [], "x" * 256),
    "spec.flavor": (None, "f", 5),
    "spec.image": ("image", 5),
    "spec.availability_zone": TEXTS,
    "spec.scheduler_hints": (None, 5, [], {"a": "b"}, {1: ("b",)}, {"a": 5}, {"a": (5,)}, {"a": ("b" * 2**20,)}),
    "spec.ignore_hosts": LISTS,
    "spec.force_hosts": LISTS,
    "spec.force_nodes": LISTS,
    "spec.requested_destination": ("h1", 5),
    "spec.pci_requests": (None, 5, "x", ("x",)),
    "spec.numa_topology": ("x", 5),
    "spec.is_bfv": (None, "no", 1),
    "spec.flavor.name": (None, *TEXTS),
    "spec.flavor.vcpus": NUMBERS,
    "spec.flavor.memory_mb": NUMBERS,
    "spec.flavor.root_gb": NUMBERS,
    "spec.flavor.ephemeral_gb": NUMBERS,
    "spec.flavor.swap": NUMBERS,
    "spec.flavor.extra_specs": (None, 5, [], {1: "a"}, {"a": 1}, {"a": None}, {"a": "b" * 10_000_000}),
    "spec.image.id": (5, b"x", []),
    "spec.image.disk_format": (5, b"x", []),
    "spec.image.properties": (None, 5, [], {1: "a"}, {"os_distro": "b" * 10_000_000}),
    "spec.requested_destination.host": TEXTS,
    "spec.requested_destination.node": TEXTS,
    "spec.requested_destination.cell_uuid": TEXTS,
    "spec.requested_destination.allow_cross_cell_move": (None, "yes", 1),
    "spec.requested_destination.aggregates": LISTS,
    "spec.requested_destination.forbidden_aggregates": SETS,
    "spec.pci_requests.count": (0, *NUMBERS),
    "spec.pci_requests.spec": (None, 5, "x", (), ("x",), ({1: "x"},)),
    "spec.pci_requests.alias_name": TEXTS,
    "spec.pci_requests.request_id": TEXTS,
    "spec.pci_requests.numa_policy": (5, "sometimes"),
    "spec.numa_topology.cells": (None, 5, "x", ("x",)),
    "spec.numa_topology.emulator_threads_policy": (5, "sometimes"),
    "spec.numa_topology.cells.id": NUMBERS,
    "spec.numa_topology.cells.cpuset": (None, 5, "01", {"0": 1}, frozenset({-1}), frozenset({1.5}), frozenset({HUGE})),
    "spec.numa_topology.cells.pcpuset": (None, 5, "01", frozenset({-1}), frozenset({True}), frozenset({"0"})),
    "spec.numa_topology.cells.memory": NUMBERS,
    "spec.numa_topology.cells.pagesize": (-4, 1.5, True, "large", NAN, HUGE),
    "spec.numa_topology.cells.cpu_policy": (5, "sometimes"),
    "spec.numa_topology.cells.cpu_thread_policy": (5, "sometimes"),
    "server_group.uuid": (None, 5, "x" * 256),
    "server_group.policy": (None, 5, [], "sometimes"),
    "server_group.max_server_per_host": (0, *NUMBERS),
    "server_group.members": SETS,
    "server_group.hosts": SETS,
}


def changed(value: Any, path: list[str], wrong: Any) -> Any:
    """``value`` with the field at ``path`` replaced; of a tuple its one item's field."""
    if isinstance(value, tuple):
        return (changed(value[0], path, wrong),)
    first, *rest = path
    return replace(value, **{first: changed(getattr(value, first), rest, wrong) if rest else wrong})


def engine() -> Engine:
    fleet = Fleet()
    add_hosts(fleet, [Host(host=f"h{i}", vcpus_total=8, total_usable_ram_mb=8192) for i in range(3)])
    made = Engine(fleet)
    made.place(
        Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=512)), instance_uuids=(TAKEN,), now=9.0)
    )
    return made


def short(value: object) -> str:
    return repr(value)[:30]


CASES = [pytest.param(path, value, id=f"{path}={short(value)}") for path, values in WRONG.items() for value in values]
PLAIN = Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=512)), instance_uuids=(guest_uuid(2),))

WAYS: dict[str, Callable[[Engine, Request], object]] = {
    "place": lambda engine, request: engine.place(request),
    "place_many": lambda engine, request: engine.place_many([PLAIN, request]),
    "explain": lambda engine, request: engine.explain(request),
    "fits": lambda engine, request: engine.fits(request),
    "rank": lambda engine, request: engine.rank(request),
    "move": lambda engine, request: engine.move(TAKEN, request),
    "resize": lambda engine, request: engine.resize(TAKEN, request),
}


@pytest.mark.parametrize(("path", "wrong"), CASES)
def test_the_error_names_the_field_and_nothing_has_changed(path: str, wrong: object) -> None:
    made, request = engine(), changed(GOOD, path.split("."), wrong)
    before = dump(made)
    for name, way in WAYS.items():
        if path == "instance_uuids" and (name in ("move", "resize") or (name != "place" and wrong == (TAKEN,))):
            continue  # place_many carries on behind a uuid that exists: tests/engine/test_bad_calls.py
        with pytest.raises(HostlerError) as failure:
            way(made, request)
        assert failure.value.field is not None
        named = failure.value.field.split(".")
        assert path.endswith(".".join(named)) or named[0] in path, (name, failure.value.field)
        assert len(str(failure.value)) < 500
        assert dump(made) == before, name


def test_the_good_request_is_good() -> None:
    made = engine()
    assert made.place(GOOD).refusal is None


NO_REQUESTS = [None, 5, "request", GOOD.spec, {"spec": GOOD.spec}]


@pytest.mark.parametrize("wrong", NO_REQUESTS, ids=short)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_request_is_refused(way: str, wrong: Any) -> None:
    made = engine()
    before = dump(made)
    with pytest.raises(HostlerError) as failure:
        WAYS[way](made, wrong)
    assert failure.value.field == "request"
    assert dump(made) == before


@pytest.mark.parametrize("field", ["image", "scheduler_hints", "flavor"])
def test_a_field_that_nests_deeply_is_refused(field: str) -> None:
    """Its ``repr``, which errors show, exceeds the interpreter's limit."""
    value: Any = "x"
    for _ in range(5_000):
        value = [value]
    values: dict[str, Any] = {
        "image": Image(properties={"a": value}),
        "scheduler_hints": {"a": value},
        "flavor": Flavor(name="f", vcpus=1, memory_mb=512, extra_specs={"a": value}),
    }
    fleet = Fleet()
    add_hosts(fleet, [Host(host="h", vcpus_total=4, total_usable_ram_mb=4_096)])
    with pytest.raises(HostlerError) as caught:
        Engine(fleet).place(Request(spec=replace(GOOD.spec, **{field: values[field]})))
    assert (caught.value.field or "").startswith(field)
