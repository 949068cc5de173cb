"""Why: per host the first refusing stage in words with numbers, what every weigher gave, and what would change the
answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from .decision import Refusal, ScorePart
from .errors import NoValidHost
from .fleet import Fleet
from .host_classes import STATIC_FIELDS
from .request import Request
from .signature import AGGREGATES, CANDIDATES, CELL, SELECTION, TRAITS, Signature, Stage
from .view import HostView

if TYPE_CHECKING:
    from .engine import Engine
    from .schedule import Ranked, Scheduling

_STAGE_WORDS: Final = {
    CELL: "in another cell",
    TRAITS: "without the traits asked for",
    AGGREGATES: "outside the aggregates asked for",
    CANDIDATES: "without an allocation candidate",
    SELECTION: "not among the hosts named",
}
UNITS: Final = {"MEMORY_MB": " MiB", "DISK_GB": " GiB"}


@dataclass(frozen=True, slots=True)
class HostReason:
    """Why one host was refused: ``stage`` is the first that did, ``reason`` says it in words with numbers."""

    host: str
    node: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class RankedHost:
    """One of the best hosts, with what each weigher gave it."""

    host: str
    node: str
    weight: float
    parts: tuple[ScorePart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The whole story of a request on the fleet as it is. ``removed`` counts by stage, in order; ``counterfactuals``
    say what would change the answer; ``refusal`` is set where no host passed."""

    considered: int
    removed: Mapping[str, int]
    top: tuple[RankedHost, ...]
    refused: tuple[HostReason, ...]
    counterfactuals: tuple[str, ...]
    refusal: Refusal | None

    def reason(self, node: str) -> HostReason | None:
        """Why ``node`` was refused; None if it passed or is no host here. O(hosts)."""
        return next((each for each in self.refused if each.node == node), None)


def explain(
    engine: Engine, request: Request, *, top: int, candidates: Mapping[str, Sequence[Any]] | None
) -> Explanation:
    """See ``Engine.explain``."""
    from .schedule import Scheduling

    try:
        scheduling = Scheduling(engine, request, candidates)
    except NoValidHost as error:
        ruled_out = Refusal(sentence=error.args[0], stage="request", hint=error.hint)
        return Explanation(considered=0, removed={}, top=(), refused=(), counterfactuals=(), refusal=ruled_out)
    ranked = scheduling.rank()
    return Explanation(
        considered=len(ranked.considered),
        removed=ranked.removed,
        top=_top(scheduling, ranked, top),
        refused=tuple(_reasons(scheduling, ranked)),
        counterfactuals=tuple(_without_weighers(scheduling, ranked) + _near_misses(scheduling, ranked)),
        refusal=None if len(ranked.rows) else refusal(engine.fleet, ranked.signature, request, ranked, 0),
    )


def _top(scheduling: Scheduling, ranked: Ranked, top: int) -> tuple[RankedHost, ...]:
    fleet, rows = scheduling.fleet, ranked.rows
    columns = ranked.signature.ranking.parts(rows, scheduling.members(rows)) if len(rows) > 1 else []
    best = []
    for position, row in enumerate(rows[:top]):
        parts = tuple(
            ScorePart(weigher.name, float(raw[position]), float(normalised[position]), float(multiplier[position]))
            for weigher, (raw, normalised, multiplier) in zip(ranked.signature.weighers, columns, strict=bool(columns))
        )
        name = fleet.service_host(int(row)), fleet.name(int(row))
        best.append(RankedHost(*name, float(ranked.weights[position]), parts))
    return tuple(best)


# why a host was refused


def _reasons(scheduling: Scheduling, ranked: Ranked) -> list[HostReason]:
    fleet, stages = scheduling.fleet, ranked.signature.stages
    by_class: dict[tuple[int, int], str] = {}
    reasons = []
    refused = ranked.verdicts != 0
    for row, verdict in zip(ranked.considered[refused].tolist(), ranked.verdicts[refused].tolist(), strict=True):
        if verdict >= len(stages):
            name, text = SELECTION, "the request names other hosts"
        else:
            stage = stages[verdict]
            name, text = stage.name, _reason(scheduling, stage, row, by_class)
        reasons.append(HostReason(fleet.service_host(row), fleet.name(row), name, text))
    return reasons


