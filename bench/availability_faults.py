"""Rounds of faults on a cluster under load: members of Hostler and of etcd are killed, stopped, cut off, filled and
have their clocks set, one after the other; after each round all that was acknowledged must be there, once and whole."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, Final

import trio

from hostler.core.process.task_tree import task_tree
from hostler.core.rpc.client import open_client
from hostler.placement.types.errors import HostlerError

from .availability_load import Load
from .clock_steps import COMPILER, ClockLibrary, ClockSteps
from .cuts import Cut
from .etcd_servers import EtcdServers
from .free_ports import free_ports
from .service import kill_9, load_hosts, percentiles

QUOTA: Final = 32 << 20
PATIENCE: Final = 60.0
"""Seconds after which a cluster that does not go on is at fault."""
SILENCE: Final = 15.0
"""Seconds without an answer after which all processes say what they wait for."""
NAMES: Final = ("a", "b")
HOUR: Final = 3_600
JUMP: Final = "the clock jumped by"
"""What the log of a member says when it finds its clock set."""


class Member:
    """A member as a process, and the proxies between it, its clients and etcd."""

    def __init__(self, folder: Path, name: str, etcd: EtcdServers, lease: int, clock: ClockSteps | None) -> None:
        self.home, self.name, self.clock = folder / name, name, clock
        self.home.mkdir()
        ports = free_ports(1 + len(etcd.endpoints))
        targets = [("127.0.0.1", int(each.rpartition(":")[2])) for each in etcd.endpoints]
        self.to_etcd = [Cut(port, target) for port, target in zip(ports[1:], targets, strict=True)]
        self.to_clients = Cut(ports[0], f"{self.home}/rpc.sock")
        self.address = f"tcp:127.0.0.1:{ports[0]}"
        self.own_address = f"unix:{self.home}/rpc.sock"
        endpoints = json.dumps([f"http://127.0.0.1:{port}" for port in ports[1:]])
        (self.home / "config.toml").write_text(
            f'[data]\nstore = "etcd"\nsnapshot_every = 5000\n[data.etcd]\nendpoints = {endpoints}\n'
            f'[cluster]\nname = "{name}"\nadvertise = ["{self.address}"]\nlease_seconds = {lease}\n'
            f"compact_seconds = 5\ndigest_every = 1000\n"
        )
        self.process: Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it is there."""
        command = [str(Path(sys.executable).with_name("hostler")), "serve", "--rpc", self.own_address]
        command += ["--data", str(self.home / "data"), "--config", str(self.home / "config.toml")]
        env = {**os.environ, **(self.clock.env if self.clock is not None else {})}
        with (self.home / "log").open("ab") as log:
            self.process = Popen(command, stdout=PIPE, stderr=log, text=True, env=env)
        assert self.process.stdout is not None
        if not self.process.stdout.readline().startswith("ready"):
            raise SystemExit(f"member {self.name} does not start:\n{(self.home / 'log').read_text()[-3000:]}")

    def kill(self, *, with_children: bool = False) -> None:
        """kill -9, of its guardian too where the machine is to be dead."""
        assert self.process is not None
        kill_9(self.process, with_children=with_children)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def jumps(self) -> int:
        """How often it has found its clock set."""
        return (self.home / "log").read_text(errors="replace").count(JUMP)

    def last_words(self) -> str:
        """Whether it runs, and the end of its log."""
        code = None if self.process is None else self.process.poll()
        state = "runs" if code is None else f"has ended with {code}"
        return f"member {self.name} {state}: {(self.home / 'log').read_text(errors='replace')[-40_000:]}"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)


