"""Metrics of a parent of regions."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..regions.cascade import Cascade


def region_metrics(cascade: Cascade) -> Iterator[Metric]:
    """By region: whether it answers, the age of its summary, and what became of requests; what is left to release."""
    alive = GaugeMetricFamily("hostler_region_up", "1 while the region answers", labels=("region",))
    text = "Time since the region told its summary; -1: it has not"
    age = GaugeMetricFamily("hostler_region_summary_age_seconds", text, labels=("region",))
    requests = CounterMetricFamily(
        "hostler_region_requests", "Requests that the region was asked for, by outcome", labels=("region", "outcome")
    )
    summaries = CounterMetricFamily(
        "hostler_region_summaries", "Summaries that the region has sent", labels=("region",)
    )
    ignored = CounterMetricFamily(
        "hostler_region_summaries_ignored", "Summaries of the region that are malformed", labels=("region",)
    )
    for name, link in cascade.links.items():
        alive.add_metric((name,), float(link.alive))
        age.add_metric((name,), -1.0 if link.age is None else link.age)
        for outcome in ("placed", "refused", "unanswered"):
            requests.add_metric((name, outcome), getattr(link, outcome))
        summaries.add_metric((name,), link.summaries)
        ignored.add_metric((name,), link.summaries_ignored)
    yield from (alive, age, requests, summaries, ignored)
    text = "Refusals of regions that had room by their summaries"
    yield CounterMetricFamily("hostler_region_hopeful_refusals", text, value=cascade.claiming.hopeful)
    text = "Claims that regions may hold although others have taken the guests, and that are to be released"
    yield GaugeMetricFamily("hostler_region_leftovers", text, value=cascade.leftovers)