def _reason(scheduling: Scheduling, stage: Stage, row: int, by_class: dict[tuple[int, int], str]) -> str:
    fleet, signature = scheduling.fleet, scheduling.signature
    if stage.filter is None:
        index = signature.resource_of(stage)
        if index is not None:
            return shortage(fleet, row, index, signature.resources[index])
    elif not stage.filter.fields(scheduling.request) <= STATIC_FIELDS:
        return _filter_reason(scheduling, stage, row)
    key = (stage.number, int(fleet.store.row["class_of"][row]))
    known = by_class.get(key)
    if known is None:
        known = (
            _candidate_reason(scheduling, stage, row)
            if stage.filter is None
            else _filter_reason(scheduling, stage, row)
        )
        by_class[key] = known
    return known


def _filter_reason(scheduling: Scheduling, stage: Stage, row: int) -> str:
    assert stage.filter is not None
    return stage.filter.reason(HostView(scheduling.fleet, row), scheduling.judged)


def _candidate_reason(scheduling: Scheduling, stage: Stage, row: int) -> str:
    fleet, query, group = scheduling.fleet, scheduling.signature.demands.query, scheduling.signature.demands.group
    static = fleet.host_class(row)
    if stage.name == TRAITS:
        lacking = sorted((group.required | query.root_required) - static.traits)
        forbidden = sorted((group.forbidden | query.root_forbidden) & static.traits)
        if lacking:
            return f"lacks the trait {', '.join(lacking)}"
        if forbidden:
            return f"has the forbidden trait {', '.join(forbidden)}"
        return f"has none of the traits {' or '.join(sorted(next(iter(group.any_of), ())))}"
    if stage.name == AGGREGATES:
        zone = scheduling.request.spec.availability_zone
        return f"is not in the aggregates asked for{f' (availability zone {zone})' if zone else ''}"
    if stage.name == CELL:
        return f"is in cell {static.cell_uuid}, not {scheduling.signature.demands.cell_uuid}"
    if stage.name == CANDIDATES:
        return "its provider tree has no allocation candidate for the request groups"
    return f"refused by {stage.name}"


def shortage(fleet: Fleet, row: int, resource: int, amount: int) -> str:
    """Why a provider can't give ``amount`` of a resource class: Placement's capacity and unit rules in words with
    numbers."""
    inventory, name = fleet.store.inventory, fleet.resource_classes[resource]
    unit = UNITS.get(name, "")
    if inventory["total"][resource, row] <= 0:
        return f"has no {name}"
    free = int(inventory["limit"][resource, row] - inventory["used"][resource, row])
    if free < amount:
        return f"free {name} {free}{unit} < {amount}{unit}"
    most, least = int(inventory["max_unit"][resource, row]), int(inventory["min_unit"][resource, row])
    if amount > most:
        return f"{name} {amount}{unit} is more than max_unit {most}{unit}"
    if amount < least:
        return f"{name} {amount}{unit} is less than min_unit {least}{unit}"
    return f"{name} {amount}{unit} is no multiple of step_size {int(inventory['step_size'][resource, row])}{unit}"


# what would change the answer


def _without_weighers(scheduling: Scheduling, ranked: Ranked) -> list[str]:
    """For each weigher the host that would win without it, where that is another: the sum is made anew, ties by row."""
    rows = ranked.rows
    if len(rows) < 2:
        return []
    columns = ranked.signature.ranking.parts(rows, scheduling.members(rows))
    said = []
    for left_out, weigher in enumerate(ranked.signature.weighers):
        total = np.zeros(len(rows))
        for position, (_, normalised, multiplier) in enumerate(columns):
            if position != left_out:
                total += multiplier * normalised
        winner = int(rows[total == total.max()].min())
        if winner != rows[0]:
            said.append(f"without {weigher.name} host {scheduling.fleet.name(winner)} wins")
    return said


