"""The rows of all pools: facts and capacities in candidate order. Each change is recorded for other versions and logged
for readers. ``pools`` interprets reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...versions.history import Change, History
from .columns import COLUMN, PoolColumns
from .reports import Backend, PoolFacts
from .volumes import Placed, Volume, Volumes

Line = NDArray[np.float64]

MAX_CHANGED_ROWS: Final = 1_000_000
"""Maximum number of logged changes of facts; beyond it readers start again."""


class PoolRows:
    """Rows, volumes, and what is charged.

    ``layout`` increases when rows are rebuilt, ``epoch`` when what pools report has changed (``changed_rows`` has the
    rows), and the log in ``columns.kernel`` tells of every changed row.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self.columns = PoolColumns()
        self.facts: list[PoolFacts | None] = []
        self.backends: dict[str, Backend] = {}
        """Backends by key, in candidate order."""
        self.row_of: dict[str, int] = {}
        """Backend id -> row."""
        self._row_of_host: dict[str, int] = {}
        self.volumes = Volumes(self._count_volume)
        self.changed_rows: list[int] = []
        """Rows whose facts have changed, in order."""
        self.layout = 0
        self._known = ((-1, -1), True, False)

    # what is known of all

    @property
    def epoch(self) -> tuple[int, int]:
        """Changes when facts of some pool do."""
        return self.layout, len(self.changed_rows)

    @property
    def problems(self) -> bool:
        """True if some pool's report cannot be used. O(1) while nothing new is reported, else O(pools)."""
        return self._summary()[2]

    @property
    def all_bounded(self) -> bool:
        """True if the capacities of all pools are numbers. O(1) while nothing new is reported, else O(pools)."""
        return self._summary()[1]

    def _summary(self) -> tuple[tuple[int, int], bool, bool]:
        if self._known[0] != self.epoch:
            known = [facts for facts in self.facts if facts is not None]
            bounded, problems = all(each.bounded for each in known), any(each.problem for each in known)
            self._known = (self.epoch, bounded, problems)
        return self._known

    def live_rows(self) -> NDArray[np.int32]:
        """Rows of all pools, in candidate order. O(rows)."""
        return np.flatnonzero(self.columns.live[: self.columns.rows]).astype(np.int32)

    # changing, with a way back

    def fact(self, row: int) -> PoolFacts:
        """What the pool of a row reported. O(1)."""
        facts = self.facts[row]
        assert facts is not None
        return facts

    def make(self, redo: Callable[[], object], undo: Callable[[], object]) -> None:
        """Make a change that two functions make and unmake, and record it for other versions. O(change)."""
        redo()
        if self._history.recording:
            self._history.record(Change(redo, undo))

    def _set(self, name: str, value: object) -> None:
        before = getattr(self, name)
        self.make(partial(setattr, self, name, value), partial(setattr, self, name, before))

    def _put(self, name: str, key: str, value: object) -> None:
        """Set a key of the mapping ``name``; a new key is added last."""
        before = getattr(self, name).get(key)
        self.make(partial(self._put_key, name, key, value), partial(self._put_key, name, key, before))

    def _put_key(self, name: str, key: str, value: object) -> None:
        """By name: the mapping may be another by the time that a change is unmade."""
        if value is None:
            getattr(self, name).pop(key, None)
        else:
            getattr(self, name)[key] = value

    def _put_fact(self, row: int, facts: PoolFacts | None, line: Line) -> None:
        """Let a row hold a pool's facts and figures, or nothing."""
        before, was = self.facts[row], self.columns.block[:, row].copy()
        self.make(partial(self._write, row, facts, line), partial(self._write, row, before, was))

    def _write(self, row: int, facts: PoolFacts | None, line: Line) -> None:
        if len(self.changed_rows) > MAX_CHANGED_ROWS:
            self.changed_rows.clear()
            self.layout += 1
        old = self.facts[row]
        if old is not None and self.row_of.get(old.backend_id) == row:
            del self.row_of[old.backend_id]
            self._row_of_host.pop(old.host, None)
        self.facts[row] = facts
        self.columns.live[row] = facts is not None
        self.columns.block[:, row] = line
        if facts is not None:
            self.row_of[facts.backend_id] = row
            self._row_of_host[facts.host] = row
            self.columns.block[COLUMN["volumes"], row] = self.volumes.on(facts.host)
        self.changed_rows.append(row)
        self.columns.changed(row)

    def _put_capacities(self, row: int, line: Line) -> None:
        self.columns.block[:, row] = line
        self.columns.changed(row)

    def _count_volume(self, host: str, change: int) -> None:
        row = self._row_of_host.get(host)
        if row is not None:
            self.columns.block[COLUMN["volumes"], row] += change
            self.columns.changed(row)

    def _derive(self, row: int) -> None:
        """Derived figures follow from the others, so they need no record of their own."""
        self.columns.derive(row)
        if self._history.recording:
            line = self.columns.block[:, row].copy()
            self.make(partial(self._put_capacities, row, line), lambda: None)

    # rows

    def _rows_for(self, key: str, count: int) -> list[int]:
        """Empty rows for new pools of a backend, where the candidate order wants them."""
        rows = self.columns.rows
        if next(reversed(self.backends)) == key:
            self._grow(rows + count)
            return list(range(rows, rows + count))
        end = self._lay(key, count)
        return list(range(end - count, end))

    def _grow(self, rows: int) -> None:
        before = self.columns.rows
        if rows > self.columns.capacity:
            self.layout += 1  # the arrays move
        self.make(partial(self._resize, rows), partial(self._resize, before))

    def _resize(self, rows: int) -> None:
        self.columns.resize(rows)
        del self.facts[rows:]
        self.facts.extend([None] * (rows - len(self.facts)))
        self.columns.kernel.forget_log()

    def _lay(self, key: str | None = None, gap: int = 0) -> int:
        """Rebuild the rows without empty ones, with ``gap`` free rows after the pools of ``key``; returns the end of
        the gap. O(rows)."""
        order: list[int] = []
        backends: dict[str, Backend] = {}
        end = 0
        for name, backend in self.backends.items():
            start = len(order)
            order.extend(backend.pools.values())
            backends[name] = replace(backend, pools={pool: start + i for i, pool in enumerate(backend.pools)})
            if name == key:
                order.extend([-1] * gap)
                end = len(order)
        where = np.array(order, np.int64)
        block = np.where(where >= 0, self.columns.block[:, where], 0.0) if order else self.columns.block[:, :0]
        facts = [self.facts[row] if row >= 0 else None for row in order]
        old = (self.columns.block[:, : self.columns.rows].copy(), self.facts, self.backends)
        self.make(partial(self._laid, (block, facts, backends)), partial(self._laid, old))
        return end

    def _laid(self, image: tuple[Line, list[PoolFacts | None], dict[str, Backend]]) -> None:
        block, facts, backends = image
        self.facts, self.backends = list(facts), dict(backends)
        self.columns.order(block, np.array([each is not None for each in facts], np.int32))
        self.row_of = {each.backend_id: row for row, each in enumerate(facts) if each is not None}
        self._row_of_host = {each.host: row for row, each in enumerate(facts) if each is not None}
        self.changed_rows.clear()
        self.layout += 1

    def _tidy(self) -> None:
        """Rebuild the rows when most are empty."""
        if self.columns.rows > 64 + 2 * len(self.row_of):
            self._lay()

    # charging

    def consume(self, row: int, size_gb: float, at: float | None = None) -> None:
        """Take ``size_gb`` GiB of a pool, or give back where it is negative, whether or not it fits. ``at`` is when:
        reports made before do not undo it (None: they do). O(1)."""
        block = self.columns.block
        if self._history.recording:
            before = block[:, row].copy()
            self.columns.consume(row, size_gb, at)
            after = block[:, row].copy()
            redo, undo = partial(self._put_capacities, row, after), partial(self._put_capacities, row, before)
            self._history.record(Change(redo, undo))
        else:
            self.columns.consume(row, size_gb, at)

    @contextmanager
    def charging(self, rows: NDArray[np.int32]) -> Iterator[PoolColumns]:
        """Charge many pools in the columns themselves: ``rows`` says which, when the body is done. O(all pools) where
        versions are kept."""
        columns = self.columns
        before = columns.block.copy() if self._history.recording else None
        yield columns
        if before is not None:
            which = np.unique(rows[rows >= 0])
            redo = partial(self._put_lines, which, columns.block[:, which].copy())
            self._history.record(Change(redo, partial(self._put_lines, which, before[:, which])))

    def _put_lines(self, rows: NDArray[np.int32], lines: Line) -> None:
        self.columns.block[:, rows] = lines
        self.columns.changed(*rows.tolist())

    def add_placed(self, placed: Sequence[Placed]) -> None:
        """Know volumes that a batch has placed and counted. O(volumes)."""
        self.make(partial(self.volumes.put_placed, placed), partial(self.volumes.drop_placed, placed))

    def put_volume(self, volume_id: str, volume: Volume | None) -> None:
        """Know this volume under its id, or none any more; charges nothing. O(1)."""
        if self._history.recording:
            before = self.volumes.get(volume_id)
            self.make(partial(self.volumes.put, volume_id, volume), partial(self.volumes.put, volume_id, before))
        else:
            self.volumes.put(volume_id, volume)
