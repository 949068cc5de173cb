"""Ten thousand clients who connect, and then say nothing."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from hostler.core.engine_commands import AddHosts
from tests.core.orders import hosts

from .processes import Daemon

CONNECTIONS = 10_000
PLACE = {"request": {"spec": {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 64}}}}
NEEDED = CONNECTIONS + 200


def resident_bytes(daemon: Daemon) -> int:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < NEEDED, reason=f"a process may not open {NEEDED} files here"
)
def test_ten_thousand_idle_connections_take_little_and_others_are_answered(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], NEEDED), limits[1]))
    try:
        with Daemon(tmp_path) as daemon, daemon.client() as client, ExitStack() as idle:
            client.call("add_hosts", AddHosts(hosts=hosts(5)))
            before = resident_bytes(daemon)
            for _ in range(CONNECTIONS):
                stream = idle.enter_context(socket.socket(socket.AF_UNIX))
                stream.connect(daemon.address.removeprefix("unix:"))
            with daemon.client() as late:  # the last of those who wait to be let in
                assert late.call("place", PLACE).placed
            assert client.call("place", PLACE).placed
            assert (resident_bytes(daemon) - before) / CONNECTIONS < 60_000
            assert stream.send(b"\x94\x00\x01\xa6status\x90")
            assert stream.recv(1_000).startswith(b"\x94\x01\x01\xc0")
            assert daemon.terminate() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
