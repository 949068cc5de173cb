"""The question which instances there are, and its answer: filtered, in a fixed order, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...ext.constants import NOT_INSTANCE
from ...ext.fleet_state import consumers
from ...ext.tables import parse_uuid
from ...placement.api.allocations import note_of
from ...placement.fleet.fleet import Fleet
from ...placement.types.errors import InvalidValue, UnknownName
from ..tenancy.rights import project_scope
from ..tenancy.tenants import CLOUD, RANK
from .question import Page, Query
from .state import ServiceState

LONG_LIST: Final = 200
MANY: Final = 5_000
"""Lines, and instances that there are, from which on an answer takes more than about a millisecond."""

Columns = Mapping[str, NDArray[Any]]
"""Figures of all consumers by name, one of each id; the row of an id that is free is -1."""


class Instances(Query, frozen=True):
    """Instances in the order of their uuids, behind the one named ``after``: of a ``project``, on a host (``node``; one
    that moves is on both ends), of a ``user``, in a ``server_group``, each where it is given. Migrations, volumes and
    the like hold allocations, but are no instances. Readers of the cloud see all, others those of projects that they
    may read."""

    project: str | None = None
    node: str | None = None
    user: str | None = None
    server_group: str | None = None
    after: str | None = None
    limit: Page = 1_000


class InstanceLine(msgspec.Struct, frozen=True):
    """An instance in a list; ``resources`` it takes of its host."""

    uuid: str
    node: str
    project_id: str
    user_id: str
    server_group: str | None
    building: bool
    resources: dict[str, int]


def many_instances(state: ServiceState, query: Instances) -> bool:
    """True if others should not have to wait for the answer."""
    return query.limit > LONG_LIST or state.fleet._kernel.consumer_count > MANY


def instances(state: ServiceState, user: str, query: Instances) -> list[InstanceLine]:
    """The answer. NotAllowed for a project that the user may not read; InvalidValue if ``after`` is not a uuid. What is
    not known has no instances. O(instances), vectorised, and the page."""
    fleet, everything = state.fleet, state.tenants.role(user, CLOUD) >= RANK["reader"]
    if query.project is not None:
        state.tenants.require(user, "reader", project_scope(query.project))
    found = consumers(fleet._kernel)
    words = found["uuid"]
    keep = _wanted(fleet, query, found)
    if query.project is None and not everything:
        names = fleet._projects.ids.items()
        mine = [i for name, i in names if state.tenants.role(user, project_scope(name)) >= RANK["reader"]]
        keep &= np.isin(found["project"], mine)
    if query.after is not None:
        keep &= _behind(words, query.after)
    ids = np.flatnonzero(keep)
    order = np.lexsort((words[ids, 1], words[ids, 0]))[: query.limit]
    return [_line(fleet, consumer) for consumer in ids[order].tolist()]


def demand_instance(fleet: Fleet, uuid: str) -> None:
    """UnknownName for a consumer that is a migration, a volume or the like."""
    consumer = fleet.consumer_id(uuid)
    if fleet._kernel.consumer(consumer)[7] & NOT_INSTANCE:
        kind = note_of(fleet, consumer).consumer_type or "MIGRATION"
        raise UnknownName(f"no instance has the uuid {uuid}: it is a consumer of type {kind}", field="uuid")


def _wanted(fleet: Fleet, query: Instances, columns: Columns) -> NDArray[np.bool_]:
    group = None if query.server_group is None else fleet._server_groups.find(query.server_group)
    wanted = {
        "project": None if query.project is None else fleet._projects.ids.get(query.project, -2),
        "user": None if query.user is None else fleet._users.ids.get(query.user, -2),
        "group": None if query.server_group is None else -2 if group is None else group,
    }
    keep: NDArray[np.bool_] = (columns["row"] >= 0) & (columns["flags"] & NOT_INSTANCE == 0)
    if query.node is not None:
        row = fleet._names.find(query.node)
        on_it = columns["row"] == row
        ends = fleet._consumers.find(list(fleet._consumers.also_on.get(row, ())))
        on_it[ends[ends >= 0]] = True
        keep &= on_it
    for column, value in wanted.items():
        if value is not None:
            keep &= columns[column] == value
    return keep


def _behind(words: NDArray[Any], uuid: str) -> NDArray[np.bool_]:
    try:
        high, low = parse_uuid(uuid)
    except (ValueError, TypeError) as error:
        raise InvalidValue(f"after is no uuid: {error}", field="after") from None
    behind: NDArray[np.bool_] = (words[:, 0] > high) | ((words[:, 0] == high) & (words[:, 1] > low))
    return behind


def _line(fleet: Fleet, consumer: int) -> InstanceLine:
    value = fleet._consumers.value(consumer, fleet.resource_classes, fleet._group_uuids)
    return InstanceLine(
        value.uuid,
        value.provider,
        value.project_id,
        value.user_id,
        value.server_group,
        value.building,
        dict(value.resources),
    )
