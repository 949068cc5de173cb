"""From the request until a guest runs, in two real OpenStacks that differ in who decides: one with nova-scheduler and
Placement, one with Hostler in their place. Both are there all the time, and are asked in turn, so that what else the
machine does meets both.

    python -m hostler.bench.openstack_beside [--computes 8] [--guests 200] [--rounds 10] [--json]

Needs RabbitMQ and PostgreSQL; Nova and Placement come from PyPI into an environment of their own, made the first time.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import msgspec
import numpy as np
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from .engine import Count, machine, main
from .environments import ServiceUnavailable, kept
from .openstack_cloud import PACKAGES, OpenStack
from .openstack_life import CROWD_REQUEST, Batch, Life

app = cyclopts.App(
    name="openstack_beside",
    help="Guests of two real OpenStacks, one with nova-scheduler and Placement, one with Hostler.",
    result_action="return_value",
)


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two. ``states``: of its guests; seconds from the request until a guest ran; CPU milliseconds a guest
    of what decides (all that nova-compute asks of Placement among it), and of the database of all of Nova."""

    stock: bool
    guests: int
    states: dict[str, int]
    p50: float
    p99: float
    servers_ms: float
    database_ms: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run, and where it ran."""

    machine: str
    python: str
    packages: list[str]
    load_average: float
    computes: int
    sides: list[Side]


def side_of(batches: list[Batch], *, stock: bool) -> Side:
    """What all rounds of one of the two say together."""
    states = Counter(state for batch in batches for state in batch.states.values())
    seconds = [each for batch in batches for each in batch.seconds] or [float("nan")]
    p50, p99 = np.percentile(seconds, (50, 99)).tolist()
    guests = sum(states.values())
    return Side(
        stock=stock,
        guests=guests,
        states=dict(states),
        p50=round(p50, 3),
        p99=round(p99, 3),
        servers_ms=round(1e3 * sum(batch.servers for batch in batches) / guests, 2),
        database_ms=round(1e3 * sum(batch.database for batch in batches) / guests, 2),
    )


def measure(venv: Path, computes: int, guests: int, rounds: int) -> list[Side]:
    """Ask both for their share of the guests in each round, who comes first in turn."""
    batches: dict[bool, list[Batch]] = {True: [], False: []}
    with ExitStack() as stack:
        lives: dict[bool, Life] = {}
        for stock in batches:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hostler-os-"))
            os.chmod(folder, 0o755)
            cloud = stack.enter_context(OpenStack(Path(folder), venv, computes=computes, stock=stock))
            lives[stock] = Life(cloud, lambda step: None)
            lives[stock].begin()
            lives[stock].batch(CROWD_REQUEST)  # what is made with the first guests is not counted
        for number in range(rounds):
            share = guests * (number + 1) // rounds - guests * number // rounds
            for stock in (True, False) if number % 2 else (False, True):
                batches[stock].append(lives[stock].batch(share))
                print(f"round {number + 1} of {rounds}, {_name(stock)}", file=sys.stderr, flush=True)
    return [side_of(each, stock=stock) for stock, each in batches.items()]


def _name(stock: bool) -> str:
    return "nova-scheduler, Placement" if stock else "Hostler"


def _show(report: Report) -> None:
    title = f"{', '.join(report.packages)} and Hostler, {report.computes} computes; {report.machine}"
    table: Any = Table(title=title)
    for name in ("", "guests", "states", "p50 s", "p99 s", "servers ms", "database ms"):
        table.add_column(name, justify="right" if name else "left")
    for each in report.sides:
        states = ", ".join(f"{count} {state}" for state, count in each.states.items())
        times = (f"{each.p50:.2f}", f"{each.p99:.2f}", f"{each.servers_ms:.1f}", f"{each.database_ms:.1f}")
        table.add_row(_name(each.stock), str(each.guests), states, *times)
    Console(width=None if sys.stdout.isatty() else 130).print(table)


@app.default
def command(
    *,
    computes: Count = 8,
    guests: Count = 200,
    rounds: Count = 10,
    venv: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Measure. Exit code 1 if a guest does not run in the end, 3 without Nova, RabbitMQ or PostgreSQL.

    Parameters
    ----------
    computes
        Hosts of each of the two, each a nova-compute with the fake driver; about 110 guests fit on a host.
    guests
        Guests of each of the two, ten a request.
    rounds
        In each of which both are asked for as many of them.
    venv
        Folder of the environment with Nova; made if it is not there. ~/.cache/hostler/openstack-life if left out.
    """
    load = os.getloadavg()[0]
    try:
        sides = measure(venv or kept("openstack-life"), computes, guests, min(rounds, guests))
    except ServiceUnavailable as error:
        print(f"{error}; {error.hint}" if error.hint else str(error), file=sys.stderr)
        return 3
    report = Report(
        machine=machine(),
        python=platform.python_version(),
        packages=list(PACKAGES[:2]),
        load_average=round(load, 2),
        computes=computes,
        sides=sides,
    )
    if json:
        print(msgspec.json.encode(report).decode())
    else:
        _show(report)
    return 1 if any(set(each.states) != {"ACTIVE"} for each in sides) else 0


if __name__ == "__main__":
    sys.exit(main(program=app))
