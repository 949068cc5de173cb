"""Side by side with the services it replaces: what a decision costs nova-scheduler and Placement, and what it costs
`hostler serve` in their place. The same hosts and guests are in the databases, the same requests come over RabbitMQ
from Nova's own client, and the CPU time of every process that takes part is counted.

    python -m hostler.bench.vs_openstack [--sizes 1000 10000] [--calls 1000] [--stock-calls 20] [--json]

Needs RabbitMQ and PostgreSQL; Nova and Placement come from PyPI into an environment of their own, made the first time.
"""

from __future__ import annotations

import json as jsonlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import cyclopts
import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from .driver_process import DriverProcess, driving
from .engine import Count, machine, main
from .environments import ServiceUnavailable, clean, kept, run
from .openstack_cloud import PACKAGES, OpenStack
from .placement_services import cpu_seconds

FILL: Final = Path(__file__).resolve().with_name("openstack_fill.py")
CALLER: Final = Path(__file__).resolve().with_name("openstack_caller.py")
Only = Literal["nova", "hostler"]
WARM_UP: Final = 1
"""Calls before those that are counted."""

app = cyclopts.App(
    name="vs_openstack",
    help="nova-scheduler and Placement beside Hostler, on the bus.",
    result_action="return_value",
)


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """CPU milliseconds a decision: of what decides (the service, or nova-scheduler and Placement), and with the
    database and the broker. ``following``: per cent of a processor that what decides takes while all computes report
    and nothing is asked."""

    hosts: int
    stock: bool
    calls: int
    refused: int
    servers_ms: float
    database_ms: float
    broker_ms: float
    median_ms: float
    following: float

    @property
    def total_ms(self) -> float:
        """With database and broker."""
        return self.servers_ms + self.database_ms + self.broker_ms


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run, and where it ran."""

    machine: str
    python: str
    packages: list[str]
    load_average: float
    costs: list[Costs]


class FilledCloud(OpenStack):
    """The databases of a cloud with many hosts, a bus, and what decides; there is no compute and no API."""

    def __init__(self, folder: Path, venv: Path, *, hosts: int, guests: int, stock: bool) -> None:
        super().__init__(folder, venv, computes=0, stock=stock)
        self._hosts, self._guests = hosts, guests

    def _conf(self, host: str) -> str:
        """The configuration of a service: hosts are up though they never report, and Placement returns all of them."""
        text = super()._conf(host).replace("service_down_time = 12\n", "service_down_time = 86400\n")
        own = f"rpc_response_timeout = 600\n[scheduler]\nworkers = 1\nmax_placement_results = {self._hosts}\n"
        return text.replace("[api]\n", f"{own}[api]\n", 1)

    def _make_databases(self) -> None:
        super()._make_databases()
        if not self.stock:
            self._make_placement()
        environment = clean() | {"OS_PLACEMENT_CONFIG_DIR": str(self.folder)}
        names = [str(self._python), "-P", "-c", "import sys; sys.argv = ['p']; import placement.wsgi.api"]
        run("the names of Placement could not be written", names, environment)  # of traits and resource classes
        urls = {name: self.url(database) for name, database in _DATABASES.items()}
        values = jsonlib.dumps({"hosts": self._hosts, "guests": self._guests, **urls})
        run("the databases could not be filled", [str(self._python), "-P", str(FILL)], clean(), given=values)
        if not self.stock:
            self.import_data()

    def _start_nova(self) -> None:
        self.until(lambda: "deciding" in self._decides(), "what decides")

    def _decides(self) -> str:
        """nova-scheduler has begun once its queue is there, as the service has."""
        queues = self._broker.ctl("list_queues", "name", "consumers").splitlines()
        return "deciding" if any(line.split() == ["scheduler", "1"] for line in queues) else ""

    @property
    def conf(self) -> str:
        """The path of nova.conf."""
        return str(self.folder / "nova.conf")

    @property
    def cell_url(self) -> str:
        """The database of the cell."""
        return self.url("nova_cell1")

    def spent(self) -> tuple[float, float, float]:
        """CPU seconds so far of what decides, of the database, and of the broker."""
        assert self._cluster.pid is not None
        return self.scheduler_cpu(), cpu_seconds(self._cluster.pid), cpu_seconds(self._broker.pid)


_DATABASES: Final = {"api": "nova_api", "cell": "nova_cell1", "placement": "placement"}


def measure(cloud: FilledCloud, caller: DriverProcess, hosts: int, calls: int, seconds: float) -> Costs:
    """Ask for ``calls`` hosts, and then let computes report for ``seconds``."""
    caller.ask("start", conf=cloud.conf, cell=cloud.cell_url)
    caller.ask("call", count=WARM_UP, seed=0)
    before = cloud.spent()
    answer = caller.ask("call", count=calls, seed=1)
    servers, database, broker = (
        (after - then) * 1e3 / calls for after, then in zip(cloud.spent(), before, strict=True)
    )
    caller.ask("report", on=True)
    time.sleep(2.0)
    begun, then = time.monotonic(), cloud.spent()[0]
    time.sleep(seconds)
    following = (cloud.spent()[0] - then) / (time.monotonic() - begun)
    caller.ask("report", on=False)
    return Costs(
        hosts=hosts,
        stock=cloud.stock,
        calls=calls,
        refused=answer["refused"],
        servers_ms=round(servers, 3),
        database_ms=round(database, 3),
        broker_ms=round(broker, 3),
        median_ms=round(statistics.median(answer["seconds"]) * 1e3, 2),
        following=round(100 * following, 2),
    )


def costs(
    venv: Path, sizes: Sequence[int], guests: int, calls: int, stock_calls: int, seconds: float, only: Only | None
) -> Iterator[Costs]:
    """Every size with Nova's services and with ours, as soon as each is measured."""
    for hosts in sizes:
        for stock in {None: (True, False), "nova": (True,), "hostler": (False,)}[only]:
            with tempfile.TemporaryDirectory(prefix="hostler-vs-") as folder:
                os.chmod(folder, 0o755)
                with (
                    FilledCloud(Path(folder), venv, hosts=hosts, guests=guests, stock=stock) as cloud,
                    driving("Nova", venv / "bin" / "python", CALLER) as caller,
                ):
                    yield measure(cloud, caller, hosts, stock_calls if stock else calls, seconds)


