"""Values per row that a rule computed, brought up to date from the change log in the rows that changed, never in all
that exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .fleet import Fleet


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
    ) -> None:
        """``whole_trees``: a row's value depends on all providers of its tree, and on the sharing ones."""
        self.fleet = fleet
        self.whole_trees = whole_trees
        self.evaluate = evaluate
        self.array: NDArray[Any] = np.zeros(fleet.store.capacity, dtype)
        self._seen = -1

    def refresh(self) -> None:
        """Catch up. O(rows changed since the last call); raises what the rule raises, and is then as stale as
        before."""
        version = self.fleet.version
        if version == self._seen:
            return
        changed = self.fleet.kernel.changed(self._seen) if self._seen >= 0 else None
        if changed is None:
            rows = np.arange(self.fleet.rows, dtype=np.int32)
        else:
            rows = np.unique(changed)
            rows = rows[rows < self.fleet.rows]
            if self.whole_trees:
                rows = self._roots(rows)
        if len(rows):
            self.array[rows] = self.evaluate(rows)
        self._seen = version

    def _roots(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        if np.isin(rows, self.fleet.sharing_providers()).any():
            return np.arange(self.fleet.rows, dtype=np.int32)
        roots: NDArray[np.int32] = np.unique(self.fleet.store.row["root"][rows])
        return roots
