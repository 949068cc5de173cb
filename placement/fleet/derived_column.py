"""Values per row that a rule computes, updated from the change log for the rows that changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .fleet import Fleet

FEW: Final = 512
"""Rows that are sorted one by one, which takes less than to have NumPy do it."""


class RowCache:
    """One value per row of a fleet. ``evaluate(rows)`` gives the values of some rows; ``array`` spans the fleet's
    capacity."""

    def __init__(
        self,
        fleet: Fleet,
        dtype: Any,
        evaluate: Callable[[NDArray[np.int32]], NDArray[Any]],
        *,
        whole_trees: bool = False,
        whole_fleet: bool = False,
    ) -> None:
        """``whole_trees``: a row's value depends on all providers of its tree, and on the sharing ones;
        ``whole_fleet``: on everything."""
        self.fleet = fleet
        self.whole_trees = whole_trees
        self.whole_fleet = whole_fleet
        self.evaluate = evaluate
        self.array: NDArray[Any] = np.zeros(fleet._store.capacity, dtype)
        self._seen = -1
        self._layout = (-1, -1)

    def refresh(self) -> None:
        """Update the changed rows. O(rows changed since the last call); if the rule raises, nothing is updated and the
        error is passed on."""
        version = self.fleet.version
        if version == self._seen:
            return
        rows, named = self._changed()
        if len(rows):
            before = self.array[rows]
            self.array[rows] = after = self._evaluated(rows)
            if self._spreads and self._seen >= 0 and np.any(before != after):
                # Rankings update only the rows that the change log names.
                others = rows[before != after]
                if len(named):
                    others = others[named[np.minimum(np.searchsorted(named, others), len(named) - 1)] != others]
                if len(others):
                    self.fleet._change_log.changed(others)
        self._seen, self._layout = version, (self.fleet._topology_epoch, len(self.fleet))

    def _evaluated(self, rows: NDArray[np.int32]) -> NDArray[Any]:
        self.fleet._services.caching = True
        try:
            return self.evaluate(rows)
        finally:
            self.fleet._services.caching = False

    @property
    def _spreads(self) -> bool:
        """True if a change of one row may change the values of others."""
        return self.whole_trees or self.whole_fleet or bool(self.fleet._shared_service_hosts)

    def _changed(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Rows to evaluate again, and those that the change log names."""
        fleet = self.fleet
        changed = fleet._kernel.changed(self._seen) if self._seen >= 0 else None
        rows: NDArray[np.int32] = np.zeros(0, np.int32) if changed is None else _distinct(changed)
        rows = rows[rows < fleet.rows]
        # A row that was added, removed or moved may have belonged to another tree or service host.
        moved = self._spreads and self._layout != (fleet._topology_epoch, len(fleet))
        if changed is None or self.whole_fleet or moved:
            return np.arange(fleet.rows, dtype=np.int32), rows
        return self._roots(rows) if self.whole_trees else self._with_siblings(rows), rows

    def _with_siblings(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        """``rows`` and the other nodes of their service hosts: each node shows all guests of the service host."""
        shared = self.fleet._shared_service_hosts
        if not shared:
            return rows
        hosts = np.unique(self.fleet._store.row["service_host"][rows]).tolist()
        siblings = [row for host in hosts for row in shared.get(host, ())]
        return np.union1d(rows, np.array(siblings, np.int32)).astype(np.int32)

    def _roots(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        sharing = self.fleet.sharing_providers()
        if len(sharing) and np.isin(rows, sharing).any():
            return np.arange(self.fleet.rows, dtype=np.int32)
        return _distinct(self.fleet._store.row["root"][rows])


def _distinct(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Each of the rows once, sorted."""
    if len(rows) <= FEW:
        return np.array(sorted(set(rows.tolist())), np.int32)
    distinct: NDArray[np.int32] = np.unique(rows)
    return distinct
