"""Counts of provider trees: the kernel and its twin against a plain reading of the rules, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from hostler.ext import provider_trees
from hostler.ext.fleet import Columns
from hostler.ext.provider_trees import TreeCounts

from .world import Arrays, empty_arrays

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]


class Forest:
    """Random trees with random amounts, few of each; the last rows are in no tree."""

    def __init__(self, seed: int, rows: int) -> None:
        draw = self.draw = np.random.default_rng(seed)
        self.rows, capacity = rows, -(-max(rows, 1) // 64) * 64
        self.arrays: Arrays = empty_arrays(capacity)
        for name, most in (("avail", 5), ("min_unit", 3), ("step_size", 3)):
            self.arrays[name][:] = draw.integers(0, most, self.arrays[name].shape)
        self.arrays["class_of"][:] = draw.integers(0, 4, capacity)
        self.columns = Columns()
        self.columns.attach(**self.arrays)
        self.columns.set_rows(rows)
        self.root = np.arange(capacity, dtype=np.int32)
        for row in range(1, rows):
            self.root[row] = self.root[draw.integers(row)] if draw.integers(4) else row
        gone = set(draw.choice(rows, rows // 8, replace=False).tolist()) - set(self.root[:rows].tolist())
        self.members: dict[int, list[int]] = {}
        for row in range(rows):
            if row not in gone:
                self.members.setdefault(int(self.root[row]), []).append(row)
        self.tree_of = np.full(rows, -1, np.int32)
        for tree, members in enumerate(self.members.values()):
            self.tree_of[members] = tree
        self.order = np.array([row for members in self.members.values() for row in members], np.int32)
        self.starts = np.cumsum([0, *map(len, self.members.values())]).astype(np.int64)
        self.unsure = (draw.integers(0, 8, len(self.members)) == 0).astype(np.uint8) if draw.integers(2) else None
        self.roots = self._mask(4)
        self.required = [mask for mask in (self._mask(2), self._mask(4)) if mask is not None and draw.integers(2)]
        alone = [self._slot(1, collective=bool(draw.integers(2))) for _ in range(draw.integers(0, 3))]
        self.slots = [*alone, self._slot(int(draw.integers(1, 4)), collective=False)]

    def _mask(self, one_in: int) -> Any:
        return None if self.draw.integers(one_in) else (self.draw.integers(0, 3, 4) > 0).astype(np.uint8)

    def _slot(self, count: int, *, collective: bool) -> Any:
        draw = self.draw
        named = draw.choice(3, draw.integers(1, 3), replace=False).tolist()
        needs = [(each, int(draw.integers(1, 3)), bool(draw.integers(2))) for each in named]
        tree = int(draw.integers(len(self.members))) if not draw.integers(8) else -1
        return needs, self._mask(2), self._mask(2), self._mask(3), tree, collective, bool(draw.integers(2)), count

    def made(self) -> TreeCounts:
        places = self.root, self.tree_of, self.order, self.starts
        return TreeCounts(self.columns, *places, self.unsure, self.slots, self.roots, self.required)

    def able(self, slot: Any, row: int) -> bool:
        needs, traits, member, outcast, tree, collective, *_ = slot
        own, top = self.arrays["class_of"][row], self.arrays["class_of"][self.root[row]]
        for each, amount, units in needs:
            least, step = self.arrays["min_unit"][each, row], max(self.arrays["step_size"][each, row], 1)
            if self.arrays["avail"][each, row] < amount or (units and (amount < least or amount % step)):
                return False
        inside = member is None or member[own] or (collective and member[top])
        outside = outcast is not None and (outcast[own] or (collective and outcast[top]))
        return bool(tree in (-1, self.tree_of[row]) and (traits is None or traits[own]) and inside and not outside)

    def expected(self, row: int) -> tuple[int, list[int] | None]:
        """Each equal slot goes to the first provider that has enough left, those apart to one each."""
        if row not in self.members:
            return 0, None
        if self.unsure is not None and self.unsure[self.tree_of[row]]:
            return 2, None
        if self.roots is not None and not self.roots[self.arrays["class_of"][row]]:
            return 0, None
        way, together, several = [], set[int](), False
        for slot in self.slots:
            left = {each: self.arrays["avail"][:, each].copy() for each in self.members[row] if self.able(slot, each)}
            several |= slot[5] and len(left) > 1
            together |= set(left) if slot[5] else set()
            for _ in range(slot[-1]):
                room = (each for each, has in left.items() if all(has[need] >= amount for need, amount, _ in slot[0]))
                chosen = next(room, None)
                if chosen is None:
                    return 0, None
                for need, amount, _ in slot[0]:
                    left[chosen][need] -= amount
                if slot[6]:
                    left.pop(chosen)
                way.append(chosen)
        classes = {int(self.arrays["class_of"][each]) for each in together}
        if not all(any(mask[each] for each in classes) for mask in self.required):
            return 0, None
        return (2, None) if several and self.required else (1, way)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_trees_are_counted_as_the_rules_say(seed: int, rows: int) -> None:
    forest = Forest(seed, rows)
    counts, expected = forest.made(), [forest.expected(row) for row in range(rows)]
    event(f"answers {sorted({answer for answer, _ in expected})}")
    assert [counts.first(row) for row in range(rows)] == expected
    every = np.arange(-1, rows + 1, dtype=np.int32)
    assert counts.having(every).tolist() == [0, *(answer for answer, _ in expected), 0]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.integers(1, 40), st.lists(st.integers(0, 39), max_size=12))
def test_answers_are_kept_up_to_date(seed: int, rows: int, picked: list[int]) -> None:
    forest = Forest(seed, rows)
    forest.unsure, forest.required = (None, []) if seed % 4 else (forest.unsure, forest.required)
    counts = forest.made()
    known = np.zeros(len(forest.root), np.uint8)
    known[:rows] = before = counts.having(np.arange(rows, dtype=np.int32)) == 1
    changed = np.array([each % rows for each in picked], np.int32)
    forest.arrays["avail"][:, changed] = forest.draw.integers(0, 5, (3, len(changed)))
    after = counts.having(np.arange(rows, dtype=np.int32))
    tops = set(forest.root[changed].tolist())
    others = counts.update(known, changed)
    if any(after[top] == 2 for top in tops):
        assert others is None
        assert known[:rows].tolist() == before.tolist()
        return
    assert others is not None
    assert set(others) == {top for top in tops if before[top] != after[top]} - set(changed.tolist())
    assert [known[row] for row in tops] == [after[row] for row in tops]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"slots": [([(9, 1, False)], None, None, None, -1, True, False, 1)]}, IndexError),
        ({"slots": [([(0, 0, False)], None, None, None, -1, True, False, 1)]}, ValueError),
        ({"slots": [([(0, 1, False)], None, None, None, -1, True, False, 0)]}, ValueError),
        ({"slots": [([], None, None, None, -1, True, False, 1)]}, ValueError),
        ({"roots": np.ones(3, np.uint8), "required": [np.ones(4, np.uint8)]}, ValueError),
        ({"unsure": np.ones(99, np.uint8)}, ValueError),
        ({"starts": np.zeros(1, np.int64)}, ValueError),
        ({"root": np.zeros(500, np.int32)}, ValueError),
    ],
)
def test_queries_that_cannot_be_are_errors(fields: dict[str, Any], error: type[Exception]) -> None:
    forest = Forest(1, 20)
    places: dict[str, Any] = {
        "root": forest.root,
        "tree_of": forest.tree_of,
        "rows": forest.order,
        "starts": forest.starts,
    }
    with pytest.raises(error):
        TreeCounts(forest.columns, **(places | {"unsure": None, "slots": forest.slots} | fields))


def test_a_query_ends_where_the_columns_move() -> None:
    forest = Forest(1, 20)
    counts = forest.made()
    forest.columns.attach(**empty_arrays(256))
    for ask in (lambda: counts.first(0), lambda: counts.having(np.zeros(1, np.int32))):
        with pytest.raises(RuntimeError, match="moved"):
            ask()


def test_the_twin_has_what_the_kernel_has() -> None:
    assert {"first", "having", "update"} <= set(dir(provider_trees.TreeCounts))
