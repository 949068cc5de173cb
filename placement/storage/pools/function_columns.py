"""Functions that read no more than pools report or hold, as columns: what they are worth is worked out once for each
pool, for all requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from .columns import Mask, Rows
from .expression import expression
from .expression.vector import Floats

if TYPE_CHECKING:
    from .rows import PoolRows
    from .variables import FunctionTexts

_OF_POOLS: Final = frozenset({"stats", "capabilities"})
"""Scopes of variables that are a pool's; all others are the request's."""


def reads_pools_only(text: str, *, strict: bool) -> bool:
    """Whether a function is worth the same to all requests. O(1) for a text that was read before."""
    return all(scope in _OF_POOLS for scope, _ in expression(text, strict=strict).variables)


class FunctionColumn:
    """What the functions of one kind are worth that read pools only, by row. ``evaluate`` gives the values of rows."""

    def __init__(
        self, pools: PoolRows, texts: FunctionTexts, evaluate: Callable[[Rows], Floats | Mask], *, strict: bool
    ) -> None:
        self._pools, self._texts, self._evaluate, self._strict = pools, texts, evaluate, strict
        self.layout = pools.layout
        self.values: Floats = np.zeros(pools.columns.capacity)
        self.shared: Mask = np.zeros(pools.columns.capacity, np.bool_)
        """Rows whose function reads pools only, or that have none."""
        self._shares: list[bool] = []
        """By code of the texts, whether the function reads pools only."""
        self._reports_seen = len(pools.changed_rows)
        self._seen = pools.columns.kernel.version
        self._fill(pools.live_rows())

    def catch_up(self) -> None:
        """Take in what was reported, and what was placed where functions read it. O(changes)."""
        pools, kernel = self._pools, self._pools.columns.kernel
        if len(pools.changed_rows) != self._reports_seen:
            rows = np.unique(np.array(pools.changed_rows[self._reports_seen :], np.int32))
            self._reports_seen = len(pools.changed_rows)
            self._fill(rows[pools.columns.live[rows] != 0])
        if kernel.version != self._seen:
            changed, self._seen = kernel.changed(self._seen), kernel.version
            if self._texts.live:
                rows = pools.live_rows() if changed is None else np.unique(changed)
                self._fill(self._texts.living(rows[pools.columns.live[rows] != 0]))

    @property
    def shares_all(self) -> bool:
        """Whether all functions that were ever reported read pools only. O(texts) after new ones."""
        self._know()
        return all(self._shares)

    @property
    def steady(self) -> bool:
        """Whether, moreover, none reads what changes as volumes are placed."""
        return self.shares_all and not self._texts.live

    def _know(self) -> None:
        words = self._texts.words
        self._shares += [reads_pools_only(text, strict=self._strict) for text in words[len(self._shares) :]]

    def _fill(self, rows: Rows) -> None:
        self._know()
        shares = np.array([*self._shares, True])  # the last one for rows without a function, whose code is -1
        self.shared[rows] = shares[self._texts.codes[rows]]
        rows = rows[self.shared[rows]]
        if len(rows):
            self.values[rows] = self._evaluate(rows)
