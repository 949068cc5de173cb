"""Allocations through the API: all of a consumer's are replaced at once, several consumers all or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from ...ext.constants import NOT_INSTANCE, REPORTED, UNCOUNTED
from ...ext.tables import format_uuid, parse_uuid
from ..fleet.change_log import Rows, rows_array
from ..fleet.consumers import Detail, Extras, Note
from ..fleet.custom_names import Vacant
from ..fleet.fleet import Fleet
from ..types.errors import InvalidValue
from ..types.validation import check_text, whole_number
from . import commands as c
from .answers import ConsumerView, ProviderAllocations
from .errors import BadRequest, Conflict, NotFound, changed_meanwhile
from .names import check_known_classes, class_rank
from .providers import find, found, generation, normal_uuid

Held = dict[int, dict[int, int]]
"""What a consumer holds: row -> resource class index -> amount."""

INSTANCE: Final = "INSTANCE"
MIGRATION: Final = "MIGRATION"
"""Types that Nova gives its consumers; others are those of other services."""
INCOMPLETE: Final = "00000000-0000-0000-0000-000000000000"
"""Project and user of a consumer without one (Placement 15: incomplete_consumer_project_id, its default)."""

ANY_AMOUNT: Final = pow(10, 4_300)  # not as a literal, which mypy before 2 cannot write into its cache
"""More than a body can hold: how much is too much, an inventory's max_unit says."""


@dataclass(frozen=True, slots=True)
class Writing:
    """One consumer of a write, checked: ``consumer`` is its id, -1 if it has no allocations now."""

    uuid: str
    consumer: int
    old: Held
    new: Held
    project_id: str
    user_id: str
    note: Note
    flags: int = 0
    """NOT_INSTANCE and UNCOUNTED, as the consumer's type or what it took over says."""


def show_consumer(fleet: Fleet, uuid: str) -> ConsumerView | None:
    """See `PlacementModel.allocations`."""
    uuid = normal_uuid(uuid, "consumer_uuid")
    consumer = find_consumer(fleet, uuid)
    if consumer < 0:
        vacant = fleet._registry.vacant.get(uuid)
        return None if vacant is None else ConsumerView(allocations={}, **vacant._asdict())
    _, _, _, _, project, user, *_ = fleet._kernel.consumer(consumer)
    note = note_of(fleet, consumer)
    allocations = {
        fleet.uuid(row): (_named(fleet, amounts), generation(fleet, row))
        for row, amounts in sorted(held_by(fleet, consumer).items())
    }
    return ConsumerView(
        allocations=allocations,
        project_id=fleet._projects[project] or INCOMPLETE,
        user_id=fleet._users[user] or INCOMPLETE,
        generation=note.generation,
        consumer_type=note.consumer_type,
        updated=note.updated or None,
    )


def show_provider(fleet: Fleet, uuid: str) -> ProviderAllocations:
    """See `PlacementModel.provider_allocations`."""
    row = found(fleet, uuid)
    consumers = {*fleet._kernel.consumers_on(row), *fleet._consumers.elsewhere.get(row, ())}
    allocations, newest = {}, 0.0
    for consumer in sorted(consumers):
        amounts = held_by(fleet, consumer).get(row)
        if amounts:
            high, low, *_ = fleet._kernel.consumer(consumer)
            note = note_of(fleet, consumer)
            allocations[format_uuid(high, low)] = (_named(fleet, amounts), note.generation)
            newest = max(newest, note.updated)
    return ProviderAllocations(generation=generation(fleet, row), allocations=allocations, updated=newest or None)


def set_allocations(fleet: Fleet, command: c.SetAllocations) -> None:
    """See `commands.SetAllocations`."""
    write(fleet, command.consumers, command.now, infer_types=command.infer_types)


def delete_allocations(fleet: Fleet, command: c.DeleteAllocations) -> None:
    """See `commands.DeleteAllocations`."""
    consumer = find_consumer(fleet, normal_uuid(command.consumer, "consumer_uuid"))
    if consumer < 0:
        raise NotFound(f"No allocations for consumer '{command.consumer}'", field="consumer_uuid")
    before = _generations(fleet, held_by(fleet, consumer))
    fleet.release([consumer])
    _move_generations(fleet, before, {}, command.now)


def inspect(fleet: Fleet, consumers: Mapping[str, c.ConsumerAllocations]) -> dict[str, c.ConsumerAllocations]:
    """The consumers by their uuids as they are kept. Conflict for another generation of one, then BadRequest for a
    provider that is not there: each rule for all of them before the next, so that the error met first is Placement's.
    """
    asked = _by_uuid(consumers)
    for uuid, one in asked.items():
        _check_consumer_generation(fleet, uuid, one.generation)
    for one in asked.values():
        _rows(fleet, one.allocations)
    return asked


