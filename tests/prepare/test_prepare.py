"""What nova-api and nova-conductor do before a scheduler is called, done here for people who call directly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hostler import (
    Destination,
    Engine,
    HostlerError,
    InstanceNumaCell,
    InstanceNumaTopology,
    InvalidValue,
    PciRequest,
    Policy,
    Request,
    ServerGroup,
    UnknownName,
    add_hosts,
)
from hostler.placement.request.prepare import alias_requests, device_groups

from .values import ALIAS, CELLS, DEVICES, asked, engine, host, policy, uuid


def refused(request: Request, *hosts: Any, under: Policy | None = None) -> HostlerError:
    with pytest.raises(HostlerError) as error:
        engine(*(hosts or (host("a", numa_topology=CELLS, pci_pools=DEVICES),)), under=under).place(request)
    return error.value


# NUMA topology and PCI devices


def test_a_flavors_numa_nodes_are_fitted() -> None:
    made = engine(host("plain"), host("cells", numa_topology=CELLS))
    decision = made.place(asked({"hw:numa_nodes": "2"}, instance_uuids=(uuid(1),)))
    assert decision.host == "cells"
    numa = made.fleet._extras[made.fleet.consumer_id(uuid(1))].numa
    assert numa is not None
    assert [cell.host_cell for cell in numa.cells] == [0, 1]


def test_an_images_numa_nodes_are_fitted() -> None:
    made = engine(host("plain"), host("cells", numa_topology=CELLS))
    assert made.place(asked({}, {"hw_numa_nodes": "2"})).host == "cells"


def test_the_traits_of_an_images_list_are_required() -> None:
    made = engine(host("a"), host("b", traits=frozenset({"HW_CPU_X86_AVX2"})), host("c"))
    assert made.place(asked(properties={"traits_required": ["HW_CPU_X86_AVX2"]})).host == "b"
    assert not made.place(asked(properties={"traits_required": ["CUSTOM_NOWHERE"]})).placed


def test_dedicated_cpus_are_pinned() -> None:
    made = engine(host("cells", numa_topology=CELLS))
    made.place(asked({"hw:cpu_policy": "dedicated"}, instance_uuids=(uuid(1),)))
    numa = made.fleet._extras[made.fleet.consumer_id(uuid(1))].numa
    assert numa is not None
    assert [len(cell.pinning) for cell in numa.cells] == [2]


def test_an_alias_takes_devices() -> None:
    made = engine(host("none"), host("nics", pci_pools=DEVICES))
    assert made.place(asked({"pci_passthrough:alias": "a1:2"})).host == "nics"
    assert made.fleet.pci_pools(made.fleet.row("nics")) == ()
    assert not made.place(asked({"pci_passthrough:alias": "a1:1"})).placed


def test_the_numa_policy_of_the_flavor_prevails_over_the_aliass() -> None:
    options = policy().options
    assert alias_requests("a1:1", None, options)[0].numa_policy == "legacy"
    assert alias_requests("a1:1", "required", options)[0].numa_policy == "required"


def test_equal_flavors_get_equal_pci_requests() -> None:
    options = policy().options
    assert alias_requests("a1:1, a1:2", None, options) == alias_requests("a1:1,a1:2", None, options)
    assert len({request.request_id for request in alias_requests("a1:1,a1:1", None, options)}) == 2


def test_pci_in_placement_asks_for_one_group_a_device() -> None:
    under = policy(filter_scheduler={"pci_in_placement": True}, pci={"alias": [
        '{"name": "gpu", "resource_class": "gpu", "traits": "HW_GPU_API_VULKAN, fast"}', ALIAS,
    ]})  # fmt: skip
    first, second, third = device_groups(alias_requests("gpu:2,a1:1", None, under.options))
    assert first.resources == second.resources == {"CUSTOM_GPU": 1}
    assert first.required_traits == {"HW_GPU_API_VULKAN", "CUSTOM_FAST"}
    assert third.resources == {"CUSTOM_PCI_8086_1515": 1}
    assert [str(group.requester_id)[-2:] for group in (first, second, third)] == ["-0", "-1", "-0"]


def test_a_request_that_brings_its_topology_keeps_it() -> None:
    made = engine(host("cells", numa_topology=CELLS))
    request = asked({"hw:numa_nodes": "2"})
    prepared = made._context.prepared(request)
    topology = prepared.spec.numa_topology
    assert topology is not None
    single = replace(topology, cells=topology.cells[:1])
    assert made._context.prepared(asked({"hw:numa_nodes": "2"}, numa_topology=single)).spec.numa_topology == single


# what cannot be judged is refused by its name


@pytest.mark.parametrize(
    ("extra_specs", "field"),
    [
        ({"hw:bogus": "1"}, "hw:bogus"),
        ({"hw:cpu_policy": "dedicatd"}, "hw:cpu_policy"),
        ({"hw:numa_nodes": "two"}, "hw:numa_nodes"),
        ({"hw:cpu_realtime": "yes"}, "hw:cpu_realtime_mask"),
        ({"hw:locked_memory": "true"}, "hw:locked_memory"),
        ({"hw:mem_page_size": "enormous"}, "hw:mem_page_size"),
        ({"pci_passthrough:alias": "nope:1"}, "pci_passthrough:alias"),
        ({"pci_passthrough:alias": "a1:0"}, "pci_passthrough:alias"),
        ({"pci_passthrough:alias": "a1"}, "pci_passthrough:alias"),
        ({"accel:device_profile": "fpga"}, "accel:device_profile"),
        ({"quota:bogus": "1"}, "quota:bogus"),
        ({"trait:CUSTOM_A": "wanted"}, "trait:CUSTOM_A"),
        ({"resources:VCPU": "-1"}, "resources:VCPU"),
        ({"aggregate_instance_extra_specs:ssd": "true"}, "aggregate_instance_extra_specs:ssd"),
        ({"ssd": "true"}, "ssd"),
        ({"mycompany:tier": "gold"}, "mycompany:tier"),
    ],
)
def test_extra_specs_that_no_rule_judges_are_refused(extra_specs: dict[str, str], field: str) -> None:
    assert refused(asked(extra_specs)).field == field


@pytest.mark.parametrize(
    ("properties", "field"),
    [
        ({"hw_bogus": "1"}, "hw_bogus"),
        ({"hw_numa_nodes": "two"}, "hw_numa_nodes"),
        ({"hw_mem_encryption": "perhaps"}, "hw_mem_encryption"),
        ({"trait:HW_CPU_X86_AVX2": "forbidden"}, "trait:HW_CPU_X86_AVX2"),
        ({"trait:AVX99": "required"}, "trait:AVX99"),
        ({"traits_required": ["HW_CPU_X86_AVX2", "AVX99"]}, "traits_required"),
        ({"traits_required": "HW_CPU_X86_AVX2"}, "traits_required"),
        ({"traits_required": [3]}, "traits_required"),
    ],
)
def test_image_properties_that_make_no_sense_are_refused(properties: dict[str, Any], field: str) -> None:
    assert refused(asked({}, properties)).field == field


@pytest.mark.parametrize(
    ("extra_specs", "rule"),
    [
        ({"hw:numa_nodes": "1"}, "NUMATopologyFilter"),
        ({"hw:cpu_policy": "dedicated"}, "NUMATopologyFilter"),
        ({"pci_passthrough:alias": "a1:1"}, "PciPassthroughFilter"),
        ({"capabilities:cpu_info:arch": "x86_64"}, "ComputeCapabilitiesFilter"),
    ],
)
def test_a_wish_whose_filter_is_not_enabled_is_refused(extra_specs: dict[str, str], rule: str) -> None:
    error = refused(asked(extra_specs), under=policy(["ComputeFilter"]))
    assert rule in str(error)
    assert "enabled_filters" in (error.hint or "")


WISHES: dict[str, Request] = {
    "numa_topology": asked(
        numa_topology=InstanceNumaTopology(cells=(InstanceNumaCell(id=0, cpuset=frozenset({0, 1}), memory=2_048),))
    ),
    "pci_requests": asked(pci_requests=(PciRequest(count=1, spec=({"vendor_id": "8086"},)),)),
    "server_group": asked().with_changes(
        server_group=ServerGroup(uuid=uuid(5), policy="affinity", members=frozenset(), hosts=frozenset())
    ),
}
"""Wishes that a request brings as objects of their own, as nova-conductor makes them."""


@pytest.mark.parametrize("field", WISHES)
def test_what_a_request_brings_is_left_to_custom_rules_if_there_are_some(field: str) -> None:
    assert refused(WISHES[field], under=policy(["ComputeFilter"])).field == field
    custom = policy(["ComputeFilter", "NovaQuiet"], hostler={"nova_filters": ["tests.plugins.rules:NovaQuiet"]})
    assert engine(host("a", numa_topology=CELLS, pci_pools=DEVICES), under=custom).place(WISHES[field]).host == "a"
    assert refused(asked({"hw:numa_nodes": "1"}), under=custom).field == "hw:numa_nodes", (
        "which custom rules do not read"
    )


@pytest.mark.parametrize("hint", ["same_host", "query", "reservation", "grup"])
def test_a_hint_that_no_enabled_filter_reads_is_refused(hint: str) -> None:
    assert refused(asked(scheduler_hints={hint: (uuid(1),)})).field == f"scheduler_hints.{hint}"


@pytest.mark.parametrize(
    "sizes", [{"vcpus": 0}, {"memory_mb": 0}, {"vcpus": 2**31}, {"root_gb": 2**31}], ids=lambda sizes: next(iter(sizes))
)
def test_flavors_are_within_nova_apis_bounds(sizes: dict[str, int]) -> None:
    assert refused(asked(flavor=sizes)).field == f"flavor.{next(iter(sizes))}"


# zones


def test_a_zone_is_spelt_as_it_is() -> None:
    hosts = (host("a", zone="München-1"), host("b", zone="muenchen"))
    assert engine(*hosts).place(asked(availability_zone="München-1")).host == "a"
    for zone in ("münchen-1", "nope", " ", "nova"):
        assert refused(asked(availability_zone=zone), *hosts).field == "availability_zone"


def test_the_default_zone_is_that_of_hosts_in_no_other() -> None:
    made = engine(host("a", zone="z"), host("b", total_usable_ram_mb=4096))
    decision = made.place(asked(availability_zone="nova"))
    assert (decision.host, decision.selected.availability_zone) == ("b", "nova")
    assert engine(host("a"), host("b")).place(asked(availability_zone="nova")).placed


def test_the_configured_zone_holds_where_none_is_named() -> None:
    under = policy(DEFAULT={"default_schedule_zone": "z"})
    made = engine(host("a", zone="y"), host("b", zone="z", total_usable_ram_mb=4096), under=under)
    assert made.place(asked()).host == "b"
    assert made.place(asked(availability_zone="y")).host == "a"


def test_a_zone_that_comes_or_goes_is_noticed() -> None:
    made = engine(host("a"))
    request = asked(availability_zone="z")
    with pytest.raises(UnknownName):
        made.place(request)
    add_hosts(made.fleet, [host("b", zone="z")])
    assert made.place(request).host == "b"
    made.fleet.set_aggregates("b", ())
    with pytest.raises(UnknownName):
        made.place(request)


def test_a_zone_may_name_a_host() -> None:
    made = engine(host("a", zone="z"), host("B", zone="z"))
    assert made.place(asked(availability_zone="z:b")).host == "B"
    assert made.place(asked(availability_zone="z::B")).host == "B"
    for zone in ("z:", "z:a:b:c"):
        assert refused(asked(availability_zone=zone)).field == "availability_zone"


# hosts and server groups


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"force_hosts": ("nope",)}, "force_hosts"),
        ({"force_nodes": ("A",)}, "force_nodes"),
        ({"requested_destination": Destination(host="A")}, "requested_destination.host"),
        ({"requested_destination": Destination(node="nope")}, "requested_destination.node"),
    ],
)
def test_hosts_that_do_not_exist_are_refused(spec: dict[str, Any], field: str) -> None:
    assert refused(asked(**spec), host("a")).field == field


def test_a_forced_host_may_be_spelt_in_any_case() -> None:
    assert engine(host("Node-Ä")).place(asked(force_hosts=("NODE-ä",))).host == "Node-Ä"


GROUPS = ["ComputeFilter", "ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter"]


def grouped(kind: str, rules: list[str] = GROUPS) -> Engine:
    made = engine(host("a"), host("b"), under=policy(rules))
    made.fleet.add_server_group(uuid(500), kind)
    return made


def test_the_hint_group_names_a_server_group() -> None:
    made = grouped("anti-affinity")
    hints = {"group": (uuid(500),)}
    hosts = [made.place(asked(scheduler_hints=hints)).host for _ in range(2)]
    assert sorted(hosts) == ["a", "b"]
    assert not made.place(asked(scheduler_hints=hints)).placed


def test_the_hint_group_is_heeded_in_a_batch_too() -> None:
    made = grouped("anti-affinity")
    request = asked(scheduler_hints={"group": (uuid(500),)})
    assert [decision.placed for decision in made.place_many([request] * 3)] == [True, True, False]


@pytest.mark.parametrize(
    ("group", "hint", "error"),
    [
        (None, "nope", InvalidValue),
        (None, uuid(501), UnknownName),
        (uuid(500), uuid(501), InvalidValue),
        (ServerGroup(uuid=uuid(500), policy="affinity"), uuid(501), InvalidValue),
    ],
)
def test_a_group_is_a_known_one_and_named_once(group: Any, hint: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        grouped("affinity").place(asked(scheduler_hints={"group": (hint,)}, server_group=group))


@pytest.mark.parametrize("many", [False, True])
def test_a_group_whose_rule_is_not_enabled_is_refused(many: bool) -> None:
    made = grouped("affinity", ["ComputeFilter"])
    requests = [asked(), asked(server_group=uuid(500))]
    with pytest.raises(InvalidValue, match="ServerGroupAffinityFilter"):
        made.place_many(requests) if many else made.place(requests[1])


# every way goes through it, and it can be switched off


WAYS: list[Callable[[Engine, Request], Any]] = [
    lambda made, request: made.place(request),
    lambda made, request: made.place_many([request]),
    lambda made, request: made.rank(request),
    lambda made, request: made.explain(request),
    lambda made, request: made.fits(request),
    lambda made, request: made.what_if().place(request),
]


@pytest.mark.parametrize("way", WAYS)
def test_every_question_and_command_prepares_its_request(way: Callable[[Engine, Request], Any]) -> None:
    with pytest.raises(UnknownName, match="hw:bogus"):
        way(engine(host("a")), asked({"hw:bogus": "1"}))


@pytest.mark.parametrize("way", WAYS)
def test_a_request_that_nova_api_has_prepared_is_taken_as_it_is(way: Callable[[Engine, Request], Any]) -> None:
    way(engine(host("a")), asked({"hw:bogus": "1"}, availability_zone="nope", prepare=False))
    way(engine(host("a"), under=policy(hostler={"prepare": False})), asked({"hw:bogus": "1"}, availability_zone="nope"))


def test_a_spec_may_ask_for_it_where_the_policy_does_not() -> None:
    under = policy(hostler={"prepare": False})
    assert refused(asked({"hw:bogus": "1"}, prepare=True), under=under).field == "hw:bogus"


def test_a_spec_that_needs_nothing_stays_the_same_object() -> None:
    made, request = engine(host("a")), asked()
    assert made._context.prepared(request) is request


def test_nothing_has_changed_after_a_refusal() -> None:
    made = engine(host("a"))
    sequence, before = made.sequence, made.fleet.column("free_ram_mb").tolist()
    with pytest.raises(UnknownName):
        made.place_many([asked(), asked({"hw:bogus": "1"})])
    assert (made.sequence, made.fleet.column("free_ram_mb").tolist()) == (sequence, before)
