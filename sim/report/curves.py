"""Which curves a report draws of outcomes, as plain values; what draws them is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from ..run.run import RESOURCES, Outcome

NAMES: Final = {"VCPU": "vCPU", "MEMORY_MB": "memory", "DISK_GB": "disk"}
MOST: Final = 8
"""Outcomes in one chart: more could not be told apart."""


class Curve(NamedTuple):
    """Values over hours."""

    label: str
    hours: list[float]
    values: list[float]


class Band(NamedTuple):
    """Of several runs the 10th, 50th and 90th percentiles of a value over hours; a run that has ended stays at its last
    value."""

    hours: list[float]
    low: list[float]
    middle: list[float]
    high: list[float]


class Chart(NamedTuple):
    """Curves over one axis, in ``unit``; behind them a band, and a span of hours, marked, with its middle."""

    title: str
    unit: str
    curves: list[Curve]
    band: Band | None = None
    marked: tuple[float, float | None, float] | None = None


def of_one(outcome: Outcome) -> list[Chart]:
    """A run by itself."""
    zones = [zone for zone in outcome.samples[0].used_percent if zone != "all"]
    names = (("guests", "guests"), ("waiting", "waiting"), ("refused", "refused so far"))
    counts = [curve(outcome, field, name) for field, name in names]
    charts = [
        Chart("Given, % of the fleet", "%", by_resource(outcome)),
        Chart("Guests", "", [each for each in counts if any(each.values)]),
        Chart("vCPUs given by zone, %", "%", [by_zone(outcome, zone, zone) for zone in zones]),
        Chart("Idle vCPUs without memory beside them, %", "%", [curve(outcome, "stranded_percent", "stranded")]),
    ]
    return [chart for chart in charts if any(any(each.values) for each in chart.curves)]


def of_several(outcomes: Sequence[Outcome], labels: Sequence[str]) -> list[Chart]:
    """Runs side by side."""
    named = list(zip(outcomes, labels, strict=True))
    charts = [
        Chart("Refused so far", "", [curve(outcome, "refused", label) for outcome, label in named]),
        Chart("vCPUs given, %", "%", [by_zone(outcome, "all", label) for outcome, label in named]),
        Chart("Idle vCPUs without memory, %", "%", [curve(o, "stranded_percent", label) for o, label in named]),
    ]
    return [chart for chart in charts if any(any(each.values) for each in chart.curves)]


def of_forecast(outcomes: Sequence[Outcome], span: tuple[float, float | None, float] | None) -> list[Chart]:
    """Runs that differ in their seeds, as bands. ``span``: from when to when capacity runs out, in hours, and the
    median."""
    return [
        Chart(f"{NAMES[name]} given, %", "%", [], band(outcomes, name), span)
        for name in RESOURCES
        if any(outcome.peak_percent[name] for outcome in outcomes)
    ]


def by_resource(outcome: Outcome) -> list[Curve]:
    """What is given of each resource class that anything is given of."""
    hours = [sample.hours for sample in outcome.samples]
    found = [
        Curve(NAMES[name], hours, [sample.used_percent["all"][name] for sample in outcome.samples])
        for name in RESOURCES
    ]
    return [each for each in found if any(each.values)]


def by_zone(outcome: Outcome, zone: str, label: str) -> Curve:
    """vCPUs given in a zone."""
    hours = [sample.hours for sample in outcome.samples]
    return Curve(label, hours, [sample.used_percent.get(zone, {}).get("VCPU", 0.0) for sample in outcome.samples])


def curve(outcome: Outcome, field: str, label: str) -> Curve:
    """A field of the samples."""
    samples = outcome.samples
    return Curve(label, [sample.hours for sample in samples], [float(getattr(sample, field)) for sample in samples])


def band(outcomes: Sequence[Outcome], resource: str) -> Band:
    """What is given of a resource class."""
    sampled = [outcome.samples for outcome in outcomes if outcome.samples]
    hours = max(([sample.hours for sample in samples] for samples in sampled), key=len, default=[])
    given = np.zeros((len(sampled), len(hours)))
    for row, samples in zip(given, sampled, strict=True):
        values = [sample.used_percent["all"][resource] for sample in samples]
        row[: len(values)], row[len(values) :] = values, values[-1]
    if not len(sampled):
        return Band([], [], [], [])
    low, middle, high = np.percentile(given, [10, 50, 90], axis=0).round(3).tolist()
    return Band(hours, low, middle, high)


def labels(outcomes: Sequence[Outcome]) -> list[str]:
    """What tells each outcome from the others."""
    sizes, seeds = {each.hosts for each in outcomes}, {each.seed for each in outcomes}
    return [
        each.policy
        + (f", {each.hosts:,} hosts" if len(sizes) > 1 else "")
        + (f", seed {each.seed}" if len(seeds) > 1 else "")
        for each in outcomes
    ]
