"""Provider trees: parents and roots, and the sharing providers beside them."""

from __future__ import annotations

import numpy as np

from ..types.errors import InvalidValue
from .change_log import ChangeLog, Rows, rows_array
from .columns import ColumnStore


class Trees:
    """Parents and roots of providers, in the columns ``parent`` (-1: none) and ``root`` (the row itself for a root)."""

    def __init__(self, change_log: ChangeLog) -> None:
        self._change_log = change_log
        self._seen = -1
        self._members: dict[int, list[int]] = {}
        self._sharing: list[int] = []

    def tree(self, root: int) -> list[int]:
        """Rows of a root's tree, the root first, then in row order. O(1) while no provider is added, removed or
        moved."""
        self._catch_up()
        return self._members.get(root, [root])

    def sharing(self) -> list[int]:
        """Rows with the trait MISC_SHARES_VIA_AGGREGATE. O(1) while no provider is added, removed or moved."""
        self._catch_up()
        return self._sharing

    def children(self, row: int) -> int:
        """Number of children of a row. O(rows)."""
        return int(np.count_nonzero(self._store.row["parent"][: self._store.rows] == row))

    def place(self, row: int, parent: int) -> None:
        """Place a new row without children below ``parent`` (-1: make it a root), unrecorded. O(1)."""
        columns = self._store.row
        columns["parent"][row] = parent
        columns["root"][row] = row if parent < 0 else columns["root"][parent]
        self._change_log.topology_epoch += 1

    def move(self, row: int, parent: int, what: str) -> None:
        """Move a row and its descendants below ``parent`` (-1: it becomes a root). InvalidValue for a cycle; ``what``
        describes both in the message. O(rows)."""
        columns = self._store.row
        if parent >= 0 and self._is_below(parent, row):
            raise InvalidValue(f"{what}: a provider tree has no cycles", field="parent")
        moved = self.subtree(row)
        with self._change_log.editing(moved):
            columns["parent"][row] = parent
            columns["root"][moved] = row if parent < 0 else columns["root"][parent]
        self._change_log.topology_epoch += 1

    @property
    def _store(self) -> ColumnStore:
        return self._change_log.store

    def subtree(self, row: int) -> Rows:
        """The row and its descendants. O(rows)."""
        columns, rows = self._store.row, self._store.rows
        tree = np.flatnonzero(columns["root"][:rows] == columns["root"][row])
        found = [row, *(int(other) for other in tree if other != row and self._is_below(int(other), row))]
        return rows_array(*found)

    def _is_below(self, row: int, ancestor: int) -> bool:
        """True if ``row`` is ``ancestor`` or a descendant of it."""
        parents = self._store.row["parent"]
        while row >= 0:
            if row == ancestor:
                return True
            row = int(parents[row])
        return False

    def _catch_up(self) -> None:
        change_log, columns = self._change_log, self._store.row
        if self._seen == change_log.topology_epoch:
            return
        rows = self._store.rows
        roots = columns["root"][:rows]
        self._members = {}
        for row in np.flatnonzero(roots != np.arange(rows)).tolist():
            root = int(roots[row])
            self._members.setdefault(root, [root]).append(row)
        self._sharing = np.flatnonzero(change_log.is_sharing()[columns["class_of"][:rows]]).tolist()
        self._seen = change_log.topology_epoch
