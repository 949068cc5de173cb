"""The lvm driver passes the conformance suite on a volume group of loop devices, with the real lvm. Where the kernel
has no device-mapper, logical volumes are never activated: nothing can be written to them, and none is in use."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.drivers.conformance import StorageBench, StorageConformance
from hostler.drivers.protocol import Capacity, DriverContext, NotFound, Permanent, Transient
from hostler.drivers.storage import lvm
from hostler.drivers.storage.lvm import open_driver
from hostler.drivers.storage.zeroing import zero_from

from .outages import of_programs

for program in ("lvm", "losetup"):
    if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip(f"{program} is not installed", allow_module_level=True)
if os.geteuid() != 0:
    pytest.skip("loop devices are for root", allow_module_level=True)

LVM = shutil.which("lvm", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
GROUP = f"hostler-test-{os.getpid()}"
GIB = 2**30


def kernel_has_device_mapper() -> bool:
    """The device file may be there without a driver behind it."""
    try:
        with Path("/dev/mapper/control").open("rb"):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A volume group of 20 GiB that takes no room, and a configuration of lvm that sees nothing else."""
    folder = tmp_path_factory.mktemp("lvm")
    disk = folder / "disk"
    disk.touch()
    os.truncate(disk, 20 * GIB + 16 * 2**20)
    made = subprocess.run(["losetup", "--find", "--show", str(disk)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"there are no loop devices: {made.stderr.strip()}")
    device = made.stdout.strip()
    (folder / "lvm.conf").write_text(
        f'devices {{ filter = [ "a|^{device}$|", "r|.*|" ] use_devicesfile = 0 obtain_device_list_from_udev = 0 }}\n'
        f'global {{ locking_dir = "{folder}/lock" use_lvmpolld = 0 system_id_source = "none" }}\n'
        "activation { monitoring = 0 udev_sync = 0 udev_rules = 0 checks = 0 }\n"
        f'backup {{ backup_dir = "{folder}/backup" archive = 0 }}\n'
    )
    environment = {**os.environ, "LVM_SYSTEM_DIR": str(folder)}
    try:
        for command in (["pvcreate", "-q", "-ff", "-y", device], ["vgcreate", "-q", GROUP, device]):
            made = subprocess.run([str(LVM), *command], env=environment, capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"no volume group can be made here: {made.stderr.strip()}")
        yield {
            "pools": {"fast": GROUP},
            "system_dir": str(folder),
            "lvm": LVM,
            "metadata_only": not kernel_has_device_mapper(),
        }
        subprocess.run([str(LVM), "vgremove", "-q", "-ff", "-y", GROUP], env=environment, capture_output=True)
    finally:
        subprocess.run(["losetup", "-d", device], check=False)


def bench_of(options: dict[str, Any]) -> StorageBench:
    async def make_stranger() -> str:
        name = "stranger"
        command = [str(LVM), "lvcreate", "-q", "-an", "-Zn", "-Wn", "-l", "1", "-n", name, GROUP]
        if options["metadata_only"]:
            command += ["--driverloaded", "n"]
        environment = {**os.environ, "LVM_SYSTEM_DIR": options["system_dir"]}
        await trio.run_process(command, env=environment, capture_stdout=True, capture_stderr=True)
        return name

    return StorageBench(
        open=lambda context: open_driver(options, context), pool="fast", make_stranger=make_stranger, page=3
    )


class TestLvmStores(StorageConformance):
    @pytest.fixture
    def bench(self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> StorageBench:
        outages = of_programs(monkeypatch, lvm)
        return replace(bench_of(options), outage=outages, hang=outages.hang)


async def test_a_full_volume_group_is_a_lack_of_capacity(options: dict[str, Any]) -> None:
    bench = bench_of(options)
    async with bench.driver() as driver:
        with pytest.raises(Capacity):
            await driver.create_volume(bench.spec(size_gb=30))


async def test_an_image_is_refused(options: dict[str, Any]) -> None:
    bench = bench_of(options)
    async with bench.driver() as driver:
        with pytest.raises(Permanent, match="blank"):
            await driver.create_volume(bench.spec()._replace(image="debian"))


async def test_a_missing_volume_group_or_program_is_said(options: dict[str, Any]) -> None:
    with pytest.raises(NotFound):
        async with open_driver({**options, "pools": {"fast": "no-such-group"}}, DriverContext("a", "b")):
            pass
    with pytest.raises(Permanent, match="install lvm2"):
        async with open_driver({**options, "lvm": "no-such-lvm"}, DriverContext("a", "b")):
            pass


async def test_a_volume_group_that_is_gone_says_nothing_of_its_volumes(tmp_path: Path) -> None:
    program = tmp_path / "lvm"
    program.write_text('#!/bin/sh\necho \'{"report": [{"vg": [], "lv": []}]}\'\n')
    program.chmod(0o755)
    async with open_driver({"pools": {"fast": GROUP}, "lvm": str(program)}, DriverContext("a", "b")) as driver:
        with pytest.raises(NotFound):
            await driver.get_volume("5f0c1a8e-9a57-4d43-8f7e-5d0e6b1b7c11")
        program.write_text(f"#!/bin/sh\necho '  Volume group \"{GROUP}\" not found' >&2\nexit 5\n")
        for call in (driver.get_volume, driver.delete_volume):
            with pytest.raises(Transient):
                await call("5f0c1a8e-9a57-4d43-8f7e-5d0e6b1b7c11")


def test_a_block_device_is_zeroed_from_an_offset_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * 2**23)
    made = subprocess.run(["losetup", "--find", "--show", str(disk)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"there are no loop devices: {made.stderr.strip()}")
    device, ended = made.stdout.strip(), list[bytes]()

    async def start() -> int:
        return 4_096

    async def done() -> None:
        ended.append(await trio.Path(device).read_bytes())

    try:
        trio.run(zero_from, device, start, done)
    finally:
        subprocess.run(["losetup", "-d", device], check=False)
    assert ended == [b"x" * 4_096 + bytes(2**23 - 4_096)]


async def test_a_new_volume_and_new_extents_read_as_zeros(options: dict[str, Any]) -> None:
    if options["metadata_only"]:
        pytest.skip("the kernel has no device-mapper")
    bench = bench_of(options)
    async with bench.driver() as driver:
        for _ in range(2):
            want = bench.spec()
            await driver.create_volume(want)
            address = (await driver.connect(want.mark.uuid, "host")).address
            await driver.extend_volume(want.mark.uuid, 2)
            assert not await trio.to_thread.run_sync(written_over, address)
            await driver.delete_volume(want.mark.uuid)


def written_over(address: str) -> bool:
    """Write into a volume of 2 GiB; True if there was anything but zeros."""
    found = False
    with Path(address).open("r+b", buffering=0) as file:
        for place in (0, GIB // 2, GIB, 2 * GIB - 4_096):
            file.seek(place)
            found |= file.read(4_096) != bytes(4_096)
            file.seek(place)
            file.write(b"x" * 4_096)
    return found
