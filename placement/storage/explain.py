"""Why a volume goes where it goes, or nowhere: refusals in one sentence, reasons per pool, what would change it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import numpy as np

from ..types.decision import Counterfactual, Refusal, ScorePart
from .pools.backend_names import backend_part
from .pools.filter_properties import FilterProperties
from .pools.filters.base import Rows
from .pools.filters.capacity import CapacityFilter, missing_gb
from .scan import PLACE, REPORT, PoolRanking, normalise

if TYPE_CHECKING:
    from .pools.policy import VolumePolicy
    from .pools.pools import Pools

_PLACE_WORDS: Final = "not where the volume must be"
NO_POOLS: Final = "No valid backend was found: no pools are known"
_UNWEIGHED: Final = "cannot be weighed"
ROOM: Final = "gigabytes"
"""The resource of volumes, under the name that quotas have for it; amounts in GiB."""

PoolReasonCode = Literal["report", "place", "no_room", "weigher", "filter"]
"""Why a pool was refused. ``report``: its report cannot be used. ``place``: it is not where the volume must be.
``no_room``: the capacity filter. ``weigher``: it cannot be weighed. ``filter``: the filter that ``stage`` names."""


@dataclass(frozen=True, slots=True)
class PoolReason:
    """Why one pool was refused: ``stage`` is the first that did, ``reason`` says it in words with numbers, all else is
    for programs. Where room is missing, ``asked`` GiB are wanted and ``limit`` GiB fit, None if no number says it."""

    backend_id: str
    stage: str
    reason: str
    code: PoolReasonCode = "filter"
    asked: int | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class RankedPool:
    """One of the best pools, with what each weigher gave it."""

    backend_id: str
    weight: float
    parts: tuple[ScorePart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeExplanation:
    """The explanation of a request on the current pools. ``changes`` are what alone would change the answer, with
    pools as hosts, and ``counterfactuals`` the same in words; ``refusal`` is set where no pool passed."""

    considered: int
    removed: Mapping[str, int]
    top: tuple[RankedPool, ...]
    refused: tuple[PoolReason, ...]
    counterfactuals: tuple[str, ...]
    refusal: Refusal | None
    changes: tuple[Counterfactual, ...] = ()

    @property
    def pivotal(self) -> tuple[Counterfactual, ...]:
        """The weighers without which another pool would win."""
        return tuple(each for each in self.changes if each.code == "weigher")

    def reason(self, backend_id: str) -> PoolReason | None:
        """Why a pool was refused; None if it passed or is not there. O(pools)."""
        return next((each for each in self.refused if each.backend_id == backend_id), None)


def explain(
    pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties, ranking: PoolRanking, top: int
) -> VolumeExplanation:
    """The explanation of a ranking. O(pools)."""
    best = zip(ranking.rows[:top].tolist(), ranking.weights.tolist(), strict=False)
    changes = changes_that_would_help(pools, policy, filter_properties, ranking)
    return VolumeExplanation(
        considered=len(ranking.considered),
        removed=ranking.removed,
        top=tuple(
            RankedPool(pools.fact(row).backend_id, weight, ranking.parts(at)) for at, (row, weight) in enumerate(best)
        ),
        refused=tuple(reasons(pools, policy, filter_properties, ranking)),
        counterfactuals=tuple(change.text for change in changes),
        changes=changes,
        refusal=None if len(ranking.rows) else refusal(pools, policy, filter_properties, ranking),
    )


def changes_that_would_help(
    pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties, ranking: PoolRanking
) -> tuple[Counterfactual, ...]:
    """What would have to be otherwise for other pools to pass, or to win. O(pools)."""
    near = _near_misses(pools, policy, filter_properties, ranking)
    return (*_without_weighers(pools, policy, ranking), *near)


def reasons(
    pools: Pools,
    policy: VolumePolicy,
    filter_properties: FilterProperties,
    ranking: PoolRanking,
    wanted: Callable[[str], bool] = lambda _: True,
) -> list[PoolReason]:
    """Why pools were refused, of those whose backend id is ``wanted``. O(pools)."""
    rules = {rule.name: rule for rule in policy.filters}
    weighers = {rule.name: rule for rule in policy.weighers}
    found = []
    for row, index in zip(ranking.considered.tolist(), ranking.stage_of.tolist(), strict=True):
        if index < 0:
            continue
        stage, facts = ranking.stages[index], pools.fact(row)
        if not wanted(facts.backend_id):
            continue
        why, code = facts.problem or _PLACE_WORDS, _CODES.get(stage, "filter")
        asked = limit = None
        if stage in rules:
            why = rules[stage].reason(pools, filter_properties, row)
        elif stage in weighers:
            why, code = weighers[stage].refusal(pools, filter_properties, row) or _UNWEIGHED, "weigher"
        if code == "no_room":
            asked, limit = filter_properties.requested_gb, _room(pools, filter_properties, row)
        found.append(PoolReason(facts.backend_id, stage, why, code, asked, limit))
    return found


_CODES: Final[Mapping[str, PoolReasonCode]] = {REPORT: "report", PLACE: "place", CapacityFilter.name: "no_room"}


def _room(pools: Pools, filter_properties: FilterProperties, row: int) -> float | None:
    """GiB that fit a pool; None if no number says it."""
    room = float(pools.columns[CapacityFilter.column(filter_properties)][row])
    return room if math.isfinite(room) else None


def refusal(pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties, ranking: PoolRanking) -> Refusal:
    """The sentence for a request that no pool can take, with what would help. O(pools)."""
    place = filter_properties.spec.resource_backend
    if place is not None and place not in pools.row_of and place not in pools.backends:
        problem, hint = why_absent(pools, place)
        words = f"No valid backend was found: the volume must be on {place}, and {problem}"
        return Refusal(sentence=words, stage=PLACE, hint=hint, removed=ranking.removed)
    if not len(ranking.considered) and (away := _away(pools)):
        words = f"No valid backend was found: of {len(pools.services)} volume services, {away}"
        return Refusal(sentence=words, stage=REPORT, hint="enable one, or wait until one is up", code="no_hosts")
    if not len(ranking.considered):
        waiting = len(pools.waiting)
        hint = f"{waiting} backends have not reported yet" if waiting else "load capability reports"
        return Refusal(sentence=NO_POOLS, stage=REPORT, hint=hint, code="no_hosts")
    why = sentence(len(ranking.considered), ranking.removed, filter_properties.requested_gb)
    near = _near_misses(pools, policy, filter_properties, ranking)
    hint = "; ".join(each.text for each in near)
    about = next((each for each in near if each.code == "room"), None)
    if about is None:
        return msgspec.structs.replace(why, hint=hint or None)
    amounts = {name: getattr(about, name) for name in ("resource", "asked", "nearest", "host", "cut")}
    return msgspec.structs.replace(why, hint=hint, **amounts)


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
        return Refusal(sentence=NO_POOLS, stage=REPORT, code="no_hosts")
    words = ", ".join(f"{count} {_words(name, requested_gb)}" for name, count in counts)
    return Refusal(
        sentence=f"No valid backend was found: of {considered} pools, {words}",
        stage=max(counts, key=lambda each: each[1])[0],
        removed=removed,
    )


def _words(stage: str, requested_gb: int) -> str:
    if stage == CapacityFilter.name:
        return f"without room for {requested_gb} GiB"
    if stage == REPORT:
        return "with a report that cannot be used"
    return _PLACE_WORDS if stage == PLACE else f"refused by {stage}"


def _near_misses(
    pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties, ranking: PoolRanking
) -> list[Counterfactual]:
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
            found.append(_lacking(pools, filter_properties, rows, many))
        else:
            text = f"{many} would pass without {name}"
            found.append(Counterfactual(code="stage", text=text, stage=name, hosts=len(rows)))
    return found


def _lacking(pools: Pools, filter_properties: FilterProperties, rows: Rows, many: str) -> Counterfactual:
    """What pools change that lack room only."""
    lack, asked = missing_gb(pools, filter_properties, rows), filter_properties.requested_gb
    text = f"{many} lack{'' if len(rows) > 1 else 's'} only room"
    said = {"code": "room", "stage": CapacityFilter.name, "hosts": len(rows), "resource": ROOM, "asked": asked}
    if not math.isfinite(lack):
        return msgspec.convert({**said, "text": text}, Counterfactual)
    room = pools.columns[CapacityFilter.column(filter_properties)][rows]
    nearest = int(np.where(np.isfinite(room), room, -math.inf).argmax())
    cut = min(asked, max(1, math.ceil(lack)))
    amounts = {"host": pools.fact(int(rows[nearest])).backend_id, "nearest": asked - cut, "cut": cut}
    return msgspec.convert({**said, **amounts, "text": f"{text}, the nearest {lack:g} GiB"}, Counterfactual)


def _passing_others(
    pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties, rows: Rows, but: str
) -> Rows:
    for rule in policy.filters:
        if rule.name != but and rule.applies(filter_properties) and len(rows):
            rows = rows[rule.passes(pools, filter_properties, rows)]
    return rows


def _without_weighers(pools: Pools, policy: VolumePolicy, ranking: PoolRanking) -> list[Counterfactual]:
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
            text = f"without {out.name} {winner} would win"
            found.append(Counterfactual(code="weigher", text=text, hosts=1, host=winner, weigher=out.name))
    return found
