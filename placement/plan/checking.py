"""A plan checked against a later state, move by move, by the engine's rules."""

from __future__ import annotations

from typing import Unpack

from ..decide.engine import Engine
from ..types.errors import HostlerError, UnknownName
from ..types.plans import ANY, Difference, Plan, PlanCheck, PlannedMove, PlanOptions
from .trial import Trial


def check_plan(engine: Engine, plan: Plan, **options: Unpack[PlanOptions]) -> PlanCheck:
    """Whether every move of ``plan`` is possible on the engine's fleet as it is now, wave by wave, with both ends held
    during each wave. Changes nothing. A wave with a difference is the last that is checked. Options: ``asked`` and
    ``pinned`` of ``PlanOptions``; the kind of the moves is the plan's. O(moves)."""
    differences, fleet = list[Difference](), engine.fleet
    generation = fleet._store.row["generation"]
    changed = set[str]()
    for move in plan.moves:
        for name, made in ((move.source, move.source_generation), (move.target, move.target_generation)):
            row = fleet._names.find(name)
            if row < 0 or (made != ANY and int(generation[row]) != made):
                changed.add(name)
    if plan.waves:
        options["kind"] = plan.moves[0].kind
    trial = Trial(engine, options)
    for number, wave in enumerate(plan.waves, 1):
        for move in wave.moves:
            reason = _begin(trial, move)
            if reason is not None:
                differences.append(Difference(wave=number, instance=move.instance, reason=reason))
        if differences:
            break
        for move in wave.moves:
            trial.end(move.instance)
    return PlanCheck(valid=not differences, differences=tuple(differences), changed=tuple(sorted(changed)))


def _begin(trial: Trial, move: PlannedMove) -> str | None:
    """Begin a move on the trial; why it cannot be made otherwise."""
    fleet = trial.fleet
    try:
        guest = trial.guests.of(fleet.consumer_id(move.instance))
    except UnknownName:
        return "the instance is gone"
    if fleet.name(guest.row) != move.source:
        return f"the instance is on {fleet.name(guest.row)}, not on {move.source}"
    if move.generation not in (ANY, guest.generation):
        return "the allocations of the instance have changed"
    if trial.is_moving(guest):
        return "a move of it is under way"
    if guest.stays:
        return guest.stays
    try:
        refused = trial.begin(guest, fleet.row(move.target))
    except HostlerError as error:
        return str(error.args[0])
    return None if refused is None else f"{move.target} is refused by {refused}"
