"""A real daemon with a back end that is kept in a file: guests survive kill -9 of the daemon at any moment."""

from __future__ import annotations

import json
import random
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler.core.engine_commands import Asked
from hostler.core.rpc.client import BlockingClient
from hostler.drivers.model.world import Content, World
from hostler.drivers.protocol import Mark
from hostler.placement.types.errors import InvalidValue, UnknownName

from ..core.orders import asked, uuid_of
from ..patience import HANG_SECONDS
from ..seeds import seeds
from .processes import HOSTLER, Daemon, metrics

CONFIG = """
[backends.lab]
driver = "model"
grace = 0.3
[backends.lab.options]
file = "{folder}/model.json"
nodes = 3
poll = 0.2
build_seconds = 0.1
[backends.lab.options.faults]
delay = 0.02
"""


def daemon_in(folder: Path, *options: str) -> Daemon:
    return Daemon(folder, *options, config=CONFIG.format(folder=folder))


def model(folder: Path) -> Content:
    return msgspec.json.decode((folder / "model.json").read_bytes(), type=Content)


def wait_for(condition: Any) -> Any:
    end = time.monotonic() + HANG_SECONDS
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it never comes to pass")


def until_ready(client: BlockingClient) -> None:
    """The first inventory has been taken."""
    wait_for(lambda: [each for each in client.call("backends") if each.nodes])


