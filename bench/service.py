"""Load on a running service: ``hostler serve`` as one process, clients as others, durable answers.

    python -m hostler.bench.service [--hosts 10000] [--seconds 5] [--json]
    python -m hostler.bench.service shadow

It measures single placements pipelined over one connection, many placements a command, latency at half load with reads
beside it, reads while another process places as much as the service takes, and recovery.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
import trio

from hostler.core.engine_commands import AddHosts, asked
from hostler.core.rpc.client import BlockingClient, Client, open_client
from hostler.placement.types.host import Host
from hostler.placement.types.request import Flavor, Request, RequestSpec

app = cyclopts.App(name="service", help="Load on a running service.")

SPEC = RequestSpec(flavor=Flavor(name="small", vcpus=1, memory_mb=64, root_gb=1))
ASKED = {"request": asked(Request(spec=SPEC, project_id="p1"))}
FULL_HOSTS_FIRST = "[filter_scheduler]\nram_weight_multiplier = -1.0\ncpu_weight_multiplier = -1.0\n"
HOSTS_A_COMMAND = 1_000


@contextmanager
def service(folder: Path, config: str = "", *also: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A daemon on a Unix socket, and at the addresses that it listens at ``also``."""
    address = f"unix:{folder}/rpc.sock"
    file = folder / "config.toml"
    file.write_text(config)
    command = [str(Path(sys.executable).with_name("hostler")), "serve"]
    command += [part for each in (address, *also) for part in ("--rpc", each)]
    command += ["--data", str(folder / "data"), "--config", str(file)]
    compiled = {"PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}  # as once installed
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **compiled}
        )
    try:
        assert process.stdout is not None
        if not process.stdout.readline().startswith("ready"):
            raise SystemExit((folder / "log").read_text()[-2000:])
        yield address, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def kill_9(process: subprocess.Popen[str], *, with_children: bool) -> None:
    """Kill a service, and wait for its end; ``with_children``: its children first, as a machine takes all with it."""
    if with_children:
        for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
    process.kill()
    process.wait()


def load_hosts(address: str, count: int) -> None:
    """Hosts large enough for everything that comes."""
    figures: dict[str, Any] = {
        "vcpus_total": 1_024,
        "total_usable_ram_mb": 1 << 22,
        "total_usable_disk_gb": 1_000_000,
    }
    with BlockingClient(address) as client:
        for first in range(0, count, HOSTS_A_COMMAND):
            numbers = range(first, min(first + HOSTS_A_COMMAND, count))
            client.call("add_hosts", AddHosts(hosts=tuple(Host(host=f"node-{n}", **figures) for n in numbers)))


