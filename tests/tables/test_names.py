"""NameTable against a dict, and what it promises at the edges."""

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hostler.ext.tables import NameTable

from .values import FEW_NAMES, FORMS, name_lists, names, numbered, same_arrays

pytestmark = pytest.mark.kernel_twin


class Names(RuleBasedStateMachine):
    """The table, and beside it a dict of the names by id and the list of freed ids."""

    @initialize()
    def begin(self) -> None:
        self.table = NameTable()
        self.names: dict[int, str] = {}
        self.free: list[int] = []
        self.span = 0

    def id_of(self, name: str) -> int:
        return next((id for id, other in self.names.items() if other == name), -1)

    def some_id(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.names)))

    def expect_new(self, id: int, name: str) -> None:
        assert id == (self.free.pop() if self.free else self.span)
        self.span = max(self.span, id + 1)
        self.names[id] = name

    @rule(name=names)
    def add(self, name: str) -> None:
        if name in self.names.values():
            with pytest.raises(KeyError) as caught:
                self.table.add(name)
            assert caught.value.args == (name,)
        else:
            self.expect_new(self.table.add(name), name)

    @rule(name=names)
    def intern(self, name: str) -> None:
        known = self.id_of(name)
        id = self.table.intern(name)
        if known >= 0:
            assert id == known
        else:
            self.expect_new(id, name)

    @rule(items=name_lists, form=st.sampled_from(sorted(FORMS)))
    def add_many(self, items: list[str], form: str) -> None:
        given = FORMS[form](items)
        if form.endswith("array"):  # trailing NULs are padding there
            items = [item.decode() if isinstance(item, bytes) else item for item in given.tolist()]
        taken = set(self.names.values())
        duplicate = next((name for at, name in enumerate(items) if name in taken or name in items[:at]), None)
        if duplicate is None:
            assert self.table.add_many(given) == self.span
            self.names.update(enumerate(items, self.span))
            self.span += len(items)
        else:
            before = self.table.to_arrays()
            with pytest.raises(KeyError) as caught:
                self.table.add_many(given)
            assert caught.value.args == (duplicate,)
            assert same_arrays(self.table.to_arrays(), before)

    @precondition(lambda self: self.names)
    @rule(data=st.data(), name=names)
    def rename(self, data: st.DataObject, name: str) -> None:
        id = self.some_id(data)
        if self.id_of(name) in (-1, id):
            self.table.rename(id, name)
            self.names[id] = name
        else:
            with pytest.raises(KeyError) as caught:
                self.table.rename(id, name)
            assert caught.value.args == (name,)

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        id = self.some_id(data)
        self.table.discard(id)
        del self.names[id]
        self.free.append(id)

    @precondition(lambda self: self.names)
    @rule(data=st.data(), count=st.integers(1, 4))
    def discard_some_and_undo_it(self, data: st.DataObject, count: int) -> None:
        before = self.table.to_arrays()
        undo = []
        for id in data.draw(st.permutations(sorted(self.names)))[:count]:
            self.table.discard(id)
            undo.append((id, self.names[id]))
        for id, name in reversed(undo):
            self.table.restore(id, name)
        assert same_arrays(self.table.to_arrays(), before)

    @rule(data=st.data(), by=st.integers(0, 3))
    def truncate(self, data: st.DataObject, by: int) -> None:
        span = max(self.span - by, 0)
        if any(id >= span for id in self.free):
            with pytest.raises(ValueError, match="freed"):
                self.table.truncate(span)
        else:
            self.table.truncate(span)
            self.names = {id: name for id, name in self.names.items() if id < span}
            self.span = span

    @rule()
    def save_and_load(self) -> None:
        arrays = self.table.to_arrays()
        self.table = NameTable.from_arrays(arrays)
        assert same_arrays(self.table.to_arrays(), arrays)

    @rule(id=st.integers(-2, 10) | st.integers(-(2**62), 2**62))
    def an_unknown_id_is_refused(self, id: int) -> None:
        if id in self.names:
            return
        for call in (self.table.get, self.table.discard, lambda id: self.table.rename(id, "new")):
            with pytest.raises(KeyError) as caught:
                call(id)
            assert caught.value.args == (id,)

    @rule(id=st.integers(-2, 10))
    def only_the_last_freed_id_is_restored(self, id: int) -> None:
        if self.free[-1:] == [id]:
            return
        with pytest.raises(ValueError, match="last freed"):
            self.table.restore(id, "no other name is like this one")

    @rule(name=names)
    def find(self, name: str) -> None:
        assert self.table.find(name) == self.id_of(name)

    @invariant()
    def agrees(self) -> None:
        self.table.check()
        assert len(self.table) == len(self.names)
        assert self.table.span == self.span
        assert all(self.table.get(id) == name and self.table.find(name) == id for id, name in self.names.items())


@pytest.mark.property
def test_the_table_keeps_up_with_a_dict_through_any_operations() -> None:
    run_state_machine_as_test(Names, settings=settings(deadline=None, max_examples=60, stateful_step_count=40))


def test_the_kernel_is_used_unless_hostler_pure_is_set() -> None:
    pure = os.environ.get("HOSTLER_PURE", "") not in ("", "0")
    assert NameTable.__module__ == ("hostler.ext.tables_py" if pure else "hostler.ext._tables")


@pytest.mark.parametrize("form", sorted(FORMS))
def test_many_names_get_consecutive_ids_in_every_form(form: str) -> None:
    table = NameTable()
    table.add("first")
    kept = [name for name in FEW_NAMES if not name.endswith("\0")]
    assert table.add_many(FORMS[form](kept)) == 1
    assert [table.get(id) for id in range(1, len(kept) + 1)] == kept


