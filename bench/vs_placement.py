"""Beside the real OpenStack Placement: the same providers and the same calls over HTTP, in the same run.

    python -m hostler.bench.vs_placement

The real service runs in an environment of its own, made from PyPI the first time, on sqlite, or on a PostgreSQL of its
own that ends with the run (``--database postgresql``). What counts is the CPU time of the server's processes per call,
those of PostgreSQL included; the candidates that both have are compared.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

import cyclopts
import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from ..placement.types.errors import HostlerError
from .engine import machine, main
from .placement_database import Kind
from .placement_services import PLACEMENT, Service, hostler, real
from .placement_workload import OPERATIONS, TRAITS, Client, candidates_path, load, nodes

SIZES: Final = (1_000, 5_000, 10_000)
CLIENTS: Final = (1, 4)
EVERYTHING: Final = 1_000_000

app = cyclopts.App(
    name="vs_placement", help="The same calls of Placement and of Hostler.", result_action="return_value"
)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One operation on one server."""

    cpu_ms: float
    """CPU time of the server for each."""
    median_ms: float
    """As the client waits."""
    per_second: float
    failed: int
    calls: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One operation on both. ``ratio``: of CPU times."""

    nodes: int
    nested: bool
    operation: str
    clients: int
    placement: Figures
    hostler: Figures
    ratio: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run. ``same_candidates``: both gave the same set for every trait, on every size."""

    machine: str
    python: str
    placement: str
    database: str
    same_candidates: bool
    rows: list[Row]


Clouds = list[tuple[int, bool]]


def measure(service: Service, count: int, nested: bool, clients: int, seconds: float) -> dict[str, Figures]:
    """Every operation for ``seconds`` with as many clients, each a process."""
    return {name: _measure(service, name, count, nested, clients, seconds) for name in OPERATIONS}


def _measure(service: Service, name: str, count: int, nested: bool, clients: int, seconds: float) -> Figures:
    context = multiprocessing.get_context("fork")
    results: Any = context.Queue()
    barrier = context.Barrier(clients + 1)
    workers = [
        context.Process(
            target=_work, args=(service.port, name, count, nested, seconds, f"{clients} {number}", barrier, results)
        )
        for number in range(clients)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    begun, before = time.perf_counter(), service.cpu_seconds()
    parts = [results.get() for _ in workers]
    took, cpu = time.perf_counter() - begun, service.cpu_seconds() - before
    for worker in workers:
        worker.join()
    waits = [wait for part, _ in parts for wait in part]
    return Figures(
        cpu_ms=round(cpu * 1e3 / len(waits), 3),
        median_ms=round(median(waits) * 1e3, 2),
        per_second=round(len(waits) / took, 1),
        failed=sum(failed for _, failed in parts),
        calls=len(waits),
    )


def _work(
    port: int, name: str, count: int, nested: bool, seconds: float, seed: str, barrier: Any, results: Any
) -> None:
    client, cloud, waits, failed = Client(port, f"{name} {seed}"), list(nodes(count, nested=nested)), list[float](), 0
    client.call("GET", "/")
    barrier.wait()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(waits) < 3:
        begun = time.perf_counter()
        try:
            failed += not OPERATIONS[name](client, cloud, nested)
        except (RuntimeError, OSError):
            failed += 1
        waits.append(time.perf_counter() - begun)
    results.put((waits, failed))


def candidates(service: Service, nested: bool) -> list[set[str]]:
    """All candidates for each trait, each as text."""
    client, found = Client(service.port), []
    for trait in TRAITS[:3]:
        answer = client.must("GET", candidates_path(trait, EVERYTHING, nested=nested))
        encode = msgspec.json.Encoder(order="deterministic").encode
        found.append({encode(one).decode() for one in answer["allocation_requests"]})
    return found


def compare(
    venv: Path | None, kind: Kind, count: int, nested: bool, clients: Sequence[int], seconds: float
) -> tuple[list[Row], bool]:
    """Both servers, one after the other, on the same cloud."""
    taken: list[dict[int, dict[str, Figures]]] = []
    answers: list[list[set[str]]] = []
    with tempfile.TemporaryDirectory() as folder:
        starts: list[Callable[[], AbstractContextManager[Service]]] = [
            lambda: real(venv, Path(folder), nodes(count, nested=nested), kind),
            hostler,
        ]
        for start in starts:
            with start() as service:
                if start is hostler:
                    load(Client(service.port), nodes(count, nested=nested))
                answers.append(candidates(service, nested))
                taken.append({number: measure(service, count, nested, number, seconds) for number in clients})
    theirs, ours = taken
    rows = [
        Row(
            nodes=count,
            nested=nested,
            operation=name,
            clients=number,
            placement=theirs[number][name],
            hostler=ours[number][name],
            ratio=round(theirs[number][name].cpu_ms / max(ours[number][name].cpu_ms, 1e-3), 1),
        )
        for number in clients
        for name in OPERATIONS
    ]
    return rows, answers[0] == answers[1]


def show(report: Report) -> None:
    """Print the report as a table."""
    table = Table(
        title=f"{report.placement} on {report.database} and Hostler, CPU ms of the server a call, on {report.machine}"
    )
    for name in ("nodes", "operation", "clients", "Placement", "Hostler", "ratio", "waits", "a second", "failed"):
        table.add_column(name, justify="left" if name == "operation" else "right", no_wrap=True)
    for row in report.rows:
        theirs, ours = row.placement, row.hostler
        table.add_row(
            f"{row.nodes:,}{' nested' if row.nested else ''}",
            row.operation,
            str(row.clients),
            f"{theirs.cpu_ms:.1f}",
            f"{ours.cpu_ms:.2f}",
            f"{row.ratio:.0f}x",
            f"{theirs.median_ms:.1f} / {ours.median_ms:.1f} ms",
            f"{theirs.per_second:.1f} / {ours.per_second:.0f}",
            f"{theirs.failed} / {ours.failed}",
        )
    console = Console()
    console.width = max(console.width, 140)
    console.print(table)
    print("the same candidates:", "yes" if report.same_candidates else "NO")


@app.default
def vs_placement(
    *,
    sizes: tuple[int, ...] = SIZES,
    nested: int = 1_000,
    clients: tuple[int, ...] = CLIENTS,
    seconds: float = 10.0,
    database: Kind = "sqlite",
    venv: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make the same calls of both and print what they took.

    Parameters
    ----------
    sizes
        Numbers of compute nodes, each one provider.
    nested
        A number of compute nodes with two NUMA cells and two GPUs each; 0 for none.
    seconds
        How long each operation is repeated.
    database
        Where the real service keeps its data.
    venv
        Folder of the real service's environment.
    """
    clouds: Clouds = [(count, False) for count in sizes] + ([(nested, True)] if nested else [])
    rows: list[Row] = []
    same = True
    try:
        for count, is_nested in clouds:
            found, equal = compare(venv, database, count, is_nested, clients, seconds)
            rows += found
            same &= equal
    except HostlerError as error:
        print(f"vs_placement: {error}", file=sys.stderr)
        return 3
    version = ".".join(map(str, sys.version_info[:3]))
    report = Report(
        machine=machine(), python=version, placement=PLACEMENT, database=database, same_candidates=same, rows=rows
    )
    if json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        show(report)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(None, app))
