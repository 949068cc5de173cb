"""Which curves a report draws of outcomes, as plain values; what draws them is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...placement.types.counting import counted
from ..questions.planning import Compared, Size
from ..run.run import Outcome

NAMES: Final = {"VCPU": "vCPUs", "MEMORY_MB": "memory", "DISK_GB": "disk", "PCPU": "PCPUs", "GPU": "GPUs"}
UNITS: Final = {"MEMORY_MB": (1024.0, "GiB"), "DISK_GB": (1.0, "GiB")}
"""What amounts are divided by, and the unit that they have then."""
MOST: Final = 8
"""Outcomes in one chart: more could not be told apart."""
GIVEN: Final = "Given, and what the hosts that run can give"


class Curve(NamedTuple):
    """Values over hours. ``way``: whose colour it has, that of its policy; "" for one by its place."""

    label: str
    hours: list[float]
    values: list[float]
    way: str = ""


class Band(NamedTuple):
    """Of several runs the 10th, 50th and 90th percentiles of a value over hours; a run that has ended, as capacity had
    run out, stays at its greatest value: left out, only those with the fewest guests would remain."""

    hours: list[float]
    low: list[float]
    middle: list[float]
    high: list[float]


class Span(NamedTuple):
    """Hours between which something was the case."""

    label: str
    begin: float
    end: float


class Point(NamedTuple):
    """A value with its interval, if it has one, and what it is of; ``way`` as of a curve. ``x``: where it stands on an
    axis of numbers, such as hosts; None on one of names."""

    label: str
    value: float
    low: float | None
    high: float | None
    way: str = ""
    x: float | None = None


class Chart(NamedTuple):
    """Curves over one axis of time, in ``unit``; behind them a band, a span of hours, marked, with its middle, and
    spans of outages. ``limit``: what there is, which grows in steps. Charts of one title are panels beside each
    other, each with its ``panel``. ``points``, in place of all that, are values with intervals over an axis that
    ``axis`` names. ``begins``: date and time of hour 0. ``most``: the least that the axis must have room
    for."""

    title: str
    unit: str
    curves: list[Curve]
    band: Band | None = None
    marked: tuple[float, float | None, float] | None = None
    limit: Curve | None = None
    spans: tuple[Span, ...] = ()
    panel: str = ""
    points: tuple[Point, ...] = ()
    axis: str = ""
    begins: str | None = None
    most: float = 0.0


def of_one(outcome: Outcome) -> list[Chart]:
    """A run by itself."""
    zones = [zone for zone in outcome.samples[0].used_percent if zone != "all"]
    names = (("guests", "guests"), ("waiting", "waiting"), ("refused", "refused so far"), ("hosts_down", "hosts down"))
    charts = [
        Chart(GIVEN, UNITS.get(name, (1.0, ""))[1], [given], limit=limit, panel=NAMES[name])
        for name, given, limit in amounts(outcome)
    ]
    charts.append(Chart("Given, %", "%", by_resource(outcome), limit=_whole(outcome)))
    counts = [curve(outcome, field, name) for field, name in names]
    charts += [Chart("Guests", "", [each], panel=each.label) for each in counts if any(each.values)]
    by_zones = [by_zone(outcome, zone, zone) for zone in zones]
    charts += [
        Chart("vCPUs given by zone, %", "%", [each], limit=_whole(outcome), panel=each.label, most=100.0)
        for each in by_zones[:MOST]
    ]
    stranded = curve(outcome, "stranded_percent", "stranded")
    charts.append(Chart("Idle vCPUs without memory beside them, %", "%", [stranded]))
    return [_of_run(chart, outcome) for chart in charts if any(any(each.values) for each in chart.curves)]


def _of_run(chart: Chart, outcome: Outcome, *, alone: bool = True) -> Chart:
    """A chart with the outages and the date of the run that it is of. What was refused meanwhile is said where that run
    is ``alone``: others beside it refuse other guests."""
    spans = [
        Span(each.what + (f": {each.refused:,} refused meanwhile" if alone else ""), each.begins_hours, each.ends_hours)
        for each in outcome.outages
        if each.begins_hours < outcome.hours
    ]
    return chart._replace(spans=tuple(spans), begins=outcome.begins)


def amounts(outcome: Outcome) -> list[tuple[str, Curve, Curve]]:
    """What is given of each resource that anything is given of, and what the hosts that run can give."""
    hours, found = [sample.hours for sample in outcome.samples], []
    for name in NAMES:
        if not outcome.peak_percent.get(name) or any(name not in sample.capacity for sample in outcome.samples):
            continue
        unit = UNITS.get(name, (1.0, ""))[0]
        limits = [round(sample.capacity[name] / unit, 3) for sample in outcome.samples]
        parts = [sample.used_percent["all"][name] / 100 for sample in outcome.samples]
        given = [round(limit * part, 3) for limit, part in zip(limits, parts, strict=True)]
        found.append((name, Curve("given", hours, given), Curve("capacity", hours, limits)))
    return found


def _whole(outcome: Outcome) -> Curve:
    """The line of 100 %."""
    hours = [outcome.samples[0].hours, outcome.samples[-1].hours]
    return Curve("100 %", hours, [100.0, 100.0])


def of_several(outcomes: Sequence[Outcome], labels: Sequence[str]) -> list[Chart]:
    """Runs side by side."""
    named = list(zip(outcomes, labels, strict=True))
    refused = [curve(outcome, "refused", label)._replace(way=outcome.policy) for outcome, label in named]
    most = max((max(each.values, default=0.0) for each in refused), default=0.0)
    charts = [Chart("Refused so far", "", [each], panel=each.label, most=most) for each in refused if most]
    charts += [
        Chart("vCPUs given, %", "%", [given], limit=_whole(outcome), panel=label, most=100.0)
        for outcome, label in named
        if any((given := by_zone(outcome, "all", label)._replace(way=outcome.policy)).values)
    ]
    stranded = [curve(o, "stranded_percent", label)._replace(way=o.policy) for o, label in named]
    top = max((max(each.values, default=0.0) for each in stranded), default=0.0)
    charts += [Chart("Idle vCPUs without memory, %", "%", [each], panel=each.label, most=top) for each in stranded]
    shown = {chart.title for chart in charts if any(any(each.values) for each in chart.curves)}
    return [_of_run(chart, outcomes[0], alone=False) for chart in charts if chart.title in shown]


def of_compared(compared: Sequence[Compared]) -> list[Chart]:
    """How much more each way refuses than the best, with intervals; and refusals against hosts."""
    charts = []
    told = [each for each in compared if each.difference is not None]
    if told:
        points = [
            Point(_way(each, compared), d.mean, d.low, d.high, each.policy)
            for each in told
            if (d := each.difference) is not None
        ]
        title = "Refused more than the best of as many hosts, points, with the interval of 95 % for all comparisons"
        charts.append(Chart(title, "", [], points=tuple(points)))
    if len({each.hosts for each in compared}) > 1:
        points = [
            Point(
                _way(each, compared, hosts=False),
                each.refused_percent.mean,
                each.refused_percent.low,
                each.refused_percent.high,
                each.policy,
                each.hosts,
            )
            for each in compared
        ]
        charts.append(Chart("Refused, % of the requests, against hosts", "%", [], points=tuple(points), axis="hosts"))
    return charts


def _way(each: Compared, compared: Sequence[Compared], *, hosts: bool = True) -> str:
    ratios, sizes = {one.cpu_ratio for one in compared}, {one.hosts for one in compared}
    ratio = f", over-commit {each.cpu_ratio:g}" if len(ratios) > 1 else ""
    return f"{each.policy}{ratio}" + (f", {counted(each.hosts, 'host')}" if hosts and len(sizes) > 1 else "")


def of_size(found: Size) -> list[Chart]:
    """Guests not served against hosts: the price of the last percent."""
    if len(found.curve) < 2:
        return []
    points = [Point("not served", each.unserved_percent, None, None, "", each.hosts) for each in found.curve]
    charts = [
        Chart(
            "The price of the last percent: not served, %, against hosts", "%", [], points=tuple(points), axis="hosts"
        )
    ]
    if any(each.cost for each in found.curve):
        costs = [Point("cost", each.cost, None, None, "", each.hosts) for each in found.curve]
        currency = found.outcome.currency if found.outcome is not None else ""
        charts.append(Chart("Total cost against hosts", currency, [], points=tuple(costs), axis="hosts"))
    return charts


def of_forecast(outcomes: Sequence[Outcome], span: tuple[float, float | None, float] | None) -> list[Chart]:
    """Runs that differ in their seeds, as bands. ``span``: from when to when capacity runs out, in hours, and the
    median."""
    longest = _longest(outcomes)
    names = [name for name in NAMES if any(outcome.peak_percent.get(name) for outcome in outcomes)]
    limits = {name: limit for name, _, limit in amounts(longest)}
    charts = []
    for name in names:
        given = band(outcomes, name)
        charts.append(Chart("Given, %", "%", [], given, span, limit=_whole(longest), panel=NAMES[name], most=100.0))
        if name in limits and len(limits[name].values) == len(given.hours):
            parts = [
                [round(v * n / 100, 3) for v, n in zip(row, limits[name].values, strict=True)] for row in given[1:]
            ]
            unit = UNITS.get(name, (1.0, ""))[1]
            whole = Chart(GIVEN, unit, [], Band(given.hours, *parts), span, limit=limits[name], panel=NAMES[name])
            charts.append(whole)
    charts.sort(key=lambda chart: chart.title != GIVEN)
    return [_of_run(chart, longest, alone=False) for chart in charts]


def by_resource(outcome: Outcome) -> list[Curve]:
    """What is given of each resource that anything is given of, in percent."""
    hours = [sample.hours for sample in outcome.samples]
    found = [
        Curve(NAMES[name], hours, [sample.used_percent["all"].get(name, 0.0) for sample in outcome.samples])
        for name in NAMES
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
    """What is given of a resource class, in percent, at the hours at which the longest run was sampled: of each run by
    its newest sample until then, however dense its samples are."""
    sampled = [outcome for outcome in outcomes if outcome.samples]
    if not sampled:
        return Band([], [], [], [])
    hours = np.array([sample.hours for sample in _longest(sampled).samples])
    given = np.array([_at(outcome, resource, hours) for outcome in sampled])
    low, middle, high = np.percentile(given, [10, 50, 90], axis=0).round(3).tolist()
    return Band(hours.tolist(), low, middle, high)


def _at(outcome: Outcome, resource: str, hours: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a run gives of a resource class at these hours, in percent; float64 (hours)."""
    sampled = np.array([sample.hours for sample in outcome.samples])
    values = np.array([sample.used_percent["all"].get(resource, 0.0) for sample in outcome.samples])
    found: NDArray[np.float64] = values[np.maximum(np.searchsorted(sampled, hours, "right") - 1, 0)]
    found[hours > sampled[-1]] = values.max()
    return found


def _longest(outcomes: Sequence[Outcome]) -> Outcome:
    """The run that ended last."""
    return max(outcomes, key=lambda outcome: outcome.samples[-1].hours if outcome.samples else 0.0)


def labels(outcomes: Sequence[Outcome]) -> list[str]:
    """What tells each outcome from the others."""
    sizes, seeds = {each.hosts for each in outcomes}, {each.seed for each in outcomes}
    return [
        each.policy
        + (f", {counted(each.hosts, 'host')}" if len(sizes) > 1 else "")
        + (f", seed {each.seed}" if len(seeds) > 1 else "")
        for each in outcomes
    ]
