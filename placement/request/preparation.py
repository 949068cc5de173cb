"""The stage before a decision: specs completed once each, and their zones, hosts and server groups looked up.

Rules of completion are in ``prepare``; here is what depends on the fleet, and what is kept between requests.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from ..filters import BUILTIN_FILTERS
from ..filters.base import Filter
from ..filters.resource_pools import ResourcePoolFilter
from ..fleet.fleet import Fleet
from ..fleet.server_groups import GROUP_POLICIES
from ..policy.policy import Policy
from ..types.errors import InvalidValue, UnknownName
from ..types.recently_used import RecentlyUsed
from ..types.request import Destination, Request, RequestSpec, ServerGroup
from ..weighers import BUILTIN_WEIGHERS
from ..weighers.base import Weigher
from .checks import check_spec
from .prepare import GROUP_RULES, Rules, complete, group_of_hint

SPECS_BYTES: Final = 32 << 20
"""Memory of completed specs, and of as many whose zones or hosts were found; those that were used least recently are
forgotten."""


def rules_of(policy: Policy) -> Rules:
    """The names of a policy's filters and weighers, and of those of Nova's that third-party ones derive from; and
    whether some are not Hostler's own."""
    own = {*BUILTIN_FILTERS.values(), *BUILTIN_WEIGHERS.values(), ResourcePoolFilter}
    every: tuple[Filter | Weigher, ...] = (*policy.filters, *policy.weighers)
    names = {rule.name for rule in every}.union(*(getattr(rule, "stands_for", ()) for rule in every))
    return Rules(frozenset(names), any(type(rule) not in own for rule in every))


