"""Whether a host's aggregates are reserved for other projects. Source: Nova 33 AggregateMultiTenancyIsolation."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .aggregate_metadata import listed_values, shown
from .base import Filter

_KEY_PREFIX = "filter_tenant_id"


class AggregateMultiTenancyIsolation(Filter):
    """Passes a host whose aggregates name no project in any ``filter_tenant_id*``, or also the request's."""

    name: ClassVar[str] = "AggregateMultiTenancyIsolation"
    once_per_request: ClassVar[bool] = True

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"aggregates"})

    def key(self, request: Request) -> Hashable:
        return request.project_id

    def host_passes(self, host: HostState, request: Request) -> bool:
        projects = _projects(host)
        return not projects or request.project_id in projects

    def reason(self, host: HostState, request: Request) -> str:
        return f"reserved for projects {shown(_projects(host))}, not for {request.project_id!r}"


def _projects(host: HostState) -> set[str]:
    values = (projects for key, projects in listed_values(host).items() if key.startswith(_KEY_PREFIX))
    return set().union(*values)
