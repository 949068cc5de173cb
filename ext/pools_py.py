"""The pure-Python twin of _pools.pyx: Python's own round, one call of the other twins per volume."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .constants import STAGES
from .fleet_py import Columns, checked
from .pool_constants import (
    ALLOCATED,
    BOUNDED,
    COUNTED,
    ENDLESS,
    FREE,
    POOL_COLUMNS,
    PROVISIONED,
    RATIO,
    RESERVED_PERCENTAGE,
    ROOM_THICK,
    ROOM_THIN,
    THIN,
    TOTAL,
    UPDATED,
    VIRTUAL_THICK,
    VIRTUAL_THIN,
    VOLUMES,
)
from .ranking.ranking_py import Ranking

Block = npt.NDArray[np.float64]


def derive(block: Block, rows: npt.NDArray[np.int32]) -> None:
    """Work out room and virtual free capacity of rows from their figures."""
    for row in rows.tolist():
        _check_block(block, row)
    for row in rows.tolist():
        _derive_row(block, row)


def _check_block(block: Block, row: int) -> None:
    if len(checked(block, np.float64, 2)) < POOL_COLUMNS:
        raise ValueError("pool block lacks columns")
    if not 0 <= row < block.shape[1]:
        raise IndexError("row out of range")


def _derive_row(block: Block, row: int) -> None:
    line = block[:POOL_COLUMNS, row].tolist()
    if not line[BOUNDED]:
        block[ROOM_THIN, row] = block[ROOM_THICK, row] = math.inf if line[ENDLESS] else -math.inf
        block[VIRTUAL_THIN, row] = block[VIRTUAL_THICK, row] = -1.0
        return
    total, provisioned, ratio = line[TOTAL], line[PROVISIONED], line[RATIO]
    base = total - math.floor(total * (line[RESERVED_PERCENTAGE] / 100))
    free = base - provisioned
    thick = round(line[FREE] if line[FREE] < free else free, 2)
    block[VIRTUAL_THICK, row] = thick
    block[ROOM_THICK, row] = np.floor(thick) if total > 0 else -math.inf
    if not line[THIN]:
        block[VIRTUAL_THIN, row], block[ROOM_THIN, row] = block[VIRTUAL_THICK, row], block[ROOM_THICK, row]
        return
    thin, available = round(base * ratio - provisioned, 2), round(base * ratio, 2)
    block[VIRTUAL_THIN, row] = thin
    block[ROOM_THIN, row] = -math.inf
    if total > 0 and ratio >= 1 and available != 0:
        block[ROOM_THIN, row] = _thin_room(float(np.floor(thin)), provisioned, available, ratio)


def _thin_room(most: float, provisioned: float, available: float, ratio: float) -> float:
    """The greatest whole number up to ``most`` whose provisioned ratio is within the limit."""
    if (provisioned + most) / available > ratio:
        most = min(most, float(np.floor(ratio * available - provisioned)) + 1)
        while (provisioned + most) / available > ratio:
            most -= 1
    return most


def consume(block: Block, row: int, size: float, now: float) -> None:
    """Take ``size`` GiB of a row (give back: negative) at ``now`` (NaN: the time stays)."""
    _check_block(block, row)
    block[ALLOCATED, row] += size
    block[PROVISIONED, row] += size
    if block[COUNTED, row]:
        block[FREE, row] -= size
    if not math.isnan(now):
        block[UPDATED, row] = now
    _derive_row(block, row)


def place(
    columns: Columns,
    block: Block,
    rankings: list[Ranking],
    which: npt.NDArray[np.int32],
    sizes: npt.NDArray[np.float64],
    now: float,
    out_row: npt.NDArray[np.int32],
    out_score: npt.NDArray[np.float64],
    out_counts: npt.NDArray[np.int64],
) -> None:
    """Place volumes one after the other, each seeing those before it; a row of -1 where none passed."""
    n, width = len(checked(which, np.int32, 1)), checked(out_counts, np.int64, 2).shape[1]
    if width > STAGES or any(len(line) != n for line in (sizes, out_row, out_score, out_counts)):
        raise ValueError("batch columns differ in length")
    _check_block(block, 0)
    if columns.host is not block and block.base is not columns.host:
        raise ValueError("a block of other columns")
    if not all(0 <= index < len(rankings) for index in which.tolist()):
        raise IndexError("ranking out of range")
    for ranking in rankings:
        if ranking.columns is not columns:
            raise ValueError("a ranking of other columns")
        ranking.refresh()
    for i in range(n):
        ranking = rankings[which[i]]
        rows, scores = ranking.best()
        out_counts[i] = ranking.counts(width=width)
        out_row[i], out_score[i] = (rows[0], scores[0]) if rows else (-1, 0.0)
        if rows:
            consume(block, rows[0], float(sizes[i]), now)
            block[VOLUMES, rows[0]] += 1
            columns.mark_changed(np.array(rows[:1], np.int32))
