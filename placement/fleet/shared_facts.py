"""Facts about all rows that compiled signatures treat as constant. They are counted, so that a change is detected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..types.host_classes import HostClass, Interned
from .columns import COLUMN, ColumnStore

WATCHED: Final = ("hypervisor_version", "failed_builds")
"""Host columns whose weighers add nothing while all hosts have the same value. Rankings treat their values as constant
and are rebuilt when one changes."""
_STEADY: Final = np.array([COLUMN[name] for name in WATCHED])

UNKNOWN: Final = -1
"""Version of a compute service that has not told it."""
FEW: Final = 8
"""Distinct values that are counted without a sort."""


class ByClass:
    """One value per host class, computed once for each. O(new classes) per access."""

    def __init__(self, classes: Interned[HostClass], function: Callable[[HostClass], Any], dtype: Any) -> None:
        self._classes, self._function = classes, function
        self._values: NDArray[Any] = np.zeros(0, dtype)

    def __call__(self) -> NDArray[Any]:
        known = len(self._values)
        if known != len(self._classes):
            new = [self._function(value) for value in self._classes.values[known:]]
            self._values = np.concatenate([self._values, np.array(new, self._values.dtype)])
        return self._values

    def truncate(self, count: int) -> None:
        """Drop the classes after the first ``count``."""
        self._values = self._values[:count]


class Constants:
    """Counts of hosts by hypervisor version and failed builds, of rows and consumers that have PCI devices, and of
    providers that are not hosts by resource class.

    ``leave`` before the columns of rows change, ``enter`` afterwards; both O(rows).
    """

    def __init__(self, store: ColumnStore, is_host: ByClass, service_version: ByClass) -> None:
        self._store, self._is_host, self._service_version = store, is_host, service_version
        self._values: dict[str, Counter[float]] = {name: Counter() for name in WATCHED}
        self._devices = 0
        self._nested: Counter[int] = Counter()
        self._versions: Counter[int] = Counter()
        """Hosts by the version of their compute service, UNKNOWN where it is not known."""

    @property
    def has_pci(self) -> bool:
        """True if there are PCI devices, free or taken."""
        return self._devices > 0

    @property
    def nested_classes(self) -> frozenset[int]:
        """Resource classes in inventories of providers that are not hosts."""
        return frozenset(self._nested)

    @property
    def minimum_compute_version(self) -> int | None:
        """The least version of all compute services; None if one is not known, or there are no hosts."""
        least = min(self._versions, default=UNKNOWN)
        return None if least == UNKNOWN else least

    def facts(self) -> tuple[object, ...]:
        """The facts that signatures rely on: while they are equal, signatures stay valid. O(1)."""
        several = (len(counts) > 1 for counts in self._values.values())
        return (*several, self.has_pci, self.nested_classes, self.minimum_compute_version)

    def counts(self) -> tuple[object, ...]:
        """All counts, for a comparison."""
        return self._values, self._devices, self._nested, self._versions

    def steady(self, rows: NDArray[np.int32]) -> NDArray[np.float64]:
        """The columns of ``rows`` that rankings treat as constant."""
        values: NDArray[np.float64] = self._store.host[_STEADY[:, None], rows]
        return values

    def leave(self, rows: NDArray[np.int32]) -> None:
        """Subtract ``rows`` from the counts."""
        self._count(rows, -1)

    def enter(self, rows: NDArray[np.int32]) -> None:
        """Add ``rows`` to the counts."""
        self._count(rows, 1)

    def count_devices(self, more: int) -> None:
        """Add to the number of rows and consumers that have PCI devices."""
        self._devices += more

    def _count(self, rows: NDArray[np.int32], sign: int) -> None:
        store = self._store
        self._devices += sign * int(np.count_nonzero(store.row["pci"][rows]))
        class_of = store.row["class_of"][rows]
        is_host = self._is_host()[class_of]
        hosts, others = rows[is_host], rows[~is_host]
        for name, counts in self._values.items():
            _add(counts, store.host[COLUMN[name], hosts], sign)
        for version, count in Counter(self._service_version()[class_of[is_host]].tolist()).items():
            _change(self._versions, version, sign * count)
        if len(others):
            present = np.count_nonzero(store.inventory["total"][:, others], axis=1)
            for resource in np.flatnonzero(present).tolist():
                _change(self._nested, resource, sign * int(present[resource]))


def _add(counts: Counter[float], values: NDArray[np.float64], sign: int) -> None:
    """Count occurrences of values with few distinct ones. O(values) for each distinct value, and a sort beyond a limit
    of distinct values."""
    for _ in range(FEW):
        if len(values) == 0:
            return
        value = values[0]
        others = values[values != value]
        _change(counts, float(value), sign * (len(values) - len(others)))
        values = others
    for value, count in zip(*np.unique(values, return_counts=True), strict=True):
        _change(counts, float(value), sign * int(count))


def _change(counts: Counter[Any], key: Any, by: int) -> None:
    counts[key] += by
    if counts[key] == 0:
        del counts[key]
