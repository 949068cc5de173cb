"""The HTML page of a report: one file that needs no network."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ...placement.types.counting import counted
from ..questions.paired import Difference
from ..questions.planning import Forecast, Interval, day_in_words
from ..questions.purchase import Purchase
from ..run.evacuation import Disruption
from ..run.fleet_plan import DOMAINS, FleetPlan
from ..run.headroom import Headroom
from ..run.run import Outcome
from .charts import script
from .curves import Chart
from .findings import Report, charts, finding, interrupted
from .terminal import money

WORDS: Final = {"VCPU": "vCPUs", "MEMORY_MB": "memory", "DISK_GB": "disk", "PCPU": "PCPUs", "GPU": "GPUs"}
_STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #f3f4f6; margin: 0; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 27px; margin: 0 0 2px; text-wrap: balance; } h2 { font-size: 18px; margin: 0 0 10px; }
.lead { color: #4b5563; margin: 0 0 20px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; margin-bottom: 16px; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 8px; }
.note { color: #92400e; margin: 0 0 8px; font-size: 13px; }
.panels > div { min-width: 0; }
.card, section { background: #fff; border: 1px solid #e5e7eb; border-radius: 8px; padding: 14px 16px; }
section { margin-bottom: 16px; overflow-x: auto; }
.card b { display: block; font-size: 22px; } .card span { color: #6b7280; font-size: 13px; }
table { border-collapse: collapse; width: 100%; } table + table { margin-top: 16px; }
td, th { padding: 5px 10px; text-align: right; } td { white-space: nowrap; } .wide td { white-space: normal; }
th { color: #6b7280; font-weight: 600; border-bottom: 1px solid #d1d5db; } td { border-bottom: 1px solid #f0f1f3; }
td:first-child, th:first-child, .inputs td { text-align: left; }
th:first-child, td:first-child { padding-left: 0; } td { font-variant-numeric: tabular-nums; }
@media (max-width: 480px) {
  main { padding: 14px 10px 40px; } h1 { font-size: 21px; } section { padding: 10px; }
  .cards { grid-template-columns: 1fr 1fr; gap: 8px; } .card { padding: 8px 10px; } .card b { font-size: 18px; }
  td, th { padding: 4px 6px; font-size: 13px; } td { white-space: normal; }
  .wide thead { display: none; } .wide tr { display: block; padding: 6px 0; border-bottom: 1px solid #d1d5db; }
  .wide td { display: flex; justify-content: space-between; gap: 12px; padding: 2px 0; border: 0; }
  .wide td::before { content: attr(data-name); color: #6b7280; text-align: left; } .wide td:empty { display: none; }
}
@media print {
  body { background: #fff; } main { max-width: none; padding: 0; }
  .card, section { break-inside: avoid; } .modebar { display: none; }
}
code { background: #f3f4f6; padding: 2px 5px; border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere; }
"""


WIDE: Final = 4
"""Columns of a table that a narrow screen has room for."""


def write_html(report: Report, path: Path) -> None:
    """Write the page. InvalidValue where bokeh is not installed."""
    shown = charts(report)
    code = script(shown) if shown else ""
    body = [_head(report), _cards(report), *_tables(report)]
    if report.headroom is not None:
        body.append(_section("If something failed at the busiest moment", _headroom(report.headroom)))
    body += [_section(title, drawn) for title, drawn in _charts(shown)]
    body += [_section("The fleet", _fleet(_planned(report), _offered(report))), _inputs(report)]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(finding(report))}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main>{''.join(body)}</main><script>{code}</script></body></html>\n"
    )
    path.write_text(page, encoding="utf-8")


def _charts(shown: Sequence[Chart]) -> Iterator[tuple[str, str]]:
    """The titles of charts, and the places that they are drawn in; panels of one title beside each other."""
    for title, group in itertools.groupby(enumerate(shown), lambda each: each[1].title):
        numbered = list(group)
        places = "".join(f'<div id="chart-{number}"></div>' for number, _ in numbered)
        spans = dict.fromkeys(span.label for _, chart in numbered for span in chart.spans)
        note = f'<p class="note">Shaded: {html.escape("; ".join(spans))}.</p>' if spans else ""
        yield title, note + (f'<div class="panels">{places}</div>' if len(numbered) > 1 else places)


