"""Pools by what filters read of their reports: pools that are alike in all of it are one class, which is judged once.

What is read is known once a filter has asked for it; classes are told apart by no more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....ext.constants import NOT_A_HOST
from .columns import Mask, Rows
from .rows import PoolRows

MOST_READ: Final = 64
"""Things that classes are told apart by at most; filters that read more are evaluated by pool."""
MOST_VERDICTS: Final = 65_536
"""Results by value that are kept at most."""
CLASSES_PER_ROW: Final = 4
"""Numbers of classes for each row there is room for. Classes without pools keep theirs until these are used up."""


class ClassWish(NamedTuple):
    """What a filter wants of one thing that pools report. ``key`` names the thing, ``read`` gives it for rows; equal
    keys and ``wish``, equal results of ``holds`` for equal values."""

    key: tuple[Hashable, ...]
    read: Callable[[Rows], Sequence[Any]]
    wish: Hashable
    holds: Callable[[Any], bool]


class _KnownWishes(dict[tuple[str, str | None], ClassWish | None]):
    def keep(self, spec: tuple[str, str | None], wish: ClassWish | None) -> ClassWish | None:
        """Keep a wish for its extra spec; returns it."""
        if len(self) >= MOST_VERDICTS:
            self.clear()
        self[spec] = wish
        return wish


class _Read:
    """One thing that is read of all pools: its values by number, and the number that each class has."""

    def __init__(self, read: Callable[[Rows], Sequence[Any]]) -> None:
        self.read = read
        self.forget()

    def forget(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Hashable, int] = {}
        self.by_class: NDArray[np.intp] = np.zeros(0, np.intp)
        self.verdicts: dict[Hashable, NDArray[np.bool_]] = {}
        """By wish, as far as values were known."""

    def numbers(self, rows: Rows) -> list[int]:
        """The number of each row's value. O(rows)."""
        return [self._number(value) for value in self.read(rows)]

    def _number(self, value: Any) -> int:
        # Values that are equal but of two types are not alike to all operators, and some have no hash.
        key = (type(value), value if isinstance(value, str | bool | int) else repr(value))
        number = self._numbers.setdefault(key, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


class PoolClasses:
    """The classes of all pools, by number from 1 on; written into ``columns.live``."""

    def __init__(self, pools: PoolRows) -> None:
        self._pools = pools
        self._read: dict[tuple[Hashable, ...], _Read] = {}
        self._known: dict[tuple[int, ...], int] = {}
        self._layout = -1
        self._changes_seen = 0
        self._rated: dict[bool, Callable[[Rows], NDArray[np.float64]]] = {}
        """What goodness functions say, by how they are read (strict or not), as far as their columns are kept."""
        self.wishes: _KnownWishes = _KnownWishes()
        """Wishes by the extra spec that they come from; None: it is no wish."""
        self.edition = 0
        """Changes when classes get other numbers."""
        self.every: NDArray[np.uint8] = np.zeros(1, np.uint8)
        """Stages of classes of which each passes, as long as a number of a class can be."""

    @property
    def count(self) -> int:
        """Classes so far, with the one of rows without a pool."""
        return len(self._known) + 1

    def add(self, wishes: Sequence[ClassWish]) -> bool:
        """Tell classes apart by what the wishes read. False, and nothing is changed, if that is too much. O(pools) for
        what was not read before."""
        new = {each.key: _Read(each.read) for each in wishes if each.key not in self._read}
        if not new:
            return True
        if len(self._read) + len(new) > MOST_READ:
            return False
        self._read.update(new)
        self._layout = -1
        return True

    def rate(self, read: Callable[[Rows], NDArray[np.float64]], *, strict: bool) -> None:
        """Keep the column of what goodness functions say, as ``read`` gives it for rows. O(pools) the first time."""
        if strict not in self._rated:
            self._rated[strict] = read
            self._layout = -1

    def refresh(self) -> None:
        """Take in what was reported since. O(reports), or O(pools) where rows were rebuilt."""
        pools = self._pools
        if self._layout != pools.layout:
            self._start()
        elif len(pools.changed_rows) != self._changes_seen:
            rows = np.unique(np.array(pools.changed_rows[self._changes_seen :], np.int32))
            self._changes_seen = len(pools.changed_rows)
            self._classify(rows[pools.columns.live[rows] != 0])

    def passing(self, wish: ClassWish) -> Mask:
        """Whether each class has what is wished for, bool[classes]; its key was added, and classes are up to date. Of
        rows without a pool it says nothing. O(new values + classes)."""
        read = self._read[wish.key]
        known = read.verdicts.get(wish.wish)
        if known is None or len(known) < len(read.values):
            held = [] if known is None else known.tolist()
            if len(read.verdicts) >= MOST_VERDICTS:
                read.verdicts.clear()
            held += [wish.holds(value) for value in read.values[len(held) :]]
            known = read.verdicts[wish.wish] = np.array(held, np.bool_)
        if len(read.by_class) < self.count:
            self._line_up()
        if not len(known):
            return np.zeros(self.count, np.bool_)
        found: Mask = known.take(read.by_class)
        return found

    def _line_up(self) -> None:
        for place, read in enumerate(self._read.values()):
            read.by_class = np.array([0, *(key[place] for key in self._known)], np.intp)

    def _start(self) -> None:
        """Give all pools their classes, numbered from 1 on. O(pools)."""
        pools = self._pools
        self._layout, self._changes_seen = pools.layout, len(pools.changed_rows)
        self._known.clear()
        for read in self._read.values():
            read.forget()
        self.edition += 1
        self.every = np.zeros(CLASSES_PER_ROW * pools.columns.capacity + 1, np.uint8)
        self.every[0] = NOT_A_HOST
        self._classify(pools.live_rows())

    def _classify(self, rows: Rows) -> None:
        columns, known = self._pools.columns, self._known
        if len(known) + len(rows) >= CLASSES_PER_ROW * columns.capacity:
            self._start()
            return
        parts = [each.numbers(rows) for each in self._read.values()]
        keys = zip(*parts, strict=True) if parts else ((),) * len(rows)
        classes = np.array([known.setdefault(key, len(known) + 1) for key in keys], np.int32)
        moved = columns.live[rows] != classes
        columns.live[rows] = classes
        for strict, read in self._rated.items():
            ratings = np.nan_to_num(read(rows))
            column = columns.whole[columns.rating(strict=strict)]
            moved |= column[rows] != ratings
            column[rows] = ratings
        columns.changed(*rows[moved].tolist())
