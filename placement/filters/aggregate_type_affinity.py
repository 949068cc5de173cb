"""Whether a host's aggregates are reserved for other flavors. Source: Nova 33 AggregateTypeAffinityFilter."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .aggregate_metadata import shown, split, whole_values
from .base import Filter

_KEY = "instance_type"


class AggregateTypeAffinityFilter(Filter):
    """Passes a host whose aggregates name no flavor in ``instance_type``, or also the request's."""

    name: ClassVar[str] = "AggregateTypeAffinityFilter"
    once_per_request: ClassVar[bool] = True

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"aggregates"})

    def key(self, request: Request) -> Hashable:
        return request.flavor.name

    def host_passes(self, host: HostState, request: Request) -> bool:
        flavors = _flavors(host)
        return not flavors or request.flavor.name in flavors

    def reason(self, host: HostState, request: Request) -> str:
        return f"reserved for flavors {shown(_flavors(host))}, not for {request.flavor.name!r}"


def _flavors(host: HostState) -> set[str]:
    return {flavor for text in whole_values(host, _KEY) for flavor in split(text)}
