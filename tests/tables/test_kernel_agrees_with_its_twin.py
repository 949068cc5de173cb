"""Any calls, good or bad, get the same answer or error from the kernel and from its twin and leave them alike."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.ext import _tables, _uuids, tables_py

from .values import FORMS, name_lists, names, same_arrays

pytestmark = pytest.mark.property

few = st.sampled_from(["", "a", "b", "c", "\ud800", "é"])
any_name = names | few | st.none() | st.binary(max_size=3)
ids = st.integers(-1, 8) | st.sampled_from([2**31, -(2**63), np.int64(1), True, None, 1.0])
formed = st.builds(lambda items, form: FORMS[form](items), name_lists, st.sampled_from(sorted(FORMS)))
many = formed | st.lists(any_name, max_size=4) | st.lists(st.binary(max_size=3), max_size=3).map(np.array) | any_name

name_calls = st.one_of(
    st.tuples(st.sampled_from(["find", "add", "intern"]), any_name),
    st.tuples(st.sampled_from(["get", "discard", "truncate"]), ids),
    st.tuples(st.sampled_from(["rename", "restore"]), ids, any_name),
    st.tuples(st.just("add_many"), many),
)

uuid_texts = st.sampled_from([f"{number:032x}" for number in range(4)] + ["bad"]) | st.uuids().map(str)
uuid_values = st.sampled_from([0, 1, -1, 2**31 - 1, 2**31, -(2**31) - 1, np.int32(5), 1.0, None])
uuid_calls = st.one_of(
    st.tuples(st.sampled_from(["get", "pop"]), uuid_texts),
    st.tuples(st.just("add"), uuid_texts, uuid_values),
    st.tuples(st.just("put"), st.lists(uuid_texts, max_size=5) | st.none(), uuid_values),
    st.tuples(st.just("discard"), st.lists(uuid_texts, max_size=5) | st.none()),
    st.tuples(
        st.just("add_many"),
        st.lists(st.integers(0, 5), min_size=4, max_size=4).map(lambda row: np.array(row, np.uint64).reshape(2, 2)),
        st.lists(st.integers(-1, 5), min_size=1, max_size=3).map(lambda row: np.array(row, np.int32)),
    ),
)


def outcome(call: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
    try:
        answer = call(*arguments)
    except Exception as error:
        return type(error), error.args if isinstance(error, KeyError) else None
    return "answer", type(answer), answer


@settings(deadline=None, max_examples=400)
@given(st.lists(name_calls, max_size=25))
def test_name_tables_agree_call_by_call(calls: list[tuple[Any, ...]]) -> None:
    kernel, twin = _tables.NameTable(), tables_py.NameTable()
    for method, *arguments in calls:
        assert outcome(getattr(kernel, method), *arguments) == outcome(getattr(twin, method), *arguments)
        kernel.check()
        twin.check()
        assert (len(kernel), kernel.span) == (len(twin), twin.span)
        assert same_arrays(kernel.to_arrays(), twin.to_arrays())
    assert same_arrays(_tables.NameTable.from_arrays(twin.to_arrays()).to_arrays(), twin.to_arrays())


@settings(deadline=None)
@given(st.lists(st.integers(-2, 3), max_size=5), st.binary(max_size=5), st.lists(st.integers(-1, 5), max_size=3))
def test_name_tables_refuse_the_same_arrays(lengths: list[int], text: bytes, free: list[int]) -> None:
    arrays: dict[str, Any] = {
        "lengths": np.array(lengths, np.int32),
        "text": np.frombuffer(text, np.uint8),
        "free": np.array(free, np.int32),
    }
    results = []
    for kind in (_tables.NameTable, tables_py.NameTable):
        try:
            results.append(kind.from_arrays(arrays).to_arrays())
        except ValueError:
            results.append({})
    assert same_arrays(*results)


@settings(deadline=None, max_examples=200)
@given(st.lists(uuid_calls, max_size=25))
def test_uuid_tables_agree_call_by_call(calls: list[tuple[Any, ...]]) -> None:
    kernel, twin = _uuids.UuidTable(), tables_py.UuidTable()
    for method, *arguments in calls:
        assert outcome(getattr(kernel, method), *arguments) == outcome(getattr(twin, method), *arguments)
        kernel.check()
        assert len(kernel) == len(twin)
        arrays: list[Any] = [kernel.to_arrays(), twin.to_arrays()]
        for ours, theirs in zip(*arrays, strict=True):
            assert (ours.dtype, ours.tolist()) == (theirs.dtype, theirs.tolist())


@given(st.integers(-(2**70), 2**70), st.integers(-1, 2**62), st.integers(-1, 40))
def test_made_uuids_agree(seed: int, first: int, count: int) -> None:
    def made(module: Any) -> tuple[Any, ...]:
        return outcome(lambda: module.make_many(seed, first, count).tolist())

    assert made(_uuids) == made(tables_py)


@given(st.text("0123456789abcdefABCDEF-", min_size=30, max_size=37) | st.uuids().map(str) | st.text() | st.none())
def test_uuids_in_text_agree(text: Any) -> None:
    assert outcome(_uuids.parse_uuid, text) == outcome(tables_py.parse_uuid, text)


@given(*[st.integers(-1, 2**64) | st.sampled_from([1.0, None, np.uint64(2**64 - 1), True])] * 2)
def test_formatted_uuids_agree(hi: Any, lo: Any) -> None:
    assert outcome(_uuids.format_uuid, hi, lo) == outcome(tables_py.format_uuid, hi, lo)
