"""Whatever fails beside the writer (snapshots, observers, callbacks, audit, logs) is counted, and ends no writer."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import aiosqlite
import msgspec
import pytest
import trio

from hostler.core import forks
from hostler.core.engine_commands import SetPolicy
from hostler.core.errors import StorageFailed
from hostler.core.failures import Failures
from hostler.core.journal import snapshots as snapshots_module
from hostler.core.journal.journal import Journal
from hostler.core.journal.snapshots import SnapshotFolder
from hostler.core.journal.store import SqliteStore
from hostler.core.process.audit import AuditLog, last_line
from hostler.core.process.logs import Lines
from hostler.core.writer.writer import Writer, open_writer

from ..patience import HANG_SECONDS
from .ledgers import Ledger, Pay
from .orders import order


@contextmanager
def failing(owner: Any, name: str, error: Exception, *, after: bool = False) -> Iterator[None]:
    """While it lasts, a function raises: instead of doing its work, or after having done it."""
    real = getattr(owner, name)

    def fails(*arguments: Any, **named: Any) -> Any:
        if after:
            real(*arguments, **named)
        raise error

    with mock.patch.object(owner, name, fails):
        yield


NO_THREADS = RuntimeError("can't start new thread")
NO_FILES, NO_MEMORY, BAD_DISK = (OSError(code, os.strerror(code)) for code in (errno.EMFILE, errno.ENOMEM, errno.EIO))
STEPS: dict[str, Callable[[], Any]] = {
    "no pipe": lambda: failing(os, "pipe", NO_FILES),
    "no child": lambda: failing(os, "fork", NO_MEMORY),
    "no list of snapshots": lambda: failing(SnapshotFolder, "known", StorageFailed("EIO")),
    "a list that fails otherwise": lambda: failing(SnapshotFolder, "known", MemoryError()),
    "no rename": lambda: failing(Path, "rename", BAD_DISK),
    "a rename whose error comes late": lambda: failing(Path, "rename", BAD_DISK, after=True),
    "no sync": lambda: failing(snapshots_module, "sync", BAD_DISK),
    "no waiting for the child": lambda: failing(forks, "_reap", RuntimeError("unexpected")),
    "no new segment": lambda: failing(SqliteStore, "_begin", BAD_DISK),
    "no new segment, for another reason": lambda: failing(SqliteStore, "_begin", ZeroDivisionError()),
    "a new segment that is not taken up": lambda: failing(SqliteStore, "_write_to", BAD_DISK),
    "no more threads": lambda: failing(threading.Thread, "start", NO_THREADS),
    "no memory before there is a child": lambda: failing(Journal, "snapshot", MemoryError()),
    "no deletion": lambda: failing(SnapshotFolder, "remove", StorageFailed("EIO")),
    "no deletion of segments": lambda: failing(SqliteStore, "remove", StorageFailed("EIO")),
    "no list of segments": lambda: failing(SqliteStore, "segments", MemoryError()),
}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("step", STEPS)
async def test_a_snapshot_that_fails_at_any_step_ends_no_writer_and_loses_nothing(step: str, tmp_path: Path) -> None:
    ledger = Ledger()
    async with open_writer(ledger, Journal.in_folder(tmp_path)) as writer:
        for number in range(3):
            await writer.submit(Pay("a", 1))
            assert await writer.snapshot() == number + 1  # so that there is something to delete
        await writer.submit(Pay("a", 1))
        before = descriptors()
        with STEPS[step](), trio.move_on_after(HANG_SECONDS) as limit:
            try:
                await writer.snapshot()
            except StorageFailed:
                assert writer.snapshots.failed == 1
            if "not taken up" not in step:  # then the segment before cannot be taken up either
                assert await writer.submit(Pay("a", 1)) == 5
            while not writer.failures.counts:  # noqa: ASYNC110  there is no event to wait for
                await trio.sleep(0.01)
        assert not limit.cancelled_caught
        with trio.fail_after(HANG_SECONDS):
            while not writer.writable:  # noqa: ASYNC110  there is no event to wait for
                await trio.sleep(0.05)
        assert await writer.submit(Pay("a", 6 - ledger.accounts["a"])) == 6
        assert descriptors() <= before + 3  # a segment more may be open: its file, its log and the log's index
        assert await writer.snapshot() == writer.sequence
        await writer.submit(Pay("a", 1))
    again = Ledger()
    async with open_writer(again, Journal.in_folder(tmp_path)) as writer:
        assert writer.recovered.damage == []
        assert again.accounts == {"a": 7}


@pytest.mark.parametrize("method", ["execute_insert", "execute", "executescript"])
async def test_a_disk_that_cannot_be_read_at_the_moment_ends_no_writer(method: str, tmp_path: Path) -> None:
    """SQLite says of it that the file is malformed, or no database."""
    async with open_writer(Ledger(), Journal.in_folder(tmp_path)) as writer:
        await writer.submit(Pay("a", 1))
        malformed = sqlite3.DatabaseError("database disk image is malformed")
        malformed.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        with failing(aiosqlite.Connection, method, malformed), suppress(StorageFailed):
            await writer.snapshot()
            await writer.submit(Pay("a", 1))
        with trio.fail_after(HANG_SECONDS):
            while not writer.writable:  # noqa: ASYNC110  there is no event to wait for
                await trio.sleep(0.05)
        balance = await writer.submit(Pay("a", 1))
    again = Ledger()
    async with open_writer(again, Journal.in_folder(tmp_path)) as writer:
        assert (writer.recovered.damage, again.accounts) == ([], {"a": balance})


async def test_a_snapshot_that_failed_is_tried_again_later_and_not_with_each_command(tmp_path: Path) -> None:
    async with open_writer(Ledger(), Journal.in_folder(tmp_path), snapshot_every=2) as writer:
        with failing(os, "fork", NO_MEMORY):
            for _ in range(6):
                await writer.submit(Pay("a", 1))
        assert writer.failures.counts["snapshot"] == 1
        assert writer._snapshotter is not None
        writer._snapshotter._not_before = 0.0
        await writer.submit(Pay("a", 1))
        with trio.fail_after(HANG_SECONDS):
            while not writer.snapshots.completed:  # noqa: ASYNC110  there is no event to wait for
                await trio.sleep(0.01)


async def test_an_observer_that_raises_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    seen = []
    async with open_writer(Ledger()) as writer:
        writer.observers += [broken, lambda sequence, *_: seen.append(sequence)]
        writer.batch_observers.append(broken)
        for number in range(3):
            assert await writer.submit(Pay("a", 1)) == number + 1
        assert writer.failures.counts == {"function": 6}
    assert seen == [1, 2, 3]
    assert len([each for each in caplog.records if "commands go on" in each.message]) == 1


async def test_a_caller_who_cannot_be_told_its_answer_ends_no_writer() -> None:
    def broken(_: Any) -> None:
        raise MemoryError

    async with open_writer(Ledger()) as writer:
        writer.enqueue(Pay("a", 1), broken)
        assert await writer.submit(Pay("a", 1)) == 2
        assert writer.failures.counts == {"answers": 1}


async def test_the_event_loop_goes_round_while_old_snapshots_are_deleted(tmp_path: Path) -> None:
    go_on, rounds = threading.Event(), 0
    real = SnapshotFolder.remove

    def slow(self: SnapshotFolder, sequence: int) -> None:
        assert go_on.wait(HANG_SECONDS)
        real(self, sequence)

    async with open_writer(Ledger(), Journal.in_folder(tmp_path)) as writer:
        with mock.patch.object(SnapshotFolder, "remove", slow):
            for number in range(3):
                await writer.submit(Pay("a", 1))
                assert await writer.snapshot() == number + 1
            for rounds in range(5):
                assert await writer.submit(Pay("a", 1)) == 4 + rounds
            go_on.set()


async def test_a_store_may_be_closed_twice(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.begin(1)
    await store.close()
    with trio.fail_after(HANG_SECONDS):
        await store.close()


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}


def test_all_files_of_the_journal_are_the_services_own(tmp_path: Path) -> None:
    async def write() -> None:
        async with open_writer(Ledger(), Journal.in_folder(tmp_path)) as writer:
            await writer.submit(Pay("a", 1))
            await writer.snapshot()
            await writer.submit(Pay("a", 1))
            modes.update(modes_in(tmp_path))

    modes: dict[str, int] = {}
    mask = os.umask(0)
    try:
        trio.run(write)
    finally:
        os.umask(mask)
    assert len(modes) >= 6
    assert set(modes.values()) == {0o600}


# audit


def audited(folder: Path, **options: Any) -> AuditLog:
    return AuditLog(folder, Failures(), **options)


def written(folder: Path) -> list[int]:
    return [
        msgspec.json.decode(line)["sequence"]
        for path in sorted(folder.glob("audit*.jsonl"), reverse=True)
        for line in path.read_bytes().splitlines()
    ]


def test_the_audit_log_begins_new_files_and_keeps_so_many(tmp_path: Path) -> None:
    log = audited(tmp_path, files=2, file_bytes=10)
    for number in range(1, 6):
        log(number, order(SetPolicy(policy={})), "digest")
        assert log.flush()
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.1.jsonl", "audit.2.jsonl"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert sorted(written(tmp_path)) == [4, 5]
    log.close()
    assert log.lost == 0


@pytest.mark.parametrize("late", [False, True])
def test_an_audit_log_whose_files_fail_loses_lines_counts_them_and_works_again(tmp_path: Path, late: bool) -> None:
    log = audited(tmp_path, file_bytes=10)
    log(1, order(SetPolicy(policy={})), "digest")
    assert log.flush()
    with failing(Path, "replace", NO_FILES) if late else failing(os, "open", NO_FILES):
        log(2, order(SetPolicy(policy={})), "digest")
        log(3, order(SetPolicy(policy={})), "digest")
        assert log.flush()
    assert (log.lost > 0) is True
    assert log._failures.counts["audit"] >= 1
    log(4, order(SetPolicy(policy={})), "digest")
    assert log.flush()
    log.close()
    assert 4 in written(tmp_path)


def test_an_audit_log_on_a_disk_that_hangs_delays_nobody(tmp_path: Path) -> None:
    go_on = threading.Event()
    with mock.patch.object(AuditLog, "_write", side_effect=lambda *_: go_on.wait(HANG_SECONDS)):
        log = audited(tmp_path)
        with mock.patch("hostler.core.process.audit.QUEUE_LINES", 10):
            for number in range(1, 31):
                log(number, order(SetPolicy(policy={})), "digest")
            assert not log.flush(0.2)
            assert log.lost > 0
        log.close(0.1)
        go_on.set()


def test_after_logrotate_has_moved_it_the_audit_log_is_opened_by_its_name(tmp_path: Path) -> None:
    log = audited(tmp_path)
    log(1, order(SetPolicy(policy={})), "digest")
    assert log.flush()
    (tmp_path / "audit.jsonl").rename(tmp_path / "audit.old")
    log.reopen()
    assert log.flush()
    log(2, order(SetPolicy(policy={})), "digest")
    log.close()
    assert written(tmp_path) == [2]


def test_a_line_that_was_cut_off_is_closed_and_the_last_whole_one_found(tmp_path: Path) -> None:
    log = audited(tmp_path)
    for number in (1, 2):
        log(number, order(SetPolicy(policy={})), "digest")
    log.close()
    path = tmp_path / "audit.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert last_line(path) == 1
    again = audited(tmp_path)
    for number in (1, 2):
        again(number, order(SetPolicy(policy={})), "digest")
    again.close()
    whole = [line for line in path.read_bytes().splitlines() if line.endswith(b"}")]
    assert [msgspec.json.decode(line)["sequence"] for line in whole] == [1, 2]


# logs


def test_a_log_that_nobody_reads_delays_nobody() -> None:
    go_on, said = threading.Event(), []

    class Stuck(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            go_on.wait(HANG_SECONDS)
            said.append(record.getMessage())
            return True

    lines = Lines(Stuck())
    with mock.patch("hostler.core.process.logs.QUEUE_LINES", 5):
        for number in range(20):
            lines.emit(logging.LogRecord("x", logging.INFO, "", 0, "line %d", (number,), None))
    assert lines.lost >= 14
    go_on.set()
    lines.drain()
    assert said[0] == "line 0"
    assert len(said) + lines.lost == 20


def test_a_part_that_fails_is_logged_once_until_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures()
    for _ in range(3):
        failures.failed("audit", NO_FILES)
    failures.works("audit")
    failures.works("audit")
    failures.failed("audit", NO_FILES)
    assert failures.counts == {"audit": 4}
    assert [each.levelname for each in caplog.records] == ["ERROR", "WARNING", "ERROR"]


async def test_a_task_beside_the_writer_that_fails_is_started_again(autojump_clock: trio.testing.MockClock) -> None:
    failures, runs = Failures(), []

    async def work() -> None:
        runs.append(trio.current_time())
        if len(runs) < 3:
            raise ZeroDivisionError

    await failures.keep_running("watchers", work)
    assert len(runs) == 3
    assert failures.counts == {"watchers": 2}


def test_the_writer_is_generic() -> None:
    assert Writer(Ledger()).failures.counts == {}
