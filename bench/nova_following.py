"""What it costs the service to follow the cell databases of Nova: the CPU of `hostler serve --nova` while all computes
of a cell are heard every ten seconds and report every minute, each time with other room on their disks, and nothing is
asked.

    python -m hostler.bench.nova_following [--hosts 10000] [--guests 4] [--seconds 60] [--database postgresql] [--json]

Tables of Nova's names and columns are made in an empty PostgreSQL or MariaDB of its own, so that no Nova and no broker
are needed: the service listens on oslo.messaging's bus within the process.
"""

from __future__ import annotations

import json as jsonlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

import cyclopts
import msgspec
from cyclopts import Parameter

from ..core.rpc.client import BlockingClient
from .engine import Count, main
from .environments import ServiceUnavailable
from .nova_tables import fill, metadata_of, report
from .placement_database import database
from .placement_services import cpu_seconds

Kind = Literal["postgresql", "mariadb"]
BAR: Final = 0.02
"""Share of one core that reports of 10,000 hosts a minute may take."""
READY_SECONDS: Final = 120.0
START_SECONDS: Final = 15.0
"""After which nothing is left to do of the start: garbage is looked for, and what was known twice is given back."""

app = cyclopts.App(
    name="nova_following",
    help="What it costs the service to follow the cell databases of Nova.",
    result_action="return_value",
)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of one core: of the service while nothing changes, and while all computes report; of the database then.
    ``reported``: hosts that changed in the service."""

    hosts: int
    database: str
    idle: float
    following: float
    server: float
    load_average: float


@contextmanager
def empty(kind: Kind, folder: Path) -> Iterator[tuple[str, int]]:
    """The URL of an empty database, and the process id of its server."""
    if kind == "postgresql":
        with database("postgresql", folder) as made:
            assert made.pid is not None
            yield made.url.replace("+psycopg2", "+psycopg"), made.pid
        return
    data, socket = folder / "mariadb", folder / "mariadb.sock"
    programs = ("mariadb-install-db", "mariadbd")
    own = ["--no-defaults", f"--datadir={data}", "--user=root"]
    try:
        subprocess.run([programs[0], *own], check=True, capture_output=True)
        options = [
            *own,
            f"--socket={socket}",
            "--skip-networking",
            "--skip-grant-tables",
            "--innodb-buffer-pool-size=256M",
        ]
        with (folder / "mariadb.log").open("wb") as log:
            process = subprocess.Popen([programs[1], *options], stdout=log, stderr=log)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ServiceUnavailable(f"MariaDB is not installed, or does not start: {error}") from None
    try:
        url = f"mariadb+pymysql://root@localhost/%s?unix_socket={socket}"
        _made(url % "", "nova", process)
        yield url % "nova", process.pid
    finally:
        process.kill()
        process.wait()


def _made(url: str, name: str, process: subprocess.Popen[bytes]) -> None:
    """Make a database once its server answers."""
    import sqlalchemy

    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            with sqlalchemy.create_engine(url).begin() as connection:
                connection.execute(sqlalchemy.text(f"create database {name}"))
                return
        except sqlalchemy.exc.OperationalError:
            if process.poll() is not None or time.monotonic() > end:
                raise ServiceUnavailable("MariaDB does not start") from None
            time.sleep(0.2)


@contextmanager
def serving(folder: Path, url: str) -> Iterator[int]:
    """A service that follows a database, once it is ready; its process id."""
    config = folder / "hostler.toml"
    config.write_text(
        f'[data]\nfolder = "{folder}/data"\n[nova]\ntransport_url = "fake://"\ndatabase = "{_escaped(url)}"\n'
        f'host = "control"\n'
    )
    hostler = str(Path(sys.executable).with_name("hostler"))
    address = f"unix:{folder}/h.sock"
    with (folder / "log").open("wb") as log:
        command = [hostler, "serve", "--rpc", address, "--config", str(config)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        if not process.stdout.readline().startswith(b"ready"):
            raise ServiceUnavailable(f"hostler has ended: {(folder / 'log').read_text()[-400:]}")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _escaped(url: str) -> str:
    return url.replace("\\", "\\\\").replace('"', '\\"')


def measure(kind: Kind, hosts: int, guests: int, seconds: float) -> Cost:
    """Fill a database, and follow it."""
    import sqlalchemy

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="hostler-follow-") as name:
        folder = Path(name)
        os.chmod(folder, 0o755)
        with empty(kind, folder) as (url, server):
            engine = sqlalchemy.create_engine(url)
            tables = metadata_of(kind)
            tables.create_all(engine)
            fill(engine, tables, hosts=hosts, guests=guests, cell=url)
            with serving(folder, url) as pid:
                time.sleep(START_SECONDS)
                idle = _share(pid, server, min(seconds, 10.0))[0]
                with report(engine):
                    time.sleep(2.0)
                    following, theirs = _share(pid, server, seconds)
                with BlockingClient(f"unix:{folder}/h.sock") as client:
                    assert client.call("status", {}).hosts == hosts
            engine.dispose()
    return Cost(hosts=hosts, database=kind, idle=idle, following=following, server=theirs, load_average=round(load, 2))


def _share(pid: int, server: int, seconds: float) -> tuple[float, float]:
    """Shares of one core that two processes take."""
    begun, then = time.monotonic(), (cpu_seconds(pid), cpu_seconds(server))
    time.sleep(seconds)
    passed = time.monotonic() - begun
    return (cpu_seconds(pid) - then[0]) / passed, (cpu_seconds(server) - then[1]) / passed


@app.default
def command(
    *,
    hosts: Count = 10_000,
    guests: int = 4,
    seconds: float = 60.0,
    database: Kind = "postgresql",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Measure. Exit code 1 if it takes more than the bar allows, 3 without the database.

    Parameters
    ----------
    guests
        Guests on each host.
    seconds
        How long all computes report.
    database
        In which the rows are.
    """
    try:
        cost = measure(database, hosts, guests, seconds)
    except ServiceUnavailable as error:
        print(error, file=sys.stderr)
        return 3
    if json:
        print(jsonlib.dumps(msgspec.to_builtins(cost)))
    else:
        print(
            f"{hosts} hosts in {database}: {cost.following:.2%} of one core (bar {BAR:.0%}), {cost.idle:.2%} while "
            f"nothing changes; the database {cost.server:.2%}"
        )
    return int(cost.following > BAR)


if __name__ == "__main__":
    sys.exit(main(program=app))
