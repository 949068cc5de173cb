"""Take-overs and throughput of two members of a cluster on a real etcd of three members, all on this machine.

    python -m hostler.bench.availability [--rounds 20] [--election-ms 1000] [--seconds 5] [--as-json]
    python -m hostler.bench.availability takeover [--rounds 100] [--election-ms 1000] [--as-json]
    python -m hostler.bench.availability throughput [--seconds 5] [--hosts 2000] [--as-json]
    python -m hostler.bench.availability memory [--hosts 100000] [--as-json]
    python -m hostler.bench.availability upgrade OLDER [--seed 1] [--as-json]
    python -m hostler.bench.availability faults [--rounds 40] [--election-ms 1000] [--seed 1] [--seconds 600]

A take-over is timed from the last answer of the old leader to the first of the new one, as a client sees it that calls
all the time: after kill -9 of the leader (``kill_9``), after kill -9 of it and its guardian, as where the machine dies
(``machine``; half of the rounds each), and after a planned hand-over. Its exit code is 1 where a command has failed.
``throughput`` also asks the follower every 20 ms how old its state is. Without a command both are done. ``memory``
tells the resident MiB of the leader and the follower with the same hosts: loaded, idle, after a snapshot of each, and
with the follower started again: by the journal, from a snapshot of its own, and from one that it fetched. ``faults``
runs rounds of faults under load, and checks that all that was acknowledged is there, once and whole, and that each key
is linearizable; its exit code is 1 where that does not hold. ``upgrade`` does the same while three members are
upgraded, one after the other, from the code in OLDER, a checkout of an earlier commit whose kernels are built, to this.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import cyclopts
import trio

from hostler.core.rpc.client import BlockingClient
from hostler.placement.types.errors import HostlerError, UnknownName

from .etcd_servers import ETCD, EtcdServers
from .service import at_rate, batched, cpu_of, kill_9, load_hosts, percentiles, pipelined, service, with_client

app = cyclopts.App(name="availability", help="Take-overs and throughput of members of a cluster on etcd.")


HALF_BAR: Final = 2_500.0
"""Half of the single placements a second that a cluster is to carry."""


class Caller:
    """Calls all the time at whichever member leads; notes the longest time between two answers, and errors."""

    def __init__(self, addresses: list[str]) -> None:
        self._client = BlockingClient(addresses, within=30)
        self._stop = threading.Event()
        self.longest, self.errors, self.answers = 0.0, 0, 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.is_set():
            try:
                self._client.call("remove_host", {"name": "none"})
            except HostlerError as error:
                if not isinstance(error, UnknownName):  # which is the answer to the command
                    self.errors += 1
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now
            self.answers += 1

    def settle(self, answers: int = 20) -> None:
        """Wait for so many answers more."""
        end = self.answers + answers
        while self.answers < end:
            time.sleep(0.01)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()


@contextmanager
def member(folder: Path, etcd: EtcdServers, name: str, lease: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A member of the cluster as a process."""
    home = folder / name
    home.mkdir(exist_ok=True)
    endpoints = json.dumps(etcd.endpoints)
    config = f'[data]\nstore = "etcd"\n[data.etcd]\nendpoints = {endpoints}\n'
    config += f'[cluster]\nname = "{name}"\nlease_seconds = {lease}\n'
    with service(home, config) as running:
        yield running


def leader_of(addresses: list[str]) -> str:
    """The address of the member that leads, once one does."""
    while True:
        for address in addresses:
            try:
                with BlockingClient(address, within=0.5) as client:
                    if client.call("status").role == "leader":
                        return address
            except HostlerError:
                continue
        time.sleep(0.02)


def all_alive(address: str, count: int) -> None:
    """Wait until so many members are alive and up to date."""
    with BlockingClient(address) as client:
        while sum(line.alive for line in client.call("members")) < count:
            time.sleep(0.05)


