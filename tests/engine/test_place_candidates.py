"""Guests placed among candidates that Placement's API gave: what fits now is claimed, and what is claimed is said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler import Decision, Engine, Flavor, Fleet, Host, Inventory, PciPool, PciRequest, Policy, Request, RequestSpec
from hostler import add_hosts as add
from hostler.placement.api.placement_model import PlacementModel
from hostler.placement.request.placement_query import PlacementQuery, RequestGroup
from hostler.placement.types.errors import DuplicateName, InvalidValue

NOWHERE = "00000000-0000-4000-8000-00000000dddd"
PORT = RequestGroup(suffix="_port", resources=(("CUSTOM_NIC", 1),))
QUERY = PlacementQuery(groups=(RequestGroup(resources=(("VCPU", 2), ("MEMORY_MB", 512))), PORT))


def fleet(cards: int = 2) -> Fleet:
    """Three hosts, each with so many network cards that are providers below it, of one port."""
    made = Fleet()
    sizes: dict[str, Any] = {
        "vcpus_total": 8,
        "cpu_allocation_ratio": 1.0,
        "total_usable_ram_mb": 8_192,
        "total_usable_disk_gb": 40,
    }
    add(made, [Host(host=name, **sizes) for name in "abc"])
    for host in "abc":
        for number in range(cards):
            made.add_provider(f"{host}{number}", parent=host)
            made.set_inventory(f"{host}{number}", {"CUSTOM_NIC": Inventory(total=1)})
    return made


def given_by_placement(of: Fleet, query: PlacementQuery = QUERY) -> dict[str, list[dict[str, Any]]]:
    """The candidates of a query under each provider, as Nova's scheduler sorts them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in PlacementModel(of).allocation_candidates(query).allocation_requests:
        for provider in each["allocations"]:
            found.setdefault(provider, []).append(each)
    return found


def request(count: int = 1, alternates: int = 0, **spec: Any) -> Request:
    spec.setdefault("flavor", Flavor(name="f", vcpus=1, memory_mb=64))
    uuids = tuple(f"00000000-0000-4000-8000-{number:012x}" for number in range(count))
    return Request(spec=RequestSpec(prepare=False, **spec), instance_uuids=uuids, alternates=alternates)


def charged(of: Fleet, uuid: str) -> dict[str, dict[str, int]]:
    consumer = of.consumer(uuid)
    held = {consumer.provider: consumer.resources, **consumer.elsewhere}
    return {of.uuid(of.row(name)): dict(each) for name, each in held.items() if each}


def test_what_the_candidate_says_is_charged_answered_and_given_back() -> None:
    made = fleet()
    decision = Engine(made).place_candidates(request(), given_by_placement(made))
    chosen = decision.selected
    card = chosen.mappings["_port"][0]
    assert chosen.allocations == {chosen.provider_uuid: {"VCPU": 2, "MEMORY_MB": 512}, card: {"CUSTOM_NIC": 1}}
    assert charged(made, chosen.instance_uuid) == chosen.allocations
    made.check()
    Engine(made).release(chosen.instance_uuid)
    assert sum(map(len, given_by_placement(made).values())) == 2 * 3 * 2


def test_of_a_host_the_first_candidate_with_room_is_taken_and_no_host_without_one_is_weighed() -> None:
    made = fleet()
    engine = Engine(made)
    old = given_by_placement(made)
    taken = [engine.place_candidates(request().with_changes(instance_uuids=(uuid,)), old) for uuid in uuids(6)]
    assert sorted(each.selected.mappings["_port"][0] for each in taken) == sorted(
        made.uuid(made.row(f"{host}{number}")) for host in "abc" for number in range(2)
    )
    refused = engine.place_candidates(request().with_changes(instance_uuids=uuids(7)[6:]), old)
    assert refused.refusal is not None
    assert refused.refusal.code == "unclaimed"
    made.check()


def uuids(count: int) -> tuple[str, ...]:
    return tuple(f"00000000-0000-4000-9000-{number:012x}" for number in range(count))


@given(data=st.data())
def test_each_claim_is_the_first_that_the_candidates_own_arithmetic_allows(data: st.DataObject) -> None:
    """The oracle adds up what was claimed so far by provider and class, and knows the totals."""
    made = fleet(data.draw(st.integers(1, 2)))
    offered = given_by_placement(made)
    hosts = {made.uuid(made.row(name)): name for name in "abc"}
    for each in offered.values():
        each[:] = data.draw(st.permutations(each))
    totals = {provider: {"CUSTOM_NIC": 1} for provider in offered} | {
        provider: {"VCPU": 8, "MEMORY_MB": 8_192} for provider in hosts
    }
    engine = Engine(made)
    for uuid in uuids(8):
        decision = engine.place_candidates(request().with_changes(instance_uuids=(uuid,)), offered)
        fitting = {host: [each for each in offered[host] if fits(each, totals)] for host in hosts}
        assert decision.placed == any(fitting.values())
        if decision.placed:
            chosen = decision.selected
            assert chosen.allocation_request == fitting[chosen.provider_uuid][0]
            for provider, resources in chosen.allocations.items():
                for name, amount in resources.items():
                    totals[provider][name] -= amount
    made.check()


