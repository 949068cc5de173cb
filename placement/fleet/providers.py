"""Resource providers: names, uuids, and the allocation of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ext.fleet_state import discard_uuids
from ...ext.tables import NameTable, UuidTable, format_uuid, make_many
from ..types.errors import DuplicateName, InUse, InvalidValue, UnknownName
from ..types.validation import shown, uuid_words
from .change_log import ChangeLog, Rows, rows_array
from .columns import Image
from .nodes_by_host import ServiceHosts
from .numa_table import NumaTable
from .provider_trees import Trees

Words = NDArray[np.uint64]
"""Uuids as their high and low 64 bits, [n, 2]."""


class Providers:
    """The provider of each row. A freed row is reset, and is reused by the next provider that is added alone."""

    def __init__(self, change_log: ChangeLog, hosts: ServiceHosts, trees: Trees, seed: int) -> None:
        self._change_log, self._hosts, self._trees = change_log, hosts, trees
        self.names = NameTable()
        self.uuids = UuidTable()
        self.numa = NumaTable()
        self.seed = seed
        self.made = 0
        """Number of uuids made from the seed so far."""

    def row(self, name: object, field: str = "provider") -> int:
        """Row of a provider by name; UnknownName if there is none. O(1)."""
        row = self.names.find(name) if isinstance(name, str) else -1
        if row < 0:
            raise UnknownName(f"no provider is named {shown(name)}", field=field)
        return row

    def row_of_uuid(self, uuid: str, field: str = "provider") -> int:
        """Row of a provider by uuid; UnknownName if there is none. O(1)."""
        uuid_words(uuid, field)
        row = self.uuids.get(uuid)
        if row < 0:
            raise UnknownName(f"no provider has the uuid {uuid}", field=field)
        return row

    def host(self, name: object) -> int:
        """Row of a compute host by node name; UnknownName, or InvalidValue if it is not a compute host. O(1)."""
        row = self.row(name, "host")
        if not self._change_log.host_class(row).is_host:
            raise InvalidValue(f"{name} is not a compute host", field="host")
        return row

    def hosts(self, hosts: Sequence[str] | NDArray[np.integer[Any]]) -> Rows:
        """Rows of compute hosts, given by name or as an array of rows; UnknownName, or InvalidValue if one is not a
        compute host. O(hosts)."""
        if not isinstance(hosts, np.ndarray):
            rows = np.fromiter((self.row(name, "hosts") for name in hosts), np.int32)
        elif hosts.ndim != 1 or hosts.dtype.kind not in "iu":
            raise InvalidValue(f"hosts must be given by name or row, got {shown(hosts)}", field="hosts")
        elif len(hosts) and not 0 <= hosts.min() <= hosts.max() < self._change_log.rows:
            raise InvalidValue(f"rows must be below {self._change_log.rows}, got {shown(hosts)}", field="hosts")
        else:
            rows = hosts.astype(np.int32)
        is_host = self._change_log.is_host()[self._change_log.store.row["class_of"][rows]]
        if not is_host.all():
            raise InvalidValue(f"row {rows[int(np.argmin(is_host))]} is not a compute host", field="hosts")
        return rows

    def words(self, rows: Rows) -> Words:
        """Uuids of ``rows``. O(rows)."""
        columns, found = self._change_log.store.row, np.empty((len(rows), 2), np.uint64)
        found[:, 0], found[:, 1] = columns["uuid_hi"].take(rows), columns["uuid_lo"].take(rows)
        return found

    def uuid(self, row: int) -> str:
        """Uuid of a row. O(1)."""
        columns = self._change_log.store.row
        return format_uuid(int(columns["uuid_hi"][row]), int(columns["uuid_lo"][row]))

    # adding

    def add(
        self,
        names: Sequence[str] | NDArray[Any],
        uuids: Words | None = None,
        given: NDArray[np.bool_] | None = None,
        *,
        hosts: Sequence[str] | NDArray[Any] | None = None,
        reuse: bool = True,
    ) -> Rows:
        """Rows for new providers, with only uuid and service host (from ``hosts``) set.

        ``given``: mask of the ``uuids`` to use; the others (all, without ``uuids``) are made from the seed. ``reuse``:
        take freed rows first, the last freed before the others; otherwise all rows are consecutive. Names must have
        been checked. DuplicateName, with nothing changed, if a name or uuid is taken. O(providers).
        """
        store = self._change_log.store
        coming = _Coming(self, self.names.span, self._hosts.names.span, self.made)
        self._name(names, coming, reuse)
        rows = coming.rows
        store.reserve(self.names.span)
        store.set_rows(self.names.span)
        store.set_empty(rows)
        try:
            words = self._identify(rows, uuids, given)
        except DuplicateName:
            coming.unname()
            raise
        store.row["uuid_hi"][rows], store.row["uuid_lo"][rows] = words[:, 0], words[:, 1]
        if hosts is not None:
            self._hosts.link(rows, self._hosts.intern(hosts))
        self._change_log.topology_epoch += 1
        self._change_log.changed(rows)
        coming.made_after = self.made
        self._change_log.record(coming)
        return rows

    def _name(self, names: Sequence[str] | NDArray[Any], coming: _Coming, reuse: bool) -> None:
        count = len(names)
        old = min(self.names.span - len(self.names), count) if reuse else 0
        try:
            for name in names[:old]:
                coming.reused.append(self.names.add(name))
            first = self.names.add_many(names[old:]) if old < count else self.names.span
        except KeyError as error:
            coming.unname()
            raise DuplicateName(f"provider {shown(error.args[0])} exists", field="name") from None
        appended = np.arange(first, first + count - old, dtype=np.int32)
        coming.rows = np.concatenate([rows_array(*coming.reused), appended]) if old else appended

    def _identify(self, rows: Rows, uuids: Words | None, given: NDArray[np.bool_] | None) -> Words:
        """Register the rows' uuids, all or none."""
        if uuids is not None and given is None:
            given = np.ones(len(rows), bool)
        words = np.zeros((len(rows), 2), np.uint64) if uuids is None else np.ascontiguousarray(uuids)
        made = np.arange(len(rows)) if given is None else np.flatnonzero(~given)
        if len(made) == len(rows):
            words = make_many(self.seed, self.made, len(rows))
        elif len(made):
            words = words.copy()
            words[made] = make_many(self.seed, self.made, len(made))
        try:
            self.uuids.add_many(words, rows)
        except KeyError:
            return self._identify_one_by_one(rows, words, made)
        self.made += len(made)
        return words

    def _identify_one_by_one(self, rows: Rows, words: Words, made: NDArray[np.intp]) -> Words:
        """As ``_identify``, skipping generated uuids that a provider already has."""
        given = np.ones(len(rows), bool)
        given[made] = False
        try:
            self.uuids.add_many(np.ascontiguousarray(words[given]), rows[given])
        except KeyError as error:
            raise DuplicateName(f"a provider has the uuid {error.args[0]}", field="uuid") from None
        words = words.copy()
        for position in made.tolist():
            while True:
                words[position] = make_many(self.seed, self.made, 1)[0]
                self.made += 1
                text = format_uuid(int(words[position, 0]), int(words[position, 1]))
                if self.uuids.get(text) < 0:
                    break
            self.uuids.add(text, int(rows[position]))
        return words

    # going

    def remove(self, name: str) -> None:
        """Remove a provider. InUse if it has consumers, usage by consumers elsewhere, or children. O(rows)."""
        row = self.row(name)
        change_log = self._change_log
        change_log.settle_readers()
        if change_log.store.row["first"][row] >= 0:
            count = len(change_log.kernel.consumers_on(row))
            raise InUse(f"{name} has {count} consumers", field="provider", hint="move them first")
        blocks = change_log.store.inventory
        if np.any(blocks["used"][:, row] != blocks["base"][:, row]):
            raise InUse(f"{name} has allocations", field="provider", hint="release them first")
        children = self._trees.children(row)
        if children:
            raise InUse(f"{name} has {children} child providers", field="provider", hint="remove them first")
        going = _Going(self, row)
        going.redo()
        change_log.record(going)

    def park(self, rows: Rows) -> Parked:
        """Remove everything of ``rows`` except their names from the fleet. O(rows)."""
        change_log = self._change_log
        parked = Parked([self.names.get(row) for row in rows.tolist()], change_log.store.image(rows))
        for place, row in enumerate(rows.tolist()):
            parked.cells.copy_row(place, self.numa, row)
            self.numa.clear_row(row)
        self._hosts.unlink(rows)
        discard_uuids(self.uuids, self.words(rows))
        with change_log.rewriting(rows):
            change_log.store.clear(rows)
        change_log.topology_epoch += 1
        # A signature may have been compiled for a request that refers to one of them by name.
        change_log.static_epoch += 1
        return parked

    def unpark(self, rows: Rows, parked: Parked) -> None:
        """Undo ``park``; the rows have their names again. O(rows)."""
        change_log = self._change_log
        change_log.put(rows, parked.image)
        self.uuids.add_many(self.words(rows), rows)
        for place, row in enumerate(rows.tolist()):
            self.numa.copy_row(row, parked.cells, place)
        hosts = change_log.store.row["service_host"][rows]
        self._hosts.link(rows[hosts >= 0], hosts[hosts >= 0])


