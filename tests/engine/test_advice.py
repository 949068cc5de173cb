"""Every form of advice that a refusal gives, word for word, and taken on a fork: then it helps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from hostler import (
    Aggregate,
    Decision,
    Destination,
    Engine,
    Flavor,
    Fleet,
    Host,
    Inventory,
    Policy,
    Request,
    RequestSpec,
    ServerGroup,
    Service,
    add_hosts,
)
from hostler.placement.api.commands import UpdateProvider
from hostler.placement.api.placement_model import PlacementModel

pytestmark = pytest.mark.kernel_twin

ZONE = Aggregate(uuid="5fd0b3a4-2f3e-4d6e-9a66-9a3f0a6b1c01", name="az1", metadata={"availability_zone": "az1"})
CELLS = "00000000-0000-0000-0000-0000000000c1", "00000000-0000-0000-0000-0000000000c2"
SMALL = Flavor(name="small", vcpus=2, memory_mb=4096)


def host(number: int, **fields: Any) -> Host:
    return Host(
        **{
            "host": f"h{number}",
            "vcpus_total": 4,
            "cpu_allocation_ratio": 1.0,
            "total_usable_ram_mb": 8192,
            "total_usable_disk_gb": 100,
            "cell_uuid": CELLS[0],
            **fields,
        }
    )


def engine(*hosts: Host, options: dict[str, dict[str, Any]] | None = None) -> Engine:
    fleet = Fleet()
    fleet._aggregate_ids([ZONE])
    add_hosts(fleet, hosts)
    return Engine(fleet, Policy.from_mapping(options or {}))


def asks(flavor: Flavor = SMALL, **fields: Any) -> Request:
    return Request(spec=RequestSpec(flavor=flavor, prepare=False, **fields))


def advice(of: Engine, request: Request) -> str | None:
    """What the refusal says would help; the explanation says the same."""
    decision = of.what_if().place(request)
    assert decision.refusal is not None
    assert of.explain(request).refusal == decision.refusal
    return decision.refusal.hint


def uuids(count: int) -> tuple[str, ...]:
    return tuple(f"00000000-0000-0000-0000-00000000000{number}" for number in range(count))


def test_the_least_that_is_lacking_is_just_enough() -> None:
    full = engine(host(1, free_ram_mb=3000), host(2, free_ram_mb=1000))
    assert advice(full, asks()) == "2 hosts lack only MEMORY_MB, the nearest 1096 MiB"
    for freed, placed in ((1095, False), (1096, True)):
        trial = full.what_if()
        trial.fleet.set_inventory("h1", memory(trial, total=8192 + freed))
        assert trial.place(asks()).placed == placed


def memory(of: Engine, node: str = "h1", **changes: Any) -> dict[str, Inventory]:
    known = {name: each for name, (each, _) in of.fleet.inventory(node).items()}
    return known | {"MEMORY_MB": replace(known["MEMORY_MB"], **changes)}


def test_unit_rules_are_told_from_capacity() -> None:
    stepped = engine(host(1))
    stepped.fleet.set_inventory("h1", memory(stepped, step_size=1000))
    assert advice(stepped, asks()) == "1 host would pass but for the unit rules of MEMORY_MB"
    assert stepped.what_if().place(asks(replace(SMALL, memory_mb=4000))).placed


def test_a_host_that_is_too_small_whatever_comes_free_is_told_from_a_full_one() -> None:
    tiny = engine(host(1, total_usable_ram_mb=2048, free_ram_mb=1024))
    assert advice(tiny, asks()) == (
        "1 host is too small in MEMORY_MB alone: 4096 MiB asked for, at most 2048 MiB a guest"
    )
    tiny.fleet.set_inventory("h1", memory(tiny, total=8192))
    assert not tiny.what_if().place(asks()).placed  # more of it does not help,
    tiny.fleet.set_inventory("h1", memory(tiny, max_unit=8192))
    assert tiny.what_if().place(asks()).placed  # if a guest may not have it


def test_a_filter_that_alone_keeps_hosts_out_is_named() -> None:
    down = engine(host(1, service=Service(disabled=True)), host(2, vcpus_used=4, service=Service(disabled=True)))
    assert advice(down, asks()) == "1 host would pass with their compute services enabled"
    down.fleet.set_service("h1", disabled=False)
    assert down.place(asks()).host == "h1"


def test_compute_filter_is_named_for_services_that_are_down() -> None:
    down = engine(host(1, service=Service(forced_down=True)), host(2, vcpus_used=4, service=Service(forced_down=True)))
    assert advice(down, asks()) == "1 host would pass without ComputeFilter"


def test_a_service_that_is_disabled_and_down_is_the_nearest_at_most() -> None:
    down = engine(host(1, service=Service(disabled=True, forced_down=True)))
    assert str(advice(down, asks())).startswith("no host lacks one thing only; the nearest is h1: ")


def test_a_filter_that_is_skipped_is_not_named() -> None:
    down = engine(host(1, vcpus_used=4, service=Service(forced_down=True)), host(2, service=Service(forced_down=True)))
    big = {"VCPU": Inventory(total=6)}
    assert advice(down, asks(force_hosts=("h1",))) == "1 host lacks only VCPU, the nearest 2"
    down.fleet.set_inventory("h1", {name: each for name, (each, _) in down.fleet.inventory("h2").items()} | big)
    assert down.place(asks(force_hosts=("h1",))).placed


def test_traits_are_named() -> None:
    plain, gold = engine(host(1)), replace(SMALL, extra_specs={"trait:CUSTOM_GOLD": "required"})
    assert advice(plain, asks(gold)) == "1 host would pass without the traits asked for"
    plain.fleet.set_traits("h1", frozenset({"CUSTOM_GOLD"}))
    assert plain.place(asks(gold)).placed


def test_aggregates_are_named() -> None:
    zoned = engine(host(1))
    request = asks(availability_zone="az1")
    assert advice(zoned, request) == "1 host would pass without the aggregates asked for"
    assert zoned.what_if().place(asks()).placed
    zoned.fleet.set_aggregates("h1", [ZONE])
    assert zoned.place(request).placed


def test_a_forbidden_aggregate_is_told_from_one_that_is_missing() -> None:
    kept = engine(host(1, aggregates=(ZONE,)))
    elsewhere = Destination(forbidden_aggregates=frozenset({ZONE.uuid}))
    [reason] = kept.explain(asks(requested_destination=elsewhere)).refused
    assert (reason.stage, reason.reason) == ("aggregates", "is in the forbidden aggregate az1")


def test_cells_are_named() -> None:
    celled = engine(host(1))
    bound = Destination(cell_uuid=CELLS[1])
    assert advice(celled, asks(requested_destination=bound)) == "1 host would pass in any cell"
    free = replace(bound, allow_cross_cell_move=True)
    assert celled.place(asks(requested_destination=free)).placed


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"ignore_hosts": ("H1", "h2")}, "h1 is one of ignore_hosts"),
        ({"force_hosts": ("h3",)}, "h1 is none of force_hosts"),
        ({"force_nodes": ("h3",)}, "h1 is none of force_nodes"),
        ({"requested_destination": Destination(host="h3")}, "h1 is not the requested host h3"),
        ({"requested_destination": Destination(host="h3", node="h3")}, "h1 is not the requested host h3"),
    ],
)
def test_hosts_that_the_request_leaves_out_are_told_last(names: dict[str, Any], reason: str) -> None:
    named = engine(host(1), host(2), host(3, vcpus_used=4))
    explanation = named.explain(asks(**names))
    assert explanation.counterfactuals[-1] == "2 hosts would pass if the request named no hosts"
    told = explanation.reason("h1")
    assert told is not None
    assert (told.stage, told.reason) == ("host_selection", reason)
    assert named.place(asks()).placed


def test_naming_no_hosts_does_not_help_hosts_that_the_filters_refuse() -> None:
    down = engine(host(1, vcpus_used=4), host(2, service=Service(disabled=True)))
    assert advice(down, asks(force_hosts=("h1",))) == "1 host lacks only VCPU, the nearest 2"
    assert len(down.explain(asks(force_hosts=("h1",))).counterfactuals) == 1
    assert not down.place(asks()).placed


def test_a_tree_without_a_candidate_is_told() -> None:
    flat = engine(host(1))
    gpu = replace(SMALL, extra_specs={"resources1:VGPU": "1"})
    assert advice(flat, asks(gpu)) == "1 host would pass with an allocation candidate in their provider trees"
    flat.fleet.add_provider("gpu", parent="h1")
    flat.fleet.set_inventory("gpu", {"VGPU": Inventory(total=1)})
    assert flat.place(asks(gpu)).placed


def test_where_no_one_thing_would_do_the_nearest_host_is_told() -> None:
    full = engine(
        host(1, vcpus_used=3, free_ram_mb=96), host(2, vcpus_used=4, free_ram_mb=0, service=Service(disabled=True))
    )
    assert advice(full, asks()) == (
        "no host lacks one thing only; the nearest is h1: free MEMORY_MB 96 MiB < 4096 MiB; free VCPU 1 < 2"
    )
    assert full.place(asks(replace(SMALL, vcpus=1, memory_mb=96))).host == "h1"


def test_as_many_instances_as_fit_are_told() -> None:
    two = engine(host(1), host(2, total_usable_ram_mb=4096))
    four = asks().with_changes(instance_uuids=uuids(4))
    assert advice_of_claim(two.what_if().place(four)) == "ask for 3 instances, or free capacity"
    assert two.place(four.with_changes(instance_uuids=uuids(3))).placed


def advice_of_claim(decision: Decision) -> str | None:
    assert decision.refusal is not None
    assert decision.refusal.stage == "claim"
    return decision.refusal.hint


@pytest.mark.parametrize("instances", [1, 2])
def test_claims_that_fail_elsewhere_may_be_tried_again(instances: int) -> None:
    one = engine(host(1))
    candidates = {one.fleet.uuid(0): ["candidate"]}
    request = asks().with_changes(instance_uuids=uuids(instances))
    refused = one.what_if().place(request, candidates=candidates, claim=lambda *claim: False)
    assert advice_of_claim(refused) == "try again"
    assert refused.refusal is not None
    assert refused.refusal.sentence == "1 host passes, but none could be claimed"
    assert one.place(request, candidates=candidates, claim=lambda *claim: True).placed


def test_candidates_without_allocation_requests_are_told() -> None:
    one = engine(host(1))
    refused = one.what_if().place(asks(), candidates={one.fleet.uuid(0): []})
    assert advice_of_claim(refused) == "give allocation requests for hosts that pass"
    assert one.place(asks(), candidates={one.fleet.uuid(0): ["candidate"]}).placed


def test_a_fleet_without_hosts_needs_some() -> None:
    empty = engine()
    assert advice(empty, asks()) == "add hosts"
    add_hosts(empty.fleet, [host(1)])
    assert empty.place(asks()).placed


def test_a_project_that_needs_an_aggregate_is_told_how_it_gets_one() -> None:
    keys = {"limit_tenants_to_placement_aggregate": True, "placement_aggregate_required_for_tenants": True}
    walled = engine(host(1, aggregates=(ZONE,)), options={"scheduler": keys})
    request = asks().with_changes(project_id="p1")
    assert advice(walled, request) == "set filter_tenant_id on one of them"
    walled.fleet.update_aggregate(replace(ZONE, metadata={"filter_tenant_id": "p1"}))
    assert walled.place(request).placed


def test_a_host_that_is_not_there_by_that_name_is_told() -> None:
    one = engine(host(1))
    assert advice(one, asks(requested_destination=Destination(host="H1"))) == (
        "check the names; they are case-sensitive here"
    )
    assert one.place(asks(requested_destination=Destination(host="h1"))).placed


def test_a_batch_sends_to_the_explanation() -> None:
    full = engine(host(1, vcpus_used=4))
    [decision] = full.place_many([asks()])
    assert decision.refusal is not None
    assert decision.refusal.hint == "explain the request for every host's reason"
    assert full.explain(asks()).refused[0].reason == "free VCPU 0 < 2"
    assert full.advise(asks(), decision).refusal == full.place(asks()).refusal
    [placed] = full.place_many([asks(flavor=Flavor(name="s", vcpus=0, memory_mb=1))])
    assert full.advise(asks(), placed) is placed


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("anti-affinity", "h1: holds 1 member of server group {}, whose policy anti-affinity admits 1 per host"),
        ("affinity", "h2: the server group's policy affinity keeps it on h1"),
    ],
)
def test_a_server_group_is_explained_alike_whoever_keeps_it(policy: str, reason: str, kept: bool) -> None:
    both, uuid, [guest] = engine(host(1), host(2)), "00000000-0000-0000-0000-0000000000aa", uuids(1)
    both.fleet.add_server_group(uuid, policy)
    both.place(asks(force_hosts=("h1",)).with_changes(instance_uuids=(guest,), server_group=uuid))
    value = ServerGroup(uuid=uuid, policy=policy, members=frozenset({guest}), hosts=frozenset({"h1"}))
    told = both.explain(asks().with_changes(server_group=uuid if kept else value)).refused
    assert [f"{each.node}: {each.reason}" for each in told] == [reason.format(uuid)]


@pytest.mark.parametrize(
    ("specs", "hint", "better"),
    [
        (
            {"resources1:VGPU": "1", "resources2:VGPU": "1"},
            "set the extra spec group_policy",
            {"resources1:VGPU": "1", "resources2:VGPU": "1", "group_policy": "none"},
        ),
        ({"trait1:CUSTOM_GOLD": "required"}, "give it a resource class", {"resources1:VGPU": "1"}),
        (
            {"trait:COMPUTE_STATUS_DISABLED": "required"},
            "1 host would pass without the traits asked for",
            {},
        ),
        (
            {"resources:VCPU": "0", "resources:MEMORY_MB": "0"},
            "give the flavor some",
            {"resources:VCPU": "0"},
        ),
    ],
)
def test_extra_specs_that_no_host_could_satisfy_are_told(
    specs: dict[str, str], hint: str, better: dict[str, str]
) -> None:
    one = engine(host(1))
    one.fleet.add_provider("gpu", parent="h1")
    one.fleet.set_inventory("gpu", {"VGPU": Inventory(total=2)})
    assert advice(one, asks(replace(SMALL, extra_specs=specs))) == hint
    assert one.place(asks(replace(SMALL, extra_specs=better))).placed


def test_a_refusal_that_is_asked_for_again_says_what_is_so_now() -> None:
    """While nothing changes it is the same answer; a guest that comes or goes, a name and a host that is added show."""
    of = engine(*(host(number, ram_allocation_ratio=1.0) for number in range(2)))
    little = asks(Flavor(name="little", vcpus=1, memory_mb=1024))
    of.place_many([little] * 2)
    large = asks(Flavor(name="large", vcpus=2, memory_mb=8_000))

    def nearest() -> tuple[str | None, int | None]:
        first, again = of.place(large), of.place(large)
        assert replace_sequence(first) == replace_sequence(again)
        assert first.refusal is not None
        assert first.refusal == Engine(of.fleet, of.policy, seed=of.seed).place(large).refusal
        return first.refusal.host, first.refusal.nearest

    empty = nearest()
    guests = [of.place(little).selected.instance_uuid for _ in range(2)]
    assert nearest() != empty
    of.release(guests)
    assert nearest() == empty
    name = empty[0]
    assert name is not None
    PlacementModel(of.fleet).apply(UpdateProvider(uuid=of.fleet.uuid(of.fleet.row(name)), name="renamed", now=1.0))
    nearest()
    add_hosts(of.fleet, [host(2, ram_allocation_ratio=1.0, total_usable_ram_mb=8_192, reserved_ram_mb=500)])
    assert nearest()[0] == "h2"


def replace_sequence(decision: Decision) -> Decision:
    return msgspec.structs.replace(decision, sequence=0, seed=0)