async def pipelined(client: Client, seconds: float, depth: int) -> float:
    """Single placements a second, with ``depth`` on their way."""
    done, end = 0, trio.current_time() + seconds
    began = trio.current_time()

    async def stream() -> None:
        nonlocal done
        calls = [("place", ASKED)] * max(depth // 2, 1)
        while trio.current_time() < end:
            answers = await client.pipeline(calls)
            done += sum(answer.placed for answer in answers)

    async with trio.open_nursery() as nursery:
        for _ in range(min(depth, 2)):
            nursery.start_soon(stream)
    return done / (trio.current_time() - began)


async def batched(client: Client, seconds: float, size: int) -> float:
    """Placements a second, ``size`` a command, with four commands on their way."""
    done, end = 0, trio.current_time() + seconds
    began = trio.current_time()
    params = {"requests": [ASKED["request"]] * size}

    async def stream() -> None:
        nonlocal done
        while trio.current_time() < end:
            placed = (await client.call("place_many", params)).placed
            done += placed

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(stream)
    return done / (trio.current_time() - began)


async def at_rate(client: Client, seconds: float, rate: float, reads: list[float]) -> list[float]:
    """Latencies of placements that come at a rate, in bunches of a millisecond; ``reads`` takes those of reads that go
    on beside them."""
    latencies: list[float] = []
    end = trio.current_time() + seconds
    bunch = max(round(rate / 200), 1)

    async def write(calls: Sequence[Any], at: float) -> None:
        await client.pipeline(calls)
        latencies.extend([trio.current_time() - at] * len(calls))

    async def read() -> None:
        while trio.current_time() < end:
            began = trio.current_time()
            await client.call("status")
            reads.append(trio.current_time() - began)
            await trio.sleep(0.005)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        at = trio.current_time()
        while at < end:
            nursery.start_soon(write, [("place", ASKED)] * bunch, at)
            at += bunch / rate
            await trio.sleep_until(at)
    return latencies


async def reading(client: Client, seconds: float) -> list[float]:
    """Latencies of reads one after the other."""
    latencies: list[float] = []
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        began = trio.current_time()
        await client.call("host", {"name": "node-7"})
        latencies.append(trio.current_time() - began)
        await trio.sleep(0.003)
    return latencies


def reads_in_a_storm(address: str, seconds: float, size: int) -> dict[str, float]:
    """Latencies of reads, beside a process that places all it can: one by one, or ``size`` a command."""
    command = [sys.executable, "-m", "hostler.bench.service", "storm", address, str(seconds + 3), "--size", str(size)]
    storm = subprocess.Popen(command)
    time.sleep(2.0)  # until it is there
    latencies = trio.run(with_client, address, reading, seconds)
    storm.wait()
    return percentiles(latencies)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """In milliseconds."""
    p50, p99 = np.percentile(values, [50, 99]) * 1000
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def load(process: subprocess.Popen[str], address: str, seconds: float, kind: Callable[..., Any], size: int) -> Any:
    """Run one kind of load; its rate, and the CPU that each placement took on both sides."""
    server, client = cpu_of(process.pid), time.process_time()
    rate = trio.run(with_client, address, kind, seconds, size)
    placed = rate * seconds
    return {
        "per_second": round(rate),
        "server_cpu_us": round((cpu_of(process.pid) - server) / placed * 1e6, 1),
        "client_cpu_us": round((time.process_time() - client) / placed * 1e6, 1),
    }


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def with_client(address: str, work: Callable[..., Any], *arguments: Any) -> Any:
    async with open_client(address, within=60) as client:
        return await work(client, *arguments)


def recovery(folder: Path, commands: int) -> dict[str, float]:
    """Seconds from the start of a killed daemon until it is ready, after so many single placements, none of them in a
    snapshot."""
    with service(folder, f"[data]\nsnapshot_every = {10 * commands}\n") as (address, process):
        load_hosts(address, 10_000)
        with BlockingClient(address, within=120) as client:
            status = client.call("status")
        while status.sequence < commands:
            trio.run(with_client, address, pipelined, 2.0, 2_048)
            with BlockingClient(address) as client:
                status = client.call("status")
        process.kill()
        process.wait()
    began = time.perf_counter()
    with service(folder, f"[data]\nsnapshot_every = {10 * commands}\n"):
        seconds = time.perf_counter() - began
    return {"commands": status.sequence, "seconds": round(seconds, 2)}


@app.command
def storm(address: str, seconds: float, *, size: int = 1) -> None:
    """Place all that the service takes: one by one, or ``size`` a command."""
    kind, depth = (pipelined, 2_048) if size == 1 else (batched, size)
    trio.run(with_client, address, kind, seconds, depth)


@app.command
def shadow(*, hosts: int = 10_000, seconds: float = 5.0, rounds: int = 3) -> None:
    """Placements without and with a shadow policy, in turn."""
    config = "shadow_policy = 'shadow.toml'\n"
    for _ in range(rounds):
        for kind, text in (("without", ""), ("with", config)):
            with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:
                (Path(name) / "shadow.toml").write_text(FULL_HOSTS_FIRST)
                with service(Path(name), text) as (address, process):
                    load_hosts(address, hosts)
                    trio.run(with_client, address, pipelined, 1.0, 256)
                    found: dict[str, Any] = {"pipelined_512": load(process, address, seconds, pipelined, 512)}
                    found["batched_1000"] = load(process, address, seconds, batched, 1_000)
                    with BlockingClient(address) as client:
                        if text:
                            counts = client.call("shadow_status").counts
                            found["compared"], found["passed_over"] = counts.compared, counts.passed_over
            print(f"{kind:>8}  {found}", flush=True)


@app.default
def main(*, hosts: int = 10_000, seconds: float = 5.0, recover: int = 100_000, as_json: bool = False) -> int:
    """Measure, and print what was found.

    Parameters
    ----------
    recover
        commands to recover in the last part; 0 leaves it out
    """
    results: dict[str, Any] = {"hosts": hosts, "cpus": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name, service(Path(name)) as (address, process):
        load_hosts(address, hosts)
        trio.run(with_client, address, pipelined, 1.0, 256)
        for depth in (1, 32, 512, 2_048):
            results[f"pipelined_{depth}"] = load(process, address, seconds, pipelined, depth)
        for size in (100, 1_000):
            results[f"batched_{size}"] = load(process, address, seconds, batched, size)
        half = results["pipelined_2048"]["per_second"] / 2
        reads: list[float] = []
        writes = trio.run(with_client, address, at_rate, seconds, half, reads)
        results["half_load"] = {"per_second": round(half), "writes": percentiles(writes), "reads": percentiles(reads)}
        for size in (1, 1_000):
            results[f"reads_in_storm_{size}"] = reads_in_a_storm(address, seconds, size)
    if recover:
        with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:
            results["recovery"] = recovery(Path(name), recover)
    results["client_peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if as_json:
        print(json.dumps(results, indent=2))
    else:
        for key, value in results.items():
            print(f"{key:>16}  {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(app(result_action="return_value"))
