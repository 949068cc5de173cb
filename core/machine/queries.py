"""Queries, which change nothing: their parameters, access rights, and answers from the current state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from ...ext.constants import NOT_INSTANCE, UNCOUNTED
from ...ext.tables import format_uuid
from ...placement.decide.explain.explanation import Explanation
from ...placement.decide.fits import Fit, SharedFit
from ...placement.fleet.fleet import Fleet
from ...placement.fleet.host_view import HostView
from ...placement.fleet.inventories import FIRST_CLASSES
from ...placement.types.errors import UnknownName
from ...placement.types.host import Service
from ...placement.types.moves import PendingMove
from .. import engine_commands as p
from ..tenancy.rights import check_request_of_reader, no_instance, project_scope
from ..tenancy.tenants import CLOUD, RANK
from . import volume_backend_queries as vb
from .catalog_queries import Flavors, Images, ShowFlavor, ShowImage, flavor, flavors, image, images
from .group_queries import ServerGroups, server_groups
from .host_detail import CellDetail, HostFacts, PciPoolDetail, cells_of, facts_of, pools_of
from .instance_queries import InstanceLine, Instances, demand_instance, instances, many_instances
from .lifecycle_queries import (
    Guests,
    GuestSnapshots,
    ListBackends,
    ShowGuest,
    VolumeLives,
    backends,
    guest_snapshots,
    guests,
    show_guest,
    volume_lives,
)
from .plan_queries import CheckPlan, PlanMoves, check_plan, plan_moves
from .provider_queries import (
    Aggregates,
    Allocations,
    Providers,
    ShowAllocation,
    ShowProvider,
    aggregates,
    allocation,
    allocations,
    provider,
    providers,
)
from .question import Page, Query
from .ranking import Rank, rank
from .region_queries import QUESTIONS as REGION_QUESTIONS
from .state import ServiceState
from .tenant_queries import (
    Domains,
    ListPools,
    Projects,
    ShowUsage,
    Tokens,
    Users,
    domains,
    pools,
    projects,
    tokens,
    usage,
    users,
)
from .volume_queries import FOR_CLOUD_READERS as STORAGE_FOR_CLOUD_READERS
from .volume_queries import QUESTIONS as STORAGE_QUESTIONS
from .volume_queries import takes_long as storage_takes_long
from .volume_ranking import RankVolume, rank_volume
from .what_if import WhatIf, what_if


class Hosts(Query, frozen=True):
    """Hosts in load order, after the one named ``after``; ``prefix`` of their node names. For readers of the cloud."""

    prefix: str = ""
    after: str | None = None
    limit: Page = 1_000


class ShowHost(Query, frozen=True):
    """One host in full. For readers of the cloud."""

    name: str


class Instance(Query, frozen=True):
    """Where an instance is and what it takes. For readers of its project."""

    uuid: str


class Explain(Query, frozen=True):
    """Why each host would be refused, and what the best ``top`` score; with ``assume_empty`` also whether a host would
    pass if there were no guests. For readers of the cloud."""

    request: p.Asked
    top: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 5
    assume_empty: bool = False


class Fits(Query, frozen=True):
    """How many more guests of this shape fit, on which hosts (readers of the cloud only). For readers of the request's
    project, within what members may place."""

    request: p.Asked
    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None


class FitsMany(Query, frozen=True):
    """How many more guests of each of several shapes fit: alone, and together, where the room is divided fairly between
    them (one guest of each in turn, for as long as it fits). Rights as for ``fits``, for each request."""

    requests: Annotated[list[p.Asked], msgspec.Meta(max_length=1_000)]
    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None


class ShowMoves(Query, frozen=True):
    """Moves under way. For readers of the cloud."""


class ShowDrift(Query, frozen=True):
    """Hosts that differ from what their guests take, or whose guests no longer fit. For readers of the cloud."""


class Capacity(Query, frozen=True):
    """Total capacity and usage by resource class. For readers of the cloud."""


class ShowPolicy(Query, frozen=True):
    """The policy in force. For readers of the cloud."""


# answers


class HostLine(msgspec.Struct, frozen=True):
    """A host in a list. Memory and disk in MiB. ``up`` is None where no heartbeat of its compute service is known."""

    host: str
    node: str
    uuid: str
    up: bool | None
    disabled: bool
    vcpus_total: int
    vcpus_used: int
    total_usable_ram_mb: int
    free_ram_mb: int
    free_disk_mb: int
    num_instances: int


class Stock(msgspec.Struct, frozen=True):
    """Of one resource class: ``limit`` is (total - reserved) * allocation_ratio."""

    total: int
    limit: int
    used: int


class HostDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A host in full. ``numa_cells``: empty if it reports none; ``pci_pools``: of devices that guests may be given;
    ``facts``: None from services before 0.2."""

    line: HostLine
    service: Service
    aggregates: list[str]
    traits: list[str]
    inventory: dict[str, Stock]
    instances: list[str]
    numa_cells: list[CellDetail] = []
    pci_pools: list[PciPoolDetail] = []
    facts: HostFacts | None = None


