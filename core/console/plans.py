"""``hostler plan``: plans of moves, made from a state file or by a running service, shown, checked and carried out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ...placement.decide.engine import Engine
from ...placement.persist.file import load, load_requests
from ...placement.plan.checking import check_plan
from ...placement.plan.goals import Balance, Consolidate, Defragment, Drain, EvacuateProof, Goal, MakeRoom
from ...placement.policy.policy import Policy
from ...placement.types.counting import counted
from ...placement.types.errors import InvalidValue
from ...placement.types.moves import MoveKind
from ...placement.types.plans import Plan, PlanCheck, PlannedMove, PlanOptions
from .guests import read_policy
from .plan_pages import page
from .plan_runs import PlanRun
from .remote import LOCAL, REFUSED, Asked, Remote

plan = cyclopts.App(name="plan", help="Plan moves: drain hosts, empty them, or make room; and carry a plan out.")
STOPPED: Final = 1
"""Exit code of a plan that stopped on a difference."""
INTERRUPTED: Final = 130
"""Exit code of a plan that Ctrl-C has stopped."""
_SHOWN: Final = 40
"""Moves that are shown, unless all are asked for."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Planning:
    """Where the fleet comes from, and how moves are made."""

    state: Annotated[Path | None, Parameter(help="a fleet's file instead of a running service")] = None
    policy: Annotated[Path | None, Parameter(help="a policy file, beside --state")] = None
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="write the plan to this file as JSON")] = (
        None
    )
    picture: Annotated[Path | None, Parameter(help="write a picture of the plan to this file as HTML")] = None
    kind: Annotated[MoveKind, Parameter(help="kind of the moves")] = "live_migrate"
    per_host: Annotated[int, Parameter(help="moves on one host at a time; 0: any number", validator=Number(gte=0))] = 4
    pin: Annotated[list[str], Parameter(help="uuid of an instance that stays, repeatable", negative="")] = field(
        default_factory=list
    )
    stopped: Annotated[
        list[str], Parameter(help="uuid of an instance that does not run, whose move is cold, repeatable", negative="")
    ] = field(default_factory=list)
    every: Annotated[bool, Parameter(name="--all", help="show all moves", negative="")] = False


USUAL: Final = Planning()
SMALL: Final = Asked()


@plan.command(name="drain")
def plan_drain(
    *hosts: str,
    batch: Annotated[int, Parameter(help="hosts at a time, in the order given; 0: all together")] = 0,
    by: Annotated[str | None, Parameter(help="hosts with one value of this aggregate metadata key at a time")] = None,
    keep_free: Annotated[float, Parameter(help="share of each target's capacity that stays free")] = 0.0,
    planning: Planning = USUAL,
    remote: Remote = LOCAL,
) -> int:
    """Move every guest away from HOSTS. Exit code 3: some stay."""
    return _planned(Drain(hosts=hosts, batch=batch, by=by, keep_free=keep_free), planning, remote)


@plan.command(name="consolidate")
def plan_consolidate(
    *hosts: str,
    most: Annotated[int | None, Parameter(help="hosts to empty at most")] = None,
    planning: Planning = USUAL,
    remote: Remote = LOCAL,
) -> int:
    """Empty as many of HOSTS (all, if none are named) as possible."""
    _planned(Consolidate(hosts=hosts, most=most), planning, remote)
    return 0


@plan.command(name="balance")
def plan_balance(
    *hosts: str,
    resource: Annotated[str, Parameter(help="resource class")] = "MEMORY_MB",
    threshold: Annotated[float, Parameter(help="share of a host above the mean that is left alone")] = 0.03,
    margin: Annotated[float, Parameter(help="share of a host that each move must gain")] = 0.01,
    most: Annotated[float, Parameter(help="share of the guests that may move")] = 0.03,
    planning: Planning = USUAL,
    remote: Remote = LOCAL,
) -> int:
    """Even out how full HOSTS (all, if none are named) are."""
    goal = Balance(hosts=hosts, resource=resource, threshold=threshold, margin=margin, most=most)
    _planned(goal, planning, remote)
    return 0


@plan.command(name="make-room")
def plan_make_room(*, ask: Asked = SMALL, planning: Planning = USUAL, remote: Remote = LOCAL) -> int:
    """Make room so that a guest of this shape fits, with the fewest moves. Exit code 3: no way is found."""
    if planning.state is not None:
        return _planned(MakeRoom(request=ask.request()), planning, remote)
    return _planned({"do": "make_room", "request": ask.asked()}, planning, remote)


