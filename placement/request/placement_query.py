"""The Placement query of Nova's scheduler for a request, as a value and as query strings.

The value represents all of ``GET /allocation_candidates``; the strings are derived from it. Only aggregates and nodes
supplied by the caller are looked up. Source: Nova 34 ResourceRequest (microversion 1.36).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol
from urllib.parse import urlencode

from ..types.errors import NoValidHost
from ..types.host import Aggregate
from ..types.options import NEWEST_NOVA, Options
from ..types.request import Destination, Image, Request, RequestLevelParams
from . import flavor_and_image as flavor_image
from .flavor_and_image import Wishes
from .prefilters import Known, Narrowing, narrow
from .resource_groups import Groups, groups_of, required_traits

UNLIMITED_BY: Final = frozenset({"group", "same_host", "different_host"})
"""Scheduler hints whose filters need every candidate: the limit is lifted."""


class HostsLookup(Protocol):
    """Finds the root providers of the nodes of ``host`` with the name ``node``; None stands for any."""

    def __call__(self, host: str | None, node: str | None, cell_uuid: str | None) -> Sequence[str]:
        """Provider uuids, in a fixed order; only those of cell ``cell_uuid`` unless it is None. Names match exactly."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestGroup:
    """A request group. The resources of a group with a ``suffix`` come from one provider.

    ``resources``: (resource class, amount), sorted by class. ``any_of``: of each set at least one trait. ``member_of``:
    of each set at least one aggregate uuid. ``in_tree``: uuid of a provider in the tree to use.
    """

    suffix: str = ""
    resources: tuple[tuple[str, int], ...] = ()
    required: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()
    any_of: tuple[frozenset[str], ...] = ()
    member_of: tuple[frozenset[str], ...] = ()
    forbidden_aggregates: frozenset[str] = frozenset()
    in_tree: str | None = None

    def params(self) -> list[tuple[str, str]]:
        """Query parameters of this group, their names with the suffix."""
        params = [("resources", ",".join(f"{name}:{amount}" for name, amount in self.resources))]
        params.append(("required", _traits(self.required, self.forbidden)))
        params += [("required", f"in:{_sorted(traits)}") for traits in self.any_of]
        params += [("member_of", f"in:{_sorted(uuids)}") for uuids in self.member_of]
        params.append(("member_of", f"!in:{_sorted(self.forbidden_aggregates)}" if self.forbidden_aggregates else ""))
        params.append(("in_tree", self.in_tree or ""))
        return [(name + self.suffix, value) for name, value in params if value]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementQuery:
    """A query for allocation candidates. Hashable; equal queries have equal candidates on equal fleets.

    ``groups``: the one without suffix first. ``same_subtree``: suffixes of groups whose providers share an ancestor.
    ``limit``: most candidates, None for all. ``fallback``: a second query whose candidates follow (pinned CPUs on hosts
    that still report them as VCPU).
    """

    groups: tuple[RequestGroup, ...]
    root_required: frozenset[str] = frozenset()
    root_forbidden: frozenset[str] = frozenset()
    group_policy: str | None = None
    same_subtree: tuple[tuple[str, ...], ...] = ()
    limit: int | None = None
    fallback: PlacementQuery | None = None

    @property
    def unsuffixed(self) -> RequestGroup:
        """The group without suffix; an empty one if there is none."""
        return next((group for group in self.groups if not group.suffix), RequestGroup())

    def to_querystring(self) -> str:
        """This query as Nova sends it, without the fallback: sorted and URL-encoded."""
        params: list[tuple[str, str]] = [param for group in self.groups for param in group.params()]
        params.append(("root_required", _traits(self.root_required, self.root_forbidden)))
        params.append(("group_policy", self.group_policy or ""))
        params += [("same_subtree", ",".join(suffixes)) for suffixes in self.same_subtree]
        params.append(("limit", "" if self.limit is None else str(self.limit)))
        return urlencode(sorted(param for param in params if param[1]))

    def to_querystrings(self) -> list[str]:
        """This query and its fallback, in the order in which Nova sends them."""
        return [self.to_querystring()] + (self.fallback.to_querystrings() if self.fallback is not None else [])

    def check(self) -> None:
        """Raise NoValidHost for a query that Placement answers with 400, which Nova treats as "no candidates"."""
        suffixed = [group for group in self.groups if group.suffix]
        if len(suffixed) > 1 and self.group_policy is None:
            raise _refused("several request groups need group_policy", "set the extra spec group_policy")
        subtree = {suffix for suffixes in self.same_subtree for suffix in suffixes}
        if not self.groups:
            raise _refused("the request has no resources", "give the flavor some")
        unknown = subtree - {group.suffix for group in suffixed}
        if unknown:
            groups = ", ".join(group.suffix for group in suffixed) or "none"
            missing = ", ".join(map(repr, sorted(unknown)))
            raise _refused(f"same_subtree names {missing}, which is no request group", f"the groups are: {groups}")
        for group in self.groups:
            if not group.resources and group.suffix not in subtree:
                raise _refused(f"request group {group.suffix!r} has no resources", "give it a resource class")
            if group.required & group.forbidden:
                clash = _sorted(group.required & group.forbidden)
                raise _refused(f"{clash} both required and forbidden", "change the extra spec or the image property")


