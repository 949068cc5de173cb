"""The packing kernels and their twins agree, and what they say is a packing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.ext import _packing, packing_py

pytestmark = pytest.mark.property


@st.composite
def items(draw: st.DrawFn) -> tuple[Any, Any]:
    n, d = draw(st.integers(0, 14)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    capacity = rng.integers(0, 30, d)
    return rng.integers(draw(st.sampled_from([-2, 0])), capacity + 1, (n, d)), capacity


def is_packing(bins: Any, sizes: Any, capacity: Any) -> bool:
    loads = [sizes[bins == b].sum(axis=0) for b in range(int(bins.max(initial=-1)) + 1)]
    return bool((bins >= 0).all()) and all((load <= capacity).all() for load in loads)


@settings(deadline=None, max_examples=60)
@given(items(), st.randoms(use_true_random=False))
def test_first_fit_is_first_fit(given: tuple[Any, Any], chance: Any) -> None:
    sizes, capacity = given
    order = np.array(chance.sample(range(len(sizes)), len(sizes)), np.int32)
    bins = _packing.first_fit(sizes, capacity, order)
    assert bins.tolist() == packing_py.first_fit(sizes, capacity, order).tolist()
    assert is_packing(bins, sizes, capacity)


@settings(deadline=None, max_examples=60)
@given(items(), st.booleans(), st.floats(0, 1))
def test_bin_centric_twins_agree(given: tuple[Any, Any], by_norm: bool, liking: float) -> None:
    sizes, capacity = given
    weights, bonus = np.linspace(1, 2, len(capacity)), liking * np.arange(len(sizes), dtype=float)
    bins = _packing.bin_centric(sizes, capacity, weights, by_norm, bonus)
    assert bins.tolist() == packing_py.bin_centric(sizes, capacity, weights, by_norm, bonus).tolist()
    assert is_packing(bins, sizes, capacity)


@settings(deadline=None, max_examples=60)
@given(items(), st.integers(0, 2**63), st.integers(0, 40))
def test_the_search_empties_a_bin_or_says_that_it_did_not(given: tuple[Any, Any], seed: int, moves: int) -> None:
    sizes, capacity = given
    bins = _packing.first_fit(sizes, capacity, np.arange(len(sizes), dtype=np.int32))
    count = int(bins.max(initial=-1)) + 1
    fewer = _packing.empty_a_bin(sizes, capacity, bins, count, moves, seed)
    twin = packing_py.empty_a_bin(sizes, capacity, bins, count, moves, seed)
    assert (fewer is None) == (twin is None)
    if fewer is not None and twin is not None:
        assert fewer.tolist() == twin.tolist()
        assert is_packing(fewer, sizes, capacity)
        assert fewer.max() <= count - 2


@pytest.mark.parametrize("kernel", [_packing, packing_py])
def test_bad_input_is_refused(kernel: Any) -> None:
    sizes, capacity, order = np.array([[5]]), np.array([4]), np.zeros(1, np.int32)
    with pytest.raises(ValueError, match="larger than a bin"):
        kernel.first_fit(sizes, capacity, order)
    with pytest.raises(ValueError, match="differ"):
        kernel.first_fit(sizes, np.array([4, 4]), order)
    with pytest.raises(ValueError, match="once"):
        kernel.first_fit(sizes - 1, capacity, order + 1)
    with pytest.raises(ValueError, match="differ"):
        kernel.bin_centric(sizes - 1, capacity, np.ones(2), True, np.zeros(1))
    with pytest.raises(ValueError, match="no"):
        kernel.empty_a_bin(sizes - 1, capacity, order + 3, 2, 5, 1)
