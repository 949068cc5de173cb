"""Shows a simulation on a terminal: tables of its summary. Decides and counts nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ...placement.types.counting import counted
from ..run.summary import Chosen, Explained, Machines, Sizing, Summary

IN_GIB: Final = {"MEMORY_MB": ("memory", 1024), "DISK_GB": ("disk", 1)}
"""Resource class -> its name in the tables, and how many of its units make a GiB."""
LEVELS: Final = "▁▂▃▄▅▆▇█"
EIGHTHS: Final = ("", *"▏▎▍▌▋▊▉")
WIDTH: Final = 112
"""Greatest width of what is shown, and the width where there is no terminal."""
COURSE_WIDTH: Final = 72


# tables


def show(summary: Summary) -> None:
    """Print all tables to standard output."""
    console = Console()
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    for part in _parts(summary):
        console.print(part)


def _parts(summary: Summary) -> Iterator[RenderableType]:
    yield _fleet(summary)
    if summary.sizing is not None:
        yield from (
            _heading(f"The smallest fleet of hosts with {summary.sizing.host}"),
            _sizing(summary.sizing, summary),
        )
    yield _side_by_side(summary)
    if summary.refused:
        yield from (_heading("Refused", "by the stage that removed most hosts"), _refused(summary))
    peak, end = _clock(summary.peak_s, summary), _clock(summary.reached_s, summary)
    yield from (
        _heading("In use", f"at the start, at the peak of vCPUs ({peak}) and at the end ({end})"),
        _usage(summary),
    )
    if summary.hours:
        yield from (_heading("Hour by hour"), _course(summary))
    for story in (summary.decision, summary.refusal):
        if story is not None:
            yield from (Text(), _story(story, summary))


def _heading(title: str, remark: str = "") -> Text:
    return Text.assemble("\n", (title, "bold cyan"), ("  " + remark, "dim"))


def _table(*columns: str, words: int = 1) -> Table:
    """A table whose first ``words`` columns are words and the others figures; without headers if all are empty."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), show_header=any(columns))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < words else "right")
    return table


def _fleet(summary: Summary) -> RenderableType:
    zones = f" in {len(summary.zones)} zones" if len(summary.zones) > 1 else ""
    text = Text(f"{counted(summary.hosts, 'host')}{zones}, {summary.workload}, seed {summary.seed}", style="bold")
    if summary.interrupted:
        text.append(f"  interrupted at {_clock(summary.reached_s, summary)}", style="bold red")
    for machines in summary.machines:
        text.append(f"\n{machines.hosts:6,} with {_kind(machines)}", style="dim not bold")
    if summary.out_of_service:
        text.append(f"\n{summary.out_of_service:6,} of them disabled or down", style="dim not bold")
    return Panel(text, border_style="cyan", expand=False, title="hostler demo", title_align="left")


def _kind(machines: Machines) -> str:
    version = machines.hypervisor_version
    named = f", hypervisor {version // 1_000_000}.{version // 1_000 % 1_000}" if version else ""
    return f"{machines.vcpus} vCPU, {machines.memory_mb // 1024} GiB{named}"


def _side_by_side(summary: Summary) -> RenderableType:
    table = Table.grid(padding=(0, 4, 0, 0))
    table.add_row(_heading("Guests"), _heading("Speed", "of the engine, one thread"))
    table.add_row(_guests(summary), _speed(summary))
    return table


def _guests(summary: Summary) -> Table:
    standing = f"{summary.standing:,} at first" if summary.standing else ""
    table = _table("", "", "")
    table.columns[2].justify = "left"
    for name, count, remark in (
        ("asked for", summary.requests, standing),
        ("placed", summary.placed, ""),
        ("refused", summary.refused, f"{summary.refused / max(summary.requests, 1):.3%}"),
        ("departed", summary.departed, ""),
        ("still alive", summary.alive, ""),
    ):
        table.add_row(name, f"[bold]{count:,}", f"[dim]{remark}")
    return table


