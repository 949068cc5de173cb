"""Allocation candidates: against brute force as sets; their order, limits and strategies as properties."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.api.values import Candidates
from hostler.placement.query import PlacementQuery

from .candidates_oracle import Answer, Forest, answers, capacity
from .forests import Node, forests, grow, queries


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
