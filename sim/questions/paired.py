"""Differences between ways that played the same guests: paired by seed where guests are made, by day of one trace else;
with intervals that hold for all comparisons with the best together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
LEAST_SEEDS: Final = 3
LEAST_BLOCKS: Final = 4
"""Below these nothing is tested."""
RESAMPLES: Final = 4_000
Real = NDArray[np.float64]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """By how many percent points more is refused than by the best way, with the interval that holds at 95 % for all
    comparisons with the best together (Bonferroni's correction), None where nothing could be tested. ``wins``: pairs in
    which the best refused less, ``losses``: more, of ``pairs`` ``by`` seed or by block of days."""

    mean: float
    low: float | None
    high: float | None
    wins: int
    losses: int
    pairs: int
    by: str

    @property
    def proven(self) -> bool:
        """True if the best is better by more than chance explains."""
        return self.low is not None and self.low > 0


def by_seed(way: Sequence[float], best: Sequence[float], *, comparisons: int) -> Difference:
    """Refused percent of a way and of the best, seed by seed: Student's t of the differences."""
    differences = [one - other for one, other in zip(way, best, strict=True)]
    mean, low, high = statistics.fmean(differences), None, None
    if len(differences) >= LEAST_SEEDS:
        part = 1 - (1 - CONFIDENCE) / (2 * comparisons)
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        half = student(part, len(differences) - 1) * error
        low, high = round(mean - half, 6), round(mean + half, 6)
    return _counted(differences, mean, low, high, "seed")


def by_day(
    way: Sequence[int], best: Sequence[int], requests: Sequence[int], *, comparisons: int, seed: int = 0
) -> Difference:
    """Requests refused by a way and by the best, day by day of one trace, of so many requests a day: a block bootstrap,
    whose blocks are of as many days as the cube root of all, since days that follow each other are alike."""
    asked, more = np.array(requests, np.float64), np.array(way, np.float64) - np.array(best, np.float64)
    length = max(1, round(len(asked) ** (1 / 3)))
    starts = range(0, len(asked), length)
    blocks = [(float(more[at : at + length].sum()), float(asked[at : at + length].sum())) for at in starts]
    blocks = [block for block in blocks if block[1]]
    total = 100 * float(more.sum()) / max(1.0, float(asked.sum()))
    low = high = None
    if len(blocks) >= LEAST_BLOCKS:
        rng = np.random.default_rng([seed, 8])
        refused, came = np.array(blocks).T
        drawn = rng.integers(0, len(blocks), (RESAMPLES, len(blocks)))
        means = np.sort(100 * refused[drawn].sum(axis=1) / came[drawn].sum(axis=1))
        part = (1 - CONFIDENCE) / (2 * comparisons)
        low, high = (round(float(np.quantile(means, each)), 6) for each in (part, 1 - part))
    return _counted([refused for refused, _ in blocks], total, low, high, "days")


def _counted(differences: Sequence[float], mean: float, low: float | None, high: float | None, by: str) -> Difference:
    wins, losses = sum(each > 0 for each in differences), sum(each < 0 for each in differences)
    pairs = len(differences)
    return Difference(mean=round(mean, 6), low=low, high=high, wins=wins, losses=losses, pairs=pairs, by=by)


@lru_cache(maxsize=256)
def student(part: float, degrees: int) -> float:
    """The quantile of Student's t above one half, to about six digits: with t = sqrt(n) tan(x) the distribution is the
    integral of cos(x) ** (n - 1)."""
    angles = np.linspace(0.0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (degrees - 1)
    steps = (density[1:] + density[:-1]) / 2
    whole = np.concatenate([[0.0], np.cumsum(steps)])
    angle = float(np.interp((part - 0.5) * 2, whole / whole[-1], angles))
    return math.sqrt(degrees) * math.tan(angle)
