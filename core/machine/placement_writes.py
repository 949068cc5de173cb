"""Executes the Placement API's writes on the state of the service and counts usage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Final

import msgspec

from ...placement.api import commands as api
from ...placement.api.errors import BadRequest
from ...placement.api.placement_model import PlacementModel
from ...placement.api.providers import found, normal_uuid
from ...placement.fleet.fleet import Fleet
from ...placement.types.errors import UnknownName
from ...placement.types.steps import in_pieces
from .placement_claims import check_claims
from .state import ServiceState

HELD: Final = 30
"""Consumers of which what they hold is summed up in one step."""


class ServiceModel(PlacementModel):
    """The Placement API on the fleet of a service, as its engine sees it at the moment."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state

    @property
    def fleet(self) -> Fleet:  # type: ignore[override]  # the engine may bring another version of it back
        return self._state.engine.fleet


def carry_out(
    state: ServiceState,
    command: api.PlacementCommand,
    rules: int,
    project: str | None,
    written: Callable[[Sequence[str]], object] = lambda _: None,
) -> Generator[None, None, object]:
    """Apply a write, and count what its consumers hold then instead of what they held, in steps. Limits and pools hold
    for users of a ``project``; None is above the tenants, as in OpenStack, where Nova counts and chooses. Hosts stay in
    their pools all the same. ``written`` is called with the consumers, some at a time, once they are as they are to be.
    O(what the command names)."""
    if project is not None:
        yield from check_claims(state, command, project)
    if rules and isinstance(command, api.SetAggregates) and state.pools.pools:
        command = _with_pools(state, command)
    if state.holds:
        command = _taking_over(state, command)
    consumers = consumers_of(command)
    before = yield from _held(state, consumers)
    state.fleet._reclaim.if_due()  # below, a version is held
    with state.fleet._history.undoing():
        try:
            result = yield from PlacementModel(state.engine.fleet).apply_in_steps(command)
            after = yield from _held(state, consumers, written)
        finally:
            state.fleet._entered()  # others may have used other versions since
    state.forget_gone(map(str.lower, consumers))
    for sign, held in ((-1, before), (1, after)):
        for owner, amounts in held.items():
            state.usage.add(state.tenants, owner, amounts, sign)
    return result


def _with_pools(state: ServiceState, command: api.SetAggregates) -> api.SetAggregates:
    """The command with the pools that the provider is in. BadRequest for a pool that it is not in."""
    fleet, pools = state.fleet, {pool.uuid for pool in state.pools.pools.values()}
    name = fleet.name(found(fleet, command.provider))
    mine = [aggregate.uuid for aggregate in state.pool_aggregates(name)]
    given = [normal_uuid(uuid, "aggregates") for uuid in command.aggregates]
    if foreign := sorted(pools.intersection(given).difference(mine)):
        raise BadRequest(f"aggregate {foreign[0]} is a resource pool, which hosts join by the service's own commands")
    return msgspec.structs.replace(command, aggregates=tuple(dict.fromkeys([*given, *mine])))


def _taking_over(state: ServiceState, command: api.PlacementCommand) -> api.PlacementCommand:
    """The command for whose client a held guest is a new consumer: what it holds is replaced by what is claimed.
    O(consumers)."""
    if not isinstance(command, api.SetAllocations):
        return command
    taken = {
        uuid: msgspec.structs.replace(given, generation=msgspec.UNSET)
        for uuid, given in command.consumers.items()
        if given.generation is None and given.allocations and uuid.lower() in state.holds
    }
    return msgspec.structs.replace(command, consumers=command.consumers | taken) if taken else command


def consumers_of(command: api.PlacementCommand) -> list[str]:
    """Uuids of the consumers whose allocations a command may change."""
    match command:
        case api.SetAllocations(consumers=consumers) | api.Reshape(consumers=consumers):
            return list(consumers)
        case api.DeleteAllocations(consumer=consumer):
            return [consumer]
    return []


def _held(
    state: ServiceState, consumers: Sequence[str], looked_at: Callable[[Sequence[str]], object] = lambda _: None
) -> Generator[None, None, dict[str, Counter[str]]]:
    """What consumers hold, by project."""
    held: dict[str, Counter[str]] = {}
    for number, some in enumerate(in_pieces(consumers, HELD)):
        if number:
            yield
        for uuid in some:
            try:
                project, amounts = state.holding(uuid)
            except UnknownName:
                continue
            held.setdefault(project, Counter()).update(amounts)
        looked_at(some)
    return held
