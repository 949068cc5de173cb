"""The journal's files: what a crash or a flipped bit leaves is found out and said, and all before it is kept."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from hostler.core.errors import DataDamaged, DataInUse, StorageFailed, UnreadableCommand
from hostler.core.journal import store
from hostler.core.journal.journal import Entry, Journal, Recovery
from hostler.core.journal.progress import FILE
from hostler.core.writer.writer import Writer, open_writer

from .ledgers import Ledger, Pay


async def fill(folder: Path, count: int, *, snapshots: Sequence[int] = (), keep_history: bool = False) -> None:
    """``count`` commands of one more each, with snapshots after some, and a clean end."""
    async with open_writer(Ledger(), Journal.in_folder(folder, keep_history=keep_history)) as writer:
        for number in range(1, count + 1):
            await writer.submit(Pay("a", 1))
            if number in snapshots:
                assert await writer.snapshot() == number


def paths(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


async def recovered(folder: Path, *more: int) -> tuple[Recovery, Ledger]:
    """What recovery finds, and the ledger after it and after ``more`` payments."""
    ledger, journal = Ledger(), Journal.in_folder(folder)
    writer = Writer(ledger, journal)
    try:
        found = await writer.recover()
        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run)
            for amount in more:
                await writer.submit(Pay("a", amount))
            writer.stop()
    finally:
        await journal.close()
    return found, ledger


def edit(folder: Path, statement: str) -> None:
    """Change the last segment behind the journal's back."""
    database = sqlite3.connect(max(folder.glob("journal-*.sqlite")))
    database.execute(statement)
    database.commit()
    database.close()


async def test_an_empty_folder_is_an_empty_journal(tmp_path: Path) -> None:
    found, _ = await recovered(tmp_path / "new" / "data")
    assert found == Recovery()


async def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    journal = Journal.in_folder(tmp_path)
    with pytest.raises(DataInUse):
        Journal.in_folder(tmp_path)
    await journal.close()
    await Journal.in_folder(tmp_path).close()


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StorageFailed, match="cannot be used"):
        Journal.in_folder(file / "data")


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        ("UPDATE blocks SET body = body || x'00' WHERE first = 8", 7),
        ("UPDATE blocks SET records = 2 WHERE first = 8", 7),
        ("UPDATE blocks SET records = 0 WHERE first = 8", 7),
        ("UPDATE blocks SET checksum = checksum + 1 WHERE first = 8", 7),
        ("DELETE FROM blocks WHERE first = 8", 7),
        ("DELETE FROM blocks WHERE first = 1", 0),
        ("DROP TABLE blocks", 0),
    ],
)
async def test_a_wrong_record_is_found_and_all_before_it_is_kept(tmp_path: Path, damage: str, kept: int) -> None:
    await fill(tmp_path, 10)
    edit(tmp_path, damage)
    found, ledger = await recovered(tmp_path, 1)
    assert found.last == kept
    assert any(f"kept all commands up to {kept}" in text for text in found.damage)
    assert ledger.accounts == {"a": kept + 1}
    assert any(name.startswith("damaged-") for name in os.listdir(tmp_path))
    found, ledger = await recovered(tmp_path)
    assert (found.last, found.damage, ledger.accounts) == (kept + 1, [], {"a": kept + 1})


