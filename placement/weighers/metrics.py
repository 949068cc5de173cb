"""Metrics that hosts report. Source: Nova 33 MetricsWeigher.

raw = sum of metric * ratio over [metrics] weight_setting; multiplier [metrics] weight_multiplier (1.0)

A missing metric fails the request if [metrics] required. Else it makes raw = weight_of_unavailable, unless ratio or
multiplier is 0, when it counts as 0.
"""

from __future__ import annotations

from typing import ClassVar

from ..types.errors import MetricNotFound
from ..types.host import HostState
from ..types.request import Request
from .base import Weigher


class RequiredMetricNotFound(MetricNotFound):
    """A metric of [metrics] weight_setting is missing on a host, and [metrics] required is set."""

    nova_error: ClassVar[str] = "ComputeHostMetricNotFound"


class MetricsWeigher(Weigher):
    """Prefers hosts by a weighted sum of their metrics. An aggregate overrides it by ``metrics_weight_multiplier``."""

    name: ClassVar[str] = "MetricsWeigher"
    option: ClassVar[str] = "metrics_weight_multiplier"

    def configured(self) -> float:
        return self.options.metrics.weight_multiplier

    def applies(self, request: Request) -> bool:
        return bool(self.options.metrics.weight_setting)

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"metrics"} if self.options.metrics.required else {"metrics", "aggregates"})

    def raw(self, host: HostState, request: Request) -> float:
        """Raises RequiredMetricNotFound. O(metrics in weight_setting)."""
        metrics = host.metrics
        value = 0.0
        for name, ratio in self.options.metrics.weight_setting.items():
            if name in metrics:
                value += metrics[name] * ratio
            elif self.options.metrics.required:
                raise _not_found(name, host)
            elif ratio * self.host_multiplier(host) != 0:
                return self.options.metrics.weight_of_unavailable
        return value

    def describe(self, host: HostState, request: Request, best: float | None = None) -> str:
        setting = self.options.metrics.weight_setting
        terms = [f"{name} {host.metrics.get(name, 'missing')} * {ratio:.15g}" for name, ratio in setting.items()]
        text = f"metrics {self.raw(host, request):.15g} ({', '.join(terms) or 'none are weighed'})"
        return text if best is None else f"{text} of best {best:.15g}"


def _not_found(name: str, host: HostState) -> RequiredMetricNotFound:
    return RequiredMetricNotFound(
        f"metric {name} is missing on host {host.host}, node {host.nodename}",
        field="metrics.weight_setting",
        hint="enable MetricsFilter, or set [metrics] required = false",
    )
