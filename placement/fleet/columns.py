"""The fleet's columns: one contiguous array per quantity, grown by doubling, shared with the kernels. Contains no
scheduling rules."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...ext.fleet import Columns
from ..types.errors import InvalidValue
from ..types.limits import MAX_AMOUNT

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
``last_seen_up`` in seconds since the epoch, NaN if heartbeats of the service are not monitored; ``service_up`` 1 or 0;
``pci_weight`` is what PCIWeigher reads."""

COLUMN: Final = {name: index for index, name in enumerate(HOST_COLUMNS)}

INVENTORY_BLOCKS: Final = (
    *("total", "reserved", "min_unit", "max_unit", "step_size"),
    *("used", "base", "limit", "avail", "updated"),
)
"""int64 blocks [resource class, row]. ``base`` is usage loaded without a consumer; ``limit`` = floor of Placement's
capacity; ``avail`` = min(limit - used, max_unit), at most 0 where there is no inventory; ``updated`` = when an
inventory was last written, in microseconds since the epoch, 0 if unknown."""

STANDING_BLOCKS: Final = ("total", "reserved", "min_unit", "max_unit", "step_size")
STANDING_COLUMNS: Final = ("service_host", "parent", "root", "stats", "metrics", "host_ip", "pci", "uuid_hi", "uuid_lo")

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
    "updated": np.float64,
    "reported": np.float64,
    "uuid_hi": np.uint64,
    "uuid_lo": np.uint64,
}
"""One value a row. ``reported``: time of the host's latest report, in seconds since the epoch, 0 without one.
``updated``: when the provider was last written, in seconds since the epoch, 0 if unknown."""

Image = tuple[NDArray[Any], ...]
"""Copy of the columns of some rows."""


def _zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.zeros(shape, dtype=dtype)


class ColumnStore:
    """All columns of a fleet, and the kernel's pointers to them."""

    def __init__(self, capacity: int = 64, classes: int = 4) -> None:
        self.capacity = capacity
        self.classes = classes
        self.rows = 0
        self.host: NDArray[np.float64] = _zeros((len(HOST_COLUMNS), capacity), np.float64)
        self._blocks: dict[str, NDArray[np.int64]] = {
            name: _zeros((classes, capacity), np.int64) for name in INVENTORY_BLOCKS
        }
        self._ratios: NDArray[np.float64] = _zeros((classes, capacity), np.float64)
        """With lines for classes that are yet to come, all zero, which use no memory; the views are without them."""
        self.inventory: dict[str, NDArray[np.int64]] = dict(self._blocks)
        self.ratio: NDArray[np.float64] = self._ratios
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
        self.host = self._larger(self.host, len(self.host), capacity)
        self._enlarge(len(self._ratios), capacity)
        self.row = {name: self._larger(column[None], 1, capacity)[0] for name, column in self.row.items()}
        self.row["first"][self.rows :] = -1
        self.capacity = capacity
        self.attach()
        return True

    def add_class(self) -> int:
        """Add a resource class; returns its index. O(1), but O(capacity * classes) when there are twice as many."""
        index = self.classes
        self.classes += 1
        if self.classes > len(self._ratios):
            self._enlarge(2 * self.classes, self.capacity)
        self._view()
        self.attach()
        return index

    def set_rows(self, rows: int) -> None:
        """Set the number of rows in use."""
        self.rows = rows
        self.kernel.set_rows(rows)

    def image(self, rows: NDArray[np.int32]) -> Image:
        """Copy of all columns of ``rows`` (without consumers), for ``restore``."""
        blocks = (self.host, self.ratio, *self.inventory.values())
        columns = (column for name, column in self.row.items() if name != "first")
        return (*(block[:, rows] for block in blocks), *(column[rows] for column in columns))

    def standing(self, rows: NDArray[np.int32]) -> Image:
        """Copy of what makes ``rows`` providers of their trees, whatever is used of them: all but usage, reports and
        host classes."""
        blocks = (self.ratio, *(self.inventory[name] for name in STANDING_BLOCKS))
        return (*(block[:, rows] for block in blocks), *(self.row[name][rows] for name in STANDING_COLUMNS))

    def restore(self, rows: NDArray[np.int32], image: Image) -> None:
        """Restore ``rows`` from ``image``; resource classes added since are set to zero."""
        parts = iter(image)
        for block in (self.host, self.ratio, *self.inventory.values()):
            part = next(parts)
            block[: len(part), rows] = part
            block[len(part) :, rows] = 0
        for name, column in self.row.items():
            if name != "first":
                column[rows] = next(parts)

    def clear(self, rows: NDArray[np.int32] | slice) -> None:
        """Reset ``rows`` to an empty provider: heartbeats not monitored, its own root, everything else zero."""
        self.host[:, rows] = 0
        self.ratio[:, rows] = 0
        for block in self.inventory.values():
            block[:, rows] = 0
        for column in self.row.values():
            column[rows] = 0
        self.set_empty(rows)

    def set_empty(self, rows: NDArray[np.int32] | slice) -> None:
        """The columns of an empty provider that are not zero."""
        self.host[COLUMN["last_seen_up"], rows] = np.nan
        for name in ("first", "parent", "service_host"):
            self.row[name][rows] = -1
        self.row["root"][rows] = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows

    def refresh_limits(self, resource: int, rows: slice | NDArray[np.int32] | int) -> None:
        """Recompute ``limit`` and ``avail`` of one class after its inventory changed.

        Placement's rule is used + amount <= (total - reserved) * allocation_ratio in double precision; used and amount
        are whole numbers, so comparing with the floor of the right side is equivalent.
        """
        inventory = self.inventory
        left = inventory["total"][resource, rows] - inventory["reserved"][resource, rows]
        limit = np.floor(left * self.ratio[resource, rows])
        whole = np.clip(limit, -(2.0**62), 2.0**62).astype(np.int64)
        avail = np.minimum(whole - inventory["used"][resource, rows], inventory["max_unit"][resource, rows])
        inventory["limit"][resource, rows] = whole
        inventory["avail"][resource, rows] = avail

    def use(self, resource: int, row: int, amount: int) -> None:
        """Add ``amount`` (may be negative) to the usage of one class. O(1)."""
        inventory = self.inventory
        used = inventory["used"][resource, row] = inventory["used"][resource, row] + amount
        left = inventory["limit"][resource, row] - used
        inventory["avail"][resource, row] = min(left, inventory["max_unit"][resource, row])

    @property
    def nbytes(self) -> int:
        """Bytes of all column arrays."""
        arrays = (self.host, self.ratio, *self.inventory.values(), *self.row.values())
        return sum(array.nbytes for array in arrays)

    def _enlarge(self, lines: int, capacity: int) -> None:
        self._blocks = {name: self._larger(block, lines, capacity) for name, block in self.inventory.items()}
        self._ratios = self._larger(self.ratio, lines, capacity)
        self._view()

    def _view(self) -> None:
        self.inventory = {name: block[: self.classes] for name, block in self._blocks.items()}
        self.ratio = self._ratios[: self.classes]

    def _larger(self, block: NDArray[Any], lines: int, capacity: int) -> NDArray[Any]:
        """A copy with more capacity. All-zero lines are not written, so they use no memory yet."""
        larger = _zeros((lines, capacity), block.dtype)
        for old, new in zip(block[:, : self.rows], larger, strict=False):
            if old.any():
                new[: self.rows] = old
        return larger
