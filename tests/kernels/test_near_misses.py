"""Which rules alone keep rows out, and by how much, on random columns: the kernel against a plain look at every row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.ext.constants import FREE_RAM_MB, NUM_INSTANCES, VCPUS_USED
from hostler.ext.fleet import Columns
from hostler.ext.near_misses import HIDDEN, Rules

from .world import empty_arrays

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

NEEDS = [(0, 4, 1, False), (1, 6, 2, True)]
BOUNDS = [(FREE_RAM_MB, 1.0, 3.0, 3), (NUM_INSTANCES, -np.inf, 2.0, 3)]


class Case:
    """Random columns of few distinct values, so that ties and rows that one rule alone refuses abound."""

    def __init__(self, seed: int, rows: int) -> None:
        draw = np.random.default_rng(seed)
        capacity = -(-rows // 64) * 64
        self.arrays = empty_arrays(capacity)
        for name, most in (("used", 4), ("limit", 9), ("min_unit", 3), ("max_unit", 9), ("step_size", 4)):
            self.arrays[name][:] = draw.integers(0, most, self.arrays[name].shape)
        self.arrays["avail"][:] = np.minimum(self.arrays["limit"] - self.arrays["used"], self.arrays["max_unit"])
        self.arrays["host"][:] = draw.integers(0, 4, self.arrays["host"].shape)
        self.arrays["class_of"][:] = draw.integers(0, 4, capacity)
        self.columns = Columns()
        self.columns.attach(**self.arrays)
        self.columns.set_rows(rows)
        self.words = np.array([0, 0, (1 << 32) + 5, HIDDEN], np.int64)
        self.mask = (draw.integers(0, 4, capacity) > 0).astype(np.uint8)
        self.considered = (draw.integers(0, 3, capacity) > 0).astype(np.uint8) if draw.integers(0, 2) else None
        kinds = np.array([1, 0, 2, 1], np.uint8)
        self.split = (3, kinds, 7, VCPUS_USED, 1.0, 1.0) if draw.integers(0, 2) else None

    @property
    def rules(self) -> tuple[Any, ...]:
        return self.columns, self.words, NEEDS, BOUNDS, [(self.mask, 4)], self.considered, self.split

    def stages(self, row: int) -> list[int] | None:
        """Stages that refuse a row; None: it is not considered. From the arrays alone."""
        word = int(self.words[self.arrays["class_of"][row]])
        if word == HIDDEN or (self.considered is not None and not self.considered[row]):
            return None
        host = self.arrays["host"][:, row]
        refusing = [5] if word else []
        refusing += [] if self.arrays["avail"][0, row] >= 4 else [1]
        refusing += [] if self.arrays["avail"][1, row] >= 6 and self.suits(1, row, 6) else [2]
        refusing += [] if 1.0 <= host[FREE_RAM_MB] <= 3.0 and host[NUM_INSTANCES] <= 2.0 else [3]
        kind = 0 if self.split is None or 3 not in refusing else self.split[1][self.arrays["class_of"][row]]
        refusing += [8] if kind == 2 or (kind == 1 and abs(1.0 - host[VCPUS_USED]) > 1.0) else []
        return refusing + ([] if self.mask[row] else [4])

    def suits(self, resource: int, row: int, amount: int) -> bool:
        least, most = self.arrays["min_unit"][resource, row], self.arrays["max_unit"][resource, row]
        return bool(least <= amount <= most) and amount % max(int(self.arrays["step_size"][resource, row]), 1) == 0

    def allowed(self, resource: int, row: int, amount: int) -> int:
        """The greatest amount up to ``amount`` that the unit rules allow, else the least multiple of the step that is
        not below the least amount."""
        least, most = int(self.arrays["min_unit"][resource, row]), int(self.arrays["max_unit"][resource, row])
        step = max(int(self.arrays["step_size"][resource, row]), 1)
        fitting = [each for each in range(min(amount, most) + 1) if each >= least and each % step == 0]
        return max(fitting) if fitting else next(each for each in range(least, least + step) if each % step == 0)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 600))
def test_rows_that_one_rule_alone_refuses_are_counted_by_that_rule(seed: int, rows: int) -> None:
    case = Case(seed, rows)
    passing, first, least, nearest, alone, shorts = Rules(*case.rules).find()
    found = {row: stages for row in range(rows) if (stages := case.stages(row)) is not None}
    passes = [row for row, stages in found.items() if not stages]
    assert (passing, first) == (len(passes), passes[0] if passes else -1)
    assert least == min((len(stages) for stages in found.values()), default=-1)
    assert nearest == next((row for row, stages in found.items() if len(stages) == least), -1)
    by_stage: dict[int, list[int]] = {}
    for row, stages in found.items():
        if len(stages) == 1:
            split = case.split is not None and stages == [3] and case.split[1][case.arrays["class_of"][row]]
            to = 7 if split else stages[0]
            by_stage.setdefault(to, []).append(row)
    assert alone == {stage: (len(of), of[0]) for stage, of in by_stage.items()}
    for resource, amount, stage, _ in NEEDS:
        of = by_stage.get(stage, [])
        left = {row: int(case.arrays["limit"][resource, row] - case.arrays["used"][resource, row]) for row in of}
        short = {row: left[row] for row in of if case.suits(resource, row, amount)}
        room, units, size = shorts[stage]
        assert room[0] == len(short)
        assert not short or room[1:] == (max(short, key=short.__getitem__), max(short.values()))
        ruled = {row: case.allowed(resource, row, amount) for row in of if row not in short and left[row] >= amount}
        assert units[0] == len(ruled)
        assert not ruled or units[1:] == (max(ruled, key=ruled.__getitem__), max(ruled.values()))
        both = {
            row: int(case.arrays["max_unit"][resource, row]) for row in of if row not in short and left[row] < amount
        }
        assert size[0] == len(both)
        assert not both or size[1:] == (max(both, key=both.__getitem__), max(both.values()))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 600))
def test_a_row_could_pass_if_its_limits_and_unit_rules_allow_it(seed: int, rows: int) -> None:
    case = Case(seed, rows)

    def could(row: int) -> bool:
        stages = case.stages(row)
        return (
            stages is not None
            and not set(stages) - {1, 2, 8}
            and all(
                case.arrays["limit"][resource, row] >= amount and case.suits(resource, row, amount)
                for resource, amount, _, _ in NEEDS
            )
        )

    assert Rules(*case.rules).could_pass() == any(map(could, range(rows)))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"needs": [(9, 1, 1, False)]}, IndexError),
        ({"needs": [(0, 1, 0, False)]}, ValueError),
        ({"bounds": [(99, 0.0, 1.0, 1)]}, IndexError),
        ({"bounds": [(0, 0.0, 1.0, 512)]}, ValueError),
        ({"masks": [(np.ones(3, np.uint8), 1)]}, ValueError),
        ({"considered": np.ones(3, np.uint8)}, ValueError),
        ({"split": (1, np.ones(3, np.uint8), 2, 0, 0.0, 0.0)}, ValueError),
        ({"split": (1, np.ones(4, np.uint8), 2, 99, 0.0, 0.0)}, IndexError),
        ({"masks": [(np.ones(64, np.int8), 1)]}, ValueError),
        ({"needs": [(0, 2**63, 1, False)]}, OverflowError),
    ],
)
def test_rules_that_the_columns_have_no_place_for_are_errors(fields: dict[str, Any], error: type[Exception]) -> None:
    case = Case(1, 10)
    with pytest.raises(error):
        Rules(case.columns, case.words, **fields)


def test_rules_end_where_the_columns_move() -> None:
    case = Case(1, 64)
    rules = Rules(*case.rules)
    rules.find()
    case.columns.attach(**empty_arrays(256))
    case.columns.set_rows(200)
    for ask in (rules.find, rules.could_pass):
        with pytest.raises(RuntimeError, match="moved"):
            ask()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 900))
def test_what_is_kept_of_rows_follows_every_change(seed: int, rows: int) -> None:
    """Rules that are asked again and again say what new ones say."""
    case, draw = Case(seed, max(rows, 700)), np.random.default_rng(seed)
    case.columns.set_rows(rows)
    kept, now, within = Rules(*case.rules), 1.0, 1.0
    for beats in range(12):
        changed = np.unique(draw.integers(0, case.columns.rows, draw.integers(0, 4)).astype(np.int32))
        for name in ("used", "limit", "min_unit", "max_unit", "step_size"):
            case.arrays[name][:, changed] = draw.integers(0, 5, (len(case.arrays[name]), len(changed)))
        case.arrays["avail"][:] = np.minimum(case.arrays["limit"] - case.arrays["used"], case.arrays["max_unit"])
        case.arrays["host"][:, changed] = draw.integers(0, 6, (len(case.arrays["host"]), len(changed)))
        case.arrays["host"][VCPUS_USED, changed[draw.random(len(changed)) < 0.2]] = np.nan
        beating = draw.integers(0, case.columns.rows, 2)
        case.arrays["host"][VCPUS_USED, beating] = draw.integers(0, 6, 2)
        case.arrays["class_of"][changed] = draw.integers(0, 4, len(changed))
        case.mask[changed] = draw.integers(0, 2, len(changed))
        case.columns.mark_changed(changed)
        kind = draw.integers(0, 8)
        if kind == 0:
            case.columns.forget_log()
        elif kind == 1:
            case.columns.set_rows(int(draw.integers(1, len(case.arrays["class_of"]))))
        elif kind < 5:
            now = float(draw.choice([now, now + 1.0, now + 0.5, 2.0, np.nan, 1.0]))
            within = float(draw.choice([1.0, 1.0, 2.0]))
            case.split = None if case.split is None else (*case.split[:4], now, within)
        kept.set_time(now, within, beats)
        new = Rules(*case.rules)
        assert kept.find() == new.find()
        assert kept.could_pass() == new.could_pass()
    assert kept.nbytes >= 0
