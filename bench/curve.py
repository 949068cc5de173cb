"""The whole curve, a thousand to a million hosts, and every other figure that has a bar, each as one row: what, bar,
measured, ratio, ok.

    python -m hostler.bench.curve

Decisions are timed by ``hostler.bench.engine`` in a process of their own; of ``--repeat`` runs the least of each figure
counts, since what else the machine does can only add to it.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from ..placement.decide.engine import Engine
from ..placement.persist import file as fleet_file
from ..placement.types.request import Request
from .engine import Count, Result, machine, main
from .shapes import BARS as SHAPES_BARS
from .shapes import SHAPES
from .shapes import Result as ShapesResult
from .workload import make_fleet, make_policy, make_requests

SIZES: Final = {1_000: (2.0, 1.0), 10_000: (4.0, 2.0), 100_000: (10.0, 5.0), 1_000_000: (100.0, 20.0)}
"""Hosts -> CPU microseconds per decision that a batch must take at most, and that it should."""
SINGLE_US: Final = 25.0
NUMA_US: Final = 1_000.0
HEAVY_US: Final = 30.0
AFFINITY_RATIO: Final = 2.0
EXPLAIN_MS: Final = 50.0
BYTES_PER_HOST: Final = 1_024.0
LOAD_SECONDS: Final = 5.0
FORK_MS: Final = 2.0
SNAPSHOT_SECONDS: Final = 3.0
USUAL: Final = 10_000
MOST: Final = max(SIZES)

app = cyclopts.App(name="curve", help="Measure everything that has a bar.", result_action="return_value")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure beside its bar; ``bar`` is None for figures that are there for scale. ``reach``: what it should be
    some day."""

    what: str
    unit: str
    measured: float
    bar: float | None = None
    reach: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.bar is None else self.measured / self.bar

    @property
    def ok(self) -> bool | None:
        return None if self.ratio is None else self.ratio <= 1.0

    def cells(self) -> tuple[str, ...]:
        """The row as the table shows it."""
        bar = "" if self.bar is None else f"{self.bar:,.10g}"
        reach = "" if self.reach is None else f"{self.reach:,.10g}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        ok = {None: "", True: "yes", False: "NO"}[self.ok]
        return self.what, self.unit, bar, reach, f"{self.measured:,.5g}", ratio, ok


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of a run, and where it ran."""

    machine: str
    python: str
    load_average: float
    rows: list[dict[str, Any]]


@functools.cache
def _runs(repeat: int, hosts: int, requests: int, *options: str) -> tuple[Result, ...]:
    """Runs of bench/engine.py, each in a process of its own."""
    sizes = (f"--hosts={hosts}", f"--requests={requests}")
    command = [sys.executable, "-m", "hostler.bench.engine", "--json", *sizes, *options]
    outputs = (subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout for _ in range(repeat))
    return tuple(msgspec.json.decode(output, type=Result) for output in outputs)


def _best(runs: Sequence[Result], figure: str) -> float:
    """The least that any run measured of a figure."""
    return float(min(getattr(run, figure) for run in runs))


def _least(repeat: int, measure: Callable[[], object]) -> float:
    """CPU seconds of the fastest of some calls."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        measure()
        times.append(time.process_time() - start)
    return min(times)


def rows(sizes: Sequence[int], repeat: int, requests: int) -> Iterator[Row]:
    """Every row, as soon as it is measured. The bars of a million hosts are measured on the greatest of ``sizes``."""
    most = max(sizes)
    for hosts in sizes:
        yield from _size_rows(hosts, repeat, requests)
    for hosts in sizes:
        yield from _shape_rows(hosts, repeat, requests)
    yield from _policy_rows(min(USUAL, most), repeat, requests)
    yield _explain_row(min(USUAL, most), repeat)
    runs = _runs(repeat, most, requests)
    yield Row(
        what=f"memory, {most:,} hosts, all in (resident)",
        unit="B/host",
        bar=BYTES_PER_HOST,
        measured=_best(runs, "rss_bytes_per_host"),
    )
    yield Row(
        what=f"load {most:,} hosts from arrays (wall)", unit="s", bar=LOAD_SECONDS, measured=_best(runs, "load_seconds")
    )
    yield from _state_rows(most, repeat)


