"""Take-overs and throughput of two members of a cluster on a real etcd of three members, all on this machine.

    python -m hostler.bench.availability [--rounds 20] [--election-ms 1000] [--seconds 5] [--as-json]
    python -m hostler.bench.availability faults [--rounds 40] [--election-ms 1000] [--seed 1] [--seconds 600]

A take-over is timed from the last answer of the old leader to the first of the new one, as a client sees it that calls
all the time: after kill -9 of the leader, and after a planned hand-over. ``faults`` runs rounds of faults under load,
and checks that all that was acknowledged is there, once and whole, and that each key is linearizable; its exit code is
1 where that does not hold.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cyclopts
import trio

from hostler.core.rpc.client import BlockingClient
from hostler.placement.types.errors import HostlerError, UnknownName

from .etcd_servers import ETCD, EtcdServers
from .service import at_rate, batched, load_hosts, percentiles, pipelined, service, with_client

app = cyclopts.App(name="availability", help="Take-overs and throughput of members of a cluster on etcd.")


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
    """Seconds without an answer around kill -9 of the leader, and around planned hand-overs."""
    killed, planned, errors = list[float](), list[float](), 0
    with ExitStack() as stack:
        running = {name: stack.enter_context(ExitStack()) for name in "ab"}
        found = {name: running[name].enter_context(member(folder, etcd, name, lease)) for name in "ab"}
        addresses = [address for address, _ in found.values()]
        for _ in range(rounds):
            leader = leader_of(addresses)
            all_alive(leader, 2)
            caller = Caller(addresses)
            caller.settle()
            caller.longest = 0.0
            with BlockingClient(leader) as client:
                client.call("lead")
            caller.settle()
            planned.append(caller.longest)
            name = next(each for each, (address, _) in found.items() if address == leader_of(addresses))
            caller.longest = 0.0
            found[name][1].kill()
            found[name][1].wait()
            caller.settle()
            killed.append(caller.longest)
            errors += caller.errors
            caller.close()
            running[name].close()
            found[name] = running[name].enter_context(member(folder, etcd, name, lease))
    return {"kill_9": percentiles(killed), "planned": percentiles(planned), "rounds": rounds, "errors": errors}


def throughput(folder: Path, etcd: EtcdServers, seconds: float, hosts: int) -> dict[str, Any]:
    """Single placements pipelined, placements in batches, and latency at half load, through the journal in etcd."""
    results: dict[str, Any] = {}
    with member(folder, etcd, "a", 2) as (first, _), member(folder, etcd, "b", 2) as (second, _):
        address = leader_of([first, second])
        load_hosts(address, hosts)
        for depth in (1, 512, 2_048):
            results[f"pipelined_{depth}"] = round(trio.run(with_client, address, pipelined, seconds, depth))
        results["batched_1000"] = round(trio.run(with_client, address, batched, seconds, 1_000))
        reads: list[float] = []
        half = results["pipelined_2048"] / 2
        results["half_load"] = percentiles(trio.run(with_client, address, at_rate, seconds, half, reads))
    return results


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
    if ETCD is None:
        sys.stderr.write("etcd is not installed (Debian: etcd-server)\n")
        return 1
    lease = max(1, -(-election_ms * 3 // 2_000))
    with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:
        folder = Path(name)
        for part in ("etcd", "takeovers", "throughput"):
            (folder / part).mkdir()
        with EtcdServers(folder / "etcd", election_ms=election_ms) as etcd:
            results: dict[str, Any] = {"takeovers": takeovers(folder / "takeovers", etcd, rounds, lease)}
        (folder / "etcd-2").mkdir()
        with EtcdServers(folder / "etcd-2", election_ms=election_ms) as etcd:
            results["throughput"] = throughput(folder / "throughput", etcd, seconds, hosts)
    if as_json:
        print(json.dumps(results, indent=2))
    else:
        for part, found in results.items():
            for key, value in found.items():
                print(f"{part:>12} {key:>16}  {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(app(result_action="return_value"))
