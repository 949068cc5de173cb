"""What a user of one project may claim through the Placement API: within its limits and resource pools, and for itself.

Nova and the other services, and admins, are above that: ``PlacementWrite.project`` is None for theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Final

from ...placement.api import commands as api
from ...placement.api.providers import normal_uuid
from ...placement.filters.resource_pools import EXCLUSIVE
from ...placement.types.errors import HostlerError, UnknownName
from ..tenancy.errors import NotAllowed
from ..tenancy.usage import INSTANCES
from .state import ServiceState

LOOKED_AT: Final = 50
"""Consumers, or providers, that are looked at in one step."""


def check_claims(state: ServiceState, command: api.PlacementCommand, project: str) -> Generator[None, None, None]:
    """NotAllowed or QuotaExceeded unless the consumers that a write names are, and will be, guests of a project, within
    the limits and on hosts of the pools that a placement of it would be held to. O(what the command names)."""
    match command:
        case api.DeleteAllocations(consumer=consumer):
            _held(state, consumer, project)
        case api.SetAllocations(consumers=consumers) | api.Reshape(consumers=consumers):
            yield from _check_limits(state, consumers, project)
            yield from _check_pools(state, consumers, project)


def _check_limits(
    state: ServiceState, consumers: dict[str, api.ConsumerAllocations], project: str
) -> Generator[None, None, None]:
    """What the consumers hold already is theirs to replace."""
    total = Counter[str]()
    for number, (uuid, given) in enumerate(consumers.items(), 1):
        if number % LOOKED_AT == 0:
            yield
        if given.project_id != project:
            raise NotAllowed("claims are for the project of the token", field="project_id")
        total.subtract(_held(state, uuid, project))
        if given.allocations:
            total[INSTANCES] += 1
        for resources in given.allocations.values():
            total.update(resources)
    state.usage.check(state.tenants, project, {name: amount for name, amount in total.items() if amount > 0})


def _held(state: ServiceState, uuid: str, project: str) -> dict[str, int]:
    """What a consumer of the project holds; nothing if there is no such consumer. NotAllowed for another project's."""
    try:
        owner, amounts = state.holding(normal_uuid(uuid, "consumer"))
    except UnknownName:
        return {}
    if owner != project:
        raise NotAllowed(f"consumer {uuid} is not of the project of the token", field="consumer")
    return amounts


def _check_pools(
    state: ServiceState, consumers: dict[str, api.ConsumerAllocations], project: str
) -> Generator[None, None, None]:
    if not state.pools.pools:
        return
    fleet, granted = state.fleet, state.pools.granted(state.tenants, project)
    providers = {uuid: None for given in consumers.values() for uuid in given.allocations}
    for number, provider in enumerate(providers, 1):
        if number % LOOKED_AT == 0:
            yield
        try:
            row = fleet.row_of_uuid(provider)
        except HostlerError:
            continue  # the model refuses it
        root = int(fleet._store.row["root"][row])
        aggregates = [fleet.aggregates[index] for index in fleet._host_class(root).aggregates]
        if granted:
            allowed = any(aggregate.uuid in granted for aggregate in aggregates)
        else:
            allowed = not any(EXCLUSIVE in aggregate.metadata for aggregate in aggregates)
        if not allowed:
            problem = f"provider {provider} is in no resource pool that the project of the token may use"
            raise NotAllowed(problem, field="allocations")
