"""Commands on many guests or volumes, in steps of about a millisecond: all or none of them, and the same as at once.

All that may refuse such a command is looked at first, which changes nothing. Only then are the objects changed, some at
a time, and the state between two steps is that after a command on those so far. A command that is to be refused is
carried out in one step, which says why.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from ...placement.decide.in_steps import is_long
from ...placement.types.errors import HostlerError, InvalidValue
from ..engine_commands import (
    AddHosts,
    ConfirmHold,
    Hold,
    Place,
    PlaceCandidates,
    PlaceMany,
    Release,
    ReportHosts,
    Spawned,
)
from ..errors import StateUnknown
from ..lifecycle_commands import ReportBackend, ReportPools, SetBackend
from ..storage_commands import (
    DeleteVolumeBackups,
    DeleteVolumes,
    DeleteVolumeSnapshots,
    PlaceVolumeGroup,
    ReportVolumeBackends,
    SetVolumeBackend,
)
from ..tenancy.commands import CreatePool, DeletePool, SetPoolHosts
from . import added_hosts, backend_changes, guests, host_reports, offered_candidates, placing, storage_backends, volumes
from .destinations import are_new
from .orders import INSTANCES_BY_TYPE, SelectDestinations
from .state import ServiceState
from .storage_changes import change_storage
from .tenant_changes import change_tenants

GUESTS: Final = 1_000
"""Guests that are released, confirmed or spawned in one step."""
POOL_HOSTS: Final = 8
"""Hosts that are put into a pool, or taken out of it, in one step."""
VOLUMES: Final = 64
"""Volumes, snapshots and backups, those that go with them included, that are deleted in one step."""
LOOKED_AT: Final = 2_000
"""Names that are looked up in one step."""

Steps = Generator[None, None, Any]
_Many = Release | Spawned | ConfirmHold | DeleteVolumes | DeleteVolumeSnapshots | DeleteVolumeBackups


def pieces(names: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Names, at most so many at a time."""
    return (names[first : first + most] for first in range(0, len(names), most))


def in_pieces(do: Callable[[Sequence[str]], object], names: Sequence[str]) -> Steps:
    """Do something with names, LOOKED_AT in a step."""
    for number, some in enumerate(pieces(names, LOOKED_AT)):
        if number:
            yield
        do(some)


def in_steps(state: ServiceState, command: object, now: float, rules: int) -> Steps | None:
    """The steps of a command on many objects that will not be refused; None for one that is carried out at once. What
    the user may do has been checked. ``rules``: revision of those that the command was given under."""
    match command:
        case AddHosts():
            return added_hosts.add_hosts(state, command, checked=rules > 0)
        case PlaceMany(requests=requests):
            return placing.place_many(state, requests, now)
        case PlaceCandidates():
            return offered_candidates.place_candidates(state, command, now)
        case Place(request=request) if is_long(request):
            return placing.place_one_in_steps(state, request, now)
        case Hold():
            return guests.hold(state, command, now)
        case SelectDestinations(request=request) if is_long(request):
            return placing.place_one_in_steps(state, request, now) if are_new(state, request, now) else None
        case Release(uuids=uuids) if len(uuids) > GUESTS:
            # Before, the consumer of a move's source could be named beside its guest.
            if state.fleet._consumers.moves and state.rules < INSTANCES_BY_TYPE:
                return None
            return _of_guests(state, command)
        case Spawned(uuids=uuids) | ConfirmHold(uuids=uuids) if len(uuids) > GUESTS:
            return _of_guests(state, command)
        case DeleteVolumes() | DeleteVolumeSnapshots() | DeleteVolumeBackups() if len(command.uuids) > VOLUMES:
            return _of_volumes(state, command, now)
        case ReportHosts():
            return host_reports.report_hosts(state, command, now)
        case ReportVolumeBackends():
            return storage_backends.report(state, command, now)
        case SetVolumeBackend():
            return storage_backends.set_backend(state, command)
        case SetBackend() | ReportBackend() | ReportPools():
            return backend_changes.change(state, command, now)
        case PlaceVolumeGroup():
            return volumes.place_group(state, command, now)
        case CreatePool() | SetPoolHosts() | DeletePool():
            return _of_pool(state, command, now)
        case DeleteVolumes(uuids=uuids, cascade=True):
            records = state.volumes.volumes
            if sum(1 + len(records[uuid].snapshots) for uuid in uuids if uuid in records) > VOLUMES:
                return _of_volumes(state, command, now)
    return None


def _of_guests(state: ServiceState, command: Release | Spawned | ConfirmHold) -> Steps:
    known = yield from _guests_known(state, command)
    total, names = 0, command.uuids
    for some in pieces(names, GUESTS) if known else (names,):
        total += _carried_out(state, command, some, 0.0) or 0
        yield
    return None if isinstance(command, Spawned) else total