def write(fleet: Fleet, consumers: Mapping[str, c.ConsumerAllocations], now: float, *, infer_types: bool) -> set[int]:
    """Replace the allocations of each consumer; returns the rows whose generation moved by one. Errors as
    SetAllocations, within a transaction of the caller's. O(allocations)."""
    writings = [_writing(fleet, uuid, one, now) for uuid, one in inspect(fleet, consumers).items()]
    if infer_types:
        writings = _typed(fleet, writings)
    else:
        writings = [replace(each, flags=_flags_of(each.note.consumer_type)) for each in writings]
    _check_capacity(fleet, writings)
    rows = {row for writing in writings for row in (*writing.old, *writing.new)}
    moved = {row for writing in writings for row in (writing.new or writing.old)}
    before = _generations(fleet, rows)
    kept = {writing.uuid: _kept(fleet, writing) for writing in writings}
    leaving = [writing.consumer for writing in writings if writing.consumer >= 0]
    reported = [_reported(fleet, writing.uuid) for writing in writings if writing.new]
    fleet.release([*leaving, *(consumer for consumer in reported if consumer >= 0)])
    for writing in writings:
        _enter(fleet, writing, kept[writing.uuid])
    _move_generations(fleet, before, dict.fromkeys(moved, 1), now)
    return moved


# what is there


def find_consumer(fleet: Fleet, uuid: str) -> int:
    """Dense id of a consumer that holds allocations, -1 if there is none. O(1)."""
    consumer = fleet._kernel.consumers.get(uuid)
    return -1 if consumer >= 0 and fleet._kernel.consumer(consumer)[7] & REPORTED else consumer


def held_by(fleet: Fleet, consumer: int) -> Held:
    """What a consumer holds, everywhere. O(its allocations)."""
    _, _, row, shape, *_ = fleet._kernel.consumer(consumer)
    held: Held = {}
    if shape >= 0:
        classes, amounts, *_ = fleet._kernel.shape(shape)
        if classes:
            held[row] = dict(zip(classes, amounts, strict=True))
    extras = fleet._extras.get(consumer)
    for other, resource, amount in () if extras is None else extras.elsewhere:
        mine = held.setdefault(other, {})
        mine[resource] = mine.get(resource, 0) + amount
    return held


def note_of(fleet: Fleet, consumer: int) -> Note:
    """Generation, type and time of a consumer; one that the engine placed, or a host reports, is an instance at 1.
    O(1)."""
    note = fleet._consumers.notes.get(consumer)
    return note if note is not None else Note(int(fleet._kernel.consumer(consumer)[8]), INSTANCE, 0.0)


def _reported(fleet: Fleet, uuid: str) -> int:
    """Dense id of a consumer that a host reports without an allocation, -1 if there is none."""
    consumer = fleet._kernel.consumers.get(uuid)
    return consumer if consumer >= 0 and fleet._kernel.consumer(consumer)[7] & REPORTED else -1


def _named(fleet: Fleet, amounts: Mapping[int, int]) -> dict[str, int]:
    names = sorted(((fleet.resource_classes[index], amount) for index, amount in amounts.items()))
    return dict(sorted(names, key=lambda pair: class_rank(fleet, pair[0])))


# what is asked


def _by_uuid(consumers: Mapping[str, c.ConsumerAllocations]) -> dict[str, c.ConsumerAllocations]:
    asked = {normal_uuid(uuid, "consumer_uuid"): one for uuid, one in consumers.items()}
    if len(asked) < len(consumers):
        raise BadRequest("A consumer is named twice", field="consumer_uuid")
    return asked


def _known(fleet: Fleet, uuid: str) -> Note | Vacant | None:
    """What is known of a consumer, None if nothing. O(1)."""
    consumer = find_consumer(fleet, uuid)
    return note_of(fleet, consumer) if consumer >= 0 else fleet._registry.vacant.get(uuid)


def _check_consumer_generation(fleet: Fleet, uuid: str, given: int | UnsetType | None) -> None:
    known = _known(fleet, uuid)
    present = None if known is None else known.generation
    if given is not UNSET and given != present:
        expected, got = ("null" if value is None else value for value in (present, given))
        raise changed_meanwhile(f"consumer generation conflict - expected {expected} but got {got}, consumer {uuid}")


def _rows(fleet: Fleet, allocations: Mapping[str, Mapping[str, int]]) -> dict[int, Mapping[str, int]]:
    """Resources by row; BadRequest for a provider that is not there, or is named twice."""
    rows: dict[int, Mapping[str, int]] = {}
    for provider, resources in allocations.items():
        row = find(fleet, provider)
        if row < 0:
            raise BadRequest(f"Allocation for resource provider '{provider}' that does not exist.", field="allocations")
        if row in rows:
            raise BadRequest(f"Resource provider '{provider}' is named twice.", field="allocations")
        rows[row] = resources
    return rows