def _size_rows(hosts: int, repeat: int, requests: int) -> Iterator[Row]:
    bar, reach = SIZES.get(hosts, (None, None))
    runs = _runs(repeat, hosts, requests)
    yield Row(
        what=f"place_many, {hosts:,} hosts",
        unit="µs",
        bar=bar,
        reach=reach,
        measured=_best(runs, "cpu_us_per_decision"),
    )
    yield Row(what=f"release, {hosts:,} hosts", unit="µs", measured=_best(runs, "release_cpu_us"))
    yield Row(
        what=f"first decision of all, {hosts:,} hosts (wall)", unit="ms", measured=_best(runs, "first_decision_ms")
    )
    engine, request = _engine(hosts)
    scan = _least(max(2, min(20, 200_000 // hosts)), lambda: engine.rank(request).rows[0])
    yield Row(
        what=f"exact flat scan for scale: Engine.rank and its first, {hosts:,} hosts", unit="µs", measured=scan * 1e6
    )


def _shape_rows(hosts: int, repeat: int, requests: int) -> Iterator[Row]:
    """The axis of shapes: how many kinds of requests come in turn."""
    for count in SHAPES:
        command = [sys.executable, "-m", "hostler.bench.shapes", "--json", f"--hosts={hosts}", f"--shapes={count}"]
        command.append(f"--requests={requests}")
        outputs = [subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout for _ in range(repeat)]
        found = [msgspec.json.decode(output, type=list[ShapesResult])[0] for output in outputs]
        yield Row(
            what=f"place_many, {hosts:,} hosts, {count:,} request shapes",
            unit="µs",
            reach=SHAPES_BARS.get((hosts, count)),
            measured=min(each.cpu_us_per_decision for each in found),
        )


def _engine(hosts: int) -> tuple[Engine, Request]:
    """An engine on a fleet, and a request that it has decided once."""
    engine = Engine(make_fleet(hosts), make_policy("nova"))
    request = make_requests(engine.fleet, 1)[0]
    engine.place(request)
    return engine, request.with_changes(instance_uuids=())


def _policy_rows(hosts: int, repeat: int, requests: int) -> Iterator[Row]:
    def decision(count: int, *options: str) -> float:
        return _best(_runs(repeat, hosts, count, *options), "cpu_us_per_decision")

    single = decision(requests, "--single")
    yield Row(what=f"place one at a time, {hosts:,} hosts", unit="µs", bar=SINGLE_US, measured=single)
    numa = decision(min(requests, 2_000), "--policy=numa", "--batch=500")
    yield Row(what=f"place_many, numa, {hosts:,} hosts", unit="µs", bar=NUMA_US, measured=numa)
    heavy = decision(requests, "--policy=heavy")
    yield Row(what=f"place_many, heavy, {hosts:,} hosts", unit="µs", bar=HEAVY_US, measured=heavy)
    affinity, usual = decision(requests, "--policy=affinity"), decision(requests)
    yield Row(what=f"place_many, affinity, {hosts:,} hosts", unit="µs", measured=affinity)
    yield Row(what="affinity beside no server groups", unit="times", bar=AFFINITY_RATIO, measured=affinity / usual)


def _explain_row(hosts: int, repeat: int) -> Row:
    engine, request = _engine(hosts)
    seconds = _least(repeat, lambda: engine.explain(request))
    return Row(what=f"explain, {hosts:,} hosts", unit="ms", bar=EXPLAIN_MS, measured=seconds * 1e3)


def _state_rows(hosts: int, repeat: int) -> Iterator[Row]:
    engine, request = _engine(hosts)
    yield Row(what=f"fork {hosts:,} hosts", unit="ms", bar=FORK_MS, measured=_least(repeat, engine.fork) * 1e3)
    seconds = _least(repeat, lambda: (engine.what_if().place(request), engine.fleet))
    yield Row(
        what=f"fork {hosts:,} hosts, decide on the fork, come back", unit="ms", bar=FORK_MS, measured=seconds * 1e3
    )
    yield from _snapshot_rows(engine, repeat)


def _snapshot_rows(engine: Engine, repeat: int) -> Iterator[Row]:
    hosts = len(engine.fleet)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet"
        write = min(_wall(lambda: fleet_file.save(engine.fleet, path)) for _ in range(repeat))
        read = min(_wall(lambda: fleet_file.load(path)) for _ in range(repeat))
        size = path.stat().st_size
    yield Row(what=f"write a snapshot of {hosts:,} hosts (wall)", unit="s", bar=SNAPSHOT_SECONDS, measured=write)
    yield Row(what=f"read a snapshot of {hosts:,} hosts (wall)", unit="s", bar=SNAPSHOT_SECONDS, measured=read)
    yield Row(what="the snapshot's size", unit="B/host", measured=size / hosts)


def _wall(measure: Callable[[], object]) -> float:
    start = time.perf_counter()
    measure()
    return time.perf_counter() - start


def _table(found: Sequence[Row]) -> Table:
    table = Table(title=f"{machine()}, Python {platform.python_version()}; CPU times unless marked")
    for name in ("what", "unit", "bar", "reach for", "measured", "ratio", "ok"):
        table.add_column(name, justify="left" if name in ("what", "unit", "ok") else "right")
    for row in found:
        table.add_row(*row.cells())
    return table


@app.default
def command(
    *sizes: Count,
    repeat: Count = 3,
    requests: Count = 20_000,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Measure at SIZES hosts (1,000 to 1,000,000 by tens); the least of REPEAT runs counts."""
    load = os.getloadavg()[0]
    found = []
    for row in rows(sorted(sizes) or sorted(SIZES), repeat, requests):
        print(f"{row.what}: {row.measured:,.5g} {row.unit}", file=sys.stderr, flush=True)
        found.append(row)
    if json:
        values = [msgspec.structs.asdict(row) | {"ratio": row.ratio, "ok": row.ok} for row in found]
        report = Report(machine=machine(), python=platform.python_version(), load_average=round(load, 2), rows=values)
        print(msgspec.json.encode(report).decode())
    else:
        Console(width=None if sys.stdout.isatty() else 150).print(_table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(program=app))