class InstanceDetail(InstanceLine, frozen=True, kw_only=True):
    """An instance in full; ``elsewhere``: resources that it takes of providers other than its host. ``asked``: it is
    known what it was asked with."""

    elsewhere: dict[str, dict[str, int]]
    asked: bool = False


class DriftLine(msgspec.Struct, frozen=True):
    """A host that differs from what its guests take: usage without a consumer in vCPUs, MiB and GiB, what it holds
    beyond its capacity by resource class, and instances that hold an allocation but are no longer on the host."""

    node: str
    unexplained_vcpus: int
    unexplained_memory_mb: int
    unexplained_disk_gb: int
    beyond_capacity: dict[str, int]
    lost_instances: list[str]


class CapacityOf(msgspec.Struct, frozen=True):
    """Totals over all providers. ``fragmentation``: the fraction (0 to 1) of free capacity on hosts with less than a
    tenth of their capacity free."""

    total: int
    used: int
    fragmentation: float


class PolicyInForce(msgspec.Struct, frozen=True):
    """What differs from Nova's defaults, and a digest over everything."""

    policy: dict[str, dict[str, Any]]
    digest: str


LONG_HOSTS: Final = 2_000
LONG_LIST: Final = 100
"""Hosts, and lines or commands, from which on an answer takes more than about a millisecond."""


def takes_long(state: ServiceState, query: Query) -> bool:
    """True for a question that others should not have to wait for."""
    match query:
        case WhatIf(commands=commands, policy=policy):
            many = len(commands) > LONG_LIST or any(isinstance(each, p.PlaceMany) for each in commands)
            return many or policy is not None or state.fleet.rows > LONG_HOSTS
        case Hosts(limit=limit):
            return state.fleet.rows > LONG_LIST and (limit > LONG_LIST or state.fleet.rows > LONG_HOSTS)
        case PlanMoves() | CheckPlan():
            return state.fleet.rows > LONG_LIST // 10 or state.fleet._kernel.consumer_count > LONG_LIST
        case Fits(request=request, limit=limit):  # which may place all the guests that it counts
            few = state.fleet.rows <= LONG_LIST // 10 and (limit or 0) <= LONG_LIST
            return not few or request.server_group is not None
        case FitsMany(requests=requests):
            return len(requests) > 1 or state.fleet.rows > LONG_LIST // 10
        case Explain(assume_empty=True):
            return state.fleet.rows > LONG_LIST
        case Explain() | Rank():
            return state.fleet.rows > LONG_HOSTS
        case RankVolume():
            return len(state.fleet.pools) > LONG_HOSTS // 10
        case Capacity():
            return state.fleet.rows > 50 * LONG_HOSTS
        case Instances():
            return many_instances(state, query)
        case Guests() | VolumeLives():
            return len(state.lives.guests) + len(state.lives.volumes) > 10 * LONG_LIST
        case ListBackends():
            return len(state.lives.guests) > 10 * LONG_LIST
        case ShowMoves():
            return len(state.fleet._consumers.moves) > 10 * LONG_LIST
        case Flavors() | Images():
            catalog = state.catalog
            return len(catalog.flavors) + len(catalog.images) > 10 * LONG_LIST
        case ShowDrift():
            return state.fleet.rows > 10 * LONG_HOSTS
        case ServerGroups():
            return len(state.fleet._groups) > LONG_LIST or state.fleet._kernel.consumer_count > 10 * LONG_HOSTS
        case Providers(limit=limit) | Allocations(limit=limit):
            return limit > LONG_LIST or state.fleet.rows > 10 * LONG_HOSTS
        case Aggregates():
            return state.fleet.rows > 10 * LONG_HOSTS
        case Projects() | Users() | Tokens() | ListPools():
            tenants = state.tenants
            return len(tenants.projects) + len(tenants.users) + len(tenants.tokens) > 10 * LONG_LIST
    return storage_takes_long(state, query) or vb.takes_long(state, query)


