"""Prints reports of runs on a terminal: text and sparklines, fitted to its width."""

from __future__ import annotations

import shutil
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from ...placement.types.counting import counted
from ..questions.paired import Difference
from ..questions.planning import Compared, Forecast, Size, day_in_words
from ..questions.purchase import Purchase
from ..run.evacuation import Disruption
from ..run.failure_trials import Survival
from ..run.headroom import Headroom
from ..run.run import Outcome
from .findings import bought

WIDTH: Final = 112
"""Greatest width of what is shown, and the width where there is no terminal."""
LABEL: Final = 9
"""Width of what a curve is called."""


def show(outcome: Outcome) -> None:
    """Print an outcome."""
    cut = " (interrupted)" if outcome.interrupted else ""
    hosts = counted(outcome.hosts, "host")
    _say(f"{outcome.workload} on {hosts} for {outcome.hours:,.1f} h under {outcome.policy}{cut}")
    _say(
        f"{counted(outcome.requests, 'request')}: {outcome.placed:,} placed, {outcome.refused:,} refused"
        f" ({outcome.refused_percent:.2f} %), {outcome.waiting:,} waiting at the end"
    )
    _show_curves(outcome)
    for stage, count in outcome.refusals.items():
        _say(f"  refused by {stage}: {count:,}")
    if outcome.waited:
        most = f"{outcome.longest_wait_hours:.2f} h at most"
        _say(f"{outcome.waited:,} waited, {outcome.mean_wait_hours:.2f} h on average, {most}")
    if outcome.contention is not None:
        _say(f"contention: guests want more in {contention(outcome.contention)}")
    if outcome.preempted:
        _say(f"{counted(outcome.preempted, 'guest')} gave way to others of greater priority")
    if outcome.disruption is not None:
        _show_disruption(outcome.disruption)
    if outcome.cost:
        each = f", {outcome.cost_per_guest_hour:.4f} per guest-hour" if outcome.cost_per_guest_hour else ""
        _say(f"cost {money(outcome.cost, outcome.currency)}{each}")
    if outcome.burst or outcome.burst_cost:
        burst = (
            f"{counted(outcome.burst, 'guest')} beyond the threshold and the refused"
            if outcome.burst
            else "the refused"
        )
        _say(f"{burst} in a public cloud: cost {money(outcome.burst_cost, outcome.currency)}")
        if outcome.cost:
            _say(f"total cost {money(outcome.cost + outcome.burst_cost, outcome.currency)}")


def _show_curves(outcome: Outcome) -> None:
    samples, curves = outcome.samples, list[tuple[str, list[float], str, float]]()
    shown = [("VCPU", "vCPUs"), ("PCPU", "PCPUs"), ("MEMORY_MB", "memory"), ("GPU", "GPUs")]
    for name, word in [(name, word) for name, word in shown if name in outcome.peak_percent]:
        remark = f"peak {outcome.peak_percent[name]:.1f} %, mean {outcome.mean_percent[name]:.1f} %"
        curves.append((word, [sample.used_percent["all"].get(name, 0.0) for sample in samples], remark, 100.0))
    curves.append(("guests", [float(sample.guests) for sample in samples], f"peak {outcome.peak_guests:,}", 0.0))
    stranded = [sample.stranded_percent for sample in samples]
    if any(stranded):
        curves.append(("stranded", stranded, f"mean {statistics.fmean(stranded):.1f} % of idle vCPUs", 100.0))
    scales = [f"{most:.0f} %" if most else f"{max(values, default=0.0):,.0f}" for _, values, _, most in curves]
    room = _width() - LABEL - 4 - max(len(remark) for _, _, remark, _ in curves) - max(map(len, scales))
    for (word, values, remark, most), scale in zip(curves, scales, strict=True):
        line = sparkline(values, max(8, min(72, room)), most=most)
        print(f"{word:<{LABEL}}{line}│{scale:<{max(map(len, scales))}}  {remark}")