def _writing(fleet: Fleet, uuid: str, asked: c.ConsumerAllocations, now: float) -> Writing:
    consumer, known, consumer_type = find_consumer(fleet, uuid), _known(fleet, uuid), asked.consumer_type
    if isinstance(consumer_type, UnsetType):
        consumer_type = None if known is None else known.consumer_type
    new = {row: _amounts(fleet, resources) for row, resources in _rows(fleet, asked.allocations).items()}
    try:
        project_id, user_id = check_text(asked.project_id, "project_id"), check_text(asked.user_id, "user_id")
        consumer_type = None if consumer_type is None else check_text(consumer_type, "consumer_type")
    except InvalidValue as error:
        raise BadRequest(error.args[0], field=error.field) from None
    return Writing(
        uuid=uuid,
        consumer=consumer,
        old=held_by(fleet, consumer) if consumer >= 0 else {},
        new=new,
        project_id=project_id,
        user_id=user_id,
        note=Note((0 if known is None else known.generation) + 1, consumer_type, now),
    )


def _typed(fleet: Fleet, writings: list[Writing]) -> list[Writing]:
    """The writings with what each consumer is. One whose type is not said stays what it was; where, in one write, it
    takes over all that another had, it is the migration of that instance, or the instance of that migration (Nova's
    move_allocations: its clients speak microversions without types). O(allocations)."""
    given = {_frozen(each.old): each for each in writings if each.consumer >= 0 and not each.new}
    found = []
    for each in writings:
        kind, flags = each.note.consumer_type, 0
        if kind is not None:
            flags = _flags_of(kind)
        elif each.new and (giver := given.get(_frozen(each.new))) is not None and giver.uuid != each.uuid:
            flags = NOT_INSTANCE & ~_flags(fleet, giver.consumer)
        elif each.consumer >= 0:
            flags = _flags(fleet, each.consumer) & (NOT_INSTANCE | UNCOUNTED)
        found.append(replace(each, flags=flags))
    return found


def _flags(fleet: Fleet, consumer: int) -> int:
    return int(fleet._kernel.consumer(consumer)[7])


def _frozen(held: Held) -> frozenset[tuple[int, frozenset[tuple[int, int]]]]:
    return frozenset((row, frozenset(amounts.items())) for row, amounts in held.items())


def _amounts(fleet: Fleet, resources: Mapping[str, int]) -> dict[int, int]:
    """Amounts by resource class index. BadRequest for an unknown class, no class at all, or an invalid amount."""
    check_known_classes(fleet, resources)
    if not resources:
        raise BadRequest("No resources of a resource provider are named.", field="allocations")
    try:
        return {
            fleet.resource_class(name, create=True): whole_number(amount, name, least=1, most=ANY_AMOUNT)
            for name, amount in resources.items()
        }
    except InvalidValue as error:
        raise BadRequest(error.args[0], field="allocations") from None


def _check_capacity(fleet: Fleet, writings: list[Writing]) -> None:
    """Placement's rule, once for each provider and class that is written: units of each amount, then the sum. A
    provider over its capacity takes what does not add to its usage."""
    blocks = fleet._store.inventory
    change: dict[tuple[int, int], int] = {}
    asked: dict[tuple[int, int], None] = {}
    for writing in writings:
        for sign, held in ((-1, writing.old), (1, writing.new)):
            for row, amounts in held.items():
                for index, amount in amounts.items():
                    change[row, index] = change.get((row, index), 0) + sign * amount
        for row, amounts in writing.new.items():
            for index, amount in amounts.items():
                asked[row, index] = None
                _check_units(fleet, row, index, amount)
    for row, index in asked:
        more = change[row, index]
        if more > 0 and blocks["used"][index, row] + more > blocks["limit"][index, row]:
            raise _refused(fleet, row, index, "The requested amount would exceed the capacity.")


def _check_units(fleet: Fleet, row: int, index: int, amount: int) -> None:
    blocks = fleet._store.inventory
    if not blocks["total"][index, row]:
        name = fleet.resource_classes[index]
        raise Conflict(f"Inventory for '{name}' on resource provider '{fleet.uuid(row)}' invalid.", field="allocations")
    fits = blocks["min_unit"][index, row] <= amount <= blocks["max_unit"][index, row]
    if not fits or amount % int(blocks["step_size"][index, row]):
        raise _refused(fleet, row, index, "The requested amount would violate inventory constraints.")


def _refused(fleet: Fleet, row: int, index: int, why: str) -> Conflict:
    name = fleet.resource_classes[index]
    where = f"Unable to create allocation for '{name}' on resource provider '{fleet.uuid(row)}'."
    return Conflict(f"{where} {why}", field="allocations")


# carrying it out


_NOTHING: Final = Extras()


