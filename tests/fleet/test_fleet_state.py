"""Consumers as arrays and back, their place in a row's list, and uuids in bulk: kernel and twin alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.ext import _fleet, _fleet_state, _uuids, fleet_py, fleet_state_py, tables_py
from hostler.ext.tables import parse_uuid

from ..kernels.world import empty_arrays
from .values import uuid_of

KINDS: list[tuple[Any, Any]] = [(_fleet.Columns, _fleet_state), (fleet_py.Columns, fleet_state_py)]
TABLES: list[tuple[Any, Any]] = [(_uuids.UuidTable, _fleet_state), (tables_py.UuidTable, fleet_state_py)]
ROWS = 4


def make(kind: Any) -> Any:
    columns = kind()
    columns.attach(**empty_arrays(64))
    columns.set_rows(ROWS)
    columns.add_shape(np.array([0], np.int32), np.array([2], np.int64), 1.0, 2.0, 3.0)
    columns.add_group(1, 1)
    return columns


def filled(kind: Any, history: list[int]) -> Any:
    """Consumers come, and some go again."""
    columns, live = make(kind), list[int]()
    for number, step in enumerate(history):
        if step % 3 == 2 and live:
            columns.drop_consumer(live.pop(step % len(live)))
        else:
            numbers = (step % ROWS, step % 2 - 1, step % 5, step % 7, step % 2 - 1, step % 3)
            live.append(columns.add_consumer(7, number, *numbers))
    return columns


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


histories = st.lists(st.integers(0, 99), max_size=30)


@pytest.mark.property
@given(histories)
@settings(deadline=None)
def test_kernel_and_twin_tell_the_same_and_both_are_filled_from_either(history: list[int]) -> None:
    found = [state.consumers(filled(kind, history)) for kind, state in KINDS]
    for name in found[0]:
        assert found[0][name].dtype == found[1][name].dtype
        assert np.array_equal(found[0][name], found[1][name]), name
    for kind, state in KINDS:
        for arrays in found:
            columns = make(kind)
            state.set_consumers(columns, **{name: array.copy() for name, array in arrays.items()})
            assert same(state.consumers(columns), arrays)
            assert [columns.consumers_on(row) for row in range(ROWS)] == [
                filled(kind, history).consumers_on(row) for row in range(ROWS)
            ]
            assert columns.group(0)[2] == filled(kind, history).group(0)[2]
            assert columns.add_consumer(8, 0, 0, -1, 0, 0, -1, 0) == filled(kind, history).add_consumer(
                8, 0, 0, -1, 0, 0, -1, 0
            )


@pytest.mark.parametrize(("kind", "state"), KINDS, ids=["kernel", "twin"])
def test_what_a_freed_id_held_is_told_to_nobody(kind: Any, state: Any) -> None:
    columns = make(kind)
    columns.drop_consumer(columns.add_consumer(7, 8, 1, 0, 3, 4, 0, 1))
    line = {name: array.tolist() for name, array in state.consumers(columns).items()}
    figures = {"row": [-1], "shape": [-1], "project": [0], "user": [0], "group": [-1], "flags": [0]}
    assert line == {"uuid": [[0, 0]], **figures, "generation": [0], "next": [-1], "free": [0]}


BROKEN: dict[str, Any] = {
    "row beyond": ("row", 0, ROWS),
    "row below": ("row", 0, -2),
    "freed but not listed": ("row", 0, -1),
    "shape": ("shape", 0, 1),
    "shape below": ("shape", 0, -2),
    "group": ("group", 0, 1),
    "project": ("project", 0, -1),
    "flags": ("flags", 0, 128),
    "generation": ("generation", 0, 0),
    "next beyond": ("next", 0, 99),
    "next on another row": ("next", 0, 1),
    "next of two": ("next", 2, 0),
    "no list": ("next", 3, -1),
    "circle": ("next", 0, 3),
    "free is taken": ("free", 0, 0),
    "free beyond": ("free", 0, 99),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize(("kind", "state"), KINDS, ids=["kernel", "twin"])
def test_what_no_columns_can_have_given_is_refused(kind: Any, state: Any, name: str) -> None:
    columns = make(kind)
    for number in range(5):
        columns.add_consumer(7, number, number % 3, 0, 0, 0, 0, 0)
    columns.drop_consumer(4)
    arrays = state.consumers(columns)
    line, at, value = BROKEN[name]
    arrays[line][at] = value
    with pytest.raises(ValueError, match=r"consumer|id|row"):
        state.set_consumers(make(kind), **arrays)


@pytest.mark.parametrize(("kind", "state"), KINDS, ids=["kernel", "twin"])
def test_columns_that_have_consumers_are_not_filled(kind: Any, state: Any) -> None:
    columns = filled(kind, [0, 1])
    with pytest.raises(ValueError, match="have consumers"):
        state.set_consumers(columns, **state.consumers(columns))


@pytest.mark.parametrize(("kind", "state"), KINDS, ids=["kernel", "twin"])
def test_lines_of_different_length_are_refused(kind: Any, state: Any) -> None:
    arrays = state.consumers(filled(kind, [0, 1, 3]))
    for name in arrays:
        shorter = arrays | {name: arrays[name][:-1] if name != "free" else np.zeros(9, np.int32)}
        with pytest.raises(ValueError, match="consumer"):
            state.set_consumers(make(kind), **shorter)


@pytest.mark.parametrize(("kind", "state"), KINDS, ids=["kernel", "twin"])
def test_a_consumer_is_put_where_it_was_listed(kind: Any, state: Any) -> None:
    columns = make(kind)
    ids = [columns.add_consumer(7, number, 1, -1, 0, 0, -1, 0) for number in range(4)]
    assert columns.consumers_on(1) == ids[::-1]
    for place in (3, 2, 1, 0):
        newer = state.listed_before(columns, ids[place])
        assert newer == (ids[place + 1] if place < 3 else -1)
        columns.drop_consumer(ids[place])
        assert columns.add_consumer(7, place, 1, -1, 0, 0, -1, 0) == ids[place]
        if newer >= 0:
            state.relist(columns, ids[place], newer)
        assert columns.consumers_on(1) == ids[::-1]
    other = columns.add_consumer(7, 9, 2, -1, 0, 0, -1, 0)
    for consumer, before in ((ids[0], ids[1]), (ids[3], ids[3]), (ids[3], other)):
        with pytest.raises(ValueError, match="newest"):
            state.relist(columns, consumer, before)
    for pair in ((99, 0), (0, 99), (-1, 0)):
        with pytest.raises(IndexError):
            state.relist(columns, *pair)


@pytest.mark.parametrize(("kind", "state"), TABLES, ids=["kernel", "twin"])
def test_uuids_are_found_and_discarded_in_bulk(kind: Any, state: Any) -> None:
    table = kind()
    words = np.array([parse_uuid(uuid_of(number)) for number in range(5)], np.uint64)
    table.add_many(np.ascontiguousarray(words[:4]), np.arange(4, dtype=np.int32))
    assert state.find_uuids(table, words).tolist() == [0, 1, 2, 3, -1]
    state.discard_uuids(table, np.ascontiguousarray(words[1:3]))
    assert state.find_uuids(table, words).tolist() == [0, -1, -1, 3, -1]
    with pytest.raises(KeyError, match=uuid_of(4)):
        state.discard_uuids(table, np.ascontiguousarray(words[3:]))
    assert len(table) == 1
    for bad in (np.zeros((2, 3), np.uint64),):
        with pytest.raises(ValueError, match="two words"):
            state.find_uuids(table, bad)
        with pytest.raises(ValueError, match="two words"):
            state.discard_uuids(table, bad)
