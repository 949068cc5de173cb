"""Kernels and twins pack alike, to the item; what they answer is a packing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hostler.ext import _packing, packing_py

Sizes = NDArray[np.int64]


@st.composite
def instances(draw: st.DrawFn) -> tuple[Sizes, Sizes]:
    """Items of up to four dimensions; some sizes may be negative: such an item makes room."""
    dimensions = draw(st.integers(1, 4))
    capacity = draw(st.lists(st.sampled_from([1, 7, 20, 100]), min_size=dimensions, max_size=dimensions))
    least = draw(st.sampled_from([0, 0, 0, -3]))
    item = st.tuples(*(st.integers(least, most) for most in capacity))
    items = draw(st.lists(item, max_size=24))
    return np.array(items, np.int64).reshape(-1, dimensions), np.array(capacity, np.int64)


def is_packing(sizes: Sizes, capacity: Sizes, bins: NDArray[np.int32]) -> bool:
    used = sorted(set(bins.tolist()))
    full = all((sizes[bins == number].sum(axis=0) <= capacity).all() for number in used)
    return full and used == list(range(len(used)))


@pytest.mark.property
@settings(deadline=None, max_examples=150)
@given(instances(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_items_in_turn(instance: tuple[Sizes, Sizes], norm: int, shuffle: Any) -> None:
    sizes, capacity = instance
    order = np.array(shuffle.sample(range(len(sizes)), len(sizes)), np.int32)
    bins = _packing.fit_in_turn(sizes, capacity, order, norm)
    assert bins.tolist() == packing_py.fit_in_turn(sizes, capacity, order, norm).tolist()
    assert is_packing(sizes, capacity, bins)


@pytest.mark.property
@settings(deadline=None, max_examples=150)
@given(instances(), st.integers(1, 2))
def test_bins_in_turn(instance: tuple[Sizes, Sizes], rule: int) -> None:
    sizes, capacity = instance
    order = np.arange(len(sizes), dtype=np.int32)
    bins = _packing.fill_in_turn(sizes, capacity, order, rule)
    assert bins.tolist() == packing_py.fill_in_turn(sizes, capacity, order, rule).tolist()
    assert is_packing(sizes, capacity, bins)


@pytest.mark.property
@settings(deadline=None, max_examples=150)
@given(instances(), st.integers(0, 60), st.integers(0, 5), st.integers(0, 2**64 - 1))
def test_a_bin_is_eliminated_or_not(instance: tuple[Sizes, Sizes], steps: int, stirs: int, seed: int) -> None:
    sizes, capacity = instance
    before = _packing.fit_in_turn(sizes, capacity, np.arange(len(sizes), dtype=np.int32), 0)
    count = int(before.max(initial=-1)) + 1
    if count < 2:
        return
    got = _packing.eliminate(sizes, capacity, before, count, steps, stirs, seed)
    wanted = packing_py.eliminate(sizes, capacity, before, count, steps, stirs, seed)
    assert got[1] == wanted[1] <= steps
    assert (got[0] is None) == (wanted[0] is None)
    if got[0] is not None and wanted[0] is not None:
        assert got[0].tolist() == wanted[0].tolist()
        assert all((sizes[got[0] == number].sum(axis=0) <= capacity).all() for number in range(count))
        assert got[0].max() < count - 1


def test_a_bin_that_can_go_goes() -> None:
    sizes = np.array([[5], [5], [6], [4], [1]], np.int64)
    capacity = np.array([11], np.int64)
    bins, steps = _packing.eliminate(sizes, capacity, np.array([0, 0, 1, 2, 2], np.int32), 3, 100, 5, 1)
    assert bins is not None
    assert is_packing(sizes, capacity, bins)
    assert bins.max() == 1
    assert 0 < steps <= 100


def arrays(**changed: Any) -> dict[str, Any]:
    return {"sizes": np.array([[3], [4]], np.int64), "capacity": np.array([9], np.int64)} | changed


ORDER = np.array([0, 1], np.int32)
BAD: dict[str, Any] = {
    "a size above the capacity": lambda k: k.fit_in_turn(
        **arrays(capacity=np.array([3], np.int64)), order=ORDER, norm=0
    ),
    "a size beyond all bounds": lambda k: k.fit_in_turn(
        **arrays(sizes=np.array([[-(2**50)], [1]], np.int64)), order=ORDER, norm=0
    ),
    "other dimensions": lambda k: k.fit_in_turn(**arrays(capacity=np.array([9, 9], np.int64)), order=ORDER, norm=0),
    "an item twice": lambda k: k.fit_in_turn(**arrays(), order=np.array([0, 0], np.int32), norm=0),
    "an item that there is not": lambda k: k.fill_in_turn(**arrays(), order=np.array([0, 2], np.int32), rule=1),
    "too few items": lambda k: k.fill_in_turn(**arrays(), order=np.array([0], np.int32), rule=1),
    "no such norm": lambda k: k.fit_in_turn(**arrays(), order=ORDER, norm=4),
    "no such rule": lambda k: k.fill_in_turn(**arrays(), order=ORDER, rule=0),
    "one bin": lambda k: k.eliminate(**arrays(), bins=np.zeros(2, np.int32), count=1, steps=1, stirs=1, seed=1),
    "a bin that there is not": lambda k: k.eliminate(
        **arrays(), bins=np.array([0, 2], np.int32), count=2, steps=1, stirs=1, seed=1
    ),
    "no packing": lambda k: k.eliminate(
        **arrays(capacity=np.array([6], np.int64)), bins=np.array([0, 0], np.int32), count=2, steps=1, stirs=1, seed=1
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_instance_is_refused(name: str) -> None:
    for kernel in (_packing, packing_py):
        with pytest.raises(ValueError, match=r"\w"):
            BAD[name](kernel)
