"""Kernels and twins answer alike where figures and multipliers are subnormal or huge: no score, nor a bound of one, is
taken for a mark."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

if os.environ.get("HOSTLER_PURE", "") not in ("", "0"):
    pytest.skip("there is no kernel to compare", allow_module_level=True)

from hostler.ext.constants import SOURCE_CLASS, SOURCE_COLUMN, SOURCE_GROUP, SOURCE_ROW
from hostler.ext.ranking import _beside, beside_py

from .side import Side
from .test_agreement import Agreement, seeds
from .world import Arrays, Signature, int32, set_multipliers

pytestmark = pytest.mark.property

Rows = NDArray[np.int32]
TINY = (0.0, 5e-324, -5e-324, 1e-311, 2.3e-308, 1e-300, 1e-160, 1.0, -1.0)
HUGE = (0.0, 1.0, 512.0, 1e29, -1e29, 1e30, -1e30, 1e150, -1e150, 1e300, -1e300, 4e307, -4e307)
MULTIPLIERS = (0.0, 1.0, -1.0, 5e-324, -5e-324, 1e-300, 1e300, -1e300, 1.7e308, -1.7e308)


class Extremes(Agreement):
    """A fleet whose figures come from a few values."""

    def fill(self, seed: int, figures: tuple[float, ...]) -> None:
        self.draw, self.figures = np.random.default_rng(seed), figures
        terms = [self.term() for _ in range(self.draw.integers(1, 4))]
        self.columns = [term["column"] for term in terms if "column" in term] or [0]
        for column in self.columns:
            values = self.draw.choice(self.draw.choice(figures, 3), self.rows)
            self.write(column, np.arange(self.rows), values)
        low, high = self.draw.choice((-np.inf, *figures)), self.draw.choice((np.inf, *figures))
        bounds = [(self.columns[0], float(low), float(high), 3)] if self.draw.random() < 0.3 else []
        for _ in range(3):  # two of them search the index, one has rows of its own
            self.rank(Signature(np.zeros(2, np.uint8), bounds=bounds, terms=terms, anti_affinity_stage=1))

    def term(self) -> dict[str, Any]:
        source = int(self.draw.choice([SOURCE_COLUMN, SOURCE_COLUMN, SOURCE_CLASS, SOURCE_GROUP, SOURCE_ROW]))
        term: dict[str, Any] = {"source": source, "multiplier": float(self.draw.choice(MULTIPLIERS))}
        if self.draw.random() < 0.3:
            term["minval"] = float(self.draw.choice(self.figures))
        if source == SOURCE_COLUMN:
            term |= {"column": int(self.draw.integers(0, 14)), "steady": False}
        elif source == SOURCE_GROUP:
            term["group_factor"] = float(self.draw.choice([1.0, -1.0, 1e-311, 1e300]))
        else:
            term["values"] = self.draw.choice(self.figures, 2 if source == SOURCE_CLASS else self.capacity)
        if self.draw.random() < 0.3:
            set_multipliers(term, self.draw.choice(MULTIPLIERS, 2))
        return term

    def write(self, column: int, rows: NDArray[Any], values: NDArray[np.float64]) -> None:
        def change(arrays: Arrays) -> None:
            arrays["host"][column, rows] = values

        self.edit(change, rows)

    def beside(self, ranking: int, without: Rows, beside: Rows, side: Side) -> tuple[list[int], list[float]]:
        module = _beside if side is self.sides[0] else beside_py
        found: tuple[list[int], list[float]] = module.best_beside(side.rankings[ranking], without, beside, None, 3, 0)
        return found

    def compare(self, step: int) -> None:
        named = np.unique(int32(self.draw.integers(0, self.rows, 5)))
        without, beside = named[: len(named) // 2], named[len(named) // 2 :]
        for ranking in range(3):
            group = int(self.draw.integers(-1, self.groups))
            for wanted in (1, 100):
                self.ask(ranking, "best", group, wanted, step)
            self.ask(ranking, "counts", group, 20)
            self.ask(ranking, "row_parts", int(named[0]), 1.0)
            self.both(partial(self.beside, ranking, without, beside))
            self.sides[0].rankings[ranking].check()


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(2, 60), st.sampled_from([TINY, HUGE, TINY + HUGE]))
def test_answers_are_those_of_the_twins(seed: int, rows: int, figures: tuple[float, ...]) -> None:
    fleet = Extremes()
    fleet.begin(seed, rows, 2)
    fleet.fill(seed, figures)
    for step in range(10):
        fleet.compare(step)
        column, row = fleet.draw.choice(fleet.columns), fleet.draw.integers(0, rows, 1)
        fleet.write(int(column), row, fleet.draw.choice(figures, 1))


def test_hosts_whose_weights_overflow_are_chosen_all_the_same() -> None:
    """Two multipliers whose sum is -inf: every host has that weight, or more."""
    fleet = Extremes()
    fleet.begin(1, 20, 1)
    fleet.write(0, np.arange(20), np.arange(20.0))
    terms = [{"source": SOURCE_COLUMN, "multiplier": -1.7e308, "column": 0, "steady": False}] * 2
    fleet.rank(Signature(np.zeros(1, np.uint8), terms=terms))
    while not fleet.sides[0].rankings[0].held:
        fleet.ask(0, "best", -1, 20)
    _, (rows, weights) = fleet.ask(0, "best", -1, 20)
    assert len(rows) == 20
    assert float.fromhex(weights[-1]) == -np.inf
