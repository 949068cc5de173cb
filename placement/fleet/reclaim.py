"""Interned values without references are given back: host classes, aggregates, statistics, metrics, addresses, service
hosts, PCI states, shapes, projects, users, and custom resource classes with their columns. No answer depends on when
that happens.

It is done at the beginning of commands, so that no caller holds an id, and while no other version is held, whose
records name ids. What is kept without use is bounded: as many values as are used, and a little more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from itertools import islice
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ...ext.fleet_state import renumber, used_ids
from ...ext.tables import NameTable
from .aggregates import NONE, is_bare
from .inventories import FIRST_CLASSES, VACANT
from .parts import FleetParts

SLACK: Final = 256
"""Values that may be kept without use in any fleet."""
CLASS_SLACK: Final = 32
"""Resource classes likewise, and as many more as are used: each has columns."""
_CALLS: Final = 16
"""Calls of ``if_due`` between two looks. The first one after them at which no other version is held looks: commands of
one kind may always hold one at the same calls."""
_FEW: Final = 32
"""Shapes for each one without use up to which they keep their numbers."""
_SHARE: Final = 64
"""Rows and consumers for each further one: looking through them all costs so much less than what made the values."""


class _Table(Protocol):
    """Values by id, of which some are kept."""

    def keep(self, kept: Iterable[int]) -> None: ...


class Reclaim:
    """Gives back what one fleet does not use."""

    def __init__(self, parts: FleetParts) -> None:
        self._parts = parts
        self._tables: tuple[Sized, ...] = (
            parts._classes,
            parts._stats,
            parts._metrics,
            parts._pci_states,
            parts._projects,
            parts._users,
            parts._consumers.shapes,
            parts._aggregate_table,
        )
        self._named = set[int]()
        self._looked_at = 0
        """Shapes whose resource classes are in ``_named``; none after they got new numbers."""
        self._limit, self._class_limit, self._names_limit, self._calls = SLACK, CLASS_SLACK, SLACK, 0

    def if_due(self) -> None:
        """Give back what is not used, if there may be too much of it. O(1), amortised."""
        self._calls += 1
        if self._calls < _CALLS or self._parts._history.recording:
            return
        self._calls = 0
        # Each row may have one of both names: a fleet that has just been loaded has nothing to give back.
        names = max(self._names_limit, 2 * self._parts.rows + SLACK)
        too_many = self._held() > self._limit or self._names() > names
        if too_many or len(self._parts._inventories) > self._class_limit:
            self.all()

    def _held(self) -> int:
        return sum(map(len, self._tables))

    def _names(self) -> int:
        """Names that most hosts have one of their own of."""
        return self._parts._host_ips.span + self._parts._nodes.names.span

    def all(self) -> None:
        """Give back all that is not used; no other version may be held. O(rows + consumers + values)."""
        parts = self._parts
        parts._change_log.settle_readers()
        self._classes()
        for name, table in (("stats", parts._stats), ("metrics", parts._metrics), ("pci", parts._pci_states)):
            self._keep(name, table)
        self._addresses()
        self._service_hosts()
        self._names_limit = 2 * self._names() + SLACK
        self._consumers()
        self._resource_classes()
        used = self._held()
        self._limit = 2 * used + SLACK + (parts.rows + parts._kernel.consumer_count) // _SHARE

    def _used(self, name: str) -> tuple[list[int], NDArray[np.int32]]:
        """Ids that a row column names, and 0, ascending; and the new number of each id."""
        column = self._parts._store.row[name][: self._parts.rows]
        used = np.bincount(column, minlength=1) > 0
        used[0] = True
        return np.flatnonzero(used).tolist(), _numbers(used)

    def _renumber(self, name: str, numbers: NDArray[np.int32]) -> None:
        column = self._parts._store.row[name]
        column[: self._parts.rows] = numbers[column[: self._parts.rows]]

    def _keep(self, name: str, table: _Table) -> None:
        kept, numbers = self._used(name)
        table.keep(kept)
        self._renumber(name, numbers)

    def _classes(self) -> None:
        """Host classes, and with them removed aggregates, and those without a name or metadata, as Placement makes
        them."""
        parts = self._parts
        kept, numbers = self._used("class_of")
        members = {index for number in kept for index in parts._classes[number].aggregates}
        known = parts.aggregates[: len(parts._aggregate_table)]
        aggregates = [
            index for index, each in enumerate(known) if index in members or not (each is NONE or is_bare(each))
        ]
        if len(kept) == len(parts._classes) and len(aggregates) == len(parts.aggregates):
            return
        parts._aggregate_table.keep(aggregates)
        parts._change_log.keep_classes(kept, {old: new for new, old in enumerate(aggregates)})
        self._renumber("class_of", numbers)

    def _addresses(self) -> None:
        kept, numbers = self._used("host_ip")
        if len(kept) == self._parts._host_ips.span:
            return
        table = NameTable()
        for index in kept:
            table.intern(self._parts._host_ips.get(index))
        self._parts._host_ips = table
        self._renumber("host_ip", numbers)

    def _service_hosts(self) -> None:
        span, column = self._parts._nodes.names.span, self._parts._store.row["service_host"][: self._parts.rows]
        used = np.flatnonzero(np.bincount(column[column >= 0], minlength=span))
        if len(used) < span:
            self._parts._nodes.keep(used)

    def _consumers(self) -> None:
        parts = self._parts
        tables = (parts._projects, parts._users)
        shapes = parts._consumers.shapes
        masks = used_ids(parts._kernel, len(shapes), *map(len, tables))
        if _FEW * int((~masks[0]).sum()) <= len(shapes):
            masks[0][:] = True  # few are unused: giving all others new numbers would cost more than these take
        if all(mask.all() for mask in masks):
            return
        numbers = [_numbers(mask) for mask in masks]
        renumber(parts._kernel, *numbers)
        for table, mask in zip(tables, masks[1:], strict=True):
            table.keep(np.flatnonzero(mask).tolist())
        if not masks[0].all():
            parts._consumers.keep_shapes(numbers[0].tolist())
            self._looked_at = 0
            parts._change_log.static_epoch += 1  # compiled signatures name shapes

    def _classes_of_shapes(self) -> set[int]:
        """Indexes of the resource classes that shapes name. O(shapes that are new since the last call)."""
        shapes = self._parts._consumers.shapes
        if len(shapes) < self._looked_at:
            self._looked_at = 0
        if not self._looked_at:
            self._named.clear()
        for resources, *_ in islice(shapes, self._looked_at, None):
            self._named.update(index for index, _ in resources)
        self._looked_at = len(shapes)
        return set(self._named)

    def _resource_classes(self) -> None:
        """Classes beyond the first of which no provider has an inventory or usage. O(rows * classes)."""
        parts = self._parts
        blocks = parts._store.inventory
        named = self._classes_of_shapes()
        named.update(index for each in parts._extras.values() for _, index, _ in each.elsewhere)
        unused = [
            index
            for index, name in enumerate(parts.resource_classes)
            if index >= len(FIRST_CLASSES) and not name.startswith(VACANT) and index not in named
            if not any(blocks[block][index, : parts.rows].any() for block in ("total", "used", "base"))
        ]
        if unused:
            for block in (parts._store.ratio, *blocks.values()):
                block[unused, : parts.rows] = 0
            parts._inventories.forget(unused)
        self._class_limit = 2 * len(parts._inventories) + CLASS_SLACK


def _numbers(used: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The new number of each id, -1 for one that is not used."""
    numbers = np.cumsum(used, dtype=np.int32) - 1
    numbers[~used] = -1
    return numbers
