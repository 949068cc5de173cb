"""The pure-Python twin of _batch.pyx: one call of the other twins per guest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .constants import BUILDING, STAGES
from .draws import word
from .fleet_py import Columns, checked
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
    flags = BUILDING if building else 0
    for i, (high, low) in enumerate(uuids.tolist()):
        rows, scores = ranking.best(-1, min(i + 1, 2), 0)
        if not rows or (len(rows) == 2 and scores[0] == scores[1]):
            return i
        row = out_row[i] = rows[0]
        out_score[i] = scores[0]
        if ranking.terms:
            out_parts[i] = ranking.row_parts(row, 0.0)
        try:
            out_consumer[i] = columns.add_consumer(high, low, row, shape, project, user, -1, flags)
        except KeyError:
            return i
        if i + 1 < n and ranking.judge(np.array([row], np.int32))[0] != 0:
            return i + 1
    return n


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
