"""`hostler serve` as a process: what it says of itself, reloads, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgpack
import msgspec
import pytest

from hostler.core.engine_commands import AddHosts
from hostler.core.errors import Stopped
from hostler.core.rpc.caller import ConnectionLost
from hostler.placement.types.errors import HostlerError
from tests.core.orders import hosts, uuid_of

from ..patience import HANG_SECONDS
from .processes import HOSTLER, Daemon, http_of, metrics

SPEC = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1024}}
BIG = {"flavor": {"name": "big", "vcpus": 1, "memory_mb": 1 << 30}}
HTTP = ("--http", "127.0.0.1:0")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, *HTTP) as started:
        yield started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """For tests that change nothing."""
    with Daemon(tmp_path_factory.mktemp("shared"), *HTTP) as started:
        yield started


def until(condition: Callable[[], bool], seconds: float = HANG_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_health_and_readiness_are_pages_of_their_own(shared: Daemon) -> None:
    url = http_of(shared)
    assert httpx.get(f"{url}/healthz").text == "alive\n"
    ready = httpx.get(f"{url}/readyz")
    assert (ready.status_code, ready.json()["ready"], ready.json()["state"]) == (200, True, "serving")
    assert httpx.head(f"{url}/readyz").status_code == 200
    assert httpx.get(f"{url}/else").status_code == 404
    assert httpx.post(f"{url}/healthz").status_code == 405


def test_what_is_no_http_gets_an_error_and_disturbs_nobody(shared: Daemon) -> None:
    host, port = http_of(shared).removeprefix("http://").split(":")
    for data in (b"\x00\xff" * 40 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 70_000, b""):
        with socket.create_connection((host, int(port)), timeout=HANG_SECONDS) as peer:
            try:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                answer = peer.recv(1000)
            except OSError:  # it has closed already
                answer = b""
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert httpx.get(f"{http_of(shared)}/healthz").status_code == 200


def test_metrics_count_commands_decisions_refusals_and_capacity(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.call("add_hosts", AddHosts(hosts=tuple(hosts(4))))
        for _ in range(3):
            client.call("place", {"request": {"spec": SPEC}})
        client.call("place", {"request": {"spec": BIG}})
        client.call("place_many", {"requests": [{"spec": SPEC}, {"spec": BIG}]})
        with pytest.raises(HostlerError):
            client.call("remove_host", {"name": "nowhere"})
    found = metrics(daemon)
    assert found["hostler_commands_total", "place", "ok"] == 4
    assert found["hostler_commands_total", "remove_host", "unknown_name"] == 1
    assert found["hostler_placements_total", "placed"] == 4
    assert found["hostler_placements_total", "no_valid_host"] == 2
    assert {key[1]: value for key, value in found.items() if key[0] == "hostler_refusals_total"} == {"MEMORY_MB": 2}
    assert {key[1]: value for key, value in found.items() if key[0] == "hostler_hosts_removed_total"} == {
        "MEMORY_MB": 8
    }
    assert found["hostler_sequence",] == 7
    assert found["hostler_hosts", "up"] == 4
    assert found["hostler_instances",] == 4
    assert found["hostler_used", "VCPU"] == 4
    assert 0 < found["hostler_used", "MEMORY_MB"] < found["hostler_capacity", "MEMORY_MB"]
    assert found["hostler_fragmentation", "MEMORY_MB"] == 0
    used, capacity = found["hostler_used", "MEMORY_MB"], found["hostler_capacity", "MEMORY_MB"]
    assert found["hostler_utilisation", "MEMORY_MB"] == pytest.approx(used / capacity)
    for phase in ("queue", "journal", "decide"):
        assert found["hostler_decision_seconds_count", phase] == found["hostler_batch_commands_count",] > 0
    for phase in ("compile", "filters", "weighers", "claim"):
        assert found["hostler_placement_seconds_count", phase, "index"] > 0
        assert found["hostler_placement_seconds_sum", phase, "index"] > 0
    assert 0 < found["hostler_fsync_seconds_sum",] <= found["hostler_decision_seconds_sum", "journal"]
    assert found["hostler_fsync_seconds_count",] == found["hostler_batch_commands_count",]
    assert (found["hostler_queue_commands",], found["hostler_writable",]) == (0, 1)


def test_every_command_is_audited_with_who_when_what_and_outcome(daemon: Daemon) -> None:
    begun = time.time()
    with daemon.client() as client:
        client.call("add_hosts", AddHosts(hosts=hosts(2)))
        with pytest.raises(HostlerError):
            client.call("remove_host", {"name": "nowhere"})
    assert daemon.terminate() == 0
    lines = [msgspec.json.decode(line) for line in (daemon.folder / "data" / "audit.jsonl").read_text().splitlines()]
    assert [(line["user"], line["command"], line["outcome"]) for line in lines] == [
        ("@local", "add_hosts", "ok"),
        ("@local", "remove_host", "unknown_name"),
    ]
    assert all(begun - 60 <= line["time"] <= time.time() + 60 for line in lines)


def reloaded(daemon: Daemon, times: int = 1) -> None:
    """Send SIGHUP, and wait until it has been obeyed."""
    before = daemon.log().count("was read again") + daemon.log().count("stays as it was")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.log().count("was read again") + daemon.log().count("stays as it was") >= before + times)


def test_a_reload_changes_the_policy_and_loses_no_request(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("")
    with Daemon(tmp_path, config="policy = 'policy.toml'\n") as daemon:
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=tuple(hosts(50))))
            spread = client.call("policy").digest
        answers: list[Any] = []
        done = threading.Event()

        def load() -> None:
            with daemon.client() as mine:
                while not done.is_set():
                    answers.append(mine.call("place", {"request": {"spec": SPEC}}).placed)

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(6):
            policy.write_text(f"[filter_scheduler]\nram_weight_multiplier = {-1.0 - number}\n")
            reloaded(daemon)
        done.set()
        for thread in threads:
            thread.join()
        with daemon.client() as client:
            stacked = client.call("policy")
            assert (stacked.policy["filter_scheduler"], stacked.digest != spread) == (
                {"ram_weight_multiplier": -6.0},
                True,
            )
            assert client.call("status").sequence == len(answers) + 7
        assert len(answers) > 20
        assert all(answers)


def test_a_policy_that_cannot_be_used_leaves_everything_as_it_was(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[filter_scheduler]\nram_weight_multiplier = 2.0\n")
    with Daemon(tmp_path, config="policy = 'policy.toml'\n") as daemon, daemon.client() as client:
        before = client.call("policy")
        policy.write_text("[filter_scheduler]\nram_weight_multiplier = 'much'\n")
        reloaded(daemon)
        assert client.call("policy") == before
        assert "ram_weight_multiplier" in daemon.log()


def test_a_reload_changes_the_log_and_names_what_needs_a_restart(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        (tmp_path / "config.toml").write_text("[data]\nqueue = 5\n[operation]\nlog_level = 'warning'\n")
        daemon.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]  # it runs
        until(lambda: "data.queue has changed, which needs a restart" in daemon.log())
        assert "was read again" not in daemon.log()


def test_a_reload_names_back_ends_that_came_and_went(tmp_path: Path) -> None:
    with Daemon(tmp_path, config="[backends.one]\ndriver = 'model'\n") as daemon:
        (tmp_path / "config.toml").write_text("[backends.two]\ndriver = 'model'\n")
        daemon.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]  # it runs
        until(lambda: "was read again" in daemon.log())
        for name in ("one", "two"):
            assert f"backends.{name} has changed, which needs a restart" in daemon.log()


def test_a_policy_given_at_a_later_start_does_not_change_what_was_decided_before(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[filter_scheduler]\nram_weight_multiplier = -1.0\n")
    with Daemon(tmp_path, config="policy = 'policy.toml'\n") as daemon:
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=tuple(hosts(6))))
            placed = [client.call("place", {"request": {"spec": SPEC}}).selected for _ in range(8)]
        policy.write_text("[filter_scheduler]\nram_weight_multiplier = 1.0\n")
        daemon.restart()
        with daemon.client() as client:
            for each in placed:
                assert client.call("instance", {"uuid": each.instance_uuid}).node == each.node
            in_force = client.call("policy").policy
            assert in_force["filter_scheduler"] == {"ram_weight_multiplier": 1.0}
            assert in_force["hostler"]["prepare"] is True  # defaults that a replay must not guess are in the journal


def test_sigterm_answers_what_is_under_way_and_exits_with_0(daemon: Daemon) -> None:
    acknowledged: list[str] = []
    refused: list[HostlerError] = []

    def load() -> None:
        with daemon.client(within=2.0) as client:
            try:
                while True:
                    acknowledged.append(client.call("place", {"request": {"spec": SPEC}}).selected.instance_uuid)
            except (ConnectionLost, Stopped) as error:
                refused.append(error)

    with daemon.client() as client:
        client.call("add_hosts", AddHosts(hosts=tuple(hosts(200))))
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(acknowledged) > 50)
    assert daemon.terminate() == 0
    for thread in threads:
        thread.join()
    assert len(refused) == 4
    assert not Path(daemon.address.removeprefix("unix:")).exists()
    daemon.start()
    with daemon.client() as client:
        for uuid in acknowledged:
            assert client.call("instance", {"uuid": uuid}).uuid == uuid


def test_sigterm_answers_every_request_that_was_read_and_no_answer_is_lost_on_the_way(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--rpc", "tcp:127.0.0.1:0", config="[rpc]\nauth = 'none'\n") as daemon:
        until(lambda: "tcp:127.0.0.1" in daemon.log())
        (port,) = {int(found) for found in re.findall(r"tcp:127\.0\.0\.1:(\d+)", daemon.log())}
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(200)))
        loads = [Pipelining(port, number) for number in range(4)]
        until(lambda: all(load.answers for load in loads))
        assert daemon.terminate() == 0
        for load in loads:
            load.join()
        assert Path(daemon.address.removeprefix("unix:")).exists() is False
        daemon.start()
        with daemon.client() as client:
            listed = {uuid for node in range(200) for uuid in client.call("host", {"name": f"node-{node}"}).instances}
    assert {uuid for load in loads for uuid in load.placed()} == listed
    for load in loads:
        assert load.closed
        assert sorted(load.answers) == list(range(1, len(load.answers) + 1)), (
            "what was read is a beginning of what came"
        )
        assert {error[0] for error, _ in load.answers.values() if error} <= {"stopped"}


class Pipelining:
    """A client that sends on and on, and reads until the service closes."""

    def __init__(self, port: int, number: int) -> None:
        self.answers: dict[int, tuple[Any, Any]] = {}
        self.closed = False
        self._number = number
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._threads = [threading.Thread(target=work) for work in (self._send, self._read)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        with suppress(OSError):
            for call in range(1, 100_000):
                if self.closed:
                    return
                request = {"spec": SPEC, "instance_uuids": [uuid_of(self._number * 1_000_000 + call)]}
                self._socket.sendall(msgspec.msgpack.encode((0, call, "place", [{"request": request}])))

    def _read(self) -> None:
        unpacker = msgpack.Unpacker()
        while data := self._socket.recv(10_000):  # a reset would be an error
            unpacker.feed(data)
            for _, number, error, result in unpacker:
                self.answers[number] = error, result
            time.sleep(0.001)
        self.closed = True

    def placed(self) -> Iterator[str]:
        """Instances that the answers say were placed."""
        for error, result in self.answers.values():
            if error is None:
                yield from (selection["instance_uuid"] for selection in result["selections"])

    def join(self) -> None:
        for thread in self._threads:
            thread.join(HANG_SECONDS)
        self._socket.close()


def test_a_second_signal_does_not_wait_for_a_client_that_does_not_read(tmp_path: Path) -> None:
    config = "[operation]\ndrain_seconds = 600\n"
    with Daemon(tmp_path, config=config) as daemon, socket.socket(socket.AF_UNIX) as peer:
        peer.connect(daemon.address.removeprefix("unix:"))
        peer.sendall(20_000 * msgspec.msgpack.encode((0, 1, "status", ())))
        with daemon.client() as other:
            for _ in range(50):  # so that what was sent has been taken by now
                other.call("status")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping: SIGTERM" in daemon.log())
        assert daemon.process.poll() is None
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(HANG_SECONDS) == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--rpc", "tcp:nowhere"], 1, "rpc.listen[0]: 'tcp:nowhere' is not an address"),
        (["--rpc", "unix:/proc/none/x"], 1, "cannot listen on unix:/proc/none/x"),
        (["--rpc", "unix:{folder}/s", "--data", "/proc/none"], 4, "the data folder /proc/none cannot be used"),
        (["--rpc", "unix:{folder}/s", "--http", "127.0.0.1:1", "--config", "{folder}/none"], 1, "cannot be read"),
        (["--rpc", "unix:{folder}/s", "--http", "192.0.2.1:1"], 1, "cannot listen on tcp:192.0.2.1:1"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(tmp_path: Path, options: list[str], code: int, said: str) -> None:
    command = [str(HOSTLER), "serve", *(option.format(folder=tmp_path) for option in options)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert ended.returncode == code
    assert said in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_two_daemons_do_not_share_a_data_folder(shared: Daemon) -> None:
    where = ["--rpc", f"unix:{shared.folder}/other", "--data", str(shared.folder / "data")]
    command = [str(HOSTLER), "serve", *where, *HTTP]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert (ended.returncode, "another process uses the data folder" in ended.stderr) == (1, True)


def test_the_pages_answer_while_a_big_fleet_is_loaded(tmp_path: Path) -> None:
    with Daemon(tmp_path, *HTTP) as daemon:
        with daemon.client() as client:
            fleet = hosts(60_000)
            for start in range(0, 60_000, 5_000):
                client.call("add_hosts", AddHosts(hosts=fleet[start : start + 5_000]))
            assert client.call("snapshot") == 12
        daemon.kill()
        lines, seen = daemon.log().count("readiness at"), list[dict[str, Any]]()
        starting = threading.Thread(target=daemon.start)
        with httpx.Client() as pages:
            starting.start()
            until(lambda: daemon.log().count("readiness at") > lines)
            url = http_of(daemon)
            while not seen or not seen[-1]["ready"]:
                seen.append(pages.get(f"{url}/readyz").json())
                for page in ("healthz", "metrics"):
                    assert pages.get(f"{url}/{page}").status_code == 200
        starting.join()
        assert metrics(daemon)["hostler_hosts", "up"] == 60_000
    assert any(each.get("loading_snapshot") == 12 and each["state"] == "recovering" for each in seen)


def test_systemd_is_told_of_start_reload_stop_and_life(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(HANG_SECONDS)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with Daemon(tmp_path, env=environment) as daemon:
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
            messages: list[str] = []
            while not any(message.startswith("RELOADING=1\nMONOTONIC_USEC=") for message in messages):
                messages.append(told.recv(1000).decode())
            while messages[-1] != "READY=1":
                messages.append(told.recv(1000).decode())
            while messages.count("WATCHDOG=1") < 3:
                messages.append(told.recv(1000).decode())
            assert daemon.terminate() == 0
            while not messages[-1].startswith("STOPPING=1"):
                messages.append(told.recv(1000).decode())
    assert any(
        message.startswith("STATUS=recovering: command 0 of about 0\nEXTEND_TIMEOUT_USEC=") for message in messages
    )
    assert "READY=1\nSTATUS=serving 1 addresses" in messages


def test_spans_of_each_batch_go_to_the_exporter(tmp_path: Path) -> None:
    with Daemon(tmp_path, config="[operation]\ntraces = 'console'\n") as daemon:
        with daemon.client() as client:
            client.call("create_domain", {"id": "d"})
        assert daemon.process is not None
        assert daemon.terminate() == 0
        assert daemon.process.stdout is not None
        spans = daemon.process.stdout.read()
    assert all(f'"name": "hostler.{name}"' in spans for name in ("journal", "apply"))
