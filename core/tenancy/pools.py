"""Resource pools: named sets of hosts, granted to domains and projects. The engine sees them as aggregates."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np

from ...placement.filters.resource_pools import EXCLUSIVE
from ...placement.fleet.fleet import Fleet
from ...placement.types.errors import DuplicateName, InvalidValue, UnknownName
from ...placement.types.host import Aggregate
from .commands import CreatePool, DeletePool, GrantPool, SetPoolHosts, UngrantPool
from .tenants import CLOUD, Tenants

_NAMESPACE: Final = uuid.UUID("7b0d1a52-6a3b-4f0e-9d0c-2f7a35a4be21")


class Pool(msgspec.Struct):
    """A pool: the uuid of its aggregate, and the scopes that it is granted to."""

    uuid: str
    exclusive: bool
    scopes: list[str] = []


class Pools(msgspec.Struct):
    """All pools by id. The fleet stores which hosts are in a pool."""

    pools: dict[str, Pool] = {}
    made: int = 0

    def granted(self, tenants: Tenants, project: str) -> tuple[str, ...]:
        """Uuids of the pools that a project is granted, itself or through what it lies in, in a fixed order."""
        if not self.pools:
            return ()
        scopes = set(tenants.above(f"project:{project}"))
        return tuple(sorted(pool.uuid for pool in self.pools.values() if not scopes.isdisjoint(pool.scopes)))

    def hosts(self, fleet: Fleet, name: str) -> list[str]:
        """Node names of a pool's hosts, in row order. O(rows), in columns."""
        pool, class_of = self._pool(name), fleet._store.row["class_of"][: fleet.rows]
        _, firsts, of_row = np.unique(class_of, return_index=True, return_inverse=True)
        inside = [
            any(fleet.aggregates[index].uuid == pool.uuid for index in fleet._host_class(row).aggregates)
            for row in firsts.tolist()
        ]
        return [fleet.name(row) for row in np.flatnonzero(np.array(inside, np.bool_)[of_row]).tolist()]

    def create(self, fleet: Fleet, command: CreatePool) -> None:
        if command.id in self.pools:
            raise DuplicateName(f"pool {command.id} exists", field="id")
        rows = [fleet.row(name, field="hosts") for name in command.hosts]
        self.made += 1
        pool = Pool(str(uuid.uuid5(_NAMESPACE, f"{self.made}/{command.id}")), command.exclusive)
        metadata = {EXCLUSIVE: "true"} if pool.exclusive else {}
        fleet._aggregate_ids([Aggregate(uuid=pool.uuid, name=f"pool {command.id}", metadata=metadata)])
        self.pools[command.id] = pool
        for row in rows:
            _join(fleet, row, pool.uuid)

    def delete(self, fleet: Fleet, command: DeletePool) -> None:
        pool = self._pool(command.id)
        for name in self.hosts(fleet, command.id):
            _leave(fleet, fleet.row(name), pool.uuid)
        fleet.remove_aggregate(pool.uuid)
        del self.pools[command.id]

    def set_hosts(self, fleet: Fleet, command: SetPoolHosts) -> None:
        pool = self._pool(command.id)
        joining = [fleet.row(name, field="add") for name in command.add]
        leaving = [fleet.row(name, field="remove") for name in command.remove]
        for row in joining:
            _join(fleet, row, pool.uuid)
        for row in leaving:
            _leave(fleet, row, pool.uuid)

    def grant(self, tenants: Tenants, command: GrantPool) -> None:
        pool = self._pool(command.id)
        tenants.check_scope(command.scope)
        if command.scope == CLOUD:
            raise InvalidValue("a pool is granted to domains and projects", field="scope")
        if command.scope not in pool.scopes:
            pool.scopes.append(command.scope)

    def ungrant(self, command: UngrantPool) -> None:
        pool = self._pool(command.id)
        if command.scope not in pool.scopes:
            raise UnknownName(f"pool {command.id} is not granted to {command.scope}", field="scope")
        pool.scopes.remove(command.scope)

    def forget_scope(self, scope: str) -> None:
        """Remove the grants of a deleted domain or project."""
        for pool in self.pools.values():
            pool.scopes = [each for each in pool.scopes if each != scope]

    def _pool(self, name: str) -> Pool:
        if name not in self.pools:
            raise UnknownName.among("pool", name, self.pools, field="id")
        return self.pools[name]


def _join(fleet: Fleet, row: int, aggregate: str) -> None:
    known = _aggregates(fleet, row)
    if all(each.uuid != aggregate for each in known):
        fleet.set_aggregates(fleet.name(row), [*known, fleet.aggregate(aggregate)])


def _leave(fleet: Fleet, row: int, aggregate: str) -> None:
    fleet.set_aggregates(fleet.name(row), [each for each in _aggregates(fleet, row) if each.uuid != aggregate])


def _aggregates(fleet: Fleet, row: int) -> Iterable[Aggregate]:
    return [fleet.aggregates[index] for index in fleet._host_class(row).aggregates]
