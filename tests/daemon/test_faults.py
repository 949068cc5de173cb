"""A disk that is full, read-only or broken: no more writes, with a clear error, reads all the while, and writes again
as soon as it works; nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from hostler.core.engine_commands import AddHosts
from hostler.core.errors import StorageFailed
from hostler.core.rpc.client import BlockingClient
from hostler.placement.types.errors import HostlerError
from tests.core.orders import hosts, uuid_of

from ..patience import HANG_SECONDS
from .processes import Daemon, http_of, metrics

SPEC = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1024}}
CONFIG = "[data]\nsnapshot_every = 40\n"


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes writes fail."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to build the fault injector with")
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture
def faulty(shim: Path, tmp_path: Path) -> Iterator[tuple[Daemon, Path]]:
    """A daemon on a disk that can be made to fail, and the file that does so."""
    control = tmp_path / "faults"
    control.write_text("-")
    env = os.environ | {
        "LD_PRELOAD": str(shim),
        "HOSTLER_FAULTS": str(control),
        "HOSTLER_FAULTY_FOLDER": str(tmp_path / "data"),
    }
    with Daemon(tmp_path, "--http", "127.0.0.1:0", config=CONFIG, env=env) as daemon:
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(20)))
        yield daemon, control


def place(client: BlockingClient, number: int) -> str:
    request = {"spec": SPEC, "instance_uuids": [uuid_of(number)]}
    return str(client.call("place", {"request": request}).selected.instance_uuid)


def watched(daemon: Daemon) -> tuple[int, bool, float]:
    """What readiness and metrics say of the disk."""
    ready = httpx.get(f"{http_of(daemon)}/readyz")
    return ready.status_code, ready.json()["writable"], metrics(daemon)["hostler_writable",]


FAULTS = {"I/O error": "e", "disk full": "n", "short writes": "s", "failing sync": "f", "read-only": "r"}


@pytest.mark.parametrize("fault", FAULTS)
def test_writes_stop_reads_go_on_and_all_is_well_again_when_the_disk_is(
    faulty: tuple[Daemon, Path], fault: str
) -> None:
    daemon, control = faulty
    with daemon.client() as client:
        acknowledged = {place(client, number) for number in range(1, 30)}
        control.write_text(FAULTS[fault])
        hints = []
        for number in range(30, 36):
            try:
                acknowledged.add(place(client, number))
            except StorageFailed as error:
                hints.append(error.hint)
        assert len(hints) >= 5, "short writes may let one through"
        assert all(hints)
        assert not client.call("status").writable
        assert len(client.call("hosts")) == 20
        assert client.call("instance", {"uuid": uuid_of(1)}).node
        assert watched(daemon) == (503, False, 0.0)
        with pytest.raises(StorageFailed):
            client.call("snapshot")
        assert "cannot write journal-" in httpx.get(f"{http_of(daemon)}/readyz").json()["trouble"]
        assert httpx.get(f"{http_of(daemon)}/healthz").status_code == 200
        control.write_text("-")
        deadline = time.monotonic() + HANG_SECONDS
        while not client.call("status").writable:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert watched(daemon) == (200, True, 1.0)
        acknowledged |= {place(client, number) for number in range(40, 60)}
    daemon.restart()
    with daemon.client() as client:
        listed = {uuid for number in range(20) for uuid in client.call("host", {"name": f"node-{number}"}).instances}
    assert listed == acknowledged
    assert "damage" not in daemon.log()


@pytest.mark.parametrize("fault", ["disk full", "failing sync"])
def test_what_was_acknowledged_before_a_fault_outlives_a_crash_during_it(
    faulty: tuple[Daemon, Path], fault: str
) -> None:
    daemon, control = faulty
    with daemon.client() as client:
        acknowledged = {place(client, number) for number in range(1, 10)}
        control.write_text(FAULTS[fault])
        with pytest.raises(StorageFailed):
            place(client, 50)
        daemon.kill()
        control.write_text("-")
    daemon.start()
    with daemon.client() as client:
        listed = {uuid for number in range(20) for uuid in client.call("host", {"name": f"node-{number}"}).instances}
        assert acknowledged <= listed <= acknowledged | {uuid_of(50)}
        place(client, 60)


@pytest.mark.parametrize("fault", ["disk full", "read-only", "I/O error"])
def test_a_start_on_a_disk_that_takes_nothing_answers_questions(faulty: tuple[Daemon, Path], fault: str) -> None:
    daemon, control = faulty
    with daemon.client() as client:
        acknowledged = {place(client, number) for number in range(1, 10)}
    daemon.kill()
    control.write_text(FAULTS[fault])
    daemon.start()
    with daemon.client() as client:
        assert not client.call("status").writable
        assert {uuid_of(number) for number in range(1, 10)} == acknowledged
        for uuid in acknowledged:
            assert client.call("instance", {"uuid": uuid}).node
        with pytest.raises(StorageFailed):
            place(client, 50)
        assert watched(daemon) == (503, False, 0.0)
        control.write_text("-")
        deadline = time.monotonic() + HANG_SECONDS
        while not client.call("status").writable:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        acknowledged.add(place(client, 60))
    daemon.restart()
    with daemon.client() as client:
        assert client.call("capacity")["VCPU"].used == len(acknowledged)
    assert "damage" not in daemon.log()


def test_a_second_signal_ends_a_process_whose_disk_hangs(faulty: tuple[Daemon, Path]) -> None:
    daemon, control = faulty
    with daemon.client() as client:
        acknowledged = {place(client, 1)}
        control.write_text("h")

        def unanswered() -> None:
            with daemon.client() as other, suppress(HostlerError):
                other.call("place", {"request": {"spec": SPEC, "instance_uuids": [uuid_of(2)]}}, within=HANG_SECONDS)

        hanging = threading.Thread(target=unanswered, daemon=True)
        hanging.start()
        deadline = time.monotonic() + HANG_SECONDS
        while not metrics(daemon)["hostler_queue_bytes",]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    process = daemon.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    while "stopping: SIGTERM" not in daemon.log():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(HANG_SECONDS) == 128 + signal.SIGTERM
    control.write_text("-")
    daemon.start()
    with daemon.client() as client:
        for uuid in acknowledged:
            assert client.call("instance", {"uuid": uuid}).node


def test_systemd_hears_no_more_of_a_writer_that_hangs_in_its_disk(shim: Path, tmp_path: Path) -> None:
    control = tmp_path / "faults"
    control.write_text("-")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        env = os.environ | {
            "LD_PRELOAD": str(shim),
            "HOSTLER_FAULTS": str(control),
            "HOSTLER_FAULTY_FOLDER": str(tmp_path / "data"),
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "200000",
        }

        def wait_for_beats(count: int) -> None:
            told.settimeout(HANG_SECONDS)
            while count:
                count -= told.recv(1000) == b"WATCHDOG=1"

        def beats_within(seconds: float) -> int:
            end, count = time.monotonic() + seconds, 0
            while (left := end - time.monotonic()) > 0:
                told.settimeout(left)
                with suppress(TimeoutError):
                    count += told.recv(1000) == b"WATCHDOG=1"
            return count

        with Daemon(tmp_path, env=env) as daemon, daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(20)))
            wait_for_beats(3)
            control.write_text("h")
            hanging = threading.Thread(target=place, args=(client, 1))
            hanging.start()
            while beats_within(1.0):  # the writer may not have reached the disk yet
                pass
            assert beats_within(1.0) == 0
            control.write_text("-")
            hanging.join()
            wait_for_beats(3)
