"""Figures of all pools as numpy columns, [column, row], and the kernel's pointers to them. Rows are in candidate order:
backends as they came, their pools as they came; a row that no pool has any more is empty until the rows are laid anew.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import NOT_A_HOST, SERVICE_UP
from ...ext.fleet import Columns
from .capacity import capacity_factors, room

NAMES: Final = (
    "total",  # GiB as reported; 0 where it is no number
    "free",
    "allocated",
    "provisioned",
    "reserved_percentage",
    "ratio",  # max_over_subscription_ratio
    "thin",  # 1: can provision thinly
    "bounded",  # 1: total and free are numbers
    "updated",  # seconds since the epoch of the last report or placement
    "volumes",  # volumes known to be on the pool
    "room_thin",  # greatest request in GiB that fits, by CapacityFilter; -inf: none, inf: any
    "room_thick",
    "virtual_thin",  # virtual free capacity in GiB by CapacityWeigher; -1 where it is not bounded
    "virtual_thick",
    "endless",  # 1: fits whatever is asked for (free, or total without a reserve, is no number)
)
COLUMN: Final = {name: index for index, name in enumerate(NAMES)}
CLASS_STAGE: Final = np.array([NOT_A_HOST, 0], np.uint8)
"""Stages of the two classes of rows: empty, and a pool."""


class PoolColumns:
    """The columns and the change log. Not the rules of what a row may hold."""

    def __init__(self, capacity: int = 64) -> None:
        self.rows = 0
        self.kernel = Columns()
        self.block: NDArray[np.float64] = np.zeros((max(len(NAMES), SERVICE_UP + 1), capacity))
        self.live: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self._attach()

    @property
    def capacity(self) -> int:
        """Rows there is room for."""
        return int(self.block.shape[1])

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """Live view of one column over all rows, float64[rows]. O(1)."""
        return self.block[COLUMN[name], : self.rows]

    def _attach(self) -> None:
        capacity = self.capacity
        none = {name: np.zeros((0, capacity), np.int64) for name in _INVENTORY}
        first = np.full(capacity, -1, np.int32)
        self.kernel.attach(
            **none, host=self.block, class_of=self.live, generation=np.zeros(capacity, np.int64), first=first
        )

    def resize(self, rows: int) -> None:
        """Have ``rows`` rows; new ones are empty. Room grows by doubling, and then the arrays move."""
        if rows > self.capacity:
            capacity = -(-max(rows, 2 * self.capacity) // 64) * 64
            block, live = self.block, self.live
            self.block = np.zeros((len(block), capacity))
            self.live = np.zeros(capacity, np.int32)
            self.block[:, : block.shape[1]] = block
            self.live[: len(live)] = live
            self._attach()
        self.block[:, self.rows : rows] = 0.0
        self.live[self.rows : rows] = 0
        self.rows = rows
        self.kernel.set_rows(rows)

    def order(self, block: NDArray[np.float64], live: NDArray[np.int32]) -> None:
        """Hold exactly these rows. Whoever follows the log starts anew."""
        self.resize(len(live))
        self.block[:, : self.rows] = block
        self.live[: self.rows] = live
        self.block[:, self.rows :] = 0.0
        self.live[self.rows :] = 0
        self.kernel.forget_log()

    def derive(self, row: int) -> None:
        """Work out what follows from a row's figures. O(1)."""
        block = self.block
        total, free, _, provisioned, reserved, ratio, thin, bounded = block[:8, row].tolist()
        if not bounded:
            most = np.inf if block[COLUMN["endless"], row] else -np.inf
            block[10:14, row] = (most, most, -1.0, -1.0)
            return
        for kind, (at_room, at_virtual) in enumerate(((11, 13), (10, 12))):
            factors = capacity_factors(
                total_capacity=total,
                free_capacity=free,
                provisioned_capacity=provisioned,
                thin_provisioning_support=bool(thin),
                max_over_subscription_ratio=ratio,
                reserved_percentage=reserved,
                thin=bool(kind),
            )
            block[at_room, row] = room(factors, ratio, provisioned) if total > 0 else -np.inf
            block[at_virtual, row] = factors.virtual_free_capacity

    def changed(self, *rows: int) -> None:
        """Note in the log that rows changed. O(rows)."""
        self.kernel.mark_changed(np.array(rows, np.int32))


_INVENTORY: Final[tuple[str, ...]] = ("avail", "used", "limit", "min_unit", "max_unit", "step_size")
Image = tuple[NDArray[np.float64], Any]
