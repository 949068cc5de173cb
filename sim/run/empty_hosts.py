"""Guests with NUMA topologies that no empty host of a plan could hold, as the engine judges them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from ...placement.types.request import Request, RequestSpec
from .fleet_plan import FleetPlan
from .holding import could_hold
from .policies import asked_rules, policy_of
from .site import Site

_CELLS = "hw:"


def refused_by_empty_hosts(plan: FleetPlan, specs: Iterable[RequestSpec]) -> list[RequestSpec]:
    """Those of the specs with NUMA topologies that an empty host of none of the plan's kinds could take, whatever the
    policy prefers. None of a plan with a state, whose hosts have cells that it does not tell. O(such specs * kinds)."""
    celled = [spec for spec in specs if any(key.startswith(_CELLS) for key in spec.flavor.extra_specs)]
    if plan.state or not celled:
        return []
    filters, weighers = asked_rules(celled, ())
    policy = policy_of("nova", filters=filters, weighers=weighers)
    sites = [
        (kind, Site(FleetPlan(name=plan.name, hardware=(msgspec.structs.replace(kind, count=1),)), policy, seed=0))
        for kind in plan.hardware
    ]
    return [spec for spec in celled if not any(_takes(site, spec) for kind, site in sites if could_hold(kind, spec))]


def _takes(site: Site, spec: RequestSpec) -> bool:
    """True if the empty hosts of a site could take a guest, in whatever zone."""
    request = Request(spec=replace(spec, availability_zone=None))
    return site.engine.fits(request, limit=1).count > 0