@dataclass(slots=True)
class Parked:
    """Providers that do not exist in the current version."""

    names: list[str]
    image: Image
    cells: NumaTable = field(default_factory=NumaTable)
    hosts: list[str] = field(default_factory=list)
    """Service hosts that were added with them."""


class _Coming:
    """Providers that were added together. ``span``, ``hosts_span`` and ``made`` are the values before."""

    __slots__ = ("hosts_span", "made", "made_after", "parked", "providers", "reused", "rows", "span")

    def __init__(self, providers: Providers, span: int, hosts_span: int, made: int) -> None:
        self.providers, self.span, self.hosts_span = providers, span, hosts_span
        self.made = self.made_after = made
        self.rows: Rows = rows_array()
        self.reused: list[int] = []
        self.parked: Parked | None = None

    def unname(self) -> None:
        """Free the names and the rows."""
        providers = self.providers
        providers.names.truncate(self.span)
        for row in reversed(self.reused):
            providers.names.discard(row)
        providers._change_log.store.set_rows(self.span)

    def undo(self) -> None:
        providers, hosts = self.providers, self.providers._hosts.names
        self.parked = providers.park(self.rows)
        self.parked.hosts = [hosts.get(host) for host in range(self.hosts_span, hosts.span)]
        hosts.truncate(self.hosts_span)
        self.unname()
        providers.made = self.made

    def redo(self) -> None:
        providers, parked = self.providers, self.parked
        assert parked is not None
        providers._hosts.names.add_many(parked.hosts)
        again = _Coming(providers, self.span, self.hosts_span, self.made)
        providers._name(parked.names, again, bool(self.reused))
        assert np.array_equal(again.rows, self.rows), "providers were restored at other rows"
        store = providers._change_log.store
        store.reserve(providers.names.span)
        store.set_rows(providers.names.span)
        providers.unpark(self.rows, parked)
        providers.made = self.made_after
        self.parked = None


class _Going:
    """A provider's removal."""

    __slots__ = ("parked", "providers", "row")

    def __init__(self, providers: Providers, row: int) -> None:
        self.providers, self.row = providers, row
        self.parked: Parked | None = None

    def redo(self) -> None:
        self.parked = self.providers.park(rows_array(self.row))
        self.providers.names.discard(self.row)

    def undo(self) -> None:
        assert self.parked is not None
        self.providers.names.restore(self.row, self.parked.names[0])
        self.providers.unpark(rows_array(self.row), self.parked)
        self.parked = None