def _show_disruption(told: Disruption) -> None:
    moved = f"{counted(told.migrated, 'guest')} moved before maintenance"
    _say(f"outages: {told.down_host_hours:,.1f} host-hours down, {moved}")
    most = f", {told.longest_downtime_hours:.2f} h at most" if told.longest_downtime_hours else ""
    stopped = counted(told.stopped, "guest")
    _say(
        f"  {stopped} stopped with their hosts: {told.evacuated:,} evacuated, {told.lost:,} lost,"
        f" {told.waiting:,} waiting; {told.downtime_hours:,.2f} h of downtime{most}"
    )
    for why, count in told.lost_for.items():
        _say(f"  lost for {why}: {count:,}")


def show_headroom(told: Headroom) -> None:
    """Print what failures would do."""
    where = f"{counted(told.guests, 'guest')}, {told.used_percent['VCPU']:.1f} % of the vCPUs, {told.at_hours:,.1f} h"
    if told.survives:
        which = ", ".join(survival(each) for each in told.survives)
        _say(f"may fail together when busiest ({where}): {which}")
    for loss in [loss for loss in told.losses if loss.homeless][:3]:
        _say(f"  without {loss.what}: {loss.homeless:,} of {counted(loss.guests, 'guest')} find no other host")


def survival(told: Survival) -> str:
    """How many may fail together, in words."""
    known = f"{told.survives:,} of {told.of:,} {told.kind}s"
    if told.found is None or told.found == told.survives + 1:
        return known if told.found is None or told.survives else f"{known} (not {told.which[0]})"
    return f"any {known} (proven; {told.found:,} were found that may not)"


def show_size(found: Size) -> None:
    """Print how many hosts are needed."""
    if found.hosts is not None and not found.interrupted:
        above = "" if found.gap_percent is None else f": this is {found.gap_percent:.1f} % above"
        to_what = " to refuse nothing at once" if found.gap_percent is None else ""
        _say(
            f"{counted(found.hosts, 'host')} of {found.hardware} refuse no more than {found.target_percent:g} %;"
            f" a perfect packing needs at least {found.lower_bound:,}{to_what}{above}"
        )
    else:
        enough = "none that was tried is enough" if found.hosts is None else f"{found.hosts:,} are enough"
        _say(f"interrupted: at least {counted(found.at_least, 'host')} of {found.hardware} are needed, {enough}")
    for trial in found.trials:
        told = "holds" if trial.held else f"{trial.unserved:,} not served and more"
        _say(f"  {trial.hosts:>9,} host{'' if trial.hosts == 1 else 's'}: {told}")
    if found.outcome is not None:
        show(found.outcome)


def show_purchase(found: Purchase) -> None:
    """Print which hosts to buy."""
    _say(bought(found))
    for each in found.bought:
        told = [f"{each.hosts:>9,} {each.hardware}"]
        told += [money(each.price, found.currency)] if each.price else []
        told += [f"{money(each.price_per_hour, found.currency)} an hour"] if each.price_per_hour else []
        told += [f"{each.watts:,.0f} W"] if each.watts else []
        told += [f"{each.rack_units:,g} rack unit{'s' if each.rack_units != 1 else ''}"] if each.rack_units else []
        told += [f"{each.lead_time_days:g} days to come"] if each.lead_time_days else []
        _say("  " + ", ".join(told))
    if found.cost is not None:
        _say(f"{money(found.cost, found.currency)} over {found.wish.years:g} years")
    if found.gap_percent is not None:
        _say(f"at most {found.gap_percent:.1f} % above the best mix that can be")
    held = sum(trial.held for trial in found.trials)
    _say(f"{counted(len(found.trials), 'mix', 'mixes')} played, {held:,} held")
    for trial in [trial for trial in found.trials if not trial.held][-3:]:
        mix = " and ".join(f"{count:,} {name}" for name, count in trial.counts.items() if count) or "none"
        _say(f"  {mix}: {trial.why}")
    if found.outcome is not None:
        show(found.outcome)


def show_orders(found: Forecast) -> None:
    """Print which hosts to order by when."""
    for each in found.orders:
        cost = f" for {money(each.price, found.outcomes[0].currency)}" if each.price else ""
        by = day_in_words(found, each.order_day) if each.order_day > 0 else f"{1 - each.order_day} days ago"
        late = "; they come too late if they are ordered now" if each.late else ""
        _say(
            f"order {each.hosts:,} {each.hardware}{cost} by {by}, for {day_in_words(found, each.needed_day)}"
            f"{late}: capacity then lasts through day {each.lasts_to_day:,}"
        )


