"""Carries out orders on a machine, and compares each decision with that of another policy on the same state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from ...placement.decide.engine import Engine
from ...placement.decide.explain.explanation import Explanation
from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError, NoValidHost
from ..engine_commands import Asked, BeginMove, Hold, Move, Place, PlaceCandidates, Placed, PlaceMany, Resize
from ..lifecycle_commands import CreateGuest
from ..machine.machine import ServiceMachine
from ..machine.order_policies import PolicyValues, service_policy
from ..machine.orders import Order
from ..machine.state import ServiceState
from ..machine.what_if import Trial
from .status import ShadowCounts, ShadowDifference

Hosts = tuple[str, ...] | None
"""Of the instances of one request, empty if it was refused; None: no policy was asked, or it could not answer."""
PLACING: Final = (Place, PlaceCandidates, PlaceMany, Hold, CreateGuest, Move, Resize, BeginMove)
EXPLAINED: Final = 3
"""Hosts whose points are in an explanation."""
REFUSING: Final = 20
"""Hosts whose reasons are in it."""


class ShadowJudge:
    """Follows a service from the state that its machine is in. ``counts`` is what was found so far."""

    def __init__(self, machine: ServiceMachine, policy: PolicyValues) -> None:
        """HostlerError if the policy is none."""
        self.counts = ShadowCounts()
        self._machine, self._values = machine, policy
        self._shadow = machine.state.engine.fork(service_policy(policy))
        """Keeps what is compiled for the policy. It is a fork of the state before the last order: an older one keeps
        all changes since."""

    def pass_over(self, orders: Sequence[Order]) -> None:
        """Carry out orders without a comparison."""
        self._machine.apply_batch(orders)
        self._shadow = self._machine.state.engine.fork(compiled_by=self._shadow)
        self.counts.passed_over += sum(len(requests_of(order)) for order in orders)

    def judge(self, sequence: int, order: Order, *, explain: bool = False) -> list[ShadowDifference]:
        """Carry out an order; the requests in it that the shadow policy decides otherwise, the first of them explained
        if so wanted."""
        machine = self._machine
        if not isinstance(order.command, PLACING) or not requests_of(order) or not self._allowed(order):
            machine.apply_batch((order,))
            self._shadow = machine.state.engine.fork(compiled_by=self._shadow)
            return []
        engine = machine.state.engine
        live, shadow = engine.fork(), engine.fork(compiled_by=self._shadow)
        self._shadow = shadow
        trial = engine.fork(compiled_by=self._shadow)
        would_be = self._decided(trial, order)
        (outcome,) = machine.apply_batch((order,))
        found: list[ShadowDifference] = []
        requests = requests_of(order)
        for position, (was, other) in enumerate(zip(_live_hosts(outcome, len(requests)), would_be, strict=True)):
            if was is None or other is None:
                continue
            if was == other:
                self.counts.same += 1
                continue
            self.counts.only_shadow += not was
            self.counts.only_live += not other
            self.counts.elsewhere += bool(was and other)
            difference = ShadowDifference(sequence=sequence, position=position, live=was, shadow=other)
            if explain and position == 0:
                difference = msgspec.structs.replace(
                    difference,
                    live_explanation=self._explained(live, requests[0]),
                    shadow_explanation=self._explained(shadow, requests[0]),
                )
            found.append(difference)
        return found

    def _allowed(self, order: Order) -> bool:
        """Bring the state to the time of an order, as its execution does first; False if it is not allowed."""
        try:
            self._machine.begin(order)
        except HostlerError:
            return False
        return True

    def _decided(self, engine: Engine, order: Order) -> list[Hosts]:
        """What the shadow policy decides about the requests of an order, on an engine that is thrown away."""
        state, command = self._machine.state, order.command
        if isinstance(command, PlaceCandidates | Move | Resize | BeginMove):
            trial = Trial(state, engine, self._values)
            return [_hosts(partial(trial.carry_out, command))]
        found = []
        for asked in requests_of(order):
            assert asked is not None
            found.append(_hosts(partial(_place, engine, state, asked, order.now)))
        return [hosts and hosts[:1] for hosts in found] if isinstance(command, PlaceMany) else found

    def _explained(self, engine: Engine, asked: Asked | None) -> Explanation | None:
        """The explanation of a new guest's request, with few of the hosts that refuse it."""
        if asked is None:
            return None
        try:
            found = engine.explain(self._machine.state.request(asked, None, ()), top=EXPLAINED)
        except HostlerError:
            return None
        return dataclasses.replace(found, refused=found.refused[:REFUSING])


def requests_of(order: Order) -> Sequence[Asked | None]:
    """The requests that an order has decided; None for one that is kept with its guest, or has its candidates
    beside it, and is not explained."""
    match order.command:
        case PlaceMany(requests=requests):
            return requests
        case CreateGuest(volumes=volumes) if volumes:
            return ()  # where it goes depends on the policy for volumes too
        case Place(request=request) | Hold(request=request) | CreateGuest(request=request):
            return (request,)
        case PlaceCandidates() | Move() | Resize() | BeginMove():
            return (None,)
    return ()


def _place(engine: Engine, state: ServiceState, asked: Asked, now: float) -> Decision:
    return engine.place(state.request(asked, now))


def _hosts(decide: Callable[[], Any]) -> Hosts:
    """Hosts of the decision, empty if it is a refusal; None if there is none."""
    try:
        decision = decide()
    except HostlerError:
        return None
    return _hosts_of(decision) if isinstance(decision, Decision) else None


def _hosts_of(decision: Decision) -> tuple[str, ...]:
    return tuple(selection.host for selection in decision.selections)


def _live_hosts(outcome: Any, requests: int) -> list[Hosts]:
    if isinstance(outcome, Decision):
        return [_hosts_of(outcome)]
    if not isinstance(outcome, Placed):
        return [None] * requests
    return [
        (host,) if host is not None else () if outcome.refusals[position][0] == NoValidHost.code else None
        for position, host in enumerate(outcome.hosts)
    ]
