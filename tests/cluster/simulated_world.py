"""Three members of a cluster and a model of etcd in one process, on a simulated clock: members crash, stop in order,
are away for long, are cut off from etcd, answers are lost, etcd becomes full, blocks are dropped, snapshots fetched,
and the lead is handed over, as a seed decides. What clients were told must be what one machine would have
answered, what a member answers must be as new as it says, one member leads at a time, and all must end with the same
state."""

from __future__ import annotations

import math
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import trio
from trio.testing import MockClock

from hostler.bench.linearizability import NEVER, Operation, linearizable
from hostler.core.cluster import digests, lease, member, registration
from hostler.core.cluster.member import Member
from hostler.core.cluster.options import ClusterOptions
from hostler.core.cluster.registration import Registration
from hostler.core.cluster.state_digest import state_digest
from hostler.core.engine_commands import AddHosts, Place, Release
from hostler.core.errors import LeadershipLost, NotLeader, Stopped, StorageFailed
from hostler.core.etcd.client import Etcd
from hostler.core.failures import Failures
from hostler.core.journal import compression, etcd_journal, snapshots
from hostler.core.journal.etcd_journal import EtcdJournal
from hostler.core.journal.leadership import Leadership
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.tenancy.tenants import LOCAL
from hostler.core.writer.writer import Writer
from hostler.placement.types.errors import DuplicateName, HostlerError, UnknownName

from ..core.orders import NOW, asked, hosts, uuid_of
from ..core.simulation import same_every_time
from ..etcd.model import EtcdModel
from .slow_children import told_after

KEYS, CLIENTS, STEPS = 3, 3, 25
NAMES = ("a", "b", "c")
SNAPSHOT_EVERY, FORGET_SECONDS = 15, 20
GONE = (NotLeader, LeadershipLost, Stopped, StorageFailed)


class SlowEtcd(EtcdModel):
    """It takes its time, of which the seed decides: ``slow`` seconds more for what is written, and for ever for what
    ``mute`` members write."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(least_ttl=2)
        self.chance = chance
        self.slow, self.mute = 0.0, set[str]()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.sleep(self.chance.choice([0.001, 0.002, 0.05]))
        if (self.slow or self.mute) and b'"request_put"' in request.content:
            await trio.sleep(self.slow)
            while request.url.host in self.mute:  # noqa: ASYNC110  nothing tells of the end
                await trio.sleep(0.1)
        answer = await super().handle_async_request(request)
        await trio.sleep(self.chance.choice([0.0, 0.001, 0.2]))
        return answer


class Life:
    """One life of one member. ``seconds``: until it stops in order."""

    def __init__(
        self, name: str, folder: Path, model: EtcdModel, *, snapshot_every: int = 500_000, seconds: float = math.inf
    ) -> None:
        self.name, self.machine, self.failures = name, ServiceMachine(), Failures()
        self.journal = EtcdJournal(Etcd([f"http://{name}"], transport=model), "/s/", folder)
        self.writer: Writer[Order, Any] = Writer(
            self.machine, self.journal, snapshot_every=snapshot_every, failures=self.failures
        )
        self.member: Member | None = None
        self._seconds = seconds

    async def run(self) -> None:
        """Recover, then follow and lead until it is cancelled, or stops."""
        entry = Registration(self.journal, self.name, (self.name,), forget_seconds=FORGET_SECONDS)
        self.journal.fetch = entry.fetch
        options = ClusterOptions(digest_every=10, compact_seconds=5)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(entry.run)
                await self.writer.recover()
                made = Member(entry, self.writer, self.machine, options, failures=self.failures, leading=_nothing)
                await nursery.start(self.writer.run)
                await self.writer.pause(made.refusal)
                self.member = made
                nursery.start_soon(made.run)
                await trio.sleep(self._seconds)
                await made.leave()
                self.writer.stop()
                await made.resign()
                nursery.cancel_scope.cancel()
        finally:
            self.member = None
            with trio.CancelScope(shield=True):
                await self.journal.close()


async def _nothing() -> None:
    """What only a leader does."""


async def _at_once(
    work: Callable[[], bytes], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> bytes:
    task_status.started()
    return work()


async def _in_no_thread(work: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return work(*arguments)


@contextmanager
def on_trio_s_clock() -> Iterator[None]:
    """Leases are judged by the simulated clock, and digests and snapshots made without a child."""
    defaults = Leadership.__init__.__kwdefaults__
    assert defaults is not None
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(defaults, {"clock": trio.current_time}))
        for part in (member, lease):
            stack.enter_context(mock.patch.object(part, "since_boot", trio.current_time))
        for made in (digests, snapshots):
            stack.enter_context(mock.patch.object(made, "in_child", _at_once))
        stack.enter_context(mock.patch.object(trio.to_thread, "run_sync", _in_no_thread))
        stack.enter_context(mock.patch.object(os, "fsync"))
        yield


class _Calls:
    """Calls at a member of a world."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name

    async def call(self, method: str, params: Any = None, **_: Any) -> Any:
        made = self._world.lives[self._name].member
        await trio.sleep(self._world.chance.choice([0.001, 0.01, 0.3]))
        if made is None or self._world.chance.random() < 0.05:
            raise StorageFailed("the member does not answer")
        if method == "snapshot_files":
            self._world.fetched += 1
            return await made.snapshot_files()
        return await made.snapshot_part(**params)