def run(daemon: Daemon, *arguments: str, code: int = 0) -> str:
    command = [str(HOSTLER), *arguments, "--server", daemon.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_the_command_line_makes_stops_starts_and_removes_a_guest(tmp_path: Path) -> None:
    with daemon_in(tmp_path) as daemon:
        with daemon.client() as client:
            until_ready(client)
        uuid = uuid_of(1)
        assert f"{uuid} active on node-" in run(daemon, "guest", "create", "--name", "web", "--uuid", uuid, "--wait")
        (guest,) = model(tmp_path).guests.values()
        assert (guest.name, guest.power) == ("web", "on")
        assert "stopped" in run(daemon, "guest", "stop", uuid, "--wait")
        assert "active" in run(daemon, "guest", "start", uuid, "--wait")
        (line,) = json.loads(run(daemon, "guest", "lives", "--json"))
        assert (line["status"], line["backend"], line["name"]) == ("active", "lab", "web")
        assert "lab" in run(daemon, "backend", "list")
        assert "answers" in run(daemon, "backend", "check", "lab")
        assert "unknown back end 'lap'" in run_error(daemon, "backend", "disable", "lap")
        assert "1 active" in run(daemon, "reconcile", "status")
        run(daemon, "backend", "disable", "lab", "--reason", "work on the racks")
        assert "work on the racks" in run(daemon, "backend", "list")
        run(daemon, "backend", "enable", "lab")
        assert "deleted" in run(daemon, "guest", "delete", uuid, "--wait")
        assert not model(tmp_path).guests
        events = run(daemon, "guest", "events", uuid)
        words = ["create_guest", "begin_build", "confirm_guest", "stop_guest", "start_guest", "clear_claim"]
        positions = [events.index(word) for word in words]
        assert positions == sorted(positions)
        run(daemon, "guest", "stop", uuid, code=1)


def test_the_command_line_makes_a_guest_with_volumes_and_moves_it(tmp_path: Path) -> None:
    with daemon_in(tmp_path) as daemon:
        with daemon.client() as client:
            until_ready(client)
        uuid, data = uuid_of(1), uuid_of(2)
        volumes = ("--volume", "5", "--volume", "size=7,name=kept,keep=yes")
        run(daemon, "guest", "create", "--uuid", uuid, *volumes, "--wait")
        (guest,) = model(tmp_path).guests.values()
        assert sorted(each.size_gb for each in model(tmp_path).volumes.values()) == [5, 7]
        assert len(guest.volumes) == 2
        run(daemon, "volume", "create", "--build", "--size-gb", "3", "--uuid", data)
        wait_for(lambda: "available" in run(daemon, "volume", "lives", "--json"))
        assert run(daemon, "guest", "attach", uuid, data, "--wait") == f"{uuid} active on {guest.node}\n"
        assert json.loads(run(daemon, "volume", "lives", "--guest", uuid, "--json"))[0]["status"] == "in_use"
        run(daemon, "guest", "detach", uuid, data, "--wait")
        assert "moving" in run(daemon, "guest", "move", uuid, "--wait")
        (moved,) = model(tmp_path).guests.values()
        assert moved.node != guest.node
        run(daemon, "guest", "delete", uuid, "--wait")
        assert sorted(each.size_gb for each in model(tmp_path).volumes.values()) == [3, 7]
        run(daemon, "volume", "delete", data)
        wait_for(lambda: len(model(tmp_path).volumes) == 1)
        assert "NAME=VALUE" in run_error(daemon, "guest", "create", "--volume", "size=5,colour=red")


def run_error(daemon: Daemon, *arguments: str) -> str:
    command = [str(HOSTLER), *arguments, "--server", daemon.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize("seed", seeds(1, "daemon and back end"))
def test_after_kill_9_at_any_moment_each_guest_is_there_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with daemon_in(tmp_path) as daemon:
        with daemon.client() as client:
            until_ready(client)
        made = 0
        for _ in range(5):
            with daemon.client() as client:
                for _ in range(4):
                    made += 1
                    client.call("create_guest", {"request": asked(made)})
                with suppress(UnknownName):  # it is deleted already
                    client.call("delete_guest", {"uuid": uuid_of(chance.randint(1, made))})
                time.sleep(chance.uniform(0, 0.3))
            daemon.restart()
        with daemon.client() as client:
            wait_for(lambda: client.call("reconcile_status").unsettled == 0)
            time.sleep(1.0)  # two inventories: orphans would be found
            wait_for(lambda: client.call("reconcile_status").unsettled == 0)
            guests = client.call("guests")
            assert {each.status for each in guests} == {"active"}
            wanted = sorted((each.uuid, each.claim, each.node) for each in guests)
            capacity = client.call("capacity")
        marks = [(Mark.parse(each.mark), each) for each in model(tmp_path).guests.values()]
        assert sorted((mark.uuid, mark.claim, each.node) for mark, each in marks if mark is not None) == wanted
        assert capacity["VCPU"].used == len(wanted)


def test_metrics_say_what_back_ends_do(tmp_path: Path) -> None:
    with daemon_in(tmp_path, "--http", "127.0.0.1:0") as daemon:
        with daemon.client() as client:
            until_ready(client)
            request: Asked = asked(1)
            client.call("create_guest", {"request": request})
            wait_for(lambda: client.call("guest", {"uuid": uuid_of(1)}).status == "active")
        found = metrics(daemon)
        assert found["hostler_guests", "lab", "active"] == 1
        assert found["hostler_backend_calls_total", "lab", "create_guest", "ok"] == 1
        assert found["hostler_backend_usable", "lab"] == 1
        assert found["hostler_build_seconds_count", "lab"] == 1


def test_a_guest_that_others_made_is_adopted_by_the_command_line(tmp_path: Path) -> None:
    world = World(time.time, tmp_path / "model.json")
    world.add(nodes=3)
    key = world.make_strangers_guest("node-1", vcpus=2, memory_mb=2_048)
    with daemon_in(tmp_path) as daemon, daemon.client() as client:
        until_ready(client)
        wait_for(lambda: client.call("strangers", {"backend": "lab"}))
        assert key in run(daemon, "guest", "strangers", "lab")
        uuid = uuid_of(1)
        adopted = run(daemon, "guest", "adopt", "lab", key, "--project", "p", "--uuid", uuid, "--wait")
        assert "active" in adopted
        line = client.call("guest", {"uuid": uuid})
        assert (line.node, line.vcpus, line.memory_mb, line.name) == ("node-1", 2, 2_048, f"stranger {key}")
        wait_for(lambda: client.call("strangers", {"backend": "lab"}) == [])
        assert "none" in run(daemon, "guest", "strangers", "lab")
        run(daemon, "guest", "adopt", "lab", key, "--project", "p", code=1)
        run(daemon, "guest", "delete", uuid, "--wait")
    assert model(tmp_path).guests == {}


def test_a_guest_is_resized_snapshot_and_its_console_told_by_the_command_line(tmp_path: Path) -> None:
    uuid, snapshot = uuid_of(1), uuid_of(2)
    with daemon_in(tmp_path) as daemon, daemon.client() as client:
        until_ready(client)
        client.call("create_guest", {"request": asked(1, project="p")})
        wait_for(lambda: client.call("guest", {"uuid": uuid}).status == "active")
        resized = run(daemon, "guest", "resize", uuid, "--vcpus", "3", "--wait")
        assert "resizing" in resized
        assert "active" in resized
        assert "url model://" in run(daemon, "guest", "console", uuid)
        without_dashes = uuid.replace("-", "").upper()
        assert "url model://" in run(daemon, "guest", "console", without_dashes)
        assert "resize_guest" in run(daemon, "guest", "events", without_dashes)
        made = run(daemon, "guest", "snapshot", uuid, "--snapshot", snapshot, "--name", "before", "--wait")
        assert f"{snapshot} available" in made
        assert "before" in run(daemon, "guest", "snapshots", uuid)
        assert "deleting" in run(daemon, "guest", "delete-snapshot", uuid, snapshot)
        wait_for(lambda: client.call("guest_snapshots", {"uuid": uuid}) == [])
        line = client.call("guest", {"uuid": uuid})
        assert (line.vcpus, line.memory_mb) == (3, 1_024)
    there = model(tmp_path)
    assert [(each.vcpus, each.memory_mb, each.power) for each in there.guests.values()] == [(3, 1_024, "on")]
    assert there.snapshots == {}
    written = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file() and "journal" in str(each))
    assert b"model://" not in written, "what consoles are reached by is kept nowhere"


def test_without_back_ends_the_questions_about_them_say_so(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon, daemon.client() as client:
        assert client.call("backends") == []
        with pytest.raises(UnknownName):
            client.call("set_backend", {"name": "lab", "enabled": False})
        assert client.call("backends") == []
        with pytest.raises(InvalidValue, match="no back ends"):
            client.call("reconcile_status")


def test_a_wrong_back_end_in_the_configuration_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[backends.lab]\ndriver = "model"\noption = 1\n')
    command = [str(HOSTLER), "serve", "--config", str(tmp_path / "config.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode != 0
    assert "config.toml:3" in done.stderr
    assert "the closest is options" in done.stderr


def test_a_driver_that_is_not_installed_is_a_problem_of_its_back_end_only(tmp_path: Path) -> None:
    config = '[backends.a]\ndriver = "modle"\n'
    with Daemon(tmp_path, config=config) as daemon, daemon.client() as client:
        status = wait_for(lambda: [each for each in client.call("reconcile_status").backends if each.problem])
        assert "unknown driver 'modle' (closest: model" in status[0].problem


def test_options_can_be_kept_in_variables_and_files(tmp_path: Path) -> None:
    (tmp_path / "prefix").write_text("from-file-\n")
    config = f'[backends.a]\ndriver = "model"\noptions = {{ prefix = "file:{tmp_path}/prefix" }}\n'
    with Daemon(tmp_path, config=config) as daemon, daemon.client() as client:
        until_ready(client)
        (backend,) = client.call("backends")
        assert backend.nodes[0] == "from-file-node-0"
    journal = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("journal-*"))
    assert b"prefix" not in journal, "options are not in the journal"
