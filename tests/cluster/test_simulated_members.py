"""Three members of a cluster and a model of etcd in one process, on a simulated clock: members crash, are cut off from
etcd, answers are lost, etcd becomes full, and the lead is handed over, as a seed decides. What clients were told must
be what one machine would have answered, and all members must end with the same state."""

from __future__ import annotations

import math
import random
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
import trio
from trio.testing import MockClock

from hostler.bench.linearizability import NEVER, Operation, linearizable
from hostler.core.cluster import digests, lease, member
from hostler.core.cluster.member import Member
from hostler.core.cluster.options import ClusterOptions
from hostler.core.cluster.registration import Registration
from hostler.core.cluster.state_digest import state_digest
from hostler.core.engine_commands import AddHosts, Place, Release
from hostler.core.errors import LeadershipLost, NotLeader, StateUnknown, Stopped, StorageFailed
from hostler.core.etcd.client import Etcd
from hostler.core.etcd.values import delete, put
from hostler.core.failures import Failures
from hostler.core.journal import compression
from hostler.core.journal.etcd_journal import EtcdJournal
from hostler.core.journal.etcd_keys import MemberValue, encode
from hostler.core.journal.leadership import Leadership
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.tenancy.tenants import LOCAL
from hostler.core.writer.writer import Writer
from hostler.placement.types.errors import DuplicateName, HostlerError, UnknownName

from ..core.orders import NOW, asked, hosts, uuid_of
from ..core.simulation import same_every_time
from ..etcd.model import EtcdModel
from ..seeds import seeds

KEYS, CLIENTS, STEPS = 3, 3, 25
NAMES = ("a", "b", "c")
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


class HoldingEtcd(EtcdModel):
    """It keeps blocks of one member waiting, while ``held`` is there, and is ``slow`` with all that is written: leases
    are refreshed all the same."""

    def __init__(self) -> None:
        super().__init__(least_ttl=2)
        self.held: trio.Event | None = None
        self.slow = 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if b'"request_put"' in request.content:
            await trio.sleep(self.slow)
            if self.held is not None and b64encode(b"/s/blocks") in request.content and request.url.host == "a":
                await self.held.wait()
        return await super().handle_async_request(request)


class Life:
    """One life of one member."""

    def __init__(self, name: str, folder: Path, model: EtcdModel) -> None:
        self.name, self.machine, self.failures = name, ServiceMachine(), Failures()
        self.journal = EtcdJournal(Etcd([f"http://{name}"], transport=model), "/s/", folder)
        self.writer: Writer[Order, Any] = Writer(self.machine, self.journal, failures=self.failures)
        self.member: Member | None = None

    async def run(self) -> None:
        """Recover, then follow and lead until cancelled."""
        registration = Registration(self.journal, self.name, forget_seconds=600)
        options = ClusterOptions(digest_every=10, compact_seconds=5)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(registration.run)
                await self.writer.recover()
                made = Member(
                    registration, self.writer, self.machine, options, failures=self.failures, leading=_nothing
                )
                await nursery.start(self.writer.run)
                await self.writer.pause(made.refusal)
                self.member = made
                nursery.start_soon(made.run)
        finally:
            self.member = None
            with trio.CancelScope(shield=True):
                await self.journal.close()


def _placing(number: int) -> Order:
    return Order(NOW, LOCAL, Place(request=asked(number)))


async def _nothing() -> None:
    """What only a leader does."""


async def _digest_at_once(
    work: Callable[[], bytes], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> bytes:
    task_status.started()
    return work()


@contextmanager
def on_trio_s_clock() -> Iterator[None]:
    """Leases are judged by the simulated clock, and digests made without a child."""
    defaults = Leadership.__init__.__kwdefaults__
    assert defaults is not None
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(defaults, {"clock": trio.current_time}))
        for part in (member, lease):
            stack.enter_context(mock.patch.object(part, "since_boot", trio.current_time))
        stack.enter_context(mock.patch.object(digests, "in_child", _digest_at_once))
        yield