def _guests_known(state: ServiceState, command: Release | Spawned | ConfirmHold) -> Generator[None, None, bool]:
    """True if each guest is there, once, and as the command wants it."""
    found = []
    for some in pieces(command.uuids, LOOKED_AT):
        try:
            ids = state.fleet._consumers.find(some)
        except InvalidValue:
            return False
        if ids.min() < 0 or (isinstance(command, ConfirmHold) and not all(uuid in state.holds for uuid in some)):
            return False
        if isinstance(command, Release) and command.claim:
            claims = state.requests.claims
            if not all(claims.get(uuid) == command.claim for uuid in some):
                return False
        found.append(ids)
        yield
    ids = np.concatenate(found)
    return len(np.unique(ids)) == len(ids)


def _of_pool(state: ServiceState, command: CreatePool | SetPoolHosts | DeletePool, now: float) -> Steps | None:
    """The steps of a command on the hosts of a pool; None where there are few, or it is refused."""
    match command:
        case CreatePool(hosts=added):
            removed: Sequence[str] = ()
        case SetPoolHosts(add=added, remove=removed):
            pass
        case _:
            added, removed = (), state.pools.hosts(state.fleet, command.id) if command.id in state.pools.pools else ()
    refused = (command.id in state.pools.pools) == isinstance(command, CreatePool)
    find = state.fleet._names.find
    if refused or len(added) + len(removed) <= POOL_HOSTS or any(find(name) < 0 for name in (*added, *removed)):
        return None
    return _with_hosts(state, command, added, removed, now)


def _with_hosts(
    state: ServiceState,
    command: CreatePool | SetPoolHosts | DeletePool,
    added: Sequence[str],
    removed: Sequence[str],
    now: float,
) -> Steps:
    parts: list[CreatePool | SetPoolHosts | DeletePool] = []
    if isinstance(command, CreatePool):
        parts.append(msgspec.structs.replace(command, hosts=()))
    parts += [SetPoolHosts(id=command.id, add=tuple(some)) for some in pieces(added, POOL_HOSTS)]
    parts += [SetPoolHosts(id=command.id, remove=tuple(some)) for some in pieces(removed, POOL_HOSTS)]
    if isinstance(command, DeletePool):
        parts.append(command)
    for number, part in enumerate(parts):
        if number:
            yield
        try:
            change_tenants(state, part, now, state.rules)
        except HostlerError as error:
            if not number:
                raise
            raise StateUnknown(f"{type(command).__name__} was refused half-way: {error}") from error


def _of_volumes(
    state: ServiceState, command: DeleteVolumes | DeleteVolumeSnapshots | DeleteVolumeBackups, now: float
) -> Steps:
    known = yield from _volumes_known(state, command)
    total = 0
    for some in _weighed(state, command) if known else (command.uuids,):
        total += _carried_out(state, command, some, now)
        yield
    return total


def _volumes_known(
    state: ServiceState, command: DeleteVolumes | DeleteVolumeSnapshots | DeleteVolumeBackups
) -> Generator[None, None, bool]:
    """True if each object is there, once, and may be deleted."""
    records, lives, pools = state.volumes, state.lives.volumes, state.storage.pools.volumes
    seen = set[str]()
    for some in pieces(command.uuids, LOOKED_AT):
        before = len(seen)
        seen.update(some)
        if len(seen) < before + len(some):
            return False
        match command:
            case DeleteVolumes(cascade=cascade):
                for uuid in some:
                    volume, life = records.volumes.get(uuid), lives.get(uuid)
                    if volume is None or uuid not in pools or (life is not None and life.guest):
                        return False
                    if volume.snapshots and not cascade:
                        return False
            case DeleteVolumeSnapshots():
                if not all(uuid in records.snapshots for uuid in some):
                    return False
            case _:
                if not all(uuid in records.backups for uuid in some):
                    return False
        yield
    return True


def _weighed(
    state: ServiceState, command: DeleteVolumes | DeleteVolumeSnapshots | DeleteVolumeBackups
) -> Iterator[Sequence[str]]:
    """The objects, so many at a time that a step deletes about VOLUMES."""
    if not isinstance(command, DeleteVolumes):
        yield from pieces(command.uuids, VOLUMES)
        return
    rest, records = iter(command.uuids), state.volumes.volumes
    some: list[str] = []
    weight = 0
    for uuid in rest:
        some.append(uuid)
        weight += 1 + len(records[uuid].snapshots)
        if weight >= VOLUMES:
            yield some
            some, weight = [], 0
    if some:
        yield some


def _carried_out(state: ServiceState, command: _Many, uuids: Sequence[str], now: float) -> Any:
    """The command on some of its objects. StateUnknown where it is refused when others are done already."""
    part = len(uuids) < len(command.uuids)
    try:
        match command:
            case Release(claim=claim):
                return guests.release(state, uuids, claim)
            case Spawned():
                return state.engine.spawned(uuids)
            case ConfirmHold():
                return guests.confirm_hold(state, uuids)
        return change_storage(state, msgspec.structs.replace(command, uuids=tuple(uuids)), now)
    except HostlerError as error:
        if part:
            raise StateUnknown(f"{type(command).__name__} was refused half-way: {error}") from error
        raise