@dataclass(frozen=True, slots=True)
class _Kept:
    """What stays of a consumer whose allocations are replaced."""

    group: int = -1
    flags: int = 0
    shape: int = -1
    row: int = -1
    extras: Extras = _NOTHING
    properties: Mapping[str, Any] | None = None


def _kept(fleet: Fleet, writing: Writing) -> _Kept:
    consumer = writing.consumer if writing.consumer >= 0 else _reported(fleet, writing.uuid)
    if consumer < 0:
        return _Kept()
    _, _, row, shape, _, _, group, flags, _ = fleet._kernel.consumer(consumer)
    properties = fleet._image_properties.get(consumer)
    return _Kept(group, flags & ~REPORTED, shape, row, fleet._extras.get(consumer, _NOTHING), properties)


def _enter(fleet: Fleet, writing: Writing, kept: _Kept) -> None:
    """Replace the consumer with one that has the new allocations; without any, it is removed, or recorded as vacant if
    it is new."""
    vacant = fleet._registry.vacant
    before = vacant.get(writing.uuid)
    after = None
    if not writing.new and writing.consumer < 0:
        note = writing.note
        stays = 0 if before is None else before.generation
        after = Vacant(writing.project_id, writing.user_id, stays, note.consumer_type, note.updated)
    if before != after:
        _put_vacant(fleet, writing.uuid, before, after)
    if writing.new:
        fleet._consumers.claim(_detail(fleet, writing, kept))


def _detail(fleet: Fleet, writing: Writing, kept: _Kept) -> Detail:
    row = _home(fleet, writing.new, kept.row)
    resources = writing.new[row]
    elsewhere = tuple(
        (other, index, amount)
        for other, amounts in sorted(writing.new.items())
        if other != row
        for index, amount in sorted(amounts.items())
    )
    stays = kept.row == row
    extras = replace(kept.extras, elsewhere=elsewhere) if stays else Extras(elsewhere)
    words = parse_uuid(writing.uuid)
    flags = kept.flags & ~(NOT_INSTANCE | UNCOUNTED) | writing.flags
    return Detail(
        words,
        row,
        kept.shape if stays and writing.old.get(row) == resources else _shape(fleet, row, resources, kept, stays),
        fleet._projects.id(writing.project_id),
        fleet._users.id(writing.user_id),
        kept.group,
        flags,
        extras if extras != _NOTHING else None,
        kept.properties,
        writing.note,
    )


def _flags_of(consumer_type: str | None) -> int:
    """What a consumer's type says of it: a migration holds the source of an instance's move, which the instance itself
    is counted for; a volume or the like takes nothing of what compute hosts report."""
    if consumer_type == MIGRATION:
        return NOT_INSTANCE
    return 0 if consumer_type in (None, INSTANCE) else NOT_INSTANCE | UNCOUNTED


def _home(fleet: Fleet, held: Held, present: int) -> int:
    """The row that a consumer is on: where it is, else the first compute host among its providers, else the first."""
    if present in held:
        return present
    is_host = fleet._change_log.is_host()
    class_of = fleet._store.row["class_of"]
    return min(held, key=lambda row: (not is_host[class_of[row]], row))


def _shape(fleet: Fleet, row: int, resources: Mapping[int, int], kept: _Kept, stays: bool) -> int:
    """What it takes; of a compute host's figures as Nova counts them, unless the host has reported them itself."""
    if not fleet._host_class(row).is_host or (stays and kept.shape < 0):
        return fleet._shape(resources, 0, 0, 0)
    amount = {fleet.resource_classes[index]: amount for index, amount in resources.items()}
    vcpus = amount.get("VCPU", 0) + amount.get("PCPU", 0)
    return fleet._shape(resources, vcpus, amount.get("MEMORY_MB", 0), 1024 * amount.get("DISK_GB", 0))


def _put_vacant(fleet: Fleet, uuid: str, before: Vacant | None, after: Vacant | None) -> None:
    def put(value: Vacant | None) -> None:
        if value is None:
            fleet._registry.vacant.pop(uuid, None)
        else:
            fleet._registry.vacant[uuid] = value

    fleet._change_log.make(partial(put, after), partial(put, before))


def _generations(fleet: Fleet, rows: Iterable[int]) -> tuple[Rows, NDArray[np.int64]]:
    listed = rows_array(*sorted(rows))
    return listed, fleet._store.row["generation"][listed]


def _move_generations(
    fleet: Fleet, before: tuple[Rows, NDArray[np.int64]], more: Mapping[int, int], now: float
) -> None:
    """Rows are at their generations of before, and as much beyond as ``more`` says."""
    rows, values = before
    steps = np.array([more.get(row, 0) for row in rows.tolist()], np.int64)
    times = np.where(steps > 0, now, fleet._store.row["updated"][rows])
    fleet._change_log.set_generations(rows, values + steps, times)
