"""Capacities of all pools as numpy columns, [column, row], and the kernel's pointers to them.

Rows are in candidate order: backends in the order of their first report, each with its pools in the order of theirs.
The row of a removed pool stays empty until the rows are rebuilt.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ....ext.constants import SERVICE_UP
from ....ext.fleet import Columns
from ....ext.pools import consume, derive

Rows = NDArray[np.int32]
"""Pools by row number, int32[pools]."""
Mask = NDArray[np.bool_]
"""Which of some pools, bool[pools]."""

NAMES: Final = (
    "total",
    "free",
    "allocated",
    "provisioned",
    "reserved_percentage",
    "ratio",
    "thin",
    "bounded",
    "updated",
    "volumes",
    "room_thin",
    "room_thick",
    "virtual_thin",
    "virtual_thick",
    "endless",
    "counted",
)
"""Columns, in the order of ext/pool_constants.py, which says what they hold."""
COLUMN: Final = {name: index for index, name in enumerate(NAMES)}
WIDTH: Final = max(len(NAMES), SERVICE_UP + 1)
RATINGS: Final = 2
"""Columns behind these, of what functions say of pools: no figures of a pool, but worked out of its report."""


class PoolColumns:
    """The columns and the change log. Not the rules of what a row may hold."""

    def __init__(self, capacity: int = 64) -> None:
        self.rows = 0
        self.kernel = Columns()
        self.whole: NDArray[np.float64] = np.zeros((WIDTH + RATINGS, capacity))
        self.live: NDArray[np.int32] = np.zeros(capacity, np.int32)
        """By row, 0 where there is no pool, else the class of the pool (``PoolClasses``), 1 before it has one."""
        self._attach()

    @property
    def capacity(self) -> int:
        """Rows there is room for."""
        return int(self.whole.shape[1])

    def rating(self, *, strict: bool) -> int:
        """The column for what goodness functions say, which is at most two."""
        return WIDTH + strict

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """Live view of one column over all rows, float64[rows]. O(1)."""
        return self.block[COLUMN[name], : self.rows]

    def _attach(self) -> None:
        capacity = self.capacity
        self.block: NDArray[np.float64] = self.whole[:WIDTH]
        none = {name: np.zeros((0, capacity), np.int64) for name in _INVENTORY}
        first = np.full(capacity, -1, np.int32)
        self.kernel.attach(
            **none, host=self.whole, class_of=self.live, generation=np.zeros(capacity, np.int64), first=first
        )

    def resize(self, rows: int) -> None:
        """Have ``rows`` rows; new ones are empty. Room grows by doubling, and then the arrays move."""
        if rows > self.capacity:
            capacity = -(-max(rows, 2 * self.capacity) // 64) * 64
            whole, live = self.whole, self.live
            self.whole = np.zeros((len(whole), capacity))
            self.live = np.zeros(capacity, np.int32)
            self.whole[:, : whole.shape[1]] = whole
            self.live[: len(live)] = live
            self._attach()
        self.whole[:, self.rows : rows] = 0.0
        self.live[self.rows : rows] = 0
        self.rows = rows
        self.kernel.set_rows(rows)

    def order(self, block: NDArray[np.float64], live: NDArray[np.int32]) -> None:
        """Replace all rows. Readers of the log start again."""
        self.resize(len(live))
        self.block[:, : self.rows] = block
        self.live[: self.rows] = live
        self.block[:, self.rows :] = 0.0
        self.live[self.rows :] = 0
        self.kernel.forget_log()

    def derive(self, row: int) -> None:
        """Work out what follows from a row's figures. O(1)."""
        derive(self.block, np.array([row], np.int32))

    def consume(self, row: int, size_gb: float, at: float | None) -> None:
        """Take ``size_gb`` GiB of a row at ``at`` (None: the time stays), and note it in the log. O(1)."""
        consume(self.block, row, size_gb, math.nan if at is None else at)
        self.changed(row)

    def changed(self, *rows: int) -> None:
        """Note in the log that rows changed. O(rows)."""
        self.kernel.mark_changed(np.array(rows, np.int32))


_INVENTORY: Final[tuple[str, ...]] = ("avail", "used", "limit", "min_unit", "max_unit", "step_size")
