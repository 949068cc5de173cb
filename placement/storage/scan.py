"""Cinder's pipeline over all pools: filters in order, then weighers, then the handler. The plain way, O(pools)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from ..types.decision import ScorePart
from .pools.filter_properties import FilterProperties
from .pools.filters.base import Mask, Rows
from .pools.weighers.base import Draw, Weights

if TYPE_CHECKING:
    from .pools.policy import VolumePolicy
    from .pools.pools import Pools
    from .pools.weighers import PoolWeigher

REPORT: Final = "report"
"""Stage that removes pools whose report cannot be used."""
PLACE: Final = "resource_backend"
"""Stage that removes pools that cannot hold the volume under any policy."""


@dataclass(frozen=True, slots=True)
class WeigherScores:
    """One weigher's raw and normalised weights of the ranked rows, in ranking order."""

    name: str
    multiplier: float
    raw: Weights
    normalised: Weights


@dataclass(frozen=True, slots=True)
class PoolRanking:
    """``rows`` passed, best first, with ``weights``. ``stage_of`` says which of ``stages`` refused each row of
    ``considered``, -1 where none did."""

    considered: Rows
    stages: tuple[str, ...]
    stage_of: NDArray[np.int16]
    rows: Rows
    weights: Weights
    weigher_scores: tuple[WeigherScores, ...]

    @property
    def removed(self) -> dict[str, int]:
        """How many pools each stage removed, in order."""
        counts = np.bincount(self.stage_of[self.stage_of >= 0], minlength=len(self.stages))
        return by_stage(self.stages, counts.tolist())

    def parts(self, at: int) -> tuple[ScorePart, ...]:
        """What each weigher gave the pool at a place of the ranking."""
        return tuple(
            ScorePart(term.name, float(term.raw[at]), float(term.normalised[at]), term.multiplier)
            for term in self.weigher_scores
        )


def stage_names(policy: VolumePolicy) -> tuple[str, ...]:
    """All stages, in order."""
    filters, weighers = (rule.name for rule in policy.filters), (rule.name for rule in policy.weighers)
    return (REPORT, *filters, *weighers, PLACE)


def by_stage(stages: Sequence[str], counts: Sequence[int]) -> dict[str, int]:
    """How many pools each stage removed, by name; a weigher that is named twice has two stages. O(stages)."""
    removed = dict(zip(stages, counts, strict=True))
    if len(removed) < len(stages):
        removed = dict.fromkeys(stages, 0)
        for name, count in zip(stages, counts, strict=True):
            removed[name] += count
    return removed


def rank(
    pools: Pools,
    policy: VolumePolicy,
    filter_properties: FilterProperties,
    draw: Draw,
    *,
    known: Mapping[str, Mask] | None = None,
    among: Rows | None = None,
    only: Rows | None = None,
) -> PoolRanking:
    """All pools that pass, best first. ``known``: mask of filters on all rows that were judged before. ``among``:
    the only rows that may be chosen, after weighing all. ``only``: rows of pools, ascending, which are judged and
    weighed as if there were no others. O(pools), or O(``only``)."""
    considered = pools.live_rows() if only is None else only
    stages = stage_names(policy)
    stage_of = np.full(len(considered), -1, np.int16)
    left = np.arange(len(considered))
    left = _remove(stage_of, left, _usable(pools, considered), 0)
    for index, rule in enumerate(policy.filters, 1):
        if len(left) and rule.applies(filter_properties):
            rows = considered[left]
            mask = known.get(rule.name) if known is not None else None
            passing = rule.passes(pools, filter_properties, rows) if mask is None else mask[rows]
            left = _remove(stage_of, left, passing, index)
    # Pools that cannot be weighed go first, so that the others are weighed as if they had never been there.
    rated: dict[str, Weights] = {}
    for index, weigher in enumerate(policy.weighers, 1 + len(policy.filters)):
        if weigher.refuses:
            raw = weigher.raw(pools, filter_properties, considered[left], draw)
            fine = ~np.isnan(raw)
            rated = {name: each[fine] for name, each in rated.items()} | {weigher.name: raw[fine]}
            left = _remove(stage_of, left, fine, index)
    raws = [
        rated[weigher.name] if weigher.refuses else weigher.raw(pools, filter_properties, considered[left], draw)
        for weigher in policy.weighers
    ]
    rows = considered[left]
    order, weights, terms = _weigh(policy, rows, raws, draw)
    rows = rows[order]
    if among is not None:
        allowed = np.isin(rows, among)
        outside = np.isin(considered, rows[~allowed])
        stage_of[outside] = len(stages) - 1
        rows, weights = rows[allowed], weights[allowed]
        terms = tuple(WeigherScores(t.name, t.multiplier, t.raw[allowed], t.normalised[allowed]) for t in terms)
    return PoolRanking(considered, stages, stage_of, rows, weights, terms)


def _usable(pools: Pools, rows: Rows) -> Mask:
    if not pools.problems:
        return np.ones(len(rows), np.bool_)
    return np.array([pools.fact(row).problem is None for row in rows.tolist()], np.bool_)


def _remove(stage_of: NDArray[np.int16], left: NDArray[np.intp], passing: Mask, stage: int) -> NDArray[np.intp]:
    stage_of[left[~passing]] = stage
    return left[passing]


def _weigh(
    policy: VolumePolicy, rows: Rows, raws: Sequence[Weights], draw: Draw
) -> tuple[NDArray[np.intp], Weights, tuple[WeigherScores, ...]]:
    """Order, weights in that order, and terms in that order."""
    totals = np.zeros(len(rows))
    normalised: list[Weights] = []
    for weigher, raw in zip(policy.weighers, raws, strict=True):
        share = raw if policy.stochastic else normalise(raw)
        totals += weigher.multiplier * share
        normalised.append(share)
    order = _drawn(totals, draw) if policy.stochastic else np.argsort(-totals, kind="stable")
    terms = (
        _weigher_scores(weigher, raw[order], share[order])
        for weigher, raw, share in zip(policy.weighers, raws, normalised, strict=True)
    )
    return order, totals[order], tuple(terms)


def _weigher_scores(weigher: PoolWeigher, raw: Weights, normalised: Weights) -> WeigherScores:
    return WeigherScores(weigher.name, weigher.multiplier, raw, normalised)


def normalise(raw: Weights) -> Weights:
    """(raw - least) / (greatest - least); all 0 where they are alike. O(rows)."""
    low, high = raw.min(initial=np.inf), raw.max(initial=-np.inf)
    return (raw - low) / (high - low) if high > low else np.zeros(len(raw))


def _drawn(totals: Weights, draw: Draw) -> NDArray[np.intp]:
    """The stochastic handler's order: from the drawn pool on, then those before it; nothing is sorted."""
    indices = np.arange(len(totals))
    if not len(totals):
        return indices
    ends = np.cumsum(totals)
    above = np.flatnonzero(ends > draw() * ends[-1])
    winner = int(above[0]) if len(above) else 0
    return np.concatenate((indices[winner:], indices[:winner]))
