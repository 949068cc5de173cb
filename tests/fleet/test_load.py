"""Hosts that are loaded from values or from arrays are there as they were given, in rows that follow each other."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.fleet.fleet import Fleet, Inventory
from hostler.placement.fleet.host_view import HostView
from hostler.placement.load import bulk as load
from hostler.placement.load.bulk import add_hosts, load_hosts
from hostler.placement.types.errors import DuplicateName, HostlerError, InvalidValue
from hostler.placement.types.host import Aggregate, Host, Service

from .dump import dump
from .values import NOW, POOLS, aggregate, host, topology, uuid_of

FIELDS = [
    field for field in Host.__dataclass_fields__ if hasattr(HostView, field) and field not in ("nodename", "uuid")
]
REPORTED = ("free_ram_mb", "free_disk_mb")


def as_seen(fleet: Fleet, name: str) -> dict[str, Any]:
    return {field: getattr(HostView(fleet, fleet.row(name)), field) for field in FIELDS}


def test_a_host_is_there_as_it_was_given() -> None:
    given = Host(
        host="h",
        nodename="h-node",
        uuid=uuid_of(1),
        cell_uuid=uuid_of(2),
        vcpus_total=8,
        vcpus_used=3,
        cpu_allocation_ratio=2.5,
        total_usable_ram_mb=4096,
        free_ram_mb=1000,
        ram_allocation_ratio=1.5,
        total_usable_disk_gb=50,
        disk_mb_used=2048,
        free_disk_mb=10_000,
        disk_allocation_ratio=1.25,
        hypervisor_type="QEMU",
        hypervisor_version=8_002_000,
        host_ip="10.0.0.1",
        cpu_info='{"arch": "x86_64"}',
        supported_instances=(("x86_64", "kvm", "hvm"),),
        stats={"a": "1"},
        num_instances=4,
        num_io_ops=2,
        failed_builds=1,
        metrics={"cpu": 0.5, "count": 3},
        aggregates=(aggregate(1), aggregate(2, 1)),
        instances={uuid_of(3): {"os_distro": "x"}, uuid_of(4): {}},
        service=Service(disabled=True, disabled_reason="why", forced_down=True, last_seen_up=NOW),
        numa_topology=topology(),
        pci_pools=POOLS,
        traits=frozenset({"CUSTOM_A", "HW_CPU_X86_AVX2"}),
    )
    fleet = Fleet()
    assert add_hosts(fleet, [given]) == 1
    seen = as_seen(fleet, "h-node")
    assert seen == {field: getattr(given, field) for field in FIELDS}
    assert fleet.uuid(0) == uuid_of(1)
    fleet.check()


def test_what_a_host_does_not_report_as_free_follows_from_its_totals() -> None:
    fleet = Fleet()
    given = Host(host="h", vcpus_total=1, total_usable_ram_mb=1000, total_usable_disk_gb=10, disk_mb_used=500)
    add_hosts(fleet, [replace(given, reserved_ram_mb=100, reserved_disk_gb=1)])
    view = HostView(fleet, 0)
    assert (view.free_ram_mb, view.free_disk_mb) == (900, 9 * 1024 - 500)


def test_inventories_are_those_that_nova_reports_and_hold_the_usage_that_it_reports() -> None:
    fleet = Fleet()
    reported = Host(
        host="h",
        vcpus_total=4,
        vcpus_used=2,
        total_usable_ram_mb=2048,
        reserved_ram_mb=48,
        free_ram_mb=1500,
        total_usable_disk_gb=0,
    )
    add_hosts(fleet, [reported])
    assert fleet.inventory("h") == {
        "VCPU": (Inventory(total=4, max_unit=4, allocation_ratio=4.0), 2),
        "MEMORY_MB": (Inventory(total=2048, reserved=48, max_unit=2048), 500),
    }


def test_a_host_without_heartbeats_counts_as_created_when_its_service_was() -> None:
    fleet = Fleet()
    service = Service(created_at=NOW)
    add_hosts(fleet, [host("a", service=service), host("b")])
    fleet.advance(NOW + 61)
    assert fleet.column("service_up").tolist() == [0, 1]


def test_several_nodes_of_a_service_host_show_the_instances_of_all() -> None:
    fleet = Fleet()
    nodes = [host("s", nodename=f"n{i}", instances={uuid_of(i): {}, uuid_of(99): {}}) for i in range(3)]
    add_hosts(fleet, [host("other"), *nodes])
    assert fleet._rows_of_service_host("s") == [1, 2, 3]
    assert set(HostView(fleet, 2).instances) == {uuid_of(0), uuid_of(1), uuid_of(2), uuid_of(99)}
    for name in ("n0", "n1"):
        fleet.release([fleet.consumer_id(uuid_of(99 if name == "n0" else 1))])
    fleet.release([fleet.consumer_id(uuid_of(0))])
    fleet.remove_provider("n0")
    fleet.remove_provider("n1")
    assert fleet._rows_of_service_host("s") == [3]
    assert fleet._shared_service_hosts == {}
    fleet.check()


def test_freed_rows_are_taken_first_the_last_freed_before_the_others() -> None:
    fleet = Fleet()
    add_hosts(fleet, [host(f"n{i}") for i in range(4)])
    for name in ("n1", "n3"):
        fleet.remove_provider(name)
    add_hosts(fleet, [host(name) for name in ("a", "b", "c")])
    assert [fleet.row(name) for name in ("a", "b", "c")] == [3, 1, 4]
    fleet.check()


def test_arrays_are_loaded_behind_freed_rows() -> None:
    fleet = Fleet()
    add_hosts(fleet, [host(f"n{i}") for i in range(3)])
    fleet.remove_provider("n0")
    assert load_hosts(fleet, ["a", "b"], [host("t")]) == 3
    fleet.check()


def test_made_uuids_depend_on_the_seed_and_are_never_made_twice() -> None:
    fleets = [Fleet(seed=seed) for seed in (1, 1, 2)]
    for fleet in fleets:
        add_hosts(fleet, [host("a"), host("b")])
    one, same, other = ([fleet.uuid(row) for row in (0, 1)] for fleet in fleets)
    assert one == same
    assert not set(one) & set(other)
    fleets[0].remove_provider("b")
    add_hosts(fleets[0], [host("c")])
    assert fleets[0].uuid(1) not in one


def test_a_made_uuid_steps_aside_for_one_that_was_given() -> None:
    source = Fleet(seed=1)
    add_hosts(source, [host(f"n{i}") for i in range(3)])
    fleet = Fleet(seed=1)
    add_hosts(fleet, [host("given", uuid=source.uuid(1)), host("a"), host("b"), host("also", uuid=source.uuid(0))])
    assert len({fleet.uuid(row) for row in range(4)}) == 4
    assert fleet.uuid(3) == source.uuid(0)
    fleet.check()


@pytest.mark.parametrize("kind", ["list", "S", "U", "O"])
def test_names_come_in_any_form(kind: str) -> None:
    texts: Any = ["a", "bcd", "ef"] if kind == "S" else ["a", "héron", "ef"]
    names = texts if kind == "list" else np.array(texts, kind)
    fleet = Fleet()
    load_hosts(fleet, names, [host("t")])
    assert [fleet.name(row) for row in range(3)] == texts
    assert fleet._rows_of_service_host(texts[1]) == [1]


def test_arrays_and_values_make_the_same_fleet() -> None:
    templates = [host("t", number, aggregates=(aggregate(number),)) for number in (0, 4, 7, 12)]
    templates = [replace(template, numa_topology=None, pci_pools=(), instances={}) for template in templates]
    which = np.arange(40) % 4
    ops, seen = np.arange(40) % 3, NOW - np.arange(40)
    from_arrays, from_values = Fleet(seed=1), Fleet(seed=1)
    load_hosts(from_arrays, [f"n{i}" for i in range(40)], templates, which, num_io_ops=ops, last_seen_up=seen)
    add_hosts(
        from_values,
        [
            replace(
                templates[which[i]],
                host=f"n{i}",
                num_io_ops=int(ops[i]),
                service=replace(templates[which[i]].service, last_seen_up=float(seen[i])),
            )
            for i in range(40)
        ],
    )
    assert dump(from_arrays) == dump(from_values)


def test_blocks_and_chunks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [host(f"n{i}", i) for i in range(30)]
    whole, parts = Fleet(seed=1), Fleet(seed=1)
    add_hosts(whole, hosts)
    monkeypatch.setattr(load, "CHUNK", 7)
    add_hosts(parts, hosts)
    assert dump(whole) == dump(parts)
    blocks, block = Fleet(), Fleet()
    load_hosts(block, [f"n{i}" for i in range(30)], [host("t", 4)], vcpus_used=np.arange(30))
    monkeypatch.setattr(load, "BLOCK", 7)
    load_hosts(blocks, [f"n{i}" for i in range(30)], [host("t", 4)], vcpus_used=np.arange(30))
    assert dump(blocks) == dump(block)


def test_nothing_to_load_changes_nothing() -> None:
    fleet = Fleet()
    before = dump(fleet)
    assert add_hosts(fleet, []) == 0
    assert load_hosts(fleet, [], [host("t")]) == 0
    assert dump(fleet) == before


def test_more_of_the_same_hosts_leaves_compiled_signatures_valid() -> None:
    fleet = Fleet()
    add_hosts(fleet, [host("a", aggregates=(aggregate(1),))])
    epoch = fleet._static_epoch
    add_hosts(fleet, [host(f"n{i}", aggregates=(aggregate(1),)) for i in range(5)])
    load_hosts(fleet, [f"m{i}" for i in range(2000)], [host("t")])
    assert fleet._static_epoch == epoch
    load_hosts(fleet, ["other"], [host("t", hypervisor_version=9)])
    assert fleet._static_epoch == epoch + 1


def test_heartbeats_leave_compiled_signatures_valid() -> None:
    fleet = Fleet()
    load_hosts(fleet, [f"n{i}" for i in range(100)], [host("t")], last_seen_up=np.full(100, NOW))
    epoch = fleet._static_epoch
    fleet.heartbeats(np.arange(100), NOW + 30)
    fleet.advance(NOW + 1000)
    assert fleet._static_epoch == epoch


# failures


class Bored(Exception):
    """What an iterator of hosts may raise."""


def test_an_iterator_that_fails_leaves_the_fleet_as_it_was() -> None:
    def hosts() -> Iterator[Host]:
        yield from (host(f"n{i}", i, aggregates=(aggregate(i % 3),)) for i in range(3 * load.CHUNK // 2))
        raise Bored

    fleet = Fleet()
    before = whole(fleet)
    with pytest.raises(Bored):
        add_hosts(fleet, hosts())
    assert whole(fleet) == before


def test_a_bad_5000th_host_leaves_nothing_behind_neither_names_nor_what_was_interned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "CHUNK", 1000)
    fleet = Fleet()
    add_hosts(fleet, [host(f"old{i}", i) for i in range(10)])
    before = whole(fleet)
    hosts = [host(f"n{i}", 10 + i, host_ip=f"10.1.{i // 250}.1", stats={"s": str(i % 9)}) for i in range(5000)]
    hosts[4999] = replace(hosts[4999], vcpus_used=-1)
    with pytest.raises(InvalidValue, match="host n4999: vcpus_used"):
        add_hosts(fleet, hosts)
    assert whole(fleet) == before
    fleet.check()
    assert load_hosts(fleet, ["n1"], [host("t")]) == 10


def test_a_failed_load_that_made_an_aggregate_known_does_not_bind_its_metadata() -> None:
    fleet = Fleet()
    with pytest.raises(InvalidValue):
        add_hosts(fleet, [host("a", aggregates=(aggregate(1, 1),)), host("b", vcpus_total=-1)])
    add_hosts(fleet, [host("a", aggregates=(aggregate(1, 2),))])
    assert fleet.aggregate(aggregate(1).uuid) == aggregate(1, 2)


NAN, HUGE = float("nan"), 10**400
LONG = "x" * 201
WRONG_CELLS: tuple[Any, ...] = ((7,), None)
WRONG_POOLS: tuple[dict[str, Any], ...] = (
    {"count": -1},
    {"numa_node": "a"},
    {"tags": {"a": object()}},
    {"tags": {1: "a"}},
)
BAD: dict[str, list[Any]] = {
    "host": ["", LONG, "a\nb", None, 7, b"a", "\ud800"],
    "nodename": [LONG, "a\0b", None, 7],
    "uuid": ["no uuid", 7, None, uuid_of(1) + "0"],
    "cell_uuid": [7, b"x", ["a"]],
    "vcpus_total": [-1, 2**31, HUGE, 1.0, NAN, "1", None, True],
    "vcpus_used": [-1, 2**31, 0.5, False],
    "total_usable_ram_mb": [-1, 2**31, 1e9],
    "free_ram_mb": [-(2**31), 2**31, NAN],
    "free_disk_mb": [-(2**60), HUGE],
    "disk_mb_used": [-1, 2**62],
    "num_io_ops": [-1, None],
    "reserved_disk_gb": [-1, "0"],
    "cpu_allocation_ratio": [-0.1, NAN, float("inf"), 1e39, HUGE, "1.0", None, True],
    "disk_allocation_ratio": [-1, float("-inf")],
    "hypervisor_type": [7, b"QEMU"],
    "hypervisor_version": [-1, 2**31, 1.5, "8", True],
    "host_ip": ["", 7, "a\tb", LONG],
    "cpu_info": [{}, 7, "\ud800"],
    "supported_instances": [None, "kvm", (("a", 1),), ("kvm",), 7],
    "stats": [None, [("a", "b")], {"a": 1}, {1: "a"}],
    "metrics": [{"m": NAN}, {"m": "1"}, {"m": float("inf")}, {1: 1.0}, "m", {"m": None}, {"m": HUGE}],
    "aggregates": [
        None,
        "a",
        ("a",),
        (Aggregate(uuid="x", name="n"),),
        (Aggregate(uuid=uuid_of(1), name=7),),  # type: ignore[arg-type]
    ],
    "traits": [None, "CUSTOM_A", {"NO_SUCH"}, frozenset({"CUSTOM_a"}), [7], frozenset({"CUSTOM_" + "A" * 250})],
    "instances": [None, {"x": {}}, {7: {}}, {uuid_of(1): {"a": NAN}}, {uuid_of(1): 7}, [uuid_of(1)]],
    "service": [
        None,
        Service(disabled=1),  # type: ignore[arg-type]
        Service(forced_down="no"),  # type: ignore[arg-type]
        Service(disabled_reason=7),  # type: ignore[arg-type]
        Service(last_seen_up=NAN),
        Service(last_seen_up="now"),  # type: ignore[arg-type]
        Service(created_at=float("inf")),
    ],
    "numa_topology": [7, (), "cells", *(replace(topology(), cells=cells) for cells in WRONG_CELLS)],
    "pci_pools": [7, ("a",), None, *((replace(POOLS[0], **wrong),) for wrong in WRONG_POOLS)],
}
CASES = [(field, value) for field, values in BAD.items() for value in values]
EMPTY = {"pci_pools": None, "aggregates": None, "instances": None}


@pytest.mark.property
@pytest.mark.kernel_twin
@pytest.mark.parametrize(("field", "value"), CASES, ids=lambda value: repr(value)[:30])
def test_a_bad_field_is_refused_with_its_name_and_its_hosts_and_nothing_changes(field: str, value: Any) -> None:
    fleet = Fleet()
    add_hosts(fleet, [host(f"old{i}", i) for i in range(4)])
    before = whole(fleet)
    hosts = [host(f"n{i}", 10 + i, aggregates=(aggregate(i),)) for i in range(6)]
    hosts[3] = replace(hosts[3], **{field: value})
    with pytest.raises(HostlerError) as caught:
        add_hosts(fleet, hosts)
    named = str(caught.value)
    assert field in named or field.removesuffix("s") in named or "resource" in named, named
    assert field == "host" or "host n3" in named, named
    assert caught.value.field
    assert whole(fleet) == before
    fleet.check()


@pytest.mark.property
@given(st.sampled_from(CASES), st.integers(1, 12), st.integers(0, 11), st.integers(1, 5))
@settings(deadline=None, max_examples=80)
def test_wherever_the_bad_host_is_nothing_changes(case: tuple[str, Any], count: int, place: int, chunk: int) -> None:
    field, value = case
    fleet = Fleet()
    add_hosts(fleet, [host(f"old{i}", i) for i in range(3)])
    fleet.remove_provider("old0")
    before = whole(fleet)
    hosts = [host(f"n{i}", 10 + i, aggregates=(aggregate(i % 4),)) for i in range(count)]
    hosts[place % count] = replace(hosts[place % count], **{field: value})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "CHUNK", chunk)
        with pytest.raises(HostlerError):
            add_hosts(fleet, hosts)
    assert whole(fleet) == before
    fleet.check()


@pytest.mark.parametrize(
    ("hosts", "error", "words"),
    [
        ([host("a"), host("a")], DuplicateName, "'a' exists"),
        ([host("a"), host("b", nodename="a")], DuplicateName, "'a' exists"),
        ([host("old")], DuplicateName, "'old' exists"),
        ([host("a", uuid=uuid_of(1)), host("b", uuid=uuid_of(1).upper())], DuplicateName, uuid_of(1)),
        ([host("a", uuid=uuid_of(7))], DuplicateName, uuid_of(7)),
        ([host("a", aggregates=(aggregate(1),)), host("b", aggregates=(aggregate(1, 1),))], InvalidValue, "host b"),
        ([host("a"), "b"], InvalidValue, "Host values"),
        ([host("a"), None], InvalidValue, "Host values"),
    ],
)
def test_hosts_that_contradict_each_other_or_the_fleet_are_refused(hosts: Any, error: type, words: str) -> None:
    fleet = Fleet()
    add_hosts(fleet, [host("old", uuid=uuid_of(7))])
    before = whole(fleet)
    with pytest.raises(error, match=words):
        add_hosts(fleet, hosts)
    assert whole(fleet) == before


def many(**changes: Any) -> dict[str, Any]:
    return {"names": ["a", "b", "c"], "templates": [host("t")], "template_of": None, **changes}


BAD_ARRAYS = [
    (many(names=["a", "", "c"]), "names[1]"),
    (many(names=["a", LONG, "c"]), "names[1]"),
    (many(names=["a", 7, "c"]), "names[1]"),
    (many(names=["a", "b\n", "c"]), "names[1]"),
    (many(names=np.array([b"a", b"\xff", b"c"])), "UTF-8"),
    (many(names=np.array([b"a", b"b\x01", b"c"])), "names[1]"),
    (many(names=np.array([b"a", b"", b"c"])), "names[1]"),
    (many(names=np.array([b"a", b"b\0x", b"c"])), "names[1]"),
    (many(names=np.array([1, 2, 3])), "names"),
    (many(names=np.array([["a", "b", "c"]])), "names"),
    (many(names=["a", "b", "a"]), "'a' exists"),
    (many(names=["a", "old", "c"]), "'old' exists"),
    (many(templates=[]), "templates"),
    (many(templates=host("t")), "templates"),
    (many(templates=["t"]), "Host values"),
    (many(templates=[host("t", vcpus_total=-1)]), "vcpus_total"),
    (many(templates=[host("t", 1)]), "use add_hosts"),
    (many(templates=[host("t", traits={"NO_SUCH"})]), "NO_SUCH"),
    (many(template_of=np.array([0, 1, 0])), "template_of"),
    (many(template_of=np.array([0, -1, 0])), "template_of"),
    (many(template_of=np.array([0.0, 0.0, 0.0])), "template_of"),
    (many(template_of=np.array([0, 0])), "template_of"),
    (many(vcpus_used=np.array([1, -1, 1])), "host b: vcpus_used"),
    (many(vcpus_used=np.array([1, 2**31, 1])), "host b: vcpus_used"),
    (many(vcpus_used=np.array([1, 2**63, 1], np.uint64)), "host b: vcpus_used"),
    (many(vcpus_used=np.array([1.0, 2.0, 3.0])), "vcpus_used"),
    (many(vcpus_used=np.array([True, True, False])), "vcpus_used"),
    (many(vcpus_used=np.array([1, 2])), "vcpus_used"),
    (many(vcpus_used=[[1, 2], [3]]), "vcpus_used"),
    (many(speed=np.array([1, 2, 3])), "speed"),
    (many(cpu_allocation_ratio=np.array([1, 2, 3])), "cpu_allocation_ratio"),
    (many(last_seen_up=np.array([1.0, NAN, 3.0])), "host b: last_seen_up"),
    (many(last_seen_up=np.array([1.0, np.inf, 3.0])), "host b: last_seen_up"),
    (many(last_seen_up=np.array(["a", "b", "c"])), "last_seen_up"),
    (many(last_seen_up=np.array([1.0])), "last_seen_up"),
    (many(uuids=np.zeros((3, 2), np.int64)), "uuids"),
    (many(uuids=np.zeros((2, 2), np.uint64)), "uuids"),
    (many(uuids=np.array([[1, 1], [2, 2], [1, 1]], np.uint64)), str(uuid.UUID(int=(1 << 64) + 1))),
]


@pytest.mark.property
@pytest.mark.kernel_twin
@pytest.mark.parametrize(("arguments", "words"), BAD_ARRAYS, ids=lambda value: str(value)[:40])
def test_bad_arrays_are_refused_and_nothing_changes(arguments: dict[str, Any], words: str) -> None:
    fleet = Fleet()
    add_hosts(fleet, [host("old")])
    before = whole(fleet)
    with pytest.raises(HostlerError) as caught:
        load_hosts(fleet, **arguments)
    assert words in str(caught.value)
    assert caught.value.field
    assert whole(fleet) == before
    fleet.check()


def whole(fleet: Fleet) -> dict[str, Any]:
    """The state, with all that is known for good."""
    interned = (fleet._classes, fleet._stats, fleet._metrics, fleet._projects, fleet._users, fleet._pci_states)
    known = [list(table.values) for table in interned], list(fleet.aggregates), fleet._host_ips.span
    return dump(fleet) | {"interned": known, "resource classes": list(fleet.resource_classes)}
