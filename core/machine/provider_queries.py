"""The questions which resource providers, aggregates and consumers there are, and their answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...ext.fleet_state import consumers
from ...ext.tables import format_uuid
from ...placement.api.allocations import held_by, note_of
from ...placement.fleet.aggregates import NONE, is_bare
from ...placement.fleet.fleet import Fleet
from ...placement.fleet.inventories import Inventory
from .question import Page, Query
from .state import ServiceState

ZONE: Final = "availability_zone"


class Providers(Query, frozen=True):
    """Resource providers whose names begin with ``prefix``, in load order, behind the one named ``after``; ``under``:
    only those of the tree of a provider. For readers of the cloud."""

    prefix: str = ""
    under: str | None = None
    after: str | None = None
    limit: Page = 1_000


class ShowProvider(Query, frozen=True):
    """One resource provider by name. For readers of the cloud."""

    name: str


class Aggregates(Query, frozen=True):
    """Aggregates with their members. For readers of the cloud."""


class Allocations(Query, frozen=True):
    """Consumers of a ``provider`` (of all, where it is left out) with all that they hold, in the order of their ids,
    behind ``after`` (a uuid). For readers of the cloud."""

    provider: str | None = None
    after: str | None = None
    limit: Page = 1_000


class ShowAllocation(Query, frozen=True):
    """One consumer by uuid. For readers of the cloud."""

    consumer: str


class ProviderLine(msgspec.Struct, frozen=True):
    """A resource provider in a list; ``used`` and ``limit`` ((total - reserved) * allocation_ratio) by resource
    class."""

    name: str
    uuid: str
    parent: str | None
    host: bool
    generation: int
    used: dict[str, int]
    limit: dict[str, int]


class ProviderDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A resource provider in full; ``aggregates`` by uuid, with their names."""

    line: ProviderLine
    root: str
    inventories: dict[str, Inventory]
    traits: list[str]
    aggregates: dict[str, str]
    consumers: list[str]


class AggregateLine(msgspec.Struct, frozen=True):
    """An aggregate; ``providers`` are its members by name."""

    uuid: str
    name: str
    availability_zone: str | None
    metadata: dict[str, str]
    providers: list[str]


class ConsumerLine(msgspec.Struct, frozen=True):
    """A consumer; ``consumer_type`` as Placement has it (None: unknown). ``allocations``: provider name -> resource
    class -> amount."""

    consumer: str
    consumer_type: str | None
    project_id: str
    user_id: str
    generation: int
    allocations: dict[str, dict[str, int]]


def providers(state: ServiceState, user: str, query: Providers) -> list[ProviderLine]:
    """The answer to ``Providers``. O(rows)."""
    fleet = state.fleet
    first = fleet.row(query.after, field="after") + 1 if query.after is not None else 0
    if query.under is not None:
        root = int(fleet._store.row["root"][fleet.row(query.under, field="under")])
        rows: Iterable[int] = (row for row in fleet.tree(root) if row >= first)
    else:
        rows = (row for row in range(first, fleet.rows) if _is_there(fleet, row))
    found = (row for row in rows if fleet.name(row).startswith(query.prefix))
    return [_line(fleet, row) for row in islice(found, query.limit)]


def _is_there(fleet: Fleet, row: int) -> bool:
    try:
        return bool(fleet.name(row))
    except KeyError:  # a freed row
        return False


def _line(fleet: Fleet, row: int) -> ProviderLine:
    blocks, parent = fleet._store.inventory, int(fleet._store.row["parent"][row])
    held = [(name, index) for index, name in enumerate(fleet.resource_classes) if blocks["total"][index, row] > 0]
    return ProviderLine(
        fleet.name(row),
        fleet.uuid(row),
        fleet.name(parent) if parent >= 0 else None,
        fleet._host_class(row).is_host,
        int(fleet._store.row["generation"][row]),
        {name: int(blocks["used"][index, row]) for name, index in held},
        {name: max(int(blocks["limit"][index, row]), 0) for name, index in held},
    )


def provider(state: ServiceState, user: str, query: ShowProvider) -> ProviderDetail:
    """The answer to ``ShowProvider``. O(its consumers)."""
    fleet = state.fleet
    row = fleet.row(query.name, field="name")
    static = fleet._host_class(row)
    named = [fleet.aggregates[index] for index in static.aggregates]
    return ProviderDetail(
        line=_line(fleet, row),
        root=fleet.name(int(fleet._store.row["root"][row])),
        inventories={name: inventory for name, (inventory, _) in fleet.inventory(query.name).items()},
        traits=sorted(static.traits),
        aggregates={each.uuid: each.name for each in named},
        consumers=[_uuid(fleet, consumer) for consumer in _consumers_of(fleet, row)],
    )


def _consumers_of(fleet: Fleet, row: int) -> list[int]:
    return sorted({*fleet._kernel.consumers_on(row), *fleet._consumers.elsewhere.get(row, ())})


def _uuid(fleet: Fleet, consumer: int) -> str:
    return format_uuid(*fleet._kernel.consumer(consumer)[:2])


def aggregates(state: ServiceState, user: str, query: Aggregates) -> list[AggregateLine]:
    """The answer to ``Aggregates``. O(rows + classes)."""
    fleet = state.fleet
    members: dict[int, list[str]] = {}
    class_of = fleet._store.row["class_of"][: fleet.rows]
    for number, value in enumerate(fleet._classes.values):
        for row in np.flatnonzero(class_of == number).tolist() if value.aggregates else ():
            if _is_there(fleet, row):
                for index in value.aggregates:
                    members.setdefault(index, []).append(fleet.name(row))
    return [
        AggregateLine(
            each.uuid, each.name, each.metadata.get(ZONE), dict(each.metadata), sorted(members.get(index, []))
        )
        for index, each in enumerate(fleet.aggregates)
        if each is not NONE and (index in members or not is_bare(each))
    ]


def allocations(state: ServiceState, user: str, query: Allocations) -> list[ConsumerLine]:
    """The answer to ``Allocations``. O(the consumers looked through)."""
    fleet = state.fleet
    first = fleet.consumer_id(query.after, field="after") + 1 if query.after is not None else 0
    if query.provider is not None:
        ids: Iterator[int] = iter(_consumers_of(fleet, fleet.row(query.provider)))
    else:
        ids = iter(np.flatnonzero(_all_consumers(fleet)).tolist())
    return [_consumer(fleet, each) for each in islice((each for each in ids if each >= first), query.limit)]


def _all_consumers(fleet: Fleet) -> NDArray[np.bool_]:
    there: NDArray[np.bool_] = consumers(fleet._kernel)["row"] >= 0
    return there


def allocation(state: ServiceState, user: str, query: ShowAllocation) -> ConsumerLine:
    """The answer to ``ShowAllocation``. UnknownName if there is no such consumer. O(its allocations)."""
    return _consumer(state.fleet, state.fleet.consumer_id(query.consumer))


def _consumer(fleet: Fleet, consumer: int) -> ConsumerLine:
    value, note = fleet._consumers.value(consumer, fleet.resource_classes, fleet._group_uuids), note_of(fleet, consumer)
    held = {
        fleet.name(row): {fleet.resource_classes[index]: amount for index, amount in sorted(amounts.items())}
        for row, amounts in sorted(held_by(fleet, consumer).items())
    }
    return ConsumerLine(value.uuid, note.consumer_type, value.project_id, value.user_id, note.generation, held)
