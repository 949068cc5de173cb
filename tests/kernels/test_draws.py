"""Random choices come from the seed alone: which words they take, and that no row of equal score is preferred."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from hostler.ext.constants import AFFINITY, ANTI_AFFINITY, FREE_RAM_MB, SOFT_AFFINITY, SOURCE_COLUMN, SOURCE_GROUP
from hostler.ext.draws import Draws, word

from .test_ranking import Fleet

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

RAM: dict[str, Any] = {"source": SOURCE_COLUMN, "column": FREE_RAM_MB, "multiplier": 1.0}
COMPANY: dict[str, Any] = {"source": SOURCE_GROUP, "group_factor": 1.0, "multiplier": 1.0}
SEEDS = range(1, 400)


def test_words_are_those_of_splitmix64() -> None:
    assert [word(0, number) for number in (1, 2, 3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_a_number_below_n_is_the_whole_part_of_word_times_n() -> None:
    draws = Draws(0)
    assert [draws.below(10), draws.below(1000), draws.below(2**40)] == [8, 431, 0x06C45D1880]


def test_the_one_that_comes_first_is_drawn_before_the_equals_are_shuffled() -> None:
    seed = 12
    first, swap = word(seed, 1) * 3 >> 64, word(seed, 2) * 2 >> 64
    order = [0, 1] if swap == 0 else [1, 0]
    order += [2, 3]
    order.insert(0, order.pop(first))
    assert Draws(seed).order(4, 2, 3) == order


@pytest.mark.parametrize(
    ("free_ram_mb", "arguments", "positions"),
    [
        ((3, 3, 1), {"shuffle": True}, {(0, 1, 2), (1, 0, 2)}),
        ((3, 3, 3), {"shuffle": True}, set(permutations(range(3)))),
        ((3, 2, 1), {"shuffle": True}, {(0, 1, 2)}),
        ((3, 2, 1), {"subset": 2}, {(0, 1, 2), (1, 0, 2)}),
        ((3, 2, 1), {"subset": 9}, {(0, 1, 2), (1, 0, 2), (2, 0, 1)}),
        ((3, 3, 1), {"shuffle": True, "subset": 3}, {(0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0)}),
    ],
)
def test_chance_chooses_among_these_orders(
    free_ram_mb: tuple[float, ...], arguments: dict[str, Any], positions: set[tuple[int, ...]]
) -> None:
    ranking = Fleet(*free_ram_mb).ranking(RAM, **arguments)
    assert {tuple(ranking.best(-1, 3, seed)[0]) for seed in SEEDS} == positions


@pytest.mark.parametrize("terms", [[], [RAM]], ids=["no weigher", "memory"])
@pytest.mark.parametrize("subset", [1, 4])
def test_few_of_the_best_are_the_first_of_all(terms: list[dict[str, Any]], subset: int) -> None:
    """However many are asked for, the order is the same one."""
    free_ram_mb = np.random.default_rng(1).choice([3.0, 3.0, 3.0, 2.0], 300)
    fleet = wide(free_ram_mb)
    ranking = fleet.ranking(*terms, shuffle=True, subset=subset)
    for seed in range(20):
        every = ranking.best(-1, 300, seed)
        for wanted in (1, 2, 7, 250):
            rows, scores = ranking.best(-1, wanted, seed)
            assert (rows, scores) == (every[0][:wanted], every[1][:wanted])


def wide(free_ram_mb: Any) -> Fleet:
    """A fleet of more rows than the trees' lowest level has in one node."""
    fleet = Fleet()
    rows = len(free_ram_mb)
    capacity = -(-rows // 64) * 64
    fleet.arrays = {name: np.zeros((*each.shape[:-1], capacity), each.dtype) for name, each in fleet.arrays.items()}
    fleet.arrays["first"][:] = -1
    fleet.arrays["host"][FREE_RAM_MB, :rows] = free_ram_mb
    fleet.columns.attach(**fleet.arrays)
    fleet.columns.set_rows(rows)
    return fleet


@pytest.mark.parametrize(
    ("policy", "members", "free_ram_mb", "best"),
    [
        (ANTI_AFFINITY, (0, 1, 0, 0), (3, 3, 3, 1), {0, 2}),
        (ANTI_AFFINITY, (0, 1, 0, 0), (3, 3, 3, 3), {0, 2, 3}),
        (AFFINITY, (1, 0, 2, 1), (3, 3, 3, 3), {0, 2, 3}),
        (AFFINITY, (1, 0, 2, 1), (3, 3, 3, 1), {0, 2}),
        (SOFT_AFFINITY, (1, 0, 1, 0), (3, 3, 3, 3), {0, 2}),
        (SOFT_AFFINITY, (1, 0, 0, 0), (1, 3, 3, 2), {0, 1, 2}),
    ],
)
def test_among_the_hosts_that_a_server_group_leaves_each_may_be_chosen(
    policy: int, members: tuple[int, ...], free_ram_mb: tuple[float, ...], best: set[int]
) -> None:
    fleet = Fleet(*free_ram_mb)
    ranking = fleet.ranking(RAM, COMPANY, affinity_stage=2, anti_affinity_stage=1, shuffle=True)
    group = fleet.group(policy, *members)
    assert {ranking.best(group, 1, seed)[0][0] for seed in SEEDS} == best
    ranking.check()


@pytest.mark.parametrize("terms", [[], [RAM]], ids=["no weigher", "memory"])
def test_equal_rows_are_chosen_equally_often(terms: list[dict[str, Any]]) -> None:
    """Pearson's chi-square over 3,000 draws among 30 of 60 rows; 58.3 is exceeded once in a thousand."""
    ranking = wide(np.tile([5.0, 5.0 - bool(terms)], 30)).ranking(*terms, shuffle=True)
    rows = 30 if terms else 60
    times = np.bincount([ranking.best(-1, 1, word(7, number))[0][0] for number in range(3000)], minlength=60)
    expected = 3000 / rows
    times = times[::2] if terms else times
    assert times.sum() == 3000
    assert ((times - expected) ** 2 / expected).sum() < {30: 58.3, 60: 98.3}[rows]
