"""What a report tells of: the outcomes, the answer in one sentence, and the charts that show it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ...placement.types.counting import counted
from ..questions.planning import Compared, Forecast, Size, day_in_words
from ..questions.purchase import Purchase
from ..run.fleet_plan import FleetPlan
from ..run.headroom import Headroom
from ..run.run import Outcome
from . import curves
from .curves import Chart


class Report(msgspec.Struct, kw_only=True):
    """What a report tells of. ``inputs``: name -> value, in order; ``command``: the one that made it."""

    title: str
    command: str
    inputs: dict[str, str]
    plan: FleetPlan
    outcomes: list[Outcome]
    size: Size | None = None
    forecast: Forecast | None = None
    compared: list[Compared] = []
    headroom: Headroom | None = None
    purchase: Purchase | None = None
    interrupted: bool = False


def interrupted(report: Report) -> bool:
    """True if what it tells of was ended early. Runs of a forecast are, once capacity has run out."""
    told = report.size or report.forecast or report.purchase
    if told is not None:
        return told.interrupted
    return report.interrupted or any(outcome.interrupted for outcome in report.outcomes)


def finding(report: Report) -> str:
    """The answer in one sentence, for the title."""
    if report.size is not None:
        found = report.size
        kind = "" if found.hardware == "host" else f" of {found.hardware}"
        if found.interrupted:
            most = "" if found.hosts is None else f", {found.hosts:,} are enough"
            return f"At least {_needed(found.at_least, kind)}{most}: the search was interrupted"
        above = "" if found.gap_percent is None else f", {found.gap_percent:.1f} % above the lower bound"
        assert found.hosts is not None, "a search that was not interrupted found a number"
        return f"{_needed(found.hosts, kind)}{above}"
    if report.purchase is not None:
        return bought(report.purchase)
    if report.forecast is not None:
        told = report.forecast
        if not told.days:
            return "No run of the forecast has ended"
        if told.median_day is None:
            lasting, runs = told.days.count(None), len(told.days)
            return f"Capacity lasts for {told.horizon_days:g} days in {lasting} of {counted(runs, 'run')}"
        return f"Capacity runs out on {day_in_words(told, told.median_day)}"
    if report.compared:
        return _best(report.compared)
    if len(report.outcomes) == 1:
        (outcome,) = report.outcomes
        peak = outcome.peak_percent["VCPU"]
        return f"{report.title}: {outcome.refused_percent:.2f} % refused, {peak:.0f} % of the vCPUs given at the peak"
    return report.title


def bought(found: Purchase) -> str:
    """Which hosts to buy, in one sentence."""
    if found.counts is None:
        return "No mix of hosts that was tried is enough"
    mix = " and ".join(f"{each.hosts:,} {each.hardware}" for each in found.bought) or "No hosts"
    unit = {"cost": found.currency or "of cost", "hosts": "hosts", "power": "W"}[found.wish.objective]
    least = "" if found.lower_bound is None else f"; no mix has less than {found.lower_bound:,.10g}"
    return f"{mix}: {found.value:,.10g} {unit}{least}" + (" (interrupted)" if found.interrupted else "")


def _needed(hosts: int, kind: str) -> str:
    return f"{counted(hosts, f'host{kind}', f'hosts{kind}')} {'is' if hosts == 1 else 'are'} needed"


def _best(compared: Sequence[Compared]) -> str:
    """Which ways of those side by side refuse least."""
    least = min(each.refused_percent.mean for each in compared)
    best = [each for each in compared if each.refused_percent.mean == least]
    sure, others = proven(compared), len({each.hosts for each in compared}) > 1
    ways = [each.policy + (f" with over-commit {each.cpu_ratio:g}" if each.cpu_ratio else "") for each in best]
    sizes = {each.hosts for each in compared}
    if len(sizes) > 1:
        ways = [f"{way} on {counted(each.hosts, 'host')}" for way, each in zip(ways, best, strict=True)]
    where = f" on {counted(min(sizes), 'host')}" if len(sizes) == 1 else ""
    named = " and ".join(ways) if len(ways) < 3 else f"{ways[0]} and {len(ways) - 1} other ways"
    verb = "refuses" if len(best) == 1 else "refuse"
    unsure = "" if sure or others or len(compared) < 2 or len(best) > 1 else f", but {doubt(compared)}"
    return f"{named}{where} {verb} least: {least:.2f} %{unsure}"


def proven(compared: Sequence[Compared]) -> bool:
    """True if the best of the ways of each size is better than every other by a test."""
    told = [each.difference for each in compared if each.difference is not None]
    return bool(told) and all(each.proven for each in told)


def doubt(compared: Sequence[Compared]) -> str:
    """Why there is no winner among ways."""
    told = [each.difference for each in compared if each.difference is not None]
    if any(each.low is None for each in told) or not told:
        return "that is not tested: too few seeds, or days of the trace"
    unsure = sum(not each.proven for each in told)
    return f"the difference to {unsure:,} of {len(told):,} others may be chance"


def charts(report: Report) -> list[Chart]:
    """The charts of a report, those that say most first; none where nothing was played."""
    outcomes = drawn(report)
    if not any(outcome.samples for outcome in outcomes):
        return []
    if report.forecast is not None:
        return curves.of_forecast(outcomes, _span(report.forecast))
    first = curves.of_compared(report.compared) if report.compared else []
    first += curves.of_size(report.size) if report.size is not None else []
    return first + (curves.of_one(outcomes[0]) if len(outcomes) == 1 else curves.of_several(outcomes, _labels(report)))


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
        + (f", {counted(each.hosts, 'host')}" if len(sizes) > 1 else "")
        for each in report.compared[: curves.MOST]
    ]


def _span(told: Forecast) -> tuple[float, float | None, float] | None:
    """Hours between which capacity runs out, and the median; the end of the horizon for later. None for never."""
    if told.banded and told.early_day is not None:
        begin, end = 24.0 * told.early_day, 24.0 * (told.late_day or told.horizon_days)
        return begin, None if told.median_day is None else 24.0 * told.median_day, end
    return None if told.median_day is None else (24.0 * told.median_day,) * 3
