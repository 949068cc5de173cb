"""Writes what came of runs: one HTML file that needs no network, pictures, tables and JSON."""

from __future__ import annotations

import csv
import html
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ..placement.errors import InvalidValue
from .evacuation import Disruption
from .headroom import Headroom
from .planning import Compared, Forecast, Interval, Size
from .run import RESOURCES, Outcome

_COLOURS: Final = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
_NAMES: Final = {"VCPU": "vCPU", "MEMORY_MB": "memory", "DISK_GB": "disk"}
_WORDS: Final = {"VCPU": "vCPUs", "MEMORY_MB": "memory", "DISK_GB": "disk"}
Line = tuple[str, list[float], list[float]]
"""Name, hours, values."""
LONG_HOURS: Final = 72
"""Charts of more hours than that count in days."""
STRANDED: Final = "Stranded: idle vCPUs without memory beside them, %"
_STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #f3f4f6; margin: 0; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 27px; margin: 0 0 2px; } h2 { font-size: 18px; margin: 0 0 10px; }
.lead { color: #4b5563; margin: 0 0 20px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; margin-bottom: 16px; }
.card, section { background: #fff; border: 1px solid #e5e7eb; border-radius: 8px; padding: 14px 16px; }
section { margin-bottom: 16px; overflow-x: auto; }
.card b { display: block; font-size: 22px; } .card span { color: #6b7280; font-size: 13px; }
table { border-collapse: collapse; width: 100%; } td, th { padding: 5px 10px; text-align: right; white-space: nowrap; }
th { color: #6b7280; font-weight: 600; border-bottom: 1px solid #d1d5db; } td { border-bottom: 1px solid #f0f1f3; }
td:first-child, th:first-child, .inputs td { text-align: left; }
th:first-child, td:first-child { padding-left: 0; } td { font-variant-numeric: tabular-nums; }
@media print {
  body { background: #fff; } main { max-width: none; padding: 0; }
  .card, section { break-inside: avoid; } .modebar { display: none; }
}
code { background: #f3f4f6; padding: 2px 5px; border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere; }
"""


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


def write(report: Report, path: Path) -> None:
    """Write the report in the form that the ending names: .html, .json, .csv, .parquet, .png or .svg.

    InvalidValue for another ending, for a library that is not installed, or a path that cannot be written.
    """
    writer = _WRITERS.get(path.suffix)
    if writer is None:
        endings = ", ".join(_WRITERS)
        raise InvalidValue(f"{path}: a report ends with {endings}", field="report")
    try:
        writer(report, path)
    except OSError as error:
        raise InvalidValue(f"{path}: cannot be written: {error}", field="report") from None


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        hint = "pip install 'hostler[report]'"
        raise InvalidValue(f"{name.partition('.')[0]} is not installed", field="report", hint=hint) from None


# tables


def rows(report: Report) -> list[dict[str, Any]]:
    """All samples of all outcomes as rows of plain values."""
    found = []
    for number, outcome in enumerate(report.outcomes):
        for sample in outcome.samples:
            row: dict[str, Any] = {
                "run": number,
                "policy": outcome.policy,
                "seed": outcome.seed,
                "hosts": outcome.hosts,
            }
            row |= {
                "hours": sample.hours,
                "guests": sample.guests,
                "waiting": sample.waiting,
                "refused": sample.refused,
            }
            row["stranded_percent"] = sample.stranded_percent
            for zone, used in sample.used_percent.items():
                row |= {f"{zone}_{resource}_percent": value for resource, value in used.items()}
            found.append(row)
    return found


def _write_csv(report: Report, path: Path) -> None:
    table = rows(report)
    columns = list(dict.fromkeys(name for row in table for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def _write_parquet(report: Report, path: Path) -> None:
    arrow, parquet = _library("pyarrow"), _library("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(rows(report)), path)


def _write_json(report: Report, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


# pictures


def _write_picture(report: Report, path: Path) -> None:
    library = _library("matplotlib")
    library.use("Agg")
    library.rcParams["svg.hashsalt"] = "hostler"
    pyplot = _library("matplotlib.pyplot")
    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(10, 7), sharex=True, layout="constrained")
    above, below = _pictured(report)
    for axes, lines in ((upper, above), (lower, below)):
        for number, (label, x, y) in enumerate(lines):
            axes.plot(x, y, color=_COLOURS[number], label=label)
        axes.set_ylim(0, None)
        axes.grid(alpha=0.3)
        if lines:
            axes.legend(loc="upper left", fontsize=8)
    upper.set(title=finding(report), ylabel="given, % of the fleet")
    lower.set(xlabel="hours", ylabel="guests" if len(report.outcomes) == 1 else "refused so far")
    figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _pictured(report: Report) -> tuple[list[Line], list[Line]]:
    outcomes = _drawn(report)
    if len(outcomes) == 1:
        (outcome,) = outcomes
        return _curves(outcome), [_line(outcome, "guests", "guests"), _line(outcome, "refused", "refused so far")]
    named = [(outcome, _label(outcome, outcomes)) for outcome in outcomes]
    return [_by_zone(each, "all", name) for each, name in named], [_line(each, "refused", name) for each, name in named]


def _drawn(report: Report) -> list[Outcome]:
    """The outcomes whose curves are drawn: of a comparison the first seed of each way, and no more than can be told
    apart."""
    first = min((outcome.seed for outcome in report.outcomes), default=0)
    several = len(report.compared) > 1
    found = [outcome for outcome in report.outcomes if not several or outcome.seed == first]
    return found[: len(_COLOURS)]


def _label(outcome: Outcome, outcomes: Sequence[Outcome]) -> str:
    if len(outcomes) == 1:
        return "vCPU"
    parts = [outcome.policy]
    if len({each.hosts for each in outcomes}) > 1:
        parts.append(f"{outcome.hosts:,} hosts")
    if len({each.seed for each in outcomes}) > 1:
        parts.append(f"seed {outcome.seed}")
    return ", ".join(parts)


# HTML


def _write_html(report: Report, path: Path) -> None:
    script = _library("plotly.offline").get_plotlyjs()
    body = [_head(report), _cards(report), *_tables(report)]
    body += [_section(title, chart) for title, chart in _charts(report)]
    if report.headroom is not None:
        body.append(_section("If something failed at the busiest moment", _headroom(report.headroom)))
    body.append(_inputs(report))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(finding(report))}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><script>{script}</script></head>'
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
    path.write_text(page, encoding="utf-8")


def finding(report: Report) -> str:
    """The answer in one sentence, for the title."""
    if report.size is not None:
        found = report.size
        kind = "" if found.hardware == "host" else f" of {found.hardware}"
        return f"{found.hosts:,} hosts{kind} are needed, {found.gap_percent:.1f} % above the lower bound"
    if report.forecast is not None:
        told = report.forecast
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


def _head(report: Report) -> str:
    first = report.outcomes[0] if report.outcomes else None
    cut = ""
    if report.forecast is not None:
        told = report.forecast
        days = [
            f"day {day:,}" if day else f"beyond day {told.horizon_days:g}" for day in (told.early_day, told.late_day)
        ]
        cut = f" 80 % of {len(told.days)} seeds: {days[0]} to {days[1]}. A run ends when capacity has run out."
    elif any(outcome.interrupted for outcome in report.outcomes):
        cut = " This was interrupted, and is what there was by then."
    hours = max((outcome.hours for outcome in report.outcomes), default=0.0)
    lead = f"{first.workload} on {first.fleet}, {hours:,.0f} hours.{cut}" if first else "Nothing was played."
    return f'<h1>{html.escape(finding(report))}</h1><p class="lead">{html.escape(lead)}</p>'


def _cards(report: Report) -> str:
    cards: list[tuple[str, str]] = []
    if report.size is not None:
        found = report.size
        cards += [
            (f"{found.hosts:,}", f"hosts needed, of the kind {found.hardware}"),
            (f"{found.lower_bound:,}", "at least, with a perfect packing"),
            (f"{found.gap_percent:.1f} %", "above that"),
        ]
    if report.forecast is not None:
        told = report.forecast
        cards += [
            (f"{day:,}" if day else f"> {told.horizon_days:.0f}", text)
            for text, day in (
                ("runs out on day", told.median_day),
                ("early case (10 %)", told.early_day),
                ("late case (90 %)", told.late_day),
            )
        ]
    if len(report.outcomes) == 1 or (report.size is not None and report.outcomes):
        cards += _cards_of(report.outcomes[0])
    boxes = "".join(f'<div class="card"><b>{html.escape(b)}</b><span>{html.escape(t)}</span></div>' for b, t in cards)
    return f'<div class="cards">{boxes}</div>' if cards else ""


def _cards_of(outcome: Outcome) -> list[tuple[str, str]]:
    cards = [
        (f"{outcome.requests:,}", "requests"),
        (f"{outcome.refused:,}", f"refused ({outcome.refused_percent:.2f} %)"),
        (f"{outcome.peak_percent['VCPU']:.1f} %", "vCPUs given at the peak"),
        (f"{outcome.mean_percent['VCPU']:.1f} %", "on average"),
        (f"{outcome.guests_per_host_at_peak:.1f}", "guests per host at the peak"),
    ]
    if outcome.waited:
        cards.append((f"{outcome.mean_wait_hours:.2f} h", f"mean wait of {outcome.waited:,} that waited"))
    if outcome.cost_per_guest_hour is not None:
        cards.append((f"{outcome.cost_per_guest_hour:.4f}", "cost of a guest-hour"))
    if outcome.burst_cost:
        cards.append((f"{outcome.burst_cost:,.0f}", "cost of the refused in a public cloud"))
    return cards


def _tables(report: Report) -> list[str]:
    found = []
    if report.compared:
        header = ("policy", "CPU over-commit", "hosts", "refused %", "peak vCPU %", "stranded %", "cost / guest-hour")
        body = [
            (
                each.policy,
                f"{each.cpu_ratio:g}" if each.cpu_ratio else "as planned",
                f"{each.hosts:,}",
                _interval(each.refused_percent),
                _interval(each.peak_vcpu_percent),
                _interval(each.stranded_percent),
                "" if each.cost_per_guest_hour is None else f"{each.cost_per_guest_hour:.4f}",
            )
            for each in report.compared
        ]
        found.append(_section("Side by side (mean and 95 % interval over seeds)", table(header, body)))
    refusals = [(stage, f"{n:,}") for o in report.outcomes[:1] for stage, n in o.refusals.items()]
    if refusals and len(report.outcomes) == 1:
        found.append(_section("Why requests were refused", table(("what was missing", "requests"), refusals)))
    if len(report.outcomes) == 1 and report.outcomes[0].disruption is not None:
        found.append(_section("Failures and maintenance", _disrupted(report.outcomes[0].disruption)))
    return found


def _disrupted(told: Disruption) -> str:
    lines = [
        ("host-hours down", f"{told.down_host_hours:,.1f}"),
        ("guests moved before maintenance", f"{told.migrated:,}"),
        ("guests stopped with their hosts", f"{told.stopped:,}"),
        ("of these placed again elsewhere", f"{told.evacuated:,}"),
        ("still waiting at the end", f"{told.waiting:,}"),
        ("lost", f"{told.lost:,}"),
        *((f"lost for {why}", f"{count:,}") for why, count in told.lost_for.items()),
        ("hours of downtime, all guests", f"{told.downtime_hours:,.2f}"),
        ("the longest downtime, hours", f"{told.longest_downtime_hours:,.2f}"),
    ]
    return table(("what happened", "how much"), lines)


def _headroom(told: Headroom) -> str:
    """How many may fail, and the worst single failures."""
    survives = [(f"{each.kind}s", f"{each.of:,}", f"{each.survives:,}") for each in told.survives]
    lost = [(each.what, f"{each.hosts:,}", f"{each.guests:,}", f"{each.homeless:,}") for each in told.losses[:8]]
    parts = [f"<p>{html.escape(_busiest(told))}</p>"]
    if survives:
        parts.append(table(("the fullest together", "there are", "may fail"), survives))
    if lost:
        parts.append(table(("each alone", "hosts", "guests on them", "without another host"), lost))
    return "".join(parts)


def _busiest(told: Headroom) -> str:
    given = ", ".join(f"{part:.1f} % of the {_WORDS[name]}" for name, part in told.used_percent.items() if part)
    return f"{told.at_hours:,.1f} hours into the run {told.guests:,} guests had {given}. Their hosts on trial:"


def _interval(value: Interval) -> str:
    if value.low is None or value.high is None:
        return f"{value.mean:.2f}"
    return f"{value.mean:.2f} ({max(value.low, 0.0):.2f} to {min(value.high, 100.0):.2f})"


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """An HTML table of texts."""
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"


def _inputs(report: Report) -> str:
    body = [(name, value) for name, value in report.inputs.items()]
    lines = "".join(f"<tr><td>{html.escape(n)}</td><td><code>{html.escape(v)}</code></td></tr>" for n, v in body)
    command = f"<p><code>{html.escape(report.command)}</code></p>"
    return _section("How this was made", f'{command}<table class="inputs"><tbody>{lines}</tbody></table>')


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>"


def _charts(report: Report) -> list[tuple[str, str]]:
    outcomes = _drawn(report)
    if not any(outcome.samples for outcome in outcomes):
        return []
    charts: list[tuple[str, list[Line], str]] = []
    if len(outcomes) == 1:
        (outcome,) = outcomes
        charts.append(("Given, % of the fleet", _curves(outcome), "%"))
        zones = [zone for zone in outcome.samples[0].used_percent if zone != "all"]
        if zones:
            charts.append(("vCPUs given by zone, %", [_by_zone(outcome, zone) for zone in zones], "%"))
        charts.append(
            ("Idle vCPUs without memory beside them, %", [_line(outcome, "stranded_percent", "stranded")], "%")
        )
        names = (("guests", "guests"), ("waiting", "waiting"), ("refused", "refused so far"))
        charts.append(("Guests", [_line(outcome, field, name) for field, name in names], ""))
    else:
        labels = [_label(outcome, outcomes) for outcome in outcomes]
        pairs = list(zip(outcomes, labels, strict=True))
        charts.append(("vCPUs given, %", [_by_zone(outcome, "all", label) for outcome, label in pairs], "%"))
        charts.append(("Refused so far", [_line(outcome, "refused", label) for outcome, label in pairs], ""))
        charts.append(
            ("Idle vCPUs without memory, %", [_line(o, "stranded_percent", label) for o, label in pairs], "%")
        )
    told = [(title, lines, unit) for title, lines, unit in charts if any(any(y) for _, _, y in lines)]
    return [(title, chart(f"chart-{number}", lines, unit)) for number, (title, lines, unit) in enumerate(told)]


def _curves(outcome: Outcome) -> list[Line]:
    hours = [sample.hours for sample in outcome.samples]
    curves = [
        (_NAMES[name], hours, [sample.used_percent["all"][name] for sample in outcome.samples]) for name in RESOURCES
    ]
    return [curve for curve in curves if any(curve[2])]


def _by_zone(outcome: Outcome, zone: str, label: str = "") -> Line:
    hours = [sample.hours for sample in outcome.samples]
    return label or zone, hours, [sample.used_percent.get(zone, {}).get("VCPU", 0.0) for sample in outcome.samples]


def _line(outcome: Outcome, field: str, label: str) -> Line:
    return label, [s.hours for s in outcome.samples], [float(getattr(s, field)) for s in outcome.samples]


def chart(name: str, lines: Sequence[Line], unit: str) -> str:
    """A chart over hours that can be zoomed; ``name`` is unique on the page."""
    graph, plots = _library("plotly.graph_objects"), _library("plotly.io")
    figure = graph.Figure()
    days = max((max(x, default=0.0) for _, x, _ in lines), default=0.0) > LONG_HOURS
    for number, (label, x, y) in enumerate(lines):
        colour = {"color": _COLOURS[number % len(_COLOURS)], "width": 2}
        x = [hours / 24 for hours in x] if days else x
        figure.add_trace(graph.Scatter(x=x, y=y, name=label, mode="lines", line=colour))
    axis: Mapping[str, Any] = {"gridcolor": "#e5e7eb", "zerolinecolor": "#d1d5db"}
    figure.update_layout(
        template="none",
        height=360,
        margin={"l": 60, "r": 20, "t": 30, "b": 80},
        hovermode="x unified",
        legend={"orientation": "h", "y": -0.24, "yanchor": "top"},
        showlegend=len(lines) > 1,
        xaxis={**axis, "title": {"text": "days" if days else "hours", "standoff": 4}},
        yaxis={**axis, "rangemode": "tozero", "ticksuffix": f" {unit}" if unit else ""},
    )
    config = {"displaylogo": False, "responsive": True}
    chart_html: str = plots.to_html(figure, include_plotlyjs=False, full_html=False, div_id=name, config=config)
    return chart_html


_WRITERS: Final = {
    ".html": _write_html,
    ".json": _write_json,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".png": _write_picture,
    ".svg": _write_picture,
}
