"""Requirements of a request on resource providers, which the engine checks on host classes and provider trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..fleet.fleet import Fleet
from ..policy.policy import Policy
from ..types.host_classes import HostClass
from ..types.request import Destination, Request, RequestSpec
from .host_selection import names_hosts, skips_filters
from .placement_query import PlacementQuery, RequestGroup, placement_query, with_image


@dataclass(frozen=True, slots=True)
class PlacementRequirements:
    """A Placement query, and the cell to which a request without cross-cell moves is restricted."""

    query: PlacementQuery
    cell_uuid: str | None = None
    needs_enabled: bool = False
    """Whether hosts of disabled services have to be left out here: nova-compute gives them COMPUTE_STATUS_DISABLED,
    which is always forbidden, and no filter judges the service itself."""

    @property
    def group(self) -> RequestGroup:
        """The unsuffixed request group."""
        return self.query.unsuffixed

    def complex(self, fleet: Fleet) -> bool:
        """True if the inventory of a single provider is not sufficient to decide: granular groups, a fallback, or
        nested or sharing providers with one of the classes."""
        query = self.query
        if query.fallback is not None or self.group.in_tree is not None or any(group.suffix for group in query.groups):
            return True
        return any(fleet.resource_class(name, create=True) in fleet._nested_classes for name, _ in self.group.resources)

    @property
    def needs_traits(self) -> bool:
        group, query = self.group, self.query
        return bool(group.required or group.any_of or group.forbidden or query.root_required or query.root_forbidden)

    @property
    def needs_aggregates(self) -> bool:
        return bool(self.group.member_of or self.group.forbidden_aggregates)

    def traits_allow(self, fleet: Fleet, host: HostClass) -> bool:
        """Whether the traits of a host that provides all resources itself match."""
        return root_allows(self.query, host.traits) and traits_pass(self.group, host.traits)

    def aggregates_allow(self, fleet: Fleet, host: HostClass) -> bool:
        """Whether the aggregates of a host that provides all resources itself match."""
        return membership_passes(self.group, frozenset(fleet.aggregates[index].uuid for index in host.aggregates))

    def cell_allows(self, fleet: Fleet, host: HostClass) -> bool:
        """Nova 33 reads only the destination's cell unless a cross-cell move is allowed."""
        return self.cell_uuid is None or host.cell_uuid == self.cell_uuid


def service_is_enabled(fleet: Fleet, host: HostClass) -> bool:
    """Whether the compute service of a host is not disabled."""
    return not host.disabled


def root_allows(query: PlacementQuery, traits: frozenset[str]) -> bool:
    """Whether the root provider has the required and none of the forbidden root traits."""
    return query.root_required <= traits and not query.root_forbidden & traits


def traits_pass(group: RequestGroup, traits: frozenset[str]) -> bool:
    """Placement's required, any-of and forbidden traits on one provider (or the union over several)."""
    return group.required <= traits and not group.forbidden & traits and all(choice & traits for choice in group.any_of)


def membership_passes(group: RequestGroup, aggregates: frozenset[str]) -> bool:
    """Placement's member_of terms on one provider's aggregates."""
    return not group.forbidden_aggregates & aggregates and all(term & aggregates for term in group.member_of)


def placement_requirements(
    fleet: Fleet, policy: Policy, request: Request, *, candidates_given: bool
) -> PlacementRequirements:
    """The requirements of a request. Raises NoValidHost if Nova gives up before it queries Placement, InvalidValue or
    UnknownName for invalid extra specs and image properties. O(aggregates)."""
    spec = request.spec
    destination = spec.requested_destination
    cell = None
    if destination is not None and not destination.allow_cross_cell_move and not candidates_given:
        cell = destination.cell_uuid
    if candidates_given:
        # An external Placement has checked all this; only the amounts are still needed, for the claim.
        spec = replace(spec, requested_destination=None, force_hosts=(), force_nodes=())
        request = request.with_changes(spec=spec)

    def lookup(host: str | None, node: str | None, cell_uuid: str | None) -> Sequence[str]:
        return _providers(fleet, host, node, cell_uuid)

    query = placement_query(
        with_image(request),
        fleet.aggregates,
        lookup,
        policy.options,
        release=policy.own.nova_release,
        minimum_compute_version=fleet.minimum_compute_version,
    )
    query.check()
    if names_hosts(spec):
        # Host selection by name restricts to the same node as in_tree.
        query = replace(query, groups=tuple(replace(group, in_tree=None) for group in query.groups))
    judged = not skips_filters(request.spec) and any(each.name == "ComputeFilter" for each in policy.filters)
    needs_enabled = policy.own.forbid_disabled and not judged and not candidates_given
    return PlacementRequirements(query, cell, needs_enabled=needs_enabled)


def has_one_target(fleet: Fleet, spec: RequestSpec) -> bool:
    """Whether the host and node that the spec names first are one provider, as Placement's query looks them up."""
    destination = spec.requested_destination or Destination()
    host = destination.host or next(iter(spec.force_hosts), None)
    node = destination.node or next(iter(spec.force_nodes), None)
    return len(_providers(fleet, host, node, destination.cell_uuid)) == 1


def _providers(fleet: Fleet, host: str | None, node: str | None, cell_uuid: str | None) -> list[str]:
    if host is not None:
        rows = fleet._rows_of_service_host(host)
        rows = [row for row in rows if node is None or fleet.name(row) == node]
    else:
        row = fleet._names.find(node or "")
        rows = [row] if row >= 0 else []
    return [fleet.uuid(row) for row in rows if cell_uuid is None or fleet._host_class(row).cell_uuid == cell_uuid]
