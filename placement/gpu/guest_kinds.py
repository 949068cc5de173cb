"""How many guests of each kind are on each host: without GPUs, with a share of one, with so many whole ones."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...ext.devices import WHOLE
from ..fleet.fleet import Fleet
from .providers import GPU_MILLI


def kind_of(amounts: Sequence[int]) -> int:
    """The kind of a guest that takes so many thousandths of each GPU: 0 of none, 1 a share of one, else one more than
    the number of GPUs."""
    if not amounts:
        return 0
    return 1 if len(amounts) == 1 and amounts[0] < WHOLE else len(amounts) + 1


class GuestKinds:
    """Counts by row of a fleet, kept up to date by the change log. Does not keep the fleet alive."""

    __slots__ = ("_counts", "_fleet", "_layout", "_seen")

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = weakref.ref(fleet)
        self._counts = np.zeros((0, 0), np.int32)
        self._seen = -1
        self._layout: tuple[int, ...] = ()

    def of(self, rows: NDArray[np.integer], width: int) -> NDArray[np.int32]:
        """[rows, width + 2] guests by kind; more than ``width`` GPUs are on no host. O(guests on hosts that changed
        since the last call)."""
        found: NDArray[np.int32] = self.current(width)[rows]
        return found

    def counted(self) -> None:
        """What changed since ``current`` was called is in its array. O(1)."""
        fleet = self._fleet()
        assert fleet is not None
        self._seen = fleet.version

    def current(self, width: int) -> NDArray[np.int32]:
        """[capacity, width + 2] guests by kind: the same array, brought up to date, while hosts and providers stay as
        they are. O(guests on hosts that changed since the last call)."""
        fleet = self._fleet()
        assert fleet is not None
        layout = (fleet._topology_epoch, len(fleet), fleet._store.capacity, fleet.rows, width)
        if layout == self._layout and self._seen == fleet.version:
            return self._counts
        if layout != self._layout:
            self._counts = np.zeros((fleet._store.capacity, width + 2), np.int32)
        changed = fleet._kernel.changed(self._seen) if layout == self._layout else None
        if changed is None:
            self._count(fleet, range(fleet.rows))
        else:
            # The GPUs of a guest may change while nothing on its host does.
            roots = fleet._store.row["root"][changed[changed < fleet.rows]]
            self._count(fleet, set(roots.tolist()))
        self._layout, self._seen = layout, fleet.version
        return self._counts

    def _count(self, fleet: Fleet, rows: set[int] | range) -> None:
        if self._counts.shape[1] == 2:
            return  # no host has GPUs
        resource, counts = fleet.resource_class(GPU_MILLI), self._counts
        for row in rows:
            kinds = [0] * counts.shape[1]
            for consumer in fleet._kernel.consumers_on(row):
                extras = fleet._extras.get(consumer)
                kinds[kind_of([n for _, kind, n in extras.elsewhere if kind == resource]) if extras else 0] += 1
            counts[row] = kinds
