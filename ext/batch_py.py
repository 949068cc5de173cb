"""The pure-Python twin of _batch.pyx: one call of the other twins per guest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .constants import BUILDING, STAGES
from .draws import word
from .fleet_py import Columns, checked
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
