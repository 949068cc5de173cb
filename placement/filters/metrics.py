"""Whether a host reports every metric that is weighed. Source: Nova 33 MetricsFilter."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .base import Filter


class MetricsFilter(Filter):
    """Passes a host that has all metrics named in ``[metrics] weight_setting``."""

    name: ClassVar[str] = "MetricsFilter"

    def applies(self, request: Request) -> bool:
        return bool(self.options.metrics.weight_setting)

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"metrics"})

    def key(self, request: Request) -> Hashable:
        return None

    def host_passes(self, host: HostState, request: Request) -> bool:
        return all(name in host.metrics for name in self.options.metrics.weight_setting)

    def reason(self, host: HostState, request: Request) -> str:
        missing = [name for name in self.options.metrics.weight_setting if name not in host.metrics]
        return f"metrics {', '.join(missing)} are not reported"
