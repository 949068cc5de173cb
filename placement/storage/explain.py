"""Why a volume goes where it goes, or nowhere: refusals in one sentence, reasons per pool, what would change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ..types.decision import Refusal, ScorePart
from .pools.backend_names import backend_part
from .pools.filter_properties import FilterProperties
from .pools.filters.base import Rows
from .pools.filters.capacity import CapacityFilter, missing_gb
from .scan import PLACE, REPORT, PoolRanking, normalise

if TYPE_CHECKING:
    from .pools.policy import VolumePolicy
    from .pools.pools import Pools

_PLACE_WORDS: Final = "not where the volume must be"
_UNWEIGHED: Final = "cannot be weighed"


@dataclass(frozen=True, slots=True)
class PoolReason:
    """Why one pool was refused: ``stage`` is the first that did, ``reason`` says it in words with numbers."""

    backend_id: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class RankedPool:
    """One of the best pools, with what each weigher gave it."""

    backend_id: str
    weight: float
    parts: tuple[ScorePart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeExplanation:
    """The explanation of a request on the current pools. ``counterfactuals`` say what would change the answer;
    ``refusal`` is set where no pool passed."""

    considered: int
    removed: Mapping[str, int]
    top: tuple[RankedPool, ...]
    refused: tuple[PoolReason, ...]
    counterfactuals: tuple[str, ...]
    refusal: Refusal | None

    def reason(self, backend_id: str) -> PoolReason | None:
        """Why a pool was refused; None if it passed or is not there. O(pools)."""
        return next((each for each in self.refused if each.backend_id == backend_id), None)


def explain(
    pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties, ranking: PoolRanking, top: int
) -> VolumeExplanation:
    """The explanation of a ranking. O(pools)."""
    best = zip(ranking.rows[:top].tolist(), ranking.weights.tolist(), strict=False)
    return VolumeExplanation(
        considered=len(ranking.considered),
        removed=ranking.removed,
        top=tuple(
            RankedPool(pools.fact(row).backend_id, weight, ranking.parts(at)) for at, (row, weight) in enumerate(best)
        ),
        refused=tuple(_reasons(pools, policy, filter_properties, ranking)),
        counterfactuals=(
            *_without_weighers(pools, policy, ranking),
            *_near_misses(pools, policy, filter_properties, ranking),
        ),
        refusal=None if len(ranking.rows) else refusal(pools, policy, filter_properties, ranking),
    )


def _reasons(
    pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties, ranking: PoolRanking
) -> list[PoolReason]:
    rules = {rule.name: rule for rule in policy.filters}
    weighers = {rule.name: rule for rule in policy.weighers}
    reasons = []
    for row, index in zip(ranking.considered.tolist(), ranking.stage_of.tolist(), strict=True):
        if index < 0:
            continue
        stage, facts = ranking.stages[index], pools.fact(row)
        why = facts.problem or _PLACE_WORDS
        if stage in rules:
            why = rules[stage].reason(pools, filter_properties, row)
        elif stage in weighers:
            why = weighers[stage].refusal(pools, filter_properties, row) or _UNWEIGHED
        reasons.append(PoolReason(facts.backend_id, stage, why))
    return reasons


def refusal(pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties, ranking: PoolRanking) -> Refusal:
    """The sentence for a request that no pool can take, with what would help. O(pools)."""
    place = filter_properties.spec.resource_backend
    if place is not None and place not in pools.row_of and place not in pools.backends:
        problem, hint = why_absent(pools, place)
        words = f"No valid backend was found: the volume must be on {place}, and {problem}"
        return Refusal(sentence=words, stage=PLACE, hint=hint)
    if not len(ranking.considered) and (away := _away(pools)):
        words = f"No valid backend was found: of {len(pools.services)} volume services, {away}"
        return Refusal(sentence=words, stage=REPORT, hint="enable one, or wait until one is up")
    if not len(ranking.considered):
        waiting = len(pools.waiting)
        hint = f"{waiting} backends have not reported yet" if waiting else "load capability reports"
        return Refusal(sentence="No valid backend was found: no pools are known", stage=REPORT, hint=hint)
    why = sentence(len(ranking.considered), ranking.removed, filter_properties.requested_gb)
    near = "; ".join(_near_misses(pools, policy, filter_properties, ranking))
    return Refusal(sentence=why.sentence, stage=why.stage, hint=near or None)


def why_absent(pools: Pools, backend: str) -> tuple[str, str]:
    """Why there is no pool of this name, and what to do. O(services)."""
    key = backend_part(backend)
    services = [each for each in pools.services.values() if each.key == key]
    if not services:
        return f"the volume service {key} is not known", "a report of a backend makes it known"
    up = [each for each in services if each.up]
    enabled = [each for each in up if not each.disabled]
    if not up:
        return f"the volume service {key} is not up", "bring it up, or wait until it is"
    if not enabled:
        return f"the volume service {key} is disabled", "enable it"
    if all(each.frozen for each in enabled):
        return f"the volume service {key} is frozen", "thaw it"
    if key not in pools.backends:
        return f"the volume service {key} has not reported yet", "wait for its report"
    known = ", ".join(list(pools.backends[key].pools)[:10])
    return f"backend {key} has no such pool", f"its pools are {known}" if known else "its report has no pools"


def _away(pools: Pools) -> str:
    """How many volume services are down, disabled or frozen, in words; empty if one is neither, or there is none."""
    counts = {"not up": 0, "disabled": 0, "frozen": 0}
    for each in pools.services.values():
        if each.up and not each.disabled and not each.frozen:
            return ""
        counts["not up" if not each.up else "disabled" if each.disabled else "frozen"] += 1
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def sentence(considered: int, removed: Mapping[str, int], requested_gb: int) -> Refusal:
    """What the counts alone tell of a refusal. O(stages)."""
    counts = [(name, count) for name, count in removed.items() if count]
    if not counts:
        return Refusal(sentence="No valid backend was found: no pools are known", stage=REPORT)
    words = ", ".join(f"{count} {_words(name, requested_gb)}" for name, count in counts)
    return Refusal(
        sentence=f"No valid backend was found: of {considered} pools, {words}",
        stage=max(counts, key=lambda each: each[1])[0],
    )


def _words(stage: str, requested_gb: int) -> str:
    if stage == CapacityFilter.name:
        return f"without room for {requested_gb} GiB"
    if stage == REPORT:
        return "with a report that cannot be used"
    return _PLACE_WORDS if stage == PLACE else f"refused by {stage}"


def _near_misses(
    pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties, ranking: PoolRanking
) -> list[str]:
    """What refused pools lack that all other filters would take."""
    found = []
    for name, count in ranking.removed.items():
        index = ranking.stages.index(name)
        if not count or name in (REPORT, PLACE) or index > len(policy.filters):
            continue
        rows = _passing_others(pools, policy, filter_properties, ranking.considered[ranking.stage_of == index], name)
        if not len(rows):
            continue
        many = f"{len(rows)} pools" if len(rows) > 1 else "1 pool"
        if name == CapacityFilter.name:
            lack = missing_gb(pools, filter_properties, rows)
            nearest = f", the nearest {lack:g} GiB" if np.isfinite(lack) else ""
            found.append(f"{many} lack{'' if len(rows) > 1 else 's'} only room{nearest}")
        else:
            found.append(f"{many} would pass without {name}")
    return found


def _passing_others(
    pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties, rows: Rows, but: str
) -> Rows:
    for rule in policy.filters:
        if rule.name != but and rule.applies(filter_properties) and len(rows):
            rows = rows[rule.passes(pools, filter_properties, rows)]
    return rows


def _without_weighers(pools: Pools, policy: VolumePolicy, ranking: PoolRanking) -> list[str]:
    """Which weighers, left out, would have another pool win."""
    if len(ranking.rows) < 2 or policy.stochastic:
        return []
    found = []
    first = pools.fact(int(ranking.rows[0])).backend_id
    by_row = np.argsort(ranking.rows)
    for out in ranking.weigher_scores:
        totals = np.zeros(len(by_row))
        for term in ranking.weigher_scores:
            totals += 0.0 if term is out else term.multiplier * normalise(term.raw)[by_row]
        winner = pools.fact(int(ranking.rows[by_row[int(np.argmax(totals))]])).backend_id
        if winner != first:
            found.append(f"without {out.name} {winner} would win")
    return found
