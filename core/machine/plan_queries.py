"""Questions about move plans: made on a fork and checked against the state at hand; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated

import msgspec
import numpy as np

from ...placement.plan.checking import check_plan as checked
from ...placement.plan.checking import cold
from ...placement.plan.goals import Balance, Consolidate, Defragment, Drain, EvacuateProof, Goal, MakeRoom
from ...placement.types.errors import HostlerError
from ...placement.types.moves import MoveKind
from ...placement.types.plans import Plan, PlanCheck, PlanOptions
from ...placement.types.request import Request
from ..engine_commands import Asked
from ..tenancy.usage import Usage
from .kept_requests import as_kept
from .question import Query
from .state import ServiceState


class MakeRoomFor(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="make_room", forbid_unknown_fields=True
):
    """Make room so that ``request`` fits, with the fewest moves."""

    request: Asked


class DefragmentFor(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="defragment", forbid_unknown_fields=True
):
    """Make more room for guests of ``requests``. ``hosts``: those whose guests move, and whose room counts; empty:
    all."""

    requests: Annotated[tuple[Asked, ...], msgspec.Meta(max_length=16)]
    hosts: tuple[str, ...] = ()


class PlanMoves(Query, frozen=True):
    """The plan of moves that reaches a goal: ``{"do": "drain", "hosts": [...]}``, ``consolidate``, ``balance``,
    ``make_room``, ``defragment`` or ``evacuate_proof``, with the fields of the library's goals. Every rule is kept in
    every state between, quotas included; nothing is changed. ``per_host``: moves that may run on one host at a time, 0
    for any number. ``pinned``: instances that stay. ``stopped``: instances that do not run, whose moves are cold where
    those of others are live; of guests that back ends carry out the service knows it. For readers of the cloud."""

    goal: Drain | Consolidate | Balance | MakeRoomFor | DefragmentFor | EvacuateProof
    kind: MoveKind = "live_migrate"
    per_host: Annotated[int, msgspec.Meta(ge=0)] = 4
    most_moves: Annotated[int, msgspec.Meta(ge=0)] | None = None
    pinned: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()


class CheckPlan(Query, frozen=True):
    """Whether every move of a plan is possible now, wave by wave. A guest of a back end that was stopped or started
    since is a difference. For readers of the cloud."""

    plan: Plan


def plan_moves(state: ServiceState, user: str, query: PlanMoves) -> Plan:
    """The plan of a goal."""
    goal = _goal(state, query.goal)
    return state.engine.plan(
        goal,
        asked=_Kept(state),
        kind=query.kind,
        per_host=query.per_host,
        most_moves=query.most_moves,
        pinned=frozenset(query.pinned),
        stopped=_Stopped(state, query.stopped),
        stays=partial(_unsettled, state),
        admission=_Quotas(state) if state.tenants.limits else None,
    )


def check_plan(state: ServiceState, user: str, query: CheckPlan) -> PlanCheck:
    """A plan against the state at hand."""
    options: PlanOptions = {
        "asked": _Kept(state),
        "stopped": _Stopped(state, cold(query.plan)),
        "stays": partial(_unsettled, state),
    }
    return checked(state.engine, query.plan, **options)


def _goal(
    state: ServiceState, goal: Drain | Consolidate | Balance | MakeRoomFor | DefragmentFor | EvacuateProof
) -> Goal:
    """The goal of the library that a query means."""
    if isinstance(goal, MakeRoomFor):
        return MakeRoom(request=state.request(goal.request, None))
    if isinstance(goal, DefragmentFor):
        return Defragment(requests=tuple(state.request(each, None) for each in goal.requests), hosts=goal.hosts)
    return goal


def _unsettled(state: ServiceState, uuid: str) -> str:
    """Why a guest that a back end carries out cannot be moved now; empty if it can, and for others."""
    life = state.lives.guests.get(uuid)
    if life is None or (life.settled and life.status in ("active", "stopped")):
        return ""
    return f"it is {life.shown}" if life.shown not in ("active", "stopped") else "its volumes are being changed"


class _Stopped:
    """The instances that do not run: guests that a back end has stopped, and of others those that are named."""

    def __init__(self, state: ServiceState, named: Iterable[str]) -> None:
        self._guests, self._named = state.lives.guests, frozenset(named)

    def __contains__(self, uuid: object) -> bool:
        life = self._guests.get(uuid) if isinstance(uuid, str) else None
        return uuid in self._named if life is None else life.status == "stopped"


class _Kept:
    """What guests were asked with, as far as the service keeps it."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._elsewhere: dict[str, tuple[str, ...]] = {}

    def __call__(self, uuid: str) -> Request | None:
        spec = self._state.requests.get(uuid)
        if spec is None:
            return None
        asked = Asked(spec=as_kept(spec), project_id=self._state.project_of(uuid))
        try:
            request = self._state.request(asked, None, (uuid,))
        except HostlerError:  # such as a flavor of which rules have changed since
            return None
        life = self._state.lives.guests.get(uuid)
        others = () if life is None else self._outside(life.backend)
        if not others:
            return request
        ignored = (*request.spec.ignore_hosts, *others)
        return request.with_changes(spec=replace(request.spec, ignore_hosts=ignored))

    def _outside(self, backend: str) -> tuple[str, ...]:
        """Hosts to which a back end cannot move its guests: those that it does not have."""
        if backend not in self._elsewhere:
            fleet, lives = self._state.fleet, self._state.lives
            rows = np.flatnonzero(fleet.is_host[: fleet.rows]).tolist()
            hosts = {fleet._service_host(row) for row in rows if lives.backend_of(fleet.name(row)) != backend}
            self._elsewhere[backend] = tuple(sorted(hosts))
        return self._elsewhere[backend]


class _Quotas:
    """The limits of projects, against which both ends of a move count while it runs."""

    def __init__(self, state: ServiceState) -> None:
        self._tenants = state.tenants
        self._usage = Usage({scope: dict(used) for scope, used in state.usage.by_scope.items()})

    def begin(self, project_id: str, amounts: Mapping[str, int]) -> bool:
        """Count what the target takes; False if a limit would be exceeded."""
        try:
            self._usage.check(self._tenants, project_id, amounts)
        except HostlerError:
            return False
        self._usage.add(self._tenants, project_id, amounts)
        return True

    def end(self, project_id: str, amounts: Mapping[str, int]) -> None:
        """The source is given back."""
        self._usage.add(self._tenants, project_id, amounts, -1)
