"""Questions to a parent of regions about its guests, and lines about regions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

from ...placement.types.errors import InvalidValue, UnknownName
from ..tenancy.rights import no_instance, project_scope
from ..tenancy.tenants import CLOUD, RANK
from .question import Page, Query
from .region_claims import normal
from .state import ServiceState


class RegionOf(Query, frozen=True):
    """Which region an instance was placed in, of a service that is a parent of regions. For readers of its project."""

    uuid: str


class RegionGuests(Query, frozen=True):
    """Instances in regions in the order of their uuids, after the one named ``after``: in a ``region``, of a
    ``project``, each where it is given. For readers of the project, or of the cloud."""

    region: str | None = None
    project: str | None = None
    after: str | None = None
    limit: Page = 1_000


class RegionGuestLine(msgspec.Struct, frozen=True):
    """An instance in a region."""

    uuid: str
    region: str
    project_id: str


class RegionLine(msgspec.Struct, frozen=True, kw_only=True):
    """A region as its parent knows it. ``alive``: it answers; else ``problem`` says why not. ``summary_age_ms``: since
    it told its summary (None: it has not), of which ``hosts`` and the free amounts are (memory in MiB, disk in GiB).
    ``guests``: that the parent has placed there. ``asked``, ``placed``, ``refused`` and ``unanswered``: requests since
    the parent started; ``summaries``: that it has sent."""

    name: str
    alive: bool
    problem: str
    last: bool
    price: float
    summary_age_ms: float | None
    hosts: int
    free_vcpus: int
    free_memory_mb: int
    free_disk_gb: int
    guests: int
    asked: int
    placed: int
    refused: int
    unanswered: int
    summaries: int


def _region_of(state: ServiceState, user: str, query: RegionOf) -> RegionGuestLine:
    known = state.region_claims.find(query.uuid)
    if known is None and state.tenants.role(user, CLOUD) >= RANK["reader"]:
        raise UnknownName(f"no instance {query.uuid[:40]} is in a region", field="uuid")
    if known is None or state.tenants.role(user, project_scope(known.project_id)) < RANK["reader"]:
        raise no_instance(query.uuid, "uuid")
    return RegionGuestLine(normal(query.uuid), known.region, known.project_id)


def _region_guests(state: ServiceState, user: str, query: RegionGuests) -> list[RegionGuestLine]:
    """O(limit + regions), times a logarithm of the guests."""
    state.tenants.require(user, "reader", CLOUD if query.project is None else project_scope(query.project))
    claims, after = state.region_claims, query.after or ""
    with suppress(InvalidValue):  # any other text is a place in the order, too
        after = normal(after)
    page = claims.index.order.page(after, query.limit, region=query.region, project=query.project)
    guests = claims.guests
    return [RegionGuestLine(uuid, guests[uuid].region, guests[uuid].project_id) for uuid in page]


QUESTIONS: Final[dict[type[Query], Callable[[ServiceState, str, Any], Any]]] = {
    RegionOf: _region_of,
    RegionGuests: _region_guests,
}
