"""What is taken is given back: after everything is dropped, sums and free amounts are what they were, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.ext.batch import place, release
from hostler.ext.constants import NUM_INSTANCES, SOURCE_COLUMN
from hostler.ext.fleet import Columns
from hostler.ext.ranking import Ranking
from hostler.ext.shapes import Shapes

from .world import Arrays, Maker, empty_arrays, int32, plain, words

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

ROWS, GUESTS = 40, 30
numbers = st.lists(st.integers(0, 2**16), min_size=GUESTS, max_size=GUESTS)


def fleet(seed: int) -> tuple[Columns, Arrays]:
    """Forty rows with whole figures, as claims of whole figures can be given back exactly."""
    arrays = empty_arrays(64)
    maker = Maker(seed)
    maker.palettes = [np.round(palette) if column != 10 else palette for column, palette in enumerate(maker.palettes)]
    maker.fill(arrays, np.arange(ROWS, dtype=np.int32), 1)
    columns = Columns()
    columns.attach(**arrays)
    columns.set_rows(ROWS)
    return columns, arrays


def state(columns: Columns, arrays: Arrays, groups: int) -> Any:
    """All that a claim changes but versions."""
    kept = {name: array for name, array in arrays.items() if name != "generation"}
    return plain([kept, [columns.group(group) for group in range(groups)], columns.consumer_count])


def add_some_shapes(columns: Columns) -> int:
    for amount in range(4):
        columns.add_shape(int32([0, 2]), np.array([amount, 3 * amount]), amount, 512 * amount, 1024)
    return 4


def add_groups(columns: Columns) -> int:
    for policy in (1, 2, 3, 4):
        columns.add_group(policy, policy)
    return 4


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**16), numbers, numbers, st.randoms(use_true_random=False))
def test_dropping_all_consumers_in_any_order_restores_the_columns(
    seed: int, rows: list[int], shapes: list[int], random: Any
) -> None:
    columns, arrays = fleet(seed)
    known, groups = add_some_shapes(columns), add_groups(columns)
    before = state(columns, arrays, groups)
    consumers = [
        columns.add_consumer(7, index, row % ROWS, shape % known, 0, 0, row % (groups + 1) - 1, shape % 2)
        for index, (row, shape) in enumerate(zip(rows, shapes, strict=True))
    ]
    random.shuffle(consumers)
    for consumer in consumers:
        columns.set_building(consumer, random.random() < 0.5)
    for consumer in consumers:
        columns.drop_consumer(consumer)
    assert state(columns, arrays, groups) == before


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**16), numbers, st.booleans())
def test_releasing_a_placed_batch_restores_the_columns(seed: int, picks: list[int], building: bool) -> None:
    columns, arrays = fleet(seed)
    known, groups = add_some_shapes(columns), add_groups(columns)
    before = state(columns, arrays, groups)
    terms = [{"source": SOURCE_COLUMN, "column": NUM_INSTANCES, "multiplier": -1.0}]
    needs = [(0, 1, 1, False)]
    ranking = Ranking(columns, class_stage=np.zeros(1, np.uint8), needs=needs, terms=terms, anti_affinity_stage=2)
    table = Shapes(columns)
    table.add_ranking(ranking)
    for guest in range(known):
        table.number(0, table.add_size(guest))
    chosen, consumers, scores = np.zeros(GUESTS, np.int32), np.zeros(GUESTS, np.int32), np.zeros(GUESTS)
    done = place(
        columns,
        table,
        int32([pick % known for pick in picks]),
        words(0, GUESTS),
        np.zeros(GUESTS, np.int32),
        np.zeros(GUESTS, np.int32),
        int32([pick % (groups + 1) - 1 for pick in picks]),
        building,
        seed,
        1,
        chosen,
        consumers,
        scores,
        np.zeros((GUESTS, 3), np.int64),
    )
    assert done == GUESTS
    ids = consumers[consumers >= 0]
    used = arrays["used"].sum(axis=1)
    taken = [sum(columns.shape(pick % known)[1][0] for pick, id in zip(picks, consumers, strict=True) if id >= 0)]
    release(columns, np.random.default_rng(seed).permutation(ids))
    assert used[0] - arrays["used"][0].sum() == taken[0]
    assert state(columns, arrays, groups) == before
    ranking.check()
