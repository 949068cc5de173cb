"""Whether a tree has an allocation candidate, told of many trees at once by counting, is what trying every provider
tells of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from hostler import Fleet, Inventory
from hostler.placement.candidates import search
from hostler.placement.candidates.for_engine import TreeQuery
from hostler.placement.candidates.independent import independent
from hostler.placement.candidates.search import CandidateSearch
from hostler.placement.candidates.slots import prepare
from hostler.placement.gpu.providers import GPU_MILLI
from hostler.placement.request.placement_query import PlacementQuery, RequestGroup

from .test_tree_candidates import Forest, Provider, forests, groups, load, queries

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]
quick = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def equal_groups(draw: st.DrawFn) -> PlacementQuery:
    """A group without suffix, or none, and one to four equal ones with a suffix."""
    plain = [draw(groups("", 2))] if draw(st.booleans()) else []
    one = draw(groups("1", 2))
    equal = [replace(one, suffix=str(number)) for number in range(1, 1 + draw(st.integers(1, 4)))]
    return PlacementQuery(
        groups=(*plain, *equal)[:4], group_policy=draw(st.sampled_from([None, "isolate"])), root_required=frozenset()
    )


def having(fleet: Fleet, query: PlacementQuery, rows: list[int]) -> list[bool]:
    return [bool(each) for each in TreeQuery(fleet, query).having(np.array(rows, np.int32))]


def check(forest: Forest, query: PlacementQuery) -> None:
    fleet = load(forest)
    expected = [each.parent is None and bool(forest.candidates(each, query)) for each in forest.all.values()]
    rows = [fleet.row(name) for name in forest.all]
    counted = independent(prepare(fleet, query)) is not None
    event(f"{'counted' if counted else 'searched'}, {'some' if any(expected) else 'none'}")
    assert having(fleet, query, rows) == expected
    assert having(fleet, query, rows[::-1]) == expected[::-1]
    assert [having(fleet, query, [row])[0] for row in rows] == expected
    asked = TreeQuery(fleet, query)
    for row in rows:
        found = [asked_for(asked, way) for way in asked._searched(row)]
        assert list(asked.candidates(row)) == found


def asked_for(asked: TreeQuery, way: tuple[int, ...]) -> dict[int, dict[int, int]]:
    """What a choice of a provider for each slot takes of each of them."""
    taken: dict[int, dict[int, int]] = {}
    for row, slot in zip(way, asked._ready().slots, strict=True):
        for index, amount in slot.amounts:
            mine = taken.setdefault(row, {})
            mine[index] = mine.get(index, 0) + amount
    return taken


@quick
@given(forests(), equal_groups())
def test_of_equal_groups(forest: Forest, query: PlacementQuery) -> None:
    check(forest, query)


@quick
@given(forests(), queries())
def test_of_any_groups(forest: Forest, query: PlacementQuery) -> None:
    check(forest, query)


def gpu_hosts(free: list[list[int]]) -> Fleet:
    """Hosts of four CPUs with GPUs of which so many thousandths are left."""
    providers = []
    for number, gpus in enumerate(free):
        host = Provider(f"h{number}", f"{number:08x}-0000-4000-8000-000000000000", None, *_bare({"VCPU": 4}))
        providers.append(host)
        for at, milli in enumerate(gpus):
            uuid = f"{number:08x}-0000-4000-8000-{at + 1:012x}"
            providers.append(Provider(f"h{number}-{at}", uuid, host.name, *_bare({GPU_MILLI: 1000}, milli)))
    return load(Forest(providers))


def _bare(
    totals: dict[str, int], left: int | None = None
) -> tuple[frozenset[str], frozenset[str], dict[str, Inventory]]:
    made = {
        name: Inventory(total=total, reserved=0 if left is None else total - left, max_unit=total)
        for name, total in totals.items()
    }
    return frozenset(), frozenset(), made


def gpus(count: int, milli: int, *, isolate: bool = True) -> PlacementQuery:
    own = [RequestGroup(suffix=f"_{at}", resources=((GPU_MILLI, milli),)) for at in range(count)]
    plain = RequestGroup(suffix="", resources=(("VCPU", 2),))
    return PlacementQuery(groups=(plain, *own), group_policy="isolate" if isolate else None)


def test_guests_with_gpus_are_counted_and_no_tree_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = gpu_hosts([[1000, 1000], [1000, 400], [400, 400, 400], [], [250]])
    hosts = [fleet.row(f"h{number}") for number in range(5)]
    monkeypatch.setattr(search, "TreeSearch", None)
    assert having(fleet, gpus(1, 500), hosts) == [True, True, False, False, False]
    assert having(fleet, gpus(2, 400), hosts) == [True, True, True, False, False]
    assert having(fleet, gpus(2, 1000), hosts) == [True, False, False, False, False]
    assert having(fleet, gpus(4, 500, isolate=False), hosts) == [True, False, False, False, False]
    assert having(fleet, gpus(0, 0), hosts) == [True] * 5


def test_the_same_of_some_trees_as_of_all() -> None:
    fleet = gpu_hosts([[1000] * (number % 4) for number in range(24)])
    query = prepare(fleet, gpus(2, 600))
    trees = CandidateSearch(fleet, query, independent=independent(query))
    everything = trees.having(np.arange(24))
    assert everything.tolist() == [number % 4 >= 2 for number in range(24)]
    some = np.array([1, 2, 3, 7, 8, 23])
    assert trees.having(some).tolist() == everything[some].tolist()
    assert trees.having(np.zeros(0, np.int64)).tolist() == []
