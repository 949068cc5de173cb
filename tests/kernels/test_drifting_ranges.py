"""Kernels and twins answer alike while the ranges of raw values, by which scores are normalised, move."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if os.environ.get("HOSTLER_PURE", "") not in ("", "0"):
    pytest.skip("there is no kernel to compare", allow_module_level=True)

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
