"""Limits on the number of guests, or of guests in heavy I/O, on a host.

    num_io_ops < max_io_ops_per_host            num_instances < max_instances_per_host

The aggregate variants take the least limit in the metadata of the host's aggregates; the configured one where there is
none or where one of them is no integer. Source: Nova 33 (Aggregate)IoOpsFilter, (Aggregate)NumInstancesFilter.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .aggregate_metadata import whole_values
from .base import Bound, Filter


class _LoadFilter(Filter):
    """Passes a host on which the field ``column`` is below the limit."""

    column: ClassVar[str]
    option: ClassVar[str]

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({self.column})

    def key(self, request: Request) -> Hashable:
        return None

    def bounds(self, request: Request) -> tuple[Bound, ...] | None:
        return (Bound(self.column, high=self._configured() - 1),)

    def host_passes(self, host: HostState, request: Request) -> bool:
        return self._load(host) < self._limit(host)

    def reason(self, host: HostState, request: Request) -> str:
        return f"{self.column} {self._load(host)} is not below {self.option} {self._limit(host)}"

    def _load(self, host: HostState) -> int:
        load: int = getattr(host, self.column)
        return load

    def _limit(self, host: HostState) -> int:
        return self._configured()

    def _configured(self) -> int:
        limit: int = getattr(self.options.filter_scheduler, self.option)
        return limit


class _AggregateLoadFilter(_LoadFilter):
    """Passes a host on which the field ``column`` is below the limit of its aggregates."""

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({self.column, "aggregates"})

    def bounds(self, request: Request) -> tuple[Bound, ...] | None:
        return None  # the limit differs from host to host

    def _limit(self, host: HostState) -> int:
        try:
            return min((int(text) for text in whole_values(host, self.option)), default=self._configured())
        except ValueError:
            return self._configured()


class IoOpsFilter(_LoadFilter):
    """Passes a host with fewer than ``max_io_ops_per_host`` guests being built, resized, migrated and the like."""

    name: ClassVar[str] = "IoOpsFilter"
    column: ClassVar[str] = "num_io_ops"
    option: ClassVar[str] = "max_io_ops_per_host"


class NumInstancesFilter(_LoadFilter):
    """Passes a host with fewer than ``max_instances_per_host`` guests."""

    name: ClassVar[str] = "NumInstancesFilter"
    column: ClassVar[str] = "num_instances"
    option: ClassVar[str] = "max_instances_per_host"


class AggregateIoOpsFilter(_AggregateLoadFilter):
    """IoOpsFilter with the limit from the aggregates' ``max_io_ops_per_host``."""

    name: ClassVar[str] = "AggregateIoOpsFilter"
    column: ClassVar[str] = "num_io_ops"
    option: ClassVar[str] = "max_io_ops_per_host"


class AggregateNumInstancesFilter(_AggregateLoadFilter):
    """NumInstancesFilter with the limit from the aggregates' ``max_instances_per_host``."""

    name: ClassVar[str] = "AggregateNumInstancesFilter"
    column: ClassVar[str] = "num_instances"
    option: ClassVar[str] = "max_instances_per_host"
