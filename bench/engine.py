"""Times the engine alone on a made-up cloud: decisions in batches or one by one, releases apart, and memory.

    python -m hostler.bench.engine --hosts 10000 --requests 20000 --policy nova --json

Prints one JSON object, or a table without ``--json``. Fleet and requests are made before the clock starts.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import Annotated, Final, Literal

import cyclopts
import msgspec
import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from ..placement.decide.engine import Engine
from ..placement.types.request import Request
from .workload import FleetArrays, load, make_arrays, make_fleet, make_policy, make_requests

WARM_UP: Final = 4
"""Batches that are placed before the clock starts and not released: the older guests that the releases take from."""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")

app = cyclopts.App(name="engine", help="Time the engine on a made-up cloud.", result_action="return_value")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run measured. Times per decision are over the timed decisions only; ``p99_us`` is wall time, over
    batches divided by their size or over single calls. ``bytes_per_host`` counts the arrays, ``rss_bytes_per_host``
    is what the process grew by."""

    hosts: int
    decisions: int
    placed: int
    policy: str
    single: bool
    seed: int
    fill: float
    batch: int
    cpu_us_per_decision: float
    wall_us_per_decision: float
    p99_us: float
    release_cpu_us: float
    released: int
    first_decision_ms: float
    signatures: int
    load_seconds: float
    load_cpu_seconds: float
    bytes_per_host: float
    fleet_bytes_per_host: float
    ranking_bytes_per_host: float
    rss_bytes_per_host: float
    machine: str
    python: str
    load_average: float


class _Clock:
    """CPU seconds of this process and wall seconds, added up over ``laps`` of so many decisions each."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0
        self.count = 0
        self.laps: list[float] = []

    def __enter__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        wall = time.perf_counter() - self._wall
        self.cpu += time.process_time() - self._cpu
        self.wall += wall
        self.laps.append(wall)

    def per(self, seconds: float) -> float:
        """Microseconds for one of the things counted."""
        return seconds * 1e6 / max(self.count, 1)


class _Guests:
    """The guests that are alive, and which of them go next: any older one may, by a seeded choice. ``came``: those that
    found a host on the clock."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.alive, self.came = engine, list[str](), 0
        self.rng = np.random.default_rng([seed, 3])
        self.clock = _Clock()

    def release(self, count: int) -> None:
        """Release ``count`` guests on the clock."""
        alive, gone = self.alive, []
        for _ in range(min(count, len(alive))):
            place = int(self.rng.integers(len(alive)))
            alive[place], alive[-1] = alive[-1], alive[place]
            gone.append(alive.pop())
        with self.clock:
            self.engine.release(gone)
        self.clock.count += len(gone)


Place = Callable[[Engine, Sequence[Request], _Clock], list[str]]
"""Places a batch on the clock; answers with the uuids of the guests that found a host."""


def run(
    *,
    hosts: int,
    requests: int,
    policy: str = "nova",
    single: bool = False,
    seed: int = 1,
    fill: float = 0.6,
    batch: int = 1_000,
) -> Result:
    """Load a fleet, warm up, then place ``requests`` guests and release as many older ones, batch by batch."""
    before = _resident()
    loading, engine = _load(make_arrays(hosts, seed=seed, fill=fill), policy, seed)
    loaded = _resident()
    batch = min(batch, requests)
    made = make_requests(engine.fleet, 1 + WARM_UP * batch + requests, policy=policy, seed=seed)
    unmeasured = _resident()
    first = _first_decision(engine, made.pop(0))
    batches = [made[start : start + batch] for start in range(0, len(made), batch)]
    placing, guests = under_load(engine, batches, _place_singly if single else place_together, seed)
    grown = _resident() - unmeasured + loaded - before
    fleet_bytes, ranking_bytes = engine.fleet.nbytes(), engine._context.compiled.nbytes
    return Result(
        hosts=hosts,
        decisions=requests,
        placed=guests.came,
        policy=policy,
        single=single,
        seed=seed,
        fill=fill,
        batch=1 if single else batch,
        cpu_us_per_decision=round(placing.per(placing.cpu), 3),
        wall_us_per_decision=round(placing.per(placing.wall), 3),
        p99_us=round(float(np.percentile(placing.laps, 99)) * 1e6, 3),
        release_cpu_us=round(guests.clock.per(guests.clock.cpu), 3),
        released=guests.clock.count,
        first_decision_ms=round(first * 1e3, 3),
        signatures=len(engine._context.compiled.by_content),
        load_seconds=round(loading.wall, 4),
        load_cpu_seconds=round(loading.cpu, 4),
        bytes_per_host=round((fleet_bytes + ranking_bytes) / hosts, 1),
        fleet_bytes_per_host=round(fleet_bytes / hosts, 1),
        ranking_bytes_per_host=round(ranking_bytes / hosts, 1),
        rss_bytes_per_host=round(grown / hosts, 1),
        machine=machine(),
        python=platform.python_version(),
        load_average=round(os.getloadavg()[0], 2),
    )


