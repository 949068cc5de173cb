"""The qcow2 driver passes the conformance suite on directories, with the real qemu-img."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from hostler.drivers.conformance import StorageBench, StorageConformance
from hostler.drivers.conformance.bench import all_of
from hostler.drivers.protocol import Conflict, DriverContext, NotFound, Permanent, Transient
from hostler.drivers.storage import directory
from hostler.drivers.storage.directory import FORGOTTEN_SECONDS
from hostler.drivers.storage.qcow2 import open_driver
from hostler.placement.types.errors import InvalidValue

from .outages import of_programs

if shutil.which("qemu-img") is None:
    pytest.skip("qemu-img is not installed", allow_module_level=True)


def bench_in(folder: Path) -> StorageBench:
    async def make_stranger() -> str:
        name = f"stranger-{len(os.listdir(folder))}.qcow2"
        await trio.run_process(["qemu-img", "create", "-q", "-f", "qcow2", str(folder / name), "1M"])
        return name

    options = {"pools": {"fast": str(folder)}, "images": str(folder.parent)}
    return StorageBench(
        open=lambda context: open_driver(options, context),
        pool="fast",
        make_stranger=make_stranger,
        page=3,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "fast"
    made.mkdir()
    return made


class TestQcow2Stores(StorageConformance):
    @pytest.fixture
    def bench(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> StorageBench:
        outages = of_programs(monkeypatch, directory)
        return replace(bench_in(folder), outage=outages, hang=outages.hang)


async def test_a_volume_can_be_made_from_an_image(folder: Path) -> None:
    await trio.run_process(["qemu-img", "create", "-q", "-f", "qcow2", str(folder.parent / "base.qcow2"), "1M"])
    bench = bench_in(folder)
    async with bench.driver() as driver:
        spec = bench.spec()._replace(image="base.qcow2")
        assert (await driver.create_volume(spec)).size_gb == 1
        with pytest.raises(NotFound):
            await driver.create_volume(bench.spec()._replace(image="../fast/x"))


async def test_a_volume_of_another_is_no_image_even_in_the_folder_of_images(folder: Path) -> None:
    options = {"pools": {"fast": str(folder)}, "images": str(folder)}
    async with open_driver(options, DriverContext("bench", "conformance-a")) as driver:
        bench = bench_in(folder)
        await driver.create_volume(bench.spec())
        (name,) = os.listdir(folder)
        with pytest.raises(NotFound):
            await driver.create_volume(bench.spec()._replace(image=name))
    assert os.listdir(folder) == [name]


@pytest.mark.parametrize("pools", [{"fast": "volumes"}, {"fast": "/srv/a", "slow": "/srv/./a/"}, {"fast": ""}])
async def test_directories_are_absolute_and_of_one_pool(pools: dict[str, str]) -> None:
    with pytest.raises(InvalidValue):
        async with open_driver({"pools": pools}, DriverContext("bench", "conformance-a")):
            pass


async def test_an_image_that_is_larger_than_the_volume_is_refused(folder: Path) -> None:
    await trio.run_process(["qemu-img", "create", "-q", "-f", "qcow2", str(folder.parent / "large.qcow2"), "2G"])
    bench = bench_in(folder)
    async with bench.driver() as driver:
        with pytest.raises(Permanent, match="larger than 1 GiB"):
            await driver.create_volume(bench.spec()._replace(image="large.qcow2"))
    assert not os.listdir(folder)


async def test_a_volume_that_a_process_writes_to_is_not_removed(folder: Path) -> None:
    if shutil.which("qemu-io") is None:
        pytest.skip("qemu-io is not installed")
    bench = bench_in(folder)
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_volume(spec)
        path = (await driver.connect(spec.mark.uuid, "node")).address
        writer = subprocess.Popen(["qemu-io", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220  # it is the test's own
        try:
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdin.write(b"write 0 4k\n")
            writer.stdin.flush()
            await trio.to_thread.run_sync(writer.stdout.readline)
            with pytest.raises(Conflict):
                await driver.delete_volume(spec.mark.uuid)
        finally:
            writer.kill()
            await trio.to_thread.run_sync(writer.wait)
        await driver.delete_volume(spec.mark.uuid)


async def test_files_that_were_never_finished_are_removed_when_they_are_old(folder: Path) -> None:
    old, new = folder / ".hostler_old.part", folder / ".hostler_new.part"
    for path in (old, new):
        path.write_bytes(b"")
    then = old.stat().st_mtime - FORGOTTEN_SECONDS - 1
    os.utime(old, (then, then))
    async with bench_in(folder).driver():
        assert (old.exists(), new.exists()) == (False, True)


async def test_a_missing_program_is_said(folder: Path) -> None:
    options = {"pools": {"fast": str(folder)}, "qemu_img": "no-such-qemu-img"}
    with pytest.raises(Permanent, match="install qemu-utils"):
        async with open_driver(options, DriverContext("a", "b")):
            pass


async def test_a_directory_that_is_gone_says_nothing_of_its_volumes(folder: Path) -> None:
    bench = bench_in(folder)
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_volume(spec)
        os.rename(folder, folder.parent / "elsewhere")
        for call in (driver.get_volume, driver.delete_volume):
            with pytest.raises(Transient):
                await call(spec.mark.uuid)
        assert [pool.state for pool in await all_of(driver.pools())] == ["down"]
        assert await all_of(driver.volumes()) == []
        os.rename(folder.parent / "elsewhere", folder)
        assert (await driver.get_volume(spec.mark.uuid)).mark == spec.mark