def answer(state: ServiceState, user: str, query: Query) -> Any:
    """The answer to a question. NotAllowed if the user may not ask it; other HostlerErrors as they say."""
    kind, ask = type(query), QUESTIONS[type(query)]
    if kind in FOR_CLOUD_READERS:
        state.tenants.require(user, "reader", CLOUD)
    return ask(state, user, query)


# hosts and guests


def _hosts(state: ServiceState, user: str, query: Hosts) -> list[HostLine]:
    fleet = state.fleet
    first = fleet.row(query.after, field="after") + 1 if query.after is not None else 0
    rows = np.flatnonzero(fleet.is_host[first:]) + first
    found: list[HostLine] = []
    for row in rows.tolist():
        if fleet.name(row).startswith(query.prefix):
            found.append(_line(fleet, row))
            if len(found) == query.limit:
                break
    return found


def _line(fleet: Fleet, row: int) -> HostLine:
    view = HostView(fleet, row)
    up = fleet._services.is_alive(row)
    return HostLine(
        view.host,
        view.nodename,
        view.uuid,
        None if up and np.isnan(fleet.column("last_seen_up")[row]) else up,
        view.service.disabled,
        view.vcpus_total,
        view.vcpus_used,
        view.total_usable_ram_mb,
        view.free_ram_mb,
        view.free_disk_mb,
        view.num_instances,
    )


def _show_host(state: ServiceState, user: str, query: ShowHost) -> HostDetail:
    fleet = state.fleet
    row = fleet.row(query.name, field="name")
    if not fleet.is_host[row]:
        raise UnknownName(f"{query.name} is a resource provider, but no host", field="name")
    view = HostView(fleet, row)
    inventory = {}
    for name, (each, used) in fleet.inventory(query.name).items():
        inventory[name] = Stock(each.total, int((each.total - each.reserved) * each.allocation_ratio), used)
    return HostDetail(
        line=_line(fleet, row),
        service=view.service,
        aggregates=[aggregate.name for aggregate in view.aggregates],
        traits=sorted(view.traits),
        inventory=inventory,
        instances=sorted(view.instances),
        numa_cells=cells_of(view),
        pci_pools=pools_of(view),
        facts=facts_of(view),
    )


def _instance(state: ServiceState, user: str, query: Instance) -> InstanceDetail:
    try:
        consumer = state.fleet.consumer(query.uuid)
        demand_instance(state.fleet, query.uuid)
    except UnknownName:
        if state.tenants.role(user, CLOUD) >= RANK["reader"]:
            raise
        raise no_instance(query.uuid, "uuid") from None  # as for those of others
    if state.tenants.role(user, project_scope(consumer.project_id)) < RANK["reader"]:
        raise no_instance(query.uuid, "uuid")
    return InstanceDetail(
        uuid=consumer.uuid,
        node=consumer.provider,
        project_id=consumer.project_id,
        user_id=consumer.user_id,
        server_group=consumer.server_group,
        building=consumer.building,
        resources=dict(consumer.resources),
        elsewhere={name: dict(amounts) for name, amounts in consumer.elsewhere.items()},
        asked=state.requests.get(consumer.uuid) is not None,
    )


def _moves(state: ServiceState, user: str, query: ShowMoves) -> list[PendingMove]:
    return state.engine.moves()


def _drift(state: ServiceState, user: str, query: ShowDrift) -> list[DriftLine]:
    fleet = state.fleet
    blocks, found = fleet._store.inventory, []
    for row in fleet.drift().tolist():
        beyond = blocks["used"][:, row] - np.maximum(blocks["limit"][:, row], 0)
        over = {name: int(beyond[index]) for index, name in enumerate(fleet.resource_classes) if beyond[index] > 0}
        lines = [fleet._kernel.consumer(consumer) for consumer in fleet._kernel.consumers_on(row)]
        lost = sorted(
            format_uuid(line[0], line[1]) for line in lines if line[7] & (UNCOUNTED | NOT_INSTANCE) == UNCOUNTED
        )
        vcpus, memory_mb, disk_gb = blocks["base"][:3, row].tolist()
        found.append(DriftLine(fleet.name(row), vcpus, memory_mb, disk_gb, over, lost))
    return found


