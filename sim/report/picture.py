"""The picture of a report, as PNG or SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .curves import Chart
from .findings import Report, charts, finding
from .libraries import library
from .page import COLOURS, LONG_HOURS, MARK

PANELS = 2
"""Charts in a picture: those that say most."""


def write_picture(report: Report, path: Path) -> None:
    """Write it. InvalidValue where matplotlib is not installed."""
    plots = library("matplotlib")
    plots.use("Agg")
    plots.rcParams["svg.hashsalt"] = "hostler"
    pyplot = library("matplotlib.pyplot")
    shown = charts(report)[:PANELS]
    size = (10, 3.5 * max(1, len(shown)))
    figure, panels = pyplot.subplots(max(1, len(shown)), 1, figsize=size, sharex=True, layout="constrained")
    figure.suptitle(finding(report), fontsize=12)
    for axes, chart in zip(panels if len(shown) > 1 else [panels], shown, strict=False):
        _draw(axes, chart)
    figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _draw(axes: Any, chart: Chart) -> None:
    every = [each.hours for each in chart.curves] + ([chart.band.hours] if chart.band is not None else [])
    days = max((max(hours, default=0.0) for hours in every), default=0.0) > LONG_HOURS
    unit = 24.0 if days else 1.0
    if chart.band is not None:
        x = [hours / unit for hours in chart.band.hours]
        axes.fill_between(x, chart.band.low, chart.band.high, color=COLOURS[0], alpha=0.18, label="10 to 90 % of seeds")
        axes.plot(x, chart.band.middle, color=COLOURS[0], label="median")
    for number, (label, hours, values) in enumerate(chart.curves):
        axes.plot([hour / unit for hour in hours], values, color=COLOURS[number % len(COLOURS)], label=label)
    if chart.marked is not None:
        begin, middle, end = chart.marked
        axes.axvspan(begin / unit, end / unit, color=MARK, alpha=0.08, lw=0, label="capacity runs out")
        if middle is not None:
            axes.axvline(middle / unit, color=MARK, ls="--")
    axes.set_title(chart.title, fontsize=10, loc="left")
    axes.set_xlabel("days" if days else "hours")
    axes.set_ylim(0, None)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)
