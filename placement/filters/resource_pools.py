"""Resource pools: hosts that are granted to some projects, exclusively or beside others."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from ..types.host import Aggregate, HostState
from ..types.request import Request
from .base import Filter

POOLS_HINT: Final = "_hostler_pools"
"""Scheduler hint with the uuids of the pools that the request's project is granted. The service sets it from the
grants, and removes values set by users."""
EXCLUSIVE: Final = "hostler_exclusive_pool"
"""Metadata key of the aggregate that stands for an exclusive pool."""


def _is_exclusive(aggregate: Aggregate) -> bool:
    return EXCLUSIVE in aggregate.metadata


class ResourcePoolFilter(Filter):
    """A pool is an aggregate. A project with grants places on hosts of its pools; others on hosts of no exclusive pool.

    It reads static fields only, so hosts of a class are judged once.
    """

    name = "ResourcePoolFilter"
    runs_on_rebuild = False
    spec_only = True

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"aggregates"})

    def key(self, request: Request) -> Hashable:
        return tuple(request.scheduler_hints.get(POOLS_HINT, ()))

    def host_passes(self, host: HostState, request: Request) -> bool:
        granted = request.scheduler_hints.get(POOLS_HINT, ())
        if granted:
            return any(aggregate.uuid in granted for aggregate in host.aggregates)
        return not any(map(_is_exclusive, host.aggregates))

    def reason(self, host: HostState, request: Request) -> str:
        if request.scheduler_hints.get(POOLS_HINT, ()):
            return "is in no pool that the project is granted"
        pools = [aggregate.name for aggregate in host.aggregates if _is_exclusive(aggregate)]
        return f"is in the exclusive pool {', '.join(pools)}"
