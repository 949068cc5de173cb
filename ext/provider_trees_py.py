"""The pure-Python twin of _provider_trees.pyx: a look at every provider of a tree for every slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .fleet_py import Columns

Mask = npt.NDArray[np.uint8] | None
Slot = tuple[Sequence[tuple[int, int, bool]], Mask, Mask, Mask, int, bool, bool, int]
NONE: Final = 0
SOME: Final = 1
UNSURE: Final = 2


class TreeCounts:
    """A query on the trees of a fleet, answered by counts; see the kernel."""

    def __init__(
        self,
        columns: Columns,
        root: npt.NDArray[np.int32],
        tree_of: npt.NDArray[np.int32],
        rows: npt.NDArray[np.int32],
        starts: npt.NDArray[np.int64],
        unsure: npt.NDArray[np.uint8] | None,
        slots: Sequence[Slot],
        roots: Mask = None,
        required: Sequence[npt.NDArray[np.uint8]] = (),
    ) -> None:
        if len(starts) == 0 or starts[-1] != len(rows):
            raise ValueError("the starts do not end where the rows do")
        if unsure is not None and len(unsure) != len(starts) - 1:
            raise ValueError("a mark for each tree is needed")
        if not len(tree_of) <= len(root) <= columns.capacity:
            raise ValueError("arrays of rows differ in length")
        for needs, *_, count in slots:
            if not needs or count < 1:
                raise ValueError("a slot needs an amount, and a count of 1 at least")
            if not all(0 <= resource < columns.classes for resource, _, _ in needs):
                raise IndexError("resource class out of range")
            if any(amount < 1 for _, amount, _ in needs):
                raise ValueError("an amount must be at least 1")
        masks = [mask for slot in slots for mask in slot[1:4]]
        lengths = {len(mask) for mask in (*masks, roots, *required) if mask is not None}
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError("masks of host classes differ in length")
        self._columns, self._capacity = columns, columns.capacity
        self._root, self._tree_of, self._rows, self._starts = root, tree_of, rows, starts
        self._unsure, self._slots, self._roots, self._required = unsure, slots, roots, required

    def _check(self) -> None:
        if self._columns.capacity != self._capacity:
            raise RuntimeError("the columns moved: make a new query")

    def _able(self, slot: Slot, row: int, root: int) -> bool:
        needs, traits, member, outcast, tree, collective, _, _ = slot
        columns = self._columns
        number, top = columns.class_of[row], columns.class_of[root]
        aggregates = {number, top} if collective else {number}
        for resource, amount, units in needs:
            if columns.avail[resource, row] < amount:
                return False
            step = max(int(columns.step_size[resource, row]), 1)
            if units and (columns.min_unit[resource, row] > amount or amount % step):
                return False
        return (
            tree in (-1, self._tree_of[root])
            and (traits is None or bool(traits[number]))
            and (member is None or any(member[each] for each in aggregates))
            and (outcast is None or not any(outcast[each] for each in aggregates))
        )

    def _times(self, slot: Slot, row: int) -> int:
        needs, *_, apart, count = slot
        if apart:
            return 1
        return min(count, *(int(self._columns.avail[resource, row]) // amount for resource, amount, _ in needs))

    def _judge(self, row: int) -> tuple[int, list[int]]:
        """Whether the tree of a root has a candidate, and where the first one goes."""
        if not 0 <= row < len(self._tree_of) or self._root[row] != row or self._tree_of[row] < 0:
            return NONE, []
        tree = int(self._tree_of[row])
        if self._unsure is not None and self._unsure[tree]:
            return UNSURE, []
        if self._roots is not None and not self._roots[self._columns.class_of[row]]:
            return NONE, []
        members = self._rows[self._starts[tree] : self._starts[tree + 1]].tolist()
        way: list[int] = []
        together: set[int] = set()
        sure = True
        for slot in self._slots:
            able = [each for each in members if self._able(slot, each, row)]
            filled = [each for each in able for _ in range(self._times(slot, each))]
            if len(filled) < slot[-1]:
                return NONE, []
            way += filled[: slot[-1]]
            if slot[5]:
                together.update(able)
                sure &= not self._required or len(able) == 1
        classes = [self._columns.class_of[each] for each in together]
        if not all(any(mask[number] for number in classes) for mask in self._required):
            return NONE, []
        return (SOME, way) if sure else (UNSURE, [])

    def having(self, rows: Iterable[Any]) -> npt.NDArray[np.uint8]:
        """0 for a row that is no root or whose tree has no candidate, 1 for one that has, 2 where a search tells."""
        self._check()
        return np.array([self._judge(int(row))[0] for row in rows], np.uint8)

    def update(self, known: npt.NDArray[Any], changed: npt.NDArray[np.int32]) -> list[int] | None:
        """Bring ``known`` up to date; the roots not in ``changed`` whose answer is another one now, or None; see the
        kernel."""
        self._check()
        if len(known) < len(self._tree_of):
            raise ValueError("an answer for each row is needed")
        roots = [int(self._root[row]) for row in changed.tolist() if 0 <= row < len(self._tree_of)]
        answers = {root: self._judge(root)[0] for root in roots}
        if UNSURE in answers.values():
            return None
        others = [root for root, answer in answers.items() if known[root] != answer]
        known[others] = [answers[root] for root in others]
        named = set(changed.tolist())
        return [root for root in others if root not in named]

    def first(self, row: int) -> tuple[int, list[int] | None]:
        """The answer of ``having`` for a root, and the rows of its first candidate; see the kernel."""
        self._check()
        answer, way = self._judge(row)
        return answer, way if answer == SOME else None
