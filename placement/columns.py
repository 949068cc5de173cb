"""The fleet's columns: one contiguous array per quantity, grown by doubling, shared with the kernels. No rules here."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..ext.fleet import Columns
from .errors import InvalidValue

HOST_COLUMNS: Final = (
    "free_ram_mb",
    "free_vcpus",
    "free_disk_mb",
    "num_io_ops",
    "num_instances",
    "failed_builds",
    "hypervisor_version",
    "pci_weight",
    "vcpus_used",
    "vcpus_total",
    "cpu_allocation_ratio",
    "service_up",
    "total_usable_ram_mb",
    "ram_allocation_ratio",
    "total_usable_disk_gb",
    "disk_mb_used",
    "disk_allocation_ratio",
    "last_seen_up",
)
"""float64 columns of the host block, in the order that ext/_fleet.pxd numbers them. MiB and GiB as named;
``last_seen_up`` in seconds since the epoch, NaN where no heartbeat is watched; ``service_up`` 1 or 0; ``pci_weight``
is what PCIWeigher reads."""

COLUMN: Final = {name: index for index, name in enumerate(HOST_COLUMNS)}

INVENTORY_BLOCKS: Final = ("total", "reserved", "min_unit", "max_unit", "step_size", "used", "base", "limit", "avail")
"""int64 blocks [resource class, row]. ``base`` is usage loaded without a consumer; ``limit`` = floor of Placement's
capacity; ``avail`` = min(limit - used, max_unit), 0 where there is no inventory."""

ROW_COLUMNS: Final = {
    "class_of": np.int32,
    "service_host": np.int32,
    "parent": np.int32,
    "root": np.int32,
    "first": np.int32,
    "stats": np.int32,
    "metrics": np.int32,
    "host_ip": np.int32,
    "pci": np.int32,
    "generation": np.int64,
    "uuid_hi": np.uint64,
    "uuid_lo": np.uint64,
}

MAX_AMOUNT: Final = 2**31 - 1
"""Greatest total, reserved, unit or amount (Placement: a signed 32-bit database integer)."""


def _zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.zeros(shape, dtype=dtype)


class ColumnStore:
    """All columns of a fleet, and the kernel's pointers to them."""

    def __init__(self, capacity: int = 64, classes: int = 4) -> None:
        self.capacity = capacity
        self.classes = classes
        self.rows = 0
        self.host: NDArray[np.float64] = _zeros((len(HOST_COLUMNS), capacity), np.float64)
        self.inventory: dict[str, NDArray[np.int64]] = {
            name: _zeros((classes, capacity), np.int64) for name in INVENTORY_BLOCKS
        }
        self.ratio: NDArray[np.float64] = _zeros((classes, capacity), np.float64)
        self.row: dict[str, NDArray[Any]] = {name: _zeros((capacity,), dtype) for name, dtype in ROW_COLUMNS.items()}
        self.row["first"][:] = -1
        self.kernel = Columns()
        self.attach()

    def attach(self) -> None:
        """Point the kernel at the arrays as they are now."""
        inventory = self.inventory
        self.kernel.attach(
            avail=inventory["avail"],
            used=inventory["used"],
            limit=inventory["limit"],
            min_unit=inventory["min_unit"],
            max_unit=inventory["max_unit"],
            step_size=inventory["step_size"],
            host=self.host,
            class_of=self.row["class_of"],
            generation=self.row["generation"],
            first=self.row["first"],
        )

    def reserve(self, rows: int) -> bool:
        """Make room for ``rows`` rows in all. True if the arrays moved. O(capacity) when it grows, by doubling."""
        if rows <= self.capacity:
            return False
        if rows > MAX_AMOUNT:
            raise InvalidValue(f"{rows} rows are more than a fleet can hold", field="rows")
        capacity = max(rows, 2 * self.capacity)
        capacity = -(-capacity // 64) * 64
        self.host = self._wider(self.host, capacity)
        self.inventory = {name: self._wider(block, capacity) for name, block in self.inventory.items()}
        self.ratio = self._wider(self.ratio, capacity)
        self.row = {name: self._wider(column, capacity) for name, column in self.row.items()}
        self.row["first"][self.rows :] = -1
        self.capacity = capacity
        self.attach()
        return True

    def add_class(self) -> int:
        """Room for one more resource class; returns its index."""
        index = self.classes
        self.classes += 1
        self.inventory = {name: self._taller(block) for name, block in self.inventory.items()}
        self.ratio = self._taller(self.ratio)
        self.attach()
        return index

    def set_rows(self, rows: int) -> None:
        """Say how many rows are handed out."""
        self.rows = rows
        self.kernel.set_rows(rows)

    def image(self, row: int) -> tuple[NDArray[Any], ...]:
        """Copy of everything the columns hold of a row (not of its consumers), to be put back by ``restore``."""
        return (
            self.host[:, row].copy(),
            self.ratio[:, row].copy(),
            *(block[:, row].copy() for block in self.inventory.values()),
            *(column[row : row + 1].copy() for name, column in self.row.items() if name != "first"),
        )

    def restore(self, row: int, image: tuple[NDArray[Any], ...]) -> None:
        """Put a row back as ``image`` had it; resource classes added since read as zero."""
        parts = iter(image)
        self.host[:, row] = next(parts)
        for block in (self.ratio, *self.inventory.values()):
            part = next(parts)
            block[: len(part), row] = part
            block[len(part) :, row] = 0
        for name, column in self.row.items():
            if name != "first":
                column[row] = next(parts)[0]

    def clear(self, row: int) -> None:
        """Zero a row."""
        self.host[:, row] = 0
        self.ratio[:, row] = 0
        for block in self.inventory.values():
            block[:, row] = 0
        for name, column in self.row.items():
            column[row] = -1 if name in ("first", "parent", "service_host") else 0
        self.row["root"][row] = row

    def refresh_limits(self, resource: int, rows: slice | NDArray[np.int32] | int) -> None:
        """Recompute ``limit`` and ``avail`` of one class after its inventory changed.

        Placement's rule is used + amount <= (total - reserved) * allocation_ratio in double precision; used and amount
        are whole numbers, so the floor of the right side says the same.
        """
        inventory = self.inventory
        total, reserved = inventory["total"][resource, rows], inventory["reserved"][resource, rows]
        limit = np.floor((total - reserved) * self.ratio[resource, rows])
        whole = np.clip(limit, -(2.0**62), 2.0**62).astype(np.int64)
        avail = np.minimum(whole - inventory["used"][resource, rows], inventory["max_unit"][resource, rows])
        inventory["limit"][resource, rows] = whole
        inventory["avail"][resource, rows] = np.where(total > 0, avail, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of all column arrays."""
        arrays = (self.host, self.ratio, *self.inventory.values(), *self.row.values())
        return sum(array.nbytes for array in arrays)

    @staticmethod
    def _wider(block: NDArray[Any], capacity: int) -> NDArray[Any]:
        wider = _zeros((*block.shape[:-1], capacity), block.dtype)
        wider[..., : block.shape[-1]] = block
        return wider

    @staticmethod
    def _taller(block: NDArray[Any]) -> NDArray[Any]:
        taller = _zeros((block.shape[0] + 1, block.shape[1]), block.dtype)
        taller[:-1] = block
        return taller