def show_forecast(found: Forecast) -> None:
    """Print when capacity runs out."""
    played, horizon = len(found.days), found.horizon_days
    if found.interrupted:
        _say(f"interrupted: {played} of {counted(found.seeds, 'seed')} were played")
    for note in found.notes:
        _say(f"{note[0].upper()}{note[1:]}.")
    if played and not any(found.days):
        _say(f"capacity lasts for {horizon:g} days with all {counted(played, 'seed')}")
    elif played and not found.banded:
        lasting = found.days.count(None)
        median = f"on {day_in_words(found, found.median_day)}" if found.median_day else f"not within {horizon:g} days"
        _say(
            f"capacity runs out {median} (median of {counted(played, 'seed')}, {lasting} of which last;"
            " ten would tell how sure that is)"
        )
    elif played:
        words = [day_in_words(found, day) for day in (found.early_day, found.late_day)]
        median = f"on {day_in_words(found, found.median_day)}" if found.median_day else f"not within {horizon:g} days"
        _say(f"capacity runs out {median} (80 % of {counted(played, 'seed')}: {words[0]} to {words[1]})")
    show_orders(found)


def show_compared(compared: Sequence[Compared], played: int, runs: int) -> None:
    """Print configurations side by side, with the number of runs of each."""
    if played < runs:
        _say(f"interrupted: {played} of {counted(runs, 'run')} were played")
    seeds = max((len(each.seeds) for each in compared), default=0)
    for each in compared:
        ratio = f", over-commit {each.cpu_ratio:g}" if each.cpu_ratio else ""
        band = each.refused_percent
        spread = "" if band.low is None or band.high is None else f" ({percent(band.low)} to {percent(band.high)})"
        peak = f"peak {each.peak_vcpu_percent.mean:.1f} %"
        part = f" ({len(each.seeds)} of {seeds} seeds)" if len(each.seeds) < seeds else ""
        hosts = counted(each.hosts, "host")
        _say(f"{each.policy}{ratio}, {hosts}: {band.mean:.2f} %{spread} refused, {peak}{part}")
        if each.contention_percent is not None:
            _say(f"  contention: guests want more in {contention(each.contention_percent)}")
        if each.difference is not None:
            _say(f"  {difference(each.difference)}")


def contention(told: Mapping[str, float]) -> str:
    """How often guests want more of a host's cores than a share of them, in words."""
    return ", ".join(f"{part:.2f} % of the host-hours above {most} % of the cores" for most, part in told.items())


def difference(told: Difference) -> str:
    """How a way differs from the best, in words."""
    more = f"{told.mean:.2f} points more than the best"
    if told.low is None or told.high is None:
        return f"{more}: not tested, {told.pairs} {told.by} is too little"
    what = "seeds" if told.by == "seed" else "blocks of days"
    sure = "" if told.proven else "; may be chance"
    interval = f"95 % for all comparisons: {told.low:.2f} to {told.high:.2f}"
    return f"{more} ({interval}), the best is better in {told.wins} of {told.pairs} {what}{sure}"


def percent(value: float) -> str:
    """An end of an interval, which ends where percentages do."""
    return f"{min(max(value, 0.0), 100.0):.2f}"


def money(amount: float, currency: str) -> str:
    """An amount with its currency, if there is one."""
    return f"{amount:,.2f} {currency}".rstrip()


def sparkline(values: Sequence[float], width: int, *, most: float = 0.0) -> str:
    """A line of at most ``width`` blocks, from 0 up to ``most`` or the greatest value."""
    from .screen import LEVELS  # with rich's tables, which JSON does not need

    if not values:
        return ""
    size = max(1, -(-len(values) // max(1, width)))
    means = [statistics.fmean(values[at : at + size]) for at in range(0, len(values), size)]
    top = most or max(means) or 1.0
    return "".join(LEVELS[min(len(LEVELS) - 1, int(value / top * len(LEVELS)))] for value in means)


def _say(text: str) -> None:
    indent = " " * (len(text) - len(text.lstrip()))
    print(textwrap.fill(text.lstrip(), _width(), initial_indent=indent, subsequent_indent=indent + "  "))


def _width() -> int:
    return min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH)
