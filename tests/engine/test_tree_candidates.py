"""Allocation candidates of a tree are those that one finds by trying every provider for everything that is asked for,
on small random forests with sharing providers. The rules are Placement's."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import floor

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from hostler import Aggregate, Fleet, Inventory
from hostler.placement.candidates.for_engine import TreeQuery
from hostler.placement.request.placement_query import PlacementQuery, RequestGroup

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

CLASSES = "CUSTOM_A", "CUSTOM_B", "CUSTOM_C"
TRAITS = "CUSTOM_GOLD", "CUSTOM_SSD"
SHARES = "MISC_SHARES_VIA_AGGREGATE"
AGGREGATES = tuple(Aggregate(uuid=str(uuid.UUID(int=0xA0 + i)), name=f"a{i}", metadata={}) for i in range(3))
UUIDS = tuple(aggregate.uuid for aggregate in AGGREGATES)

Allocation = frozenset[tuple[str, str, int]]
"""(provider, resource class, amount)."""


@dataclass(frozen=True)
class Provider:
    """A provider as one writes it down. ``parent`` is None for a root."""

    name: str
    uuid: str
    parent: str | None
    traits: frozenset[str]
    aggregates: frozenset[str]
    inventories: dict[str, Inventory]

    def gives(self, name: str, amount: int) -> bool:
        """Placement's capacity and unit rules."""
        has = self.inventories.get(name)
        return has is not None and self.holds(name, amount) and amount >= has.min_unit and amount % has.step_size == 0

    def holds(self, name: str, amount: int) -> bool:
        """What is asked of the sum over groups."""
        has = self.inventories[name]
        return amount <= floor((has.total - has.reserved) * has.allocation_ratio) and amount <= has.max_unit


class Forest:
    """All providers, and the obvious way to find candidates in one tree."""

    def __init__(self, providers: list[Provider]) -> None:
        self.all = {each.name: each for each in providers}

    def root(self, provider: Provider) -> Provider:
        return provider if provider.parent is None else self.root(self.all[provider.parent])

    def tree(self, root: Provider) -> list[Provider]:
        return [each for each in self.all.values() if self.root(each) is root]

    def serving(self, root: Provider) -> list[Provider]:
        """Sharing providers of other trees that have the root as an anchor."""
        mine = frozenset().union(*(each.aggregates for each in self.tree(root)))
        others = (each for each in self.all.values() if self.root(each) is not root)
        return [each for each in others if SHARES in each.traits and each.aggregates & mine]

    def candidates(self, root: Provider, query: PlacementQuery) -> set[Allocation]:
        """Every choice of a provider for each class of the unsuffixed group, and for each suffixed group."""
        if not query.root_required <= root.traits or query.root_forbidden & root.traits:
            return set()
        plain, granular = query.unsuffixed, [group for group in query.groups if group.suffix]
        able = [*self.tree(root), *self.serving(root)]
        slots = len(plain.resources) + len(granular)
        found = set()
        for choice in itertools.product(able, repeat=slots):
            used, own = choice[: len(plain.resources)], choice[len(plain.resources) :]
            if self._plain_passes(root, plain, used) and all(
                self._granular_passes(root, group, each) for group, each in zip(granular, own, strict=True)
            ):
                if query.group_policy == "isolate" and len(set(map(id, own))) < len(own):
                    continue
                found.add(self._merged(plain, used, granular, own))
        return {each for each in found if all(self.all[name].holds(which, n) for name, which, n in each)}

    def _plain_passes(self, root: Provider, group: RequestGroup, used: tuple[Provider, ...]) -> bool:
        if not all(each.gives(*wish) for each, wish in zip(used, group.resources, strict=True)):
            return False
        together = frozenset().union(*(each.traits for each in used))
        if not wishes_pass(group, together):
            return False
        for each in used:
            shared = self.root(each) is not root
            if shared and group.in_tree is not None:
                return False
            members = [each.aggregates] if shared else [each.aggregates, root.aggregates]
            if not any(all(term & mine for term in group.member_of) for mine in members):
                return False
            if group.forbidden_aggregates & (each.aggregates | root.aggregates):
                return False
        return self._names(root, group)

    def _granular_passes(self, root: Provider, group: RequestGroup, each: Provider) -> bool:
        return (
            all(each.gives(*wish) for wish in group.resources)
            and wishes_pass(group, each.traits)
            and all(term & each.aggregates for term in group.member_of)
            and not group.forbidden_aggregates & each.aggregates
            and self._names(self.root(each), group)
        )

    def _names(self, root: Provider, group: RequestGroup) -> bool:
        return group.in_tree is None or group.in_tree in {each.uuid for each in self.tree(root)}

    def _merged(
        self,
        plain: RequestGroup,
        used: tuple[Provider, ...],
        granular: list[RequestGroup],
        own: tuple[Provider, ...],
    ) -> Allocation:
        sums: dict[tuple[str, str], int] = {}
        wishes = [(each, *wish) for each, wish in zip(used, plain.resources, strict=True)]
        wishes += [(each, *wish) for group, each in zip(granular, own, strict=True) for wish in group.resources]
        for each, which, amount in wishes:
            sums[each.name, which] = sums.get((each.name, which), 0) + amount
        return frozenset((name, which, amount) for (name, which), amount in sums.items())


def wishes_pass(group: RequestGroup, traits: frozenset[str]) -> bool:
    wanted = group.required <= traits and all(choice & traits for choice in group.any_of)
    return wanted and not group.forbidden & traits


# random forests and queries