def placement_query(
    request: Request,
    aggregates: Iterable[Aggregate],
    hosts_lookup: HostsLookup,
    options: Options,
    *,
    release: str = NEWEST_NOVA,
    minimum_compute_version: int | None = None,
) -> PlacementQuery:
    """The query for ``request`` as a release of Nova makes it. O(aggregates). ``minimum_compute_version``: the least
    service version of all nova-computes, None if not all are known.

    Raises NoValidHost if Nova gives up before it queries Placement; InvalidValue and UnknownName for invalid extra
    specs and image properties; NoImage without an image (see ``with_image``).
    """
    wishes = Wishes.of(request, release)
    groups = groups_of(request, wishes)
    known = Known(request, tuple(aggregates), required_traits(groups), options, release, minimum_compute_version)
    narrowing = narrow(known)
    query = _query(request, groups, narrowing, hosts_lookup, options)
    if flavor_image.cpu_policy(wishes) != "dedicated" or options.workarounds.disable_fallback_pcpu_query:
        return query
    unpinned = _query(request, groups_of(request, wishes, pinned=False), narrowing, hosts_lookup, options)
    return replace(query, fallback=unpinned)


def resources_of(request: Request, release: str = NEWEST_NOVA) -> dict[str, int]:
    """Amounts by resource class that one instance of ``request`` takes of all providers together, as a release of Nova
    asks for them; no fleet and no policy is needed. InvalidValue and UnknownName as for ``placement_query``."""
    request = with_image(request)
    total: dict[str, int] = {}
    for group in groups_of(request, Wishes.of(request, release)).by_suffix.values():
        for name, amount in group.resources.items():
            total[name] = total.get(name, 0) + amount
    return dict(sorted(total.items()))


def with_image(request: Request) -> Request:
    """``request`` with an empty image if it has none, as nova-api creates one for a boot from volume."""
    if request.image is not None:
        return request
    return request.with_changes(spec=replace(request.spec, image=Image()))


def _query(
    request: Request, groups: Groups, narrowing: Narrowing, hosts_lookup: HostsLookup, options: Options
) -> PlacementQuery:
    destination = request.spec.requested_destination or Destination()
    in_tree, is_spread = _target(request, destination, hosts_lookup)
    unlimited = is_spread or not UNLIMITED_BY.isdisjoint(request.scheduler_hints)
    wanted = tuple(frozenset(uuids.split(",")) for uuids in destination.aggregates)
    merged = _group("", groups)
    unsuffixed = replace(
        merged,
        member_of=tuple(sorted((*wanted, *narrowing.member_of, *merged.member_of), key=sorted)),
        forbidden_aggregates=destination.forbidden_aggregates
        | narrowing.forbidden_aggregates
        | merged.forbidden_aggregates,
        in_tree=in_tree or merged.in_tree,
    )
    suffixed = (
        _with_traits(_group(suffix, groups), narrowing.group_required.get(suffix))
        for suffix in sorted(groups.by_suffix)
        if suffix
    )
    params = request.spec.request_level_params or RequestLevelParams()
    return PlacementQuery(
        groups=tuple(group for group in (unsuffixed, *suffixed) if group != RequestGroup()),
        root_required=narrowing.root_required | params.root_required,
        root_forbidden=narrowing.root_forbidden | params.root_forbidden,
        group_policy=groups.policy,
        same_subtree=tuple(tuple(sorted(suffixes)) for suffixes in params.same_subtree),
        limit=None if unlimited else options.scheduler.max_placement_results,
    )


def _group(suffix: str, groups: Groups) -> RequestGroup:
    group = groups.by_suffix.get(suffix)
    if group is None:
        return RequestGroup(suffix=suffix)
    return RequestGroup(
        suffix=suffix,
        resources=tuple(sorted(group.resources.items())),
        required=frozenset(group.required),
        forbidden=frozenset(group.forbidden),
        member_of=tuple(sorted(group.member_of, key=sorted)),
        forbidden_aggregates=frozenset(group.forbidden_aggregates),
        in_tree=group.in_tree,
    )


def _with_traits(group: RequestGroup, traits: frozenset[str] | None) -> RequestGroup:
    return group if traits is None else replace(group, required=group.required | traits)


def _target(request: Request, destination: Destination, hosts_lookup: HostsLookup) -> tuple[str | None, bool]:
    """The provider of the only node that the request may use, if there is one, and whether there are several.

    The requested destination prevails over the first forced host and node.
    """
    spec = request.spec
    host = destination.host or next(iter(spec.force_hosts), None)
    node = destination.node or next(iter(spec.force_nodes), None)
    if host is None and node is None:
        return None, False
    uuids = hosts_lookup(host, node, destination.cell_uuid)
    if not uuids:
        raise NoValidHost(
            f"no such host: host {host}, node {node}", hint="check the names; they are case-sensitive here"
        )
    return (uuids[0], False) if len(uuids) == 1 else (None, True)


def _traits(required: Iterable[str], forbidden: Iterable[str]) -> str:
    return ",".join([*sorted(required), *(f"!{trait}" for trait in sorted(forbidden))])


def _sorted(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def _refused(why: str, hint: str) -> NoValidHost:
    return NoValidHost(f"Placement refuses the query: {why}", hint=hint)
