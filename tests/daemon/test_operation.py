"""Operation: configuration and its errors, signals, metrics, health, systemd, and a clean end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from hostler.core.cli import main
from hostler.core.config import read_config
from hostler.placement.commands import AddHosts
from hostler.placement.errors import HostlerError, InvalidValue, UnknownName
from tests.core.orders import hosts

from .processes import HOSTLER, Daemon

SPEC = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1024}}


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("[rpc]\nlisten = 7\n", InvalidValue, "FILE:2: rpc.listen: Expected `array`, got `int`"),
        ("[data]\n\nsnapshot_every = 0\n", InvalidValue, "FILE:3: data.snapshot_every: Expected `int` >= 1"),
        ("[rpc]\nlisten = ['udp:x']\n", InvalidValue, "FILE:2: rpc.listen[0]: 'udp:x' is no address"),
        ("[rpc]\nauth = 'maybe'\n", InvalidValue, "FILE:2: rpc.auth"),
        ("[rpc]\nlisten = ['tls:h:1']\n", InvalidValue, "FILE:2: rpc.listen: tls: needs a table"),
        ("# x\n[rpc.tls]\ncertificate = 'c'\n", InvalidValue, "FILE:2: rpc.tls: Object missing required field `key`"),
        ("[rpc.limits]\nspeed = 1\n", UnknownName, "FILE:2: there is no key rpc.limits.speed"),
        ("[nonsense]\n", UnknownName, "FILE:1: there is no key nonsense"),
        ("[rpc\n", InvalidValue, "at line 1"),
        ("[operation]\nhttp = '9464'\n", InvalidValue, "FILE:2: operation.http: must be HOST:PORT"),
    ],
)
def test_a_wrong_configuration_is_refused_with_line_and_key(
    tmp_path: Path, text: str, kind: type[HostlerError], said: str
) -> None:
    file = tmp_path / "hostler.toml"
    file.write_text(text)
    with pytest.raises(kind) as error:
        read_config(file, {})
    assert said.replace("FILE", str(file)) in str(error.value)


def test_the_environment_overrides_the_file_and_is_named_in_errors(tmp_path: Path) -> None:
    file = tmp_path / "hostler.toml"
    file.write_text("[data]\nqueue = 5\n")
    found = read_config(file, {"HOSTLER_DATA__QUEUE": "7", "HOSTLER_DATA__FOLDER": "/x", "HOSTLER_PURE": "1"})
    assert (found.data.queue, found.data.folder) == (7, "/x")
    with pytest.raises(InvalidValue, match="HOSTLER_DATA__QUEUE"):
        read_config(file, {"HOSTLER_DATA__QUEUE": "many"})
    with pytest.raises(UnknownName, match="HOSTLER_DATA__QUEUES"):
        read_config(None, {"HOSTLER_DATA__QUEUES": "1"})


def test_a_file_is_checked_with_the_policy_that_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, policy = tmp_path / "hostler.toml", tmp_path / "policy.toml"
    file.write_text(f"policy = '{policy}'\n")
    policy.write_text("[filter_scheduler]\nram_weight_multiplier = 2.0\n")
    assert not main(["config", "check", str(file)])
    policy.write_text("[filter_scheduler]\nram_weight = 2.0\n")
    assert main(["config", "check", str(file)]) == 1
    assert "ram_weight" in capsys.readouterr().err


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_metrics_health_and_readiness_are_served(tmp_path: Path) -> None:
    port = free_port()
    config = f"[operation]\nhttp = '127.0.0.1:{port}'\n"
    with Daemon(tmp_path, config=config) as daemon, daemon.client() as client:
        client.call("add_hosts", AddHosts(hosts=hosts(2)))
        client.call("place", {"request": {"spec": SPEC}})
        client.call("place", {"request": {"spec": {"flavor": {"name": "x", "vcpus": 999, "memory_mb": 1}}}})
        status, page = get(port, "/metrics")
        assert status == 200
        for line in (
            'hostler_commands_total{command="place",outcome="ok"} 1.0',
            'hostler_commands_total{command="place",outcome="no_valid_host"} 1.0',
            'hostler_hosts_removed_total{stage="VCPU"} 2.0',
            'hostler_used{resource_class="VCPU"} 1.0',
            "hostler_hosts 2.0",
            "hostler_writable 1.0",
        ):
            assert line in page
        assert "hostler_journal_seconds_bucket" in page
        assert get(port, "/health") == (200, "alive\n")
        assert get(port, "/ready") == (200, "ready\n")
        assert get(port, "/elsewhere")[0] == 404


def test_sighup_reads_the_policy_again_and_no_call_is_lost(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("")
    with Daemon(tmp_path, config=f"policy = '{policy}'\n") as daemon, daemon.client() as client:
        assert daemon.process is not None
        client.call("add_hosts", AddHosts(hosts=hosts(2)))
        first = client.call("policy").digest
        policy.write_text("[filter_scheduler]\nram_weight_multiplier = -5.0\n")
        daemon.process.send_signal(signal.SIGHUP)
        hosts_of = [client.call("place", {"request": {"spec": SPEC}}).host for _ in range(20)]
        deadline = time.monotonic() + 5
        while client.call("policy").digest == first:
            assert time.monotonic() < deadline
        assert len(hosts_of) == 20
        now = client.call("policy")
        assert now.policy == {"filter_scheduler": {"ram_weight_multiplier": -5.0}}
        policy.write_text("[filter_scheduler]\nnonsense = 1\n")
        daemon.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 5
        while "stays as it was" not in daemon.log():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert client.call("policy").digest == now.digest


def test_systemd_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        env = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with Daemon(tmp_path, env=env) as daemon:
            assert listener.recv(1000).startswith(b"READY=1")
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
            assert listener.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert listener.recv(1000) == b"READY=1"
            assert daemon.terminate() == 0
            assert listener.recv(1000) == b"STOPPING=1"


def test_the_end_is_clean_and_every_answer_is_sent_first(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon, daemon.client() as client:
        client.call("add_hosts", AddHosts(hosts=hosts(2)))
        assert daemon.terminate() == 0
        assert not Path(daemon.address.removeprefix("unix:")).exists()
    with daemon.start().client() as client:
        assert client.call("status").hosts == 2
        assert daemon.terminate() == 0
    lines = (tmp_path / "data" / "audit.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert '"command":"add_hosts","outcome":"ok"' in lines[0]


def test_a_second_daemon_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with Daemon(tmp_path):
        command = [str(HOSTLER), "serve", "--rpc", f"unix:{tmp_path}/other.sock", "--data", str(tmp_path / "data")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert ended.returncode == 1
        assert "another process uses the data folder" in ended.stderr