def _speed(summary: Summary) -> Table:
    timing = summary.timing
    table = _table("", "CPU", "wall")
    per_cpu_s, per_wall_s = f"[bold]{timing.decisions_per_cpu_s:,.0f}", f"[bold]{timing.decisions_per_wall_s:,.0f}"
    table.add_row("decisions per second", per_cpu_s, per_wall_s)
    table.add_row("seconds deciding", f"{timing.placing_cpu_s:.2f}", f"{timing.placing_wall_s:.2f}")
    table.add_row("seconds in all", "", f"{timing.replay_wall_s:.2f}")
    return table


def _sizing(sizing: Sizing, summary: Summary) -> Table:
    table = _table("hosts", "", words=0)
    table.columns[1].justify = "left"
    table.add_row(f"{sizing.lower_bound:,}", "is the lower bound: the most that is asked for at once, packed perfectly")
    for each in sorted(sizing.tries, key=lambda each: each.hosts):
        if each.hosts == sizing.chosen:
            table.add_row(f"[bold green]{each.hosts:,}", "[bold green]hold everything; one host less does not")
        elif each.refused_at_s is None:
            table.add_row(f"{each.hosts:,}", "hold everything")
        else:
            table.add_row(f"{each.hosts:,}", f"[red]refuse a guest[/] [dim]at {_clock(each.refused_at_s, summary)}")
    return table


def _refused(summary: Summary) -> Table:
    table = _table("stage", "guests", "the first of them asked for")
    table.columns[2].justify = "left"
    for refusals in summary.refusals:
        table.add_row(refusals.stage, f"[bold]{refusals.guests:,}", Text(refusals.first.asked, style="dim"))
    return table


def _usage(summary: Summary) -> Table:
    table = _table("zone", "resource", "there is", "start", "peak", "end", "at the peak", words=2)
    table.columns[-1].justify = "left"
    zone = ""
    for usage in summary.usage:
        unit, factor = _unit(usage.resource_class, summary)
        shares = [amount / max(usage.total, 1) for amount in (usage.start, usage.peak, usage.end)]
        name = "" if usage.zone == zone else f"[bold]{usage.zone}"
        table.add_row(
            name, unit, f"{usage.total / factor:,.0f}", *(f"{share:.1%}" for share in shares), _bar(shares[1])
        )
        zone = usage.zone
    return table


def _unit(resource: str, summary: Summary) -> tuple[str, int]:
    """What the tables call a resource class and divide it by, so that the fleet's total is neither long nor small."""
    if resource not in IN_GIB:
        return "vCPU", 1
    (name, gib), tib = IN_GIB[resource], 1024
    most = max(usage.total for usage in summary.usage if usage.resource_class == resource)
    return (f"{name}, TiB", gib * tib) if most >= 100 * gib * tib else (f"{name}, GiB", gib)


