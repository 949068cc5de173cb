"""Metrics of the reconciler: calls by back end, operation and outcome, queues, orphans, strangers, time to active."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from ..reconcile.reconciler import Reconciler


def reconcile_metrics(reconciler: Reconciler) -> Iterator[Metric]:
    """All of them, computed now. O(guests)."""
    calls = CounterMetricFamily(
        "hostler_backend_calls", "Calls on back ends by outcome", labels=("backend", "operation", "outcome")
    )
    seconds = CounterMetricFamily(
        "hostler_backend_call_seconds", "Time that calls on back ends took", labels=("backend", "operation")
    )
    queued = GaugeMetricFamily("hostler_reconcile_queue", "Guests that wait for a step", labels=("backend",))
    is_open = GaugeMetricFamily(
        "hostler_backend_usable", "1 while calls may be made on the back end, else 0", labels=("backend",)
    )
    orphans = CounterMetricFamily(
        "hostler_orphans_removed", "Guests without a claim that were removed", labels=("backend",)
    )
    strangers = GaugeMetricFamily("hostler_strangers", "Guests of others at the last inventory", labels=("backend",))
    built = SummaryMetricFamily(
        "hostler_build_seconds", "Time from a guest's claim to its confirmation", labels=("backend",)
    )
    for status in reconciler.status().backends:
        backend, name = reconciler.backends[status.name], (status.name,)
        counts = backend.counts
        for (operation, outcome), count in sorted(counts.calls.items()):
            calls.add_metric((*name, operation, outcome), count)
        for operation, total in sorted(counts.seconds.items()):
            seconds.add_metric((*name, operation), total)
        queued.add_metric(name, status.queued)
        is_open.add_metric(name, float(status.enabled and status.open and status.breaker == "closed"))
        orphans.add_metric(name, counts.orphans_removed)
        strangers.add_metric(name, counts.strangers)
        built.add_metric(name, counts.builds, counts.build_seconds)
    guests = GaugeMetricFamily("hostler_guests", "Guests by back end and status", labels=("backend", "status"))
    for (name_of, status_of), count in sorted(reconciler.lives.counts().items()):
        guests.add_metric((name_of, status_of), count)
    yield from (calls, seconds, queued, is_open, orphans, strangers, built, guests)
