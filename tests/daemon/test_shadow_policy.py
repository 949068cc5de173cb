"""The shadow policy of a real service: a child follows it and compares, and its end is not the service's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hostler.core.engine_commands import AddHosts
from hostler.core.rpc.client import BlockingClient
from hostler.placement.types.errors import InvalidValue
from tests.core.orders import hosts, uuid_of

from ..patience import HANG_SECONDS
from .processes import Daemon

STACK = "[filter_scheduler]\nram_weight_multiplier = -10000.0\ncpu_weight_multiplier = -10000.0\n"
SPEC = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 64}}


def placed(client: BlockingClient, first: int, count: int) -> None:
    for number in range(first, first + count):
        client.call("place", {"request": {"spec": SPEC, "instance_uuids": [uuid_of(number)]}})


def compared(client: BlockingClient, count: int) -> Any:
    """The status of the shadow policy once it has compared so many requests."""
    deadline = time.monotonic() + HANG_SECONDS
    while True:
        status = client.call("shadow_status")
        if status.counts.compared >= count:
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_live_decisions_are_compared_with_those_of_the_shadow_policy(tmp_path: Path) -> None:
    (tmp_path / "stack.toml").write_text(STACK)
    with Daemon(tmp_path, config="shadow_policy = 'stack.toml'\n") as daemon:
        assert daemon.process is not None
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(10)))
            placed(client, 0, 20)
            status = compared(client, 20)
            assert status.running
            assert status.counts.elsewhere > 5
            assert any(each.shadow_explanation is not None for each in status.differences)
            (child,) = children_of(daemon.process.pid)
            os.kill(child, signal.SIGKILL)
            deadline = time.monotonic() + HANG_SECONDS
            while not client.call("shadow_status").restarts or not client.call("shadow_status").running:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            placed(client, 100, 5)
            assert compared(client, 25).counts.compared == 25
        command = [sys.executable, "-m", "hostler", "shadow", "status", "--server", daemon.address]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "on another host" in shown.stdout
    assert not Path(f"/proc/{child}").exists()


def test_a_reload_brings_another_shadow_policy(tmp_path: Path) -> None:
    file = tmp_path / "shadow.toml"
    file.write_text(STACK)
    with Daemon(tmp_path, config="shadow_policy = 'shadow.toml'\n") as daemon, daemon.client() as client:
        assert daemon.process is not None
        client.call("add_hosts", AddHosts(hosts=hosts(10)))
        placed(client, 0, 20)
        before = compared(client, 20)
        file.write_text("")
        daemon.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + HANG_SECONDS
        while (status := client.call("shadow_status")).policy == before.policy or not status.running:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        placed(client, 100, 20)
        after = compared(client, 20)
        assert (after.counts.same, after.differences) == (20, [])


def test_a_service_without_one_says_so(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon, daemon.client() as client, pytest.raises(InvalidValue, match="no shadow policy"):
        client.call("shadow_status")
