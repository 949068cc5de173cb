"""Metrics of the shadow policy: requests by how it would have decided, and how far it is behind."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..shadow.shadowing import Shadowing


def shadow_metrics(shadow: Shadowing) -> Iterator[Metric]:
    """All of them, computed now."""
    requests = CounterMetricFamily(
        "hostler_shadow_requests", "Requests by how the shadow policy would have decided them", labels=("outcome",)
    )
    for outcome in shadow.counts.__struct_fields__:
        requests.add_metric((outcome,), getattr(shadow.counts, outcome))
    behind = GaugeMetricFamily("hostler_shadow_behind", "Commands that the shadow policy is behind", shadow.behind)
    running = GaugeMetricFamily(
        "hostler_shadow_running", "1 while the shadow policy is followed, else 0", float(shadow.running)
    )
    restarts = CounterMetricFamily("hostler_shadow_restarts", "Ends of the child that follows", shadow.restarts)
    yield from (requests, behind, running, restarts)