def _head(report: Report) -> str:
    first = report.outcomes[0] if report.outcomes else None
    cut = ""
    if report.forecast is not None:
        told = report.forecast
        days = [
            f"day {day:,}" if day else f"beyond day {told.horizon_days:g}" for day in (told.early_day, told.late_day)
        ]
        cut = f" 80 % of {len(told.days)} seeds: {days[0]} to {days[1]}." if told.banded and told.early_day else ""
        cut += " A run ends when capacity has run out." if any(told.days) else ""
        cut += "".join(f" {note[0].upper()}{note[1:]}." for note in told.notes)
    if interrupted(report):
        cut += " This was interrupted, and is what there was by then."
    hours = max((outcome.hours for outcome in report.outcomes), default=0.0)
    lead = f"{first.workload} on {first.fleet}, {hours:,.0f} hours.{cut}" if first else f"{_not_told(report)}{cut}"
    return f'<h1>{html.escape(finding(report))}</h1><p class="lead">{html.escape(lead)}</p>'


def _not_told(report: Report) -> str:
    """What was played where there are no results to report."""
    trials = len(report.purchase.trials) if report.purchase is not None else 0
    return f"{counted(trials, 'mix', 'mixes')} played." if trials else "Nothing was played."


def _cards(report: Report) -> str:
    cards: list[tuple[str, str]] = []
    if report.size is not None:
        found = report.size
        cards += [
            (f"{found.at_least:,}" + (" or more" if found.interrupted else ""), f"hosts needed, {found.hardware}"),
            (f"{found.lower_bound:,}", "to refuse nothing at once, with a perfect packing"),
        ]
        cards += [(f"{found.gap_percent:.1f} %", "above that")] if found.gap_percent is not None else []
    if report.purchase is not None:
        cards += _cards_of_purchase(report.purchase)
    if report.forecast is not None and any(report.forecast.days):
        told = report.forecast
        cases = [("runs out on day", told.median_day)]
        cases += [("early case (10 %)", told.early_day), ("late case (90 %)", told.late_day)] if told.banded else []
        cards += [(f"{day:,}" if day else f"> {told.horizon_days:.0f}", text) for text, day in cases]
    if report.forecast is not None and report.forecast.orders:
        first = report.forecast.orders[0]
        cards.append((f"{first.hosts:,} {first.hardware}", f"to order by {_day(report.forecast, first.order_day)}"))
    if len(report.outcomes) == 1 or (report.size is not None and report.outcomes):
        cards += _cards_of(report.outcomes[0])
    for each in report.headroom.survives[:1] if report.headroom is not None else ():
        cards.append((f"{each.survives:,} of {each.of:,}", f"{each.kind}s may fail when busiest"))
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
        cost = f"{outcome.cost_per_guest_hour:.4f} {outcome.currency}".rstrip()
        cards.append((cost, "cost of a guest-hour"))
    if outcome.burst:
        cards.append((f"{outcome.burst:,}", "guests burst to a public cloud"))
    if outcome.burst_cost:
        whose = "them and the refused" if outcome.burst else "the refused"
        cards.append((money(outcome.burst_cost, outcome.currency), f"cost of {whose} in a public cloud"))
    if outcome.cost or outcome.burst_cost:
        total = _amount(outcome.cost + outcome.burst_cost, outcome.currency)
        cards.append((total, f"cost of {outcome.hours:,.0f} hours"))
    return cards


def _cards_of_purchase(found: Purchase) -> list[tuple[str, str]]:
    cards = [(f"{each.hosts:,}", f"{each.hardware} to buy") for each in found.bought]
    price, watts = sum(each.price for each in found.bought), sum(each.watts for each in found.bought)
    cards += [(_amount(price, found.currency), "to buy them")] if price else []
    if found.cost is not None:
        cards.append((_amount(found.cost, found.currency), f"total cost over {found.wish.years:g} years"))
    cards += [(f"{watts / 1000:,.1f} kW", "power")] if watts else []
    units = sum(each.rack_units for each in found.bought)
    cards += [(f"{units:,g}", "rack units")] if units else []
    cards += (
        [(f"{found.gap_percent:.1f} %", "above the best that can be, at most")] if found.gap_percent is not None else []
    )
    return cards


def _day(told: Forecast, day: int) -> str:
    return day_in_words(told, day) if day > 0 else f"{1 - day} days ago"


def _orders(told: Forecast) -> str:
    currency = told.outcomes[0].currency if told.outcomes else ""
    lines = [
        (
            _day(told, each.order_day) + (" (too late)" if each.late else ""),
            f"{each.hosts:,} {each.hardware}",
            money(each.price, currency) if each.price else "",
            _day(told, each.needed_day),
            _day(told, each.lasts_to_day),
        )
        for each in told.orders
    ]
    return table(("order by", "what", "price", "needed on", "lasts through"), lines)


