"""The rows of the fleet as columns and host classes. Each change is logged for readers of the change log and recorded
for other versions. It does not know which values a row may hold."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..types.host_classes import HostClass, Interned
from ..versions.history import Change, History, Operation
from .columns import ColumnStore, Image
from .shared_facts import UNKNOWN, ByClass, Constants

Rows: TypeAlias = NDArray[np.int32]

SHARING_TRAIT: Final = "MISC_SHARES_VIA_AGGREGATE"
"""Placement's trait of a provider that shares its inventory with all members of its aggregates."""


def rows_array(*rows: int) -> Rows:
    """Row numbers as an index into the columns, int32[n]."""
    return np.array(rows, np.int32)


MANY: Final = 1024
"""Up to this many rows are logged one by one even if they are most of the fleet."""


class Reader(Protocol):
    """An answer that reads names of rows when it is first read."""

    def settle(self) -> None:
        """Read them now, for they are about to change."""


class ChangeLog:
    """Columns, host classes, change log, history, and the epochs that tell when derived data must be rebuilt.

    ``static_epoch`` increases when compiled signatures must be rebuilt, ``topology_epoch`` when provider trees, or the
    providers in them, may have changed.
    """

    def __init__(self, capacity: int) -> None:
        self.store = ColumnStore(capacity=max(64, -(-capacity // 64) * 64))
        self.kernel = self.store.kernel
        self.history = History()
        self.classes: Interned[HostClass] = Interned()
        self.classes.id(HostClass())
        self.is_host = ByClass(self.classes, lambda value: value.is_host, np.bool_)
        self.is_down = ByClass(self.classes, lambda value: value.disabled or value.forced_down, np.bool_)
        self.is_sharing = ByClass(self.classes, lambda value: SHARING_TRAIT in value.traits, np.bool_)
        self.service_version = ByClass(self.classes, _service_version, np.int64)
        self.constants = Constants(self.store, self.is_host, self.service_version)
        self._facts = self.constants.facts()
        self._memberships: set[tuple[int, ...]] = set()
        self.static_epoch = 0
        self.topology_epoch = 0
        self.forgotten_classes = 0
        """Number of times host classes were dropped: while it is equal, an id means the same class."""
        self.judge: Callable[[Rows], object] = lambda rows: None
        """Called with rows whose heartbeats or classes now are those of another version."""
        self._readers: set[weakref.ref[Reader]] = set()
        self.history.before_leaving = self.settle_readers

    @property
    def rows(self) -> int:
        """Upper bound of row ids."""
        return self.store.rows

    # those who read later

    def add_reader(self, reader: Reader) -> None:
        """Have ``reader`` settle before a row's names or classes change, or the state goes to another version. O(1)."""
        self._readers.add(weakref.ref(reader, self._readers.discard))

    def settle_readers(self) -> None:
        """Let all readers read now what they would read later. O(1) if there are none."""
        while self._readers:
            reader = self._readers.pop()()
            if reader is not None:
                reader.settle()

    # changes

    def changed(self, rows: Rows) -> None:
        """Log that the columns or consumers of ``rows`` changed. For most of the fleet at once, log that every row may
        have changed. O(rows)."""
        if len(rows) > MANY and 2 * len(rows) > self.rows:
            self.kernel.forget_log()
        else:
            self.kernel.mark_changed(np.ascontiguousarray(rows, dtype=np.int32))

    def record(self, operation: Operation) -> None:
        """Record a change that was just made, for the versions that others hold. O(1)."""
        self.history.record(operation)

    def make(self, redo: Callable[[], object], undo: Callable[[], object]) -> None:
        """Apply ``redo`` and record it with its inverse ``undo``."""
        self.settle_readers()
        redo()
        self.history.record(Change(redo, undo))

    def set_generations(self, rows: Rows, values: NDArray[np.int64], updated: float | NDArray[np.float64]) -> None:
        """Set generations and update times of ``rows``, overriding the increments made by other changes. O(rows)."""

        def put(generations: NDArray[np.int64], times: NDArray[np.float64]) -> None:
            columns = self.store.row
            columns["generation"][rows], columns["updated"][rows] = generations, times

        before = self.store.row["generation"][rows], self.store.row["updated"][rows]
        self.make(partial(put, values, np.full(len(rows), updated, np.float64)), partial(put, *before))

    @contextmanager
    def editing(self, rows: Rows) -> Iterator[None]:
        """Change columns of ``rows`` (except ``first``): logged, recorded, and restored if the body raises. Increments
        their generations. O(rows * columns)."""
        before = self.store.image(rows)
        with self.rewriting(rows):
            try:
                yield
            except BaseException:
                self.store.restore(rows, before)
                raise
            self.store.row["generation"][rows] += 1
        if self.history.recording:
            self.record(_Edit(self, rows.copy(), before, self.store.image(rows)))

    def put(self, rows: Rows, image: Image) -> None:
        """Restore the columns of ``rows`` from ``image``, unrecorded; service states are evaluated for the current
        time."""
        before, standing = self.store.standing(rows), self.store.row["class_of"][rows]
        with self.rewriting(rows):
            self.store.restore(rows, image)
        same = all(map(np.array_equal, before, self.store.standing(rows)))
        if not same or not self._in_service_alone(standing, self.store.row["class_of"][rows]):
            self.topology_epoch += 1
        self.judge(rows)

    def _in_service_alone(self, before: Rows, after: Rows) -> bool:
        """True if rows of these host classes differ in what their services say, at most. O(rows)."""
        pairs = np.unique(np.stack([before, after]), axis=1).T.tolist()
        return all(_in_service(self.classes[one]) == _in_service(self.classes[other]) for one, other in pairs)

    @contextmanager
    def rewriting(self, rows: Rows) -> Iterator[None]:
        """Change columns of ``rows``, unrecorded. Logs the change for data derived from them or from the trees they
        leave. O(rows)."""
        self.settle_readers()
        columns = self.store.row
        steady = self.constants.steady(rows)
        self.constants.leave(rows)
        roots = columns["root"][rows]
        left = roots[roots != rows]
        sharing = np.count_nonzero(self.is_sharing()[columns["class_of"][rows]])
        try:
            yield
        finally:
            self.constants.enter(rows)
            self.settle()
            if not np.array_equal(self.constants.steady(rows), steady):
                self.static_epoch += 1
            self.changed(rows)
            if len(left):
                self.changed(left)
            if sharing > np.count_nonzero(self.is_sharing()[columns["class_of"][rows]]):
                # Results for any tree may depend on the sharing provider.
                self.kernel.forget_log()

    def entered(self, rows: Rows) -> None:
        """Register rows that were just filled in: count their facts, evaluate their services, log them. O(rows)."""
        self.constants.enter(rows)
        self.settle()
        self.judge(rows)
        self.changed(rows)

    def settle(self) -> None:
        """Increase the static epoch if a fact that signatures rely on has changed. O(1)."""
        facts = self.constants.facts()
        if facts != self._facts:
            self._facts = facts
            self.static_epoch += 1

    def settled(self) -> bool:
        """True if the static epoch reflects all facts. O(1)."""
        return self.constants.facts() == self._facts

    # host classes

    def host_class(self, row: int) -> HostClass:
        """The static fields of a row. O(1)."""
        return self.classes[int(self.store.row["class_of"][row])]

    def class_id(self, value: HostClass) -> int:
        """Id of a host class. A new combination of aggregates may set weight multipliers, so signatures are rebuilt."""
        if value.aggregates and value.aggregates not in self._memberships:
            self._memberships.add(value.aggregates)
            self.static_epoch += 1
        return self.classes.id(value)

    def reclass(self, rows: Rows, **changes: Any) -> None:
        """Change static fields of ``rows``, within ``editing``. O(rows)."""
        class_of = self.store.row["class_of"]
        before = class_of[rows]
        for number in np.unique(before).tolist():
            class_of[rows[before == number]] = self.class_id(replace(self.classes[number], **changes))

    def keep_classes(self, kept: list[int], aggregates: dict[int, int]) -> None:
        """Forget all host classes but those with the ids ``kept``, which become 0, 1, 2, ... in their order, and give
        their aggregates the ids that ``aggregates`` says. Rows are the caller's to renumber. O(classes)."""
        values = [self.classes[index] for index in kept]
        self.classes.truncate(0)
        for value in values:
            self.classes.id(replace(value, aggregates=tuple(aggregates[index] for index in value.aggregates)))
        self._forgot_classes(0)

    def _forgot_classes(self, count: int) -> None:
        """Class ids from ``count`` on may mean others now."""
        self.is_host.truncate(count)
        self.is_down.truncate(count)
        self.is_sharing.truncate(count)
        self.service_version.truncate(count)
        self.forgotten_classes += 1
        self._memberships = {value.aggregates for value in self.classes.values if value.aggregates}
        self.static_epoch += 1

    def truncate_classes(self, count: int) -> None:
        """Drop host classes after the first ``count``: no row of any version has one of them."""
        if self.classes.truncate(count):
            self._forgot_classes(count)


def _in_service(value: HostClass) -> HostClass:
    return replace(value, disabled=False, disabled_reason=None, forced_down=False)


def _service_version(value: HostClass) -> int:
    return UNKNOWN if value.service_version is None else value.service_version


@dataclass(slots=True)
class _Edit:
    """Columns of some rows before and after."""

    change_log: ChangeLog
    rows: Rows
    before: Image
    after: Image

    def redo(self) -> None:
        self.change_log.put(self.rows, self.after)

    def undo(self) -> None:
        self.change_log.put(self.rows, self.before)