def takeovers(folder: Path, etcd: EtcdServers, rounds: int, lease: int) -> dict[str, Any]:
    """Seconds without an answer around planned hand-overs, and around kill -9 of the leader, every other time with its
    guardian; commands that failed."""
    pauses: dict[str, list[float]] = {"planned": [], "kill_9": [], "machine": []}
    errors = dict.fromkeys(pauses, 0)
    with ExitStack() as stack:
        running = {name: stack.enter_context(ExitStack()) for name in "ab"}
        found = {name: running[name].enter_context(member(folder, etcd, name, lease)) for name in "ab"}
        addresses = [address for address, _ in found.values()]
        for number in range(rounds):
            all_alive(leader_of(addresses), 2)
            caller = Caller(addresses)
            with timed(caller, pauses["planned"]), BlockingClient(leader_of(addresses)) as client:
                client.call("lead")
            errors["planned"] += caller.errors
            before, kind = caller.errors, "machine" if number % 2 else "kill_9"
            name = next(each for each, (address, _) in found.items() if address == leader_of(addresses))
            with timed(caller, pauses[kind]):
                kill_9(found[name][1], with_children=kind == "machine")
            errors[kind] += caller.errors - before
            caller.close()
            running[name].close()
            found[name] = running[name].enter_context(member(folder, etcd, name, lease))
    results: dict[str, Any] = {
        kind: percentiles(values) | {"max_ms": round(1_000 * max(values), 2), "errors": errors[kind]}
        for kind, values in pauses.items()
        if values
    }
    return results | {"rounds": rounds}


@contextmanager
def timed(caller: Caller, pauses: list[float]) -> Iterator[None]:
    """Note the longest time without an answer to a caller, from before to after what is done."""
    caller.settle()
    caller.longest = 0.0
    yield
    caller.settle()
    pauses.append(caller.longest)


def throughput(folder: Path, etcd: EtcdServers, seconds: float, hosts: int) -> dict[str, Any]:
    """Single placements pipelined, placements in batches, and latency at half of that load of singles and of what a
    cluster is to carry, through the journal in etcd; how far the follower is behind meanwhile, and what CPU a placement
    takes."""
    results: dict[str, Any] = {}
    with member(folder, etcd, "a", 2) as (first, one), member(folder, etcd, "b", 2) as (second, other):
        address = leader_of([first, second])
        processes = {"leader": one, "follower": other} if address == first else {"leader": other, "follower": one}
        follower = second if address == first else first
        load_hosts(address, hosts)
        trio.run(with_client, address, pipelined, 1.0, 256)
        for depth in (1, 512, 2_048):
            results[f"pipelined_{depth}"] = measured(processes, address, follower, seconds, pipelined, depth)
        results["batched_1000"] = measured(processes, address, follower, seconds, batched, 1_000)
        half = results["pipelined_2048"]["per_second"] / 2
        for name, rate in (("half_load", half), ("half_bar", HALF_BAR)):
            with Lag(follower) as lag:
                latencies = trio.run(with_client, address, at_rate, seconds, rate, [])
            results[name] = {"per_second": round(rate)} | percentiles(latencies) | {"lag": lag.told()}
    return results


def measured(
    processes: Mapping[str, subprocess.Popen[str]],
    address: str,
    follower: str,
    seconds: float,
    kind: Callable[..., Any],
    size: int,
) -> dict[str, Any]:
    """One kind of load: its rate, CPU µs of each process for a placement, and the follower's lag."""
    before = {name: cpu_of(process.pid) for name, process in processes.items()}
    with Lag(follower) as lag:
        rate = trio.run(with_client, address, kind, seconds, size)
    cpu = {
        f"{name}_cpu_us": round((cpu_of(process.pid) - before[name]) / rate / seconds * 1e6, 1)
        for name, process in processes.items()
    }
    return {"per_second": round(rate)} | cpu | {"lag": lag.told()}


class Lag:
    """Asks a follower all the time how old its state is, in a thread, while the context lasts."""

    def __init__(self, address: str) -> None:
        self._client = BlockingClient(address, within=30)
        self._stop = threading.Event()
        self._found: list[float] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Lag:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def told(self) -> dict[str, float]:
        """In milliseconds."""
        return percentiles(self._found)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            behind = self._client.call("status").behind_ms
            if behind is not None:
                self._found.append(behind / 1_000)


