"""Shapes of one ranking: those of the amounts that it was made with, and those of others, do not change each other."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from hostler.ext import batch, constants, fleet, ranking, shapes

from .world import empty_arrays, int32

ROWS, NEVER = 96, 9


class Small:
    """A fleet in which row r has r free of resource 0 and twice as many of resource 1, and two classes by turns."""

    def __init__(self, held_room: int) -> None:
        self.columns = fleet.Columns()
        self.arrays = empty_arrays(128)
        self.arrays["avail"][0, :ROWS] = np.arange(ROWS)
        self.arrays["avail"][1, :ROWS] = 2 * np.arange(ROWS)
        self.arrays["limit"][:] = self.arrays["avail"]
        self.arrays["max_unit"][:] = 1 << 20
        for name in ("min_unit", "step_size"):
            self.arrays[name][:] = 1
        self.arrays["class_of"][:ROWS] = np.arange(ROWS) % 2
        self.columns.attach(**self.arrays)
        self.columns.set_rows(ROWS)
        self.columns.mark_changed(np.arange(ROWS, dtype=np.int32))
        self.columns.add_shape(int32([0]), np.array([0]), 0, 0.0, 0.0)
        self.index = ranking.HostIndex(self.columns, held_room=held_room)

    def ranking(self, amount: int) -> Any:
        term = {"source": constants.SOURCE_COLUMN, "column": 0, "multiplier": 1.0}
        return ranking.Ranking(
            self.columns,
            class_stage=np.zeros(2, np.uint8),
            needs=[(0, amount, 1, False), (1, amount, 2, False)],
            terms=[term],
            index=self.index,
        )


def passing(made: Any) -> int:
    count: int = made.counts()[0]
    return count


@pytest.mark.parametrize("held_room", [0, 1 << 20], ids=["searched", "held"])
def test_a_shape_leaves_the_amounts_of_its_ranking_and_of_other_shapes(held_room: int) -> None:
    small = Small(held_room)
    made = small.ranking(10)
    table = shapes.Shapes(small.columns)
    number = table.add_ranking(made)
    plain = table.number(number, table.add_size(0))
    others = [table.number(number, table.add_size(0, [amount, amount])) for amount in (20, 60)]
    for _ in range(200):
        assert stages_of(small, table, [plain, *others]) == [ROWS - 10, ROWS - 20, ROWS - 60]
        assert passing(made) == ROWS - 10
        assert np.count_nonzero(made.stages() == 0) == ROWS - 10
        assert made.judge(int32([5, 15, 70])).tolist() == [1, 0, 0]
        made.check()


@pytest.mark.parametrize("held_room", [0, 1 << 20], ids=["searched", "held"])
def test_shapes_judge_host_classes_as_their_ranking_does_once_there_are_more(held_room: int) -> None:
    small = Small(held_room)
    made = small.ranking(0)
    table = shapes.Shapes(small.columns)
    number = table.add_ranking(made)
    sized = [table.number(number, table.add_size(0, [amount, amount])) for amount in (0, 48)]
    before = made.resized([(0, 48, 1, False), (1, 48, 2, False)])
    for _ in range(200):
        assert stages_of(small, table, sized) == [ROWS, ROWS - 48]
    made.set_class_stage(np.array([0, 0, NEVER], np.uint8))
    small.arrays["class_of"][:ROWS] = np.arange(ROWS) % 3
    small.columns.mark_changed(np.arange(ROWS, dtype=np.int32))
    small.columns.attach(**small.arrays)
    for _ in range(200):
        assert stages_of(small, table, sized) == [ROWS * 2 // 3, (ROWS - 48) * 2 // 3]
        assert passing(before) == (ROWS - 48) * 2 // 3


def test_a_ranking_made_of_another_takes_no_verdicts_of_its_own() -> None:
    small = Small(0)
    resized = small.ranking(0).resized([(0, 1, 1, False), (1, 1, 2, False)])
    with pytest.raises(RuntimeError, match="judges host classes as that one does"):
        resized.set_class_stage(np.zeros(3, np.uint8))


def stages_of(small: Small, table: Any, which: list[int]) -> list[int]:
    """Rows that passed for each of the shapes, asked in one batch; nothing is claimed of what counts."""
    n = len(which)
    counts = np.zeros((n, 1), np.int64)
    uuids = np.stack([np.full(n, 3), np.arange(n)], axis=1).astype(np.uint64)
    ids, owners = np.zeros(n, np.int32), np.zeros(n, np.int32)
    none = np.full(n, -1, np.int32)
    done = batch.place(
        *(small.columns, table, int32(which), uuids, owners, owners, none, False, 1, 0),
        *(np.zeros(n, np.int32), ids, np.zeros(n), counts),
    )
    assert done == n
    batch.release(small.columns, ids)
    return [int(count) for count in counts[:, 0]]


@pytest.mark.property
def test_rankings_that_are_collected_give_back_what_they_held() -> None:
    """Under the sanitizers: while the index, which is collected with them, is still there."""
    small = Small(1 << 20)
    small.ranking(10).best()
    free = small.index.nbytes
    for _ in range(20):
        cycle: list[Any] = [small.ranking(10)]
        for _ in range(1_000):
            small.columns.mark_changed(int32([1]))
            cycle[0].best()
        assert cycle[0].held
        assert small.index.nbytes > free
        cycle.append(cycle)
        del cycle
        gc.collect()
        assert small.index.nbytes == free
    last: list[Any] = [small.ranking(10), small]
    last.append(last)
    del last, small
    gc.collect()