class World:
    """One simulated run."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance, self.folder = random.Random(seed), folder
        self.model = SlowEtcd(random.Random(seed + 1))
        self.lives: dict[str, Life] = {}
        self.history: dict[int, list[Operation]] = {key: [] for key in range(KEYS)}
        self.sequences: dict[int, tuple[str, str]] = {}
        self.calm = False
        self.crashes = self.stops = self.fetched = 0
        self.acknowledged: list[tuple[float, int]] = []
        """When, and the last command that had been carried out then by the member that answered."""

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                (self.folder / name).mkdir()
                nursery.start_soon(self._live, name, random.Random(self.chance.random()))
            await self._insist(AddHosts(hosts=hosts(4)), "hosts")
            nursery.start_soon(self._watch)
            async with trio.open_nursery() as busy:
                troubles = busy.cancel_scope
                busy.start_soon(self._trouble)
                async with trio.open_nursery() as clients:
                    for number in range(CLIENTS):
                        clients.start_soon(self._client, number, random.Random(self.chance.random()))
                troubles.cancel()
            self.calm = True
            self.model.cut, self.model.full, self.model.lose_answer = set(), False, lambda path: False
            self.model.slow, self.model.mute = 0.0, set()
            await self._check()
            nursery.cancel_scope.cancel()

    async def _live(self, name: str, chance: random.Random) -> None:
        """A member, again and again: each life ends in a crash, or in order."""
        while True:
            seconds, stops = chance.choice([3.0, 10.0, 40.0]), chance.random() < 0.3
            if self.calm:
                seconds = math.inf
            life = self.lives[name] = Life(
                name,
                self.folder / name,
                self.model,
                snapshot_every=SNAPSHOT_EVERY,
                seconds=seconds if stops else math.inf,
            )
            with trio.move_on_after(seconds + 30 * stops) as scope:
                life_scope = scope
                await life.run()
            assert life_scope.cancelled_caught or stops, "a member ends by a crash only"
            self.crashes += life_scope.cancelled_caught
            self.stops += not life_scope.cancelled_caught
            away = chance.choice([0.1, 1.0, 5.0, 2 * FORGET_SECONDS])
            await trio.sleep(min(away, 5.0) if self.calm else away)

    async def _watch(self) -> None:
        """All the time: one member leads at most, and what a member says of its age is true."""
        while True:
            await trio.sleep(0.05)
            now, members = trio.current_time(), [life for life in self.lives.values() if life.member is not None]
            ages = {life.name: life.member.age for life in members if life.member is not None}
            assert sum(age == 0.0 for age in ages.values()) <= 1, f"two lead: {ages}"
            for life in members:
                age = ages[life.name]
                due = [last for at, last in self.acknowledged if age is not None and at <= now - age]
                assert not due or life.writer.sequence >= due[-1], f"{life.name} is older than {age} s"

    @asynccontextmanager
    async def client_of(self, address: str, **_: Any) -> AsyncIterator[Any]:
        """What a member calls another one by, for its snapshots."""
        yield _Calls(self, address)

    async def _trouble(self) -> None:
        while True:
            await trio.sleep(self.chance.uniform(0.5, 6))
            self.model.cut = {name for name in NAMES if self.chance.random() < 0.2}
            self.model.full = self.chance.random() < 0.1
            part = self.chance.choice([0.0, 0.0, 0.05, 0.3])
            self.model.slow = self.chance.choice([0.0, 0.0, 0.0, 1.3])
            self.model.mute = {name for name in NAMES if self.chance.random() < 0.05}
            self.model.lose_answer = lambda path, part=part: self.chance.random() < part  # type: ignore[misc]  # a default
            if self.chance.random() < 0.3:
                for life in self.lives.values():
                    if life.member is not None and life.member.role == "leader":
                        to = self.chance.choice([None, *NAMES])
                        with suppress(HostlerError), trio.move_on_after(2):
                            await life.member.hand_over(to)

    async def _insist(self, command: Any, key: str) -> Any:
        """Have a command carried out by whichever member takes it, as clients do."""
        while True:
            for life in [*self.lives.values()]:
                if life.member is None or not life.writer.writable:
                    continue
                with trio.move_on_after(3):
                    try:
                        return await life.writer.submit(Order(NOW, LOCAL, command), key=key, fingerprint=b"1")
                    except GONE:
                        continue
                    finally:
                        self._note(life)
            await trio.sleep(0.05)

    def _note(self, life: Life) -> None:
        """All that a member has carried out is in the journal by now."""
        last = max(life.writer.sequence, self.acknowledged[-1][1] if self.acknowledged else 0)
        self.acknowledged.append((trio.current_time(), last))

    async def _client(self, number: int, chance: random.Random) -> None:
        for step in range(STEPS):
            key, name = chance.randrange(KEYS), f"{number}/{step}"
            began = trio.current_time()
            if chance.random() < 0.25:
                there = self._read(key)
                if there is not None:
                    self.history[key].append(Operation("read", began, trio.current_time(), there))
            elif chance.random() < 0.5:
                command: Any = Place(request=asked(key + 1, project="p"))
                done = await self._outcome(command, name)
                self.history[key].append(Operation("create", began, trio.current_time(), done))
            else:
                done = await self._outcome(Release(uuids=(uuid_of(key + 1),)), name)
                self.history[key].append(Operation("remove", began, trio.current_time(), done))
            await trio.sleep(chance.uniform(0, 1))

    async def _outcome(self, command: Any, name: str) -> bool:
        try:
            answer = await self._insist(command, name)
        except (DuplicateName, UnknownName):
            return False
        if isinstance(command, Place):
            assert answer.placed
            host = answer.selections[0].host
            assert self.sequences.setdefault(answer.sequence, (name, host)) == (name, host), "decided twice"
        return True

    def _read(self, key: int) -> bool | None:
        """Whether a key is there, as a leader answers that may not be overtaken; None if no member is one."""
        for life in self.lives.values():
            if life.member is not None and life.member.age == 0.0:
                return _is_there(life.machine, key)
        return None

    def _agreed(self) -> bool:
        """True if all members are there, and have carried out as many commands."""
        alive = [life for life in self.lives.values() if life.member is not None]
        return len(alive) == len(NAMES) and len({life.writer.sequence for life in alive}) == 1

    def _compared(self) -> bool:
        """True if all members that follow have compared a digest in this life."""
        members = [life.member for life in self.lives.values() if life.member is not None]
        followers = [each for each in members if each.role == "follower"]
        return len(followers) == len(NAMES) - 1 and all(each.compared for each in followers)

    async def _check(self) -> None:
        """Once all is well, all members come to the same state, which the history explains."""
        with trio.fail_after(300):
            while not self._agreed():  # noqa: ASYNC110  nothing tells when they do
                await trio.sleep(0.5)
        assert len({state_digest(life.machine.state) for life in self.lives.values()}) == 1
        with trio.fail_after(300):
            while not self._compared():  # noqa: ASYNC110  nothing tells when they have
                await trio.sleep(0.5)
        first = next(iter(self.lives.values()))
        first.machine.state.fleet.check()
        now = trio.current_time()
        for key, history in self.history.items():
            there = _is_there(first.machine, key)
            assert linearizable([*history, Operation("read", now, now, there)]), history
            assert all(each.ended < NEVER for each in history)


def _is_there(machine: ServiceMachine, key: int) -> bool:
    return machine.state.projects_of([uuid_of(key + 1)]) != [None]


def simulate(seed: int, folder: Path) -> World:
    """One world from its beginning to its end."""
    folder.mkdir()
    try:
        least = 0 if seed % 2 else compression.LEAST  # of one seed in two all blocks are compressed
        with (
            ExitStack() as patched,
            same_every_time(seed),
            on_trio_s_clock(),
            mock.patch.object(compression, "LEAST", least),
            mock.patch.object(etcd_journal, "PART", 300 if seed % 3 == 0 else etcd_journal.PART),
            mock.patch.object(secrets, "token_urlsafe", return_value="s"),
        ):
            world = World(seed, folder)
            patched.enter_context(mock.patch.object(registration, "open_client", world.client_of))
            patched.enter_context(
                mock.patch.object(digests, "in_child", told_after(partial(world.model.chance.choice, [0.0, 0.1, 8.0])))
            )
            trio.run(world.run, clock=MockClock(autojump_threshold=0))
    except BaseException:
        print(f"seed {seed}")
        raise
    return world
