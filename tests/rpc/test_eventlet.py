"""Beside eventlet, under which OpenStack's services run: `BlockingClient` works in a process that it has patched, and
what the extra `service` installs does not break `import eventlet`."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hostler.core.machine.engine_commands import AddHosts
from hostler.core.rpc.client import BlockingClient
from hostler.placement.types.host import Host

from ..daemon.processes import Daemon

ROOT = Path(__file__).parents[2]
EVENTLET = ("eventlet==0.40.4", "dnspython==2.8.0")
IMPORTS = "import eventlet, eventlet.green.socket; eventlet.monkey_patch(); from eventlet.support import greendns"
CLIENT = """
import eventlet
eventlet.monkey_patch()
import sys
from hostler.core.rpc.blocking_client import BlockingClient

ticks = 0
def tick():
    global ticks
    while True:
        eventlet.sleep(0.001)
        ticks += 1
eventlet.spawn(tick)
with BlockingClient(sys.argv[1]) as client:
    answers = [client.call("hosts", {}) for _ in range(20)]
assert ticks, "other green threads ran meanwhile"
assert not {"trio", "asyncio"} & set(sys.modules), "no event loop was imported"
print([host.host for host in answers[-1]])
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with eventlet and what Hostler and its extra ``service`` need."""
    folder = tmp_path_factory.mktemp("eventlet")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["service"]]
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run([*pip, *EVENTLET, *wanted], check=False, capture_output=True, text=True)
    if done.returncode:
        if "No matching distribution" in done.stderr or "ConnectionError" in done.stderr or "resolve" in done.stderr:
            pytest.skip("eventlet cannot be installed: the package index is not reached")
        raise AssertionError(done.stderr[-2_000:])
    return folder


def run(environment: Path, program: str, *arguments: str) -> str:
    where = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    python = environment / "bin" / "python"
    done = subprocess.run([python, "-c", program, *arguments], check=False, capture_output=True, text=True, env=where)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_the_extra_installs_does_not_break_eventlet(environment: Path) -> None:
    run(environment, IMPORTS)


def test_the_blocking_client_works_where_eventlet_has_patched(environment: Path, tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        with BlockingClient(daemon.address) as client:
            client.call("add_hosts", AddHosts(hosts=(Host(host="node-1"),)))
        assert run(environment, CLIENT, str(daemon.address)) == "['node-1']"
