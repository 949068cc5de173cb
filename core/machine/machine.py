"""The service's state machine: orders (who, when, what) are checked against the rights of who gives them, and carried
out."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ...placement.api.answers import Inventories, Provider, ProviderAggregates, ProviderTraits
from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError, InUse
from ..errors import InternalError
from ..tenancy import commands as c
from ..tenancy import rights
from . import guests
from .engine_commands import (
    EngineCommand,
    Move,
    Place,
    PlaceMany,
    Release,
    Resize,
    SetAggregates,
    SetPolicy,
    Spawned,
    edit,
)
from .engine_commands import Placed as PlacedMany
from .placement_writes import PlacementWrite, carry_out, consumers_of
from .replicated import finished
from .state import ServiceState, service_policy

AnyCommand = EngineCommand | c.TenancyCommand | PlacementWrite

CONCERNED_KEPT: Final = 20_000
"""Orders of which it may be asked whom they concerned: more than a history remembers."""

log = logging.getLogger("hostler.machine")


Guests = dict[str, dict[str, None]]
"""Uuids by project, in order."""


class Order(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the journal holds: a command, its time in seconds since the epoch, and the user who gave it."""

    now: float
    user: str
    command: AnyCommand


class ServiceMachine:
    """Carries out orders on a state, one by one or many at once, with the same outcome."""

    def __init__(self) -> None:
        self.state = ServiceState()
        self._orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
        self._encode = msgspec.msgpack.Encoder().encode
        self._concerned: dict[int, tuple[Order, Guests]] = {}
        """By the identity of the last orders that named guests."""

    # as the journal has it

    def encode(self, command: Order) -> bytes:
        return self._encode(command)

    def decode(self, data: bytes) -> Order:
        return self._orders.decode(data)

    def encode_result(self, result: Any) -> bytes:
        kind = next((name for name, known in _RESULTS.items() if isinstance(result, known)), "")
        return self._encode((kind, result))

    def decode_result(self, data: bytes) -> Any:
        kind, raw = msgspec.msgpack.decode(data, type=tuple[str, msgspec.Raw])
        return msgspec.msgpack.decode(raw, type=_RESULTS.get(kind, Any))

    def save(self, path: Path) -> None:
        self.state.save(path)

    def load(self, path: Path) -> None:
        self.state.load(path)

    # carrying out

    def apply(self, command: Order) -> Any:
        """Carry out an order. HostlerError, with nothing changed, if it is malformed, not allowed, or refused."""
        return finished(self._steps(command))

    def _steps(self, command: Order) -> Generator[None, None, Any]:
        named = guests_named(command.command)
        if named:
            self._note(command, named)
        self._check(command)
        self._advance(command.now)
        if isinstance(command.command, PlaceMany):
            return (yield from guests.place_many(self.state, command.command.requests, command.now))
        return self._do(command)

    def _do(self, command: Order) -> Any:
        state = self.state
        match command.command:
            case Place(request=request):
                (outcome,) = guests.place_each(state, (request,), command.now)
                if isinstance(outcome, HostlerError):
                    raise outcome
                return outcome
            case Release(uuids=uuids):
                return guests.release(state, uuids)
            case Move() | Resize():
                return self._replace(command.command, command.now)
            case SetPolicy(policy=policy):
                state.engine = state.engine.fork(service_policy(policy))
                state.policy = policy
                return state.engine.policy.digest
            case SetAggregates(name=name, aggregates=aggregates) as put:
                kept = (*aggregates, *state.pool_aggregates(name))
                return edit(state.engine, msgspec.structs.replace(put, aggregates=kept), command.now)
            case PlacementWrite(command=write):
                try:
                    return carry_out(state, write)
                finally:
                    self._note(command, consumers_of(write))  # those too that came with it
            case other:
                if isinstance(other, EngineCommand):
                    return edit(state.engine, other, command.now)
                return _change_tenants(state, other, command.now)

    def _replace(self, command: Move | Resize, now: float) -> Decision:
        return guests.replace(self.state, command.uuid, command.request, now, leave=isinstance(command, Move))

    def _note(self, order: Order, uuids: Iterable[str]) -> None:
        """Remember whose guests these are now."""
        _, concerned = self._concerned.setdefault(id(order), (order, {}))
        for uuid in uuids:
            try:
                project = self.state.project_of(uuid)
            except HostlerError:  # there is none
                continue
            concerned.setdefault(project, {})[uuid] = None
        if len(self._concerned) > CONCERNED_KEPT:
            del self._concerned[next(iter(self._concerned))]

    def concerned(self, order: Order) -> Guests:
        """The guests that an order named, whether it was carried out or refused, by project; to be asked once. The
        guests themselves may be gone by then. Nothing if the order is not among the last."""
        return self._concerned.pop(id(order), (order, {}))[1]

    def apply_batch(self, commands: Sequence[Order], wanted: Sequence[bool] | None = None) -> list[Any]:
        """``carry_out`` without a pause."""
        return finished(self.carry_out(commands, wanted))

    def carry_out(
        self, commands: Sequence[Order], wanted: Sequence[bool] | None = None
    ) -> Generator[None, None, list[Any]]:
        """Returns for each order its answer, or the error it is refused with; None for decisions that are not
        ``wanted``. Runs of single placements at one time are decided together. It yields between steps of about a
        millisecond, where everything is as after some whole order or request."""
        outcomes: list[Any] = []
        while len(outcomes) < len(commands):
            first = len(outcomes)
            last = _end_of_run(commands, first)
            if last > first + 1:
                outcomes += self._place_run(commands[first:last], None if wanted is None else wanted[first:last])
            else:
                outcomes.append((yield from self._outcome(commands[first])))
            yield
        return outcomes

    def _outcome(self, order: Order) -> Generator[None, None, Any]:
        try:
            return (yield from self._steps(order))
        except HostlerError as error:
            return error
        except Exception:
            log.exception("%s failed in an unforeseen way; it counts as refused", type(order.command).__name__)
            return InternalError("the command failed in an unforeseen way; the service's log says how")

    def _place_run(self, orders: Sequence[Order], wanted: Sequence[bool] | None) -> list[Any]:
        outcomes: list[Any] = [None] * len(orders)
        asked, positions = [], []
        for position, order in enumerate(orders):
            try:
                self._check(order)
            except HostlerError as error:
                outcomes[position] = error
                continue
            assert isinstance(order.command, Place)
            asked.append(order.command.request)
            positions.append(position)
        self._advance(orders[0].now)
        some = None if wanted is None else [wanted[position] for position in positions]
        placed = guests.place_each(self.state, asked, orders[0].now, some)
        for position, outcome in zip(positions, placed, strict=True):
            outcomes[position] = outcome
        return outcomes

    def _check(self, order: Order) -> None:
        state = self.state
        rights.check(
            state.tenants,
            order.user,
            order.command,
            state.project_of,
            lambda asked: state.specs.of(asked.spec),
        )

    def _advance(self, now: float) -> None:
        engine = self.state.engine
        engine.fleet.advance(now, engine.policy.options.default.service_down_time)


