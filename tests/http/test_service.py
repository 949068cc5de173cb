"""`hostler serve` as a process: its start, its end, what it keeps, and what hostile clients cannot do to it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostler.core.cli import main

from ..patience import HANG_SECONDS
from ..seeds import seeds
from .calling import HOSTLER, Process, serving

RP = "11111111-2222-3333-4444-555555555555"


def ask(process: Process, method: str, path: str, body: Any = None, version: str = "1.39") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=HANG_SECONDS)
    headers = {"openstack-api-version": f"placement {version}", "x-auth-token": "notused"}
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, headers | ({"content-type": "application/json"} if data else {}))
    answer = connection.getresponse()
    raw = answer.read()
    connection.close()
    return answer.status, json.loads(raw) if raw else None


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    config = tmp_path_factory.mktemp("limited") / "hostler.toml"
    config.write_text("[placement.limits]\nidle_seconds = 2\nhead_seconds = 1\nbody_seconds = 1\nconnections = 50\n")
    with serving("--config", str(config)) as process:
        yield process


def test_a_long_search_holds_up_nobody_else(tmp_path: Path) -> None:
    wishes = [f"resources_{n}=VCPU:{17 + 29 * n % 31},MEMORY_MB:{47 - 29 * n % 31}" for n in range(18)]
    puzzle = f"/allocation_candidates?{'&'.join(wishes)}&group_policy=none&limit=1"
    config = tmp_path / "hostler.toml"
    config.write_text("[placement.limits]\ncandidate_steps = 200000000\ndrain_seconds = 0.1\n")
    with serving("--config", str(config)) as process:
        _, root = ask(process, "POST", "/resource_providers", {"name": "root"})
        for number in range(6):
            child = {"name": f"bin-{number}", "parent_provider_uuid": root["uuid"]}
            _, made = ask(process, "POST", "/resource_providers", child)
            inventories = {"VCPU": {"total": 100}, "MEMORY_MB": {"total": 100 + number}}
            body = {"resource_provider_generation": 0, "inventories": inventories}
            ask(process, "PUT", f"/resource_providers/{made['uuid']}/inventories", body)
        head = f"GET {puzzle} HTTP/1.1\r\nHost: x\r\nOpenStack-API-Version: placement 1.39\r\n\r\n"
        with socket.create_connection(("127.0.0.1", process.port)) as asking:
            asking.sendall(head.encode())
            for _ in range(20):
                assert ask(process, "GET", "/allocation_candidates?resources=VCPU:1&limit=1")[0] == 200
            asking.setblocking(False)
            with pytest.raises(BlockingIOError):
                asking.recv(1)


# start and end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_is_ready_and_ends_cleanly(number: int) -> None:
    with serving() as process:
        assert process.url.startswith("http://127.0.0.1:")
        assert ask(process, "GET", "/")[0] == 200
        assert process.end(number) == 0


def test_it_ends_without_waiting_for_clients_that_stay_connected(tmp_path: Path) -> None:
    config = tmp_path / "hostler.toml"
    config.write_text(f"[placement.limits]\ndrain_seconds = {10 * HANG_SECONDS}\n")
    with (
        serving("--config", str(config)) as process,
        socket.create_connection(("127.0.0.1", process.port)) as idle,
    ):
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        idle.recv(65_536)
        assert process.end() == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--placement", "nowhere"], "is not an address"),
        (["--placement", "127.0.0.1:99999"], "is not an address"),
        (["--placement", "0.0.0.0:0"], "can be reached from elsewhere"),
        (["--placement", "0.0.0.0:0", "--auth", "none"], "lets every client that reaches 0.0.0.0:0 do everything"),
        (["--placement", "[::]:0", "--auth", "noauth2"], "lets every client that reaches [::]:0 do everything"),
        (["--placement", "127.0.0.1:0", "--config", "/nonexistent.toml"], "/nonexistent.toml"),
        (["--placement", "127.0.0.1:0", "--auth", "keystone"], "auth_url"),
        (["--placement", "127.0.0.1:0", "--data", "/proc/none"], "data folder"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    options: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *options]) == (4 if "data folder" in problem else 1)
    said = capsys.readouterr().err
    assert problem in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--placement", f"127.0.0.1:{taken.getsockname()[1]}"]) == 1
    assert "cannot listen on" in capsys.readouterr().err


def test_each_request_is_one_line_of_json_in_the_log() -> None:
    with serving() as process:
        ask(process, "GET", "/resource_providers?name=x", version="1.20")
        process.end()
        (line,) = [json.loads(line) for line in process.log if "/resource_providers" in line]
    expected = {"event": "request", "method": "GET", "path": "/resource_providers", "query": "name=x", "status": 200}
    assert {key: line[key] for key in expected} == expected
    assert line["microversion"] == "1.20"
    assert line["request_id"].startswith("req-")


# data


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    acknowledged: list[str] = []
    for life in range(3):
        with serving("--data", data) as process:
            assert {one["name"] for one in ask(process, "GET", "/resource_providers")[1]["resource_providers"]} >= set(
                acknowledged
            )
            stop = threading.Timer(0.7, process.popen.kill)
            stop.start()
            try:
                for number in range(10_000):
                    name = f"life-{life}-{number}"
                    if ask(process, "POST", "/resource_providers", {"name": name})[0] == 200:
                        acknowledged.append(name)
            except (OSError, http.client.HTTPException):
                pass  # it died as it should
            stop.join()
    assert len(acknowledged) > 10
    with serving("--data", data) as process:
        names = [one["name"] for one in ask(process, "GET", "/resource_providers")[1]["resource_providers"]]
    assert set(acknowledged) <= set(names)
    assert len(names) <= len(acknowledged) + 3  # at most one a life that was not acknowledged any more


def test_everything_there_is_to_see_is_the_same_after_kill_9(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    consumer = {"project_id": "p", "user_id": "u", "consumer_generation": None, "consumer_type": "INSTANCE"}
    views = ["", "/inventories", "/traits", "/aggregates", "/usages", "/allocations"]
    paths = [f"/resource_providers/{RP}{view}" for view in views]
    paths += [f"/allocations/{RP}", "/usages?project_id=p", "/allocation_candidates?resources=CUSTOM_X:1", "/traits"]
    with serving("--data", data) as process:
        body = {"inventories": {"CUSTOM_X": {"total": 9}}, "resource_provider_generation": 0}
        ask(process, "POST", "/resource_providers", {"name": "rp", "uuid": RP})
        ask(process, "PUT", "/resource_classes/CUSTOM_X")
        ask(process, "PUT", f"/resource_providers/{RP}/inventories", body)
        ask(process, "PUT", "/traits/CUSTOM_T")
        ask(
            process,
            "PUT",
            f"/resource_providers/{RP}/traits",
            {"traits": ["CUSTOM_T"], "resource_provider_generation": 1},
        )
        ask(
            process,
            "PUT",
            f"/resource_providers/{RP}/aggregates",
            {"aggregates": [RP], "resource_provider_generation": 2},
        )
        held = {RP: {"resources": {"CUSTOM_X": 3}}}
        assert ask(process, "PUT", f"/allocations/{RP}", consumer | {"allocations": held})[0] == 204
        before = [ask(process, "GET", path) for path in paths]
        process.end(signal.SIGKILL)
    assert all(status == 200 for status, _ in before)
    with serving("--data", data) as process:
        assert [ask(process, "GET", path) for path in paths] == before


def test_a_data_folder_serves_one_process_at_a_time(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    command = [str(HOSTLER), "serve", "--placement", "127.0.0.1:0", "--data", data]
    with serving("--data", data):
        ran = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert ran.returncode == 1
    assert "another process uses the data folder" in ran.stderr


# hostile clients


def test_a_body_of_50_megabytes_is_refused_and_the_client_sees_why(limited: Process) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", limited.port, timeout=HANG_SECONDS)
    body = b"x" * 50_000_000
    connection.request("POST", "/resource_providers", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 413
    connection.close()


def test_a_large_body_of_nonsense_does_not_hold_up_others(limited: Process) -> None:
    body: dict[str, Any] = {
        "allocations": {f"{number:08}-0000-4000-8000-000000000000": {"resources": {}} for number in range(100_000)}
    }
    large = threading.Thread(target=ask, args=(limited, "PUT", f"/allocations/{RP}", body))
    large.start()
    answered = 0
    while large.is_alive():
        assert ask(limited, "GET", "/")[0] == 200
        answered += 1
    large.join()
    assert answered > 1, "the others were answered only after the large body"


def test_half_open_and_silent_connections_are_closed_and_give_way(limited: Process) -> None:
    waiting = [socket.create_connection(("127.0.0.1", limited.port)) for _ in range(60)]  # more than are allowed
    for number, one in enumerate(waiting):
        if number % 2:
            one.sendall(b"POST /resource_providers HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n")
    assert ask(limited, "GET", "/")[0] == 200  # once the first have timed out
    for one in waiting:
        one.settimeout(HANG_SECONDS)
        while one.recv(65_536):
            pass
        one.close()


def test_random_bytes_do_no_harm(limited: Process) -> None:
    for seed in seeds(40, "random bytes"):
        with socket.create_connection(("127.0.0.1", limited.port)) as one:
            one.settimeout(HANG_SECONDS)
            one.sendall(bytes((seed * 31 + place * place) % 256 for place in range(300)) + b"\r\n\r\n")
            one.shutdown(socket.SHUT_WR)
            while one.recv(65_536):
                pass
    assert ask(limited, "GET", "/")[0] == 200
