"""A plan as a picture: one HTML page that needs no network, with what each wave does to each host."""

from __future__ import annotations

import html
from collections import Counter
from typing import Final

from ...placement.types.counting import counted
from ...placement.types.plans import Measure, Plan

MOST_HOSTS: Final = 80
"""Hosts of the picture: those with most moves."""
MOST_WAVES: Final = 60
"""Waves of the picture; later ones are added up in its last column."""
MOST_MOVES: Final = 2_000
"""Moves of the table."""
_STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #f3f4f6; margin: 0; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 16px 60px; }
h1 { font-size: 22px; margin: 0 0 4px; overflow-wrap: anywhere; } h2 { font-size: 17px; margin: 0 0 10px; }
section { background: #fff; border-radius: 8px; padding: 16px; margin-top: 16px; box-shadow: 0 1px 2px #0002; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 3px 8px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
.moves td, .moves th { text-align: left; border-top: 1px solid #e5e7eb; } .grid td { border: 1px solid #fff; }
.bar { background: #e5e7eb; height: 12px; border-radius: 3px; position: relative; min-width: 160px; }
.bar i { position: absolute; inset: 0 auto 0 0; border-radius: 3px; background: #2563eb; }
.bar b { position: absolute; top: -3px; bottom: -3px; width: 2px; background: #111827; }
.moves small { display: none; }
@media (max-width: 640px) {
  main { padding: 16px 8px 40px; } section { padding: 12px; } .bar { min-width: 72px; }
  .moves, .moves tbody { display: block; } .moves tr:first-child { display: none; }
  .moves tr { display: grid; grid-template-columns: 1fr auto; column-gap: 8px; border-top: 1px solid #e5e7eb; }
  .moves td { border: 0; padding: 2px 0; white-space: normal; overflow-wrap: anywhere; }
  .moves td:first-child { position: static; } .moves td:nth-last-child(1) { grid-column: 1 / 3; color: #6b7280; }
  .moves td.id { grid-column: 1 / 3; order: 1; font-size: 12px; color: #6b7280; } .moves td.size { text-align: right; }
  .moves small { display: inline; color: #6b7280; }
}
.note { color: #6b7280; font-size: 13px; margin: 8px 0 0; }
"""


def page(made: Plan) -> str:
    """The page of a plan, at most some 400 kB."""
    title = html.escape(made.summary)
    parts = [f"<h1>{title}</h1><p class=note>{counted(len(made.waves), 'wave')}; nothing has been moved yet</p>"]
    parts += [_measures(made.measures), _grid(made), _moves(made), _left(made)]
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{viewport}<title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>\n'


def _measures(measures: tuple[Measure, ...]) -> str:
    if not measures:
        return ""
    rows = []
    for each in measures:
        top = max(each.before, each.after, each.bound or 0) or 1
        name = html.escape(each.name.replace("_", " "))
        mark = "" if each.bound is None else f'<b style="left:{100 * each.bound / top:.1f}%"></b>'
        for when, value in (("before", each.before), ("after", each.after)):
            bar = f'<div class=bar><i style="width:{100 * value / top:.1f}%"></i>{mark}</div>'
            rows.append(f"<tr><td>{name}</td><td>{when}</td><td>{value:,.4g}</td><td>{bar}</td></tr>")
        if each.bound is not None:
            sense = "at least" if each.sense == "at_least" else "at most"
            rows.append(f"<tr><td></td><td>{sense}</td><td>{each.bound:,.4g}</td><td></td></tr>")
    note = "<p class=note>The line is the bound that no plan can pass.</p>"
    return f"<section><h2>What it achieves</h2><div class=wide><table>{''.join(rows)}</table></div>{note}</section>"


def _grid(made: Plan) -> str:
    """Hosts by waves: memory that comes and goes."""
    if not made.waves:
        return "<section><h2>Hosts by waves</h2><p>No guest has to move.</p></section>"
    delta, moves = Counter[tuple[str, int]](), Counter[str]()
    for number, wave in enumerate(made.waves):
        column = min(number, MOST_WAVES - 1)
        for move in wave.moves:
            delta[move.source, column] -= move.memory_mb
            delta[move.target, column] += move.memory_mb
            moves.update((move.source, move.target))
    empty = {name: min(number, MOST_WAVES - 1) for number, wave in enumerate(made.waves) for name in wave.empty}
    hosts = sorted(sorted(moves, key=lambda name: (-moves[name], name))[:MOST_HOSTS])
    columns = range(min(len(made.waves), MOST_WAVES))
    most = max((abs(value) for value in delta.values()), default=0) or 1
    later = len(made.waves) > MOST_WAVES
    names = [f"{at + 1}{' and later' if later and at == MOST_WAVES - 1 else ''}" for at in columns]
    head = "".join(f"<th>wave {name}</th>" for name in names)
    lines = []
    for name in hosts:
        cells = "".join(_cell(delta[name, at], most, is_empty=empty.get(name) == at) for at in columns)
        lines.append(f"<tr><td>{html.escape(name)}</td>{cells}</tr>")
    note = "GiB of memory that come (blue) and go (orange); ∅: the host is empty then."
    if len(hosts) < len(moves):
        note += f" The {len(hosts)} hosts with most moves, of {len(moves):,}."
    table = f"<table class=grid><tr><th>host</th>{head}</tr>{''.join(lines)}</table>"
    return f"<section><h2>Hosts by waves</h2><div class=wide>{table}</div><p class=note>{note}</p></section>"


def _cell(memory_mb: int, most: int, *, is_empty: bool) -> str:
    said = (f"{memory_mb / 1024:+,.4g}" if memory_mb else "") + (" ∅" if is_empty else "")
    if not memory_mb:
        return f"<td>{said}</td>"
    share = 0.15 + 0.75 * abs(memory_mb) / most
    colour = "37,99,235" if memory_mb > 0 else "217,119,6"
    ink = "#fff" if share > 0.55 and memory_mb > 0 else "inherit"
    return f'<td style="background:rgba({colour},{share:.2f});color:{ink}">{said}</td>'


def _moves(made: Plan) -> str:
    mixed = len({move.kind for move in made.moves}) > 1
    lines = [
        f"<tr><td><small>wave </small>{number}</td><td class=id>{html.escape(move.instance)}</td>"
        f"<td><small>from </small>{html.escape(move.source)}</td><td><small>to </small>{html.escape(move.target)}</td>"
        f"<td class=size>{move.memory_mb:,}<small> MiB</small></td>"
        + (f"<td>{move.kind.replace('_migrate', '')}</td>" if mixed else "")
        + f"<td>{html.escape(move.reason)}</td></tr>"
        for number, wave in enumerate(made.waves, 1)
        for move in wave.moves
    ]
    if not lines:
        return ""
    more = f"<p class=note>The first {MOST_MOVES:,} of {len(lines):,} moves.</p>" if len(lines) > MOST_MOVES else ""
    head = "<tr><th>wave</th><th>instance</th><th>from</th><th>to</th><th>memory MiB</th>"
    head += f"{'<th>kind</th>' if mixed else ''}<th>reason</th></tr>"
    table = f"<table class=moves>{head}{''.join(lines[:MOST_MOVES])}</table>"
    return f"<section><h2>Moves</h2><div class=wide>{table}</div>{more}</section>"


def _left(made: Plan) -> str:
    if not made.left:
        return ""
    lines = [
        f"<tr><td class=id>{html.escape(each.instance)}</td><td>{html.escape(each.node)}</td>"
        f"<td>{html.escape(each.reason)}</td>"
        for each in made.left[:MOST_MOVES]
    ]
    table = f"<table class=moves><tr><th>stays</th><th>on</th><th>because</th></tr>{'</tr>'.join(lines)}</tr></table>"
    return f"<section><h2>Guests that stay</h2><div class=wide>{table}</div></section>"
