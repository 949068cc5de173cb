"""The plan that makes room for a request."""

from __future__ import annotations

from ..decide.engine import Engine
from ..types.counting import counted
from ..types.errors import NoValidHost
from ..types.plans import Measure, Plan, PlanOptions
from ..types.request import Request
from .make_room import CLEARED, DEEPEST, RoomSearch
from .trial import OnRow, Trial
from .waves import in_waves


def room_plan(engine: Engine, goal: dict[str, object], request: Request, options: PlanOptions) -> Plan:
    """The fewest moves after which each instance of the request has a host. The bound is that of one instance."""
    trial = Trial(engine, options)
    uuids = request.instance_uuids or one_instance(trial)
    most = options.get("most_moves")
    hosts, bound, why = list[str](), None, ""
    context = trial.context
    for uuid in uuids:
        try:
            scan = OnRow(context, context.prepared(request.with_changes(instance_uuids=(uuid,))))
        except NoValidHost as error:
            why = str(error.args[0])
            break
        search = RoomSearch(trial, f"make room for {request.flavor.name}")
        if bound is None:
            bound = search.bound(scan)
        left = None if most is None else most - len(trial.steps)
        row = search.make(
            scan, most=DEEPEST if left is None else min(left, DEEPEST), clear=CLEARED if left is None else left
        )
        if row is None or scan.claim_on(row) is not None:
            why = "no host can take it whatever moves" if bound is None else "no moves were found that make room"
            break
        hosts.append(trial.fleet.name(row))
    steps, complete = list(trial.steps), len(hosts) == len(uuids)
    waves = in_waves(engine, options, [steps])
    if complete:
        least = f"at least {bound} {'is' if bound == 1 else 'are'} needed"
        summary = f"{counted(len(steps), 'move')}, {least}; then {', '.join(hosts)} can take it"
    else:
        summary = f"room for {len(hosts)} of {counted(len(uuids), 'instance')}: {why}"
    return Plan(
        goal=goal,
        summary=summary,
        complete=complete,
        waves=waves,
        measures=(
            Measure(name="moves", before=0, after=len(steps), bound=bound, sense="at_least"),
            Measure(name="instances_with_room", before=0, after=len(hosts), bound=len(uuids)),
        ),
        derived=sum(step.guest.derived for step in steps),
        made_at=trial.fleet.now,
    )


def one_instance(trial: Trial) -> tuple[str, ...]:
    """A uuid for an instance that has none."""
    return (trial.context.new_uuid(),)