def _explain(state: ServiceState, user: str, query: Explain) -> Explanation:
    request = state.request(query.request, None)
    return state.engine.explain(request, top=query.top, assume_empty=query.assume_empty)


def _fits(state: ServiceState, user: str, query: Fits) -> Fit:
    state.tenants.require(user, "reader", project_scope(query.request.project_id))
    check_request_of_reader(state.tenants, user, query.request, state)
    found = state.engine.fits(state.request(query.request, None), limit=query.limit)
    return found if _sees_hosts(state, user) else Fit(found.count, {})


def _fits_many(state: ServiceState, user: str, query: FitsMany) -> list[SharedFit]:
    for request in query.requests:
        state.tenants.require(user, "reader", project_scope(request.project_id))
        check_request_of_reader(state.tenants, user, request, state)
    found = state.engine.fits_many([state.request(each, None) for each in query.requests], limit=query.limit)
    if _sees_hosts(state, user):
        return list(found)
    return [SharedFit(Fit(each.alone.count, {}), Fit(each.shared.count, {})) for each in found]


def _sees_hosts(state: ServiceState, user: str) -> bool:
    return state.tenants.role(user, CLOUD) >= RANK["reader"]


def _capacity(state: ServiceState, user: str, query: Capacity) -> dict[str, CapacityOf]:
    return capacity(state.fleet)


def capacity(fleet: Fleet) -> dict[str, CapacityOf]:
    """Total, use and fragmentation by resource class, custom ones in the order of their names. O(rows * classes)."""
    found = {}
    rows, first = fleet.rows, len(FIRST_CLASSES)
    for index, name in sorted(enumerate(fleet.resource_classes), key=lambda each: (min(each[0], first), each[1])):
        limit = np.maximum(fleet._store.inventory["limit"][index, :rows], 0)
        used = fleet._store.inventory["used"][index, :rows]
        total = int(limit.sum())
        if total:
            free = np.maximum(limit - used, 0)
            scraps = int(free[free * 10 < limit].sum())
            found[name] = CapacityOf(total, int(used.sum()), scraps / int(free.sum()) if free.any() else 0.0)
    return found


def _policy(state: ServiceState, user: str, query: ShowPolicy) -> PolicyInForce:
    return PolicyInForce(state.policy, state.engine.policy.digest)


QUESTIONS: Final[dict[type[Query], Callable[[ServiceState, str, Any], Any]]] = {
    Hosts: _hosts,
    ShowHost: _show_host,
    Instance: _instance,
    Explain: _explain,
    Fits: _fits,
    FitsMany: _fits_many,
    Rank: rank,
    RankVolume: rank_volume,
    WhatIf: what_if,
    ShowMoves: _moves,
    ShowDrift: _drift,
    ShowUsage: usage,
    Capacity: _capacity,
    Domains: domains,
    Projects: projects,
    Users: users,
    Tokens: tokens,
    Flavors: flavors,
    ShowFlavor: flavor,
    Images: images,
    ShowImage: image,
    Instances: instances,
    ServerGroups: server_groups,
    Guests: guests,
    ShowGuest: show_guest,
    GuestSnapshots: guest_snapshots,
    VolumeLives: volume_lives,
    ListBackends: backends,
    ListPools: pools,
    ShowPolicy: _policy,
    PlanMoves: plan_moves,
    CheckPlan: check_plan,
    Providers: providers,
    ShowProvider: provider,
    Aggregates: aggregates,
    Allocations: allocations,
    ShowAllocation: allocation,
    **REGION_QUESTIONS,
    **STORAGE_QUESTIONS,
    **vb.QUESTIONS,
}
FOR_CLOUD_READERS: Final = frozenset(
    {
        *(Hosts, ShowHost, ShowMoves, ShowDrift, Explain, Rank, WhatIf, Capacity, Domains, ListPools, ShowPolicy),
        *(ListBackends, PlanMoves, CheckPlan, Providers, ShowProvider, Aggregates, Allocations, ShowAllocation),
        RankVolume,
        *STORAGE_FOR_CLOUD_READERS,
        *vb.QUESTIONS,
    }
)
