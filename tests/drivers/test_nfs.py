"""The nfs driver passes the conformance suite on shares. A kernel that cannot mount NFS shows them as what the server
exports; where nfs-ganesha is installed, its clients see the same files. A share whose server is gone is a FUSE file
system without a server process: it blocks what touches it, as a hard mount does."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.bench.free_ports import free_ports
from hostler.drivers.conformance import StorageBench, StorageConformance
from hostler.drivers.conformance.bench import all_of
from hostler.drivers.protocol import (
    Capacity,
    Denied,
    DriverContext,
    DriverError,
    NotFound,
    Permanent,
    Quota,
    Transient,
    Unknown,
)
from hostler.drivers.storage import directory, nfs
from hostler.placement.types.errors import InvalidValue

from .outages import Outages, of_programs

if shutil.which("qemu-img") is None:
    pytest.skip("qemu-img is not installed", allow_module_level=True)

GANESHA = shutil.which("ganesha.nfsd", path=f"{os.environ['PATH']}:/usr/sbin")
LIBC = ctypes.CDLL(None, use_errno=True)
GIB = 2**30


def options_of(*folders: Path, form: str = "qcow2", timeout: float = 25.0) -> dict[str, Any]:
    """Options with a pool for each folder, on whatever file system it is."""
    mounts = nfs.MOUNTS.read_text()
    kinds = [nfs.mount_of(str(folder), mounts).kind for folder in folders]
    pools = {folder.name: {"path": str(folder), "format": form} for folder in folders}
    return {"pools": pools, "file_systems": kinds, "timeout": timeout, "images": str(folders[0].parent)}


@contextmanager
def answers_lost(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server carries out changes of names, and a soft mount gives up waiting for its answer."""

    def lose(change: Any) -> Any:
        def changed(*arguments: Any, **named: Any) -> None:
            change(*arguments, **named)
            raise OSError(errno.ETIMEDOUT, "Connection timed out")

        return changed

    with patch.context() as within:
        within.setattr(os, "link", lose(os.link))
        yield


