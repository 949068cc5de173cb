"""The pure-Python twin of _beside.pyx."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
