"""The journal in etcd, on the model of etcd: blocks longer than a request, answers that are lost, a deposed writer, and
readers that ask for less at a time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from hostler.core.cluster.registration import Registration
from hostler.core.errors import DataDamaged, LeadershipLost, StorageFailed
from hostler.core.etcd.client import Etcd
from hostler.core.etcd.values import created_at, delete, put
from hostler.core.journal.compression import ASIDE, LEAST, compressed, restored
from hostler.core.journal.etcd_journal import PART, EtcdJournal
from hostler.core.journal.journal import Entry, Record, unpack
from hostler.core.journal.leadership import Leadership, since_boot
from hostler.core.journal.snapshots import write_folder

from .model import EtcdModel


class Member:
    """A journal with what it has read."""

    def __init__(self, model: EtcdModel, folder: Path) -> None:
        self.journal = EtcdJournal.in_folder(folder, Etcd(["http://a"], transport=model), "/j/")
        self.records: list[bytes] = []

    async def recover(self) -> None:
        await self.journal.recover(lambda folder: None, self._replay, lambda folder: None)

    def _replay(self, records: object) -> None:
        assert isinstance(records, list)
        self.records += [each.body for each in records if isinstance(each, Record)]

    async def follow(self) -> None:
        tail = await self.journal.tail()
        while tail.blocks:
            self.records += [record.body for block in tail.blocks for record in unpack(block)]
            self.journal.took(tail.blocks)
            tail = await self.journal.tail()

    async def lead(self, seconds: float = 60.0) -> Leadership:
        """Be elected, as a member is."""
        journal, keys = self.journal, self.journal.keys
        tail = await journal.tail()
        lease, _ = await journal.etcd.grant(60)
        answer = await journal.etcd.transaction([created_at(keys.leader, 0)], [put(keys.leader, b"", lease)])
        assert answer.succeeded
        leadership = Leadership(answer.revision, lease, since_boot() + seconds)
        journal.lead(leadership, tail)
        return leadership

    async def append(self, *bodies: bytes) -> int:
        return await self.journal.append([Entry(None, b"", body) for body in bodies])


@pytest.fixture
async def model() -> EtcdModel:
    return EtcdModel()


@pytest.fixture
async def pair(model: EtcdModel, tmp_path: Path) -> AsyncIterator[tuple[Member, Member]]:
    """One that leads, and one that follows."""
    first, second = Member(model, tmp_path / "a"), Member(model, tmp_path / "b")
    try:
        await first.recover()
        await second.recover()
        await first.lead()
        yield first, second
    finally:
        await first.journal.close()
        await second.journal.close()


@pytest.mark.parametrize("compress", [False, True])
async def test_a_block_longer_than_a_request_is_written_in_parts_and_read_whole(
    compress: bool, model: EtcdModel, pair: tuple[Member, Member]
) -> None:
    leader, follower = pair
    leader.journal.compress = compress
    body = random.Random(1).randbytes(2 * PART) + bytes(2 * PART)  # half of it can be compressed
    await leader.append(b"before")
    await leader.append(body, b"with it")
    await follower.follow()
    assert follower.records == [b"before", body, b"with it"]
    parts = [key for key in model.keys if key.startswith(b"/j/parts/")]
    assert len(parts) == (2 if compress else 4)


async def test_like_commands_take_little_of_etcd_where_blocks_are_compressed(
    model: EtcdModel, pair: tuple[Member, Member]
) -> None:
    leader, follower = pair
    await leader.append(*[b"a command like the others" * 10] * 1_000)
    plain = max(map(len, (item.value for item in model.keys.values())))
    leader.journal.compress = True
    await leader.append(*[b"a command like the others" * 10] * 1_000)
    (block,) = (item for key, item in model.keys.items() if key == leader.journal.keys.block(1_001).encode())
    assert len(block.value) < plain / 50
    await follower.follow()
    assert follower.records == [b"a command like the others" * 10] * 2_000


async def test_a_block_that_compression_does_not_shorten_is_written_as_it_is(pair: tuple[Member, Member]) -> None:
    leader, follower = pair
    leader.journal.compress = True
    bodies = [b"short", random.Random(2).randbytes(ASIDE), b""]
    for body in bodies:
        await leader.append(body)
    await follower.follow()
    assert follower.records == bodies


@pytest.mark.parametrize("size", [LEAST, ASIDE])
async def test_what_is_not_what_was_compressed_is_damage(size: int) -> None:
    body = bytes(size)
    short = await compressed(body)
    assert short is not None
    assert await restored(short, size, "key") == body
    for damaged, length in (
        (short, size - 1),
        (short, size + 1),
        (short[:-1], size),
        (short + b"x", size),
        (b"x" + short, size),
        (b"", size),
    ):
        with pytest.raises(DataDamaged, match="key in etcd cannot be read"):
            await restored(damaged, length, "key")


async def test_a_member_that_leads_anew_asks_first_what_the_others_read(pair: tuple[Member, Member]) -> None:
    leader, _ = pair
    leader.journal.compress = True
    leader.journal.stop_leading()
    await leader.journal.etcd.transaction((), [delete(leader.journal.keys.leader)])
    await leader.lead()
    assert not leader.journal.compress


async def test_a_block_whose_answer_was_lost_is_written_once(
    model: EtcdModel, pair: tuple[Member, Member], caplog: pytest.LogCaptureFixture
) -> None:
    leader, follower = pair
    lost = iter([True, True, False])
    model.lose_answer = lambda path: path == "/v3/kv/txn" and next(lost, False)
    assert await leader.append(b"once") == 1
    assert await leader.append(b"next") == 2
    await follower.follow()
    assert follower.records == [b"once", b"next"]
    assert caplog.text.count("a block is sent again") == 1, "said once, not each time"


async def test_a_deposed_leader_writes_nothing_whatever_it_believes(pair: tuple[Member, Member]) -> None:
    old, new = pair
    await old.append(b"of the old")
    await new.follow()
    assert old.journal.leadership is not None
    await new.journal.etcd.revoke(old.journal.leadership.lease)
    await new.lead()
    with pytest.raises(LeadershipLost):
        await old.append(b"too late")
    await new.append(b"of the new")
    old.journal.stop_leading()
    await old.follow()
    assert new.records == [b"of the old"]
    assert old.records == [b"of the new"]


async def test_a_leader_whose_lease_has_ended_sends_nothing(model: EtcdModel, pair: tuple[Member, Member]) -> None:
    leader, _ = pair
    leader.journal.stop_leading()
    await leader.journal.etcd.revoke(7_001)
    await leader.lead(seconds=0.0)
    sent = len(model.requests)
    with pytest.raises(LeadershipLost):
        await leader.append(b"late")
    assert len(model.requests) == sent


async def test_a_full_etcd_refuses_the_block_and_takes_the_next_after_a_repair(
    model: EtcdModel, pair: tuple[Member, Member]
) -> None:
    leader, follower = pair
    model.full = True
    with pytest.raises(StorageFailed):
        await leader.append(b"refused")
    with pytest.raises(StorageFailed):
        await leader.journal.repair()
    model.full = False
    await leader.journal.repair()
    assert await leader.append(b"taken") == 1
    await follower.follow()
    assert follower.records == [b"taken"]


class Slow(EtcdModel):
    """It gives no answer in time that has many keys in it."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        if request.url.path == "/v3/kv/txn" and (await answer.aread()).count(b'"key"') > 8:
            raise httpx.ReadTimeout("that is too much")
        return answer


