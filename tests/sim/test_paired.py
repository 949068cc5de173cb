"""Comparisons of ways that played the same guests."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hostler.sim.questions.paired import by_day, by_seed, student


@pytest.mark.parametrize(
    ("part", "degrees", "known"),
    [(0.975, 1, 12.7062), (0.975, 7, 2.3646), (0.99, 4, 3.7469), (0.975, 30, 2.0423), (0.995, 1000, 2.5808)],
)
def test_quantiles_are_students(part: float, degrees: int, known: float) -> None:
    assert student(part, degrees) == pytest.approx(known, abs=2e-4)


def test_a_way_that_is_worse_for_every_seed_is_worse_though_intervals_overlap() -> None:
    best = [10.0, 14.0, 18.0, 22.0, 26.0, 30.0, 34.0, 38.0]
    way = [value + 2 + 0.1 * (-1) ** number for number, value in enumerate(best)]
    found = by_seed(way, best, comparisons=1)
    assert (found.wins, found.losses, found.pairs) == (8, 0, 8)
    error = math.sqrt(8 / 7) * 0.1 / math.sqrt(8)
    assert found.low == pytest.approx(2 - 2.3646 * error, abs=1e-3)
    assert found.proven


def test_more_comparisons_need_a_larger_difference() -> None:
    way, best = [1.0, 2.0, 3.0, 2.5], [0.9, 1.5, 2.9, 2.1]
    one, many = (by_seed(way, best, comparisons=count) for count in (1, 20))
    assert one.low is not None
    assert many.low is not None
    assert many.low < one.low


def test_nothing_is_tested_with_a_pair_or_two() -> None:
    assert by_seed([1.0, 2.0], [0.5, 1.0], comparisons=1).low is None
    assert not by_seed([1.0], [0.5], comparisons=1).proven
    assert by_day([1, 2], [0, 1], [10, 10], comparisons=1).low is None


def test_days_of_one_trace_are_drawn_in_blocks() -> None:
    rng = np.random.default_rng(1)
    asked = [100] * 27
    best = rng.integers(0, 10, 27)
    alike = by_day((best + rng.integers(-3, 4, 27)).clip(0).tolist(), best.tolist(), asked, comparisons=1)
    worse = by_day((best + rng.integers(1, 4, 27)).tolist(), best.tolist(), asked, comparisons=1)
    assert (worse.pairs, worse.by) == (9, "days")
    assert worse.proven
    assert not alike.proven
    again = by_day((best + 1).tolist(), best.tolist(), asked, comparisons=1)
    assert again == by_day((best + 1).tolist(), best.tolist(), asked, comparisons=1)


def test_intervals_by_days_hold_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(2), 0
    for _ in range(200):
        difference = rng.normal(1.0, 2.0, 64)
        found = by_day(difference.tolist(), [0] * 64, [100] * 64, comparisons=1)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1.0 <= found.high
    assert held / 200 > 0.85
