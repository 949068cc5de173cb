"""What a ranking answers, in small cases worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hostler.ext.constants import (
    AFFINITY,
    ANTI_AFFINITY,
    FREE_RAM_MB,
    NOT_A_HOST,
    NUM_INSTANCES,
    SOFT_AFFINITY,
    SOFT_ANTI_AFFINITY,
    SOURCE_CLASS,
    SOURCE_COLUMN,
    SOURCE_GROUP,
    SOURCE_ROW,
)
from hostler.ext.fleet import Columns
from hostler.ext.ranking import HostIndex, Ranking, best_beside
from hostler.placement.types.ordered_sum import ordered_sum

from .world import Arrays, empty_arrays, int32

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

RAM: dict[str, Any] = {"source": SOURCE_COLUMN, "column": FREE_RAM_MB, "multiplier": 1.0}
COMPANY: dict[str, Any] = {"source": SOURCE_GROUP, "group_factor": 1.0, "multiplier": 4.0}
INSTANCES: dict[str, Any] = {"source": SOURCE_COLUMN, "column": NUM_INSTANCES, "multiplier": -1.0}


class Fleet:
    """Rows with this much free memory, all of host class 0, each with room for eight of resource class 0."""

    def __init__(self, *free_ram_mb: float) -> None:
        self.arrays: Arrays = empty_arrays(64)
        self.rows = len(free_ram_mb)
        self.arrays["host"][FREE_RAM_MB, : self.rows] = free_ram_mb
        self.arrays["limit"][0, : self.rows] = self.arrays["max_unit"][0, : self.rows] = 8
        self.arrays["avail"][0, : self.rows] = 8
        self.columns = Columns()
        self.columns.attach(**self.arrays)
        self.columns.set_rows(self.rows)

    def ranking(self, *terms: dict[str, Any], **arguments: Any) -> Ranking:
        defaults: dict[str, Any] = {"class_stage": np.zeros(3, np.uint8), "terms": terms}
        return Ranking(self.columns, **(defaults | arguments))

    def group(self, policy: int, *members: int, at_most: int = 1) -> int:
        """A server group with ``members[row]`` members on each row; they take nothing."""
        group = self.columns.add_group(policy, at_most)
        for row, count in enumerate(members):
            for number in range(count):
                self.columns.add_consumer(row, number, row, -1, 0, 0, group, 0)
        return group


@pytest.mark.parametrize(
    ("free_ram_mb", "terms", "best"),
    [
        ((1, 5, 3), [RAM], ([1, 2, 0], [1.0, 0.5, 0.0])),
        ((5, 1, 5), [RAM], ([0, 2, 1], [1.0, 1.0, 0.0])),
        ((1, 5, 3), [], ([0, 1, 2], [0.0, 0.0, 0.0])),
        ((1, 5, 3), [RAM | {"multiplier": -2.0}], ([0, 2, 1], [0.0, -1.0, -2.0])),
        ((4, 4, 4), [RAM], ([0, 1, 2], [0.0, 0.0, 0.0])),
        ((4, 4, 4), [RAM | {"minval": 0.0}], ([0, 1, 2], [1.0, 1.0, 1.0])),
        ((4, 1, 2), [RAM | {"minval": 0.0}], ([0, 2, 1], [1.0, 0.5, 0.25])),
        ((4, -4, 1), [RAM | {"minval": 0.0}], ([0, 2, 1], [1.0, 0.25, 0.0])),
        ((9,), [RAM | {"minval": 0.0}], ([0], [0.0])),
        ((), [RAM], ([], [])),
        ((1, 5, 3), [RAM | {"source": SOURCE_CLASS, "values": np.arange(3.0)}], ([0, 1, 2], [0.0, 0.0, 0.0])),
        ((1, 5, 3), [RAM | {"source": SOURCE_ROW, "values": np.arange(64.0)}], ([2, 1, 0], [1.0, 0.5, 0.0])),
        ((1, 5, 3), [RAM, RAM | {"multiplier": 0.5}], ([1, 2, 0], [1.5, 0.75, 0.0])),
        (
            (1, 5, 3),
            [RAM, {"source": SOURCE_GROUP, "group_factor": 1.0, "multiplier": 9.0}],
            ([1, 2, 0], [1.0, 0.5, 0.0]),
        ),
    ],
)
def test_score_is_the_sum_of_multiplier_times_norm_and_ties_go_to_the_smaller_row(
    free_ram_mb: tuple[float, ...], terms: list[dict[str, Any]], best: Any
) -> None:
    assert Fleet(*free_ram_mb).ranking(*terms).best(-1, 5) == best


def test_only_rows_that_pass_are_measured() -> None:
    fleet = Fleet(1, 5, 3, 100)
    fleet.arrays["class_of"][3] = 1
    ranking = fleet.ranking(RAM, class_stage=np.array([0, 4], np.uint8))
    assert ranking.best(-1, 9) == ([1, 2, 0], [1.0, 0.5, 0.0])
    assert ranking.counts(-1, 5) == [3, 0, 0, 0, 1]


def test_a_row_is_counted_at_the_first_stage_that_refuses_it() -> None:
    fleet = Fleet(1, 2, 3, 4)
    fleet.arrays["class_of"][:4] = [0, 1, 2, 0]
    ranking = fleet.ranking(
        class_stage=np.array([0, 3, NOT_A_HOST], np.uint8),
        needs=[(0, 9, 2, False)],
        bounds=[(FREE_RAM_MB, 2.0, np.inf, 1)],
    )
    assert ranking.stages().tolist() == [1, 2, NOT_A_HOST, 2]
    assert ranking.judge(int32([3, 0])).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("amount", "units", "passes"),
    [(6, True, True), (6, False, True), (7, True, False), (7, False, True), (3, True, False), (9, False, False)],
)
def test_units_are_looked_at_where_the_need_says_so(amount: int, units: bool, passes: bool) -> None:
    fleet = Fleet(1)
    fleet.arrays["min_unit"][0, 0], fleet.arrays["step_size"][0, 0] = 4, 3
    assert fleet.ranking(needs=[(0, amount, 1, units)]).counts(-1, 2) == [passes, not passes]


@pytest.mark.parametrize(
    ("policy", "members", "best", "counts"),
    [
        (AFFINITY, (1, 0, 2), ([2, 0], [1.0, 0.0]), [2, 0, 1]),
        (AFFINITY, (0, 0, 1), ([2], [0.0]), [1, 0, 2]),
        (AFFINITY, (), ([1, 2, 0], [1.0, 0.5, 0.0]), [3, 0, 0]),
        (ANTI_AFFINITY, (0, 1, 0), ([2, 0], [1.0, 0.0]), [2, 1, 0]),
        (ANTI_AFFINITY, (), ([1, 2, 0], [1.0, 0.5, 0.0]), [3, 0, 0]),
        (SOFT_AFFINITY, (2, 0, 1), ([0, 2, 1], [4.0, 2.5, 1.0]), [3, 0, 0]),
        (SOFT_ANTI_AFFINITY, (2, 0, 1), ([1, 2, 0], [5.0, 2.5, 0.0]), [3, 0, 0]),
    ],
)
def test_a_server_group_refuses_rows_or_weighs_them(
    policy: int, members: tuple[int, ...], best: Any, counts: list[int]
) -> None:
    fleet = Fleet(1, 5, 3)
    ranking = fleet.ranking(RAM, COMPANY, COMPANY | {"group_factor": -1.0}, affinity_stage=2, anti_affinity_stage=1)
    group = fleet.group(policy, *members)
    assert ranking.best(group, 9) == best
    assert ranking.counts(group, 3) == counts


def test_a_row_without_members_has_the_minval_of_a_group_weigher() -> None:
    fleet = Fleet(1, 5, 3)
    ranking = fleet.ranking(RAM | {"multiplier": 3.0}, COMPANY | {"multiplier": 2.0, "minval": 1.0})
    assert ranking.best(fleet.group(SOFT_AFFINITY, 2)) == ([1], [3.0])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("members", "weights"),
    [
        (None, [1.0, 0.0]),  # the weigher of groups is idle
        (np.zeros(0), [5.0, 4.0]),  # no members on any row: 4 * (0 - -2) / (0 - -2)
    ],
)
def test_a_soft_group_is_weighed_where_no_row_beside_has_members_of_it(
    members: Any, weights: list[float], shared: bool
) -> None:
    fleet, none = Fleet(1, 5, 9), int32([])
    index = HostIndex(fleet.columns) if shared else None
    ranking = fleet.ranking(RAM, COMPANY | {"minval": -2.0}, index=index)
    assert best_beside(ranking, int32([2]), none, members, 2) == ([1, 0], weights)


def test_anti_affinity_allows_as_many_members_on_a_host_as_the_group_says() -> None:
    fleet = Fleet(1, 2, 3)
    group = fleet.group(ANTI_AFFINITY, 0, 1, 2, at_most=2)
    assert fleet.ranking(RAM, anti_affinity_stage=1).best(group, 9)[0] == [1, 0]


def test_a_policy_that_no_filter_looks_at_makes_no_difference() -> None:
    fleet = Fleet(1, 2, 3)
    assert fleet.ranking(RAM).best(fleet.group(ANTI_AFFINITY, 0, 0, 1)) == ([2], [1.0])


def test_a_claim_is_seen_by_the_next_decision() -> None:
    fleet = Fleet(6, 5, 4)
    shape = fleet.columns.add_shape(int32([0]), np.array([8]), 1, 2, 0)
    ranking = fleet.ranking(RAM, INSTANCES, needs=[(0, 1, 1, False)])
    assert ranking.best()[0] == [0]
    consumer = fleet.columns.add_consumer(7, 1, 0, shape, 0, 0, -1, 0)
    assert ranking.best(-1, 9) == ([1, 2], [1.0, 0.0])
    fleet.columns.drop_consumer(consumer)
    assert ranking.best()[0] == [0]
    ranking.check()


def test_parts_add_up_to_the_score() -> None:
    fleet = Fleet(1, 5, 3)
    ranking = fleet.ranking(RAM | {"multiplier": 3.0}, RAM | {"multiplier": -1.0, "minval": 2.0})
    rows, scores = ranking.best(-1, 3)
    asked = int32(rows)
    parts = ranking.parts(asked)
    assert ranking.score_rows(asked).tolist() == scores
    assert np.sum([multiplier * norm for _, norm, multiplier in parts], axis=0).tolist() == scores
    for row, score in zip(rows, scores, strict=True):
        assert ordered_sum(multiplier * norm for _, norm, multiplier in ranking.row_parts(row)) == score
