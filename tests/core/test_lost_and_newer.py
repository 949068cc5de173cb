"""What was acknowledged and is not there is said; what a newer Hostler wrote is refused and left as it is; what a crash
leaves lying about goes; and a backup of a running service is a data folder."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

import msgspec
import pytest
import trio

from hostler.core.errors import DataDamaged, StorageFailed, UnreadableCommand
from hostler.core.journal import snapshots
from hostler.core.journal.journal import Journal
from hostler.core.journal.progress import UnderWay
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import RULES
from hostler.core.machine.state import FORMAT
from hostler.core.writer.writer import Writer, open_writer
from hostler.placement.types.errors import InvalidValue

from .ledgers import Ledger, Pay
from .orders import order, place

# loss


async def fill(folder: Path, count: int, *, snapshot_at: int = 0) -> None:
    """So many commands, and a death right behind the last: nothing is copied out of the write-ahead log."""
    async with open_writer(Ledger(), Journal.in_folder(folder)) as writer:
        for number in range(1, count + 1):
            await writer.submit(Pay("a", 1))
            if number == snapshot_at:
                await writer.snapshot()


def delete(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()


async def recovered(folder: Path) -> tuple[list[str], int]:
    """What is said to be damaged, and the balance."""
    ledger = Ledger()
    async with open_writer(ledger, Journal.in_folder(folder)) as writer:
        return writer.recovered.damage, ledger.accounts.get("a", 0)


async def test_a_last_segment_that_is_gone_is_missed(tmp_path: Path) -> None:
    await fill(tmp_path, 30, snapshot_at=20)
    delete(tmp_path, "journal-0000000000000021.sqlite*")
    damage, balance = await recovered(tmp_path)
    assert damage == ["commands 21 to 30 were acknowledged and are not there"]
    assert balance == 20
    assert await recovered(tmp_path) == ([], 20)  # said once; what came after it is the truth


async def test_a_last_segment_of_which_the_log_alone_is_left_does_not_come_back(tmp_path: Path) -> None:
    before, folder = tmp_path / "before", tmp_path / "after"
    async with open_writer(Ledger(), Journal.in_folder(before)) as writer:
        for number in range(1, 31):
            await writer.submit(Pay("a", 1))
            if number == 20:
                await writer.snapshot()
        shutil.copytree(before, folder)  # as a death of the process leaves it
    delete(folder, "journal-0000000000000021.sqlite")
    async with open_writer(Ledger(), Journal.in_folder(folder)) as writer:
        assert writer.recovered.damage == ["commands 21 to 30 were acknowledged and are not there"]
        await writer.snapshot()
        for amount in (100, 1_000):
            await writer.submit(Pay("a", amount))
    assert await recovered(folder) == ([], 1_120)
    assert (folder / "damaged-1-journal-0000000000000021.sqlite-wal").stat().st_size > 0


@pytest.mark.parametrize("what", ["wal", "shm", "journal"])
async def test_what_a_segment_that_was_not_begun_has_left_is_not_taken_up(tmp_path: Path, what: str) -> None:
    async with open_writer(Ledger(), Journal.in_folder(tmp_path)) as writer:
        await writer.submit(Pay("a", 1))
        (tmp_path / f"journal-0000000000000002.sqlite-{what}").write_bytes(b"\xff" * 4_096)
        await writer.snapshot()
        await writer.submit(Pay("a", 1))
    assert await recovered(tmp_path) == ([], 2)


async def test_the_whole_journal_and_its_snapshots_gone_are_missed(tmp_path: Path) -> None:
    await fill(tmp_path, 5)
    delete(tmp_path, "journal-*")
    assert (await recovered(tmp_path))[0] == ["commands 1 to 5 were acknowledged and are not there"]


async def test_a_folder_without_the_record_is_taken_as_it_is(tmp_path: Path) -> None:
    await fill(tmp_path, 5)
    (tmp_path / "under-way").unlink()
    assert await recovered(tmp_path) == ([], 5)


def test_the_record_outlives_the_process_and_can_be_synced(tmp_path: Path) -> None:
    record = UnderWay(tmp_path)
    record.durable(42)
    record.sync()
    record.close()
    record.sync()  # a second late
    assert UnderWay(tmp_path).found_durable == 42


def test_other_threads_go_on_while_the_record_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, synced, fdatasync = UnderWay(tmp_path), list[bytes](), os.fdatasync

    def sync(handle: int) -> None:  # a call of os lets go of the interpreter's lock, one of mmap does not
        record.durable(7)
        fdatasync(handle)
        synced.append(os.pread(handle, 1_000, 0))

    monkeypatch.setattr(os, "fdatasync", sync)
    record.sync()
    assert [data.endswith((7).to_bytes(8, "little")) for data in synced] == [True]
    record.close()


# formats


def rewrite(snapshot: Path, **changes: int) -> None:
    """Change a snapshot's manifest, and its checksum."""
    manifest = json.loads((snapshot / "manifest.json").read_bytes()[9:-1]) | changes
    content = json.dumps(manifest, sort_keys=True)
    (snapshot / "manifest.json").write_text(f"{zlib.crc32(content.encode()):08x} {content}\n")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("lock", "under-way") and not path.name.endswith(("-wal", "-shm"))
    }


async def refused(folder: Path, machine: object = None) -> str:
    """What a start on the folder is refused with."""
    journal = Journal.in_folder(folder)
    try:
        with pytest.raises(UnreadableCommand) as error:
            await Writer(machine or Ledger(), journal).recover()  # type: ignore[arg-type]
    finally:
        await journal.close()
    return str(error.value)