@app.command
def faults(
    *, rounds: int = 40, election_ms: int = 1_000, seed: int = 1, seconds: float = 600.0, as_json: bool = False
) -> int:
    """Rounds of faults under load, checked against a model of what was acknowledged.

    Parameters
    ----------
    seconds
        after which no further round begins
    """
    from .availability_faults import run_rounds

    if ETCD is None:
        sys.stderr.write("etcd is not installed (Debian: etcd-server)\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:

        def tell(text: str) -> None:
            if not as_json:
                print(text, flush=True)

        work = partial(run_rounds, Path(name), rounds, seed=seed, seconds=seconds, election_ms=election_ms, tell=tell)
        results = trio.run(work)
    print(json.dumps(results, indent=2))
    return 1 if results["violations"] or results["errors"] else 0


@app.command
def takeover(*, rounds: int = 100, election_ms: int = 1_000, as_json: bool = False) -> int:
    """Take-overs only: exit code 1 if a command has failed. ``election_ms``: election timeout of etcd."""
    found = run({"takeovers": lambda folder, etcd: takeovers(folder, etcd, rounds, lease_of(election_ms))}, election_ms)
    shown(found, as_json)
    return 1 if any(kind["errors"] for kind in found["takeovers"].values() if isinstance(kind, dict)) else 0


@app.command(name="throughput")
def throughput_alone(
    *, seconds: float = 5.0, hosts: int = 2_000, election_ms: int = 1_000, as_json: bool = False
) -> int:
    """Throughput, latency and the follower's lag only."""
    shown(run({"throughput": lambda folder, etcd: throughput(folder, etcd, seconds, hosts)}, election_ms), as_json)
    return 0


@app.command(name="memory")
def memory_alone(*, hosts: int = 100_000, as_json: bool = False) -> int:
    """Resident memory of the leader and of the follower, with so many hosts."""
    from .availability_memory import memory

    shown(run({"memory": lambda folder, etcd: memory(folder, etcd, hosts)}, 1_000), as_json)
    return 0


@app.command
def upgrade(older: Path, *, seed: int = 1, as_json: bool = False) -> int:
    """A rolling upgrade of three members, from the code of a checkout to this one's."""
    from .availability_upgrade import run_upgrade

    def tell(text: str) -> None:
        if not as_json:
            print(text, flush=True)

    found = run({"upgrade": lambda folder, etcd: trio.run(run_upgrade, folder, etcd, older, seed, tell)}, 1_000)
    print(json.dumps(found, indent=2))
    result = found["upgrade"]
    agreed = all(result["digests_compared_afterwards"].values()) and not any(result["differences"].values())
    return 0 if agreed and not result["violations"] and not result["errors"] else 1


@app.default
def main(
    *,
    rounds: int = 20,
    election_ms: int = 1_000,
    seconds: float = 5.0,
    hosts: int = 2_000,
    as_json: bool = False,
) -> int:
    """Measure, and print what was found. ``election_ms``: election timeout of etcd."""
    parts: dict[str, Part] = {
        "takeovers": lambda folder, etcd: takeovers(folder, etcd, rounds, lease_of(election_ms)),
        "throughput": lambda folder, etcd: throughput(folder, etcd, seconds, hosts),
    }
    shown(run(parts, election_ms), as_json)
    return 0


Part = Callable[[Path, EtcdServers], dict[str, Any]]


def lease_of(election_ms: int) -> int:
    """The shortest lease, in seconds, that etcd grants at an election timeout."""
    return max(1, -(-election_ms * 3 // 2_000))


def run(parts: Mapping[str, Part], election_ms: int) -> dict[str, Any]:
    """What was found by each part, on an etcd of its own. SystemExit without etcd."""
    if ETCD is None:
        raise SystemExit("etcd is not installed (Debian: etcd-server)")
    results: dict[str, Any] = {}
    for name, part in parts.items():
        with tempfile.TemporaryDirectory(prefix="hostler-bench-") as place:
            servers, members = Path(place) / "etcd", Path(place) / "members"
            servers.mkdir()
            members.mkdir()
            with EtcdServers(servers, election_ms=election_ms) as etcd:
                results[name] = part(members, etcd)
    return results


def shown(results: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    """Print results as JSON or as lines."""
    if as_json:
        print(json.dumps(results, indent=2))
        return
    for part, found in results.items():
        for key, value in found.items():
            print(f"{part:>12} {key:>16}  {value}")


if __name__ == "__main__":
    raise SystemExit(app(result_action="return_value"))