def bench_of(options: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> StorageBench:
    async def make_stranger() -> str:
        (folder / "stranger.raw").write_bytes(b"x")
        return "stranger.raw"

    return StorageBench(
        open=lambda context: nfs.open_driver(options, context),
        pool=folder.name,
        lose_answers=lambda: answers_lost(patch),
        make_stranger=make_stranger,
        page=3,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "fast"
    made.mkdir()
    return made


def of_share(patch: pytest.MonkeyPatch) -> Outages:
    """Outages of a share that is mounted soft: each access is a request, and those of qemu-img, which the kernel gives
    up after a while."""
    outages, run = Outages(), directory.DirectoryDriver._run

    async def access(self: Any, pool: str, work: Callable[[Path], Any], *, changes: bool = False) -> Any:
        def accessed(path: Path) -> Any:
            lost, arrives = outages.fate()
            outages.wait()
            answer = work(path) if arrives else None
            if lost:
                raise OSError(errno.ETIMEDOUT, "Connection timed out")
            return answer

        return await run(self, pool, accessed, changes=changes)

    patch.setattr(directory.DirectoryDriver, "_run", access)
    return of_programs(patch, directory, outages=outages)


class TestNfsStores(StorageConformance):
    @pytest.fixture(params=["qcow2", "raw"])
    def bench(self, request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> StorageBench:
        outages = of_share(monkeypatch)
        bench = bench_of(options_of(folder, form=request.param), folder, monkeypatch)
        return replace(bench, outage=outages, hang=outages.hang)


async def test_a_raw_volume_is_a_sparse_copy_of_its_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "base.raw").write_bytes(b"boot" * 256)
    bench = bench_of(options_of(folder, form="raw"), folder, monkeypatch)
    async with bench.driver() as driver:
        spec = bench.spec(size_gb=2)._replace(image="base.raw")
        assert (await driver.create_volume(spec)).size_gb == 2
        connection = await driver.connect(spec.mark.uuid, "node")
        made, found = connection.address, os.stat(connection.address)
        assert (connection.protocol, connection.format) == ("nfs", "raw")
        assert (await trio.Path(made).read_bytes())[:1024] == b"boot" * 256
        assert found.st_size == 2 * GIB
        assert found.st_blocks * 512 < 2**20


# shares that are not as they should be


async def test_a_share_that_is_not_mounted_is_neither_read_nor_written(folder: Path) -> None:
    options = {**options_of(folder), "file_systems": ["nfs4"]}
    with pytest.raises(Transient, match="is not mounted"):
        async with nfs.open_driver(options, DriverContext("a", "b")):
            pass


async def test_another_export_at_the_place_of_a_share_is_not_used(folder: Path) -> None:
    options = options_of(folder)
    options["pools"]["fast"]["export"] = "10.0.0.5:/fast"
    with pytest.raises(Transient, match=r"not on 10\.0\.0\.5:/fast"):
        async with nfs.open_driver(options, DriverContext("a", "b")):
            pass


async def test_a_share_that_is_unmounted_later_takes_its_pool_down(folder: Path, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 0:40 / {folder} rw shared:1 - nfs4 10.0.0.5:/fast rw\n")
    patch = pytest.MonkeyPatch()
    patch.setattr(nfs, "MOUNTS", mounts)
    options = {"pools": {"fast": {"path": str(folder), "export": "10.0.0.5:/fast"}}}
    bench = bench_of(options, folder, patch)
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_volume(spec)
        assert (await driver.connect(spec.mark.uuid, "node")).options == {"export": "10.0.0.5:/fast"}
        mounts.write_text("")
        assert [pool.state for pool in await all_of(driver.pools())] == ["down"]
        for call in (driver.get_volume, driver.delete_volume):
            with pytest.raises(Transient, match="fast do not answer"):
                await call(spec.mark.uuid)
        with pytest.raises(Transient, match="is not mounted"):
            await driver.create_volume(bench.spec())
    patch.undo()
    assert len(os.listdir(folder)) == 1


def test_the_last_of_several_mounts_at_a_place_counts() -> None:
    lines = (
        "22 1 8:1 / / rw - ext4 /dev/sda rw\n"
        "30 22 0:40 / /mnt/a\\040b rw shared:1 - nfs4 one:/x rw\n"
        "31 30 0:41 / /mnt/a\\040b rw - nfs4 two:/x rw\n"
    )
    assert nfs.mount_of("/mnt/a b/c", lines) == ("/mnt/a b", "nfs4", "two:/x")
    assert nfs.mount_of("/mnt/a b2", lines) == ("/", "ext4", "/dev/sda")


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system that never answers."""
    if os.geteuid() != 0:
        pytest.skip("file systems are mounted by root")
    point = tmp_path / "dead"
    point.mkdir()
    try:
        fuse = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"there is no FUSE: {error}")
    data = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    if LIBC.mount(b"dead", str(point).encode(), b"fuse", 0, data):
        os.close(fuse)
        pytest.skip(f"FUSE cannot be mounted: {os.strerror(ctypes.get_errno())}")
    yield point
    os.close(fuse)  # whatever waits for it fails
    LIBC.umount2(str(point).encode(), 2)


async def test_a_share_whose_server_is_gone_stops_no_other(
    folder: Path, dead: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(options_of(folder, dead, timeout=0.3), folder, monkeypatch)
    began = time.monotonic()
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_volume(spec)
        assert {pool.name: pool.state for pool in await all_of(driver.pools())} == {"fast": "up", "dead": "down"}
        assert [each.mark for each in await all_of(driver.volumes())] == [spec.mark]
        with pytest.raises(Transient, match="dead do not answer"):
            await driver.get_volume(bench.spec().mark.uuid)
        with pytest.raises(Transient, match="did not answer"):
            await driver.create_volume(bench.spec()._replace(pool="dead"))
        for _ in range(8):  # more than there are threads for the share
            with trio.move_on_after(0.02):
                await all_of(driver.pools())
        await driver.delete_volume(spec.mark.uuid)
    assert time.monotonic() - began < 25.0, "the default timeout of a share was waited for"


# errors


@pytest.mark.parametrize(
    ("number", "reads", "changes"),
    [
        (errno.EACCES, Denied, Denied),
        (errno.EIO, Transient, Unknown),
        (errno.ESTALE, Transient, Unknown),
        (errno.ETIMEDOUT, Transient, Unknown),
        (errno.ENOSPC, Capacity, Capacity),
        (errno.EDQUOT, Quota, Quota),
        (errno.EROFS, Permanent, Permanent),
    ],
)
async def test_each_error_number_has_its_class(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    reads: type[DriverError],
    changes: type[DriverError],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    bench = bench_of(options_of(folder, form="raw"), folder, monkeypatch)
    async with bench.driver() as driver:
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", fail)
            with pytest.raises(changes):
                await driver.create_volume(bench.spec())
        assert not os.listdir(folder)
        with monkeypatch.context() as patch:
            patch.setattr(os, "statvfs", fail)
            with pytest.raises(reads):
                await driver.check()


@pytest.mark.parametrize(
    ("pools", "field"),
    [
        ({}, "options.pools"),
        ({"a": {"path": "relative"}}, "options.pools.a.path"),
        ({"a": {"path": "/x"}, "b": {"path": "/x/"}}, "options.pools.b.path"),
        ({"a": {"path": "/x", "format": "vmdk"}}, "options.pools[...].format"),
    ],
)
async def test_a_wrong_option_is_said(pools: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        async with nfs.open_driver({"pools": pools}, DriverContext("a", "b")):
            pass
    assert caught.value.field == field


# a server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory that nfs-ganesha exports, and its URL for the clients of libnfs."""
    if GANESHA is None or shutil.which("nfs-cp") is None:
        pytest.skip("nfs-ganesha, nfs-ganesha-vfs and libnfs-utils are not installed")
    if os.geteuid() != 0:
        pytest.skip("nfs-ganesha is started by root")
    (port,) = free_ports(1)
    export = tmp_path / "export"
    for made in (export, tmp_path / "recovery", Path("/var/run/ganesha")):
        made.mkdir(exist_ok=True)
    (tmp_path / "ganesha.conf").write_text(
        f"NFS_CORE_PARAM {{ NFS_Port = {port}; Bind_addr = 127.0.0.1; Protocols = 4; Enable_NLM = false; "
        "Enable_RQUOTA = false; mount_path_pseudo = true; NSM_Use_Caller_Name = false; }\n"
        f"NFSV4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = {tmp_path}/recovery; }}\n"
        f"EXPORT {{ Export_Id = 1; Path = {export}; Pseudo = /export; Protocols = 4; Transports = TCP; "
        "Access_Type = RW; Squash = No_Root_Squash; SecType = sys; FSAL { Name = VFS; } }\n"
    )
    command = [
        GANESHA,
        "-F",
        "-f",
        str(tmp_path / "ganesha.conf"),
        "-L",
        str(tmp_path / "log"),
        "-p",
        str(tmp_path / "pid"),
    ]
    process, url = subprocess.Popen(command), f"nfs://127.0.0.1/export{{}}?version=4&nfsport={port}"
    try:
        while subprocess.run(["nfs-ls", url.format("")], capture_output=True, check=False).returncode:
            if process.poll() is not None:
                pytest.skip(f"nfs-ganesha does not run here: {(tmp_path / 'log').read_text()[-500:]}")
            time.sleep(0.1)
        yield export, url
    finally:
        process.kill()
        process.wait()


async def test_clients_of_the_server_see_the_volumes_and_what_they_write_is_a_strangers(
    server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    export, url = server
    bench = bench_of(options_of(export), export, monkeypatch)
    async with bench.driver() as driver:
        spec = bench.spec()
        name = (await driver.create_volume(spec)).name
        listed = await trio.run_process(["nfs-ls", url.format("")], capture_stdout=True)
        assert name in listed.stdout.decode()
        read = await trio.run_process(["nfs-cat", url.format(f"/{name}")], capture_stdout=True)
        assert read.stdout[:4] == b"QFI\xfb"
        (tmp_path / "theirs").write_bytes(b"x" * 100)
        await trio.run_process(["nfs-cp", str(tmp_path / "theirs"), url.format("/theirs.raw")], capture_stdout=True)
        assert ("theirs.raw", None) in [(each.key, each.mark) for each in await all_of(driver.volumes())]
        await driver.delete_volume(spec.mark.uuid)
        listed = await trio.run_process(["nfs-ls", url.format("")], capture_stdout=True)
        assert name not in listed.stdout.decode()
        assert "theirs.raw" in listed.stdout.decode()
        with pytest.raises(NotFound):
            await driver.get_volume(spec.mark.uuid)
