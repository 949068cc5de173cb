"""The search for the fewest hosts of an order, and what guests ask for by day, beside plain statements of both."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hostler.placement.types.request import Flavor, RequestSpec
from hostler.sim.questions.order_size import SeedSearch, daily_peaks
from hostler.sim.trace.workload import DAY_S, NEVER, STEP_S, Workload

from ..seeds import seeds


def searched(needs: list[float], wanted: list[int], allowed: int) -> tuple[int | None, int]:
    """What the search finds where each seed needs so many hosts, and how many seeds it played."""
    search, played = SeedSearch(wanted, allowed), 0
    while (hosts := search.candidate) is not None and hosts < 10**7:
        some = search.open(hosts)
        assert some, "each trial tells something"
        played += len(some)
        search.note(hosts, [(at, hosts >= needs[at]) for at in some])
    return search.enough, played


@pytest.mark.parametrize("seed", seeds(2, "orders"))
def test_the_search_finds_the_fewest_that_hold_in_enough_seeds(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        count, scale = rng.randint(1, 12), rng.choice([1, 3, 30, 3_000])
        needs: list[float] = [rng.randint(1, scale) for _ in range(count)]
        allowed = rng.randrange(count)
        wanted = [max(0, int(need * rng.uniform(0, 2))) for need in needs]
        assert searched(needs, wanted, allowed)[0] == sorted(needs, reverse=True)[allowed]


def test_a_search_that_begins_close_plays_few_runs() -> None:
    """Ten seeds of about 2,000 hosts, of which sums tell all but 3 %: not a run for each of 2 * log2(2,000) numbers."""
    rng = random.Random(1)
    needs: list[float] = [2_000 + rng.randint(-100, 100) for _ in range(10)]
    found, played = searched(needs, [int(need * 0.97) for need in needs], 1)
    assert found == sorted(needs, reverse=True)[1]
    assert played <= 5 * len(needs)


def test_a_seed_that_nothing_helps_ends_where_the_caller_does() -> None:
    assert searched([float("inf"), 5.0], [3, 3], 0)[0] is None
    assert searched([float("inf"), 5.0], [3, 3], 1)[0] == 5


@pytest.mark.parametrize("seed", seeds(2, "orders"))
def test_daily_peaks_are_the_most_that_is_there_at_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, end = 60, 4 * DAY_S
    arrival = np.sort(rng.integers(-1, end // STEP_S, count)) * STEP_S
    departure = np.where(rng.random(count) < 0.2, NEVER, arrival + rng.integers(1, 500, count) * STEP_S)
    specs = tuple(RequestSpec(flavor=Flavor(name=f"{n}", vcpus=n, memory_mb=n * 10)) for n in (1, 2, 5))
    workload = Workload(
        name="t",
        specs=specs,
        arrival_s=arrival,
        departure_s=departure,
        spec=rng.integers(0, 3, count),
        batch=np.arange(count),
        group=np.full(count, -1),
        standing=int(np.count_nonzero(arrival < 0)),
        start_s=0,
        end_s=end,
    )
    sizes = np.array([[1, 10], [2, 20], [5, 50]])
    found = daily_peaks(workload, sizes)
    for day in range(4):
        first = day * DAY_S if day else -STEP_S
        there = [
            sizes[workload.spec[(arrival <= at) & (departure > at)], 0].sum()
            for at in range(first, (day + 1) * DAY_S, STEP_S)
        ]
        assert found[0, day] == max(there)
        assert found[1, day] == 10 * max(there)
