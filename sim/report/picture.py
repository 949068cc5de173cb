"""The picture of a report, as PNG or SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .charts import LONG_HOURS
from .colours import COLOURS, LIMIT, MARK, OUTAGE, Palette
from .curves import Chart
from .findings import Report, charts, finding
from .libraries import library

TITLES = 2
"""Titles of charts in a picture: those that say most."""


def write_picture(report: Report, path: Path) -> None:
    """Write it. InvalidValue where matplotlib is not installed."""
    plots = library("matplotlib")
    plots.use("Agg")
    plots.rcParams["svg.hashsalt"] = "hostler"
    pyplot = library("matplotlib.pyplot")
    every = charts(report)
    titles = list(dict.fromkeys(chart.title for chart in every))[:TITLES]
    shown, palette = [chart for chart in every if chart.title in titles], Palette(every)
    heights = [2.0 if chart.panel else 3.5 for chart in shown] or [3.5]
    size, ratios = (10, 0.6 + sum(heights)), {"height_ratios": heights}
    figure, panels = pyplot.subplots(len(heights), 1, figsize=size, gridspec_kw=ratios, layout="constrained")
    figure.suptitle(finding(report), fontsize=12)
    for axes, chart in zip(panels if len(heights) > 1 else [panels], shown, strict=False):
        (_draw_points if chart.points else _draw)(axes, chart, palette)
        axes.set_title(f"{chart.title}: {chart.panel}" if chart.panel else chart.title, fontsize=10, loc="left")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _draw_points(axes: Any, chart: Chart, palette: Palette) -> None:
    ways = list(dict.fromkeys((each.label, each.way) for each in chart.points))
    for (label, way), (colour, _) in zip(ways, palette.styles([way for _, way in ways]), strict=True):
        own = sorted((p for p in chart.points if (p.label, p.way) == (label, way)), key=lambda p: p.x or 0.0)
        ends = [(p.value, p.value) if p.low is None or p.high is None else (p.low, p.high) for p in own]
        errors = [[p.value - low for p, (low, _) in zip(own, ends, strict=True)]]
        errors += [[high - p.value for p, (_, high) in zip(own, ends, strict=True)]]
        bars = {"color": colour, "capsize": 3, "marker": "o", "label": label}
        if chart.axis:
            axes.errorbar([p.x for p in own], [p.value for p in own], yerr=errors, **bars)
        else:
            axes.errorbar([p.value for p in own], [label] * len(own), xerr=errors, ls="", **bars)
    if chart.axis:
        axes.set_xlabel(chart.axis)
        axes.legend(loc="upper right", fontsize=8)
    else:
        axes.axvline(0, color=LIMIT, ls="--", lw=1)


def _draw(axes: Any, chart: Chart, palette: Palette) -> None:
    every = [each.hours for each in chart.curves] + ([chart.band.hours] if chart.band is not None else [])
    days = max((max(hours, default=0.0) for hours in every), default=0.0) > LONG_HOURS
    unit = 24.0 if days else 1.0
    if chart.band is not None:
        x = [hours / unit for hours in chart.band.hours]
        axes.fill_between(x, chart.band.low, chart.band.high, color=COLOURS[0], alpha=0.18, label="10 to 90 % of seeds")
        axes.plot(x, chart.band.middle, color=COLOURS[0], label="median")
    for span in chart.spans:
        axes.axvspan(span.begin / unit, span.end / unit, color=OUTAGE, alpha=0.15, lw=0, label=span.label)
    styles = palette.styles([each.way for each in chart.curves])
    for each, (colour, dash) in zip(chart.curves, styles, strict=True):
        axes.plot([hour / unit for hour in each.hours], each.values, color=colour, ls=dash, label=each.label)
    if chart.limit is not None:
        limit = {"color": LIMIT, "ls": "--", "lw": 1, "where": "post", "label": chart.limit.label}
        axes.step([hour / unit for hour in chart.limit.hours], chart.limit.values, **limit)
    if chart.marked is not None:
        begin, middle, end = chart.marked
        axes.axvspan(begin / unit, end / unit, color=MARK, alpha=0.08, lw=0, label="capacity runs out")
        if middle is not None:
            axes.axvline(middle / unit, color=MARK, ls="--")
    axes.set_xlabel("days" if days else "hours")
    axes.set_ylim(0, None)
    axes.legend(loc="upper left", fontsize=8)
