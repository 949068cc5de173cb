"""What a report tells of: the outcomes, the answer in one sentence, and the charts that show it."""

from __future__ import annotations

import msgspec

from . import curves
from .curves import Chart
from .headroom import Headroom
from .planning import Compared, Forecast, Size
from .run import Outcome


class Report(msgspec.Struct, kw_only=True):
    """What a report tells of. ``inputs``: name -> value, in order; ``command``: the one that made it."""

    title: str
    command: str
    inputs: dict[str, str]
    outcomes: list[Outcome]
    size: Size | None = None
    forecast: Forecast | None = None
    compared: list[Compared] = []
    headroom: Headroom | None = None
    interrupted: bool = False


def interrupted(report: Report) -> bool:
    """True if what it tells of was ended early."""
    early = [told.interrupted for told in (report.size, report.forecast) if told is not None]
    return report.interrupted or any(early) or any(outcome.interrupted for outcome in report.outcomes)


def finding(report: Report) -> str:
    """The answer in one sentence, for the title."""
    if report.size is not None:
        found = report.size
        kind = "" if found.hardware == "host" else f" of {found.hardware}"
        if found.interrupted:
            most = "" if found.hosts is None else f", {found.hosts:,} are enough"
            return f"At least {found.at_least:,} hosts{kind} are needed{most}: the search was interrupted"
        return f"{found.hosts:,} hosts{kind} are needed, {found.gap_percent:.1f} % above the lower bound"
    if report.forecast is not None:
        told = report.forecast
        if not told.days:
            return "No run of the forecast has ended"
        if told.median_day is None:
            lasting, runs = told.days.count(None), len(told.days)
            return f"Capacity lasts for {told.horizon_days:g} days in {lasting} of {runs} runs"
        return f"Capacity runs out on day {told.median_day:,}"
    if report.compared:
        best, *others = sorted(report.compared, key=lambda each: each.refused_percent.mean)
        ratio = f" with over-commit {best.cpu_ratio:g}" if best.cpu_ratio else ""
        high, lows = best.refused_percent.high, [each.refused_percent.low for each in others]
        unsure = high is not None and any(low is not None and low <= high for low in lows)
        doubt = ", but the intervals overlap" if unsure else ""
        return f"{best.policy}{ratio} on {best.hosts:,} hosts refuses least: {best.refused_percent.mean:.2f} %{doubt}"
    if len(report.outcomes) == 1:
        (outcome,) = report.outcomes
        peak = outcome.peak_percent["VCPU"]
        return f"{report.title}: {outcome.refused_percent:.2f} % refused, {peak:.0f} % of the vCPUs given at the peak"
    return report.title


def charts(report: Report) -> list[Chart]:
    """The charts of a report, those that say most first; none where nothing was played."""
    outcomes = drawn(report)
    if not any(outcome.samples for outcome in outcomes):
        return []
    if report.forecast is not None:
        return curves.of_forecast(outcomes, _span(report.forecast))
    return curves.of_one(outcomes[0]) if len(outcomes) == 1 else curves.of_several(outcomes, _labels(report))


def drawn(report: Report) -> list[Outcome]:
    """The outcomes whose curves are drawn: of a comparison the first seed of each way, and no more than can be told
    apart; of a forecast all."""
    if report.forecast is not None:
        return report.outcomes
    first = min((outcome.seed for outcome in report.outcomes), default=0)
    several = len(report.compared) > 1
    found = [outcome for outcome in report.outcomes if not several or outcome.seed == first]
    return found[: curves.MOST]


def _labels(report: Report) -> list[str]:
    """What tells the outcomes that are drawn from each other."""
    if len(report.compared) < 2:
        return curves.labels(drawn(report))
    ratios, sizes = {each.cpu_ratio for each in report.compared}, {each.hosts for each in report.compared}
    return [
        each.policy
        + (f", over-commit {each.cpu_ratio:g}" if len(ratios) > 1 else "")
        + (f", {each.hosts:,} hosts" if len(sizes) > 1 else "")
        for each in report.compared[: curves.MOST]
    ]


def _span(told: Forecast) -> tuple[float, float | None, float] | None:
    """Hours between which capacity runs out, and the median; the end of the horizon for later. None for never."""
    if told.early_day is None:
        return None
    begin, end = 24.0 * told.early_day, 24.0 * (told.late_day or told.horizon_days)
    return begin, None if told.median_day is None else 24.0 * told.median_day, end
