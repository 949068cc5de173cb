"""The pure-Python twin of _beside.pyx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..constants import NOT_A_HOST
from ..draws import Draws
from .ranking_py import Ranking


def best_beside(
    ranking: Ranking,
    without: npt.NDArray[np.int32],
    beside: npt.NDArray[np.int32],
    members: npt.NDArray[np.float64] | None = None,
    wanted: int = 1,
    seed: int = 0,
) -> tuple[list[int], list[float]]:
    """``Ranking.best`` where the rows ``without`` are left out, and the rows ``beside`` (none of those) take part
    whatever their results are; ``members`` of the request's soft group on each of these, signed as in
    ``score_rows``."""
    if wanted < 1:
        raise ValueError("wanted must be at least 1")
    if ranking.shuffle:
        raise ValueError("a ranking that shuffles chooses among its own rows only")
    left_out, added = ranking._known(without), ranking._known(beside)
    counts, idle = ranking._counted(added, members)
    named = {*left_out, *added}
    if len(named) < len(left_out) + len(added):
        raise ValueError("a row is named twice")
    of = dict(zip(added, counts, strict=True))
    ranking.refresh()
    known = range(ranking.columns.rows)
    rows = [row for row in known if row in of or (row not in named and ranking._stage(row) == 0)]
    scores = ranking._scores(rows, [of.get(row, 0.0) for row in rows], idle)
    order = sorted(range(len(rows)), key=lambda i: (-scores[i], rows[i]))
    order = [order[position] for position in Draws(seed).order(len(order), 1, ranking.subset)[:wanted]]
    return [rows[i] for i in order], [scores[i] for i in order]


def set_aside(
    ranking: Ranking, masks: Sequence[tuple[npt.NDArray[Any], int]], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """The rows that pass in the ranking, but that one of ``masks``, (uint8 by row, 0: refused; stage), refuses, in
    order. ``counts``, rows by stage of the ranking alone, become those of the ranking and the masks together."""
    rows = ranking.columns.rows
    ranking._check_capacity()
    for array, number in masks:
        if len(array) < rows or len(array) == 0:
            raise ValueError("a mask has one entry per row")
        if not 1 <= number < min(len(counts), NOT_A_HOST):
            raise ValueError("a stage must be within [1, 254] and be counted")
    aside = []
    for row in range(rows):
        first = next((number for array, number in masks if not array[row]), NOT_A_HOST)
        stage = ranking._stage(row)
        if NOT_A_HOST in (first, stage):
            continue
        if stage >= len(counts):
            raise ValueError("a stage of the ranking is not counted")
        counts[stage] -= 1
        counts[first if stage == 0 else min(first, stage)] += 1
        if stage == 0:
            aside.append(row)
    return np.array(aside, np.int32)
