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

_OF_POOLS: Final = frozenset({"stats", "capabilities"})
"""Scopes of variables that are a pool's; all others are the request's."""

LIVE: Final = {"allocated_capacity_gb": "allocated", "free_capacity_gb": "free"}
"""Names of ``stats`` that are pool columns."""


def reads_pools_only(text: str, *, strict: bool) -> bool:
    """Whether a function is worth the same to all requests. O(1) for a text that was read before."""
    return all(scope in _OF_POOLS for scope, _ in expression(text, strict=strict).variables)


class FunctionTexts:
    """The text of each pool's function as a code, -1 where there is none. ``live``: codes of those whose value may
    change as volumes are placed."""

    def __init__(self, pools: PoolRows, kind: str) -> None:
        self._pools, self._kind = pools, kind
        self.layout = pools.layout
        self.codes = np.full(pools.columns.capacity, -1, np.int32)
        self.words: list[str] = []
        self.live: set[int] = set()
        self._code_of: dict[str, int] = {}
        self._changes_seen = len(pools.changed_rows)
        self._fill(pools.live_rows().tolist())

    def living(self, rows: Rows) -> Rows:
        """Those of ``rows`` whose function reads live figures. O(rows)."""
        if len(self.live) == len(self.words):
            return rows
        codes = self.codes[rows].tolist()
        return rows[[code in self.live for code in codes]]

    def catch_up(self) -> None:
        """Read what was reported since. O(reports)."""
        changed_rows = self._pools.changed_rows
        if len(changed_rows) == self._changes_seen:
            return
        changed, self._changes_seen = changed_rows[self._changes_seen :], len(changed_rows)
        live = self._pools.columns.live
        self._fill([row for row in dict.fromkeys(changed) if live[row]])

    def _fill(self, rows: list[int]) -> None:
        for row in rows:
            text = self._pools.fact(row).capabilities.get(self._kind)
            self.codes[row] = -1 if text is None else self._code(str(text))

    def _code(self, text: str) -> int:
        code = self._code_of.setdefault(text, len(self.words))
        if code == len(self.words):
            self.words.append(text)
            if any(f"stats.{name}" in text for name in LIVE):
                self.live.add(code)
        return code


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
