"""The file is written whole or not at all, and what the system refuses is told in its own words."""

import errno
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hostler.placement.persist import container as snapshot
from hostler.placement.types.errors import SnapshotError

OLD = {"a": np.arange(10)}
NEW = {"a": np.arange(300_000)}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A path in a folder in which, at the end, no other file is left."""
    folder = tmp_path / "folder"
    folder.mkdir()
    yield folder / "fleet.snapshot"
    assert [name for name in os.listdir(folder) if name.startswith(".snapshot")] == []


def holds(path: Path, arrays: dict[str, Any]) -> bool:
    back = snapshot.read(path)[1]
    return back.keys() == arrays.keys() and all(np.array_equal(back[name], arrays[name]) for name in arrays)


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    def call(*arguments: Any, **options: Any) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, name, call)


def test_a_snapshot_takes_the_place_of_the_one_before(path: Path) -> None:
    snapshot.write(path, {}, OLD)
    snapshot.write(path, {}, NEW)
    assert holds(path, NEW)


def test_str_and_path_are_paths(path: Path) -> None:
    snapshot.write(str(path), {}, OLD)
    assert snapshot.read(str(path))[1].keys() == OLD.keys()


def test_a_relative_path_is_one_from_here(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    snapshot.write("fleet.snapshot", {}, OLD)
    assert holds(path, OLD)


def test_an_interrupted_write_leaves_what_was_there(path: Path) -> None:
    snapshot.write(path, {}, OLD)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        snapshot.write(path, {}, NEW, progress=interrupt)
    assert holds(path, OLD)


def test_an_error_of_the_progress_callback_is_not_taken_for_one_of_the_file(path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        snapshot.write(path, {}, NEW, progress=fail)
    assert not path.exists()


def test_a_file_that_may_not_grow_leaves_what_was_there(path: Path) -> None:
    snapshot.write(path, {}, OLD)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(SnapshotError, match="File too large"):
            snapshot.write(path, {}, NEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert holds(path, OLD)


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        ("open", errno.EACCES, "Permission denied"),
        ("open", errno.EROFS, "Read-only file system"),
        ("stat", errno.EACCES, "Permission denied"),
        ("fchmod", errno.EPERM, "Operation not permitted"),
        ("fsync", errno.EIO, "Input/output error"),
        ("replace", errno.EACCES, "Permission denied"),
    ],
)
def test_what_the_system_refuses_is_told_in_its_words_and_leaves_what_was_there(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, says: str
) -> None:
    snapshot.write(path, {}, OLD)
    with monkeypatch.context() as patched:
        refuse(patched, call, code)
        with pytest.raises(SnapshotError, match=f"cannot write .*fleet.snapshot: {says}") as caught:
            snapshot.write(path, {}, NEW)
        assert caught.value.code == "snapshot"
    assert holds(path, OLD)


def test_a_file_that_may_not_be_read_is_told_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot.write(path, {}, OLD)
    refuse(monkeypatch, "open", errno.EACCES)
    with pytest.raises(SnapshotError, match=r"cannot read .*fleet.snapshot: Permission denied"):
        snapshot.read(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
def test_permissions_are_obeyed(path: Path) -> None:
    snapshot.write(path, {}, OLD)
    path.chmod(0)
    with pytest.raises(SnapshotError, match="Permission denied"):
        snapshot.read(path)
    path.parent.chmod(0o500)
    with pytest.raises(SnapshotError, match="Permission denied"):
        snapshot.write(path, {}, NEW)
    path.parent.chmod(0o700)


def test_a_missing_file_or_folder_is_told(path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"cannot read .*: No such file or directory"):
        snapshot.read(path)
    with pytest.raises(SnapshotError, match=r"cannot write .*: No such file or directory"):
        snapshot.write(path.parent / "missing" / "file", {}, OLD)


@pytest.mark.parametrize("kind", ["folder", "fifo", "device"])
def test_what_is_no_regular_file_is_neither_read_nor_replaced(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = Path("/dev/null")
    before = path.stat()
    with pytest.raises(SnapshotError, match=r"not a regular file|Is a directory"):
        snapshot.read(path)
    with pytest.raises(SnapshotError, match="not a regular file"):
        snapshot.write(path, {}, OLD)
    assert path.stat().st_ino == before.st_ino


def test_a_path_through_a_file_is_told(path: Path) -> None:
    snapshot.write(path, {}, OLD)
    with pytest.raises(SnapshotError, match="Not a directory"):
        snapshot.write(path / "below", {}, OLD)
    with pytest.raises(SnapshotError, match="Not a directory"):
        snapshot.read(path / "below")


@pytest.mark.parametrize("bad", ["a\0b", "x" * 300, "\ud800"])
def test_a_path_that_cannot_be_is_told(path: Path, bad: str) -> None:
    with pytest.raises(SnapshotError, match="cannot write"):
        snapshot.write(path.parent / bad, {}, OLD)
    with pytest.raises(SnapshotError, match="cannot read"):
        snapshot.read(path.parent / bad)


def test_a_symlink_is_followed_and_stays(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    snapshot.write(link, {}, OLD)
    snapshot.write(link, {}, NEW)
    assert link.is_symlink()
    assert holds(path, NEW)
    assert holds(link, NEW)


def test_a_circle_of_symlinks_is_told(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(SnapshotError, match="Too many levels of symbolic links"):
        snapshot.write(path, {}, OLD)
    with pytest.raises(SnapshotError, match="Too many levels of symbolic links"):
        snapshot.read(path)
    assert path.is_symlink()


def test_the_mode_of_the_file_before_is_kept(path: Path) -> None:
    snapshot.write(path, {}, OLD)
    path.chmod(0o640)
    snapshot.write(path, {}, NEW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_file_and_its_folder_are_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    original = os.fsync

    def fsync(handle: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        original(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    snapshot.write(path, {}, OLD)
    assert synced == [False, True]


def test_no_file_stays_open(path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    snapshot.write(path, {}, OLD)
    snapshot.read(path)
    path.write_bytes(b"x" * 100)
    with pytest.raises(SnapshotError):
        snapshot.read(path)
    with pytest.raises(SnapshotError):
        snapshot.write(path / "below", {}, OLD)
    assert len(os.listdir("/proc/self/fd")) == len(before)
