"""The libvirt driver on QEMU, emulated and without a daemon: real guests, and volumes plugged while they run."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")

from hostler.drivers import demo_cloud  # noqa: E402  # after the skip
from hostler.drivers.compute.libvirt import open_driver  # noqa: E402  # after the skip
from hostler.drivers.conformance import ComputeBench, ComputeConformance, new_uuid  # noqa: E402  # after the skip
from hostler.drivers.conformance.guests import made_snapshot  # noqa: E402  # after the skip
from hostler.drivers.protocol import (  # noqa: E402  # after the skip
    ComputeDriver,
    Conflict,
    Connection,
    DriverContext,
    DriverError,
    GuestSpec,
    Mark,
    NotFound,
    Transient,
    Unknown,
    VolumeSpec,
    attaches,
    computes,
    has_consoles,
    resizes,
    snapshots,
)
from hostler.drivers.storage import qcow2  # noqa: E402  # after the skip

from ..patience import HANG_SECONDS  # noqa: E402  # after the skip

CONFIG = """
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
stdio_handler = "file"
"""


def _missing() -> str | None:
    for program in ("qemu-system-x86_64", "qemu-img", "virsh"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    try:
        pwd.getpwnam("libvirt-qemu")
    except KeyError:
        return "there is no account libvirt-qemu"
    return None


if _missing() is not None:
    pytest.skip(str(_missing()), allow_module_level=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """State of libvirt's QEMU driver. Guests that are left outlive it, and are ended by their process numbers."""
    folder = tmp_path_factory.mktemp("qemu")
    (folder / "root" / "etc").mkdir(parents=True)
    (folder / "root" / "etc" / "qemu.conf").write_text(CONFIG)
    yield folder
    for file in (folder / "root" / "run" / "qemu").glob("*.pid"):
        command = Path("/proc", file.read_text().strip(), "cmdline")
        if command.exists() and str(folder) in command.read_text():
            subprocess.run(["kill", "-KILL", file.read_text().strip()], check=False)


@pytest.fixture
def bench(root: Path) -> ComputeBench:
    options = {
        "uri": f"qemu:///embed?root={root}/root",
        "node": "host",
        "domain_type": "qemu",
        "machine": "pc",
        "shutdown_seconds": 0.5,
    }

    async def make_volume() -> Connection:
        uuid = new_uuid()
        path = root / f"{uuid}.qcow2"
        await trio.run_process(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M"])
        return Connection(volume=uuid, protocol="file", address=str(path), format="qcow2")

    @asynccontextmanager
    async def opened(context: DriverContext) -> AsyncIterator[ComputeDriver]:
        async with open_driver(options, context) as driver:
            assert computes(driver)
            yield driver

    return ComputeBench(open=opened, node="host", make_volume=make_volume, lets_go=False)


@pytest.mark.soak
class TestLibvirtComputesOnQemu(ComputeConformance):
    """All of the suite, on guests that take a second to switch off."""


async def test_a_guest_boots_and_volumes_are_plugged_while_it_runs(bench: ComputeBench, root: Path) -> None:
    assert bench.make_volume is not None
    boot, data = await bench.make_volume(), await bench.make_volume()
    async with bench.driver() as driver:
        assert attaches(driver)
        spec = bench.spec()._replace(volumes=(boot,))
        guest = await driver.create_guest(spec)
        assert (guest.state, guest.volumes) == ("on", (boot.volume,))
        await driver.attach(spec.mark.uuid, data)
        await driver.attach(spec.mark.uuid, data)
        assert (await driver.get_guest(spec.mark.uuid)).volumes == (boot.volume, data.volume)
        await driver.set_power(spec.mark.uuid, "off")
        assert await driver.detach(spec.mark.uuid, data.volume)
        assert (await driver.get_guest(spec.mark.uuid)).volumes == (boot.volume,)
        await driver.delete_guest(spec.mark.uuid)
        assert (root / f"{boot.volume}.qcow2").exists(), "volumes are not the driver's to remove"


async def test_a_guest_that_runs_is_resized_and_its_console_told(bench: ComputeBench) -> None:
    async with bench.driver() as driver:
        assert resizes(driver)
        spec = bench.spec()
        await driver.create_guest(spec)
        found = await driver.resize_guest(spec.mark.uuid, 2, 96)
        assert (found.state, found.vcpus, found.memory_mb) == ("on", 2, 96)
    async with bench.driver() as driver:
        assert has_consoles(driver)
        console = await driver.console(spec.mark.uuid)
        assert console.kind == "serial"
        assert await trio.Path(console.address).is_char_device()
        await driver.delete_guest(spec.mark.uuid)


async def test_a_volume_of_another_back_end_is_attached_and_locked_while_the_guest_runs(
    bench: ComputeBench, root: Path
) -> None:
    (root / "pool").mkdir(exist_ok=True)
    context = DriverContext("disks", "conformance-a")
    async with bench.driver() as driver, qcow2.open_driver({"pools": {"fast": str(root / "pool")}}, context) as disks:
        volume = VolumeSpec(bench.spec().mark, "data", "fast", 1)
        await disks.create_volume(volume)
        spec = bench.spec()._replace(volumes=(await disks.connect(volume.mark.uuid, "host"),))
        await driver.create_guest(spec)
        with pytest.raises(Conflict):
            await disks.delete_volume(volume.mark.uuid)
        await driver.delete_guest(spec.mark.uuid)
        await disks.delete_volume(volume.mark.uuid)


@contextmanager
def with_pool(pool: Path, root: Path) -> Iterator[dict[str, str]]:
    """Options for a libvirtd of its own, as only that has storage pools, with one in a folder."""
    pool.mkdir()
    with demo_cloud._host(root):
        # By its socket, also where the process has the driver that works without a daemon.
        uri = demo_cloud._uri(root).replace("qemu:", "qemu+unix:")
        made = libvirt.open(uri).storagePoolDefineXML(
            f"<pool type='dir'><name>guests</name><target><path>{pool}</path></target></pool>"
        )
        made.create()
        yield {"uri": uri, "node": "host", "domain_type": "qemu", "machine": "pc", "pool": "guests"}


@pytest.mark.soak
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("libvirtd") is None, reason="hosts are started by root")
async def test_a_snapshot_of_a_guest_that_runs_is_an_image_by_itself() -> None:
    """Made by a backup job, with what is in the image that the guest was made from, and of one that is off by a copy; a
    guest is made from it, and has a screen."""
    with tempfile.TemporaryDirectory(prefix="hostler-") as name:
        pool = Path(name) / "pool"
        with with_pool(pool, Path(name) / "host") as options:
            base = pool / "base.raw"
            base.write_bytes(os.urandom(8 << 20))
            libvirt.open(options["uri"]).storagePoolLookupByName("guests").refresh(0)
            context = DriverContext("a", "b")
            async with open_driver({**options, "vnc": "127.0.0.1"}, context) as driver:
                assert snapshots(driver)
                spec = GuestSpec(Mark("b", new_uuid(), 1), "web-1", "host", 1, 64, image=base.name)
                await driver.create_guest(spec)
                assert (await driver.console(spec.mark.uuid)).kind == "vnc"
                for power in ("on", "off"):
                    await driver.set_power(spec.mark.uuid, "on" if power == "on" else "off")
                    mark = Mark("b", new_uuid(), 1)
                    found = await made_snapshot(driver, spec.mark.uuid, mark)
                    info = await trio.run_process(["qemu-img", "info", "-U", pool / found.key], capture_stdout=True)
                    assert b"backing file" not in info.stdout
                    await trio.run_process(["qemu-img", "compare", "-U", base, pool / found.key], capture_stdout=True)
                    copy = spec._replace(mark=Mark("b", new_uuid(), 1), image=found.key)
                    assert (await driver.create_guest(copy)).state == "on"
                    await driver.delete_guest(copy.mark.uuid)
                    await driver.delete_snapshot(mark.uuid)
                await driver.delete_guest(spec.mark.uuid)
            assert [each.name for each in pool.iterdir()] == ["base.raw"]