@plan.command(name="defragment")
def plan_defragment(*hosts: str, ask: Asked = SMALL, planning: Planning = USUAL, remote: Remote = LOCAL) -> int:
    """Move guests of HOSTS (all, if none are named) so that more guests of this shape fit."""
    if planning.state is not None:
        return _planned(Defragment(requests=(ask.request(),), hosts=hosts), planning, remote)
    return _planned({"do": "defragment", "requests": [ask.asked()], "hosts": hosts}, planning, remote)


@plan.command(name="evacuate-proof")
def plan_evacuate_proof(*hosts: str, planning: Planning = USUAL, remote: Remote = LOCAL) -> int:
    """Move guests so that any one of HOSTS (all, if none are named) may fail. Exit code 3: some may not."""
    return _planned(EvacuateProof(hosts=hosts), planning, remote)


def _planned(goal: Goal | dict[str, Any], planning: Planning, remote: Remote) -> int:
    if planning.state is not None:
        assert not isinstance(goal, dict)
        engine, options = _offline(planning)
        made = engine.plan(goal, **options)
    else:
        asked = {"goal": goal, "kind": planning.kind, "per_host": planning.per_host, "pinned": planning.pin}
        asked |= {"stopped": planning.stopped} if planning.stopped else {}
        made = remote.ask("plan", asked)
    if planning.output is not None:
        _write(planning.output, made.to_json())
    if planning.picture is not None:
        _write(planning.picture, page(made).encode())
    _show(made, remote, every=planning.every)
    return 0 if made.complete else REFUSED


def _offline(planning: Planning) -> tuple[Engine, PlanOptions]:
    assert planning.state is not None
    given = read_policy(planning.policy)
    policy = Policy.from_mapping(given) if given is not None else Policy.nova_default()
    engine = Engine(load(planning.state), policy)
    options: PlanOptions = {
        "asked": {uuid: spec.as_kept() for uuid, spec in load_requests(planning.state).items()},
        "kind": planning.kind,
        "per_host": planning.per_host,
        "pinned": frozenset(planning.pin),
        "stopped": frozenset(planning.stopped),
    }
    return engine, options


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InvalidValue(f"the plan cannot be written to {path}: {error.strerror}", field="output") from None


def _read(path: Path) -> Plan:
    try:
        document = path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"the plan {path} cannot be read: {error.strerror}", field="plan") from None
    return Plan.from_json(document)


def _show(made: Plan, remote: Remote, *, every: bool) -> None:
    if remote.as_json:
        remote.show(made)
        return
    print(made.summary)
    if made.derived:
        print(f"{counted(made.derived, 'move')} of guests whose request is not known: judged by what they hold")
    mixed = len({move.kind for move in made.moves}) > 1
    lines = [
        [number, move.instance, move.source, move.target, move.memory_mb]
        + ([move.kind] if mixed else [])
        + [move.reason]
        for number, wave in enumerate(made.waves, 1)
        for move in wave.moves
    ]
    shown = lines if every else lines[:_SHOWN]
    if shown:
        kind = ["kind"] if mixed else []
        remote.lines(["wave", "instance", "from", "to", "memory MiB", *kind, "reason"], shown)
    if len(shown) < len(lines):
        print(f"and {len(lines) - len(shown)} more moves: --all shows them")
    for number, wave in enumerate(made.waves, 1):
        if wave.empty:
            print(f"after wave {number}: {', '.join(wave.empty)} empty")
    if made.left:
        left = made.left if every else made.left[:_SHOWN]
        remote.lines(["stays", "on", "because"], [[each.instance, each.node, each.reason] for each in left])
        if len(left) < len(made.left):
            print(f"and {len(made.left) - len(left)} more guests stay: --all shows them")


# plans as documents


@plan.command(name="show")
def show_plan(
    document: Path,
    *,
    every: Annotated[bool, Parameter(name="--all", help="show all moves", negative="")] = False,
    picture: Annotated[Path | None, Parameter(help="write a picture of the plan to this file as HTML")] = None,
    remote: Remote = LOCAL,
) -> int:
    """A plan that was written to a file."""
    made = _read(document)
    if picture is not None:
        _write(picture, page(made).encode())
    _show(made, remote, every=every)
    return 0


