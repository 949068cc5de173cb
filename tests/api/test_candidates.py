"""Allocation candidates: against brute force as sets; their order, limits and strategies as properties."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler import Engine, Flavor, Fleet, Host, Policy, Request, RequestSpec, add_hosts
from hostler.placement.api.answers import Candidates
from hostler.placement.api.errors import BadRequest
from hostler.placement.api.placement_model import PlacementModel
from hostler.placement.fleet.fleet import Inventory
from hostler.placement.request.placement_query import PlacementQuery, RequestGroup

from .candidates_oracle import Answer, Forest, answers, capacity
from .forests import Node, forests, grow, queries, uid


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Node], PlacementQuery]:
    forest = draw(forests())
    return forest, draw(queries(len(forest)))


def as_answers(found: Candidates) -> list[Answer]:
    """Allocation requests as the oracle has them."""
    return [_answer(request) for request in found.allocation_requests]


def _answer(request: dict[str, Any]) -> Answer:
    amounts = {
        ((provider, name), amount)
        for provider, parts in request["allocations"].items()
        for name, amount in parts["resources"].items()
    }
    return frozenset(amounts), frozenset((suffix, frozenset(found)) for suffix, found in request["mappings"].items())


@pytest.mark.property
@settings(max_examples=200, deadline=None)
@given(case=cases(), nested=st.booleans())
def test_candidates_are_those_of_brute_force_and_none_comes_twice(
    case: tuple[list[Node], PlacementQuery], nested: bool
) -> None:
    forest, query = case
    found = as_answers(grow(forest).allocation_candidates(query, nested=nested))
    assert len(set(found)) == len(found)
    assert set(found) == answers(forest, query, nested=nested)


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(case=cases(), limit=st.integers(1, 5), breadth_first=st.booleans())
def test_a_limit_gives_the_first_candidates_of_the_same_order(
    case: tuple[list[Node], PlacementQuery], limit: int, breadth_first: bool
) -> None:
    forest, query = case
    model = grow(forest)
    everything = model.allocation_candidates(query, breadth_first=breadth_first)
    some = model.allocation_candidates(replace(query, limit=limit), breadth_first=breadth_first)
    assert some.allocation_requests == everything.allocation_requests[:limit]
    assert model.allocation_candidates(query, breadth_first=breadth_first) == everything


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_breadth_first_gives_the_same_candidates(case: tuple[list[Node], PlacementQuery]) -> None:
    forest, query = case
    model = grow(forest)
    deep, broad = (model.allocation_candidates(query, breadth_first=way) for way in (False, True))
    assert set(as_answers(deep)) == set(as_answers(broad))
    assert deep.provider_summaries == broad.provider_summaries


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_summaries_show_every_provider_of_every_tree_used(case: tuple[list[Node], PlacementQuery]) -> None:
    nodes, query = case
    forest, found = Forest(nodes), grow(nodes).allocation_candidates(query)
    mappings = [request["mappings"] for request in found.allocation_requests]
    used = {provider for mapping in mappings for providers in mapping.values() for provider in providers}
    roots = {forest.root(node).number for node in nodes if node.uuid in used}
    shown = {
        node.uuid: {
            "resources": {
                name: {"capacity": capacity(node, name), "used": node.used.get(name, 0)} for name in node.inventories
            },
            "traits": sorted(node.traits, key=lambda name: (name.startswith("CUSTOM_"), name)),
            "parent_provider_uuid": None if node.parent is None else forest.nodes[node.parent].uuid,
            "root_provider_uuid": forest.root(node).uuid,
        }
        for node in nodes
        if forest.root(node).number in roots
    }
    assert found.provider_summaries == shown


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(case=cases(), order=st.permutations(range(6)), seed=st.none() | st.integers(0, 3), breadth_first=st.booleans())
def test_a_preference_or_a_seed_changes_only_the_order(
    case: tuple[list[Node], PlacementQuery], order: list[int], seed: int | None, breadth_first: bool
) -> None:
    forest, query = case
    model, preferred = grow(forest), [uid(number) for number in order]
    usual = model.allocation_candidates(query)
    way = {"breadth_first": breadth_first, "preferred": preferred}
    other = model.allocation_candidates(query, seed=seed, **way)  # type: ignore[arg-type]  # mixed values
    assert set(as_answers(other)) == set(as_answers(usual))
    assert len(other.allocation_requests) == len(usual.allocation_requests)
    assert model.allocation_candidates(query, seed=seed, **way) == other  # type: ignore[arg-type]  # mixed values


def test_candidates_come_in_the_order_of_the_policys_weighers() -> None:
    fleet = Fleet()
    add_hosts(fleet, [Host(host=f"n{i}", vcpus_total=8, total_usable_ram_mb=ram) for i, ram in enumerate((10, 30, 20))])
    engine = Engine(fleet, Policy.nova_default())
    ranked = engine.rank(Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1))))
    query = PlacementQuery(groups=(RequestGroup(resources=(("VCPU", 1),)),), limit=2)
    preferred = [fleet.uuid(row) for row in ranked.rows.tolist()]
    found = PlacementModel(fleet).allocation_candidates(query, preferred=preferred)
    assert [fleet.name(fleet.row_of_uuid(uuid)) for uuid in found.provider_summaries] == ["n1", "n2"]


def test_different_seeds_spread_a_limit_over_the_fleet() -> None:
    fleet = Fleet()
    add_hosts(fleet, [Host(host=f"n{i}", vcpus_total=8, total_usable_ram_mb=10) for i in range(50)])
    query = PlacementQuery(groups=(RequestGroup(resources=(("VCPU", 1),)),), limit=1)
    model = PlacementModel(fleet)
    first = {uuid for seed in range(20) for uuid in model.allocation_candidates(query, seed=seed).provider_summaries}
    assert len(first) > 10


def test_many_groups_on_one_device_too_few_are_given_up_at_once() -> None:
    inventory = {"CUSTOM_DEVICE": Inventory(total=1)}
    forest = [Node(0, None, frozenset(), frozenset(), {"VCPU": Inventory(total=8)})]
    forest += [Node(number, 0, frozenset(), frozenset(), inventory) for number in range(1, 12)]
    groups = [RequestGroup(suffix=str(i), resources=(("CUSTOM_DEVICE", 1),)) for i in range(12)]
    model = grow(forest)
    assert not model.allocation_candidates(
        PlacementQuery(groups=tuple(groups), group_policy="none")
    ).allocation_requests
    fewer = PlacementQuery(groups=tuple(groups[:11]), group_policy="isolate", limit=3)
    assert len(model.allocation_candidates(fewer).allocation_requests) == 3


def test_any_number_of_groups_is_searched() -> None:
    forest = [Node(n, 0 if n else None, frozenset(), frozenset(), {"VCPU": Inventory(total=2000)}) for n in range(2)]
    groups = [RequestGroup(suffix=str(i), resources=(("VCPU", 1),)) for i in range(3000)]
    query = PlacementQuery(groups=tuple(groups), group_policy="none", limit=3)
    found = grow(forest).allocation_candidates(query)
    given = [
        {uuid: part["resources"]["VCPU"] for uuid, part in r["allocations"].items()} for r in found.allocation_requests
    ]
    assert given == [{uid(0): 2000, uid(1): 1000}] * 3


@pytest.mark.parametrize("amount", [2**31, 2**70])
def test_more_than_anybody_can_have_is_nobodys(amount: int) -> None:
    odd = Inventory(total=4, step_size=2)
    model = grow([Node(n, 0 if n else None, frozenset(), frozenset(), {"VCPU": odd}) for n in range(2)])
    for suffix in ("", "1"):
        group = RequestGroup(suffix=suffix, resources=(("VCPU", amount),))
        assert not model.allocation_candidates(PlacementQuery(groups=(group,))).allocation_requests
        assert model.providers(group=group) == []


@pytest.mark.parametrize("amount", [0, -1, True, 1.5])
def test_less_than_one_of_a_class_is_refused(amount: int) -> None:
    model = grow([Node(0, None, frozenset(), frozenset(), {"VCPU": Inventory(total=4)})])
    with pytest.raises(BadRequest, match="amount >= 1"):
        model.allocation_candidates(PlacementQuery(groups=(RequestGroup(resources=(("VCPU", amount),)),)))


def test_an_unknown_name_is_refused_unless_an_earlier_group_ends_the_request() -> None:
    model = grow([Node(0, None, frozenset(), frozenset(), {"VCPU": Inventory(total=2)})])
    wrong = RequestGroup(suffix="2", resources=(("CUSTOM_NOBODY", 1),))
    fine, hopeless = (RequestGroup(suffix="1", resources=(("VCPU", amount),)) for amount in (1, 5))
    with pytest.raises(BadRequest, match="No such resource class CUSTOM_NOBODY"):
        model.allocation_candidates(PlacementQuery(groups=(fine, wrong), group_policy="none"))
    assert not model.allocation_candidates(PlacementQuery(groups=(hopeless, wrong))).allocation_requests
    with pytest.raises(BadRequest, match="CUSTOM_NOBODY"):
        model.allocation_candidates(PlacementQuery(groups=(fine,), root_required=frozenset({"CUSTOM_NOBODY"})))
