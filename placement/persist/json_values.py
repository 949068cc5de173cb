"""The parts of a fleet outside its columns as JSON, and back: interned values by id, server groups, and extras of
consumers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from ..fleet.aggregates import NONE
from ..fleet.consumers import Extras, Note
from ..fleet.custom_names import Registry
from ..types.errors import InvalidValue
from ..types.host import Aggregate, PciPool
from ..types.host_classes import HostClass, Interned
from ..types.moves import PendingMove
from .arrays import Arrays

if TYPE_CHECKING:
    from ..fleet.fleet import Fleet

_TEXT: Final = msgspec.json.Encoder(order="deterministic")


class Group(msgspec.Struct, array_like=True):
    """A server group; ``policy`` is the kernel's number. A removed group has no uuid."""

    uuid: str
    policy: int
    at_most: int


class Shape(msgspec.Struct, array_like=True):
    """The resources of a consumer: (class index, amount), vCPUs, MiB, MiB."""

    amounts: tuple[tuple[int, int], ...]
    vcpus: int
    memory_mb: int
    disk_mb: int


class Values(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All values, each list by id; ``extras`` and ``properties_of`` map consumers to values."""

    resource_classes: list[str]
    classes: list[HostClass]
    aggregates: list[Aggregate]
    places: int
    """Length of the list of aggregates, including those that only another version used."""
    stats: list[tuple[tuple[str, str], ...]]
    metrics: list[tuple[tuple[str, int | float], ...]]
    pci: list[tuple[PciPool, ...]]
    projects: list[str]
    users: list[str]
    groups: list[Group]
    removed_groups: list[int]
    shapes: list[Shape]
    extras: list[tuple[int, Extras]]
    properties: list[dict[str, Any]]
    properties_of: list[tuple[int, int]]
    notes: list[tuple[int, Note]] = []
    missing: list[tuple[int, float]] = []
    also_on: list[tuple[int, dict[str, dict[str, Any]]]] = []
    moves: list[PendingMove] = []
    registry: Registry = msgspec.field(default_factory=Registry)


def write_values(fleet: Fleet) -> Arrays:
    """One array with the bytes of a JSON text. InvalidValue for image properties that are not JSON values.
    O(values)."""
    properties, properties_of = _properties(fleet)
    classes, aggregates = _memberships(fleet)
    values = Values(
        resource_classes=fleet.resource_classes,
        classes=classes,
        aggregates=aggregates,
        places=len(fleet.aggregates),
        stats=fleet._stats.values,
        metrics=fleet._metrics.values,
        pci=fleet._pci_states.values,
        projects=fleet._projects.values,
        users=fleet._users.values,
        groups=[Group(uuid, *fleet._kernel.group_policy(index)) for index, uuid in enumerate(fleet._group_uuids)],
        removed_groups=fleet._server_groups.removed,
        shapes=[Shape(*key) for key in fleet._consumers.shapes],
        extras=[(consumer, fleet._extras[consumer]) for consumer in sorted(fleet._extras)],
        properties=properties,
        properties_of=list(properties_of.items()),
        notes=[(consumer, fleet._consumers.notes[consumer]) for consumer in sorted(fleet._consumers.notes)],
        missing=sorted(fleet._consumers.missing.items()),
        also_on=[
            (row, {uuid: dict(known) for uuid, known in held.items()})
            for row, held in sorted(fleet._consumers.also_on.items())
        ],
        moves=[move for _, move in sorted(fleet._consumers.moves.items())],
        registry=fleet._registry,
    )
    return {"values": np.frombuffer(_TEXT.encode(values), np.uint8)}


def _memberships(fleet: Fleet) -> tuple[list[HostClass], list[Aggregate]]:
    """Host classes and aggregates, with the ids of removed aggregates after those that there are: the file names no
    aggregate that there is not."""
    given = len(fleet._aggregate_table)
    there = [index for index, each in enumerate(fleet.aggregates[:given]) if each is not NONE]
    classes = fleet._classes.values
    if len(there) < given:
        rest = sorted(set(range(len(fleet.aggregates))).difference(there))
        numbers = {old: new for new, old in enumerate([*there, *rest])}
        classes = [replace(each, aggregates=tuple(numbers[index] for index in each.aggregates)) for each in classes]
    return classes, [fleet.aggregates[index] for index in there]


def _properties(fleet: Fleet) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """Distinct image properties, and which each consumer has."""
    known: dict[bytes, int] = {}
    ids: dict[int, int] = {}
    for consumer, properties in sorted(fleet._image_properties.items(), key=itemgetter(0)):
        try:
            text = _TEXT.encode(properties)
            fine = text in known or msgspec.json.decode(text) == properties
        except (TypeError, ValueError, msgspec.MsgspecError):
            fine = False
        if not fine:
            problem = f"a consumer has image properties that are not JSON values: {properties!r:.200}"
            raise InvalidValue(problem, field="image_properties")
        ids[consumer] = known.setdefault(text, len(known))
    return [msgspec.json.decode(text) for text in known], ids


def read_values(fleet: Fleet, arrays: Arrays) -> None:
    """Fill a new fleet's tables from ``arrays``, consuming its part of them. ValueError or msgspec's errors for
    inconsistent input. O(values)."""
    values = msgspec.json.decode(arrays.pop("values").tobytes(), type=Values)
    fleet._inventories.load(values.resource_classes)
    fleet._aggregate_ids(values.aggregates)
    fleet.aggregates.extend([NONE] * (values.places - len(values.aggregates)))
    used = {index for value in values.classes for index in value.aggregates}
    if used and not 0 <= min(used) <= max(used) < values.places:
        raise ValueError("a host class is in an aggregate that does not exist")
    for value in values.classes:
        fleet._change_log.class_id(value)
    tables: tuple[tuple[Interned[Any], list[Any]], ...] = (
        (fleet._classes, values.classes),
        (fleet._stats, values.stats),
        (fleet._metrics, values.metrics),
        (fleet._projects, values.projects),
        (fleet._users, values.users),
    )
    for table, given in tables:
        for value in given:
            table.id(value)
        _same(table.values, given, "interned values")
    for pools in values.pci:
        fleet._pci_states.id(pools)
    _same(fleet._pci_states.values, values.pci, "PCI states")
    limits = [(group.policy, group.at_most) for group in values.groups]
    fleet._server_groups.restore([group.uuid for group in values.groups], limits, values.removed_groups)
    for shape in values.shapes:
        fleet._shape(dict(shape.amounts), shape.vcpus, shape.memory_mb, shape.disk_mb)
    if len(fleet._consumers.shapes) != len(values.shapes):
        raise ValueError("a shape occurs twice")
    for consumer, extras in values.extras:
        fleet._consumers.keep_extras(consumer, extras)
    fleet._consumers.notes.update(values.notes)
    fleet._consumers.missing.update(values.missing)
    for move in values.moves:
        fleet._consumers.moves.put(move.instance, move)
    fleet._consumers.also_on.update((row, {**held}) for row, held in values.also_on)
    fleet._registry = values.registry
    fleet._registry.demand_sound()
    fleet._change_log.constants.count_devices(sum(bool(extras.pci) for _, extras in values.extras))
    fleet._image_properties.update({consumer: values.properties[i] for consumer, i in values.properties_of})


def _same(found: Iterable[Any], given: Iterable[Any], what: str) -> None:
    """ValueError unless the new ids equal the saved ones."""
    if list(found) != list(given):
        raise ValueError(f"{what} occur twice, or out of order")
