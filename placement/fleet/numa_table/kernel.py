"""Adapter of the kernel's table of NUMA cells (``ext/_numa``): converts values to the kernel's numbers and back."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....ext import _numa
from ...devices import pci
from ...numa import encoding
from ...numa.fit import FittedNuma, Limits
from ...types.errors import InvalidValue
from ...types.host import NumaTopology, PciPool
from ...types.request import InstanceNumaTopology, PciRequest
from .twin import NumaProgram

_MODELS_KEPT = 256  # hosts of one model share their sets of CPUs


class KernelProgram(NumaProgram):
    """A guest's NUMA cells, compiled for the kernel."""

    __slots__ = ("kernel",)

    kernel: _numa.NumaProgram


class KernelNumaTable:
    """NUMA state of many rows in flat arrays. Bytes per row: 8, with NUMA cells 24, and per cell 24 + 8 per 64 CPU ids
    + 24 per page size; hosts of equal hardware share the rest."""

    def __init__(self, capacity: int = 0) -> None:
        self._kernel = _numa.NumaTable(capacity)
        self._models: dict[bytes, NumaTopology] = {}

    @property
    def nbytes(self) -> int:
        """Bytes held. O(shapes)."""
        return self._kernel.nbytes

    def set_row(self, row: int, topology: NumaTopology | None, cpu_ratio: float, ram_ratio: float) -> None:
        """Set a row's cells and allocation ratios; None: it has no cells. InvalidValue, and nothing changed, if a
        number is out of range. O(CPUs)."""
        if topology is None or not topology.cells:
            self._kernel.clear_row(row)
            return
        try:
            self._kernel.set_row(row, encoding.topology_words(topology), cpu_ratio, ram_ratio)
        except (ValueError, OverflowError) as error:
            raise InvalidValue(str(error), field="numa_topology") from None

    def clear_row(self, row: int) -> None:
        """The row has no cells. O(1)."""
        self._kernel.clear_row(row)

    def get_row(self, row: int) -> NumaTopology | None:
        """The row's cells as they are now. O(CPUs)."""
        block = self._kernel.shape_block(row)
        if block is None:
            return None
        model = self._models.get(block)
        if model is None:
            if len(self._models) >= _MODELS_KEPT:
                self._models.clear()
            model = self._models[block] = encoding.topology(self._kernel.get_row(row) or [])
        return encoding.with_state(model, self._kernel.state_words(row))

    def copy_row(self, row: int, source: KernelNumaTable, source_row: int) -> None:
        """Make a row equal to a row of this or another table. O(shape)."""
        self._kernel.copy_row(row, source._kernel, source_row)

    def same_row(self, row: int, other: KernelNumaTable, other_row: int) -> bool:
        """True if a row is equal to a row of this or another table. O(shape)."""
        return self._kernel.same_row(row, other._kernel, other_row)

    def compile(
        self, wanted: InstanceNumaTopology, *, packing: bool = False, limited: bool = True, needs_smt: bool = False
    ) -> NumaProgram:
        """``wanted`` for ``mask`` and ``fit``. ``packing``: fill used cells first. ``limited``: allocation ratios bind,
        as after Nova's NUMATopologyFilter. ``needs_smt``: only hosts with several threads on a core."""
        program = KernelProgram(wanted, packing=packing, limited=limited, needs_smt=needs_smt)
        try:
            program.kernel = self._kernel.compile(encoding.request_words(wanted), packing, limited, needs_smt)
        except (ValueError, OverflowError) as error:
            raise InvalidValue(str(error), field="numa_topology") from None
        return program

    def mask(self, program: NumaProgram, rows: NDArray[np.int32], out: NDArray[np.uint8]) -> None:
        """``out[row]`` = 1 if the guest fits the row, else 0, for each of ``rows``; for requests without PCI devices.
        O(rows * guest cells * host cells)."""
        assert isinstance(program, KernelProgram)
        self._kernel.mask(program.kernel, rows, out)

    def judge(self, program: NumaProgram, rows: NDArray[np.int32]) -> NDArray[np.uint8]:
        """1 for each of ``rows`` that the guest fits, else 0; for requests without PCI devices. Cost as ``mask``."""
        assert isinstance(program, KernelProgram)
        out = np.empty(len(rows), np.uint8)
        self._kernel.judge(program.kernel, rows, out)
        return out

    def fit(
        self,
        program: NumaProgram,
        row: int,
        *,
        pci_requests: Sequence[PciRequest] = (),
        pci_pools: Sequence[PciPool] = (),
    ) -> FittedNuma | None:
        """``numa_fit`` on the row; with PCI requests by the Python rules."""
        assert isinstance(program, KernelProgram)
        if pci_requests:
            return program.fit_by_rules(self.get_row(row), self._limits(row), pci_requests, pci_pools)
        near = [pair for pair in pci.free_by_node(pci_pools).items() if pair[0] is not None]
        places = self._kernel.fit(program.kernel, row, np.array(near, np.int64).reshape(-1, 2))
        return None if places is None else encoding.fitted(program.wanted, places)

    def consume(self, row: int, fitted: FittedNuma) -> None:
        """``numa_usage``. InvalidValue, and nothing changed, where that raises it. O(CPUs taken)."""
        self._change(row, self._kernel.consume, fitted)

    def release(self, row: int, fitted: FittedNuma) -> None:
        """``numa_usage`` with ``free``. InvalidValue, and nothing changed, where that raises it. O(CPUs taken)."""
        self._change(row, self._kernel.release, fitted)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All rows as arrays, equal for equal tables. O(rows)."""
        return self._kernel.to_arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> KernelNumaTable:
        """The table that gave ``to_arrays``. InvalidValue if the arrays are damaged. O(rows)."""
        table = cls()
        try:
            table._kernel = _numa.NumaTable.from_arrays(dict(arrays))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidValue(f"damaged NUMA table: {error}", field="numa") from None
        return table

    def check(self) -> None:
        """AssertionError if the table contradicts itself. O(rows)."""
        self._kernel.check()

    def _limits(self, row: int) -> Limits | None:
        return Limits(*self._kernel.ratios(row)) if self._kernel.has_row(row) else None

    def _change(self, row: int, change: Any, fitted: FittedNuma) -> None:
        words: array[int] = encoding.usage_words(fitted)
        try:
            change(row, words)
        except (ValueError, OverflowError) as error:
            raise InvalidValue(str(error), field="fitted") from None