async def test_flipped_bits_anywhere_in_the_file_are_found_or_harmless(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    await fill(original, 200)
    size = len((original / "journal-0000000000000001.sqlite").read_bytes())
    outcomes = set()
    for position in range(0, size, max(size // 40, 1)):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original, copy)
        flip(copy / "journal-0000000000000001.sqlite", position)
        found, ledger = await recovered(copy)
        assert ledger.accounts.get("a", 0) == found.last
        assert found.last == 200 or found.damage, f"byte {position}"
        outcomes.add(found.last)
    assert len(outcomes) > 5


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


async def test_a_lost_tail_behind_a_snapshot_does_not_matter(tmp_path: Path) -> None:
    await fill(tmp_path, 25, snapshots=(10, 20))
    edit(tmp_path, "DELETE FROM blocks")
    found, ledger = await recovered(tmp_path, 1, 1)
    assert found.last == 20
    assert ledger.accounts == {"a": 22}
    assert (await recovered(tmp_path))[1].accounts == {"a": 22}


@pytest.mark.parametrize("victim", ["ledger", "answers", "manifest.json"])
async def test_a_damaged_snapshot_gives_way_to_the_one_before_and_nothing_is_lost(tmp_path: Path, victim: str) -> None:
    await fill(tmp_path, 45, snapshots=(10, 20, 30, 40))
    flip(paths(tmp_path, "snapshot-*")[-1] / victim, 0)
    found, ledger = await recovered(tmp_path)
    assert (found.last, found.snapshot) == (45, 30)
    assert "snapshot-0000000000000040 is damaged" in found.damage[0]
    assert ledger.accounts == {"a": 45}


@pytest.mark.parametrize("damage", ["missing", "too many"])
async def test_a_snapshot_with_other_files_than_it_should_have_is_damaged(tmp_path: Path, damage: str) -> None:
    await fill(tmp_path, 45, snapshots=(10, 20, 30, 40))
    newest = paths(tmp_path, "snapshot-*")[-1]
    if damage == "missing":
        (newest / "ledger").unlink()
    else:
        (newest / "more").touch()
    found, ledger = await recovered(tmp_path)
    assert (found.snapshot, found.last, ledger.accounts) == (30, 45, {"a": 45})


async def test_without_anything_to_begin_with_the_journal_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    await fill(tmp_path, 45, snapshots=(10, 20, 30, 40))
    for snapshot in paths(tmp_path, "snapshot-*"):
        flip(snapshot / "ledger", 3)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(DataDamaged, match="lost"):
        await recovered(tmp_path)
    assert sorted(os.listdir(tmp_path)) == before


async def test_a_missing_segment_ends_what_can_be_kept(tmp_path: Path) -> None:
    await fill(tmp_path, 45, snapshots=(10, 20, 30, 40))
    flip(paths(tmp_path, "snapshot-*")[-1] / "ledger", 3)
    (tmp_path / f"journal-{31:016d}.sqlite").unlink()
    found, ledger = await recovered(tmp_path)
    assert found.last == 30
    assert "commands 31 to 40 are missing" in " ".join(found.damage)
    assert ledger.accounts == {"a": 30}


def leftovers(tmp_path: Path) -> list[str]:
    """Names of things that a crash may leave in the data folder, which are there now."""
    (tmp_path / "snapshot-0000000000000007.tmp-123").mkdir()
    (tmp_path / "snapshot-0000000000000007.tmp-123" / "ledger").touch()
    (tmp_path / "journal-0000000000000001.new").touch()
    return ["snapshot-0000000000000007.tmp-123", "journal-0000000000000001.new"]


async def test_what_a_crash_left_unfinished_is_cleared_away(tmp_path: Path) -> None:
    await recovered(tmp_path, 1)
    left = leftovers(tmp_path)
    found, ledger = await recovered(tmp_path, 1)
    assert found.damage == []
    assert ledger.accounts == {"a": 2}
    assert not set(left) & set(os.listdir(tmp_path))


async def test_history_is_kept_from_the_first_command_on_where_that_is_wanted(tmp_path: Path) -> None:
    await fill(tmp_path, 45, snapshots=(10, 20, 30, 40), keep_history=True)
    names = sorted(name for name in os.listdir(tmp_path) if name.startswith("journal-"))
    assert names[0] == "journal-0000000000000001.sqlite"
    assert len(names) == 5


# the write-ahead log, which is all that a killed process may have left


@pytest.fixture
async def killed(tmp_path: Path) -> Path:
    """A folder as it is while a daemon runs, with 200 commands of a transaction each in the write-ahead log."""
    running, copy = tmp_path / "running", tmp_path / "copy"
    async with open_writer(Ledger(), Journal.in_folder(running)) as writer:
        for _ in range(200):
            await writer.submit(Pay("a", 1))
        shutil.copytree(running, copy)
    assert len((copy / "journal-0000000000000001.sqlite-wal").read_bytes()) > 200 * 4096
    return copy


async def test_what_only_the_log_has_is_kept(killed: Path) -> None:
    found, ledger = await recovered(killed)
    assert (found.last, found.damage, ledger.accounts) == (200, [], {"a": 200})


async def test_a_flipped_bit_in_the_log_is_said_and_all_before_it_is_kept(killed: Path, tmp_path: Path) -> None:
    size = len((killed / "journal-0000000000000001.sqlite-wal").read_bytes())
    kept = set()
    for position in (8, 20, 40, 60, size // 3, size // 2, size - 4000, size - 10):
        folder = tmp_path / f"flip-{position}"
        shutil.copytree(killed, folder)
        flip(folder / "journal-0000000000000001.sqlite-wal", position)
        found, ledger = await recovered(folder, 1)
        assert found.last < 200
        assert any(f"kept all commands up to {found.last}" in text for text in found.damage), position
        assert ledger.accounts == {"a": found.last + 1}
        assert (await recovered(folder))[0].damage == []
        kept.add(found.last)
    assert len(kept) > 3


def cut_last_write(folder: Path) -> None:
    """Shorten the write-ahead log to the middle of its last transaction."""
    log = folder / "journal-0000000000000001.sqlite-wal"
    log.write_bytes(log.read_bytes()[:-3000])


async def test_a_log_that_was_cut_in_the_middle_of_a_write_is_a_crash_and_no_damage(killed: Path) -> None:
    cut_last_write(killed)
    with (killed / FILE).open("r+b") as mark:  # the process died before command 200 was known to be durable
        mark.seek(32)
        assert struct.unpack("<Q", mark.read(8)) == (200,)
        mark.seek(32)
        mark.write(struct.pack("<Q", 199))
    found, ledger = await recovered(killed)
    assert found.damage == []
    assert found.last == ledger.accounts["a"] == 199


async def test_an_acknowledged_command_that_the_log_lost_is_reported(killed: Path) -> None:
    cut_last_write(killed)
    found, ledger = await recovered(killed)
    assert found.damage == ["commands 200 to 200 were acknowledged and are not there"]
    assert found.last == ledger.accounts["a"] == 199


async def test_the_log_is_copied_into_its_file_while_it_grows_and_so_stays_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHECKPOINT_PAGES", 20)
    async with open_writer(Ledger(), Journal.in_folder(tmp_path)) as writer:
        for _ in range(400):
            await writer.submit(Pay("a", 1))
        assert (tmp_path / "journal-0000000000000001.sqlite-wal").stat().st_size < 200 * store.PAGE
    found, ledger = await recovered(tmp_path)
    assert (found.last, found.damage, ledger.accounts) == (400, [], {"a": 400})


async def test_a_journal_of_another_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    await fill(tmp_path, 10)
    edit(tmp_path, "PRAGMA user_version=1")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UnreadableCommand, match="has format 1, this Hostler reads 2"):
        await recovered(tmp_path)
    assert sorted(name for name in os.listdir(tmp_path) if not name.endswith(("-wal", "-shm"))) == before


async def test_a_disk_that_is_as_good_as_full_is_not_taken_for_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, real, free = Journal.in_folder(tmp_path), os.statvfs, [0]
    monkeypatch.setattr(
        os, "statvfs", lambda path: SimpleNamespace(f_frsize=real(path).f_frsize, f_bfree=free[0], f_bavail=free[0])
    )
    await journal.recover(lambda path: None, lambda records: None, lambda path: None)
    await journal.append([Entry(None, b"", b"one")])
    with pytest.raises(StorageFailed, match="0 bytes are free on the disk"):
        await journal.repair()
    free[0] = 1 << 20
    await journal.repair()
    assert await journal.append([Entry(None, b"", b"two")]) == 2
    await journal.close()