subsets = st.sampled_from([frozenset(), frozenset(), *(frozenset({each}) for each in UUIDS[:2]), frozenset(UUIDS)])
traits = st.sampled_from([frozenset[str](), frozenset(TRAITS[:1]), frozenset(TRAITS[1:]), frozenset(TRAITS)])
inventories = st.dictionaries(
    st.sampled_from(CLASSES),
    st.builds(
        Inventory,
        total=st.integers(2, 6),
        reserved=st.sampled_from([0, 0, 0, 1]),
        min_unit=st.sampled_from([1, 1, 1, 1, 2]),
        max_unit=st.sampled_from([8, 8, 8, 8, 2]),
        step_size=st.sampled_from([1, 1, 1, 1, 2]),
        allocation_ratio=st.sampled_from([1.0, 1.0, 1.5]),
    ),
    min_size=1,
    max_size=3,
)


@st.composite
def forests(draw: st.DrawFn) -> Forest:
    """One or two trees, and up to two sharing providers, which may be deep in a tree."""
    providers: list[Provider] = []
    for number in range(draw(st.integers(1, 6))):
        above = [None, *(each.name for each in providers)]
        shares = draw(st.sampled_from([False, False, True])) and number > 0
        parent = draw(st.sampled_from(above)) if number > 0 else None
        providers.append(
            Provider(
                name=f"p{number}",
                uuid=str(uuid.UUID(int=0xB0 + number)),
                parent=parent,
                traits=draw(traits) | ({SHARES} if shares else set()),
                aggregates=draw(subsets),
                inventories=draw(inventories),
            )
        )
    return Forest(providers)


def load(forest: Forest) -> Fleet:
    fleet = Fleet()
    known = dict(zip(UUIDS, fleet._aggregate_ids(AGGREGATES), strict=True))
    assert len(known) == len(AGGREGATES)
    for each in forest.all.values():
        mine = [aggregate for aggregate in AGGREGATES if aggregate.uuid in each.aggregates]
        fleet.add_provider(each.name, uuid=each.uuid, parent=each.parent, traits=each.traits, aggregates=mine)
        fleet.set_inventory(each.name, each.inventories)
    return fleet


resources = st.dictionaries(st.sampled_from(CLASSES), st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=3).map(
    lambda wishes: tuple(sorted(wishes.items()))
)
seldom = st.integers(0, 7).map(lambda number: frozenset(TRAITS[:1]) if number == 7 else frozenset[str]())
terms = {6: (frozenset(UUIDS[:1]),), 7: (frozenset(UUIDS[:2]), frozenset(UUIDS[2:]))}
member_of = st.integers(0, 7).map(lambda number: terms.get(number, ()))
in_trees = st.integers(0, 9).map({8: str(uuid.UUID(int=0xB0)), 9: str(uuid.UUID(int=0xB1))}.get)


@st.composite
def groups(draw: st.DrawFn, suffix: str, most: int) -> RequestGroup:
    required, forbidden = draw(seldom), draw(seldom)
    return RequestGroup(
        suffix=suffix,
        resources=draw(resources)[:most],
        required=required,
        forbidden=forbidden - required,
        any_of=draw(st.sampled_from([(), (), (), (), (), (frozenset(TRAITS),)])),
        member_of=draw(member_of),
        forbidden_aggregates=frozenset(UUIDS[1:2]) if draw(st.integers(0, 7)) == 7 else frozenset(),
        in_tree=draw(in_trees),
    )


@st.composite
def queries(draw: st.DrawFn) -> PlacementQuery:
    plain: list[RequestGroup] = [draw(groups("", 3))] if draw(st.integers(0, 2)) else []
    least = 0 if plain else 1
    granular = [draw(groups(str(number), 2)) for number in range(1, 1 + draw(st.sampled_from([least, 1, 1, 2, 3])))]
    if granular and draw(st.integers(0, 2)) == 0:
        granular.append(replace(granular[0], suffix="9"))
    return PlacementQuery(
        groups=(*plain, *granular)[:4],
        root_required=draw(seldom),
        group_policy=draw(st.sampled_from([None, "none", "isolate", "isolate"])),
    )


def found_in(fleet: Fleet, root: int, query: PlacementQuery) -> Iterator[Allocation]:
    for amounts in TreeQuery(fleet, query).candidates(root):
        yield frozenset(
            (fleet.name(row), fleet.resource_classes[which], amount)
            for row, each in amounts.items()
            for which, amount in each.items()
        )


quick = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(forests(), queries())
def test_the_candidates_of_a_tree_are_all_assignments_that_keep_the_rules(
    forest: Forest, query: PlacementQuery
) -> None:
    fleet = load(forest)
    for root in (each for each in forest.all.values() if each.parent is None):
        row, expected = fleet.row(root.name), forest.candidates(root, query)
        event(f"{min(len(expected), 3)} candidates or more")
        assert set(found_in(fleet, row, query)) == expected
        first = TreeQuery(fleet, query).first(row)
        assert (first is not None) == bool(expected)


@quick
@given(forests(), queries(), queries())
def test_a_fallback_is_asked_after_the_query(forest: Forest, query: PlacementQuery, other: PlacementQuery) -> None:
    fleet = load(forest)
    both = PlacementQuery(
        groups=query.groups, root_required=query.root_required, group_policy=query.group_policy, fallback=other
    )
    for row in (fleet.row(each.name) for each in forest.all.values() if each.parent is None):
        assert [*found_in(fleet, row, both)] == [*found_in(fleet, row, query), *found_in(fleet, row, other)]


@quick
@given(forests(), queries())
def test_candidates_come_in_the_same_order_each_time(forest: Forest, query: PlacementQuery) -> None:
    fleet, again = load(forest), load(forest)
    for row in (fleet.row(each.name) for each in forest.all.values() if each.parent is None):
        assert [*found_in(fleet, row, query)] == [*found_in(again, row, query)]