@pytest.mark.soak
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("libvirtd") is None, reason="hosts are started by root")
async def test_user_data_is_on_an_image_that_goes_with_its_guest() -> None:
    """On a libvirtd of its own, as only that has storage pools: what cloud-init reads it from, as others see it."""
    with tempfile.TemporaryDirectory(prefix="hostler-") as name:
        pool = Path(name) / "pool"
        with with_pool(pool, Path(name) / "host") as options:
            text = "#cloud-config\nhostname: übung\n" + "# more\n" * 8_000
            async with open_driver(options, DriverContext("a", "b")) as driver:
                spec = GuestSpec(Mark("b", new_uuid(), 1), "web-1", "host", 1, 64, disk_gb=1, user_data=text)
                for _ in range(2):
                    assert (await driver.create_guest(spec)).state == "on"
                (image,) = pool.glob("*.iso")
                found = await trio.run_process(
                    ["blkid", "-p", "-o", "value", "-s", "LABEL", image], capture_stdout=True
                )
                assert found.stdout.strip() == b"cidata"
                shown = driver._hosts["host"].connection().lookupByUUIDString(spec.mark.uuid).XMLDesc()
                assert str(image) in shown
                assert "cloud-config" not in shown
                await driver.delete_guest(spec.mark.uuid)
                assert list(pool.iterdir()) == []


@pytest.mark.soak
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("libvirtd") is None, reason="hosts are started by root")
async def test_a_libvirtd_that_is_stopped_and_killed_ends_every_call(tmp_path: Path) -> None:
    """By the keepalive, all of several calls at once; afterwards the process goes on."""
    with tempfile.TemporaryDirectory(prefix="hostler-") as name:
        found = list[DriverError]()
        with with_pool(tmp_path / "pool", Path(name) / "host") as options:
            async with open_driver({**options, "hosts": {}}, DriverContext("a", "b")) as driver:

                async def ask() -> None:
                    with pytest.raises(DriverError) as caught:
                        await driver.get_guest(new_uuid())
                    found.append(caught.value)

                async with trio.open_nursery() as nursery:
                    for _ in range(8):
                        nursery.start_soon(ask)
                assert {type(each) for each in found} == {NotFound}
                found.clear()
                daemon = int(await trio.Path(name, "host", "pid").read_text())
                os.kill(daemon, signal.SIGSTOP)
                with trio.fail_after(HANG_SECONDS):
                    async with trio.open_nursery() as nursery:
                        for _ in range(8):
                            nursery.start_soon(ask)
                os.kill(daemon, signal.SIGKILL)
                await trio.sleep(1)
        assert len(found) == 8
        assert {type(each) for each in found} <= {Transient, Unknown}
