"""What commands would give: they are carried out one after another on a version that is discarded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from ...placement.decide.engine import Engine
from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError, InvalidValue
from .. import engine_commands as p
from ..errors import ErrorValue, to_value
from ..storage_commands import StorageBase, StorageCommand
from . import guests
from .edits import edit
from .holds import Holds
from .order_policies import PolicyValues, service_policy, storage_policy, with_present_defaults
from .question import Query
from .state import ServiceState
from .storage_changes import change_storage


class WhatIf(Query, frozen=True):
    """The answers that commands on guests, hosts and storage would get, in order, under the current policy or another;
    nothing is changed, and quotas are not checked. For readers of the cloud."""

    commands: Annotated[list[p.EngineCommand | StorageCommand], msgspec.Meta(max_length=10_000)]
    policy: dict[str, dict[str, Any]] | None = None


class Tried(msgspec.Struct, frozen=True):
    """What a command would have answered: ``error`` or ``result``."""

    error: ErrorValue | None
    result: Any


def what_if(state: ServiceState, user: str, query: WhatIf) -> list[Tried]:
    values = None if query.policy is None else with_present_defaults(query.policy)
    policy = None if values is None else service_policy(values)
    if values is not None:
        storage_policy(values)
    trial = Trial(state, state.engine.what_if(policy), state.policy if values is None else values)
    tried = []
    for command in query.commands:
        try:
            tried.append(Tried(None, trial.carry_out(command)))
        except HostlerError as error:
            tried.append(Tried(to_value(error), None))
    return tried


class Trial:
    """A version of the engine's state on which commands are tried, and the guests that are held on it."""

    def __init__(self, state: ServiceState, engine: Engine, policy: PolicyValues) -> None:
        self._state, self._engine, self._policy = state, engine, policy
        self._storage: ServiceState | None = None
        self._holds = Holds(state.holds.plain())
        self._now = engine.fleet.now or 0.0

    def carry_out(self, command: p.EngineCommand | StorageCommand) -> Any:
        """The answer to a command; HostlerError if it is refused."""
        state, engine = self._state, self._engine
        if isinstance(command, StorageBase):
            if self._storage is None:
                self._storage = state.without_quotas(engine, self._policy)
            return change_storage(self._storage, command, max(self._now, engine.fleet.pools.now))
        match command:
            case p.Place(request=request):
                return engine.place(state.request(request, None))
            case p.PlaceCandidates(request=request, candidates=candidates):
                return engine.place_candidates(state.request(request, None), msgspec.to_builtins(candidates))
            case p.Hold(request=request, expires_in=seconds):
                decision = engine.place(state.request(request, None))
                self._holds.add((each.instance_uuid for each in decision.selections), self._now + seconds)
                return decision
            case p.ConfirmHold(uuids=uuids):
                return self._confirm(uuids)
            case p.PlaceMany(requests=requests):
                return list(engine.place_many([state.request(request, None) for request in requests]))
            case p.Release(uuids=uuids):
                self._holds.end(uuids)
                return engine.release(uuids)
            case p.Move(uuid=uuid) | p.Resize(uuid=uuid) | p.BeginMove(uuid=uuid):
                given = guests.again(state, uuid, command.request, command.changes)
                return self._move(command, given or state.asked_of(uuid))
            case p.SetPolicy():
                raise InvalidValue("another policy is given beside the commands", field="policy")
        return edit(engine, command, self._now)

    def _move(self, command: p.Move | p.Resize | p.BeginMove, asked: p.Asked) -> Decision:
        engine = self._engine
        consumer = engine.fleet.consumer(command.uuid)
        asked = msgspec.structs.replace(asked, project_id=consumer.project_id, user_id=consumer.user_id)
        request = self._state.request(asked, None)
        match command:
            case p.BeginMove(uuid=uuid, kind=kind):
                return engine.begin_move(uuid, request, kind=kind)
            case p.Move(uuid=uuid):
                return engine.move(uuid, request)
            case p.Resize(uuid=uuid):
                return engine.resize(uuid, request)

    def _confirm(self, uuids: Sequence[str]) -> int:
        for uuid in uuids:
            self._engine.fleet.consumer_id(uuid, field="uuids")
            if uuid not in self._holds:
                raise InvalidValue(f"instance {uuid} is not held", field="uuids")
        return self._holds.end(uuids)
