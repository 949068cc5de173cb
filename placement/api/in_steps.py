"""Writes of allocations of many consumers carried out some at a time, with the outcome that they have together.

Each part is a write of its own, and what is refused is undone; the caller then has it carried out at once, which says
why. Consumers of which one takes over what another had, and providers between which allocations move, are in one part.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Final

import msgspec

from ..fleet.change_log import rows_array
from ..fleet.fleet import Fleet
from ..types.disjoint_sets import DisjointSets
from . import commands as c
from .allocations import Held, find_consumer, held_by, inspect, write
from .errors import BadRequest
from .inventories import check_classes
from .providers import find, normal_uuid
from .reshaper import checked, reshape

FEW: Final = 12
"""Consumers that are written in about a millisecond."""
PROVIDERS: Final = 2
"""Providers whose inventories are replaced in about a millisecond."""
LOOKED_AT: Final = 250
"""Consumers that are looked up in one step."""

Consumers = dict[str, c.ConsumerAllocations]
Steps = Generator[None, None, None]
_Held = frozenset[tuple[str, frozenset[tuple[str, int]]]]


def write_in_steps(fleet: Fleet, command: c.PlacementCommand) -> Steps | None:
    """The steps of a write of many consumers, between which others may read the fleet, and change forks of it; None for
    any other command. Within a transaction of the caller's. HostlerError, with part of it done, if it is refused."""
    match command:
        case c.SetAllocations(consumers=consumers) if len(consumers) > FEW:
            return _set_allocations(fleet, command)
        case c.Reshape(consumers=consumers) if len(consumers) + len(command.providers) > PROVIDERS:
            return _reshape(fleet, command)
    return None


def _set_allocations(fleet: Fleet, command: c.SetAllocations) -> Steps:
    yield from _check_uuids(command.consumers)
    kept = (yield from _pairs(fleet, command.consumers)) if command.infer_types else []
    moved = set[int]()
    for part in (*kept, *_pieces(command.consumers, kept)):
        rows = write(fleet, part, command.now, infer_types=command.infer_types)
        _move_back(fleet, rows & moved)
        moved |= rows
        yield


def _check_uuids(consumers: Mapping[str, object]) -> Steps:
    """BadRequest for a consumer that is named twice."""
    seen = set[str]()
    for number, uuid in enumerate(consumers, 1):
        seen.add(normal_uuid(uuid, "consumer_uuid"))
        if number % LOOKED_AT == 0:
            yield
    if len(seen) < len(consumers):
        raise BadRequest("A consumer is named twice", field="consumer_uuid")


def _pairs(fleet: Fleet, consumers: Consumers) -> Generator[None, None, list[Consumers]]:
    """Consumers that give all that they have, with those that ask for just as much on the same providers."""
    given: dict[_Held, Consumers] = {}
    for number, (uuid, one) in enumerate(consumers.items(), 1):
        if number % LOOKED_AT == 0:
            yield
        if not one.allocations and (held := _held(fleet, uuid)):
            given.setdefault(_by_name(fleet, held), {})[uuid] = one
    found: dict[_Held, Consumers] = {}
    for number, (uuid, one) in enumerate(consumers.items() if given else (), 1):
        if number % LOOKED_AT == 0:
            yield
        asked = _asked(one.allocations) if one.allocations else None
        if asked in given:
            found.setdefault(asked, dict(given[asked]))[uuid] = one
    return list(found.values())


def _held(fleet: Fleet, uuid: str) -> Held:
    consumer = find_consumer(fleet, normal_uuid(uuid, "consumer_uuid"))
    return held_by(fleet, consumer) if consumer >= 0 else {}


def _by_name(fleet: Fleet, held: Held) -> _Held:
    return frozenset(
        (fleet.uuid(row), frozenset((fleet.resource_classes[index], amount) for index, amount in amounts.items()))
        for row, amounts in held.items()
    )


def _asked(allocations: Mapping[str, Mapping[str, int]]) -> _Held:
    return frozenset(
        (normal_uuid(provider, "allocations"), frozenset(amounts.items())) for provider, amounts in allocations.items()
    )


def _pieces(consumers: Consumers, without: list[Consumers]) -> Iterator[Consumers]:
    """Consumers, FEW at a time, but for those of some parts."""
    done = {uuid for part in without for uuid in part}
    part: Consumers = {}
    for uuid, one in consumers.items():
        if uuid not in done:
            part[uuid] = one
        if len(part) == FEW:
            yield part
            part = {}
    if part:
        yield part


def _move_back(fleet: Fleet, rows: set[int]) -> None:
    """The generation of a provider moves once in a write, however many of its parts concern it."""
    if rows:
        listed = rows_array(*sorted(rows))
        columns = fleet._store.row
        fleet._change_log.set_generations(listed, columns["generation"][listed] - 1, columns["updated"][listed])


# providers between which allocations move


def _reshape(fleet: Fleet, command: c.Reshape) -> Steps:
    yield from _check_uuids(command.consumers)
    rows: dict[str, int] = {}
    for number, (uuid, one) in enumerate(command.providers.items(), 1):
        rows[uuid] = checked(fleet, uuid, one)
        check_classes(fleet, uuid, one.inventories)
        if number % LOOKED_AT == 0:
            yield
    sets = DisjointSets()
    first: dict[str, int] = {}
    for number, (uuid, given) in enumerate(command.consumers.items(), 1):
        inspect(fleet, {uuid: given})
        near = [*_held(fleet, uuid), *(find(fleet, provider) for provider in given.allocations)]
        first[uuid] = near[0] if near else -1
        for row in near:
            sets.join(first[uuid], row)
        if number % LOOKED_AT == 0:
            yield
    # Not before all that is looked at first: classes stay where the write is refused. They come in this order.
    for number, one in enumerate(command.providers.values(), 1):
        for name in one.inventories:
            fleet.resource_class(name, create=True)
        if number % LOOKED_AT == 0:
            yield
    parts: dict[int, c.Reshape] = {}
    for uuid, row in rows.items():
        _part(parts, command, sets.of(row)).providers[uuid] = command.providers[uuid]
    for uuid, row in first.items():
        _part(parts, command, sets.of(row)).consumers[uuid] = command.consumers[uuid]
    yield
    for part in parts.values():
        reshape(fleet, part)
        yield


def _part(parts: dict[int, c.Reshape], command: c.Reshape, key: int) -> c.Reshape:
    known = parts.get(key)
    if known is None:
        known = parts[key] = msgspec.structs.replace(command, providers={}, consumers={})
    return known


__all__ = ["write_in_steps"]