class Faults:
    """The cluster, its load, and the faults by name."""

    def __init__(self, members: Mapping[str, Member], etcd: EtcdServers, load: Load, lease: int, seed: int) -> None:
        self.members, self.etcd, self.load, self.lease = members, etcd, load, lease
        self.chance = random.Random(seed)
        self._seen, self._seen_at, self._told = -1, 0.0, False
        self.found: dict[str, list[float]] = {}
        """By fault, of each round: seconds between two answers at most."""
        self.kinds: dict[str, Callable[[Member], Awaitable[None]]] = {
            "kill -9 of the leader": self._kill,
            "kill -9 of the leader and its guardian": self._kill_both,
            "stopped longer than its lease": self._stop,
            "leader cut off from etcd": self._cut_from_etcd,
            "leader cut off from clients": self._cut_from_clients,
            "kill -9 of etcd's leader": self._kill_etcd,
            "etcd full": self._fill,
            "planned hand-over": self._hand_over,
            "slow way to etcd": self._delay,
            "way to etcd slower than the lease": self._delay_beyond_the_lease,
        }
        if next(iter(members.values())).clock is not None:
            self.kinds |= {"clock steps of one member": self._step_clock, "clocks apart": self._set_apart}

    def only(self, names: Sequence[str]) -> None:
        """Leave out all kinds but some. KeyError for one that there is not."""
        self.kinds = {name: self.kinds[name] for name in names}

    async def rounds(self, count: int, until: float, tell: Callable[[str], None]) -> int:
        """So many rounds, or those until a time of ``time.monotonic``; how many there were."""
        names = list(self.kinds)
        for number in range(count):
            if time.monotonic() > until:
                return number
            name = names[number % len(names)]
            leader = await self._leader()
            await self._all_alive(leader)
            self.load.start()
            before = self.load.operations
            await self._more(before, 30)
            self.load.longest = 0.0
            await self.kinds[name](leader)
            await self._more(self.load.operations, 50)
            self.found.setdefault(name, []).append(self.load.longest)
            await self.load.pause()
            await self._settled()
            await self.load.check([each.own_address for each in self.members.values()])
            tell(f"round {number + 1}: {name}: {self.load.longest:.2f} s without an answer")
            if self.load.violations:
                return number + 1
        return count

    # the faults

    async def _kill(self, leader: Member) -> None:
        await trio.to_thread.run_sync(leader.kill)
        await self._more(self.load.operations, 50)
        await trio.to_thread.run_sync(leader.start)

    async def _kill_both(self, leader: Member) -> None:
        await trio.to_thread.run_sync(partial(leader.kill, with_children=True))
        await self._more(self.load.operations, 50)
        await trio.to_thread.run_sync(leader.start)

    async def _stop(self, leader: Member) -> None:
        leader.signal(signal.SIGSTOP)
        await trio.sleep(self.lease * 1.5 + self.chance.random() * 3)
        leader.signal(signal.SIGCONT)

    async def _cut_from_etcd(self, leader: Member) -> None:
        for each in leader.to_etcd:
            each.sever()
        await trio.sleep(self.lease * 1.5 + self.chance.random() * 3)
        for each in leader.to_etcd:
            each.mend()

    async def _cut_from_clients(self, leader: Member) -> None:
        leader.to_clients.sever()
        await trio.sleep(1 + self.chance.random() * 3)
        async with open_client(leader.own_address, within=PATIENCE) as client:  # as operators do
            await client.call("lead")
        await self._more(self.load.operations, 50)
        leader.to_clients.mend()

    async def _kill_etcd(self, leader: Member) -> None:
        killed = await trio.to_thread.run_sync(self.etcd.leader)
        await trio.to_thread.run_sync(self.etcd.kill, killed)
        await self._more(self.load.operations, 50)
        await trio.to_thread.run_sync(self.etcd.start, killed)
        await trio.to_thread.run_sync(self.etcd.wait, killed)

    async def _fill(self, leader: Member) -> None:
        self.load.may_be_full = True
        await trio.to_thread.run_sync(fill, self.etcd)
        await trio.sleep(1 + self.chance.random())
        await trio.to_thread.run_sync(make_room, self.etcd)
        await self._more(self.load.operations, 50)
        self.load.may_be_full = False

    async def _hand_over(self, leader: Member) -> None:
        async with open_client(leader.address, within=PATIENCE) as client:
            await client.call("lead")

    async def _delay(self, leader: Member) -> None:
        """Each piece between the leader and etcd is late by less than what ends its lease."""
        await self._late(leader, self.lease / 20 + self.chance.random() * self.lease / 10)

    async def _delay_beyond_the_lease(self, leader: Member) -> None:
        """Each piece is late by more than a lease: another member leads."""
        await self._late(leader, self.lease * (1.2 + self.chance.random()))

    async def _late(self, leader: Member, seconds: float) -> None:
        for each in leader.to_etcd:
            each.delay = seconds
        await trio.sleep(self.lease * 2 + self.chance.random() * 3)
        for each in leader.to_etcd:
            each.delay = 0.0

    def _other(self, leader: Member) -> Member:
        return next(each for each in self.members.values() if each is not leader)

    async def _step_clock(self, leader: Member) -> None:
        """The clock of one running member alone is set, which it must notice."""
        one = self.chance.choice((leader, self._other(leader)))
        assert one.clock is not None
        before = one.jumps()
        for seconds in (HOUR, -2 * HOUR, HOUR):
            one.clock.step(seconds)
            await trio.sleep(0.5)
            await self._noticed(one, before)

    async def _noticed(self, member: Member, before: int) -> None:
        with trio.move_on_after(PATIENCE) as scope:
            while member.jumps() == before:  # noqa: ASYNC110  it is a file
                await trio.sleep(0.05)
        if scope.cancelled_caught:
            raise RuntimeError(f"the clock of member {member.name} was set, and it has not noticed")

    async def _set_apart(self, leader: Member) -> None:
        """A member starts with a clock that is set, and leads: the clocks differ by up to two hours from then on."""
        other = self._other(leader)
        assert other.clock is not None
        await trio.to_thread.run_sync(other.kill)
        other.clock.set(self.chance.choice((HOUR, -HOUR)))
        await trio.to_thread.run_sync(other.clock.check)
        await trio.to_thread.run_sync(other.start)
        await self._lead(other)
        await self._more(self.load.operations, 50)

    # waiting

    async def _more(self, before: int, count: int) -> None:
        """Wait until so many operations more have ended."""
        with trio.move_on_after(PATIENCE) as scope:
            while self.load.operations < before + count:
                await trio.sleep(0.01)
                self._tell_if_silent()
        if scope.cancelled_caught:
            raise trio.TooSlowError(f"calls under way: {self.load.under_way}")

    def _tell_if_silent(self) -> None:
        """Have the members' logs, and standard error, say what all wait for where no call was answered for long."""
        if self.load.operations != self._seen:
            self._seen, self._seen_at, self._told = self.load.operations, trio.current_time(), False
        elif not self._told and trio.current_time() - self._seen_at > SILENCE:
            self._told = True
            print(f"no answer for {SILENCE:g} s: {self.load.under_way}\n{task_tree()}", file=sys.stderr, flush=True)
            for each in self.members.values():
                each.signal(signal.SIGUSR1)

    async def _leader(self) -> Member:
        """The member that leads, once one does."""
        with trio.fail_after(PATIENCE):
            while True:
                for each in self.members.values():
                    try:
                        async with open_client(each.own_address, within=1.0) as client:
                            if (await client.call("status")).role == "leader":
                                return each
                    except HostlerError:
                        continue
                await trio.sleep(0.05)

    async def _lead(self, member: Member) -> None:
        """Hand the lead over to a member, once it is there."""
        with trio.fail_after(PATIENCE):
            while (leader := await self._leader()) is not member:
                try:
                    async with open_client(leader.own_address, within=PATIENCE) as client:
                        await client.call("lead", {"to": member.name})
                except HostlerError:  # it is not up to date yet
                    await trio.sleep(0.1)

    async def _all_alive(self, leader: Member) -> None:
        with trio.fail_after(PATIENCE):
            async with open_client(leader.own_address, within=PATIENCE) as client:
                while sum(line.alive for line in await client.call("members")) < len(self.members):  # noqa: ASYNC110
                    await trio.sleep(0.05)

    async def _settled(self) -> None:
        """Wait until all members have carried out the same."""
        with trio.fail_after(PATIENCE):
            while True:
                sequences = set()
                for each in self.members.values():
                    async with open_client(each.own_address, within=PATIENCE) as client:
                        sequences.add((await client.call("status")).sequence)
                if len(sequences) == 1:
                    return
                await trio.sleep(0.05)


