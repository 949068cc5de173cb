"""Shows what came of runs on a terminal: lines of text and sparklines."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from .evacuation import Disruption
from .headroom import Headroom
from .planning import Compared, Forecast, Size
from .run import Outcome

WIDTH: Final = 72


def sparkline(values: Sequence[float], *, most: float = 0.0) -> str:
    """A line of blocks, from 0 up to ``most`` or the greatest value."""
    from .screen import LEVELS  # with rich's tables, which JSON does not need

    if not values:
        return ""
    size = max(1, -(-len(values) // WIDTH))
    means = [statistics.fmean(values[at : at + size]) for at in range(0, len(values), size)]
    top = most or max(means) or 1.0
    return "".join(LEVELS[min(len(LEVELS) - 1, int(value / top * len(LEVELS)))] for value in means)


def show(outcome: Outcome) -> None:
    """Print an outcome."""
    cut = " (interrupted)" if outcome.interrupted else ""
    print(f"{outcome.workload} on {outcome.hosts:,} hosts for {outcome.hours:,.1f} h under {outcome.policy}{cut}")
    for name, word in (("VCPU", "vCPUs"), ("MEMORY_MB", "memory")):
        curve = sparkline([sample.used_percent["all"][name] for sample in outcome.samples], most=100.0)
        print(f"{word:<8} {curve}  peak {outcome.peak_percent[name]:.1f} %, mean {outcome.mean_percent[name]:.1f} %")
    print(f"guests   {sparkline([float(sample.guests) for sample in outcome.samples])}  peak {outcome.peak_guests:,}")
    print(f"{outcome.requests:,} requests: {outcome.placed:,} placed, {outcome.refused:,} refused", end="")
    print(f" ({outcome.refused_percent:.2f} %), {outcome.waiting:,} waiting at the end")
    for stage, count in outcome.refusals.items():
        print(f"  refused by {stage}: {count:,}")
    if outcome.waited:
        print(f"{outcome.waited:,} waited, {outcome.mean_wait_hours:.2f} h on average", end="")
        print(f", {outcome.longest_wait_hours:.2f} h at most")
    if outcome.disruption is not None:
        _show_disruption(outcome.disruption)
    if stranded := [sample.stranded_percent for sample in outcome.samples]:
        print(
            f"stranded {sparkline(stranded, most=100.0)}  {statistics.fmean(stranded):.1f} % of the idle vCPUs", end=""
        )
        print(" have no memory beside them")
    if outcome.cost:
        each = f", {outcome.cost_per_guest_hour:.4f} per guest-hour" if outcome.cost_per_guest_hour else ""
        print(f"cost {outcome.cost:,.2f}{each}; the refused in a public cloud: {outcome.burst_cost:,.2f}")


def _show_disruption(told: Disruption) -> None:
    print(f"outages: {told.down_host_hours:,.1f} host-hours down, {told.migrated:,} guests moved before maintenance")
    print(
        f"  {told.stopped:,} guests stopped with their hosts: {told.evacuated:,} evacuated, {told.lost:,} lost", end=""
    )
    print(f", {told.waiting:,} waiting; {told.downtime_hours:,.2f} h of downtime", end="")
    print(f", {told.longest_downtime_hours:.2f} h at most" if told.longest_downtime_hours else "")
    for why, count in told.lost_for.items():
        print(f"  lost for {why}: {count:,}")


def show_headroom(told: Headroom) -> None:
    """Print what failures would do."""
    where = f"{told.guests:,} guests, {told.used_percent['VCPU']:.1f} % of the vCPUs, {told.at_hours:,.1f} h"
    if told.survives:
        which = ", ".join(f"{each.survives:,} of {each.of:,} {each.kind}s" for each in told.survives)
        print(f"may fail together when busiest ({where}): {which}")
    for loss in [loss for loss in told.losses if loss.homeless][:3]:
        print(f"  without {loss.what}: {loss.homeless:,} of {loss.guests:,} guests find no other host")


def show_size(found: Size) -> None:
    """Print how many hosts are needed."""
    if found.hosts is not None and not found.interrupted:
        print(f"{found.hosts:,} hosts of {found.hardware} refuse no more than {found.target_percent:g} %; ", end="")
        print(f"a perfect packing needs at least {found.lower_bound:,}: this is {found.gap_percent:.1f} % above")
    else:
        enough = "none tried is enough" if found.hosts is None else f"{found.hosts:,} are enough"
        print(f"interrupted: at least {found.at_least:,} hosts of {found.hardware} are needed, {enough}")
    for trial in found.trials:
        print(f"  {trial.hosts:>9,} hosts: {'holds' if trial.held else f'{trial.refused:,} refused and more'}")
    if found.outcome is not None:
        show(found.outcome)


def show_forecast(found: Forecast) -> None:
    """Print when capacity runs out."""
    played, horizon = len(found.days), found.horizon_days
    if found.interrupted:
        print(f"interrupted: {played} of {found.seeds} seeds were played")
    if played and found.early_day is None:
        print(f"capacity lasts for {horizon:g} days with all {played} seeds")
    elif played:
        words = [f"day {day}" if day else f"beyond {horizon:g} days" for day in (found.early_day, found.late_day)]
        median = f"on day {found.median_day}" if found.median_day else f"not within {horizon:g} days"
        print(f"capacity runs out {median} (80 % of {played} seeds: {words[0]} to {words[1]})")


def show_compared(compared: Sequence[Compared]) -> None:
    """Print ways side by side."""
    for each in compared:
        ratio = f", over-commit {each.cpu_ratio:g}" if each.cpu_ratio else ""
        band = each.refused_percent
        spread = "" if band.low is None else f" ({band.low:.2f} to {band.high:.2f})"
        peak = each.peak_vcpu_percent.mean
        print(f"{each.policy}{ratio}, {each.hosts:,} hosts: {band.mean:.2f} %{spread} refused, peak {peak:.1f} %")
