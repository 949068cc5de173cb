"""The pure-Python twin of _batch.pyx: one call of the other twins per guest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .constants import BUILDING, STAGES
from .draws import word
from .fleet_py import Columns, checked
from .ranking.beside_py import best_beside
from .ranking.ranking_py import Ranking
from .shapes_py import Shapes
from .tables_py import format_uuid


def place(
    columns: Columns,
    shapes: Shapes,
    which: npt.NDArray[np.int32],
    uuids: npt.NDArray[np.uint64],
    projects: npt.NDArray[np.int32],
    users: npt.NDArray[np.int32],
    groups: npt.NDArray[np.int32],
    building: bool,
    seed: int,
    sequence: int,
    out_row: npt.NDArray[np.int32],
    out_consumer: npt.NDArray[np.int32],
    out_score: npt.NDArray[np.float64],
    out_counts: npt.NDArray[np.int64],
) -> int:
    """Place guest i, of request shape ``which[i]``, each seeing the claims before it and drawing from word ``sequence +
    i`` of ``seed``."""
    n, width = len(checked(which, np.int32, 1)), checked(out_counts, np.int64, 2).shape[1]
    for line in (projects, users, groups, out_row, out_consumer):
        checked(line, np.int32, 1)
    lines = (uuids, projects, users, groups, out_row, out_consumer, out_score, out_counts)
    if checked(uuids, np.uint64, 2).shape[1] != 2 or width > STAGES or any(len(line) != n for line in lines):
        raise ValueError("batch columns differ in length")
    if shapes.columns is not columns:
        raise ValueError("shapes of another fleet")
    for i in range(n):
        ranking, guest = shapes.ready(int(which[i]))
        columns.check_shape(guest)
        ranking._check_capacity()
        if groups[i] >= 0:
            columns.check_group(int(groups[i]))
    flags = BUILDING if building else 0
    for i in range(n):
        (ranking, guest), group = shapes.ready(int(which[i])), int(groups[i])
        rows, scores = ranking.best(group, 1, word(seed, sequence + i))
        words, owner = (int(uuids[i, 0]), int(uuids[i, 1])), (int(projects[i]), int(users[i]))
        out_counts[i] = ranking.counts(group, width)
        out_row[i] = out_consumer[i] = -1
        out_score[i] = 0.0
        if not rows:
            continue
        try:
            consumer = columns.add_consumer(*words, rows[0], guest, *owner, group, flags)
        except KeyError:
            return i
        out_row[i], out_consumer[i], out_score[i] = rows[0], consumer, scores[0]
    return n


def place_alike(
    columns: Columns,
    ranking: Ranking,
    shape: int,
    uuids: npt.NDArray[np.uint64],
    project: int,
    user: int,
    building: bool,
    again: Sequence[tuple[int, float, float]],
    out_row: npt.NDArray[np.int32],
    out_consumer: npt.NDArray[np.int32],
    out_score: npt.NDArray[np.float64],
    out_parts: npt.NDArray[np.float64],
) -> int:
    """Place guests of one shape, for as long as the best row that passes is sure to be the one that Nova takes."""
    n = len(checked(uuids, np.uint64, 2))
    lines = (checked(out_row, np.int32, 1), checked(out_consumer, np.int32, 1), checked(out_score, np.float64, 1))
    parts = (n, len(ranking.terms), 3)
    if uuids.shape[1] != 2 or any(len(line) != n for line in lines) or checked(out_parts, np.float64, 3).shape != parts:
        raise ValueError("batch columns differ in length")
    if ranking.columns is not columns:
        raise ValueError("a ranking of another fleet")
    if ranking.shuffle or ranking.subset != 1:
        raise ValueError("a ranking that draws")
    columns.check_shape(shape)
    if not all(0 <= column < len(columns.host) for column, _, _ in again):
        raise IndexError("column out of range")
    flags, passing = BUILDING if building else 0, 0
    beside: list[int] = []
    without: list[int] = []
    for i, (high, low) in enumerate(uuids.tolist()):
        if without and passing - len(without) <= 1:
            return i
        found = _usable(columns, ranking, shape, beside, without, first=i == 0)
        if not found or (i > 0 and len(found) > 1 and found[0][1] == found[1][1]):
            return i
        row, out_score[i] = found[0]
        passing = passing if i else ranking.counts(-1, 1)[0]
        out_row[i] = row
        if ranking.terms:
            out_parts[i] = ranking.row_parts(row, 0.0)
        try:
            out_consumer[i] = columns.add_consumer(high, low, row, shape, project, user, -1, flags)
        except KeyError:
            return i
        if ranking.judge(np.array([row], np.int32))[0] != 0:
            beside = [each for each in beside if each != row]
            weighed = all(least <= columns.host[column, row] <= most for column, least, most in again)
            (beside if weighed else without).append(row)
    return n


def _usable(
    columns: Columns, ranking: Ranking, shape: int, beside: list[int], without: list[int], *, first: bool
) -> list[tuple[int, float]]:
    """The best rows for the next guest with their scores, best first, as many as tell whether the best is alone."""
    if not beside and not without:
        rows, scores = ranking.best(-1, 1 if first else 2, 0)
    else:
        named = np.array(without, np.int32), np.array(beside, np.int32)
        wanted = min(len(beside) + 2, columns.rows)
        rows, scores = best_beside(ranking, *named, None, wanted, 0)
    return [
        (row, score) for row, score in zip(rows, scores, strict=True) if row not in beside or _fits(columns, row, shape)
    ]


def _fits(columns: Columns, row: int, shape: int) -> bool:
    """Whether a row has room for one more guest of a shape, by Placement's rule."""
    classes, amounts, *_ = columns.shape(shape)
    return all(
        columns.avail[each, row] >= amount >= columns.min_unit[each, row]
        and amount % max(int(columns.step_size[each, row]), 1) == 0
        for each, amount in zip(classes, amounts, strict=True)
    )


def release(columns: Columns, consumers: npt.NDArray[np.int32]) -> None:
    """Drop the consumers (distinct, alive) in order, or none of them."""
    ids: list[int] = checked(consumers, np.int32, 1).tolist()
    for id in ids:
        columns.check_consumer(id)
    if len(set(ids)) < len(ids):
        raise ValueError("a consumer is named twice")
    for id in ids:
        columns.drop_consumer(id)


def find(columns: Columns, uuids: npt.NDArray[np.uint64], out: npt.NDArray[np.int32]) -> None:
    """Consumer ids of ``uuids``, -1 where there is none."""
    checked(out, np.int32, 1)
    if checked(uuids, np.uint64, 2).shape != (len(out), 2):
        raise ValueError("one id per uuid")
    out[:] = [columns.consumers.get(format_uuid(hi, lo)) for hi, lo in uuids.tolist()]