def test_no_names_are_no_change() -> None:
    table = NameTable()
    empty: list[Any] = [[], (), *(np.array([], dtype=dtype) for dtype in ("U5", "S5", object))]
    for nothing in empty:
        assert table.add_many(nothing) == 0
    assert len(table) == table.span == 0


def test_many_names_leave_freed_ids_to_add() -> None:
    table = NameTable()
    table.add_many(["a", "b", "c"])
    table.discard(1)
    assert table.add_many(["d", "e"]) == 3
    assert table.add("f") == 1


def test_freed_ids_are_reused_last_freed_first() -> None:
    table = NameTable()
    table.add_many(["a", "b", "c", "d"])
    for id in (2, 0, 3):
        table.discard(id)
    assert [table.add(name) for name in "wxyz"] == [3, 0, 2, 4]


def test_names_of_64_kib_and_of_nothing_are_names() -> None:
    table = NameTable()
    longest = ["x" * 65_536, "x" * 65_535, "ö" * 32_768, ""]
    table.add_many(longest)
    assert [table.find(name) for name in longest] == [0, 1, 2, 3]
    assert [table.get(id) for id in range(4)] == longest


def test_a_str_subclass_comes_back_as_a_str() -> None:
    table = NameTable()
    table.add(np.str_("a"))
    table.add_many([np.str_("b")])
    assert [type(table.get(id)) for id in (0, 1)] == [str, str]


def test_renaming_to_the_same_name_changes_nothing() -> None:
    table = NameTable()
    table.add("a")
    table.rename(0, "a")
    assert table.get(0) == "a"


def test_a_renamed_name_is_free_for_another() -> None:
    table = NameTable()
    table.add_many(["a", "b"])
    table.rename(0, "c")
    assert table.find("a") == -1
    assert table.add("a") == 2


def test_names_outlive_the_compaction_of_what_others_left() -> None:
    table = NameTable()
    table.add_many(numbered(0, 100))
    for number in range(400):
        table.rename(number % 50, f"{number:04d}" * 500)
        if number % 7 == 0:
            table.discard(60)
            table.add(f"again {number}")
    table.check()
    assert table.get(99) == "compute-00099"
    assert table.get(49) == "0399" * 500


@pytest.mark.parametrize("bad", [None, 1, b"bytes", ["list"]])
def test_what_is_no_str_is_refused_by_type(bad: Any) -> None:
    table = NameTable()
    for call in (table.find, table.add, table.intern, lambda bad: table.add_many(["a", bad])):
        with pytest.raises(TypeError, match="must be a str"):
            call(bad)
    assert len(table) == table.span == 0


@pytest.mark.parametrize("bad", ["one name", b"bytes", np.array([1, 2]), np.array([1.0]), 7])
def test_what_is_no_sequence_of_names_is_refused_by_type(bad: Any) -> None:
    with pytest.raises(TypeError):
        NameTable().add_many(bad)


def test_a_table_of_names_must_have_one_dimension() -> None:
    with pytest.raises(ValueError, match="one-dimensional"):
        NameTable().add_many(np.array([["a", "b"]]))


@pytest.mark.parametrize(
    "bad",
    [
        ["a", "\ud800"],
        np.array(["a", "\ud800"]),
        np.array(["\udfff"]),
        np.array([b"a", b"\xff"]),
        np.array([b"\xed\xa0\x80"]),
    ],
)
def test_what_utf_8_cannot_hold_is_refused_and_nothing_is_added(bad: Any) -> None:
    table = NameTable()
    with pytest.raises(UnicodeError):
        table.add_many(bad)
    assert len(table) == table.span == 0
    assert table.add_many(["a"]) == 0


def arrays(lengths: list[int], text: bytes, free: list[int]) -> dict[str, Any]:
    return {
        "lengths": np.array(lengths, dtype=np.int32),
        "text": np.frombuffer(text, dtype=np.uint8),
        "free": np.array(free, dtype=np.int32),
    }


@pytest.mark.parametrize(
    "bad",
    [
        arrays([1, 1], b"aa", []),
        arrays([1], b"", []),
        arrays([1], b"ab", []),
        arrays([-2], b"", []),
        arrays([-1], b"", []),
        arrays([1], b"a", [0]),
        arrays([-1, 1], b"a", [1]),
        arrays([-1, -1], b"", [0, 0]),
        arrays([-1, -1, -1], b"", [2, 0, 2]),
        arrays([-1], b"", [-1]),
        arrays([-1], b"", [1]),
        arrays([1], b"\xff", []),
        arrays([1, 1], "é".encode(), []),
        {"lengths": np.zeros(0, np.int32), "text": np.zeros(0, np.uint8)},
        arrays([], b"", []) | {"lengths": np.zeros(0, np.int64)},
        arrays([], b"", []) | {"text": np.zeros((1, 0), np.uint8)},
        arrays([], b"", []) | {"free": []},
    ],
)
def test_arrays_that_no_table_can_have_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        NameTable.from_arrays(bad)


def test_equal_tables_have_equal_arrays_whatever_their_past() -> None:
    short, long = NameTable(), NameTable()
    short.add_many(["a", "b"])
    long.add_many(["b", "x", "y"])
    long.rename(0, "z")
    long.truncate(1)
    long.add("b")
    long.rename(0, "a")
    assert same_arrays(short.to_arrays(), long.to_arrays())


def test_names_are_told_apart_where_hashes_of_32_bits_must_collide() -> None:
    table = NameTable()
    names = numbered(0, 300_000)
    table.add_many(names)
    assert [table.find(name) for name in names] == list(range(300_000))
    assert table.find("compute-300000") == -1
