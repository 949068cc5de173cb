"""Charts of a page, by Bokeh: they can be zoomed, and tell their values; without a network."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from .colours import COLOURS, LIMIT, MARK, OUTAGE, Palette
from .curves import Chart
from .libraries import library

LONG_HOURS: Final = 72
"""Charts of more hours than that count in days."""
HEIGHT: Final = 320
PANEL_HEIGHT: Final = 220
_LOADER: Final = """
const unpacked = async text => {
  const bytes = Uint8Array.from(atob(text), each => each.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
};
(async () => {
  const script = document.createElement("script");
  script.textContent = await unpacked(LIBRARY);
  document.head.append(script);
  for (const [name, item] of Object.entries(JSON.parse(await unpacked(CHARTS)))) Bokeh.embed.embed_item(item, name);
})();
"""


def script(charts: Sequence[Chart]) -> str:
    """The script that draws the charts in elements named ``chart-0`` and so on: the library and the values, packed."""
    resources, embed = library("bokeh.resources"), library("bokeh.embed")
    palette = Palette(charts)
    items = {f"chart-{number}": embed.json_item(_figure(each, palette)) for number, each in enumerate(charts)}
    code = "".join(resources.Resources(mode="inline", components=["bokeh"], minified=True).js_raw)
    return f"const LIBRARY = {_packed(code)}, CHARTS = {_packed(_numbered(json.dumps(items)))};{_LOADER}"


def _packed(text: str) -> str:
    return f'"{base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()}"'


def _numbered(text: str) -> str:
    """The text with models numbered in order, and documents named so: Bokeh counts those of a whole process, and draws
    names at random."""
    numbers: dict[str, str] = {}
    pattern = r'"(p\d{4,}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"'
    return re.sub(pattern, lambda found: f'"{numbers.setdefault(found[1], f"m{len(numbers)}")}"', text)


def _figure(chart: Chart, palette: Palette) -> Any:
    plotting = library("bokeh.plotting")
    options = {
        "height": PANEL_HEIGHT if chart.panel else HEIGHT,
        "sizing_mode": "stretch_width",
        "toolbar_location": None if chart.panel else "above",
        "tools": "pan,box_zoom,xwheel_zoom,reset,save",
        "active_scroll": None,
    }
    if chart.points:
        return _of_points(plotting, chart, palette, options)
    axis = _Axis(chart)
    if chart.panel:
        options["title"] = chart.panel
    figure = plotting.figure(x_axis_type="datetime" if axis.dated else "linear", x_axis_label=axis.label, **options)
    if axis.dated:
        figure.xaxis.ticker.desired_num_ticks = DATES if chart.panel else 2 * DATES
    for span in chart.spans:
        figure.add_layout(_box(axis.at([span.begin])[0], axis.at([span.end])[0], OUTAGE))
    if chart.band is not None:
        x = axis.at(chart.band.hours)
        band = {"fill_color": COLOURS[0], "fill_alpha": 0.18, "legend_label": "10 to 90 % of seeds"}
        figure.varea(x=x, y1=chart.band.low, y2=chart.band.high, **band)
        figure.line(x=x, y=chart.band.middle, line_color=COLOURS[0], line_width=2, legend_label="median")
    styles = palette.styles([each.way for each in chart.curves])
    for each, (colour, dash) in zip(chart.curves, styles, strict=True):
        line = {"line_color": colour, "line_dash": dash, "line_width": 2, "legend_label": each.label}
        figure.line(x=axis.at(each.hours), y=each.values, **line)
    if chart.limit is not None:
        limit = {"line_color": LIMIT, "line_dash": "dashed", "line_width": 1.5, "legend_label": chart.limit.label}
        figure.step(x=axis.at(chart.limit.hours), y=chart.limit.values, mode="after", **limit)
    if chart.marked is not None:
        begin, middle, end = chart.marked
        figure.add_layout(_box(axis.at([begin])[0], axis.at([end])[0], MARK))
        at = axis.at([begin if middle is None else middle])
        top = _top(chart)
        mark = {"line_color": MARK, "line_dash": "dashed", "line_width": 2, "legend_label": "runs out"}
        figure.line(x=[*at, *at], y=[0, top], **mark)
    return _finished(figure, chart)


DATES: Final = 3
"""Dates that an axis of a panel has room for, about."""


class _Axis:
    """An axis of time: dates where they are known, else days or hours."""

    def __init__(self, chart: Chart) -> None:
        every = [each.hours for each in chart.curves] + ([chart.band.hours] if chart.band is not None else [])
        days = max((max(hours, default=0.0) for hours in every), default=0.0) > LONG_HOURS
        self._begins = None if chart.begins is None else datetime.fromisoformat(chart.begins)
        self.dated, self._unit = self._begins is not None, 24.0 if days else 1.0
        self.label = "" if self.dated else "days" if days else "hours"

    def at(self, hours: Sequence[float]) -> list[float]:
        """Where hours are on the axis."""
        if self._begins is None:
            return [round(hour / self._unit, 6) for hour in hours]
        return [(self._begins + timedelta(hours=hour)).timestamp() * 1000 for hour in hours]


def _box(left: float, right: float, colour: str) -> Any:
    return library("bokeh.models").BoxAnnotation(left=left, right=right, fill_color=colour, fill_alpha=0.12)


def _of_points(plotting: Any, chart: Chart, palette: Palette, options: dict[str, Any]) -> Any:
    """Values with intervals, over names or numbers."""
    ways = list(dict.fromkeys((each.label, each.way) for each in chart.points))
    styles = dict(zip(ways, palette.styles([way for _, way in ways]), strict=True))
    if chart.axis:
        figure = plotting.figure(x_axis_label=chart.axis, **options)
        for (label, way), (colour, dash) in styles.items():
            own = sorted((p for p in chart.points if (p.label, p.way) == (label, way)), key=lambda p: p.x or 0.0)
            x, y = [p.x for p in own], [p.value for p in own]
            figure.line(x=x, y=y, line_color=colour, line_dash=dash, line_width=2, legend_label=label)
            figure.scatter(x=x, y=y, color=colour, size=7)
            _whiskers(figure, own, x, colour, upright=True)
        return _finished(figure, chart)
    names = [each.label for each in chart.points]
    options["height"] = 110 + 34 * len(names)
    ends = [0.0, *(end for p in chart.points for end in (p.low, p.high, p.value) if end is not None)]
    margin = 0.05 * (max(ends) - min(ends) or 1.0)
    figure = plotting.figure(y_range=names[::-1], x_range=(min(ends) - margin, max(ends) + margin), **options)
    for each in chart.points:
        colour, _ = styles[each.label, each.way]
        figure.scatter(x=[each.value], y=[each.label], color=colour, size=10)
        _whiskers(figure, [each], [each.label], colour, upright=False)
    span = library("bokeh.models").Span(location=0, dimension="height", line_color=LIMIT, line_dash="dashed")
    figure.add_layout(span)
    return _styled(figure)


def _whiskers(figure: Any, points: Sequence[Any], at: Sequence[Any], colour: str, *, upright: bool) -> None:
    """The intervals of points."""
    for point, where in zip(points, at, strict=True):
        if point.low is not None and point.high is not None:
            ends, same = [point.low, point.high], [where, where]
            x, y = (same, ends) if upright else (ends, same)
            figure.line(x=x, y=y, line_color=colour, line_width=3, alpha=0.5)


def _finished(figure: Any, chart: Chart) -> Any:
    models = library("bokeh.models")
    figure.y_range = models.Range1d(0, 1.06 * _top(chart))
    figure.yaxis.formatter = models.NumeralTickFormatter(format="0,0.[00]")
    if chart.unit:
        figure.yaxis.axis_label = chart.unit
    figure.add_tools(models.HoverTool(tooltips=[("", "@y{0,0.[00]}")], mode="vline", line_policy="nearest"))
    for legend in figure.legend:
        figure.add_layout(legend, "below")
        legend.orientation, legend.click_policy, legend.ncols = "horizontal", "hide", 2
        legend.spacing = 14
        legend.border_line_color, legend.padding, legend.label_text_font_size = None, 2, "12px"
    return _styled(figure)


def _top(chart: Chart) -> float:
    """The greatest value that is drawn."""
    values = [value for each in chart.curves for value in each.values]
    values += [*(chart.band.high if chart.band is not None else []), *(chart.limit.values if chart.limit else [])]
    values += [each.high if each.high is not None else each.value for each in chart.points]
    return max([*values, chart.most], default=0.0) or 1.0


def _styled(figure: Any) -> Any:
    figure.xgrid.grid_line_color = figure.ygrid.grid_line_color = "#e5e7eb"
    figure.outline_line_color = None
    figure.min_border_right = 12
    return figure