class Preparation:
    """Completes and checks requests for one fleet under one policy. Off where the policy says so, unless a spec asks
    for it itself (``RequestSpec.prepare``)."""

    def __init__(self, fleet: Fleet, policy: Policy) -> None:
        self._fleet, self._policy, self._rules = fleet, policy, rules_of(policy)
        self._on = policy.own.prepare
        self._completed: RecentlyUsed[RequestSpec, tuple[RequestSpec | None, bool]] = RecentlyUsed(SPECS_BYTES)
        """A spec -> what it becomes (None: nothing is added), whether it names a zone, a host or a server group."""
        self._zoned: RecentlyUsed[RequestSpec, tuple[tuple[int, ...], RequestSpec]] = RecentlyUsed(SPECS_BYTES)
        self._zones: tuple[tuple[int, ...], frozenset[str]] = ((), frozenset())

    def __call__(self, request: Request) -> Request:
        """The request completed; the same object if nothing is to be added. O(1) for a spec that was met before and
        names nothing of the fleet.

        Raises InvalidValue or UnknownName, naming what is at fault.
        """
        spec = request.spec
        known = self._completed.get(spec) or self._completed.again(spec) or self._complete(spec)
        made, names_something = spec if known[0] is None else known[0], known[1]
        group = request.server_group
        if made is spec and not names_something and group is None:
            return request
        if not self.wanted(spec):
            return request
        if names_something:
            made = self._with_names(made)
            group = self._group(made, group)
        if group is not None:
            self._check_group_rule(group)
        if made is not spec or group is not request.server_group:
            return replace(request, spec=made, server_group=group)
        return request

    def wanted(self, spec: RequestSpec) -> bool:
        """Whether the spec is completed and checked."""
        return self._on if spec.prepare is None else spec.prepare

    def _complete(self, spec: RequestSpec) -> tuple[RequestSpec | None, bool]:
        made = spec
        if self.wanted(spec):
            check_spec(spec)
            made = complete(spec, self._policy, self._rules)
        known = (None if made is spec else made, made is not spec or _names_something(made))
        return self._completed.keep(spec, known, spec.nbytes if made is spec else 2 * spec.nbytes)

    # zones and hosts

    def _with_names(self, spec: RequestSpec) -> RequestSpec:
        """``spec`` if its zone and hosts exist; with the zone of hosts in none, those in others are ruled out."""
        fleet = self._fleet
        epochs = (fleet._static_epoch, fleet._topology_epoch, len(fleet._classes), fleet.rows)
        known = self._zoned.get(spec) or self._zoned.again(spec)
        if known is not None and known[0] == epochs:
            return known[1]
        made = self._in_zone(self._with_hosts(spec), epochs)
        self._zoned.keep(spec, (epochs, made), spec.nbytes if made is spec else 2 * spec.nbytes)
        return made

    def _in_zone(self, spec: RequestSpec, epochs: tuple[int, ...]) -> RequestSpec:
        zone = spec.availability_zone
        if zone is None:
            return spec
        zones = self._known_zones(epochs)
        default = self._policy.options.default.default_availability_zone
        if zone not in zones and not (spec.force_hosts or spec.force_nodes):
            raise UnknownName.among("availability zone", zone, zones, field="availability_zone")
        if zone != default or not len(zones - {default}):
            return spec
        elsewhere = frozenset(
            aggregate.uuid for aggregate in self._fleet.aggregates if aggregate.metadata.get("availability_zone")
        )
        destination = spec.requested_destination or Destination()
        forbidden = destination.forbidden_aggregates | elsewhere
        destination = replace(destination, forbidden_aggregates=forbidden)
        return replace(spec, availability_zone=None, requested_destination=destination, prepare=False)

    def _known_zones(self, epochs: tuple[int, ...]) -> frozenset[str]:
        """The zones of hosts, and the default one if a host is in none. O(rows) where hosts or aggregates changed."""
        if self._zones[0] != epochs:
            fleet = self._fleet
            rows = np.flatnonzero(fleet.is_host[: fleet.rows])
            default = self._policy.options.default.default_availability_zone
            found = set[str]()
            for number in np.unique(fleet._store.row["class_of"][rows]).tolist():
                metadata = (fleet.aggregates[index].metadata for index in fleet._classes[number].aggregates)
                found |= {each["availability_zone"] for each in metadata if "availability_zone" in each} or {default}
            self._zones = (epochs, frozenset(found))
        return self._zones[1]

    def _with_hosts(self, spec: RequestSpec) -> RequestSpec:
        """``spec`` with its forced hosts spelt as they are; UnknownName for a host or node that does not exist."""
        self._check_targets(spec)
        fleet, spelt = self._fleet, list[str]()
        for name in spec.force_hosts:
            rows = fleet._nodes.rows_in_any_case([name], fleet._topology_epoch)
            if not rows:
                raise UnknownName.among("host", name, _some_hosts(fleet), field="force_hosts")
            spelt += dict.fromkeys(fleet._service_host(row) for row in rows)
        if set(spelt) <= set(spec.force_hosts):
            return spec
        return replace(spec, force_hosts=tuple(dict.fromkeys(spelt)), prepare=False)

    def _check_targets(self, spec: RequestSpec) -> None:
        fleet, destination = self._fleet, spec.requested_destination
        for name in spec.force_nodes:
            if fleet._names.find(name) < 0:
                raise UnknownName.among("node", name, _some_hosts(fleet), field="force_nodes")
        if destination is None:
            return
        host, node = destination.host, destination.node
        if host is not None and not fleet._rows_of_service_host(host):
            raise UnknownName.among("host", host, _some_hosts(fleet), field="requested_destination.host")
        if node and fleet._names.find(node) < 0:
            raise UnknownName.among("node", node, _some_hosts(fleet), field="requested_destination.node")

    # server groups

    def _group(self, spec: RequestSpec, group: ServerGroup | str | None) -> ServerGroup | str | None:
        """The group of the hint, unless the request names it itself; InvalidValue if they differ."""
        hinted = group_of_hint(spec)
        if hinted is None:
            return group
        if group is None:
            self._fleet._group_id(hinted)
            return hinted
        named = group.uuid if isinstance(group, ServerGroup) else group
        if named != hinted:
            raise InvalidValue(
                f"the hint names the server group {hinted}, server_group {named}", field="scheduler_hints.group"
            )
        return group

    def _check_group_rule(self, group: ServerGroup | str) -> None:
        if isinstance(group, ServerGroup):
            if self._rules.custom:
                return  # they may read it, as hints and topologies that a request brings
            policy = group.policy
        else:
            number = self._fleet._kernel.group_policy(self._fleet._group_id(group))[0]
            policy = next(name for name, known in GROUP_POLICIES.items() if known == number)
        self._rules.need(GROUP_RULES[policy], f"a server group of policy {policy}", "server_group")


def _names_something(spec: RequestSpec) -> bool:
    named = spec.availability_zone is not None or spec.force_hosts or spec.force_nodes
    return bool(named or spec.requested_destination is not None or "group" in spec.scheduler_hints)


def _some_hosts(fleet: Fleet, most: int = 20_000) -> list[str]:
    """Names of hosts to find close ones among; in a large fleet the first."""
    rows = np.flatnonzero(fleet.is_host[: fleet.rows])[:most].tolist()
    return [fleet._service_host(row) for row in rows]