def _mixes(found: Purchase) -> str:
    lines = [
        (
            " and ".join(f"{count:,} {name}" for name, count in trial.counts.items() if count) or "none",
            f"{trial.value:,.10g}",
            "holds" if trial.held else trial.why,
        )
        for trial in sorted(found.trials, key=lambda trial: trial.value)
    ]
    unit = f"cost, {found.currency}" if found.wish.objective == "cost" and found.currency else found.wish.objective
    return table(("mix", unit, "what came of it"), lines)


def _tables(report: Report) -> list[str]:
    found = []
    if report.compared:
        header = (
            *("policy", "CPU over-commit", "hosts", "refused %", "more than the best, points"),
            *("peak vCPU %", "stranded %", ", ".join(filter(None, ("cost / guest-hour", report.plan.currency)))),
        )
        body = [
            (
                each.policy,
                f"{each.cpu_ratio:g}" if each.cpu_ratio else "as planned",
                f"{each.hosts:,}",
                _interval(each.refused_percent),
                _difference(each.difference),
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
    if report.size is not None and report.size.trials:
        tried = [
            (f"{trial.hosts:,}", "holds" if trial.held else f"{trial.unserved:,} not served and more")
            for trial in sorted(report.size.trials, key=lambda trial: trial.hosts)
        ]
        found.append(_section("Sizes that were tried", table(("hosts", "what came of it"), tried)))
    if report.purchase is not None and report.purchase.trials:
        found.append(_section("Mixes that were tried", _mixes(report.purchase)))
    if report.forecast is not None and report.forecast.orders:
        found.append(_section("What to order by when", _orders(report.forecast)))
    if report.forecast is not None and report.forecast.days:
        found.append(_section("Seed by seed", _seeds(report.forecast)))
    if len(report.outcomes) == 1 and report.outcomes[0].disruption is not None:
        told = _disrupted(report.outcomes[0].disruption) + _outages(report.outcomes[0])
        found.append(_section("Failures and maintenance", told))
    return found


def _seeds(told: Forecast) -> str:
    lines = [
        (str(outcome.seed), f"{day:,}" if day else f"> {told.horizon_days:g}", f"{outcome.peak_percent['VCPU']:.1f} %")
        for outcome, day in zip(told.outcomes, told.days, strict=True)
    ]
    return table(("seed", "runs out on day", "vCPUs given at the peak"), lines)


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


def _outages(outcome: Outcome) -> str:
    lines = [
        (each.what, f"{each.begins_hours:,g}", f"{each.ends_hours - each.begins_hours:,g}", f"{each.refused:,}")
        for each in outcome.outages
    ]
    told = table(("outage", "after hours", "for hours", "requests refused meanwhile"), lines) if lines else ""
    pairs = itertools.combinations(outcome.outages, 2)
    if any(one.begins_hours < other.ends_hours and other.begins_hours < one.ends_hours for one, other in pairs):
        told += '<p class="note">Requests refused while outages overlap are counted for each of them.</p>'
    return told


def _headroom(told: Headroom) -> str:
    """How many may fail, and the worst single failures."""
    survives = [
        (f"{each.kind}s", f"{each.of:,}", f"{each.survives:,}", "" if each.found is None else f"{each.found:,}")
        for each in told.survives
    ]
    lost = [(each.what, f"{each.hosts:,}", f"{each.guests:,}", f"{each.homeless:,}") for each in told.losses[:8]]
    parts = [f"<p>{html.escape(_busiest(told))}</p>"]
    if survives:
        parts.append(table(("together", "that run", "any may fail: proven", "found that may not"), survives))
    if lost:
        parts.append(table(("each alone", "hosts", "guests on them", "without another host"), lost))
    return "".join(parts)


def _busiest(told: Headroom) -> str:
    given = ", ".join(f"{part:.1f} % of the {WORDS[name]}" for name, part in told.used_percent.items() if part)
    return f"{told.at_hours:,.1f} hours into the run {told.guests:,} guests had {given}. Their hosts on trial:"


def _interval(value: Interval) -> str:
    if value.low is None or value.high is None:
        return f"{value.mean:.2f}"
    return f"{value.mean:.2f} ({max(value.low, 0.0):.2f} to {min(value.high, 100.0):.2f})"


def _difference(told: Difference | None) -> str:
    """A difference with its interval and the pairs won."""
    if told is None:
        return "the best"
    if told.low is None or told.high is None:
        return f"{told.mean:.2f}, not tested"
    return f"{told.mean:.2f} ({told.low:.2f} to {told.high:.2f}), {told.wins} of {told.pairs} {told.by}s".replace(
        "dayss", "blocks of days"
    )


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """An HTML table of texts, without the columns that say nothing in any row. On a narrow screen the rows of one with
    more than WIDE columns are lists of its cells, each with the name of its column."""
    told = [any(line[at] for line in body) or not body for at in range(len(header))]
    header, body = list(itertools.compress(header, told)), [list(itertools.compress(line, told)) for line in body]
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    lines = "".join(
        f"<tr>{''.join(_cell(name, text) for name, text in zip(header, line, strict=True))}</tr>" for line in body
    )
    kind = ' class="wide"' if len(header) > WIDE else ""
    return f"<table{kind}><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"


def _cell(name: str, text: str) -> str:
    return f'<td data-name="{html.escape(name)}">{html.escape(text)}</td>'


def _amount(price: float, currency: str) -> str:
    """Money on a card, without hundredths where these would not be seen beside the rest."""
    return money(price, currency) if price < 1_000 else f"{price:,.0f} {currency}".rstrip()


def _planned(report: Report) -> FleetPlan:
    """The fleet that the report is of: where a number of hosts was looked for, with as many as were found."""
    plan, found = report.plan, _offered(report)
    if report.size is not None and report.size.hosts is not None:
        found = {report.size.hardware: report.size.hosts}
    kinds = [msgspec.structs.replace(kind, count=found.get(kind.name, kind.count)) for kind in plan.hardware]
    return msgspec.structs.replace(plan, hardware=tuple(kinds))


def _offered(report: Report) -> Mapping[str, int]:
    """How many hosts are to be bought of each kind that may be, of a purchase; empty if no mix was found."""
    return (report.purchase.counts or {}) if report.purchase is not None else {}


def _fleet(plan: FleetPlan, offered: Mapping[str, int]) -> str:
    """Its hosts, as they are planned or, of kinds that are ``offered``, bought, and what is to happen to them."""
    names = (
        *(
            "hardware",
            "hosts",
            "vCPUs",
            "dedicated",
            "huge pages",
            "GiB",
            "GiB of disk",
            "GPUs",
            "over-commit",
            "zones",
            "racks",
        ),
        *("price", "price / h", "W"),
    )
    lines = [
        (
            kind.name,
            f"{kind.count:,}" + (" to buy" if kind.name in offered else ""),
            f"{kind.vcpus:,}",
            f"{kind.dedicated_vcpus:,}" if kind.dedicated_vcpus else "",
            ", ".join(f"{count:,} of {size}" for size, count in kind.huge_pages.items()),
            f"{kind.memory_gb:,g}",
            f"{kind.disk_gb:,}",
            f"{kind.gpus} {kind.gpu_model}" if kind.gpus else "",
            " / ".join(f"{ratio:g}" for ratio in (kind.cpu_allocation_ratio, kind.ram_allocation_ratio)),
            str(len(kind.zones)),
            str(kind.racks * len(kind.zones)),
            money(kind.price, plan.currency) if kind.price else "",
            f"{kind.price_per_hour:g} {plan.currency}".rstrip() if kind.price_per_hour else "",
            f"{kind.watts:,g}" if kind.watts else "",
        )
        for kind in plan.hardware
    ]
    events = [(growth.at_hours, f"{growth.add:,} more of {growth.hardware}") for growth in plan.growth]
    for word, outages in (("failure", plan.failures), ("maintenance", plan.maintenance)):
        for each in outages:
            which = next(f"{kind} {getattr(each, kind)}" for kind in DOMAINS if getattr(each, kind))
            events.append((each.at_hours, f"{word} of {which} for {each.hours:g} h"))
    told = table(names, lines)
    if events:
        told += table(("after hours", "what happens"), [(f"{at:g}", what) for at, what in sorted(events)])
    return told


def _inputs(report: Report) -> str:
    body = [(name, value) for name, value in report.inputs.items()]
    lines = "".join(f"<tr><td>{html.escape(n)}</td><td><code>{html.escape(v)}</code></td></tr>" for n, v in body)
    command = f"<p><code>{html.escape(report.command)}</code></p>"
    return _section("How this was made", f'{command}<table class="inputs"><tbody>{lines}</tbody></table>')


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>"
