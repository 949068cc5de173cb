"""A rolling upgrade of three members from the code of one tree to that of another, under load: first the followers, one
after the other, then the leader, which hands over. After each step all that was acknowledged must be there, once and
whole, at all members."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from subprocess import PIPE, Popen, run
from typing import Any, Final

import httpx
import trio
from prometheus_client.parser import text_string_to_metric_families

from hostler.core.rpc.client import open_client
from hostler.placement.types.errors import HostlerError

from .availability_load import Load
from .etcd_servers import EtcdServers
from .service import load_hosts

NAMES: Final = ("a", "b", "c")
PATIENCE: Final = 120.0
"""Seconds for a member to be up with the others, and for digests to be compared."""
OPERATIONS: Final = 400
"""Calls between two steps, at least."""
REVISION: Final = "import hostler.core.machine.orders as orders; print(orders.RULES)"


class Member:
    """A member as a process of the code of one tree or of the other."""

    def __init__(self, folder: Path, name: str, etcd: EtcdServers) -> None:
        self.home, self.name = folder / name, name
        self.home.mkdir()
        self.address = f"unix:{self.home}/rpc.sock"
        (self.home / "config.toml").write_text(
            f'[data]\nstore = "etcd"\nsnapshot_every = 2000\n[data.etcd]\nendpoints = {json.dumps(etcd.endpoints)}\n'
            f'[cluster]\nname = "{name}"\ncompact_seconds = 5\ndigest_every = 200\n'
        )
        self.process: Popen[str] | None = None

    def start(self, tree: Path | None) -> None:
        """Start it, with the code of a tree or with this one's, and wait until it is there."""
        command = [sys.executable, "-m", "hostler", "serve", "--rpc", self.address, "--http", "127.0.0.1:0"]
        command += ["--data", str(self.home / "data"), "--config", str(self.home / "config.toml")]
        with (self.home / "log").open("ab") as log:
            self.process = Popen(command, stdout=PIPE, stderr=log, text=True, env=environment(tree))
        assert self.process.stdout is not None
        if not self.process.stdout.readline().startswith("ready"):
            raise SystemExit(f"member {self.name} does not start:\n{self.log()[-3000:]}")

    def log(self) -> str:
        """All that it has logged."""
        return (self.home / "log").read_text(errors="replace")

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def measured(self, name: str) -> float:
        """One of its metrics without labels."""
        base = re.findall(r"readiness at (http://[^\s\"]+)", self.log())[-1]
        families = text_string_to_metric_families(httpx.get(f"{base}/metrics").text)
        return sum(each.value for family in families for each in family.samples if each.name == name)


def environment(tree: Path | None) -> dict[str, str]:
    """That of a process with the code of a tree, or with this one's."""
    return dict(os.environ) if tree is None else {**os.environ, "PYTHONPATH": str(tree / "src")}


def rules_of(tree: Path | None) -> int:
    """The revision of the rules of a tree's code. SystemExit where it does not run."""
    found = run([sys.executable, "-c", REVISION], env=environment(tree), capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(f"the code in {tree} does not run: {found.stderr[-2000:]}")
    return int(found.stdout)


class Upgrade:
    """The cluster, its load, and what was found."""

    def __init__(self, members: Mapping[str, Member], load: Load, tell: Callable[[str], None]) -> None:
        self.members, self.load, self._tell = members, load, tell
        self.longest: dict[str, float] = {}
        """By step, seconds between two answers at most."""

    async def roll(self, start: Callable[[Member], None]) -> None:
        """Upgrade all members, the leader last, by what starts the newer code."""
        leader = await self._leader()
        for each in (*(each for each in self.members.values() if each is not leader), leader):
            step = f"{'leader' if each is leader else 'follower'} {each.name}"
            self.load.start()
            await self._more(OPERATIONS)
            self.load.longest = 0.0
            if code := await trio.to_thread.run_sync(each.stop):
                self.load.violations.append(f"{step} ended with {code}: {each.log()[-3000:]}")
            await trio.to_thread.run_sync(start, each)
            await self._all_alive()
            await self._more(OPERATIONS)
            self.longest[step] = round(self.load.longest, 3)
            await self.check(step)
            if each is not leader and (compared := each.measured("hostler_cluster_digests_compared_total")):
                self.load.violations.append(f"{step} compared {compared:g} digests with another version's")

    async def check(self, step: str) -> None:
        """Compare all members with what was acknowledged, with nothing under way."""
        await self.load.pause()
        with trio.fail_after(PATIENCE):
            while len({await self._status(each, "sequence") for each in self.members.values()}) > 1:  # noqa: ASYNC110
                await trio.sleep(0.1)
        await self.load.check([each.address for each in self.members.values()])
        self._tell(f"{step}: {self.load.operations} operations, {len(self.load.violations)} violations")

    async def compared(self) -> dict[str, float]:
        """How many digests each follower has compared, once each has some: a cluster at rest compares them."""
        leader = await self._leader()
        others = [each for each in self.members.values() if each is not leader]
        with trio.move_on_after(PATIENCE):
            while not all(each.measured("hostler_cluster_digests_compared_total") for each in others):  # noqa: ASYNC110
                await trio.sleep(1)
        return {each.name: each.measured("hostler_cluster_digests_compared_total") for each in others}

    async def _more(self, count: int) -> None:
        before = self.load.operations
        with trio.fail_after(PATIENCE):
            while self.load.operations < before + count:  # noqa: ASYNC110
                await trio.sleep(0.05)

    async def _status(self, member: Member, field: str) -> Any:
        async with open_client(member.address, within=PATIENCE) as client:
            return getattr(await client.call("status"), field)

    async def _leader(self) -> Member:
        with trio.fail_after(PATIENCE):
            while True:
                for each in self.members.values():
                    if await self._status(each, "role") == "leader":
                        return each
                await trio.sleep(0.05)

    async def _all_alive(self) -> None:
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    async with open_client([each.address for each in self.members.values()]) as client:
                        if sum(line.alive for line in await client.call("members")) == len(self.members):
                            return
                except HostlerError:
                    pass
                await trio.sleep(0.1)


async def run_upgrade(
    folder: Path, etcd: EtcdServers, older: Path, seed: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """A rolling upgrade from the code of a tree to this one's: what was found, as plain values; ``violations`` is empty
    if all held."""
    members = {name: Member(folder, name, etcd) for name in NAMES}
    load = Load([each.address for each in members.values()], seed)
    try:
        for each in members.values():
            await trio.to_thread.run_sync(each.start, older)
        upgrade = Upgrade(members, load, tell)
        await trio.to_thread.run_sync(load_hosts, (await upgrade._leader()).address, 8)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            await upgrade.roll(lambda each: each.start(None))
            nursery.cancel_scope.cancel()
        compared = await upgrade.compared()
        differences = {each.name: each.measured("hostler_cluster_differences") for each in members.values()}
    finally:
        for each in members.values():
            if each.process is not None and each.process.poll() is None:
                each.process.kill()
                each.process.wait()
    return {
        "older_rules": rules_of(older),
        "newer": f"{version('hostler')}, rules {rules_of(None)}",
        "operations": load.operations,
        "violations": load.violations,
        "errors": len(load.errors),
        "first_errors": load.errors[:10],
        "longest_without_an_answer_s": upgrade.longest,
        "digests_compared_afterwards": compared,
        "differences": differences,
    }
