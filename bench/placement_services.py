"""Two servers of the Placement API as processes, the real one from PyPI and Hostler, and their CPU time."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from . import environments
from .free_ports import free_ports
from .placement_database import DRIVERS, Kind, database
from .placement_workload import AGGREGATES, TRAITS, Node

PLACEMENT: Final = "openstack-placement==16.0.0"
TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Service:
    """A server that answers."""

    name: str
    port: int
    pid: int
    database: int | None = None
    """Process of a database of its own."""

    def cpu_seconds(self) -> float:
        """CPU time of its processes so far, those of its database included."""
        return cpu_seconds(self.pid) + (0.0 if self.database is None else cpu_seconds(self.database))


def cpu_seconds(pid: int) -> float:
    """CPU time so far of a process and its descendants, of those too that have ended and were waited for. 0 if there is
    none of that id. O(processes)."""
    stats = {int(each.name): _stat(each) for each in Path("/proc").iterdir() if each.name.isdigit()}
    children: dict[int, list[int]] = {}
    for each, fields in stats.items():
        if fields:
            children.setdefault(int(fields[1]), []).append(each)
    ticks, waiting = 0, [pid]
    while waiting:
        each = waiting.pop()
        ticks += sum(int(field) for field in stats.get(each, ())[11:15])  # its own, and of children waited for
        waiting += children.get(each, [])
    return ticks / TICKS


def _stat(process: Path) -> list[str]:
    """The fields of /proc/PID/stat behind the name, empty for a process that has ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


@contextmanager
def hostler() -> Iterator[Service]:
    """`hostler serve`, empty, in memory."""
    (port,) = free_ports(1)
    program = "import sys; from hostler.core.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "serve", "--placement", f"127.0.0.1:{port}"]
    with _running("Hostler", command, port, os.environ.copy()) as service:
        yield service


@contextmanager
def real(venv: Path | None, folder: Path, nodes: Iterable[Node], kind: Kind = "sqlite") -> Iterator[Service]:
    """The real service with one worker process on a database that holds the nodes; its log is in ``folder``."""
    name = PLACEMENT.replace("==", "-") + "".join(f"-{driver}" for driver in DRIVERS[kind])
    python = environments.ready(venv or environments.kept(name), [PLACEMENT, "gunicorn", *DRIVERS[kind]])
    (port,) = free_ports(1)
    with database(kind, folder) as kept:
        (folder / "placement.conf").write_text(
            "[api]\nauth_strategy = noauth2\n"
            f"[placement_database]\nconnection = {kept.url}\n"
            "[DEFAULT]\ndefault_log_levels = placement=WARNING,oslo=WARNING\n"
        )
        environment = environments.clean() | {"OS_PLACEMENT_CONFIG_DIR": str(folder)}
        manage = [str(python.with_name("placement-manage")), "--config-dir", str(folder), "db", "sync"]
        environments.run("its database could not be made", manage, environment, folder)
        names = [str(python), "-c", "import placement.wsgi.api"]  # fills the tables of traits and classes
        environments.run("it does not start", names, environment, folder)
        fill = [str(python), str(Path(__file__).with_name("placement_fill.py")), kept.url]
        environments.run("its database could not be filled", fill, environment, folder, given=_cloud(nodes))
        application = "placement.wsgi.api:application"
        served = ["-b", f"127.0.0.1:{port}", "-w", "1", "--timeout", "600", application]
        command = [str(python.with_name("gunicorn")), *served]
        with _running("Placement", command, port, environment, folder) as service:
            yield service if kept.pid is None else replace(service, database=kept.pid)


def _cloud(nodes: Iterable[Node]) -> str:
    """The nodes and the names they use, as placement_fill.py reads them."""
    return json.dumps(
        {"traits": TRAITS, "aggregates": AGGREGATES, "nodes": [asdict(node) | {"uuid": node.uuid} for node in nodes]}
    )


# processes


@contextmanager
def _running(
    name: str, command: list[str], port: int, environment: dict[str, str], folder: Path | None = None
) -> Iterator[Service]:
    process: subprocess.Popen[Any] = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=folder
    )
    try:
        _wait(name, process, port)
        yield Service(name, port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(name: str, process: subprocess.Popen[Any], port: int) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise environments.ServiceUnavailable(f"{name} ended with {process.returncode} before it answered")
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.request("GET", "/")
                if connection.getresponse().status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise environments.ServiceUnavailable(f"{name} does not answer")
