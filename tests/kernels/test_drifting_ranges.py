"""Kernels and twins answer alike while the ranges of raw values, by which scores are normalised, move."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if os.environ.get("HOSTLER_PURE", "") not in ("", "0"):
    pytest.skip("there is no kernel to compare", allow_module_level=True)

from hostler.ext.constants import SOURCE_COLUMN

from .test_agreement import Agreement, figures, numbers, seeds
from .world import Signature, terms

pytestmark = pytest.mark.property

moves = st.tuples(st.sampled_from(["set_figure", "move_an_end", "move_an_end", "shift_all_rows"]), numbers, figures)


@settings(deadline=None, max_examples=100)
@given(seeds, st.integers(2, 60), st.data(), st.lists(moves, min_size=10, max_size=30))
def test_answers_stay_exact_while_the_range_of_the_raw_values_drifts(
    seed: int, rows: int, data: st.DataObject, changes: list[tuple[str, int, float]]
) -> None:
    fleet = Agreement()
    fleet.begin(seed, rows, 2)
    for number in range(12):
        fleet.add_consumer(number % 2, 0, 1 + number % 4, 0, True)
    weighers = data.draw(st.lists(terms(2, fleet.capacity), min_size=1, max_size=4))
    fleet.rank(Signature(np.zeros(2, np.uint8), terms=weighers, anti_affinity_stage=1))
    for step, (change, pick, value) in enumerate(changes):
        if change == "set_figure":
            fleet.set_figure(pick, pick, value)
        elif change == "move_an_end":
            fleet.move_an_end(pick, pick % 2 == 0, value)
        else:
            fleet.shift_all_rows(pick, round(value))
        for group in range(-1, fleet.groups):
            fleet.ask(0, "best", group, 1 + step % 3)


@settings(deadline=None, max_examples=60)
@given(
    seeds.filter(lambda seed: seed % 3),
    st.sampled_from([5e-324, 2.225073858507e-311, 1e-300]),
    st.sampled_from([-1.0, 1.0, 1e6]),
    st.lists(st.tuples(st.integers(0, 19), st.sampled_from([0.0, 1.0, -1.0, 1e9])), min_size=1, max_size=6),
)
def test_a_range_so_small_that_later_values_overflow_under_it_refuses_no_row(
    seed: int, least: float, multiplier: float, changes: list[tuple[int, float]]
) -> None:
    fleet = Agreement()
    fleet.begin(seed, 20, 1)
    for row in range(20):
        fleet.set_figure(row, 0, least * (row % 2))
    term = {"source": SOURCE_COLUMN, "multiplier": multiplier, "column": 0, "steady": False}
    fleet.rank(Signature(np.zeros(1, np.uint8), terms=[term]))
    while not fleet.sides[0].rankings[0].held:
        fleet.ask(0, "best", -1, 20)
    for row, value in changes:
        fleet.set_figure(row, 0, value)
        assert len(fleet.ask(0, "best", -1, 20)[1][0]) == 20
        fleet.ask(0, "check")
