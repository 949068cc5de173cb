"""The pure-Python twin of _near_misses.pyx: a look at every row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .fleet_py import Columns

HIDDEN: Final = 1 << 48
_STAGES: Final = 512
_ONE: Final = 1 << 32

Short = tuple[int, int, int]


class Rules:
    """What judges rows, each rule under the number of its stage; see the kernel."""

    def __init__(
        self,
        columns: Columns,
        class_words: npt.NDArray[np.int64],
        needs: Sequence[tuple[int, int, int, bool]] = (),
        bounds: Sequence[tuple[int, float, float, int]] = (),
        masks: Sequence[tuple[npt.NDArray[Any], int]] = (),
        considered: npt.NDArray[np.uint8] | None = None,
        split: tuple[int, npt.NDArray[np.uint8], int, int, float, float] | None = None,
    ) -> None:
        if len(class_words) == 0:
            raise ValueError("class words are missing")
        if not all(1 <= rule[-1] < _STAGES for rule in (*((*need[:2], need[2]) for need in needs), *bounds, *masks)):
            raise ValueError("a stage must be within [1, 511]")
        if not all(0 <= need[0] < columns.classes for need in needs):
            raise IndexError("resource class out of range")
        if not all(0 <= bound[0] < len(columns.host) for bound in bounds):
            raise IndexError("column out of range")
        given = [*(mask[0] for mask in masks), *(() if considered is None else (considered,))]
        if any(len(each) != columns.capacity for each in given):
            raise ValueError("a mask has one entry per row")
        if split is not None and (len(split[1]) != len(class_words) or not 1 <= split[2] < _STAGES):
            raise ValueError("a split has one entry per class and a stage within [1, 511]")
        if split is not None and not 0 <= split[3] < len(columns.host):
            raise IndexError("column out of range")
        if any(each.dtype != np.uint8 or each.ndim != 1 for each in given):
            raise ValueError("a mask is of uint8")
        for need in needs:
            if not -(2**63) <= need[1] < 2**63:
                raise OverflowError("an amount beyond int64")
        self._capacity = columns.capacity
        self._columns, self._class_words = columns, class_words
        self._needs, self._bounds, self._masks = needs, bounds, masks
        self._considered, self._split = considered, split

    def _check(self) -> None:
        if self._columns.capacity != self._capacity:
            raise RuntimeError("the columns moved: make new rules")

    def _rows(self) -> Iterator[tuple[int, int]]:
        """(row, word of its class) of the rows that are considered."""
        for row in range(self._columns.rows):
            word = int(self._class_words[self._columns.class_of[row]])
            if word < HIDDEN and (self._considered is None or self._considered[row]):
                yield row, word

    def _others(self, row: int) -> set[int]:
        """Stages of bounds and masks that refuse a row."""
        host = self._columns.host
        outside = {stage for column, low, high, stage in self._bounds if not low <= host[column, row] <= high}
        return outside | {stage for passes, stage in self._masks if not passes[row]}

    def _stays_refused(self, row: int, stages: list[int]) -> bool:
        """Whether the one more rule of the split refuses a row that its stages refuse."""
        if self._split is None or self._split[0] not in stages:
            return False
        _, classes, _, column, now, within = self._split
        kind = classes[self._columns.class_of[row]]
        return bool(kind == 2 or (kind and abs(now - self._columns.host[column, row]) > within))

    def _suits(self, row: int, resource: int, amount: int) -> bool:
        columns, step = self._columns, max(int(self._columns.step_size[resource, row]), 1)
        least, most = columns.min_unit[resource, row], columns.max_unit[resource, row]
        return bool(least <= amount <= most) and amount % step == 0

    def set_time(self, now: float, within: float, beats: int) -> None:
        """Give the split another time, and how far from it is near; see the kernel."""
        if self._split is not None:
            self._split = (*self._split[:4], now, within)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept: nothing is."""
        return 0

    def find(
        self,
    ) -> tuple[int, int, int, int, dict[int, tuple[int, int]], dict[int, tuple[Short, ...]]]:
        """(rows that no rule refuses, the first of them, fewest rules that refuse a row, the first such row, alone,
        shorts); see the kernel."""
        self._check()
        passing, first, least, nearest = 0, -1, -1, -1
        alone: dict[int, tuple[int, int]] = {}
        shorts: dict[int, list[Short]] = {need[2]: [(0, 0, 0)] * 3 for need in self._needs}
        for row, word in self._rows():
            count, total = divmod(word, _ONE)
            stages = list(self._others(row))
            for resource, amount, stage, units in self._needs:
                lacks = self._columns.avail[resource, row] < amount
                if lacks or (units and not self._suits(row, resource, amount)):
                    stages.append(stage)
            count, total = count + len(stages) + self._stays_refused(row, stages), total + sum(stages)
            if least < 0 or count < least:
                least, nearest = count, row
            if count == 0:
                passing, first = passing + 1, row if first < 0 else first
            elif count == 1:
                self._take_alone(row, total, alone, shorts)
        counted = {stage: tuple(found) for stage, found in shorts.items()}
        return passing, first, least, nearest, dict(sorted(alone.items())), counted

    def _take_alone(
        self, row: int, stage: int, alone: dict[int, tuple[int, int]], shorts: dict[int, list[Short]]
    ) -> None:
        if self._split is not None and stage == self._split[0] and self._split[1][self._columns.class_of[row]]:
            stage = self._split[2]
        count, first = alone.get(stage, (0, row))
        alone[stage] = count + 1, first
        for resource, amount, number, _ in self._needs:
            if number == stage:
                kind, value = self._short(row, resource, amount)
                held, at, best = shorts[stage][kind]
                better = held == 0 or value > best
                shorts[stage][kind] = (held + 1, row, value) if better else (held + 1, at, best)

    def _short(self, row: int, resource: int, amount: int) -> tuple[int, int]:
        """Which of the three kinds of shortage a row has, and its amount."""
        columns = self._columns
        left = int(columns.limit[resource, row] - columns.used[resource, row])
        most = int(columns.max_unit[resource, row])
        if self._suits(row, resource, amount):
            return 0, left
        if left < amount:
            return 2, most
        step, least = max(int(columns.step_size[resource, row]), 1), int(columns.min_unit[resource, row])
        allowed = min(amount, most) // step * step
        return 1, allowed if allowed >= least else -(-least // step) * step

    def could_pass(self) -> bool:
        """Whether a row passes if nothing of it is used; see the kernel."""
        self._check()
        return any(
            word == 0
            and not self._others(row)
            and all(
                self._columns.limit[resource, row] >= amount and self._suits(row, resource, amount)
                for resource, amount, _, _ in self._needs
            )
            for row, word in self._rows()
        )