async def test_a_reader_asks_for_fewer_blocks_where_the_answer_does_not_come_in_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    model = Slow()
    leader, follower = Member(model, tmp_path / "a"), Member(model, tmp_path / "b")
    try:
        await leader.recover()
        await leader.lead()
        for number in range(40):
            await leader.append(b"%d" % number)
        await follower.recover()
        assert follower.records == [b"%d" % number for number in range(40)]
    finally:
        await leader.journal.close()
        await follower.journal.close()


async def test_a_folder_whose_disk_takes_no_file_does_not_join_and_joins_later(
    model: EtcdModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Member(model, tmp_path / "a")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    try:
        with monkeypatch.context() as broken:
            broken.setattr(Path, "rename", full)
            with pytest.raises(StorageFailed, match="No space left"):
                await member.recover()
            assert not (tmp_path / "a" / "cluster").exists()
        await member.recover()
        assert (tmp_path / "a" / "cluster").read_text() == f"{member.journal.cluster.name}\n"
    finally:
        await member.journal.close()


async def test_a_member_s_entry_outlasts_an_etcd_that_takes_no_values(
    model: EtcdModel, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    member = Member(model, tmp_path / "a")
    await member.recover()
    registration = Registration(member.journal, "a", forget_seconds=10)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(registration.run)
            model.full = True
            registration.addresses = ("tcp:127.0.0.1:1",)  # which it cannot tell now
            await trio.sleep(60)
            assert await member.journal.etcd.read("/j/members/a") is not None
            nursery.cancel_scope.cancel()
    finally:
        await member.journal.close()


async def test_a_snapshot_that_is_intact_and_cannot_be_read_leaves_nothing_of_itself(
    pair: tuple[Member, Member], tmp_path: Path
) -> None:
    leader, follower = pair
    await leader.append(b"one", b"two")
    loaded: list[Path] = []

    def load(folder: Path) -> None:
        loaded.append(folder)
        raise DataDamaged("a part of it is loaded", field="data")

    write_folder(follower.journal.snapshots.path(2), 2, lambda folder: None)
    with pytest.raises(DataDamaged, match="damaged-1-snapshot") as caught:
        await follower.journal.recover(load, follower._replay, lambda folder: None)
    assert "start again" in (caught.value.hint or "")
    assert len(loaded) == 1
    assert follower.records == [], "nothing is replayed on what may be half of a state"
    await follower.recover()
    assert follower.records == [b"one", b"two"]
