"""Pure-Python table of NUMA cells: a dictionary of values and the rules of ``placement.numa``. Twin of the kernel's
table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...numa import encoding
from ...numa.cores import has_threads
from ...numa.fit import FittedNuma, Limits
from ...numa.fit import fit as numa_fit
from ...numa.usage import usage as numa_usage
from ...types.errors import InvalidValue
from ...types.host import MemoryPages, NumaCell, NumaTopology, PciPool
from ...types.request import InstanceNumaTopology, PciRequest

MOST_CELLS = 64
MOST_CPUS = 1024
MOST_PAGE_SIZES = 16
_MOST = 1 << 42
_MOST_KB = 1 << 60
_MOST_PAGE_KB = 1 << 30
_MOST_ID = 2**31 - 1


class NumaProgram:
    """A guest's NUMA cells and how to place them. Made by a table's ``compile``."""

    __slots__ = ("limited", "needs_smt", "packing", "wanted")

    def __init__(self, wanted: InstanceNumaTopology, *, packing: bool, limited: bool, needs_smt: bool) -> None:
        self.wanted = wanted
        self.packing = packing
        self.limited = limited
        self.needs_smt = needs_smt

    def fit_by_rules(
        self,
        topology: NumaTopology | None,
        limits: Limits | None,
        pci_requests: Sequence[PciRequest],
        pci_pools: Sequence[PciPool],
    ) -> FittedNuma | None:
        """``numa_fit`` as compiled."""
        if topology is None or (self.needs_smt and not has_threads(topology.cells)):
            return None
        return numa_fit(
            topology,
            self.wanted,
            limits=limits if self.limited else None,
            pci_requests=pci_requests,
            pci_pools=pci_pools,
            packing=self.packing,
        )


@dataclass(frozen=True, slots=True)
class _Row:
    topology: NumaTopology
    limits: Limits


class PyNumaTable:
    """NUMA state of many rows as plain values."""

    def __init__(self, capacity: int = 0) -> None:
        self._rows: dict[int, _Row] = {}

    @property
    def nbytes(self) -> int:
        """Statistics that only the kernel's table has."""
        return 0

    def set_row(self, row: int, topology: NumaTopology | None, cpu_ratio: float, ram_ratio: float) -> None:
        """Set a row's cells and allocation ratios; None: it has no cells. InvalidValue, and nothing changed, if a
        number is out of range."""
        _check_row(row)
        if topology is None or not topology.cells:
            self._rows.pop(row, None)
            return
        check_topology(topology)
        if cpu_ratio != cpu_ratio or ram_ratio != ram_ratio:
            raise InvalidValue("an allocation ratio is not a number", field="numa_topology")
        self._rows[row] = _Row(topology, Limits(cpu_ratio, ram_ratio))

    def clear_row(self, row: int) -> None:
        """The row has no cells."""
        _check_row(row)
        self._rows.pop(row, None)

    def get_row(self, row: int) -> NumaTopology | None:
        """The row's cells as they are now."""
        _check_row(row)
        return self._rows[row].topology if row in self._rows else None

    def copy_row(self, row: int, source: PyNumaTable, source_row: int) -> None:
        """Make a row equal to a row of this or another table."""
        _check_row(row)
        _check_row(source_row)
        copied = source._rows.get(source_row)
        self._rows.pop(row, None)
        if copied is not None:
            self._rows[row] = copied

    def same_row(self, row: int, other: PyNumaTable, other_row: int) -> bool:
        """True if a row is equal to a row of this or another table."""
        _check_row(row)
        _check_row(other_row)
        return self._rows.get(row) == other._rows.get(other_row)

    def compile(
        self, wanted: InstanceNumaTopology, *, packing: bool = False, limited: bool = True, needs_smt: bool = False
    ) -> NumaProgram:
        """``wanted`` for ``mask`` and ``fit``."""
        if not 0 < len(wanted.cells) <= MOST_CELLS:
            raise InvalidValue(f"a guest has 1 .. {MOST_CELLS} NUMA cells", field="numa_topology")
        for cell in wanted.cells:
            _check("memory", cell.memory, 0, _MOST)
            _check("page size", cell.pagesize or 0, -3, _MOST_PAGE_KB)
        return NumaProgram(wanted, packing=packing, limited=limited, needs_smt=needs_smt)

    def mask(self, program: NumaProgram, rows: NDArray[np.int32], out: NDArray[np.uint8]) -> None:
        """``out[row]`` = 1 if the guest fits the row, else 0, for each of ``rows``; for requests without PCI
        devices."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(out):
            raise IndexError("row out of range")
        for row in rows.tolist():
            out[row] = self.fit(program, row) is not None

    def judge(self, program: NumaProgram, rows: NDArray[np.int32]) -> NDArray[np.uint8]:
        """1 for each of ``rows`` that the guest fits, else 0; for requests without PCI devices."""
        return np.array([self.fit(program, row) is not None for row in rows.tolist()], np.uint8)

    def fit(
        self,
        program: NumaProgram,
        row: int,
        *,
        pci_requests: Sequence[PciRequest] = (),
        pci_pools: Sequence[PciPool] = (),
    ) -> FittedNuma | None:
        """``numa_fit`` on the row."""
        _check_row(row)
        if row not in self._rows:
            return None
        return program.fit_by_rules(self._rows[row].topology, self._rows[row].limits, pci_requests, pci_pools)

    def consume(self, row: int, fitted: FittedNuma) -> None:
        """``numa_usage``. InvalidValue, and nothing changed, where that raises it."""
        self._change(row, fitted, free=False)

    def release(self, row: int, fitted: FittedNuma) -> None:
        """``numa_usage`` with ``free``. InvalidValue, and nothing changed, where that raises it."""
        self._change(row, fitted, free=True)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All rows as arrays, equal for equal tables; not in the kernel's form."""
        rows = sorted(self._rows)
        words = [encoding.topology_words(self._rows[row].topology) for row in rows]
        return {
            "rows": np.array(rows, np.int64),
            "ratios": np.array([self._rows[row].limits for row in rows], np.float64).reshape(-1, 2),
            "ends": np.cumsum([len(each) for each in words], dtype=np.int64),
            "words": np.array([word for each in words for word in each], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> PyNumaTable:
        """The table that gave ``to_arrays``. InvalidValue if the arrays are damaged."""
        table = cls()
        begin = 0
        try:
            words = arrays["words"].tolist()
            for row, ratios, end in zip(arrays["rows"], arrays["ratios"], arrays["ends"], strict=True):
                topology = encoding.topology(words[begin:end])
                table.set_row(int(row), topology, float(ratios[0]), float(ratios[1]))
                begin = int(end)
        except (KeyError, IndexError, RuntimeError, StopIteration, TypeError, ValueError) as error:
            raise InvalidValue(f"damaged NUMA table: {error!r}", field="numa") from None
        return table

    def check(self) -> None:
        """AssertionError if the table contradicts itself."""
        for row in self._rows.values():
            check_topology(row.topology)

    def _change(self, row: int, fitted: FittedNuma, *, free: bool) -> None:
        _check_row(row)
        if row not in self._rows:
            raise InvalidValue(f"row {row} has no NUMA cells", field="fitted")
        before = self._rows[row]
        topology = numa_usage(before.topology, fitted, free=free)
        check_topology(topology)
        self._rows[row] = _Row(topology, before.limits)


def check_topology(topology: NumaTopology) -> None:
    """InvalidValue if the cells exceed the limits of the tables, or contradict each other."""
    _check("number of NUMA cells", len(topology.cells), 1, MOST_CELLS)
    if len({cell.id for cell in topology.cells}) < len(topology.cells):
        raise InvalidValue("two NUMA cells have the same id", field="numa_topology")
    for cell in topology.cells:
        _check_cell(cell)


def _check_cell(cell: NumaCell) -> None:
    _check("NUMA cell id", cell.id, 0, _MOST_ID)
    _check("socket", cell.socket or 0, 0, _MOST_ID)
    _check("memory", cell.memory, 0, _MOST)
    _check("memory usage", cell.memory_usage, -_MOST, _MOST)
    _check("CPU usage", cell.cpu_usage, -_MOST, _MOST)
    on_cores = [cpu for core in cell.siblings for cpu in core]
    for cpu in (*cell.cpuset, *cell.pcpuset, *cell.pinned_cpus, *on_cores):
        _check("CPU id", cpu, 0, MOST_CPUS - 1)
    _check("number of cores", len(cell.siblings), 0, MOST_CPUS)
    if len(set(on_cores)) < len(on_cores):
        raise InvalidValue("a CPU is on two cores", field="numa_topology")
    _check("number of page sizes", len(cell.mempages), 0, MOST_PAGE_SIZES)
    if len({pages.size_kb for pages in cell.mempages}) < len(cell.mempages):
        raise InvalidValue("a page size is there twice", field="numa_topology")
    for pages in cell.mempages:
        _check_pages(pages)


def _check_pages(pages: MemoryPages) -> None:
    _check("page size", pages.size_kb, 1, _MOST_PAGE_KB)
    for count in (pages.total, pages.used, pages.reserved):
        _check("pages", count, 0, min(_MOST, _MOST_KB // pages.size_kb))


def _check(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidValue(f"{what} {value} is not in {least} .. {most}", field="numa_topology")


def _check_row(row: int) -> None:
    if row < 0:
        raise IndexError(f"row {row}")
