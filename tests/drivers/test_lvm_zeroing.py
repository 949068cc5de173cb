"""A logical volume shows a tenant nothing of what its extents held before. On a stand-in for lvm, which every machine
has; with device-mapper test_lvm does the same on real ones."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.drivers.conformance import StorageBench, StorageConformance
from hostler.drivers.conformance.bench import OURS
from hostler.drivers.protocol import Conflict, DriverContext, Transient, Volume
from hostler.drivers.storage import lvm, zeroing
from hostler.drivers.storage.lvm import LvmDriver, open_driver

from ..patience import HANG_SECONDS

STAND_IN = Path(__file__).with_name("lvm_stand_in.py")
GIB = 2**30


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    program = tmp_path / "lvm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {STAND_IN} "$@"\n')
    program.chmod(0o755)
    return {"pools": {"fast": "group"}, "system_dir": str(tmp_path), "lvm": str(program)}


@asynccontextmanager
async def opened(options: dict[str, Any]) -> AsyncIterator[LvmDriver]:
    async with open_driver(options, DriverContext("disks", OURS)) as driver:
        yield driver


def bench_of(options: dict[str, Any]) -> StorageBench:
    return StorageBench(open=lambda context: open_driver(options, context), pool="fast", page=3)


def holds(options: dict[str, Any], volume: Volume, start: int = 0) -> bool:
    """True if there is anything but zeros in a volume from an offset on. What the file has as holes is zero."""
    with (Path(options["system_dir"]) / volume.name).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for place in (start, start + 4096, (start + size) // 2, size - 4096):
            file.seek(place)
            if file.read(4096).strip(b"\0"):
                return True
    return False


def holes(device: Any, start: int, end: int) -> None:
    """Zero a range of a file as a device with a command for it does, without writing a GiB."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.fallocate(device._file, 0x3, ctypes.c_long(start), ctypes.c_long(end - start))
    if done:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.mark.soak
class TestLvmStoresOnAStandIn(StorageConformance):
    """All of the suite, by some hundred calls of the program a test."""

    @pytest.fixture
    def bench(self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> StorageBench:
        monkeypatch.setattr(zeroing._Device, "_write", holes)
        return bench_of(options)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeroing._Device, "_write", holes)


async def test_a_new_volume_reads_as_zeros(options: dict[str, Any], quick: None) -> None:
    async with opened(options) as driver:
        made = await driver.create_volume(bench_of(options).spec())
        assert made.state == "available"
        assert not holds(options, made)


async def test_new_extents_of_a_volume_read_as_zeros_and_its_data_stays(options: dict[str, Any], quick: None) -> None:
    async with opened(options) as driver:
        made = await driver.create_volume(bench_of(options).spec())
        path = Path(options["system_dir"]) / made.name
        with path.open("r+b") as file:
            file.seek(GIB - 5)
            file.write(b"mine!")
        assert made.mark is not None
        grown = await driver.extend_volume(made.mark.uuid, 2)
        assert (grown.size_gb, grown.state) == (2, "available")
        assert not holds(options, grown, GIB)
        with path.open("rb") as file:
            file.seek(GIB - 5)
            assert file.read(5) == b"mine!"


async def test_a_volume_in_use_is_not_extended(options: dict[str, Any], quick: None) -> None:
    async with opened(options) as driver:
        made = await driver.create_volume(bench_of(options).spec())
        (Path(options["system_dir"]) / f"{made.name}.open").touch()
        assert made.mark is not None
        with pytest.raises(Conflict, match="in_use"):
            await driver.extend_volume(made.mark.uuid, 2)


async def test_a_volume_that_is_opened_while_others_change_is_not_extended(
    options: dict[str, Any], quick: None
) -> None:
    """An extension waits for its turn, and looks then."""
    async with opened(options) as driver:
        made = await driver.create_volume(bench_of(options).spec())
        assert made.mark is not None
        uuid, refused = made.mark.uuid, list[Conflict]()

        async def extend() -> None:
            try:
                await driver.extend_volume(uuid, 2)
            except Conflict as error:
                refused.append(error)

        async with trio.open_nursery() as nursery, driver._changing:
            nursery.start_soon(extend)
            with trio.fail_after(HANG_SECONDS):
                while not driver._changing.statistics().tasks_waiting:
                    await driver.get_volume(uuid)
            (Path(options["system_dir"]) / f"{made.name}.open").touch()
        assert [each.text for each in refused] == [f"volume {uuid} is in_use: it is extended while it is available"]
        assert (await driver.get_volume(uuid)).size_gb == 1


async def test_until_it_is_zeroed_a_volume_is_building_and_not_connected(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that is closed meanwhile leaves the volume so; the next one goes on."""
    monkeypatch.setattr(lvm, "CLEAR_SECONDS", 0.0)
    monkeypatch.setattr(zeroing._Device, "_write", lambda *_: time.sleep(0.05))
    want = bench_of(options).spec()
    async with opened(options) as driver:
        made = await driver.create_volume(want)
        assert made.state == "building"
        with pytest.raises(Transient, match="zeroed"):
            await driver.connect(want.mark.uuid, "host")
    monkeypatch.setattr(zeroing._Device, "_write", holes)
    async with opened(options) as driver:
        with trio.fail_after(HANG_SECONDS):
            while (await driver.get_volume(want.mark.uuid)).state != "available":  # noqa: ASYNC110  # a volume has no events
                await trio.sleep(0.1)
        assert not holds(options, made)
        await driver.connect(want.mark.uuid, "host")


async def test_a_volume_that_is_being_zeroed_is_removed_at_once(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lvm, "CLEAR_SECONDS", 0.0)
    monkeypatch.setattr(zeroing._Device, "_write", lambda *_: time.sleep(0.05))
    async with opened(options) as driver:
        want = bench_of(options).spec()
        await driver.create_volume(want)
        await driver.delete_volume(want.mark.uuid)
        assert json.loads((Path(options["system_dir"]) / "tags.json").read_text()) == {}


async def test_a_file_is_zeroed_by_writing_and_a_locked_one_is_left(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(zeroing, "LOCK_SECONDS", 0.3)
    path, ended = tmp_path / "device", []
    path.write_bytes(b"x" * 10_000)

    async def start() -> int:
        return 4_000

    async def done() -> None:
        ended.append(path.read_bytes())

    await zeroing.zero_from(str(path), start, done)
    assert ended == [b"x" * 4_000 + bytes(6_000)]
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Transient, match="locked"):
            await zeroing.zero_from(str(path), start, done)
    assert len(ended) == 1
