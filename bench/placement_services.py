"""Two servers of the Placement API as processes, the real one from PyPI on sqlite and Hostler, and their CPU time."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from . import environments
from .placement_workload import AGGREGATES, TRAITS, Node

PLACEMENT: Final = "openstack-placement==16.0.0"
TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Service:
    """A server that answers."""

    name: str
    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """CPU time of the process and all below it so far."""
        return sum(_cpu_ticks(pid) for pid in _family(self.pid)) / TICKS

    def resident_mib(self) -> float:
        """Resident memory of the process and all below it."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in _family(self.pid))
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_ticks(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12])


def _family(pid: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                children.setdefault(int(_stat(int(folder.name))[1]), []).append(int(folder.name))
            except OSError:
                continue  # it has ended
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


@contextmanager
def hostler() -> Iterator[Service]:
    """`hostler serve`, empty, in memory."""
    port = _free_port()
    program = "import sys; from hostler.core.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "serve", "--placement", f"127.0.0.1:{port}"]
    with _running("Hostler", command, port, os.environ.copy()) as service:
        yield service


@contextmanager
def real(venv: Path, folder: Path, nodes: Iterable[Node]) -> Iterator[Service]:
    """The real service with one worker process on a sqlite file in ``folder`` that holds the nodes."""
    python, port = environments.ready(venv, [PLACEMENT, "gunicorn"]), _free_port()
    database = folder / "placement.sqlite"
    (folder / "placement.conf").write_text(
        "[api]\nauth_strategy = noauth2\n"
        f"[placement_database]\nconnection = sqlite:///{database}\n"
        "[DEFAULT]\ndefault_log_levels = placement=WARNING,oslo=WARNING\n"
    )
    environment = environments.clean() | {"OS_PLACEMENT_CONFIG_DIR": str(folder)}
    manage = [str(python.with_name("placement-manage")), "--config-dir", str(folder), "db", "sync"]
    environments.run("its database could not be made", manage, environment, folder)
    names = [str(python), "-c", "import placement.wsgi.api"]  # fills the tables of traits and classes
    environments.run("it does not start", names, environment, folder)
    fill(database, nodes)
    application = "placement.wsgi.api:application"
    command = [str(python.with_name("gunicorn")), "-b", f"127.0.0.1:{port}", "-w", "1", "--timeout", "600", application]
    with _running("Placement", command, port, environment, folder) as service:
        yield service


def fill(database: Path, nodes: Iterable[Node]) -> None:
    """Write the nodes into the real service's tables, as requests to it would: that takes it 30 ms a provider."""
    with closing(sqlite3.connect(database)) as connection, connection:
        run = connection.execute
        classes = dict(run("select name, id from resource_classes").fetchall())
        connection.executemany("insert into traits (name) values (?)", [(name,) for name in TRAITS])
        traits = dict(run("select name, id from traits").fetchall())
        connection.executemany("insert into placement_aggregates (uuid) values (?)", [(uuid,) for uuid in AGGREGATES])
        aggregates = dict(run("select uuid, id from placement_aggregates").fetchall())
        ids: dict[str, int] = {}
        for number, node in enumerate(nodes, 1):
            ids[node.name] = number
            parent = ids[node.parent] if node.parent else None
            generation = 1 + bool(node.traits) + bool(node.aggregates)
            row = (number, node.uuid, node.name, generation, parent or number, parent)
            run(f"insert into resource_providers ({_PROVIDER}) values (?, ?, ?, ?, ?, ?)", row)
            for name, figures in node.inventories.items():
                values = (number, classes[name], *(figures[field] for field in _FIGURES))
                run(f"insert into inventories ({_INVENTORY}) values ({', '.join('?' * len(values))})", values)
            for name in node.traits:
                run("insert into resource_provider_traits values (null, null, ?, ?)", (traits[name], number))
            for uuid in node.aggregates:
                run("insert into resource_provider_aggregates values (null, null, ?, ?)", (number, aggregates[uuid]))


_PROVIDER: Final = "id, uuid, name, generation, root_provider_id, parent_provider_id"
_FIGURES: Final = ("total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio")
_INVENTORY: Final = "resource_provider_id, resource_class_id, " + ", ".join(_FIGURES)


# processes


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


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
