"""One tenant's latency while another does each hostile thing that the service bounds.

    python -m hostler.bench.fairness [--hosts 10000] [--seconds 5] [--only NAME ...] [--json]

A service with durable answers, a tenant who places one guest every 10 ms, and a member of another project (or a
stranger without a token) in a process of its own. The p99 of the tenant's placements is to stay below 50 ms.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
import msgspec
import numpy as np
from cyclopts import Parameter

from hostler.core.engine_commands import Asked, asked
from hostler.core.rpc.client import BlockingClient
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.request import Flavor, Request, RequestSpec

from .free_ports import free_ports
from .service import load_hosts, service

app = cyclopts.App(name="fairness", help="One tenant's latency while another is hostile.")

BAR_MS: Final = 50.0
PAUSE: Final = 0.01
"""Seconds between two placements of the tenant."""
GOOD, EVIL = "good", "evil"
Call = tuple[str, Any]
_numbers: Final = iter(range(10**9))


def request(project: str, *, instances: int = 0, memory_mb: int = 64, alternates: int = 0, hints: int = 0) -> Asked:
    """A request of a project; ``instances`` with uuids of their own, ``hints``: guests that it is to be apart from."""
    apart = {"different_host": tuple(str(uuid.uuid4()) for _ in range(hints))} if hints else {}
    spec = RequestSpec(flavor=Flavor(name="own", vcpus=1, memory_mb=memory_mb), scheduler_hints=apart)
    uuids = tuple(str(uuid.uuid4()) for _ in range(instances))
    return asked(Request(spec=spec, project_id=project, instance_uuids=uuids, alternates=alternates))


def place(**what: Any) -> Call:
    return "place", {"request": request(EVIL, **what)}


def new_shape() -> int:
    """Memory in MiB that no request before had."""
    return 64 + next(_numbers)


def place_many(requests: list[Asked]) -> Call:
    return "place_many", {"requests": requests}


def one_repeated_uuid(count: int) -> list[Call]:
    repeated = request(EVIL, instances=1)
    return [("place", {"request": repeated if number % 8 == 0 else request(EVIL)}) for number in range(count)]


HOSTILE: Final[dict[str, Callable[[], list[Call]]]] = {
    "100 instances a request": lambda: [place(instances=100)],
    "100 instances, a new shape each": lambda: [place(instances=100, memory_mb=new_shape())],
    "100 alternates, a new shape each": lambda: [place(alternates=100, memory_mb=new_shape())],
    "a new shape each, pipelined": lambda: [place(memory_mb=new_shape()) for _ in range(50)],
    "place_many of 20,000": lambda: [place_many([request(EVIL)] * 20_000)],
    "place_many of 2,000 shapes": lambda: [place_many([request(EVIL, memory_mb=new_shape()) for _ in range(2_000)])],
    "repeated uuids, pipelined": lambda: one_repeated_uuid(200),
    "uuids given twice, pipelined": lambda: (
        [place(instances=1) for _ in range(100)]
        + [("place", {"request": msgspec.structs.replace(request(EVIL), instance_uuids=("x", "x"))})] * 100
    ),
    "long questions": lambda: [("fits", {"request": request(EVIL, memory_mb=new_shape())}) for _ in range(4)],
    "short questions": lambda: [("usage", {"scope": f"project:{EVIL}"})] * 500,
    "a batch of new shapes": lambda: [("batch", {"calls": [place(memory_mb=new_shape()) for _ in range(500)]})],
    "release of 10,000": lambda: [("release", {"uuids": [str(uuid.uuid4()) for _ in range(10_000)]})],
    "many hints": lambda: [place(memory_mb=new_shape(), hints=1_500) for _ in range(4)],
    "many uuids, pipelined": lambda: [place_many([request(EVIL, instances=1) for _ in range(2_000)])],
    "a list of millions": lambda: [("release", {"uuids": [""] * 4_000_000})],
    "requests of millions of instances": lambda: [
        ("place", {"request": {"spec": {}, "instance_uuids": [""] * 4_000_000}})
    ],
    "calls for admins": lambda: [("add_hosts", {"hosts": [{"host": f"h{number}"} for number in range(40_000)]})],
    "the event log": lambda: [
        place_many([request(EVIL)] * 500),
        ("watch", {"kinds": ["decisions", "refusals", "changes"], "after": 0}),
    ],
    "holds that end soon": lambda: [("hold", {"request": request(EVIL, instances=100), "expires_in": 2.0})] * 4,
    "long names of methods": lambda: [("x" * 60_000, {})] * 50,
    "specs that are too long": lambda: [("place", {"request": {"spec": "x" * 60_000}})] * 20,
}
"""Calls that a member sends together, again and again."""
CONNECTIONS: Final = 50
MANY_CONNECTIONS: Final = {
    f"calls on {CONNECTIONS} connections": "short questions",
    f"the event log on {CONNECTIONS} connections": "the event log",
}
"""What is done on many connections at once."""
STRANGERS: Final = ("status of strangers", "connections of strangers")


@app.command(name="hostile", show=False)
def hostile(name: str, address: str, token: str) -> None:
    """Do one hostile thing until the process is ended."""
    print("begins", flush=True)
    if name in STRANGERS:
        _as_stranger(name, address.removeprefix("tcp:"))
        return
    calls = HOSTILE[MANY_CONNECTIONS.get(name, name)]
    for _ in range(CONNECTIONS - 1 if name in MANY_CONNECTIONS else 0):
        threading.Thread(target=_again_and_again, args=(calls, address, token), daemon=True).start()
    _again_and_again(calls, address, token)


def _again_and_again(calls: Callable[[], list[Call]], address: str, token: str) -> None:
    with BlockingClient(address, token=token, within=600) as client:
        while True:
            with contextlib.suppress(HostlerError):
                client.pipeline(calls())


def _as_stranger(name: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    call = msgspec.msgpack.encode([0, 1, "status", []])
    while True:
        with socket.create_connection((host, int(port))) as connection:
            if name == "connections of strangers":
                continue
            while True:
                connection.sendall(call * 100)
                if not connection.recv(1 << 20):
                    break


@contextlib.contextmanager
def under_attack(name: str | None, address: str, token: str) -> Iterator[None]:
    """While another process does one hostile thing; None: nothing."""
    if name is None:
        yield
        return
    command = [sys.executable, "-m", "hostler.bench.fairness", "hostile", name, address, token]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def measured(client: BlockingClient, seconds: float, server: int) -> dict[str, float]:
    """Latencies of one guest after the other, in milliseconds; ``cpu``: what the process ``server`` worked meanwhile,
    which does not depend on what else the machine does. ``share``: of one processor that the server had."""
    latencies, worked, params = [], [], {"request": request(GOOD)}
    start, busy = time.perf_counter(), _cpu(server)
    while time.perf_counter() < start + seconds:
        began, cpu = time.perf_counter(), _cpu(server)
        client.call("place", params)
        latencies.append(1e3 * (time.perf_counter() - began))
        worked.append(1e3 * (_cpu(server) - cpu))
        time.sleep(PAUSE)
    share = (_cpu(server) - busy) / (time.perf_counter() - start)
    (p50, p99), p99_cpu = np.percentile(latencies, [50, 99]), np.percentile(worked, 99)
    figures = {"p50_ms": p50, "p99_ms": p99, "max_ms": max(latencies), "p99_cpu_ms": p99_cpu, "share": share}
    return {"placements": len(latencies), **{name: float(figure) for name, figure in figures.items()}}


def _cpu(process: int) -> float:
    """Seconds of processor time that another process has used (the number of its clock: clock_getcpuclockid)."""
    return time.clock_gettime(~process << 3 | 2)


def made_tenants(address: str) -> dict[str, str]:
    """Two projects with a member each; their tokens."""
    tokens = {}
    with BlockingClient(address) as client:
        client.call("create_domain", {"id": "d"})
        for name in (GOOD, EVIL):
            client.call("create_project", {"id": name, "domain": "d"})
            client.call("create_user", {"id": name, "domain": "d"})
            client.call("grant", {"user": name, "role": "member", "scope": f"project:{name}"})
            tokens[name] = client.call("create_token", {"user": name}).token
    return tokens


@app.default
def main(
    *,
    hosts: int = 10_000,
    seconds: float = 5.0,
    only: list[str] | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Print the tenant's latencies beside each hostile thing. Exit status 1 if a p99 is above the bar."""
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        open_to_all = f"tcp:127.0.0.1:{free_ports(1)[0]}"
        with service(Path(folder), "", open_to_all) as (address, process):
            load_hosts(address, hosts)
            tokens = made_tenants(address)
            with BlockingClient(address, token=tokens[GOOD], within=600) as client:
                measured(client, 1.0, process.pid)
                for name in only or ["nothing", *HOSTILE, *MANY_CONNECTIONS, *STRANGERS]:
                    with under_attack(None if name == "nothing" else name, open_to_all, tokens[EVIL]):
                        time.sleep(0.5)
                        figures[name] = measured(client, seconds, process.pid)
                    if not as_json:
                        print(f"{name:34}" + " ".join(f"{key} {value:8.1f}" for key, value in figures[name].items()))
                    time.sleep(1.0)  # what was queued is carried out
    if as_json:
        print(json.dumps({"hosts": hosts, "bar_ms": BAR_MS, "figures": figures}))
    return int(any(figure["p99_ms"] > BAR_MS for figure in figures.values()))


if __name__ == "__main__":
    sys.exit(app())
