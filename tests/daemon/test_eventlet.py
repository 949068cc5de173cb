"""Hostler beside eventlet, as in an environment of Nova 33 or Cinder 29: eventlet patches what dnspython imports, and
the blocking client works in a patched process. Each test is a process in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .processes import Daemon

ROOT = Path(__file__).parents[2]
BESIDE = ("eventlet==0.40.4", "dnspython==2.8.0")
PATCHED = "import eventlet\neventlet.monkey_patch()\n"
CLIENTS = """
import json, sys, time
from hostler import BlockingClient, Flavor, Request, RequestSpec

address, ticks = sys.argv[1], 0

def tick():
    global ticks
    while True:
        time.sleep(0.01)
        ticks += 1

def place(number):
    with BlockingClient(address) as client:
        client.call("add_hosts", {"hosts": [{"host": f"h{number}", "vcpus_total": 8, "total_usable_ram_mb": 8192}]})
        request = Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=512)))
        return [client.place(request).placed for _ in range(3)]

eventlet.spawn(tick)
with BlockingClient(address) as watcher:
    watcher.call("watch", {"kinds": ["decisions"]})
    placed = list(eventlet.GreenPool().imap(place, range(3)))
    events = watcher.events()
    seen = [next(events).kind for _ in range(9)]
    before = ticks
    last = list(watcher.events(within=1.0))
print(json.dumps({"placed": placed, "seen": seen, "last": len(last), "others ran": ticks > before}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with eventlet, dnspython and what the extra ``service`` installs."""
    uv = shutil.which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if uv is None:
        pytest.skip("uv is not installed")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*BESIDE, *project["dependencies"], *project["optional-dependencies"]["service"]]
    made = tmp_path_factory.mktemp("eventlet") / "bin" / "python"
    locked = ("--constraint", ROOT / "requirements" / "dev.txt")
    for command in (
        (uv, "venv", "--quiet", "--python", sys.executable, "--allow-existing", made.parents[1]),
        (uv, "pip", "install", "--quiet", "--python", made, *locked, *wanted),
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{' and '.join(BESIDE)} cannot be installed: {done.stderr.strip()[-300:]}")
    return made


def run(python: Path, program: str, *arguments: str) -> str:
    """What the program prints, with this checkout's hostler on the path."""
    where = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT / "src")}
    command = (str(python), "-W", "ignore::DeprecationWarning", "-c", program, *arguments)
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=where)
    assert not done.returncode, done.stderr[-3000:]
    return done.stdout


def test_eventlet_is_imported_beside_the_service(python: Path) -> None:
    """dnspython imports httpx, and with it trio, under eventlet's patches wherever h2 is installed."""
    found = "from importlib.util import find_spec\nprint(*[name for name in ('httpx', 'h2') if find_spec(name)])"
    assert run(python, PATCHED + "import dns.query, dns.resolver\n" + found).split() == ["httpx"]


def test_the_engine_decides_in_a_patched_process(python: Path) -> None:
    program = """
from hostler import Engine, Flavor, Host, Request, RequestSpec, add_hosts
engine = Engine()
add_hosts(engine.fleet, [Host(host="h", vcpus_total=4, total_usable_ram_mb=4096)])
print(engine.place(Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=512)))).host)
"""
    assert run(python, PATCHED + program).strip() == "h"


def test_blocking_clients_let_other_green_threads_run_while_they_wait(python: Path, tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        answer = json.loads(run(python, PATCHED + CLIENTS, daemon.address))
    assert answer == {"placed": [[True] * 3] * 3, "seen": ["decisions"] * 9, "last": 0, "others ran": True}