def under_load(engine: Engine, batches: list[list[Request]], place: Place, seed: int) -> tuple[_Clock, _Guests]:
    """Place the batches; all but the first few on the clock, each followed by the release of as many older guests."""
    clock, guests = _Clock(), _Guests(engine, seed)
    # What the benchmark itself holds is not the collector's business.
    gc.collect()
    gc.freeze()
    for requests in batches[:WARM_UP]:
        guests.alive += place(engine, requests, _Clock())
    for requests in batches[WARM_UP:]:
        placed = place(engine, requests, clock)
        guests.release(len(placed))
        guests.alive += placed
        guests.came += len(placed)
    gc.unfreeze()
    return clock, guests


def _load(arrays: FleetArrays, policy: str, seed: int) -> tuple[_Clock, Engine]:
    clock = _Clock()
    with clock:
        fleet = load(arrays, seed=seed, numa=policy == "numa")
    return clock, Engine(fleet, make_policy(policy), seed=seed)


def _first_decision(engine: Engine, request: Request) -> float:
    """Wall seconds of the first decision of all: its signature is compiled and the fleet ranked."""
    start = time.perf_counter()
    engine.place(request)
    return time.perf_counter() - start


def place_together(engine: Engine, requests: Sequence[Request], clock: _Clock) -> list[str]:
    """Place a batch by one call; uuids of the guests that found a host."""
    with clock:
        decisions = engine.place_many(requests)
    clock.laps[-1] /= len(requests)
    clock.count += len(requests)
    return list(compress(decisions.uuids(), (decisions.rows >= 0).tolist()))


def _place_singly(engine: Engine, requests: Sequence[Request], clock: _Clock) -> list[str]:
    """Place one by one; the CPU clock is read only around all of them, since reading it costs as much as a step of a
    decision."""
    found = []
    now, place, laps = time.perf_counter, engine.place, clock.laps
    with clock:
        for request in requests:
            start = now()
            decision = place(request)
            laps.append(now() - start)
            if decision.placed:
                found.append(request.instance_uuids[0])
    laps.pop()
    clock.count += len(requests)
    return found


def _resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def machine() -> str:
    """The processor's name and how many there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"


def _show(result: Result) -> None:
    table = Table(title=f"{result.hosts:,} hosts, policy {result.policy}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in msgspec.structs.asdict(result).items():
        table.add_row(
            name, f"{value:,}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
        )
    Console().print(table)


Count = Annotated[int, Parameter(validator=Number(gte=1, lte=100_000_000))]


@app.default
def command(
    *,
    hosts: Count = 10_000,
    requests: Count = 20_000,
    policy: Literal["nova", "heavy", "numa", "affinity"] = "nova",
    single: Annotated[bool, Parameter(negative="")] = False,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lt=2**63))] = 1,
    fill: Annotated[float, Parameter(validator=Number(gte=0.0, lte=0.95))] = 0.6,
    batch: Count = 1_000,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Time decisions on a seeded fleet of HOSTS hosts, in use at FILL.

    Parameters ---------- policy nova: Nova's default filters; heavy: 13 filters, tiers and anti-affinity groups of 30;
    numa: hosts with two NUMA cells and guests with one; affinity: Nova's default, every guest in a server group of ten.
    single Engine.place one by one instead of Engine.place_many.
    """
    result = run(hosts=hosts, requests=requests, policy=policy, single=single, seed=seed, fill=fill, batch=batch)
    if json:
        print(msgspec.json.encode(result).decode())
    else:
        _show(result)
    return 0


def main(arguments: Sequence[str] | None = None, program: cyclopts.App = app) -> int:
    """Run a benchmark's command line: exit code 2, with a message on stderr, if it is wrong."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = program(tokens, exit_on_error=False, print_error=True, error_console=Console(stderr=True))
    except cyclopts.CycloptsError:
        return 2
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["Result", "machine", "main", "make_fleet", "make_requests", "run"]
