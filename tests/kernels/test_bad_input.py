"""Bad input is refused with the error that fits it, and nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hostler.ext.batch import find, place, place_alike, release
from hostler.ext.constants import SOURCE_CLASS, SOURCE_COLUMN, SOURCE_PACKING, SOURCE_ROW
from hostler.ext.fleet import Columns
from hostler.ext.ranking import Ranking
from hostler.ext.shapes import Shapes

from .world import Arrays, Maker, empty_arrays, int32, plain, wider, words

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

ROWS = 5


class Scene:
    """Five rows, one shape, one empty group 0 and one group 1 with consumer 0 in it, one ranking."""

    def __init__(self) -> None:
        self.arrays: Arrays = empty_arrays(64)
        Maker(1).fill(self.arrays, np.arange(ROWS, dtype=np.int32), 2)
        self.columns = Columns()
        self.columns.attach(**self.arrays)
        self.columns.set_rows(ROWS)
        self.columns.add_shape(int32([0]), np.array([1]), 1, 512, 0)
        self.columns.add_group(1, 1)
        self.columns.add_group(2, 1)
        self.columns.add_consumer(7, 0, 2, 0, 0, 0, 1, 1)
        self.ranking = Ranking(self.columns, class_stage=np.zeros(2, np.uint8))

    def make(self, **arguments: Any) -> Ranking:
        return Ranking(self.columns, **({"class_stage": np.zeros(2, np.uint8)} | arguments))

    def table(self, rankings: list[Ranking], guest: int = 0) -> Shapes:
        """A request shape for each ranking."""
        made = Shapes(self.columns)
        size = made.add_size(guest)
        for ranking in rankings:
            made.number(made.add_ranking(ranking), size)
        return made

    def place(self, shapes: Shapes | None = None, **changes: Any) -> int:
        guests: dict[str, Any] = {name: np.zeros(2, np.int32) for name in ("which", "projects", "users")}
        guests |= {"uuids": words(1, 2), "groups": int32([-1, -1]), "building": True, "seed": 1, "sequence": 1}
        guests |= {"out_row": int32([9, 9]), "out_consumer": int32([9, 9]), "out_score": np.zeros(2)}
        guests |= {"out_counts": np.zeros((2, 4), np.int64)}
        return place(self.columns, self.table([self.ranking]) if shapes is None else shapes, **(guests | changes))

    def place_alike(self, ranking: Any = None, **changes: Any) -> int:
        guests: dict[str, Any] = {"shape": 0, "uuids": words(1, 2), "project": 0, "user": 0, "building": True}
        guests |= {"again": (), "out_row": int32([9, 9]), "out_consumer": int32([9, 9]), "out_score": np.zeros(2)}
        guests |= {"out_parts": np.zeros((2, 0, 3))} | changes
        return place_alike(self.columns, self.ranking if ranking is None else ranking, **guests)

    def state(self) -> Any:
        columns = self.columns
        groups, shape = [columns.group(0), columns.group(1)], columns.shape(0)
        return plain([self.arrays, columns.rows, columns.version, columns.consumer_arrays(), groups, shape])


def number_with_amounts(scene: Scene, amounts: list[int]) -> int:
    table = scene.table([scene.ranking])
    return table.number(0, table.add_size(0, amounts))


def without_ratios() -> Scene:
    """A scene whose host columns end before the ratio of memory."""
    scene = Scene()
    scene.columns.attach(**(scene.arrays | {"host": np.zeros((13, 64))}))
    return scene


@pytest.fixture
def scene() -> Scene:
    return Scene()


def lacking(arrays: Arrays, name: str, dtype: Any = None) -> Arrays:
    """``arrays`` with a shorter, or otherwise typed, array under ``name``."""
    changed = arrays[name].astype(dtype) if dtype is not None else arrays[name][..., :-1].copy()
    return arrays | {name: changed}


FLEET: dict[str, tuple[type[Exception], Callable[[Scene], object]]] = {
    "a block shorter than the others": (ValueError, lambda s: s.columns.attach(**lacking(s.arrays, "used"))),
    "a column shorter than the blocks": (ValueError, lambda s: s.columns.attach(**lacking(s.arrays, "class_of"))),
    "a column of another type": (ValueError, lambda s: s.columns.attach(**lacking(s.arrays, "first", np.int64))),
    "too few host columns": (ValueError, lambda s: s.columns.attach(**(s.arrays | {"host": np.zeros((3, 64))}))),
    "no capacity": (ValueError, lambda s: s.columns.attach(**{k: a[..., :0].copy() for k, a in s.arrays.items()})),
    "room for fewer rows than there are": (
        ValueError,
        lambda s: s.columns.attach(**{k: a[..., : ROWS - 1].copy() for k, a in s.arrays.items()}),
    ),
    "fewer resource classes than there are": (ValueError, lambda s: s.columns.attach(**empty_arrays(64, 2))),
    "more rows than there is room for": (ValueError, lambda s: s.columns.set_rows(65)),
    "a negative number of rows": (ValueError, lambda s: s.columns.set_rows(-1)),
    "a change of a row beyond the last": (IndexError, lambda s: s.columns.mark_changed(int32([0, ROWS]))),
    "a change of a negative row": (IndexError, lambda s: s.columns.mark_changed(int32([0, -1]))),
    "a shape of unequal lengths": (ValueError, lambda s: s.columns.add_shape(int32([0]), np.array([1, 2]), 1, 1, 1)),
    "a shape of an unknown class": (IndexError, lambda s: s.columns.add_shape(int32([3]), np.array([1]), 1, 1, 1)),
    "a shape of a negative class": (IndexError, lambda s: s.columns.add_shape(int32([-1]), np.array([1]), 1, 1, 1)),
    "a question for an unknown shape": (IndexError, lambda s: s.columns.shape(1)),
    "a consumer on a row beyond the last": (IndexError, lambda s: s.columns.add_consumer(7, 1, ROWS, 0, 0, 0, -1, 0)),
    "a consumer on a negative row": (IndexError, lambda s: s.columns.add_consumer(7, 1, -1, 0, 0, 0, -1, 0)),
    "a consumer of an unknown shape": (IndexError, lambda s: s.columns.add_consumer(7, 1, 0, 1, 0, 0, -1, 0)),
    "a consumer in an unknown group": (IndexError, lambda s: s.columns.add_consumer(7, 1, 0, 0, 0, 0, 2, 0)),
    "a consumer whose uuid exists": (KeyError, lambda s: s.columns.add_consumer(7, 0, 0, 0, 0, 0, 0, 0)),
    "a consumer with flags of the kernel's own": (
        ValueError,
        lambda s: s.columns.add_consumer(7, 1, 0, 0, 0, 0, -1, 128),
    ),
    "dropping a consumer that never was": (IndexError, lambda s: s.columns.drop_consumer(1)),
    "dropping a negative consumer": (IndexError, lambda s: s.columns.drop_consumer(-1)),
    "building a consumer that never was": (IndexError, lambda s: s.columns.set_building(1, True)),
    "a question for a consumer that never was": (IndexError, lambda s: s.columns.consumer(1)),
    "a question for consumers on no row": (IndexError, lambda s: s.columns.consumers_on(ROWS)),
    "a group of an unknown policy": (ValueError, lambda s: s.columns.add_group(5, 1)),
    "a group of no members per host": (ValueError, lambda s: s.columns.add_group(2, 0)),
    "a question for an unknown group": (IndexError, lambda s: s.columns.group(2)),
    "another policy for a group with members": (ValueError, lambda s: s.columns.set_group(1, 1, 1)),
    "another policy for an unknown group": (IndexError, lambda s: s.columns.set_group(2, 1, 1)),
    "dropping a group with members": (ValueError, lambda s: s.columns.drop_last_group()),
}

NO_VALUES: dict[str, Any] = {"source": SOURCE_CLASS, "multiplier": 1.0, "values": np.zeros(0)}
ROW_VALUES: dict[str, Any] = {"source": SOURCE_ROW, "multiplier": 1.0, "values": np.zeros(63)}
BY_COLUMN: dict[str, Any] = {"source": SOURCE_COLUMN, "multiplier": 1.0, "column": 0}
FORMULA: dict[str, Any] = {"source": SOURCE_PACKING, "multiplier": 1.0, "asked": (1.0, 1.0)}

RANKING: dict[str, tuple[type[Exception], Callable[[Scene], object]]] = {
    "columns that are not attached": (ValueError, lambda s: Ranking(Columns(), class_stage=np.zeros(1, np.uint8))),
    "no class stages": (ValueError, lambda s: s.make(class_stage=np.zeros(0, np.uint8))),
    "new class stages, but none": (ValueError, lambda s: s.ranking.set_class_stage(np.zeros(0, np.uint8))),
    "a need of an unknown class": (IndexError, lambda s: s.make(needs=[(3, 1, 1, False)])),
    "a need of a negative class": (IndexError, lambda s: s.make(needs=[(-1, 1, 1, False)])),
    "a need at stage 0": (ValueError, lambda s: s.make(needs=[(0, 1, 0, False)])),
    "a bound of an unknown column": (IndexError, lambda s: s.make(bounds=[(18, 0.0, 1.0, 1)])),
    "a bound at the stage of rows that are no hosts": (ValueError, lambda s: s.make(bounds=[(0, 0.0, 1.0, 255)])),
    "a mask that is too short": (ValueError, lambda s: s.make(masks=[(np.ones(63, np.uint8), 1)])),
    "too many weighers": (ValueError, lambda s: s.make(terms=[BY_COLUMN] * 25)),
    "a weigher of an unknown column": (IndexError, lambda s: s.make(terms=[BY_COLUMN | {"column": 18}])),
    "a weigher without its column": (
        IndexError,
        lambda s: s.make(terms=[{"source": SOURCE_COLUMN, "multiplier": 1.0}]),
    ),
    "a weigher of an unknown source": (ValueError, lambda s: s.make(terms=[BY_COLUMN | {"source": 5}])),
    "an unknown formula": (ValueError, lambda s: s.make(terms=[FORMULA | {"formula": 4}])),
    "a negative formula": (ValueError, lambda s: s.make(terms=[FORMULA | {"formula": -1}])),
    "a formula over columns that are not there": (
        IndexError,
        lambda s: without_ratios().make(terms=[FORMULA | {"formula": 0}]),
    ),
    "one of no best rows": (ValueError, lambda s: s.make(subset=0)),
    "a weigher without values": (ValueError, lambda s: s.make(terms=[NO_VALUES])),
    "a weigher with too few values": (ValueError, lambda s: s.make(terms=[ROW_VALUES])),
    "values for an unknown weigher": (IndexError, lambda s: s.ranking.set_class_values(0, np.zeros(2), None)),
    "no best row wanted": (ValueError, lambda s: s.ranking.best(-1, 0)),
    "the best row for an unknown group": (IndexError, lambda s: s.ranking.best(2)),
    "counts for an unknown group": (IndexError, lambda s: s.ranking.counts(2)),
    "counts of too many stages": (ValueError, lambda s: s.ranking.counts(-1, 257)),
    "counts of a negative number of stages": (ValueError, lambda s: s.ranking.counts(-1, -1)),
    "a verdict on a row beyond the last": (IndexError, lambda s: s.ranking.judge(int32([0, ROWS]))),
    "a score of a negative row": (IndexError, lambda s: s.ranking.score_rows(int32([0, -1]))),
    "scores with too few members": (ValueError, lambda s: s.ranking.score_rows(int32([0, 1]), np.zeros(1))),
    "parts of a row beyond the last": (IndexError, lambda s: s.ranking.parts(int32([ROWS]))),
    "parts of one row beyond the last": (IndexError, lambda s: s.ranking.row_parts(ROWS)),
}

BATCH: dict[str, tuple[type[Exception], Callable[[Scene], object]]] = {
    "a request of an unknown shape": (IndexError, lambda s: s.place(which=int32([0, 1]))),
    "a request of a negative shape": (IndexError, lambda s: s.place(which=int32([0, -1]))),
    "a guest of an unknown shape": (IndexError, lambda s: s.place(s.table([s.ranking], guest=1))),
    "a size of too many amounts": (ValueError, lambda s: s.table([]).add_size(0, [1] * 9)),
    "a size of other amounts than are needed": (ValueError, lambda s: number_with_amounts(s, [1])),
    "amounts for a ranking without an index": (ValueError, lambda s: number_with_amounts(s, [])),
    "a shape of an unknown ranking": (IndexError, lambda s: s.table([s.ranking]).number(1, 0)),
    "a shape of an unknown size": (IndexError, lambda s: s.table([s.ranking]).number(0, 1)),
    "the ranking of an unknown shape": (IndexError, lambda s: s.table([]).rankings_and_sizes(int32([0]))),
    "the shapes of another fleet": (ValueError, lambda s: s.place(Scene().table([]))),
    "a guest in an unknown group": (IndexError, lambda s: s.place(groups=int32([0, 2]))),
    "a ranking of another fleet": (ValueError, lambda s: s.table([s.ranking, Scene().ranking])),
    "too few uuids": (ValueError, lambda s: s.place(uuids=words(1, 1))),
    "uuids of one word": (ValueError, lambda s: s.place(uuids=np.zeros((2, 1), np.uint64))),
    "too few groups": (ValueError, lambda s: s.place(groups=int32([-1]))),
    "too few answers": (ValueError, lambda s: s.place(out_score=np.zeros(1))),
    "answers of another type": (ValueError, lambda s: s.place(out_row=np.zeros(2, np.int64))),
    "too many stages to count": (ValueError, lambda s: s.place(out_counts=np.zeros((2, 257), np.int64))),
    "guests alike of an unknown shape": (IndexError, lambda s: s.place_alike(shape=1)),
    "guests alike with uuids of one word": (ValueError, lambda s: s.place_alike(uuids=np.zeros((2, 1), np.uint64))),
    "guests alike with too few answers": (ValueError, lambda s: s.place_alike(out_row=int32([9]))),
    "guests alike by a column that there is not": (IndexError, lambda s: s.place_alike(again=[(99, 0.0, 1.0)])),
    "guests alike with parts of more terms": (ValueError, lambda s: s.place_alike(out_parts=np.zeros((2, 1, 3)))),
    "guests alike by a ranking of another fleet": (ValueError, lambda s: s.place_alike(Scene().ranking)),
    "guests alike by a ranking that shuffles": (ValueError, lambda s: s.place_alike(s.make(shuffle=True))),
    "guests alike by a ranking that draws": (ValueError, lambda s: s.place_alike(s.make(subset=2))),
    "a release of a consumer that never was": (IndexError, lambda s: release(s.columns, int32([0, 1]))),
    "a release of a consumer twice": (ValueError, lambda s: release(s.columns, int32([0, 0]))),
    "a search for uuids of one word": (ValueError, lambda s: find(s.columns, np.zeros((1, 1), np.uint64), int32([9]))),
    "a search with too few answers": (ValueError, lambda s: find(s.columns, words(0, 2), int32([9]))),
}

ALL = FLEET | RANKING | BATCH


@pytest.mark.parametrize("case", ALL)
def test_is_refused(case: str, scene: Scene) -> None:
    error, call = ALL[case]
    before = scene.state()
    with pytest.raises(error):
        call(scene)
    assert scene.state() == before
    scene.ranking.check()


def test_a_closed_consumer_is_refused_everywhere(scene: Scene) -> None:
    scene.columns.drop_consumer(0)
    before = scene.state()
    for call in (
        lambda: scene.columns.consumer(0),
        lambda: scene.columns.drop_consumer(0),
        lambda: scene.columns.set_building(0, True),
        lambda: scene.columns.check_consumer(0),
        lambda: release(scene.columns, int32([0])),
    ):
        with pytest.raises(IndexError, match="no such consumer"):
            call()
    assert scene.state() == before


def test_there_is_no_last_group_to_drop() -> None:
    with pytest.raises(ValueError, match="no last group"):
        Columns().drop_last_group()


def test_a_stale_ranking_refuses_to_answer_and_a_batch_with_one_does_not_begin(scene: Scene) -> None:
    stale = scene.ranking
    scene.arrays = wider(scene.arrays, 128)
    scene.columns.attach(**scene.arrays)
    before = scene.state()
    for call in (
        lambda: stale.best(),
        lambda: stale.judge(int32([0])),
        lambda: stale.score_rows(int32([0, 1])),
        lambda: stale.parts(int32([0])),
        lambda: stale.row_parts(0),
        lambda: scene.place(scene.table([scene.make(), stale]), which=int32([0, 1])),
        lambda: scene.place_alike(stale),
    ):
        with pytest.raises(RuntimeError, match="moved"):
            call()
    assert scene.state() == before


def test_a_batch_stops_before_a_guest_whose_uuid_exists(scene: Scene) -> None:
    uuids, rows = words(1, 2), int32([9, 9])
    uuids[1] = words(0, 1)[0]
    assert scene.place(uuids=uuids, out_row=rows) == 1
    assert rows[0] >= 0
    assert rows[1] == -1
    assert scene.columns.consumer_count == 2
