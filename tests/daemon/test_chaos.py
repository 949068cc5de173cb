"""Everything fails, one thing after the other, beside honest and hostile tenants: memory, descriptors, disk, clock,
child processes, and the service itself. What was acknowledged stays, and the account is right, after each.

``HOSTLER_SOAK_SECONDS=600 pytest -m soak tests/daemon/test_chaos.py`` takes ten minutes; an hour by default.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from hostler.bench.fairness import EVIL, GOOD, HOSTILE, MANY_CONNECTIONS, STRANGERS, made_tenants, under_attack
from hostler.bench.free_ports import free_ports
from hostler.core.engine_commands import AddHosts
from hostler.core.errors import DeadlineExceeded
from hostler.core.rpc.client import BlockingClient
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import Host
from tests.core.orders import uuid_of

from ..patience import HANG_SECONDS
from ..seeds import seeds
from .processes import Daemon
from .test_faults import shim

__all__ = ["shim"]

SOAK_SECONDS: Final = float(os.environ.get("HOSTLER_SOAK_SECONDS", "3600"))
CONFIG: Final = "[data]\nsnapshot_every = 400\n"
HOSTS: Final = 50
SPEC: Final = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 64}}
YEAR: Final = 365 * 86_400


class Tenant:
    """An honest tenant: places and releases guests, and keeps what was acknowledged."""

    def __init__(self, token: str, seed: int) -> None:
        self._token, self._chance, self._next = token, random.Random(seed), 0
        self.there: dict[str, str] = {}
        """Guest -> host, as acknowledged."""
        self.unsure: set[str] = set()
        """Guests whose last command got an error, or no answer."""
        self.acknowledged = 0
        self._stop = threading.Event()

    @contextlib.contextmanager
    def at_work(self, address: str) -> Iterator[None]:
        self._stop.clear()
        thread = threading.Thread(target=self._run, args=(address,))
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(HANG_SECONDS)
            assert not thread.is_alive(), "a call did not end"

    def _run(self, address: str) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(HostlerError, OSError), BlockingClient(address, token=self._token) as client:
                while not self._stop.is_set():
                    self._step(client)
            time.sleep(0.05)

    def _step(self, client: BlockingClient) -> None:
        if self.there and self._chance.random() < 0.45:
            uuid = self._chance.choice(sorted(self.there))
            self.unsure.add(uuid)
            client.call("release", {"uuids": [uuid]}, within=2.0)
            del self.there[uuid]
        else:
            self._next += 1
            uuid = uuid_of(self._next)
            self.unsure.add(uuid)
            request = {"spec": SPEC, "instance_uuids": [uuid], "project_id": GOOD}
            self.there[uuid] = client.call("place", {"request": request}, within=2.0).host
        self.unsure.discard(uuid)
        self.acknowledged += 1

    def check(self, client: BlockingClient) -> None:
        """What the service has is what was acknowledged; of what is unsure, whole guests or none."""
        found: dict[str, str] = {}
        while page := client.call("instances", {"project": GOOD, "after": max(found, default=None), "limit": 1_000}):
            found |= {line.uuid: line.node for line in page}
        for uuid, host in self.there.items():
            assert found.get(uuid, "" if uuid in self.unsure else "nowhere") in (host, ""), f"{uuid} is not on {host}"
        assert found.keys() <= self.there.keys() | self.unsure, "guests that nobody asked for, or that were released"
        assert client.call("usage", {"scope": f"project:{GOOD}"}).used.get("instances", 0) == len(found)
        self.there, self.unsure = found, set()


class Chaos:
    """A service whose surroundings can be made to fail, and the ways in which they do."""

    def __init__(self, folder: Path, shim: Path, chance: random.Random) -> None:
        self.chance = chance
        self._disk, self._clock = folder / "faults", folder / "clock"
        self._disk.write_text("-")
        self._clock.write_text("0")
        env = os.environ | {
            "LD_PRELOAD": str(shim),
            "HOSTLER_FAULTS": str(self._disk),
            "HOSTLER_FAULTY_FOLDER": str(folder / "data"),
            "HOSTLER_CLOCK_OFFSET": str(self._clock),
        }
        self.open_to_all = f"tcp:127.0.0.1:{free_ports(1)[0]}"
        self.daemon = Daemon(folder, "--rpc", self.open_to_all, config=CONFIG, env=env)
        self.faults: dict[str, Callable[[], None]] = {
            "memory": self.memory,
            "descriptors": self.descriptors,
            "disk": self.disk,
            "clock": self.clock,
            "children": self.children,
            "kill -9": self.kill,
            "nothing": lambda: self._some_time(0.5),
        }
        self.deaths = 0
        self._was_short = False
        """True once its memory has been short, until it is started anew: a thread that could not begin then may be
        missed later, and the process end by that."""

    @property
    def pid(self) -> int:
        assert self.daemon.process is not None
        return self.daemon.process.pid

    def _some_time(self, most: float) -> None:
        time.sleep(self.chance.uniform(0.05, most))

    @contextlib.contextmanager
    def _limited(self, what: int, soft: int) -> Iterator[None]:
        before = resource.prlimit(self.pid, what)
        resource.prlimit(self.pid, what, (soft, before[1]))
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(self.pid, what, before)

    def memory(self) -> None:
        """No more memory. The process may end, as a command may be half done; the next start knows the truth."""
        self._was_short = True
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[0])
        room = self.chance.choice([0, 1, 4, 16]) << 20
        with self._limited(resource.RLIMIT_AS, pages * resource.getpagesize() + room):
            self._some_time(1.0)

    def descriptors(self) -> None:
        """No more files or sockets."""
        used = len(os.listdir(f"/proc/{self.pid}/fd"))
        with self._limited(resource.RLIMIT_NOFILE, used + self.chance.randint(0, 4)):
            self._some_time(1.0)

    def disk(self) -> None:
        """A disk that fails, is full, cuts, does not sync, is read-only or hangs."""
        self._disk.write_text(self.chance.choice("ensfrh"))
        self._some_time(1.0)
        self._disk.write_text("-")

    def clock(self) -> None:
        """A wall clock that is wrong by an hour or a year."""
        self._clock.write_text(str(self.chance.choice([YEAR, -YEAR, 3_600, -3_600])))
        self._some_time(1.0)
        self._clock.write_text("0")

    def children(self) -> None:
        """A snapshot, or the answer to a long question, is killed on its way."""
        with contextlib.suppress(HostlerError), self.daemon.client() as client:
            client.call("snapshot", within=0.2)
        for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        self._some_time(0.5)

    def kill(self) -> None:
        """kill -9, and a new start."""
        self._was_short = False
        self.daemon.restart()

    def start_if_ended(self) -> bool:
        """Start a service that has ended; True if it had. Only a lack of memory may have ended it."""
        process = self.daemon.process
        assert process is not None
        if process.poll() is None:
            return False
        assert self._was_short, self.daemon.log()[-3_000:]
        self._was_short = False
        self.deaths += 1
        self.daemon.start()
        return True

    def recover(self) -> None:
        """Wait until the service takes commands and has none left."""
        assert self.daemon.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.daemon.process.wait(0.2)
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            assert time.monotonic() < deadline, self.daemon.log()[-3_000:]
            self.start_if_ended()
            with contextlib.suppress(HostlerError, OSError), self.daemon.client() as client:
                status = client.call("status", within=5.0)
                if status.writable and not status.queued:
                    return
            time.sleep(0.05)

    def check(self, tenant: Tenant) -> None:
        """Compare the service with what a tenant was told, once it goes on; again if it has ended meanwhile."""
        while True:
            self.recover()
            try:
                with self.daemon.client() as client:
                    settle(client)
                    tenant.check(client)
                    assert client.call("capacity")["VCPU"].used == guests_counted(client)
                return
            except (HostlerError, OSError):
                assert self.daemon.process is not None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.daemon.process.wait(5)
                if not self.start_if_ended():
                    raise


def guests_counted(client: BlockingClient) -> int:
    """Guests of all tenants, as their usage has them."""
    return int(client.call("usage", {"scope": "domain:d"}).used.get("instances", 0))


def settle(client: BlockingClient) -> None:
    """Wait until what clients that are gone had sent has been carried out or dropped."""
    deadline, before, unchanged = time.monotonic() + HANG_SECONDS, None, 0
    while True:
        try:
            client.call("heartbeats", {"names": []}, within=5.0)  # behind what has left the queue and is being written
            break
        except DeadlineExceeded:
            assert time.monotonic() < deadline
    while unchanged < 5:
        assert time.monotonic() < deadline
        status = client.call("status")
        now = status.sequence, status.queued, guests_counted(client)
        unchanged = unchanged + 1 if now == before and not status.queued else 0
        before = now
        time.sleep(0.1)


def chaos(folder: Path, shim: Path, seconds: float, seed: int) -> int:
    """One service for so long; returns how many commands were acknowledged."""
    chance = random.Random(seed)
    world = Chaos(folder, shim, chance)
    end = time.monotonic() + seconds
    with world.daemon as daemon:
        with daemon.client() as client:
            figures: dict[str, Any] = {
                "vcpus_total": 4_096,
                "total_usable_ram_mb": 1 << 24,
                "total_usable_disk_gb": 1_000,
            }
            client.call("add_hosts", AddHosts(hosts=tuple(Host(host=f"n{i}", **figures) for i in range(HOSTS))))
        tokens = made_tenants(daemon.address)
        with daemon.client() as client:
            client.call("set_limits", {"scope": f"project:{EVIL}", "limits": {"instances": 20_000}})
        tenant, rounds = Tenant(tokens[GOOD], seed), 0
        while time.monotonic() < end:
            rounds += 1
            fault = chance.choice(sorted(world.faults))
            hostile = chance.choice([None, *HOSTILE, *MANY_CONNECTIONS, *STRANGERS])
            with tenant.at_work(daemon.address), under_attack(hostile, world.open_to_all, tokens[EVIL]):
                time.sleep(chance.uniform(0.1, 0.5))
                world.faults[fault]()
                time.sleep(chance.uniform(0.0, 0.3))
            where = f"seed {seed}, round {rounds}: {fault} beside {hostile}"
            try:
                world.check(tenant)
            except Exception as error:
                raise AssertionError(where) from error
        assert daemon.terminate() == 0
        assert "damage" not in daemon.log()
    print(f"{rounds} rounds, {tenant.acknowledged} commands acknowledged, {world.deaths} ends for lack of memory")
    return tenant.acknowledged


def test_what_was_acknowledged_outlives_a_few_failures_of_all_kinds(shim: Path, tmp_path: Path) -> None:
    assert chaos(tmp_path, shim, 12.0, seed=seeds(1, "a little chaos")[0]) > 0


@pytest.mark.soak
def test_what_was_acknowledged_outlives_chaos(shim: Path, tmp_path: Path) -> None:
    assert chaos(tmp_path, shim, SOAK_SECONDS, seed=seeds(1, "chaos")[0]) > 0
