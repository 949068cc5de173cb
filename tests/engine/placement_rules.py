"""What Nova 33 asks of Placement, stated a second time: resources, traits and aggregates of a request, by the rules of
its prefilters and of extra specs. Slow and obvious; of the product it uses values and parsed options only."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from hostler.placement.types.errors import NoValidHost
from hostler.placement.types.host import Aggregate
from hostler.placement.types.options import Options
from hostler.placement.types.request import Request


@dataclass(frozen=True)
class Query:
    """Of each set in ``member_of`` a host must be in one aggregate."""

    resources: dict[str, int]
    required: frozenset[str]
    forbidden: frozenset[str]
    member_of: tuple[frozenset[str], ...]
    forbidden_aggregates: frozenset[str]


def query_of(
    request: Request,
    aggregates: Collection[Aggregate],
    found: Callable[[str | None, str | None, str | None], list[str]],
    options: Options,
) -> Query:
    """``found``: uuids of the hosts with a host name and node name, in a cell. NoValidHost if Nova gives up before the
    query."""
    required = _traits(request, "required")
    member_of = _tenants(request, aggregates, options) + _zone(request, aggregates) + _destination(request)
    _check_target(request, found)
    return Query(
        _resources(request),
        required,
        _traits(request, "forbidden") | {"COMPUTE_STATUS_DISABLED"},
        member_of,
        _excluded(request) | _isolated(required, aggregates, options),
    )


def _resources(request: Request) -> dict[str, int]:
    """The flavor's, by class, and those of ``resources:CLASS`` instead. 0 asks for none."""
    flavor = request.spec.flavor
    disk = 0 if request.spec.is_bfv else flavor.root_gb
    wanted = {
        "VCPU": flavor.vcpus,
        "MEMORY_MB": flavor.memory_mb,
        "DISK_GB": disk + flavor.ephemeral_gb + math.ceil(flavor.swap / 1024),
    }
    for key, value in flavor.extra_specs.items():
        if key.startswith("resources:"):
            wanted[key.removeprefix("resources:")] = int(value)
    return {name: wanted[name] for name in sorted(wanted) if wanted[name]}


def _traits(request: Request, wish: str) -> frozenset[str]:
    """Traits of ``trait:NAME=required`` or ``forbidden``."""
    specs = request.spec.flavor.extra_specs.items()
    return frozenset(key.removeprefix("trait:") for key, value in specs if key.startswith("trait:") and value == wish)


def _tenants(request: Request, aggregates: Collection[Aggregate], options: Options) -> tuple[frozenset[str], ...]:
    """require_tenant_aggregate."""
    group = options.scheduler
    if not group.limit_tenants_to_placement_aggregate:
        return ()
    own = frozenset(
        aggregate.uuid
        for aggregate in aggregates
        for key, value in aggregate.metadata.items()
        if key.startswith("filter_tenant_id") and value == request.project_id
    )
    if not own and group.placement_aggregate_required_for_tenants:
        raise NoValidHost(f"no aggregate is for project {request.project_id}")
    return (own,) if own else ()


def _zone(request: Request, aggregates: Collection[Aggregate]) -> tuple[frozenset[str], ...]:
    """map_az_to_placement_aggregate; an unknown zone adds nothing."""
    zone = request.spec.availability_zone
    there = frozenset(each.uuid for each in aggregates if zone and each.metadata.get("availability_zone") == zone)
    return (there,) if there else ()


def _destination(request: Request) -> tuple[frozenset[str], ...]:
    destination = request.spec.requested_destination
    return () if destination is None else tuple(frozenset(each.split(",")) for each in destination.aggregates)


def _excluded(request: Request) -> frozenset[str]:
    destination = request.spec.requested_destination
    return frozenset() if destination is None else frozenset(destination.forbidden_aggregates)


def _isolated(required: frozenset[str], aggregates: Collection[Aggregate], options: Options) -> frozenset[str]:
    """isolate_aggregates: those that require a trait that the request does not."""
    if not options.scheduler.enable_isolated_aggregate_filtering:
        return frozenset()
    return frozenset(
        aggregate.uuid
        for aggregate in aggregates
        for key, value in aggregate.metadata.items()
        if key.startswith("trait:") and value == "required" and key.removeprefix("trait:") not in required
    )


def _check_target(request: Request, found: Callable[[str | None, str | None, str | None], list[str]]) -> None:
    """The host and node of the destination, or the first of the forced ones, must exist; names match exactly."""
    spec = request.spec
    destination = spec.requested_destination
    host = node = cell = None
    if destination is not None:
        host, node, cell = destination.host, destination.node, destination.cell_uuid
    # A destination is newer than what was forced when the guest was first asked for.
    host = host or next(iter(spec.force_hosts), None)
    node = node or next(iter(spec.force_nodes), None)
    if (host or node) and not found(host, node, cell):
        raise NoValidHost(f"no such host: host {host}, node {node}")
