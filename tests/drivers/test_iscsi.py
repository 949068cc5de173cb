"""The iscsi driver passes the conformance suite on tgt, whose targets initiators in user space read and write."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.bench.free_ports import free_ports
from hostler.drivers.conformance import StorageBench, StorageConformance
from hostler.drivers.conformance.bench import OURS, all_of, settled
from hostler.drivers.protocol import (
    Capacity,
    Conflict,
    Denied,
    DriverContext,
    DriverError,
    NotFound,
    Permanent,
    Transient,
    Unknown,
)
from hostler.drivers.storage import directory, iscsi
from hostler.placement.types.errors import InvalidValue

from ..patience import HANG_SECONDS
from .outages import of_programs
from .test_nfs import answers_lost

PATH = f"{os.environ['PATH']}:/usr/sbin"
TGTD, TGTADM = (shutil.which(program, path=PATH) for program in ("tgtd", "tgtadm"))
if shutil.which("qemu-img") is None:
    pytest.skip("qemu-img is not installed", allow_module_level=True)


class Daemon:
    """A tgtd, which forgets all when it ends."""

    def __init__(self, folder: Path) -> None:
        self.portal = f"127.0.0.1:{free_ports(1)[0]}"
        self.control, self.socket = random.randrange(100, 32_000), str(folder / "tgtd")
        self._environment = {**os.environ, "TGT_IPC_SOCKET": self.socket}
        self.process: subprocess.Popen[bytes] | None = None

    def adm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        line = [str(TGTADM), "-C", str(self.control), "--lld", "iscsi", *arguments]
        return subprocess.run(line, env=self._environment, capture_output=True, text=True, check=False)

    def start(self) -> None:
        line = [str(TGTD), "-f", "-C", str(self.control), "--iscsi", f"portal={self.portal}"]
        self.process = subprocess.Popen(
            line, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + HANG_SECONDS
        while self.adm("--op", "show", "--mode", "sys").returncode:
            if self.process.poll() is not None or time.monotonic() > until:
                pytest.skip("tgtd does not run here")
            time.sleep(0.05)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    if TGTD is None or TGTADM is None:
        pytest.skip("tgt is not installed")
    if os.geteuid() != 0:
        pytest.skip("tgtd is started by root")
    Path("/var/run/tgtd").mkdir(exist_ok=True)
    daemon = Daemon(tmp_path_factory.mktemp("tgt"))
    daemon.start()
    yield daemon
    daemon.kill()


def options_of(daemon: Daemon, folder: Path) -> dict[str, Any]:
    return {
        "pools": {"fast": str(folder)},
        "portal": daemon.portal,
        "control": daemon.control,
        "socket": daemon.socket,
        "tgtadm": TGTADM,
    }


@pytest.fixture
def bench(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageBench:
    async def make_stranger() -> str:
        (tmp_path / "theirs.raw").write_bytes(b"x")
        return "theirs.raw"

    options, outages = options_of(daemon, tmp_path), of_programs(monkeypatch, iscsi, directory)
    return StorageBench(
        open=lambda context: iscsi.open_driver(options, context),
        pool="fast",
        lose_answers=lambda: answers_lost(monkeypatch),
        outage=outages,
        hang=outages.hang,
        make_stranger=make_stranger,
        page=3,
    )


class TestIscsiStores(StorageConformance):
    @pytest.fixture
    def bench(self, bench: StorageBench) -> StorageBench:
        return bench


def targets(daemon: Daemon) -> dict[str, iscsi.Target]:
    return iscsi.targets_of(daemon.adm("--op", "show", "--mode", "target").stdout)


async def test_targets_are_made_again_after_the_daemon_ended(bench: StorageBench, daemon: Daemon) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_volume(spec)
        name = (await driver.connect(spec.mark.uuid, "node")).address.rpartition("/")[0]
        assert name in targets(daemon)
        daemon.kill()
        with pytest.raises(Transient):
            await driver.check()
        await trio.to_thread.run_sync(daemon.start)
        assert name not in targets(daemon)
        assert [each.mark for each in await all_of(driver.volumes())] == [spec.mark]
        assert name in targets(daemon)
        await driver.delete_volume(spec.mark.uuid)
        assert name not in targets(daemon)


async def test_targets_of_others_stay(bench: StorageBench, daemon: Daemon) -> None:
    daemon.adm("--op", "new", "--mode", "target", "--tid", "900", "-T", "iqn.2020-01.com.example:theirs")
    try:
        async with bench.driver() as driver:
            spec = bench.spec()
            await driver.create_volume(spec)
            await driver.delete_volume(spec.mark.uuid)
            await all_of(driver.volumes())
        assert set(targets(daemon)) == {"iqn.2020-01.com.example:theirs"}
    finally:
        daemon.adm("--op", "delete", "--mode", "target", "--tid", "900")


async def test_an_initiator_sees_the_size_and_holds_the_volume(bench: StorageBench, daemon: Daemon) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_volume(spec)
        await driver.extend_volume(spec.mark.uuid, 2)
        url = f"iscsi://{daemon.portal}/{(await driver.connect(spec.mark.uuid, 'node')).address}"
        seen = await trio.run_process(["qemu-img", "info", "-f", "raw", url], capture_stdout=True, check=False)
        if seen.returncode:
            pytest.skip("qemu has no initiator: install qemu-block-extra")
        assert b"2 GiB" in seen.stdout
        writer = subprocess.Popen(["qemu-io", "-f", "raw", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220  # it is the test's own
        try:
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdin.write(b"write -P 7 0 4k\n")
            writer.stdin.flush()
            await trio.to_thread.run_sync(writer.stdout.readline)
            assert (await driver.get_volume(spec.mark.uuid)).state == "in_use"
            for call in (driver.delete_volume, lambda uuid: driver.extend_volume(uuid, 3)):
                with pytest.raises(Conflict, match="in use"):
                    await call(spec.mark.uuid)
        finally:
            writer.kill()
            await trio.to_thread.run_sync(writer.wait)
        await settled(lambda: driver.delete_volume(spec.mark.uuid))  # once the daemon has seen the initiator go
        with pytest.raises(NotFound):
            await driver.get_volume(spec.mark.uuid)


# errors


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("tgtadm: this target already exists", Conflict),
        ("tgtadm: this logical unit is still active", Conflict),
        ("tgtadm: can't find the target", NotFound),
        ("tgtadm: can't connect to tgt daemon, Connection refused", Transient),
        ("tgtadm: can't create a socket, Operation not permitted", Denied),
        ("tgtadm: out of memory", Capacity),
        ("tgtadm: invalid request", Permanent),
        ("tgtadm: failed to send request hdr to tgt daemon", Unknown),
    ],
)
async def test_each_text_has_its_class(tmp_path: Path, text: str, kind: type[DriverError]) -> None:
    """A change that tgtadm refuses with a text."""
    program = tmp_path / "tgtadm"
    program.write_text(f'#!/bin/sh\ncase "$*" in *"--op new"*) echo "{text}" >&2; exit 22;; esac\n')
    program.chmod(0o755)
    folder = tmp_path / "fast"
    folder.mkdir()
    options = {"pools": {"fast": str(folder)}, "portal": "127.0.0.1:3260", "tgtadm": str(program)}
    bench = StorageBench(open=lambda context: iscsi.open_driver(options, context), pool="fast")
    async with bench.driver() as driver:
        with pytest.raises(DriverError) as caught:
            await driver.create_volume(bench.spec())
        assert type(caught.value) is (
            Transient if kind is Conflict else kind
        )  # a number that is taken is tried no more


@pytest.mark.parametrize("wrong", [{"portal": "host"}, {"iqn": "eui.1"}, {"pools": {}}, {"initiators": []}], ids=str)
async def test_a_wrong_option_is_said(tmp_path: Path, wrong: dict[str, Any]) -> None:
    options = {"pools": {"fast": str(tmp_path)}, "portal": "127.0.0.1:3260", **wrong}
    with pytest.raises(InvalidValue):
        async with iscsi.open_driver(options, DriverContext("a", OURS)):
            pass
