"""The pools kernel is its twin, to the bit, and says of bad calls what is wrong."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.ext import pool_constants, pools, pools_py
from hostler.placement.storage.pools.capacity import capacity_factors
from hostler.placement.storage.pools.columns import NAMES, PoolColumns

pytestmark = pytest.mark.kernel_twin

amounts = st.one_of(
    st.integers(0, 100_000),
    st.integers(-5, 4_000_000).map(lambda cents: cents / 1_000),
    st.floats(-1e3, 1e12, allow_nan=False),
)
lines = st.tuples(
    amounts,
    amounts,
    amounts,
    amounts,
    st.integers(0, 100),
    st.sampled_from([0.5, 1.0, 1.005, 1.5, 8.054054, 20.0]),
    st.booleans(),
    st.sampled_from([1, 1, 1, 0]),
)


def block_of(line: tuple[Any, ...]) -> Any:
    block = np.zeros((pool_constants.POOL_COLUMNS, 2))
    block[: len(line), 1] = line
    block[pool_constants.COUNTED, 1] = 1
    return block


@pytest.mark.property
@settings(max_examples=500, deadline=None)
@given(lines, st.integers(-50, 3_000))
def test_kernel_and_twin_agree_to_the_bit(line: tuple[Any, ...], size: int) -> None:
    ours, theirs = block_of(line), block_of(line)
    rows = np.array([1], np.int32)
    pools.derive(ours, rows)
    pools_py.derive(theirs, rows)
    assert ours.tobytes() == theirs.tobytes()
    pools.consume(ours, 1, size, 5.0)
    pools_py.consume(theirs, 1, size, 5.0)
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.property
@settings(max_examples=300, deadline=None)
@given(lines, st.booleans(), st.integers(1, 200_000))
def test_room_is_what_the_filter_s_two_questions_let_in(line: tuple[Any, ...], thin: bool, size: int) -> None:
    block = block_of((*line[:7], 1))
    pools.derive(block, np.array([1], np.int32))
    total, free, _, provisioned, reserved, ratio, supported = line[:7]
    factors = capacity_factors(
        total_capacity=total,
        free_capacity=free,
        provisioned_capacity=provisioned,
        thin_provisioning_support=supported,
        max_over_subscription_ratio=ratio,
        reserved_percentage=reserved,
        thin=thin,
    )
    available = factors.total_available_capacity
    passes = total > 0 and factors.virtual_free_capacity >= size
    if thin and supported:
        passes = passes and ratio >= 1 and available != 0 and (provisioned + size) / available <= ratio
    room = block[pool_constants.ROOM_THIN if thin else pool_constants.ROOM_THICK, 1]
    assert (room >= size) == passes
    virtual = block[pool_constants.VIRTUAL_THIN if thin else pool_constants.VIRTUAL_THICK, 1]
    assert virtual == factors.virtual_free_capacity


def test_constants_are_those_of_the_kernel_and_name_the_columns() -> None:
    text = (files("hostler.ext") / "_pools.pxd").read_text()
    kernel = {name: int(number) for name, number in re.findall(r"^    ([A-Z_]+) = (\d+)", text, re.MULTILINE)}
    ours = {name: value for name, value in vars(pool_constants).items() if name.isupper()}
    assert kernel == ours
    assert [name.upper() for name in NAMES] == sorted(ours, key=lambda name: ours[name])[:-1]


def test_bad_calls_are_refused() -> None:
    block = np.zeros((pool_constants.POOL_COLUMNS, 4))
    with pytest.raises(ValueError, match="lacks columns"):
        pools.derive(block[:3].copy(), np.array([0], np.int32))
    with pytest.raises(IndexError):
        pools.derive(block, np.array([4], np.int32))
    with pytest.raises(IndexError):
        pools.consume(block, -1, 1.0, 0.0)
    columns = PoolColumns()
    which, sizes, rows, scores = np.zeros(1, np.int32), np.zeros(1), np.zeros(1, np.int32), np.zeros(1)
    counts = np.zeros((1, 3), np.int64)
    with pytest.raises(ValueError, match="other columns"):
        pools.place(columns.kernel, block, [], which, sizes, 0.0, rows, scores, counts)
    with pytest.raises(IndexError):
        pools.place(columns.kernel, columns.block, [], which, sizes, 0.0, rows, scores, counts)
    with pytest.raises(ValueError, match="differ in length"):
        pools.place(columns.kernel, columns.block, [], which, sizes, 0.0, rows, scores[:0], counts)
