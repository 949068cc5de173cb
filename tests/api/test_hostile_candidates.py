"""Candidate queries made to be hard: wide trees, many groups, nothing to be found. They end, and soon."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler import Engine, Flavor, Fleet, Host, Request, RequestSpec, add_hosts
from hostler.placement.api import commands as c
from hostler.placement.api.errors import BadRequest
from hostler.placement.api.placement_model import PlacementModel
from hostler.placement.candidates import for_engine as engine_candidates
from hostler.placement.candidates import tree_search as tree_candidates
from hostler.placement.candidates.pruning import matched
from hostler.placement.candidates.search import CandidateSearch
from hostler.placement.candidates.slots import prepare
from hostler.placement.candidates.tree_search import Effort
from hostler.placement.fleet.fleet import Inventory
from hostler.placement.request.placement_query import PlacementQuery, RequestGroup

from .candidates_oracle import answers
from .forests import CLASSES, TRAITS, Node, grow, uid
from .test_candidates import as_answers

VCPU, MEMORY_MB, DEVICE = CLASSES
EIGHT = 8
A, BOTH = frozenset({"CUSTOM_A"}), frozenset({"CUSTOM_A", "CUSTOM_B"})


def tree(devices: list[tuple[dict[str, int], str]], *, cells: int = 0) -> list[Node]:
    """A root, with cells below it, and devices below these in turn: what each has, and its traits (letters)."""
    nodes = [Node(0, None, frozenset(), frozenset(), {})]
    nodes += [Node(1 + cell, 0, frozenset(), frozenset(), {}) for cell in range(cells)]
    for place, (amounts, letters) in enumerate(devices):
        inventories = {name: Inventory(total=total) for name, total in amounts.items()}
        traits = frozenset(f"CUSTOM_{letter}" for letter in letters)
        nodes.append(Node(len(nodes), 1 + place % cells if cells else 0, traits, frozenset(), inventories))
    return nodes


def ask(*groups: RequestGroup, policy: str = "none", **more: Any) -> PlacementQuery:
    return PlacementQuery(groups=groups, group_policy=policy, limit=1, **more)


def group(suffix: int, amounts: dict[str, int], letters: str = "") -> RequestGroup:
    required = frozenset(f"CUSTOM_{letter}" for letter in letters)
    return RequestGroup(suffix=f"_{suffix}", resources=tuple(amounts.items()), required=required)


def steps(model: PlacementModel, query: PlacementQuery, allowed: int = 1_000_000) -> tuple[bool, int]:
    """Whether there is a candidate, and the steps beyond the free ones that it took to know."""
    effort = Effort(allowed)
    search = CandidateSearch(model.fleet, prepare(model.fleet, query), effort=effort)
    found = next(search.ways(expected=query.limit), None) is not None
    assert effort.left is not None
    assert not effort.spent
    return found, allowed - effort.left


PFS = [({DEVICE: EIGHT}, "A" if place < 7 else "AB") for place in range(EIGHT)]

UNSATISFIABLE = {
    "the last two groups need the same provider, apart": (
        tree(PFS),
        ask(*(group(n, {DEVICE: 1}, "B" if n > 5 else "A") for n in range(8)), policy="isolate"),
    ),
    "nine groups apart on eight providers": (
        tree(PFS),
        ask(*(group(n, {DEVICE: 1}) for n in range(9)), policy="isolate"),
    ),
    "the last group's provider is wanted whole twice": (
        tree(PFS),
        ask(*(group(n, {DEVICE: 1}) for n in range(6)), *(group(n, {DEVICE: 8}, "B") for n in (6, 7))),
    ),
    "one device more than there are": (
        tree([({DEVICE: 7}, "A")] * 8),
        ask(*(group(n, {DEVICE: 4}) for n in range(9))),
    ),
    "two groups in one subtree whose providers are in different ones": (
        tree([({DEVICE: 1}, "A"), ({DEVICE: 1}, "B")] * 4 + [({MEMORY_MB: 8}, "")] * 8, cells=2),
        ask(
            *(group(n, {MEMORY_MB: 1}) for n in range(6)),
            *(group(6, {DEVICE: 1}, "A"), group(7, {DEVICE: 1}, "B"), RequestGroup(suffix="_8", required=A)),
            same_subtree=(("_6", "_7", "_8"),),
        ),
    ),
    "two kinds of things that no provider has enough of together": (
        tree([({VCPU: 8, MEMORY_MB: 2}, ""), ({VCPU: 2, MEMORY_MB: 8}, "")] * 8),
        ask(*(group(n, {VCPU: 2, MEMORY_MB: 2}) for n in range(17))),
    ),
    "a trait that comes with too little": (
        tree([({VCPU: 8, DEVICE: 1}, "A"), *[({VCPU: 8, DEVICE: 1}, "B")] * 7]),
        ask(*(group(n, {VCPU: 1}) for n in range(7)), group(7, {VCPU: 2, DEVICE: 1}, "A"), group(8, {VCPU: 7}, "A")),
    ),
}


@pytest.mark.parametrize("name", UNSATISFIABLE)
def test_that_there_is_nothing_is_proved_in_few_steps(name: str) -> None:
    forest, query = UNSATISFIABLE[name]
    found, taken = steps(grow(forest), query)
    assert not found
    assert taken <= 5_000


@pytest.mark.parametrize("policy", ["none", "isolate"])
def test_what_fits_only_one_way_is_found(policy: str) -> None:
    """Each group has one provider fewer to go to than the one before; the first tries are all wrong."""
    devices = [({DEVICE: 1 if policy == "none" else 8, VCPU: place + 1}, "") for place in range(12)]
    query = ask(*(group(n, {DEVICE: 1, VCPU: n + 1}) for n in range(12)), policy=policy)
    found, taken = steps(grow(tree(devices)), query)
    assert found
    assert taken <= 20_000


def packing(providers: int) -> tuple[PlacementModel, PlacementQuery]:
    """Bins and items in two dimensions that fill nearly all there is in both: what no bound here sees."""
    devices = [({VCPU: 100, MEMORY_MB: 100 + place}, "") for place in range(providers)]
    sizes = [(17 + 29 * n % 31, 47 - 29 * n % 31) for n in range(3 * providers)]
    return grow(tree(devices)), ask(*(group(n, {VCPU: v, MEMORY_MB: m}) for n, (v, m) in enumerate(sizes)))


def test_a_search_that_finds_nothing_in_its_steps_is_refused_and_says_so() -> None:
    model, query = packing(6)
    with pytest.raises(BadRequest, match="too many combinations"):
        model.allocation_candidates(query, steps=2_000)


def test_a_search_that_has_found_something_when_its_steps_are_spent_answers_with_that() -> None:
    model = grow(tree(PFS))
    query = PlacementQuery(groups=tuple(group(n, {DEVICE: 1}) for n in range(8)), group_policy="none")
    few = as_answers(model.allocation_candidates(query, steps=1_000))
    more = as_answers(model.allocation_candidates(query, steps=2_000))
    assert 0 < len(few) < len(more) < 8**8
    assert more[: len(few)] == few


def test_a_tree_that_takes_all_steps_does_not_hide_the_next_one() -> None:
    model, query = packing(6)
    easy = [Node(100, None, frozenset(), frozenset(), {name: Inventory(total=10_000) for name in (VCPU, MEMORY_MB)})]
    easy.append(Node(101, 100, frozenset(), frozenset(), {}))
    for node in easy:
        _add(model, node)
    (request,) = model.allocation_candidates(query, steps=2_000).allocation_requests
    assert list(request["allocations"]) == [easy[0].uuid]


def _add(model: PlacementModel, node: Node) -> None:
    parent = None if node.parent is None else uid(node.parent)
    model.apply(c.CreateProvider(uuid=node.uuid, name=f"p{node.number}", parent=parent, now=1.0))
    model.apply(c.SetInventories(provider=node.uuid, generation=0, inventories=node.inventories, now=1.0))


@st.composite
def tight(draw: st.DrawFn) -> tuple[list[Node], PlacementQuery]:
    """One tree of small devices that are much alike, and about as much asked for as there is."""
    some = st.sampled_from([{DEVICE: 1}, {DEVICE: 2}, {VCPU: 2}, {VCPU: 1, DEVICE: 1}, {VCPU: 2, DEVICE: 2}])
    devices = draw(st.lists(st.tuples(some, st.sampled_from(["A", "A", "B", "AB"])), min_size=2, max_size=5))
    forest = tree(devices, cells=draw(st.sampled_from([0, 0, 2])))
    wishes = st.sampled_from([{DEVICE: 1}, {DEVICE: 2}, {VCPU: 1}, {VCPU: 1, DEVICE: 1}])
    asked = draw(st.lists(st.tuples(wishes, st.sampled_from(["", "", "A", "B"])), min_size=2, max_size=5))
    groups = [group(n, amounts, letters) for n, (amounts, letters) in enumerate(asked)]
    if draw(st.integers(0, 3)) == 0:
        unsuffixed = RequestGroup(
            resources=((DEVICE, 1), (VCPU, 1)), required=draw(st.sampled_from([frozenset(), BOTH]))
        )
        groups.insert(draw(st.integers(0, len(groups))), unsuffixed)
    suffixes = [one.suffix for one in groups if one.suffix]
    subtrees = draw(st.lists(st.lists(st.sampled_from(suffixes), min_size=2, unique=True).map(tuple), max_size=2))
    if draw(st.integers(0, 3)) == 0:
        groups.append(RequestGroup(suffix="_cell", required=frozenset({draw(st.sampled_from(TRAITS[:2]))})))
        subtrees.append(("_cell", suffixes[0]))
    policy = draw(st.sampled_from(["none", "isolate"]))
    return forest, PlacementQuery(groups=tuple(groups), group_policy=policy, same_subtree=tuple(subtrees))


@pytest.mark.property
@pytest.mark.parametrize("patience", [0, 3, 1_000])
@settings(max_examples=120, deadline=None)
@given(case=tight(), nested=st.booleans())
def test_no_candidate_is_lost_to_what_spares_steps(
    patience: int, case: tuple[list[Node], PlacementQuery], nested: bool
) -> None:
    forest, query = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_candidates, "PATIENCE", patience)
        found = as_answers(grow(forest).allocation_candidates(query, nested=nested))
    assert len(set(found)) == len(found)
    assert set(found) == answers(forest, query, nested=nested)


@given(
    able=st.dictionaries(st.integers(0, 4), st.lists(st.integers(0, 4), unique=True), max_size=5),
    room=st.lists(st.integers(0, 2), min_size=5, max_size=5),
)
def test_slots_are_matched_where_some_assignment_keeps_to_the_room(able: dict[int, list[int]], room: list[int]) -> None:
    def possible(slots: list[int], left: list[int]) -> bool:
        if not slots:
            return True
        return any(
            left[row] and possible(slots[1:], [n - (at == row) for at, n in enumerate(left)]) for row in able[slots[0]]
        )

    assert matched(able, dict(enumerate(room))) == possible(list(able), room)


def test_a_guest_that_makes_a_puzzle_of_its_host_does_not_hold_up_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    add_hosts(fleet, [Host(host="node", vcpus_total=8, total_usable_ram_mb=8_192)])
    for place in range(6):
        fleet.add_provider(f"bin-{place}", parent="node")
        inventories = {"CUSTOM_A": Inventory(total=100), "CUSTOM_B": Inventory(total=100 + place)}
        fleet.set_inventory(f"bin-{place}", inventories)
    wishes = {"group_policy": "none"}
    for n in range(18):
        wishes |= {f"resources{n + 1}:CUSTOM_A": str(17 + 29 * n % 31)}
        wishes |= {f"resources{n + 1}:CUSTOM_B": str(47 - 29 * n % 31)}
    request = Request(spec=RequestSpec(flavor=Flavor(name="puzzle", vcpus=1, memory_mb=512, extra_specs=wishes)))
    assert Engine(fleet).what_if().place(request).placed
    monkeypatch.setattr(engine_candidates, "TREE_STEPS", 1_000)
    decision = Engine(fleet).place(request)
    assert not decision.placed
    assert "without an allocation candidate" in str(decision.refusal)