@plan.command(name="check")
def check(
    document: Path,
    *,
    state: Annotated[Path | None, Parameter(help="a fleet's file instead of a running service")] = None,
    policy: Annotated[Path | None, Parameter(help="a policy file, beside --state")] = None,
    remote: Remote = LOCAL,
) -> int:
    """Whether every move of a plan is possible now. Exit code 3: one is not."""
    made = _read(document)
    if state is not None:
        engine, options = _offline(Planning(state=state, policy=policy))
        found = check_plan(engine, made, asked=options["asked"])
    else:
        found = remote.ask("check_plan", {"plan": made})
    _told(found, remote)
    return 0 if found.valid else REFUSED


def _told(found: PlanCheck, remote: Remote) -> None:
    if remote.as_json:
        remote.show(found)
        return
    if found.valid:
        print("every move is possible")
    else:
        rows = [[each.wave, each.instance, each.reason] for each in found.differences]
        remote.lines(["wave", "instance", "is not possible because"], rows)
    if found.changed:
        print(f"changed since the plan was made: {', '.join(found.changed)}")


@plan.command(name="rollback")
def rollback(
    document: Path,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="write the plan to this file as JSON")],
    waves: Annotated[
        int | None, Parameter(help="waves that have run; all, if left out", validator=Number(gte=0))
    ] = None,
    remote: Remote = LOCAL,
) -> int:
    """The plan that takes a plan back."""
    made = _read(document).rollback(waves=waves)
    _write(output, made.to_json())
    _show(made, remote, every=False)
    return 0


@plan.command(name="run")
def run_plan(
    document: Path,
    *,
    execute: Annotated[
        str | None, Parameter(help="command that moves one guest: {instance}, {source} and {target} are filled in")
    ] = None,
    first: Annotated[int, Parameter(name="--from-wave", help="wave to begin with", validator=Number(gte=1))] = 1,
    yes: Annotated[bool, Parameter(help="run it; without it the plan is only checked", negative="")] = False,
    remote: Remote = LOCAL,
) -> int:
    """Carry a plan out through a running service, wave by wave: back ends move their guests; of others both ends are
    claimed, the command moves them, and the moves are confirmed. It stops on a difference, and what has not moved then
    is reverted. Run again, it goes on where it stopped."""
    made = _read(document)
    with remote.client() as client:
        run = PlanRun(client, execute, remote.within)
        if (begun := run.left_under_way(made)) and (code := _taken_up(run, begun, yes=yes)) is not None:
            return code
        whole = run.remaining(msgspec.structs.replace(made, waves=made.waves[first - 1 :]))
        left = msgspec.structs.replace(whole, waves=tuple(wave for wave in whole.waves if wave.moves))
        found = client.call("check_plan", {"plan": left})
        if not found.valid or not yes:
            _told(found, remote)
            if found.valid:
                moves, waves = counted(len(left.moves), "move"), counted(len(left.waves), "wave")
                print(f"{moves} in {waves} would run: add --yes")
            return 0 if found.valid else REFUSED
        return _carried_out(run, whole, first)


def _taken_up(run: PlanRun, begun: Sequence[PlannedMove], *, yes: bool) -> int | None:
    """Go on with moves that were left under way; the exit code, or None if all have moved."""
    moves = counted(len(begun), "move")
    if not yes:
        print(f"{moves} of a run that was killed would go on, and the rest would be checked then: add --yes")
        return 0
    try:
        problem = run.take_up(begun)
    except KeyboardInterrupt:
        print("interrupted: run it again to go on", file=sys.stderr)
        return INTERRUPTED
    if problem is not None:
        print(f"stopped in moves that were under way: {problem}", file=sys.stderr)
        return STOPPED
    print(f"{moves} of a run that was killed: moved", flush=True)
    return None


def _carried_out(run: PlanRun, made: Plan, first: int) -> int:
    number = first
    try:
        for number, wave in enumerate(made.waves, first):
            problem = run.wave(wave.moves)
            if problem is not None:
                print(f"stopped in wave {number}: {problem}; waves before it have run", file=sys.stderr)
                return STOPPED
            said = f"{len(wave.moves)} moved" if wave.moves else "has run before"
            print(f"wave {number}: {said}" + (f"; empty: {', '.join(wave.empty)}" if wave.empty else ""), flush=True)
    except KeyboardInterrupt:
        print(f"interrupted in wave {number}: run it again to go on", file=sys.stderr)
        return INTERRUPTED
    return 0
