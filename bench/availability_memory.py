"""Resident memory of the two members of a cluster that hold the same hosts: after the load, after a snapshot of each,
and of the follower started again: by the journal alone, from its own snapshot, and from one that it fetched."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from hostler.core.rpc.blocking_client import BlockingClient

from .etcd_servers import EtcdServers
from .service import load_hosts, service

SETTLE_SECONDS: Final = 900.0
"""For the follower to have carried out what the leader has."""
REST_SECONDS: Final = 3.0
"""After the last command, until memory is read."""
IDLE_SECONDS: Final = 75.0
"""After which an idle service has given free memory back."""

Started = tuple[str, "subprocess.Popen[str]"]


def resident_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1_024
    raise AssertionError("Linux tells VmRSS")


@contextmanager
def started(folder: Path, etcd: EtcdServers, name: str) -> Iterator[Started]:
    """A member as a process, which takes snapshots when it is told to only."""
    home = folder / name
    home.mkdir(exist_ok=True)
    config = '[data]\nstore = "etcd"\nsnapshot_every = 1_000_000_000\n'
    config += f"[data.etcd]\nendpoints = {json.dumps(etcd.endpoints)}\n"
    config += f'[cluster]\nname = "{name}"\nlease_seconds = 2\ncompact_seconds = 1\nsnapshot_bytes = 1_000_000_000\n'
    with service(home, config) as running:
        yield running


def until(found: Callable[[], bool]) -> None:
    """Wait for something. SystemExit where it does not come."""
    end = time.monotonic() + SETTLE_SECONDS
    while not found():
        if time.monotonic() > end:
            raise SystemExit("the follower did not come up with the leader")
        time.sleep(0.2)


def sequence(address: str) -> int:
    """The last command that a member has carried out."""
    with BlockingClient(address, within=120) as client:
        return int(client.call("status").sequence)


def snapshot(address: str) -> None:
    """Have a member take a snapshot."""
    with BlockingClient(address, within=600) as client:
        client.call("snapshot")


def compared(leader: Started, follower: Started, rest: float = REST_SECONDS) -> dict[str, float]:
    """MiB of both members, once they have carried out the same and had a rest of so many seconds."""
    until(lambda: sequence(follower[0]) == sequence(leader[0]))
    time.sleep(rest)
    one, other = resident_mib(leader[1].pid), resident_mib(follower[1].pid)
    return {"leader_mib": round(one, 1), "follower_mib": round(other, 1), "ratio": round(other / one, 3)}


def memory(folder: Path, etcd: EtcdServers, hosts: int) -> dict[str, Any]:
    """Resident memory of both members at each stage, and the follower's by the leader's."""
    results: dict[str, Any] = {"hosts": hosts}
    with ExitStack() as stack:
        leader = stack.enter_context(started(folder, etcd, "a"))
        until(lambda: _leads(leader[0]))
        with started(folder, etcd, "b") as follower:
            results["empty"] = compared(leader, follower)
            load_hosts(leader[0], hosts)
            results["loaded"] = compared(leader, follower)
            results["loaded_idle"] = compared(leader, follower, IDLE_SECONDS)
        shutil.rmtree(folder / "b" / "data")
        with started(folder, etcd, "b") as follower:
            results["replayed"] = compared(leader, follower)
            snapshot(leader[0])
            snapshot(follower[0])
            results["snapshot_taken"] = compared(leader, follower)
        with started(folder, etcd, "b") as follower:
            results["own_snapshot"] = compared(leader, follower)
        time.sleep(REST_SECONDS)  # by which the leader has dropped the blocks that are in both snapshots
        shutil.rmtree(folder / "b" / "data")
        with started(folder, etcd, "b") as follower:
            results["fetched_snapshot"] = compared(leader, follower)
            if "fetching snapshot" not in (folder / "b" / "log").read_text():
                raise SystemExit("the follower has fetched no snapshot")
    return results


def _leads(address: str) -> bool:
    with BlockingClient(address, within=30) as client:
        return bool(client.call("status").role == "leader")
