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
from ..types.host_classes import HostClass
from ..types.request import Request
from ..weighers.base import Weigher
from .class_multipliers import ClassMultipliers
from .compiled_weigher import CompiledWeigher

T = TypeVar("T")
MAX_RESULTS: Final = 4096
"""Maximum number of cached filter results, by the filter's key of a request."""
ROW_BYTES: Final = 256 << 20
"""Maximum bytes of all results by row."""


class ClassResults:
    """The results of one rule by host class, evaluated once per class."""

    def __init__(self, fleet: Fleet, judge: Callable[[HostClass], bool]) -> None:
        self.fleet, self.judge = fleet, judge
        self._known = 0
        self._passes: NDArray[np.bool_] = np.zeros(0, bool)

    def refresh(self) -> NDArray[np.bool_]:
        """Whether each class known now passes; False for classes of rows that are no hosts. O(new classes)."""
        classes = self.fleet._classes.values
        if self._known < len(classes):
            new = [value.is_host and bool(self.judge(value)) for value in classes[self._known :]]
            self._passes = np.append(self._passes, np.array(new, bool))
            self._known = len(classes)
        return self._passes


class AllOf:
    """The conjunction of several results by host class."""

    def __init__(self, results: tuple[ClassResults, ...]) -> None:
        self.results = results

    def refresh(self) -> NDArray[np.bool_]:
        """Whether each class known now passes all of them."""
        passes: NDArray[np.bool_] = np.logical_and.reduce([each.refresh() for each in self.results])
        return passes


def class_results(fleet: Fleet, judge: Filter, request: Request) -> ClassResults:
    """A filter's results by host class, from its host form."""
    return ClassResults(fleet, lambda host_class: judge.host_passes(ClassView(fleet, host_class), request))


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


class TreeResults(RowCache):
    """Whether each row's provider tree has an allocation candidate, for queries that one provider alone does not
    settle."""

    def __init__(self, fleet: Fleet, asked: TreeQuery) -> None:
        super().__init__(fleet, np.uint8, lambda rows: asked.having(rows).astype(np.uint8), whole_trees=True)
        self._asked = asked

    def refresh(self) -> None:
        """Update the trees of the changed rows. O(rows changed since the last call)."""
        fleet, version = self.fleet, self.fleet.version
        if version == self._seen:
            return
        layout = (fleet._topology_epoch, len(fleet))
        changed = fleet._kernel.changed(self._seen) if self._seen >= 0 and self._layout == layout else None
        others = None if changed is None else self._asked.update(self.array, changed)
        if changed is None or others is None:
            super().refresh()
            return
        self._seen = version
        if others:
            # Rankings update only the rows that the change log names.
            fleet._change_log.changed(np.array(others, np.int32))


class FilterResults:
    """Results of filters, shared by signatures whose requests have equal keys."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._classes: dict[Hashable, ClassResults] = {}
        self._requirements: dict[Hashable, ClassResults] = {}
        self._weighers: dict[Hashable, CompiledWeigher | None] = {}
        self._judge_hosts()
        self._rows: dict[Hashable, RowCache] = {}
        self._multipliers: dict[str, ClassMultipliers] = {}

    def clear(self) -> None:
        """Forget everything: the columns moved, aggregates changed, or classes have other numbers."""
        self._judge_hosts()
        self._classes.clear()
        self._requirements.clear()
        self._weighers.clear()
        self._rows.clear()
        self._multipliers.clear()

    def _judge_hosts(self) -> None:
        self.hosts = ClassResults(self.fleet, lambda host_class: True)
        """Which classes are of hosts."""
        self._disabled = ClassResults(self.fleet, lambda host_class: host_class.disabled)
        self._forced_down = ClassResults(self.fleet, lambda host_class: host_class.forced_down)
        self._kinds: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._any_disabled = False

    def disabled_kinds(self) -> NDArray[np.uint8] | None:
        """By host class, 1 where compute services are disabled, 2 where they are forced down too, else 0; None if none
        are disabled. The same array while no class is new. O(1), or O(classes)."""
        if len(self._kinds) < len(self.fleet._classes):
            disabled, forced_down = self._disabled.refresh(), self._forced_down.refresh()
            self._kinds = disabled * (np.uint8(1) + forced_down)
            self._any_disabled = bool(disabled.any())
        return self._kinds if self._any_disabled else None

    def multipliers(self, weigher: Weigher) -> ClassMultipliers:
        """A weigher's multipliers by host class."""
        found = self._multipliers.get(weigher.name)
        if found is None:
            found = self._multipliers[weigher.name] = ClassMultipliers(self.fleet, weigher)
        return found

    def by_class(self, judge: Filter, request: Request) -> ClassResults:
        """Results by host class. O(1) for a cached key."""
        return self._kept(self._classes, MAX_RESULTS, class_results, judge, request)

    def by_requirement(self, key: Hashable, judge: Callable[[Fleet, HostClass], bool]) -> ClassResults:
        """Results of a requirement of Placement's query by host class; equal ``key``, equal results."""
        found = self._requirements.get(key)
        if found is None:
            if len(self._requirements) >= MAX_RESULTS:
                del self._requirements[next(iter(self._requirements))]
            fleet = self.fleet
            found = self._requirements[key] = ClassResults(fleet, lambda host_class: judge(fleet, host_class))
        return found

    def weigher(self, weigher: Weigher, request: Request) -> CompiledWeigher | None:
        """A weigher compiled for the request; None if it adds nothing to any score. Requests of equal weigher keys
        share it, unless it reads hosts row by row."""
        key = (weigher.name, weigher.key(request))
        if key[1] is not request and key in self._weighers:
            return self._weighers[key]
        compiled: CompiledWeigher | None = CompiledWeigher(self.fleet, weigher, request, self.multipliers(weigher))
        by_row = compiled is not None and compiled.rows is not None
        if compiled is not None and compiled.adds_nothing():
            compiled = None
        if key[1] is not request and not by_row:
            if len(self._weighers) >= MAX_RESULTS:
                del self._weighers[next(iter(self._weighers))]
            self._weighers[key] = compiled
        return compiled

    def by_row(self, judge: Filter, request: Request) -> RowCache:
        """Results by row. O(1) for a cached key."""
        most = min(MAX_RESULTS, max(16, ROW_BYTES // self.fleet._store.capacity))
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
