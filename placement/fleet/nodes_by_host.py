"""The nodes of each compute service host. Most have one node of the same name; Ironic's have many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ext.tables import NameTable
from .change_log import Rows
from .columns import ColumnStore


class ServiceHosts:
    """Service hosts by name, and the rows of their nodes. The column ``service_host`` holds each row's, -1 for none."""

    def __init__(self, store: ColumnStore) -> None:
        self._store = store
        self.names = NameTable()
        self.row_of: NDArray[np.int32] = np.full(64, -1, np.int32)
        """By service host: the lowest row of its nodes, -1 for none."""
        self.shared: dict[int, list[int]] = {}
        """For service hosts with several nodes: their rows in order."""
        self._lowered: tuple[int, dict[str, list[int]]] = (-1, {})
        """The topology epoch for which this was built, and service hosts by name in lower case."""

    def rows(self, host: str) -> list[int]:
        """Rows of a service host's nodes in order; empty if there is none. O(nodes)."""
        index = self.names.find(host) if isinstance(host, str) else -1
        if index < 0:
            return []
        several = self.shared.get(index)
        if several is not None:
            return list(several)
        row = int(self.row_of[index])
        return [row] if row >= 0 else []

    def rows_in_any_case(self, names: Iterable[str], epoch: int) -> list[int]:
        """Rows of the nodes of all service hosts with these names, ignoring case. O(names) if ``epoch`` is that of the
        last call, else O(service hosts)."""
        if self._lowered[0] != epoch:
            by_name: dict[str, list[int]] = {}
            for host in np.flatnonzero(self.row_of >= 0).tolist():
                by_name.setdefault(self.names.get(host).lower(), []).append(host)
            self._lowered = (epoch, by_name)
        hosts = {host for name in names for host in self._lowered[1].get(name.lower(), ())}
        return [row for host in sorted(hosts) for row in self.shared.get(host, [int(self.row_of[host])])]

    def siblings(self, row: int) -> list[int]:
        """Rows of all nodes of the row's service host. O(1)."""
        return self.shared.get(int(self._store.row["service_host"][row]), [row])

    def name(self, row: int) -> str:
        """The service host of a row that is a host. O(1)."""
        return self.names.get(int(self._store.row["service_host"][row]))

    def names_of(self, rows: NDArray[np.int32]) -> list[str]:
        """The service host of each of some rows that are hosts. O(rows)."""
        return list(map(self.names.get, self._store.row["service_host"].take(rows).tolist()))

    def intern(self, names: Sequence[str] | NDArray[Any]) -> NDArray[np.int32]:
        """Ids of service hosts; unknown ones are added. O(names)."""
        try:
            first = self.names.add_many(names)
        except KeyError:
            listed = names.tolist() if isinstance(names, np.ndarray) else names
            texts = (name.decode() if isinstance(name, bytes) else name for name in listed)
            return np.fromiter(map(self.names.intern, texts), np.int32, len(names))
        return np.arange(first, first + len(names), dtype=np.int32)

    def link(self, rows: Rows, hosts: NDArray[np.int32]) -> None:
        """Add to each of ``hosts`` the node at the corresponding row. O(rows), plus O(nodes) for each service host with
        several nodes."""
        if len(rows) == 0:
            return
        self._reserve(int(hosts.max()) + 1)
        self._store.row["service_host"][rows] = hosts
        if self._is_alone(hosts):
            self.row_of[hosts] = rows
            return
        for row, host in zip(rows.tolist(), hosts.tolist(), strict=True):
            present = int(self.row_of[host])
            if present >= 0:
                several = self.shared.setdefault(host, [present])
                several.append(row)
                several.sort()
            self.row_of[host] = row if present < 0 else min(row, present)

    def unlink(self, rows: Rows) -> None:
        """Undo ``link`` for those of ``rows`` that have a service host. O(rows), plus O(nodes) for each service host
        with several nodes."""
        column = self._store.row["service_host"]
        rows = rows[column[rows] >= 0]
        hosts = column[rows]
        if not self.shared:
            self.row_of[hosts] = -1
        else:
            for row, host in zip(rows.tolist(), hosts.tolist(), strict=True):
                self._leave(row, host)
        column[rows] = -1

    def relink_all(self) -> None:
        """Rebuild the nodes of all service hosts from the column. O(rows)."""
        column = self._store.row["service_host"][: self._store.rows]
        rows = np.flatnonzero(column >= 0).astype(np.int32)
        self.row_of, self.shared = np.full(64, -1, np.int32), {}
        self.link(rows, column[rows])

    def keep(self, kept: NDArray[np.integer]) -> None:
        """Forget all service hosts but those with the ids ``kept``, ascending, which become 0, 1, 2, ... O(rows +
        service hosts)."""
        names, numbers = NameTable(), np.full(self.names.span, -1, np.int32)
        for host in kept.tolist():
            numbers[host] = names.intern(self.names.get(host))
        column = self._store.row["service_host"][: self._store.rows]
        column[:] = np.where(column >= 0, numbers[column], -1)
        self.names, self._lowered = names, (-1, {})
        self.relink_all()

    def _leave(self, row: int, host: int) -> None:
        several = self.shared.get(host)
        if several is None:
            self.row_of[host] = -1
            return
        several.remove(row)
        self.row_of[host] = several[0]
        if len(several) == 1:
            del self.shared[host]

    def _is_alone(self, hosts: NDArray[np.int32]) -> bool:
        """True if none of ``hosts`` has a node, and none is given twice."""
        if np.any(self.row_of[hosts] >= 0):
            return False
        return bool(np.all(np.diff(hosts) > 0)) or len(np.unique(hosts)) == len(hosts)

    def _reserve(self, count: int) -> None:
        if count > len(self.row_of):
            wider = np.full(max(count, 2 * len(self.row_of)), -1, np.int32)
            wider[: len(self.row_of)] = self.row_of
            self.row_of = wider
