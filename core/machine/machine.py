"""The service's state machine: orders (user, time, command) are checked against the user's access rights, and
applied."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from ...placement.api.answers import Inventories, Provider, ProviderAggregates, ProviderTraits
from ...placement.storage.decision import VolumeDecision
from ...placement.storage.with_guests import JointDecision
from ...placement.types.decision import Decision, PackedDecision
from ...placement.types.errors import HostlerError, InvalidValue
from ...placement.types.host_report import Reported
from ...placement.types.moves import PendingMove
from ...placement.types.steps import finished
from ...placement.types.uuids import plain_uuid
from ...placement.types.validation import uuid_words
from ..engine_commands import (
    AddProvider,
    AddServerGroup,
    BeginMove,
    ConfirmHold,
    ConfirmMove,
    EngineCommand,
    Hold,
    Move,
    Place,
    PlaceMany,
    Release,
    RemoveAggregate,
    RemoveServerGroup,
    ReportHosts,
    Resize,
    RevertMove,
    SetAggregates,
    SetPolicy,
    Spawned,
    UpdateAggregate,
)
from ..engine_commands import Placed as PlacedMany
from ..errors import InternalError, StateUnknown, check_not_newer, checked_outcome
from ..lifecycle_commands import (
    AdoptGuest,
    CreateGuest,
    CreateVolume,
    Lifecycle,
    MoveGuest,
    OnGuest,
    OnVolumeClaim,
    ResizeGuest,
)
from ..region_commands import (
    BeginRegionRelease,
    ClaimInRegion,
    ForgetRegionGuests,
    PlacedAcross,
    RecordRegionCall,
    RegionCommand,
)
from ..storage_commands import (
    BackupPlaced,
    GroupPlaced,
    SnapshotPlaced,
    StorageBase,
    StorageKind,
    VolumeMoved,
)
from ..tenancy import rights, volume_rights
from ..tenancy.tenants import LOCAL, is_internal
from . import guests, host_reports, placing, volume_moves
from .destinations import select_destinations
from .doubled import settle
from .edits import edit
from .guest_claims import forget_gone
from .guest_lives import change_lives, check_not_carried_out
from .lives import GuestChange, SnapshotChange, VolumeChange
from .long_commands import LOOKED_AT, in_pieces, in_steps
from .order_policies import PolicyValues, service_policy, storage_policy, without_bad_storage
from .orders import INSTANCES_BY_TYPE, RULES, UUIDS_APART, AnyCommand, Guests, Order, PlacementWrite, SelectDestinations
from .placement_writes import carry_out, consumers_of
from .region_claims import amounts_of
from .replicated import unpacked
from .runs import end_of_run
from .state import ServiceState
from .storage_changes import change_storage
from .storage_uuids import check_apart
from .tenant_answers import as_told
from .tenant_changes import change_tenants

CONCERNED_KEPT: Final = 20_000
"""Number of orders of one batch, or applied one by one, of which it is known whom they concerned and what they
needed."""

_PLACING_FIRST: Final = (CreateGuest, AdoptGuest, CreateVolume, MoveGuest, ResizeGuest)
_encode: Final = msgspec.msgpack.Encoder().encode

log = logging.getLogger("hostler.machine")

_FIRST_RULES: Final = 0x93
"""First byte of an order without a revision: a list of three."""


class ServiceMachine:
    """Applies orders to a state, one by one or in batches, with the same outcome."""

    def __init__(self) -> None:
        self.state = ServiceState()
        self.carrying_out = False
        """True while orders are carried out: between two steps the state may be behind none of them."""
        self._orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
        self.encode: Callable[[Order], bytes] = msgspec.msgpack.Encoder().encode
        """An order as the journal has it."""
        self._concerned: dict[int, tuple[Order, Guests]] = {}
        """By the identity of the last orders that named guests."""
        self._needed: dict[int, tuple[Order, tuple[tuple[str, str], ...]]] = {}
        """(role, scope) of what the last other orders needed, by their identity."""

    # as the journal has it

    def decode(self, data: bytes) -> Order:
        """An order. UnreadableCommand for one under rules that are not known here, which would be carried out as they
        were before."""
        order = self._orders.decode(data)
        if order.rules > RULES:
            check_not_newer("the journal", order.rules, RULES, "commands of rules")
        return order if data[0] != _FIRST_RULES else msgspec.structs.replace(order, rules=0)

    def encode_result(self, result: Any) -> bytes:
        if type(result) is PackedDecision:
            return _encode(("decision", msgspec.Raw(result.data)))
        kind = next((name for name, known in _RESULTS.items() if isinstance(result, known)), "")
        return _encode((kind, result))

    def decode_result(self, data: bytes) -> Any:
        kind, raw = msgspec.msgpack.decode(data, type=tuple[str, msgspec.Raw])
        return msgspec.msgpack.decode(raw, type=_RESULTS.get(kind, Any))

    def save(self, path: Path) -> None:
        self.state.save(path)

    def load(self, path: Path) -> None:
        self.state.load(path)

    # carrying out

    def apply(self, command: Order) -> Any:
        """Execute an order. HostlerError, with nothing changed, if it is malformed, not allowed, or refused."""
        return finished(self._steps(command))

    def begin(self, order: Order) -> None:
        """``_begin`` without a pause."""
        finished(self._begin(order))

    def _begin(self, order: Order) -> Generator[None, None, None]:
        """What the execution of an order begins with: it is checked, and the state brought to its time. HostlerError if
        it is not allowed."""
        self.check(order)
        self.state.follow_rules(order.rules)
        yield from self._advance(order.now)

    def _steps(self, command: Order) -> Generator[None, None, Any]:
        named = guests_named(command.command)
        if named:
            yield from in_pieces(lambda some: self._note(command, some), named)
        elif isinstance(command.command, StorageBase):
            kind, uuids = volume_rights.named(command.command)
            yield from in_pieces(lambda some: self._note_storage(command, kind, some), uuids)
        elif isinstance(command.command, OnVolumeClaim):
            self._note_storage(command, "volume", (command.command.volume,))
        yield from self._begin(command)
        if len(named) > LOOKED_AT:
            yield
        if command.rules >= UUIDS_APART and isinstance(command.command, (StorageBase, Lifecycle)):
            check_apart(self.state.volumes, command.command)
        if isinstance(command.command, _ON_CLAIMS):
            if self.state.lives.guests:
                check_not_carried_out(self.state, named)
            if self.state.fleet._consumers.moves and command.rules >= INSTANCES_BY_TYPE:
                guests.check_no_sources(self.state, named)
        steps = in_steps(self.state, command.command, command.now, command.rules)
        try:
            if isinstance(command.command, PlacementWrite):
                steps = self._write_placement(command, command.command)
            answer = self._do(command) if steps is None else (yield from steps)
        finally:
            if isinstance(command.command, SelectDestinations):
                self._note(command, named)
        return as_told(self.state.tenants, command, answer)

    def _do(self, command: Order) -> Any:
        state = self.state
        match command.command:
            case Place(request=request):
                return placing.place_one(state, request, command.now)
            case Hold():
                return finished(guests.hold(state, command.command, command.now))
            case PlaceMany(requests=requests):
                return finished(placing.place_many(state, requests, command.now))
            case ConfirmHold(uuids=uuids):
                return guests.confirm_hold(state, uuids)
            case Release(uuids=uuids, claim=claim):
                return guests.release(state, uuids, claim)
            case Lifecycle():
                return self._change_lives(command, command.command)
            case Move() | Resize():
                return self._replace(command, command.command)
            case BeginMove():
                return guests.begin_move(state, command.command, command.now)
            case ConfirmMove(uuid=uuid):
                return guests.end_move(state, uuid, confirm=True)
            case RevertMove(uuid=uuid):
                return guests.end_move(state, uuid, confirm=False)
            case ReportHosts():
                return finished(host_reports.report_hosts(state, command.command, command.now))
            case RegionCommand():
                return self._change_regions(command, command.command)
            case StorageBase():
                return change_storage(state, command.command, command.now)
            case SetPolicy(policy=policy):
                return self._set_policy(policy, command.rules)
            case SetAggregates(name=name, aggregates=aggregates) as put:
                if command.rules:
                    aggregates = state.without_pools(name, aggregates)
                kept = (*aggregates, *state.pool_aggregates(name))
                return edit(state.engine, msgspec.structs.replace(put, aggregates=kept), command.now)
            case AddServerGroup() | RemoveServerGroup():
                return guests.change_groups(state, command.command, command.now)
            case SelectDestinations(request=request, replaces=replaces):
                return select_destinations(state, request, command.now, replaces=replaces)
            case other:
                if isinstance(other, EngineCommand):
                    if command.rules:
                        state.check_no_pools(_aggregates_of(other))
                        state.check_removal(other)
                    return edit(state.engine, other, command.now)
                return change_tenants(state, other, command.now, command.rules)

    def _change_lives(self, order: Order, command: Lifecycle) -> Any:
        """StateUnknown for an unexpected error, unless it is one of the placement that the command begins with: records
        of guests and volumes may have been changed before it."""
        try:
            return change_lives(self.state, command, order.now)
        except InternalError as error:
            if isinstance(command, _PLACING_FIRST):
                raise
            raise StateUnknown(f"{type(command).__name__} of a guest or volume failed half-way: {error}") from error

    def _change_regions(self, order: Order, command: RegionCommand) -> Any:
        state, amounts = self.state, dict[str, int]()
        if isinstance(command, ClaimInRegion) and command.id not in state.region_claims.claims:
            asked, release = command.request, state.engine.policy.own.nova_release
            amounts = amounts_of(state.spec_of(asked), len(asked.instance_uuids), release)
        return state.region_claims.change(state.tenants, state.usage, command, order.user, amounts)

    def _set_policy(self, policy: PolicyValues, rules: int) -> str:
        """The digest of the policy that is in force now."""
        state = self.state
        engine = state.engine.fork(service_policy(policy, rules))
        if rules < 2:
            policy = without_bad_storage(policy)
        storage_policy(policy)
        state.decide_by(engine, policy)
        return state.engine.policy.digest

    def _write_placement(self, order: Order, command: PlacementWrite) -> Generator[None, None, Any]:
        state, write = self.state, command.command
        note = partial(self._note, order)  # those too that came with it
        try:
            answer = yield from carry_out(state, write, order.rules, command.project, note)
        except HostlerError:
            note(consumers_of(write))
            raise
        if state.holds:
            state.holds.end(consumers_of(write))  # it shows that the hold was taken up
        settle(state.requests.doubled, consumers_of(write))
        forget_gone(state, consumers_of(write))
        return answer

    def _replace(self, order: Order, command: Move | Resize) -> Decision:
        return guests.replace(self.state, command, order.now, rules=order.rules)

    def _note(self, order: Order, uuids: Iterable[str]) -> None:
        """Remember whose guests these are now."""
        _, concerned = self._concerned.setdefault(id(order), (order, {}))
        named = list(uuids)
        try:
            projects = self.state.projects_of(named)
        except InvalidValue:
            named = [uuid for uuid in named if _is_uuid(uuid)]
            projects = self.state.projects_of(named)
        for uuid, project in zip(named, projects, strict=True):
            if project is not None:
                concerned.setdefault(project, {})[uuid] = None
        if len(self._concerned) > CONCERNED_KEPT:
            del self._concerned[next(iter(self._concerned))]

    def _note_storage(self, order: Order, kind: StorageKind, uuids: Sequence[str]) -> None:
        """Remember whose volumes, snapshots, backups or groups these are now."""
        _, concerned = self._concerned.setdefault(id(order), (order, {}))
        for uuid in uuids:
            project = self.state.storage_project(kind, uuid)
            if project is not None:
                concerned.setdefault(project, {})[uuid] = None
        if len(self._concerned) > CONCERNED_KEPT:
            del self._concerned[next(iter(self._concerned))]

    def concerned(self, order: Order) -> Guests:
        """The guests named by an order, applied or refused, by project; available once. The guests may no longer exist.
        Empty if the order is not recent."""
        return self._concerned.pop(id(order), (order, {}))[1]

    # who may have an old answer

    def needs(self, order: Order) -> tuple[tuple[str, str], ...] | None:
        """(role, scope) of what an order needed that was just carried out, or refused; None where the command itself
        says that. To be asked before ``concerned``."""
        match order.command:
            case Place() | Hold() | PlaceMany():
                return None
            case Release() | Spawned() | ConfirmHold() | Move() | Resize():
                _, concerned = self._concerned.get(id(order), (order, {}))
                if concerned and not isinstance(order.command, Move):
                    return tuple(("member", rights.project_scope(project)) for project in concerned)
        return self._needed.pop(id(order), (order, (rights.FOR_CLOUD_ADMINS[:2],)))[1]

    def check_needs(self, order: Order, needs: Sequence[tuple[str, str]] | None) -> None:
        """NotAllowed if the user who repeats an order no longer has the rights that it needs."""
        tenants, user = self.state.tenants, order.user
        if is_internal(user):
            return
        found = [rights.Need(role, scope) for role, scope in needs or ()]
        if needs is None:
            found = list(rights.needs(tenants, user, order.command, self.state, order.rules))
        rights.check_again(tenants, user, order.command, found)

    def apply_batch(self, commands: Sequence[Order], wanted: Sequence[bool] | None = None) -> list[Any]:
        """``carry_out`` without a pause."""
        return [unpacked(outcome) for outcome in finished(self.carry_out(commands, wanted))]

    def carry_out(
        self, commands: Sequence[Order], wanted: Sequence[bool] | None = None
    ) -> Generator[None, None, list[Any]]:
        """Returns for each order its answer (a placement's as PackedDecision, where it can be), or the error that
        refused it; None for decisions that are not ``wanted``. Consecutive single placements with equal times are
        decided together. Yields between steps of about a millisecond, at which nothing is seen of an order that places
        guests or volumes, and of others the part which is done; ``carrying_out`` is True until the end."""
        self.carrying_out = True
        self._concerned.clear()  # those who want to know of the batch before have asked
        self._needed.clear()
        outcomes: list[Any] = []
        try:
            while len(outcomes) < len(commands):
                first = len(outcomes)
                last = end_of_run(self.state, commands, first)
                if last > first:
                    run = None if wanted is None else wanted[first:last]
                    outcomes += yield from self._place_run(commands[first:last], run)
                else:
                    outcomes.append((yield from self._outcome(commands[first])))
                if len(outcomes) < len(commands):
                    yield
            return outcomes
        finally:
            self.carrying_out = False

    def _outcome(self, order: Order) -> Generator[None, None, Any]:
        try:
            return (yield from self._steps(order))
        except HostlerError as error:
            return checked_outcome(error)

    def _place_run(self, orders: Sequence[Order], wanted: Sequence[bool] | None) -> Generator[None, None, list[Any]]:
        state = self.state
        outcomes: list[Any] = [None] * len(orders)
        asked, positions = [], []
        for position, order in enumerate(orders):
            if order.user != LOCAL:
                try:
                    self.check(order)
                except HostlerError as error:
                    outcomes[position] = checked_outcome(error)
                    continue
            if order.rules > state.rules:
                state.follow_rules(order.rules)
            assert isinstance(order.command, Place)
            asked.append(order.command.request)
            positions.append(position)
        if not asked:
            return outcomes
        yield from self._advance(orders[0].now)
        some = None if wanted is None else [wanted[position] for position in positions]
        placed = placing.place_run(self.state, asked, orders[0].now, some)
        for position, outcome in zip(positions, placed, strict=True):
            refused = type(outcome) is Decision and outcome.refusal is not None
            outcomes[position] = as_told(state.tenants, orders[position], outcome) if refused else outcome
        return outcomes

    def check(self, order: Order) -> None:
        state = self.state
        if isinstance(order.command, StorageBase):
            found = volume_rights.check(state.tenants, order.user, order.command, state, order.rules)
        else:
            found = rights.check(state.tenants, order.user, order.command, state, order.rules)
            volume_rights.check_volumes_of_guests(state.tenants, order.user, order.command, state)
        if found and not isinstance(order.command, (Place, Hold, PlaceMany, Release, Spawned, ConfirmHold, Resize)):
            self._needed[id(order)] = order, tuple((need.role, need.scope) for need in found)
            if len(self._needed) > CONCERNED_KEPT:
                del self._needed[next(iter(self._needed))]

    def _advance(self, now: float) -> Generator[None, None, None]:
        """Bring the state to a time, with what ends by then, in steps."""
        context = self.state.engine._context
        fleet = context.fleet
        fleet._services.advance(now, context.policy.options.default.service_down_time)
        if fleet._consumers.moves:
            yield from guests.expire_moves(self.state, now)
        if self.state.holds:
            yield from guests.expire_holds(self.state, now)
        if self.state.volumes.ends:
            yield from volume_moves.expire(self.state, now)


def _is_uuid(text: str) -> bool:
    try:
        uuid_words(text, "uuid")
    except InvalidValue:
        return False
    return True


def _aggregates_of(command: EngineCommand) -> Iterable[str]:
    """Uuids of the aggregates that a command defines, removes, or puts providers into."""
    match command:
        case AddProvider(aggregates=aggregates):
            return (aggregate.uuid for aggregate in aggregates)
        case UpdateAggregate(aggregate=aggregate):
            return (aggregate.uuid,)
        case RemoveAggregate(uuid=uuid):
            return (plain_uuid(uuid),)
    return ()


def guests_named(command: AnyCommand) -> Sequence[str]:
    """Uuids of the guests that a command is about, but for those that it places."""
    match command:
        case Release(uuids=uuids) | Spawned(uuids=uuids) | ConfirmHold(uuids=uuids):
            return uuids
        case ForgetRegionGuests(uuids=uuids) | BeginRegionRelease(uuids=uuids) | RecordRegionCall(uuids=uuids):
            return uuids
        case OnGuest(uuid=uuid):
            return (uuid,)
        case (
            Move(uuid=uuid) | Resize(uuid=uuid) | BeginMove(uuid=uuid) | ConfirmMove(uuid=uuid) | RevertMove(uuid=uuid)
        ):
            return (uuid,)
        case SelectDestinations(request=request):
            return request.instance_uuids
        case PlacementWrite(command=write):
            return consumers_of(write)
    return ()


_ON_CLAIMS: Final = (Release, Move, Resize, BeginMove, ConfirmMove, RevertMove)
"""Commands that change what a guest holds, which back ends that carry it out would not follow."""
_RESULTS: Final[dict[str, Any]] = {
    "guest_snapshot": SnapshotChange,  # before the type that it is one of
    "guest": GuestChange,
    "volume_life": VolumeChange,
    "decision": Decision,
    "placed": PlacedMany,
    "reported": Reported,
    "move": PendingMove,
    "volume": VolumeDecision,
    "together": JointDecision,
    "across": PlacedAcross,
    **{kind.__name__: kind for kind in (SnapshotPlaced, GroupPlaced, VolumeMoved, BackupPlaced)},
    **{kind.__name__: kind for kind in (Provider, Inventories, ProviderTraits, ProviderAggregates)},
}
