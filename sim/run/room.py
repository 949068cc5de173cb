"""What hosts have left: now, or after one of several steps that were played together."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...placement.decide.engine import Engine
from ...placement.fleet.consumers import Extras
from ...placement.fleet.fleet import Fleet
from ...placement.gpu.providers import GPU_MILLI, GpuTable

Whole = NDArray[np.int64]
_NOTHING = Extras()
_NO_ROWS: Whole = np.empty(0, np.int64)


class Came:
    """The guests that came in steps which are played together, in order, and are all on the engine's hosts now."""

    def __init__(self, engine: Engine, uuids: list[str]) -> None:
        self._engine, self.uuids = engine, uuids
        self.forked = False
        """True if rules were tried on an engine without some of them."""

    def engine_after(self, count: int) -> Engine:
        """The engine as it was after the first ``count`` guests: a fork that the others have left. O(others)."""
        if count >= len(self.uuids):
            return self._engine
        self.forked = True
        fork = self._engine.fork()
        fork.release(self.uuids[count:])
        return fork

    @cached_property
    def _takes(self) -> dict[int, tuple[Whole, Whole, Whole]]:
        """By number of a resource class: the guests that take of it, the rows of which, and how much. O(guests)."""
        fleet = self._engine.fleet
        kernel, extras = fleet._kernel, fleet._consumers.extras
        shapes: dict[int, list[tuple[int, int]]] = {}
        takes: dict[int, list[tuple[int, int, int]]] = {}
        for guest, consumer in enumerate(fleet._consumers.ids(self.uuids).tolist()):
            _, _, host, shape, *_ = kernel.consumer(consumer)
            own = shapes.get(shape)
            if own is None:
                classes, amounts, *_ = kernel.shape(shape)
                own = shapes[shape] = list(zip(classes, amounts, strict=True))
            for index, amount in own:
                takes.setdefault(index, []).append((guest, host, amount))
            for row, index, amount in extras.get(consumer, _NOTHING).elsewhere:
                takes.setdefault(index, []).append((guest, row, amount))
        columns = {index: np.array(lines, np.int64).T for index, lines in takes.items()}
        return {index: (guests, rows, amounts) for index, (guests, rows, amounts) in columns.items()}

    def take_back(self, used: Whole, index: int, count: int) -> None:
        """Let ``used`` of a resource class, by row, be without the guests after the first ``count``."""
        if index in self._takes:
            guests, rows, amounts = self._takes[index]
            first = int(np.searchsorted(guests, count))
            np.subtract.at(used, rows[first:], amounts[first:])

    def give(self, used: Whole, index: int, reached: int, count: int) -> Whole:
        """Let ``used`` of a resource class, by row, be with ``count`` guests, in place of ``reached``; returns the rows
        that give more."""
        if index not in self._takes:
            return _NO_ROWS
        guests, rows, amounts = self._takes[index]
        first, last = np.searchsorted(guests, (reached, count)).tolist()
        np.add.at(used, rows[first:last], amounts[first:last])
        return rows[first:last]


class Then(NamedTuple):
    """After the first ``number`` guests of those that came."""

    came: Came
    number: int


class Room:
    """What providers of a fleet have given and have left, at the moment of the last ``renew``."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.gpus = fleet, GpuTable(fleet)
        self.moment = 0
        """Number of the moment."""
        self._used: dict[int, Whole] = {}
        """By number of the resource class, of those that were asked for: what each row has given."""
        self._changed: Whole = _NO_ROWS
        """By row: the latest moment at which its provider tree had given more than at the one before."""
        self._then: Then | None = None
        self._below: Whole | None = None
        """The rows of GPUs, as ``idle_gpus`` has them."""
        self._idle: Whole | None = None

    def renew(self, then: Then | None) -> bool:
        """Go to another moment, None: now. True if no row has given less than at the moment before, of any resource
        class that was asked for. O(rows), and O(guests between) between moments of the same guests that came."""
        self._idle, self.moment = None, self.moment + 1
        last = self._then
        if then is not None and last is not None and then.came is last.came and then.number >= last.number:
            for index, used in self._used.items():
                self._change(then.came.give(used, index, last.number, then.number))
            self._then = then
            return True
        before, self._used, self._then = self._used, {}, then
        rows = self.fleet.rows
        if len(self._changed) != rows:
            self._changed = np.full(rows, self.moment)
            return False
        more = True
        for index, used in before.items():
            now = self.used(index)  # also as the next moment is compared with this one
            self._change(np.flatnonzero(now != used))
            more = more and bool((now >= used).all())
        return more

    def _change(self, rows: Whole) -> None:
        if len(rows):
            self._changed[self.fleet._store.row["root"][rows]] = self.moment

    def changed_since(self, row: int, moment: int) -> bool:
        """True if the provider tree of a host has given more since a moment. O(1)."""
        return bool(self._changed[row] > moment)

    def used(self, index: int) -> Whole:
        """What each row has given of a resource class. O(rows) once for each moment."""
        known = self._used.get(index)
        if known is None:
            found: Whole = self.fleet._store.inventory["used"][index][: self.fleet.rows]
            known = self._used[index] = found.astype(np.int64, copy=True)
            if self._then is not None:
                self._then.came.take_back(known, index, self._then.number)
        return known

    def left(self, index: int) -> Whole:
        """What each row has left of a resource class; below 0 where more is given than there is. O(rows)."""
        limit: Whole = self.fleet._store.inventory["limit"][index][: self.fleet.rows]
        return limit - self.used(index)

    def left_in_trees(self, index: int) -> Whole:
        """What the provider tree of each root has left of a resource class. O(rows)."""
        left = np.maximum(self.left(index), 0)
        held = np.flatnonzero(left)
        trees = np.zeros(len(left), np.int64)
        np.add.at(trees, self.fleet._store.row["root"][held], left[held])
        return trees

    def idle_gpus(self, rows: Whole) -> Whole:
        """Idle thousandths of the GPUs below each of ``rows``, which are the same at all moments: [most GPUs, rows], -1
        where there is none. O(rows) once for each moment."""
        if self._idle is None:
            if self._below is None:
                self._below = np.ascontiguousarray(self.gpus.below(rows).T, np.int64)
            self._idle = self._below
            if self._below.size:
                left = np.maximum(self.left(self.fleet.resource_class(GPU_MILLI)), 0)
                # A GPU that is not there has number -1.
                self._idle = np.append(left, -1)[self._below]
        return self._idle