def fits(candidate: dict[str, Any], left: dict[str, dict[str, int]]) -> bool:
    return all(
        amount <= left[provider].get(name, 0)
        for provider, part in candidate["allocations"].items()
        for name, amount in part["resources"].items()
    )


def test_several_instances_take_candidates_after_each_other_or_none_is_placed() -> None:
    made = fleet(cards=1)
    engine, offered = Engine(made), given_by_placement(made)
    before = [charged_amounts(made)]
    assert engine.place_candidates(request(4), offered).refusal is not None
    assert [charged_amounts(made)] == before
    decision = engine.place_candidates(request(3), offered)
    assert len({each.mappings["_port"] for each in decision.selections}) == 3


def charged_amounts(of: Fleet) -> list[Any]:
    model = PlacementModel(of)
    return [model.provider_usages(of.uuid(row)) for row in range(of.rows)]


def test_alternates_have_a_candidate_that_fits() -> None:
    made = fleet()
    engine, offered = Engine(made), given_by_placement(made)
    full = made.uuid(made.row("b"))
    offered[full] = [{"allocations": {full: {"resources": {"VCPU": 9}}}, "mappings": {"": [full]}}]
    decision = engine.place_candidates(request(alternates=5), offered)
    (other,) = decision.selected.alternates
    assert {decision.host, other.host} == {"a", "c"}
    assert other.allocation_request in offered[other.provider_uuid]


def test_hosts_whose_candidates_the_claim_has_used_up_are_no_alternates() -> None:
    made = fleet(cards=0)
    made.add_provider("pool")
    made.set_inventory("pool", {"CUSTOM_NIC": Inventory(total=1)})
    shared = {made.uuid(made.row("pool")): {"resources": {"CUSTOM_NIC": 1}}}
    own = [made.uuid(made.row(name)) for name in "abc"]
    offered: dict[str, Any] = {each: [{"allocations": {each: {"resources": {"VCPU": 1}}, **shared}}] for each in own}
    offered[own[2]].append({"allocations": {own[2]: {"resources": {"VCPU": 5}}}})
    decision = Engine(made).place_candidates(request(alternates=5), offered)
    assert decision.host == "a"
    assert [each.host for each in decision.selected.alternates] == ["c"]
    assert decision.selected.alternates[0].allocations == {own[2]: {"VCPU": 5}}


def test_the_filters_judge_the_devices_of_each_candidate() -> None:
    tags = {"vendor_id": "10de", "product_id": "1"}
    made = Fleet()
    pools = tuple(PciPool(count=1, tags={**tags, "rp_uuid": name}) for name in ("one", "two"))
    add(made, [Host(host="a", vcpus_total=8, total_usable_ram_mb=8_192, pci_pools=pools)])
    own = made.uuid(0)
    devices = (PciRequest(count=1, spec=({"vendor_id": "10de"},), request_id="r"),)
    candidates = [
        {"allocations": {own: {"resources": {"VCPU": 1}}}, "mappings": {"": [own], "r-0": [name]}}
        for name in ("none", "two", "one")
    ]
    engine = Engine(
        made,
        Policy.from_toml(
            "[filter_scheduler]\nenabled_filters = ['PciPassthroughFilter']\npci_in_placement = true\n",
        ),
    )
    decision = engine.place_candidates(request(pci_requests=devices), {own: candidates})
    assert decision.selected.mappings["r-0"] == ("two",)
    assert [pool.tags["rp_uuid"] for pool in made.pci_pools(0)] == ["one"]


def test_what_is_unknown_is_no_candidate_and_what_is_malformed_is_refused_by_name() -> None:
    made = fleet()
    engine, offered = Engine(made), given_by_placement(made)
    own = made.uuid(made.row("a"))
    strange: list[Any] = [
        {"allocations": {own: {"resources": {"VCPU": 1}}, NOWHERE: {"resources": {"DISK_GB": 1}}}},
        {"allocations": {own: {"resources": {"CUSTOM_NOTHING": 1}}}},
    ]
    decision = engine.place_candidates(request(), {own: [*strange, *offered[own]], NOWHERE: offered[own]})
    assert decision.selected.allocation_request == offered[own][0]
    allocations: list[Any] = [{}, {own: {}}, {own: {"resources": {"VCPU": 0}}}]
    for bad in ({}, *({"allocations": each} for each in allocations)):
        with pytest.raises(InvalidValue) as said:
            engine.place_candidates(request().with_changes(instance_uuids=uuids(1)), {own: [bad]})
        assert str(said.value.field).startswith("candidates")
    with pytest.raises(DuplicateName):
        engine.place_candidates(request(), offered)
    made.check()


def test_without_nested_providers_the_answer_is_that_of_place() -> None:
    query = PlacementQuery(groups=(RequestGroup(resources=(("VCPU", 1), ("MEMORY_MB", 64))),))
    one, two = fleet(cards=0), fleet(cards=0)
    for uuid in uuids(20):
        wanted = request(alternates=1).with_changes(instance_uuids=(uuid,))
        decisions: list[Decision] = [
            Engine(one).place(wanted),
            Engine(two).place_candidates(wanted, given_by_placement(two, query)),
        ]
        first, second = (each.selected for each in decisions)
        assert (first.host, first.weight, first.parts) == (second.host, second.weight, second.parts)
        assert [each.host for each in first.alternates] == [each.host for each in second.alternates]