class World:
    """One simulated run."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance, self.folder = random.Random(seed), folder
        self.model = SlowEtcd(random.Random(seed + 1))
        self.lives: dict[str, Life] = {}
        self.history: dict[int, list[Operation]] = {key: [] for key in range(KEYS)}
        self.sequences: dict[int, tuple[str, str]] = {}
        self.calm = False
        self.crashes = 0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                (self.folder / name).mkdir()
                nursery.start_soon(self._live, name, random.Random(self.chance.random()))
            await self._insist(AddHosts(hosts=hosts(4)), "hosts")
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
        """A member, again and again: each life ends in a crash."""
        while True:
            seconds = math.inf if self.calm else chance.choice([3.0, 10.0, 40.0])
            life = self.lives[name] = Life(name, self.folder / name, self.model)
            with trio.move_on_after(seconds) as scope:
                life_scope = scope
                await life.run()
            assert life_scope.cancelled_caught, "a member ends by a crash only"
            self.crashes += 1
            await trio.sleep(chance.choice([0.1, 1.0, 5.0]))

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
                        with suppress(HostlerError), trio.move_on_after(2):
                            await life.member.hand_over(None)

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
                        pass
            await trio.sleep(0.05)

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

    async def _check(self) -> None:
        """Once all is well, all members come to the same state, which the history explains."""
        with trio.fail_after(300):
            while not self._agreed():  # noqa: ASYNC110  nothing tells when they do
                await trio.sleep(0.5)
        assert len({state_digest(life.machine.state) for life in self.lives.values()}) == 1
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
            same_every_time(seed),
            on_trio_s_clock(),
            mock.patch.object(compression, "LEAST", least),
            mock.patch.object(secrets, "token_urlsafe", return_value="s"),
        ):
            world = World(seed, folder)
            trio.run(world.run, clock=MockClock(autojump_threshold=0))
    except BaseException:
        print(f"seed {seed}")
        raise
    return world


@pytest.mark.parametrize("seed", seeds(2, "simulated members"))
def test_members_that_crash_and_are_cut_off_keep_their_word(seed: int, tmp_path: Path) -> None:
    simulate(seed, tmp_path / "world")


def test_a_leader_compresses_blocks_once_all_members_that_are_known_read_them(tmp_path: Path) -> None:
    async def lives() -> None:
        life = Life("a", tmp_path, SlowEtcd(random.Random(1)))
        older = life.journal.keys.members + "older"
        await life.journal.etcd.transaction((), [put(older, encode(MemberValue("older")))])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.run)
            await trio.sleep(60)
            assert life.writer.writable
            assert not life.journal.compress
            await life.journal.etcd.transaction((), [put(older, b"no entry")])
            await trio.sleep(10)
            assert life.writer.writable, "what cannot be read does not end the leader"
            assert life.failures.counts["cluster"]
            await life.journal.etcd.transaction((), [delete(older)])
            await trio.sleep(10)
            assert life.journal.compress
            nursery.cancel_scope.cancel()

    with same_every_time(1), on_trio_s_clock():
        trio.run(lives, clock=MockClock(autojump_threshold=0))


@asynccontextmanager
async def two_lives(folder: Path) -> AsyncIterator[tuple[HoldingEtcd, Life, Life]]:
    """etcd, a member that leads, with hosts, and one that follows."""
    model, lives = HoldingEtcd(), list[Life]()
    async with trio.open_nursery() as nursery:
        for name in "ab":
            (folder / name).mkdir()
            lives.append(Life(name, folder / name, model))
            nursery.start_soon(lives[-1].run)
            await trio.sleep(10)
        await lives[0].writer.submit(Order(NOW, LOCAL, AddHosts(hosts=hosts(4))))
        yield model, lives[0], lives[1]
        nursery.cancel_scope.cancel()


async def test_a_hand_over_that_is_given_up_leaves_the_leader_leading(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with same_every_time(1), on_trio_s_clock():
        async with two_lives(tmp_path) as (model, leader, follower):
            model.held = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leader.writer.submit, _placing(1))
                await trio.testing.wait_all_tasks_blocked()
                assert leader.member is not None
                with trio.move_on_after(0.1) as scope:
                    await leader.member.hand_over(None)
                assert scope.cancelled_caught
                model.held.set()
            assert (await leader.writer.submit(_placing(2))).placed
            assert leader.member.refusal().leader == ()
            assert await leader.member.hand_over(None) == "b"
            await trio.sleep(1)
            assert (await follower.writer.submit(_placing(3))).placed


async def test_a_full_etcd_is_no_time_to_hand_over_and_stops_no_member_from_ending(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with same_every_time(1), on_trio_s_clock():
        async with two_lives(tmp_path) as (model, leader, _):
            assert leader.member is not None
            model.full = True
            with pytest.raises(StorageFailed):
                await leader.writer.submit(_placing(1))
            with pytest.raises(StorageFailed, match="handed over"):
                await leader.member.hand_over("b")
            model.full = False
            await trio.sleep(1)
            assert (await leader.writer.submit(_placing(1))).placed
            model.full = True
            with trio.fail_after(30):
                await leader.member.leave()


async def test_writes_that_take_longer_than_an_attempt_are_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with same_every_time(1), on_trio_s_clock():
        async with two_lives(tmp_path) as (model, leader, _):
            model.slow = 1.6  # the first attempt has a second
            with trio.fail_after(30):
                for number in range(1, 4):
                    assert (await leader.writer.submit(_placing(number))).placed
            assert leader.member is not None
            assert leader.member.elections == 1


async def test_a_leader_whose_writes_alone_get_no_answer_lets_another_member_lead(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with same_every_time(1), on_trio_s_clock():
        async with two_lives(tmp_path) as (model, leader, follower):
            model.held = trio.Event()
            with pytest.raises(LeadershipLost), trio.fail_after(10):
                await leader.writer.submit(_placing(1))
            await trio.sleep(4)
            with trio.fail_after(1):
                assert (await follower.writer.submit(_placing(2))).placed
            model.held.set()
            await trio.sleep(20)
            assert follower.member is not None
            assert follower.member.role == "leader"
            assert leader.writer.sequence == follower.writer.sequence


async def test_a_member_ends_where_commands_that_it_has_not_carried_out_are_gone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def fall_behind() -> None:
        async with two_lives(tmp_path) as (model, leader, _):
            model.cut = {"b"}
            await leader.writer.submit(_placing(1))
            await leader.journal.drop(leader.writer.sequence)
            model.cut = set()
            await trio.sleep(30)

    with same_every_time(1), on_trio_s_clock(), pytest.raises(BaseExceptionGroup) as caught:
        await fall_behind()
    assert caught.group_contains(StateUnknown, match="etcd has no commands", depth=None)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(20))
def test_thousands_of_lives_of_members(block: int, tmp_path: Path) -> None:
    for seed in seeds(50, f"members {block}"):
        simulate(seed, tmp_path / str(seed))