def _bar(share: float, width: int = 24) -> Text:
    """A bar of eighths of a character, coloured by how full it is."""
    colour = "green" if share < 0.7 else "yellow" if share < 0.9 else "red"
    eighths = round(min(share, 1.0) * width * 8)
    filled = "█" * (eighths // 8) + EIGHTHS[eighths % 8]
    return Text.assemble((filled, colour), ("·" * (width - len(filled)), "dim"))


def _course(summary: Summary) -> Table:
    """Lines of blocks, a character an hour; longer courses are squeezed."""
    total = sum(
        usage.total for usage in summary.usage if usage.resource_class == "VCPU" and usage.zone in summary.zones
    )
    used = [hour.vcpus_used / max(total, 1) for hour in summary.hours]
    table = _table("", "", "", words=3)
    for name, values, style in (
        ("placed an hour", [hour.arrived for hour in summary.hours], ",.0f"),
        ("departed an hour", [hour.departed for hour in summary.hours], ",.0f"),
        ("alive", [hour.alive for hour in summary.hours], ",.0f"),
        ("vCPUs in use", used, ".1%"),
    ):
        table.add_row(name, _line(values), f"[dim]{min(values):{style}} to {max(values):{style}}")
    return table


def _line(values: Sequence[float]) -> Text:
    """One block per value, the lowest for the least of them and the highest for the greatest."""
    step = -(-len(values) // COURSE_WIDTH)
    slices = [values[at : at + step] for at in range(0, len(values), step)]
    means = [statistics.fmean(each) for each in slices]
    low, high = min(means), max(means)
    scale = (len(LEVELS) - 1) / (high - low) if high > low else 0.0
    return Text("".join(LEVELS[round((mean - low) * scale)] for mean in means), style="cyan")


# stories


def _story(story: Explained, summary: Summary) -> RenderableType:
    """A decision or a refusal, from what was asked to what would change the answer."""
    chosen = story.chosen
    when = f" at {_clock(story.at_s, summary)}" + (
        f" on {counted(story.hosts, 'host')}" if story.hosts != summary.hosts else ""
    )
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_row("asked for", story.asked)
    table.add_row("hosts", _funnel(story))
    if chosen is not None and chosen.second is not None:
        table.add_row("scores", _scores(chosen, " ".join(story.counterfactuals)))
    if story.sentence is not None:
        table.add_row("answer", Text(story.sentence))
    if chosen is not None and chosen.equals:
        table.add_row("", f"{chosen.equals:,} other hosts score the same; the first in order gets it")
    if story.counterfactuals:
        table.add_row(
            "would help" if chosen is None else "but", Group(*(Text(text) for text in story.counterfactuals[:4]))
        )
    title, colour = f"A refusal explained,{when}", "red"
    if chosen is not None:
        zone = f" in {chosen.zone}" if chosen.zone else ""
        title, colour = f"A decision explained: {chosen.host}{zone} gets the next such guest{when}", "green"
    return Panel(table, title=title, title_align="left", border_style=colour, padding=(0, 1))


def _funnel(story: Explained) -> Table:
    """How many hosts each stage removed, and how many were left after it."""
    table, left = _table("", "", ""), story.considered
    table.columns[2].justify = "left"
    table.add_row("considered", "", f"{left:,}")
    for stage, hosts in story.removed.items():
        left -= hosts
        table.add_row(stage, f"[red]-{hosts:,}", f"[dim]{left:,}")
    table.add_row("[bold]pass", "", f"[bold {'green' if left else 'red'}]{left:,}")
    return table


def _scores(chosen: Chosen, counterfactuals: str) -> Table:
    """The weighers that gave the two hosts any points, or that the counterfactuals speak of."""
    best = f"[bold green not dim]{chosen.host}"
    table = _table("weigher", "raw", "norm", "times", best, chosen.second or "")
    for part in chosen.parts:
        if part.points or part.second or part.weigher in counterfactuals:
            # Adding 0.0 makes 0.0 of -0.0.
            second = f"{part.second + 0.0:+.4f}" if chosen.second else ""
            points = f"{part.points + 0.0:+.4f}"
            figures = f"{part.raw:,.15g}", f"{part.normalised:.4f}", f"{part.multiplier:+g}", points
            table.add_row(part.weigher, *figures, second)
    total = f"[bold]{chosen.second_weight:+.4f}" if chosen.second_weight is not None else ""
    table.add_row("[bold]score", "", "", "", f"[bold]{chosen.weight:+.4f}", total)
    return table


def _clock(at_s: int, summary: Summary) -> str:
    """Time since the start, as day and time of day; the standing guests came before it."""
    if at_s < summary.start_s:
        return "the start"
    minutes = (at_s - summary.start_s) // 60
    day = f"day {minutes // 1440 + 1}, " if summary.end_s - summary.start_s > 86_400 else ""
    return f"{day}{minutes // 60 % 24:02}:{minutes % 60:02}"
