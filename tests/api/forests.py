"""Small random forests of providers, and candidate queries on them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from hostler.placement.api import commands as c
from hostler.placement.api.placement_model import PlacementModel
from hostler.placement.fleet.fleet import Fleet, Inventory
from hostler.placement.request.placement_query import PlacementQuery, RequestGroup

CLASSES = ("VCPU", "MEMORY_MB", "CUSTOM_DEVICE")
SHARES = "MISC_SHARES_VIA_AGGREGATE"
TRAITS = ("CUSTOM_A", "CUSTOM_B", "CUSTOM_C")
AGGREGATES = tuple(str(uuid.UUID(int=900 + i)) for i in range(3))
NOBODY = str(uuid.UUID(int=999))


def uid(number: int) -> str:
    return str(uuid.UUID(int=0xABC000 + number))


@dataclass
class Node:
    """A provider: ``parent`` is a smaller number or None; ``used`` by class."""

    number: int
    parent: int | None
    traits: frozenset[str]
    aggregates: frozenset[str]
    inventories: dict[str, Inventory]
    used: dict[str, int] = field(default_factory=dict)

    @property
    def uuid(self) -> str:
        return uid(self.number)


def grow(forest: list[Node]) -> PlacementModel:
    """The forest as a fleet, made by commands."""
    model = PlacementModel(Fleet())
    for name in TRAITS:
        model.apply(c.CreateTrait(name=name, now=1.0))
    model.apply(c.CreateResourceClass(name="CUSTOM_DEVICE", now=1.0))
    for node in forest:
        parent = None if node.parent is None else uid(node.parent)
        model.apply(c.CreateProvider(uuid=node.uuid, name=f"p{node.number}", parent=parent, now=1.0))
        put = c.SetInventories(provider=node.uuid, generation=0, inventories=node.inventories, now=1.0)
        model.apply(put)
        model.apply(c.SetTraits(provider=node.uuid, generation=1, traits=tuple(node.traits), now=1.0))
        model.apply(c.SetAggregates(provider=node.uuid, aggregates=tuple(node.aggregates), now=1.0))
    _use(model, forest)
    return model


def _use(model: PlacementModel, forest: list[Node]) -> None:
    """Usage, past all rules of what fits: inventories are opened for it and closed again."""
    for node in forest:
        if not node.used:
            continue
        model.apply(_inventories(model, node, {name: Inventory(total=1000) for name in node.inventories}))
        one = c.ConsumerAllocations(allocations={node.uuid: node.used}, project_id="p", user_id="u")
        model.apply(c.SetAllocations(consumers={uid(5000 + node.number): one}, now=1.0))
        model.apply(_inventories(model, node, node.inventories))


def _inventories(model: PlacementModel, node: Node, inventories: dict[str, Inventory]) -> c.SetInventories:
    generation = model.provider(node.uuid).generation
    return c.SetInventories(provider=node.uuid, generation=generation, inventories=inventories, now=1.0)


some_inventory = st.builds(
    Inventory,
    total=st.integers(2, 8),
    reserved=st.integers(0, 1),
    min_unit=st.sampled_from([1, 1, 1, 1, 1, 1, 2]),
    max_unit=st.sampled_from([8, 8, 4, 2, 1]),
    step_size=st.sampled_from([1, 1, 1, 1, 1, 1, 2]),
    allocation_ratio=st.sampled_from([1.0, 1.0, 1.5, 2.0]),
)


KINDS = (CLASSES, CLASSES, CLASSES[:2], CLASSES[2:], ())
"""Which classes providers have."""


def _inventories_of(classes: tuple[str, ...]) -> st.SearchStrategy[dict[str, Inventory]]:
    return st.fixed_dictionaries(dict.fromkeys(classes, some_inventory))


@st.composite
def forests(draw: st.DrawFn, most: int = 6) -> list[Node]:
    nodes = []
    for number in range(draw(st.integers(1, most))):
        parent = draw(st.integers(0, number - 1)) if number and draw(st.integers(0, 2)) else None
        traits = draw(st.frozensets(st.sampled_from(TRAITS), min_size=1, max_size=3))
        traits |= {SHARES} if draw(st.integers(0, 3)) == 0 else set()
        aggregates = draw(st.frozensets(st.sampled_from(AGGREGATES), max_size=2))
        inventories = draw(_inventories_of(draw(st.sampled_from(KINDS))))
        used = {name: draw(st.integers(1, 3)) for name in sorted(inventories) if draw(st.integers(0, 5)) == 0}
        nodes.append(Node(number, parent, traits, aggregates, inventories, used))
    return nodes


def _amounts(least: int) -> st.SearchStrategy[tuple[tuple[str, int], ...]]:
    amounts = st.dictionaries(st.sampled_from(CLASSES), st.sampled_from([1, 1, 2]), min_size=least, max_size=2)
    return amounts.map(lambda found: tuple(sorted(found.items())))


SUFFIXES = ((), ("1",), ("1",), ("1", "2"), ("2", "1"), ("1", "2", "_X"))


@st.composite
def groups(draw: st.DrawFn, suffix: str, count: int, least: int = 1) -> RequestGroup:
    rare: Any = st.integers(0, 7)
    traits, aggregates = st.sampled_from(TRAITS), st.sampled_from((*AGGREGATES, NOBODY))
    some = st.frozensets(traits, min_size=1, max_size=2)
    required = draw(some) if draw(rare) == 7 else frozenset()
    forbidden = draw(st.frozensets(traits, max_size=1)) if draw(rare) == 7 else frozenset()
    return RequestGroup(
        suffix=suffix,
        resources=draw(_amounts(least)),
        required=required,
        forbidden=forbidden - required,
        any_of=(draw(some),) if draw(rare) == 7 else (),
        member_of=(draw(st.frozensets(aggregates, min_size=1, max_size=2)),) if draw(rare) == 7 else (),
        forbidden_aggregates=draw(st.frozensets(aggregates, max_size=1)) if draw(rare) == 7 else frozenset(),
        in_tree=uid(draw(st.integers(0, count))) if draw(st.integers(0, 11)) == 11 else None,
    )


@st.composite
def queries(draw: st.DrawFn, count: int) -> PlacementQuery:
    """A query that passes the checks of its grammar, on a forest of ``count`` providers."""
    suffixes = draw(st.sampled_from(SUFFIXES))
    found = [draw(groups(suffix, count, 0 if draw(st.integers(0, 7)) == 7 else 1)) for suffix in suffixes]
    if not any(group.resources for group in found) or draw(st.booleans()):
        found.insert(draw(st.integers(0, len(found))), draw(groups("", count)))
    empty = [group.suffix for group in found if not group.resources]
    subtrees = [tuple(empty)] if empty else []
    if suffixes and draw(st.integers(0, 2)) == 0:
        subtrees.append(tuple(draw(st.lists(st.sampled_from(suffixes), min_size=1, unique=True))))
    rare = draw(st.integers(0, 7))
    return PlacementQuery(
        groups=tuple(found),
        group_policy=draw(st.sampled_from(("none", "isolate"))) if suffixes else None,
        same_subtree=tuple(subtrees),
        root_required=draw(st.frozensets(st.sampled_from(TRAITS), max_size=1)) if rare == 0 else frozenset(),
        root_forbidden=draw(st.frozensets(st.sampled_from(TRAITS), max_size=1)) if rare == 1 else frozenset(),
    )
