"""Results of filters: by host class if a filter reads only static fields, else by row; shared by requests with equal
keys."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..candidates.for_engine import TreeQuery
from ..filters.base import Filter
from ..fleet.derived_column import RowCache
from ..fleet.fleet import Fleet
from ..fleet.host_view import ClassView, FleetView, HostView
from ..policy.rule_checks import checked_mask
from ..types.request import Request
from ..weighers.base import Weigher

T = TypeVar("T")
MAX_RESULTS: Final = 4096
"""Maximum number of cached filter results, by the filter's key of a request."""
ROW_BYTES: Final = 256 << 20
"""Maximum bytes of all results by row."""


class ClassResults:
    """The results of one filter by host class, evaluated once per class."""

    def __init__(self, fleet: Fleet, judge: Filter, request: Request) -> None:
        self.fleet, self.judge, self.request = fleet, judge, request
        self.passes: list[bool] = []

    def refresh(self) -> list[bool]:
        """Results for all classes known now. O(new classes)."""
        classes = self.fleet.classes.values
        for host_class in classes[len(self.passes) :]:
            verdict = host_class.is_host and self.judge.host_passes(ClassView(self.fleet, host_class), self.request)
            self.passes.append(bool(verdict))
        return self.passes


def row_results(fleet: Fleet, judge: Filter, request: Request) -> RowCache:
    """A filter's results by row: from its mask form if it has one, else from its host form for each host."""

    def evaluate(rows: NDArray[np.int32]) -> NDArray[np.uint8]:
        mask = judge.mask(FleetView(fleet, rows), request)
        if mask is None:
            hosts = (HostView(fleet, int(row)) for row in rows)
            passes = [host._class.is_host and bool(judge.host_passes(host, request)) for host in hosts]
            return np.array(passes, np.uint8)
        return checked_mask(judge, mask, len(rows))

    return RowCache(fleet, np.uint8, evaluate)


def tree_results(fleet: Fleet, asked: TreeQuery) -> RowCache:
    """Whether each row's provider tree has an allocation candidate, for queries that one provider alone does not
    settle."""

    def evaluate(rows: NDArray[np.int32]) -> NDArray[np.uint8]:
        return asked.having(rows).astype(np.uint8)

    return RowCache(fleet, np.uint8, evaluate, whole_trees=True)


class FilterResults:
    """Results of filters, shared by signatures whose requests have equal keys."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._classes: dict[Hashable, ClassResults] = {}
        self._rows: dict[Hashable, RowCache] = {}
        self._multipliers: dict[str, dict[tuple[int, ...], float]] = {}

    def clear(self) -> None:
        """Forget everything: the columns moved, or aggregates changed."""
        self._classes.clear()
        self._rows.clear()
        self._multipliers.clear()

    def multipliers(self, weigher: Weigher) -> dict[tuple[int, ...], float]:
        """A weigher's multipliers by a host's aggregates, to be filled as they are asked for."""
        return self._multipliers.setdefault(weigher.name, {})

    def by_class(self, judge: Filter, request: Request) -> ClassResults:
        """Results by host class. O(1) for a cached key."""
        return self._kept(self._classes, MAX_RESULTS, ClassResults, judge, request)

    def by_row(self, judge: Filter, request: Request) -> RowCache:
        """Results by row. O(1) for a cached key."""
        most = min(MAX_RESULTS, max(16, ROW_BYTES // self.fleet.store.capacity))
        return self._kept(self._rows, most, row_results, judge, request)

    def _kept(
        self,
        kept: dict[Hashable, T],
        most: int,
        make: Callable[[Fleet, Filter, Request], T],
        judge: Filter,
        request: Request,
    ) -> T:
        """The cached value for the filter and its key of the request, else a new one; the oldest are dropped first.
        Keys that are the request itself occur once, so these are not cached."""
        key = judge.key(request)
        if key is request:
            return make(self.fleet, judge, request)
        found = kept.get((judge.name, key))
        if found is None:
            if len(kept) >= most:
                del kept[next(iter(kept))]
            found = kept[judge.name, key] = make(self.fleet, judge, request)
        return found