async def test_a_snapshot_of_a_newer_format_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    await fill(tmp_path, 30, snapshot_at=20)
    rewrite(tmp_path / "snapshot-0000000000000020", format=snapshots.FORMAT + 1)
    before = contents(tmp_path)
    assert "has format 2, this Hostler reads up to 1" in await refused(tmp_path)
    assert contents(tmp_path) == before


async def with_state(folder: Path, **changed: object) -> None:
    """A journal of one command with a snapshot, in whose state values are replaced."""
    async with open_writer(ServiceMachine(), Journal.in_folder(folder)) as writer:
        await writer.submit(order(place(1)))
        await writer.snapshot()
    snapshot = folder / "snapshot-0000000000000001"
    state = msgspec.msgpack.decode((snapshot / "state").read_bytes())
    (snapshot / "state").write_bytes(msgspec.msgpack.encode(state | changed))
    files = {path.name: path.read_bytes() for path in snapshot.iterdir() if path.name != "manifest.json"}
    rewrite(snapshot, files={name: [len(data), zlib.crc32(data)] for name, data in files.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize("changed", [{"format": FORMAT + 1, "usage": "new"}, {"rules": RULES + 1, "usage": "new"}])
async def test_a_newer_state_is_refused_and_nothing_is_touched(changed: dict[str, object], tmp_path: Path) -> None:
    await with_state(tmp_path, **changed)
    before = contents(tmp_path)
    (name,) = changed.keys() - {"usage"}
    assert f"has {name} {changed[name]}, this Hostler reads up to" in await refused(tmp_path, ServiceMachine())
    assert contents(tmp_path) == before


async def test_a_command_under_newer_rules_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    async with open_writer(ServiceMachine(), Journal.in_folder(tmp_path)) as writer:
        await writer.submit(msgspec.structs.replace(order(place(1)), rules=RULES + 1))
    before = contents(tmp_path)
    assert f"commands of rules {RULES + 1}, this Hostler reads up to" in await refused(tmp_path, ServiceMachine())
    assert contents(tmp_path) == before


# what lies about


async def test_what_a_crash_has_left_lying_about_goes(tmp_path: Path) -> None:
    await fill(tmp_path, 3)
    begun = [f"journal-0000000000000009.{what}" for what in ("new", "sqlite-shm", "sqlite-journal")]
    strays = [*begun, "snapshot-0000000000000003.tmp-77"]
    for name in strays:
        (tmp_path / name).mkdir() if "snapshot" in name else (tmp_path / name).write_bytes(b"x")
    (tmp_path / "somebodys.txt").write_text("not ours")
    assert await recovered(tmp_path) == ([], 3)
    names = set(os.listdir(tmp_path))
    assert names.isdisjoint(strays)
    assert "somebodys.txt" in names


# backups


async def test_a_backup_of_a_running_service_is_a_data_folder_of_that_moment(tmp_path: Path) -> None:
    async with open_writer(Ledger(), Journal.in_folder(tmp_path / "data")) as writer:
        for number in range(5):
            await writer.submit(Pay("a", 1), key=f"k{number}")
        assert await writer.backup(tmp_path / "backup") == 5
        await writer.submit(Pay("a", 100))
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "backup").rglob("*") if path.is_file()} == {0o600}
    again = Ledger()
    async with open_writer(again, Journal.in_folder(tmp_path / "backup")) as writer:
        assert (again.accounts, writer.sequence, writer.recovered.damage) == ({"a": 5}, 5, [])
        assert await writer.submit(Pay("a", 1), key="k3") == 4
        assert await writer.submit(Pay("a", 1)) == 6
    assert await recovered(tmp_path / "backup") == ([], 6)


async def test_a_backup_goes_into_a_new_folder_only(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("x")
    (tmp_path / "file").write_text("x")
    async with open_writer(Ledger(), Journal.in_folder(tmp_path / "data")) as writer:
        await writer.submit(Pay("a", 1))
        with pytest.raises(InvalidValue, match="not empty"):
            await writer.backup(tmp_path / "full")
        with pytest.raises(InvalidValue, match="absolute"):
            await writer.backup(Path("backup"))
        with pytest.raises(InvalidValue, match="absolute"):
            await writer.backup(Path("/back\0up"))
        with pytest.raises(StorageFailed):
            await writer.backup(tmp_path / "file" / "backup")
        assert await writer.submit(Pay("a", 1)) == 2
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["something"]
    async with open_writer(Ledger()) as writer:
        with pytest.raises(StorageFailed):
            await writer.backup(tmp_path / "backup")
    await trio.lowlevel.checkpoint()


async def test_of_two_backups_into_one_folder_one_succeeds(tmp_path: Path) -> None:
    outcomes = list[int | InvalidValue]()

    async def back_up(writer: Writer[Pay, int]) -> None:
        try:
            outcomes.append(await writer.backup(tmp_path / "backup"))
        except InvalidValue as refusal:
            outcomes.append(refusal)

    async with open_writer(Ledger(), Journal.in_folder(tmp_path / "data")) as writer:
        await writer.submit(Pay("a", 7))
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(back_up, writer)
    assert sorted(isinstance(each, int) for each in outcomes) == [False, True]
    assert await recovered(tmp_path / "backup") == ([], 7)


async def test_the_begin_of_a_copy_is_no_data_folder(tmp_path: Path) -> None:
    half = tmp_path / "half" / "snapshot-0000000000000007.tmp-123"
    half.mkdir(parents=True)
    (half / "state").write_bytes(b"x")
    for _ in range(2):  # it is left as it is, and not locked
        with pytest.raises(DataDamaged, match="begin of a copy"):
            Journal.in_folder(tmp_path / "half")
    assert (half / "state").exists()
    await fill(tmp_path / "data", 3)
    (tmp_path / "data" / half.name).mkdir()
    assert await recovered(tmp_path / "data") == ([], 3)
