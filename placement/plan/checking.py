"""A plan checked against a later state, move by move, by the engine's rules."""

from __future__ import annotations

from typing import Unpack

from ..decide.engine import Engine
from ..types.errors import HostlerError, UnknownName
from ..types.plans import ANY, Difference, Plan, PlanCheck, PlannedMove, PlanOptions
from .trial import Trial


def check_plan(engine: Engine, plan: Plan, **options: Unpack[PlanOptions]) -> PlanCheck:
    """Whether every move of ``plan`` is possible on the engine's fleet as it is now, wave by wave, with both ends held
    during each wave. Changes nothing. A wave with a difference is the last that is checked. Options: ``asked``,
    ``pinned``, ``stopped`` and ``stays`` of ``PlanOptions``; the kinds of the moves are the plan's, and without
    ``stopped`` its cold ones among live ones are of guests that do not run. O(moves)."""
    differences, fleet = list[Difference](), engine.fleet
    generation = fleet._store.row["generation"]
    changed = set[str]()
    for move in plan.moves:
        for name, made in ((move.source, move.source_generation), (move.target, move.target_generation)):
            row = fleet._names.find(name)
            if row < 0 or (made != ANY and int(generation[row]) != made):
                changed.add(name)
    kinds = {move.kind for move in plan.moves}
    if kinds:
        options.setdefault("stopped", cold(plan))
        options["kind"] = "live_migrate" if "live_migrate" in kinds else plan.moves[0].kind
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


def cold(plan: Plan) -> frozenset[str]:
    """The instances whose moves are cold."""
    return frozenset(move.instance for move in plan.moves if move.kind == "cold_migrate")


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
    if guest.kind != move.kind:
        return f"the instance {'does not run' if guest.kind == 'cold_migrate' else 'runs'}: {move.kind} is planned"
    try:
        refused = trial.begin(guest, fleet.row(move.target))
    except HostlerError as error:
        return str(error.args[0])
    return None if refused is None else f"{move.target} is refused by {refused}"
