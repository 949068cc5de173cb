"""Members of a cluster and a model of etcd in one process, on a simulated clock: whole lives, as a seed decides, and
single cases."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
import trio
from trio.testing import MockClock

from hostler.core.cluster import digests, member
from hostler.core.cluster.digests import REST_SECONDS
from hostler.core.cluster.state_digest import state_digest
from hostler.core.engine_commands import AddHosts, Place
from hostler.core.errors import LeadershipLost, StateUnknown, StorageFailed
from hostler.core.etcd.values import delete, put
from hostler.core.journal.etcd_keys import MemberValue, encode
from hostler.core.machine.orders import RULES, Order
from hostler.core.tenancy.tenants import LOCAL

from ..core.orders import NOW, asked, hosts
from ..core.simulation import same_every_time
from ..etcd.model import EtcdModel
from ..seeds import seeds
from .simulated_world import Life, SlowEtcd, on_trio_s_clock, simulate
from .slow_children import told_after


class HoldingEtcd(EtcdModel):
    """It keeps blocks of one member waiting, while ``held`` is there, is ``slow`` with all that is written, and
    ``late`` to answer what one member has written: leases are refreshed all the same."""

    def __init__(self) -> None:
        super().__init__(least_ttl=2)
        self.held: trio.Event | None = None
        self.slow = self.late = 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if b'"request_put"' in request.content:
            await trio.sleep(self.slow)
            if self.held is not None and b64encode(b"/s/blocks") in request.content and request.url.host == "a":
                await self.held.wait()
        answer = await super().handle_async_request(request)
        if b'"request_put"' in request.content and request.url.host == "a":
            await trio.sleep(self.late)
        return answer


def _placing(number: int) -> Order:
    return Order(NOW, LOCAL, Place(request=asked(number)))


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


async def test_a_follower_ends_at_a_command_of_newer_rules_than_it_knows(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def lead_with_newer_rules() -> None:
        async with two_lives(tmp_path) as (_, leader, _follower):
            await leader.writer.submit(msgspec.structs.replace(_placing(1), rules=RULES + 1))
            await trio.sleep(30)

    with same_every_time(1), on_trio_s_clock(), pytest.raises(BaseExceptionGroup) as caught:
        await lead_with_newer_rules()
    assert caught.group_contains(StateUnknown, match=f"rules {RULES + 1}, this Hostler reads up to {RULES}", depth=None)


async def test_a_leader_that_hands_over_does_not_say_that_it_is_up_to_date(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with same_every_time(1), on_trio_s_clock():
        async with two_lives(tmp_path) as (model, leader, follower):
            model.late = 0.5  # the other one leads before the answer is there
            assert leader.member is not None
            assert follower.member is not None
            seen = list[float]()

            async def watch() -> None:
                while leader.member.role == "leader":  # type: ignore[union-attr]
                    if follower.writer.writable:
                        seen.append(leader.member.age or 0.0)  # type: ignore[union-attr]
                    await trio.sleep(0.01)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                assert await leader.member.hand_over("b") == "b"
            assert seen
            assert min(seen) > 0
            assert (leader.member.age or 0.0) < 2


async def test_a_member_that_cannot_start_for_want_of_etcd_says_so_now_and_then(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    model = SlowEtcd(random.Random(1))
    model.cut = {"a"}
    with same_every_time(1), on_trio_s_clock(), trio.move_on_after(25):
        await Life("a", tmp_path, model).run()
    told = [line for line in caplog.messages if "waits for etcd" in line and "no answer of etcd at http://a" in line]
    assert 1 < len(told) < 5


async def test_a_member_without_etcd_does_not_say_that_another_one_leads(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with same_every_time(1), on_trio_s_clock():
        async with two_lives(tmp_path) as (model, _, follower):
            assert follower.member is not None
            assert "a leads" in str(follower.member.refusal())
            model.cut = {"a", "b"}
            await trio.sleep(9)
            assert "etcd has not answered this member for 9 s: a at a led then" in str(follower.member.refusal())


async def test_a_member_that_could_not_recover_takes_a_snapshot(tmp_path: Path, autojump_clock: MockClock) -> None:
    with same_every_time(1), on_trio_s_clock():
        async with two_lives(tmp_path) as (_, leader, follower):
            await follower.writer.snapshot()
            await leader.writer.submit(_placing(1))
            await trio.sleep(1)
            await leader.journal.drop(leader.writer.sequence)
            assert follower.member is not None
            assert (await follower.member.snapshot_files()).sequence == leader.writer.sequence
            await leader.writer.submit(_placing(2))
            await trio.sleep(1)
            await leader.journal.drop(leader.writer.sequence)
            await trio.sleep(member.RECOVERABLE_SECONDS)
            assert follower.journal.newest_snapshot == leader.writer.sequence


async def test_a_difference_behind_the_last_command_is_found_at_rest(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def differ() -> None:
        async with two_lives(tmp_path) as (_, leader, follower):
            assert leader.writer.sequence < 10, "no digest is due by the number of commands"
            await trio.sleep(2)
            assert follower.writer.sequence == leader.writer.sequence
            follower.machine.apply_batch([_placing(1)])
            await trio.sleep(2 * REST_SECONDS)

    with same_every_time(1), on_trio_s_clock(), pytest.raises(BaseExceptionGroup) as caught:
        await differ()
    assert caught.group_contains(StateUnknown, match="differs from the leader's", depth=None)


async def test_digests_are_compared_where_they_fall_due_faster_than_they_are_made(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([7.0, 16.0] * 100)  # mostly of the leader and the follower in turn; one is due each 5 s
    with same_every_time(1), on_trio_s_clock():
        monkeypatch.setattr(digests, "in_child", told_after(lambda: next(seconds)))
        async with two_lives(tmp_path) as (_, leader, follower):
            for number in range(170):
                await leader.writer.submit(_placing(number))
                await trio.sleep(0.5)
            assert follower.member is not None
            assert follower.member.compared >= 2
            assert follower.member.differences == 0
            await trio.sleep(30)
            assert leader.writer.sequence == follower.writer.sequence
            assert state_digest(leader.machine.state) == state_digest(follower.machine.state)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(20))
def test_thousands_of_lives_of_members(block: int, tmp_path: Path) -> None:
    for seed in seeds(50, f"members {block}"):
        simulate(seed, tmp_path / str(seed))