def _show(report: Report) -> None:
    table = Table(title=f"{', '.join(report.packages)} beside Hostler; {report.machine}, Python {report.python}")
    names = ("hosts", "", "calls", "refused", "servers ms", "database ms", "broker ms", "all ms", "p50 ms", "following")
    for name in names:
        table.add_column(name, justify="right" if name else "left")
    for each in report.costs:
        table.add_row(
            f"{each.hosts:,}",
            "Nova, Placement" if each.stock else "Hostler",
            *(str(each.calls), str(each.refused), f"{each.servers_ms:,.2f}", f"{each.database_ms:,.2f}"),
            *(f"{each.broker_ms:,.2f}", f"{each.total_ms:,.2f}", f"{each.median_ms:,.1f}", f"{each.following:.1f} %"),
        )
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    for hosts in sorted({each.hosts for each in report.costs}):
        by_stock = {each.stock: each for each in report.costs if each.hosts == hosts}
        if len(by_stock) == 2:
            theirs, ours = by_stock[True], by_stock[False]
            servers, total = theirs.servers_ms / ours.servers_ms, theirs.total_ms / ours.total_ms
            print(
                f"{hosts:,} hosts: {servers:,.0f} times less CPU of the servers, "
                f"{total:,.0f} times less with database and broker"
            )


@app.default
def command(
    *,
    sizes: Annotated[tuple[Count, ...], Parameter(consume_multiple=True)] = (1_000, 10_000),
    guests: int = 4,
    calls: Count = 1_000,
    stock_calls: Count = 20,
    seconds: float = 15.0,
    only: Only | None = None,
    venv: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Measure at SIZES hosts. Exit code 1 if a call found no host, 3 without Nova, RabbitMQ or PostgreSQL.

    Parameters
    ----------
    guests
        Guests that are on each host before.
    calls, stock_calls
        Counted calls of Hostler, and of Nova's services.
    seconds
        How long all computes report while nothing is asked.
    only
        Measure one of the two alone.
    venv
        Folder of the environment with Nova; made if it is not there. ~/.cache/hostler/openstack-life if left out.
    """
    load, found, environment = os.getloadavg()[0], list[Costs](), venv or kept("openstack-life")
    try:
        for each in costs(environment, sizes, guests, calls, stock_calls, seconds, only):
            print(msgspec.json.encode(each).decode(), file=sys.stderr, flush=True)
            found.append(each)
    except ServiceUnavailable as error:
        print(f"{error}; {error.hint}" if error.hint else str(error), file=sys.stderr)
        return 3
    report = Report(
        machine=machine(),
        python=platform.python_version(),
        packages=list(PACKAGES[:2]),
        load_average=round(load, 2),
        costs=found,
    )
    if json:
        print(msgspec.json.encode(report).decode())
    else:
        _show(report)
    return 1 if any(each.refused for each in found) else 0


if __name__ == "__main__":
    sys.exit(main(program=app))