def guests_named(command: AnyCommand) -> Sequence[str]:
    """Uuids of the guests that a command is about, but for those that it places."""
    match command:
        case Release(uuids=uuids) | Spawned(uuids=uuids):
            return uuids
        case Move(uuid=uuid) | Resize(uuid=uuid):
            return (uuid,)
        case PlacementWrite(command=write):
            return consumers_of(write)
    return ()


_RESULTS: Final[dict[str, Any]] = {
    "decision": Decision,
    "placed": PlacedMany,
    **{kind.__name__: kind for kind in (Provider, Inventories, ProviderTraits, ProviderAggregates)},
}


def _end_of_run(commands: Sequence[Order], first: int) -> int:
    """End of the placements of one time that begin at ``first``."""
    now, last = commands[first].now, first
    while last < len(commands) and commands[last].now == now and isinstance(commands[last].command, Place):
        last += 1
    return last


def _change_tenants(state: ServiceState, command: Any, now: float) -> None:
    tenants, pools = state.tenants, state.pools
    match command:
        case c.CreateDomain():
            tenants.create_domain(command)
        case c.DeleteDomain(id=name):
            tenants.delete_domain(command)
            pools.forget_scope(f"domain:{name}")
        case c.CreateProject():
            tenants.create_project(command)
        case c.DeleteProject(id=name):
            if state.usage.of(f"project:{name}"):
                raise InUse(f"project {name} has instances", field="id", hint="release them first")
            tenants.delete_project(command)
            pools.forget_scope(f"project:{name}")
        case c.CreateUser():
            tenants.create_user(command)
        case c.DeleteUser():
            tenants.delete_user(command)
        case c.Grant():
            tenants.grant(command)
        case c.Revoke():
            tenants.revoke(command)
        case c.CreateToken():
            tenants.create_token(command, now)
        case c.RevokeToken():
            tenants.revoke_token(command)
        case c.SetLimits():
            tenants.set_limits(command)
        case _:
            _change_pools(state, command)


def _change_pools(state: ServiceState, command: Any) -> None:
    match command:
        case c.CreatePool():
            state.pools.create(state.fleet, command)
        case c.DeletePool():
            state.pools.delete(state.fleet, command)
        case c.SetPoolHosts():
            state.pools.set_hosts(state.fleet, command)
        case c.GrantPool():
            state.pools.grant(state.tenants, command)
        case c.UngrantPool():
            state.pools.ungrant(command)