def stage_matrix(scheduling: Scheduling, rows: NDArray[np.int32]) -> dict[Stage, NDArray[np.bool_]]:
    """What each stage says of each row by itself, whatever the others say. O(stages * rows)."""
    fleet, signature = scheduling.fleet, scheduling.signature
    class_of = fleet.store.row["class_of"][rows]
    passes: dict[int, NDArray[np.bool_]] = {}
    for number, by_class in signature.class_verdicts().items():
        passes[number] = by_class[class_of]
    for index, amount, number, units in signature.needs:
        inventory = fleet.store.inventory
        fits = inventory["avail"][index, rows] >= amount
        if units:
            step = np.maximum(inventory["step_size"][index, rows], 1)
            fits &= (inventory["min_unit"][index, rows] <= amount) & (amount % step == 0)
        passes[number] = fits
    for column, low, high, number in signature.bounds:
        values = fleet.store.host[column, rows]
        passes[number] = passes.get(number, np.ones(len(rows), bool)) & (values >= low) & (values <= high)
    for stage, cache in signature.row_judges:
        passes[stage.number] = cache.array[rows] != 0
    for stage in signature.selections:
        passes[stage.number] = scheduling.selection_passes(stage, rows)
    return {stage: passes[stage.number] for stage in signature.stages[1:] if stage.number in passes}


def _near_misses(scheduling: Scheduling, ranked: Ranked) -> list[str]:
    """Stages that alone keep hosts out, with how much is lacking: capacity first, then most hosts first."""
    rows = ranked.considered[ranked.verdicts < 254]
    matrix = stage_matrix(scheduling, rows)
    if not matrix or not len(rows):
        return []
    failing = sum((~passes).astype(np.int16) for passes in matrix.values())
    said = []
    for stage, passes in matrix.items():
        alone = rows[~passes & (failing == 1)]
        if len(alone):
            other = scheduling.signature.resource_of(stage) is None
            said.append((other, -len(alone), _missing(scheduling, stage, alone)))
    return [text for _, _, text in sorted(said)]


def _missing(scheduling: Scheduling, stage: Stage, rows: NDArray[np.int32]) -> str:
    fleet, signature = scheduling.fleet, scheduling.signature
    hosts = "1 host" if len(rows) == 1 else f"{len(rows)} hosts"
    index = signature.resource_of(stage)
    if index is None:
        return f"{hosts} would pass without {stage.name}"
    name, amount = fleet.resource_classes[index], signature.resources[index]
    inventory = fleet.store.inventory
    lack = amount - (inventory["limit"][index, rows] - inventory["used"][index, rows])
    least = int(lack.min())
    if least <= 0:
        return f"{hosts} would pass but for the unit rules of {name}"
    return f"{hosts} lack{'s' if len(rows) == 1 else ''} only {name}, the nearest {least}{UNITS.get(name, '')}"


# refusals


def refusal(fleet: Fleet, signature: Signature, request: Request, ranked: Ranked, placed: int) -> Refusal:
    """Why nothing was placed, with what would help; ``placed`` of several instances had found a host. O(stages *
    hosts)."""
    wanted = len(request.instance_uuids)
    if len(ranked.rows) and wanted > 1:
        sentence = f"{len(ranked.rows)} hosts pass, but only {placed} of {wanted} instances fit"
        return Refusal(sentence=sentence, stage="claim", hint=f"ask for {placed} instances, or free capacity")
    if len(ranked.rows):
        return Refusal(
            sentence=f"{len(ranked.rows)} hosts pass, but none could be claimed", stage="claim", hint="try again"
        )
    removed, considered = ranked.removed, len(ranked.considered)
    hints = _near_misses(ranked.scheduling, ranked) if ranked.scheduling is not None else []
    return Refusal(
        sentence=_sentence(removed, considered), stage=_main_stage(removed), hint=hints[0] if hints else None
    )


def quick_refusal(removed: Mapping[str, int], considered: int) -> Refusal:
    """Why nothing was placed, from the counts alone. O(stages)."""
    stage = _main_stage(removed)
    return Refusal(
        sentence=_sentence(removed, considered), stage=stage, hint="explain the request for every host's reason"
    )


def _main_stage(removed: Mapping[str, int]) -> str:
    return max(removed, key=lambda name: removed[name], default=SELECTION)


def _sentence(removed: Mapping[str, int], considered: int) -> str:
    if considered == 0:
        return "No valid host was found: there are no hosts"
    parts = [_share(count, name) for name, count in removed.items() if count]
    return f"No valid host was found: of {considered} hosts, {', '.join(parts)}" if parts else "No valid host was found"


def _share(count: int, stage: str) -> str:
    """How many hosts a stage removed, in words."""
    if stage in _STAGE_WORDS:
        return f"{count} {_STAGE_WORDS[stage]}"
    return f"{count} without enough {stage}" if stage.isupper() else f"{count} refused by {stage}"