def fill(etcd: EtcdServers) -> None:
    """Put keys until etcd has reached its quota."""
    value = b64encode(bytes(1 << 20)).decode()
    for number in range(2 * QUOTA >> 20):
        key = b64encode(b"fill%d" % number).decode()
        if "error" in etcd.ask("/v3/kv/put", {"key": key, "value": value}):
            return
    raise RuntimeError("etcd did not become full")


def make_room(etcd: EtcdServers) -> None:
    """What an operator does: delete, compact, defragment each member, disarm the alarms."""
    ends = {"key": b64encode(b"fill").decode(), "range_end": b64encode(b"film").decode()}
    header: Any = etcd.ask("/v3/kv/deleterange", ends)["header"]
    etcd.ask("/v3/kv/compaction", {"revision": header["revision"], "physical": True})
    for number in range(len(etcd.endpoints)):
        etcd.ask("/v3/maintenance/defragment", {}, number)
    alarms: Any = etcd.ask("/v3/maintenance/alarm", {"action": "GET"}).get("alarms", [])
    for alarm in alarms:
        etcd.ask("/v3/maintenance/alarm", {"action": "DEACTIVATE"} | alarm)


async def run_rounds(
    folder: Path,
    rounds: int,
    *,
    seed: int = 1,
    seconds: float = float("inf"),
    election_ms: int = 1_000,
    kinds: Sequence[str] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Rounds on a new cluster in a folder, of some kinds of faults (none: of all): what was found, as plain values;
    ``violations`` is empty if all held. RuntimeError where clocks cannot be set although there is a compiler."""
    lease = max(1, -(-election_ms * 3 // 2_000))
    (folder / "etcd").mkdir()
    with EtcdServers(folder / "etcd", election_ms=election_ms, quota=QUOTA) as etcd:
        library = ClockLibrary(folder) if COMPILER is not None else None
        clocks = {name: None if library is None else ClockSteps(library, folder / f"clock-{name}") for name in NAMES}
        members = {name: Member(folder, name, etcd, lease, clocks[name]) for name in NAMES}
        try:
            async with trio.open_nursery() as nursery:
                for each in members.values():
                    for proxy in (*each.to_etcd, each.to_clients):
                        await nursery.start(proxy.serve)
                for each in members.values():
                    await trio.to_thread.run_sync(each.start)
                load = Load([each.address for each in members.values()], seed)
                faults = Faults(members, etcd, load, lease, seed)
                if kinds:
                    faults.only(kinds)
                leader = await faults._leader()
                await trio.to_thread.run_sync(load_hosts, leader.own_address, 8)
                nursery.start_soon(load.run)
                try:
                    count = await faults.rounds(rounds, time.monotonic() + seconds, tell)
                except (HostlerError, trio.TooSlowError) as error:
                    count = sum(map(len, faults.found.values()))
                    load.violations.append(f"the cluster does not go on after round {count}: {error!r}")
                    load.violations += [each.last_words() for each in members.values()]
                nursery.cancel_scope.cancel()
        finally:
            for each in members.values():
                if each.process is not None and each.process.poll() is None:
                    each.signal(signal.SIGCONT)
                    each.kill()
    return {
        "rounds": count,
        "operations": load.operations,
        "violations": load.violations,
        "errors": len(load.errors),
        "first_errors": load.errors[:10],
        "left_out": [] if library is not None else ["clocks: there is no C compiler"],
        "without_an_answer": {name: percentiles(found) for name, found in faults.found.items()},
    }
