"""``hostler plan`` against a daemon and on a fleet's file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostler import Flavor, Fleet, Host, RequestSpec, RunningInstance, add_hosts, save_fleet
from tests.core.orders import uuid_of

from ..patience import HANG_SECONDS
from .commands import Run
from .processes import HOSTLER, Daemon

HOST = {"vcpus_total": 8, "cpu_allocation_ratio": 1.0, "total_usable_ram_mb": 16_384, "total_usable_disk_gb": 100}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Three hosts; node-0 holds three guests."""
    with Daemon(tmp_path) as started:
        with started.client() as client:
            client.call("create_domain", {"id": "d"})
            client.call("create_project", {"id": "p", "domain": "d"})
            client.call("add_hosts", {"hosts": [{"host": f"node-{number}", **HOST} for number in range(3)]})
            for name in ("node-1", "node-2"):
                client.call("set_service", {"name": name, "disabled": True})
            for number in range(3):
                spec = {"flavor": {"name": "m", "vcpus": 2, "memory_mb": 2_048}}
                client.call(
                    "place", {"request": {"spec": spec, "instance_uuids": [uuid_of(number)], "project_id": "p"}}
                )
            for name in ("node-1", "node-2"):
                client.call("set_service", {"name": name, "disabled": False})
        yield started


def on(run: Run, node: str) -> list[str]:
    instances = json.loads(run("host", "show", node, "--json")[1])["instances"]
    assert isinstance(instances, list)
    return instances


def test_a_host_is_drained_by_a_plan_that_is_checked_run_and_taken_back(run: Run, tmp_path: Path) -> None:
    plan, back = str(tmp_path / "plan.json"), str(tmp_path / "back.json")
    code, said = run("plan", "drain", "node-0", "--per-host", "2", "-o", plan)
    assert code == 0
    assert "1 of 1 host drained; 3 moves in 2 waves" in said
    assert "after wave 2: node-0 empty" in said
    assert len(on(run, "node-0")) == 3, "a plan changes nothing"
    assert "every move is possible" in run("plan", "check", plan)[1]
    assert "add --yes" in run("plan", "run", plan)[1]
    assert len(on(run, "node-0")) == 3
    code, said = run("plan", "run", plan, "--yes")
    assert code == 0, said
    assert "wave 2: 1 moved; empty: node-0" in said
    assert on(run, "node-0") == []
    assert run("move", "list")[1] == "none\n"
    assert run("plan", "rollback", plan, "-o", back)[0] == 0
    assert run("plan", "run", back, "--yes")[0] == 0
    assert len(on(run, "node-0")) == 3


def test_a_run_stops_on_a_difference_and_reverts_what_is_under_way(run: Run, tmp_path: Path) -> None:
    plan = str(tmp_path / "plan.json")
    run("plan", "drain", "node-0", "-o", plan)
    run("release", uuid_of(1))
    code, said = run("plan", "run", plan, "--yes")
    assert code == 3
    assert "the instance is gone" in said
    assert run("move", "list")[1] == "none\n"


def test_a_command_moves_each_guest_and_its_failure_stops_the_run(run: Run, tmp_path: Path) -> None:
    plan, log = str(tmp_path / "plan.json"), tmp_path / "moved"
    run("plan", "drain", "node-0", "--per-host", "1", "-o", plan)
    script = tmp_path / "move.py"
    script.write_text(
        "import sys\nwith open(sys.argv[1], 'a') as log: print(*sys.argv[2:], file=log)\n"
        "sys.exit(len(open(sys.argv[1]).readlines()) > 1)\n"
    )
    command = f"{sys.executable} {script} {log} {{instance}} {{source}} {{target}}"
    code, said = run("plan", "run", plan, "--yes", "--execute", command)
    assert code == 1
    assert "ended with 1; waves before it have run" in said
    assert len(log.read_text().splitlines()) == 2
    assert all(" node-0 node-" in line for line in log.read_text().splitlines())
    assert len(on(run, "node-0")) == 2
    assert run("move", "list")[1] == "none\n"


def test_quotas_are_kept_while_both_ends_are_held(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    with daemon.client() as client:
        client.call("set_limits", {"scope": "project:p", "limits": {"VCPU": 8}})
    plan = str(tmp_path / "plan.json")
    assert "3 moves in 3 waves" in run("plan", "drain", "node-0", "-o", plan)[1]
    assert run("plan", "run", plan, "--yes")[0] == 0


def test_room_is_made_and_hosts_are_emptied(run: Run) -> None:
    assert "0 moves, at least 0 are needed" in run("plan", "make-room", "--vcpus", "8")[1]
    assert "0 hosts emptied, at most 0 can be" in run("plan", "consolidate")[1]
    assert run("plan", "make-room", "--vcpus", "9")[0] == 3


def test_room_for_more_of_a_shape_and_evacuation_are_planned_by_a_service_and_on_a_file(
    run: Run, tmp_path: Path
) -> None:
    """A file of two hosts of 8 with a guest of 4 each: one move makes room for 8; node-0 of the service holds 6 of 8,
    so that two hosts are free for guests of 8 at most."""
    assert "room for 2 of" in run("plan", "defragment", "--vcpus", "8", "--memory-mb", "2048")[1]
    code, said = run("plan", "evacuate-proof")
    assert code == 0
    assert "3 of 3 hosts may fail" in said
    fleet, held = Fleet(), RunningInstance(flavor=Flavor(name="half", vcpus=4, memory_mb=2_048))
    hosts = [
        Host(
            host=f"h{at}",
            vcpus_total=8,
            cpu_allocation_ratio=1.0,
            total_usable_ram_mb=16_384,
            instances={uuid_of(90 + at): held},
        )
        for at in range(2)
    ]
    add_hosts(fleet, hosts)
    save_fleet(fleet, tmp_path / "state")
    state = ("--state", str(tmp_path / "state"))
    said = run("plan", "defragment", "--vcpus", "8", "--memory-mb", "2048", *state)[1]
    assert "(before 0, at most 1 can be); 1 move " in said
    assert run("plan", "evacuate-proof", *state)[0] == 0


def test_a_guest_that_came_with_its_host_moves_by_what_it_holds(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    with daemon.client() as client:
        guest = {"flavor": {"name": "m", "vcpus": 1, "memory_mb": 512}}
        host = {"host": "node-3", **HOST, "instances": {uuid_of(9): guest}}
        client.call("add_hosts", {"hosts": [host]})
    plan = str(tmp_path / "plan.json")
    assert "judged by what they hold" in run("plan", "drain", "node-3", "-o", plan)[1]
    assert run("plan", "run", plan, "--yes")[0] == 0
    assert on(run, "node-3") == []


def test_a_plan_is_made_from_a_fleets_file(run: Run, tmp_path: Path) -> None:
    fleet, spec = Fleet(), RequestSpec(flavor=Flavor(name="m", vcpus=2, memory_mb=2_048))
    guests = {uuid_of(number): RunningInstance(flavor=spec.flavor) for number in range(2)}
    add_hosts(fleet, [Host(host="a", instances=guests, **HOST), Host(host="b", **HOST)])  # type: ignore[arg-type]  # of two types
    state, plan = str(tmp_path / "state.hostler"), str(tmp_path / "plan.json")
    save_fleet(fleet, state, requests=dict.fromkeys(guests, spec))
    code, said = run("plan", "drain", "a", "--state", state, "-o", plan)
    assert code == 0
    assert "2 moves in 1 wave" in said
    assert "not known" not in said
    assert run("plan", "check", plan, "--state", state) == (0, "every move is possible\n")
    assert "drain a" in run("plan", "show", plan)[1]
    assert json.loads(run("plan", "show", plan, "--json")[1])["goal"]["do"] == "drain"
    picture = tmp_path / "plan.html"
    assert run("plan", "show", plan, "--picture", str(picture))[0] == 0
    told = picture.read_text()
    assert "1 of 1 host drained; 2 moves in 1 wave" in told
    assert ">-4 ∅<" in told, "two guests of 2 GiB leave, and the host is empty"
    assert ">+4<" in told


def test_a_plan_that_cannot_be_read_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("[]")
    assert "not a plan" in run("plan", "check", str(tmp_path / "no.json"))[1]
    assert "cannot be read" in run("plan", "show", str(tmp_path / "absent.json"))[1]


def test_a_run_that_is_interrupted_leaves_nothing_half_done_and_goes_on(
    run: Run, daemon: Daemon, tmp_path: Path
) -> None:
    plan, started, free = str(tmp_path / "plan.json"), tmp_path / "started", tmp_path / "free"
    run("plan", "drain", "node-0", "--per-host", "1", "-o", plan)
    script = tmp_path / "move.py"
    script.write_text(
        "import pathlib, signal, sys\nstarted, free, instance = sys.argv[1:]\n"
        f"if instance.endswith('{uuid_of(1)[-4:]}') and not pathlib.Path(free).exists():\n"
        "    pathlib.Path(started).touch()\n    signal.pause()\n"
    )
    command = [str(HOSTLER), "plan", "run", plan, "--yes", "--server", daemon.address]
    command += ["--execute", f"{sys.executable} {script} {started} {free} {{instance}}"]
    running = subprocess.Popen(command, text=True, stderr=subprocess.PIPE, start_new_session=True)
    try:
        end = time.monotonic() + HANG_SECONDS
        while not started.exists():
            assert time.monotonic() < end, "the command is never run"
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=HANG_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 130, said
    assert "interrupted in wave 2: run it again to go on" in said
    assert run("move", "list")[1] == "none\n"
    assert len(on(run, "node-0")) == 2
    free.touch()
    code, told = run("plan", "run", plan, "--yes", "--execute", " ".join(command[-1:]))
    assert code == 0, told
    assert "wave 1: has run before" in told
    assert on(run, "node-0") == []


@pytest.mark.parametrize("victim", ["client", "service"])
def test_moves_that_a_killed_run_has_left_under_way_are_gone_on_with(
    run: Run, daemon: Daemon, tmp_path: Path, victim: str
) -> None:
    """Both ends are held after the kill: the guests count as not moved, and the command runs again for each."""
    plan, log, free = str(tmp_path / "plan.json"), tmp_path / "ran", tmp_path / "free"
    run("plan", "drain", "node-0", "--per-host", "2", "-o", plan)
    script = tmp_path / "move.py"
    script.write_text(
        "import pathlib, sys, time\nlog, free, instance = sys.argv[1:]\n"
        "with open(log, 'a') as lines: print(instance, file=lines)\n"
        "while not pathlib.Path(free).exists(): time.sleep(0.05)\n"
    )
    execute = f"{sys.executable} {script} {log} {free} {{instance}}"
    command = [str(HOSTLER), "plan", "run", plan, "--yes", "--server", daemon.address, "--execute", execute]
    running = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + HANG_SECONDS
        while not log.exists() or len(log.read_text().splitlines()) < 2:
            assert time.monotonic() < end, "the commands are never run"
            time.sleep(0.05)
        if victim == "service":
            daemon.restart()
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert len(json.loads(run("move", "list", "--json")[1])) == 2
    free.touch()
    assert "2 moves of a run that was killed would go on" in run("plan", "run", plan)[1]
    code, said = run("plan", "run", plan, "--yes", "--execute", execute)
    assert code == 0, said
    assert said.startswith("2 moves of a run that was killed: moved\nwave 1: has run before\nwave 2: 1 moved")
    assert sorted(log.read_text().split()) == sorted(uuid_of(each) for each in (0, 0, 1, 1, 2))
    assert run("move", "list")[1] == "none\n"
    assert on(run, "node-0") == []


def test_a_move_of_others_is_no_move_of_the_plan(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    run("plan", "drain", "node-0", "-o", str(plan))
    moves = {move["instance"]: move["target"] for move in json.loads(plan.read_text())["waves"][0]["moves"]}
    other = {"node-1": "node-2", "node-2": "node-1"}[moves[uuid_of(1)]]
    with daemon.client() as client:
        client.call("begin_move", {"uuid": uuid_of(1), "kind": "live_migrate", "target": other})
    code, said = run("plan", "run", str(plan), "--yes")
    assert (code, "a move of it is under way" in said or f"is on {other}" in said) == (3, True), said


MODEL = """
[backends.lab]
driver = "model"
[backends.lab.options]
file = "{folder}/model.json"
nodes = 3
poll = 0.1
build_seconds = 0.01
"""


def test_guests_of_a_back_end_are_moved_by_it_and_taken_back(tmp_path: Path) -> None:
    with Daemon(tmp_path, config=MODEL.format(folder=tmp_path)) as daemon:
        at = ("--server", daemon.address)
        with daemon.client() as client:
            end = time.monotonic() + HANG_SECONDS
            while not [each for each in client.call("backends") if each.nodes]:
                assert time.monotonic() < end, "the back end never reports its nodes"
                time.sleep(0.05)
            client.call("add_hosts", {"hosts": [{"host": "not-of-it", **HOST}]})
        for number in range(3):
            size = ("--vcpus", "1", "--memory-mb", "1024", "--wait")
            code, said = hostler("guest", "create", "--uuid", uuid_of(number), *size, *at)
            assert code == 0, said
        code, said = hostler("guest", "stop", uuid_of(0), "--wait", *at)
        assert code == 0, said
        nodes = {where(daemon, number) for number in range(3)}
        source = where(daemon, 0)
        assert "not-of-it" not in nodes
        plan, back = str(tmp_path / "plan.json"), str(tmp_path / "back.json")
        assert hostler("plan", "drain", source, "-o", plan, *at)[0] == 0
        moves = [move for wave in json.loads(Path(plan).read_text())["waves"] for move in wave["moves"]]
        assert {move["instance"]: move["kind"] for move in moves} == {
            move["instance"]: "cold_migrate" if move["instance"] == uuid_of(0) else "live_migrate" for move in moves
        }
        assert uuid_of(0) in {move["instance"] for move in moves}
        assert "not-of-it" not in {move["target"] for move in moves}, "the back end could not move a guest there"
        assert "add --yes" in hostler("plan", "run", plan, *at)[1]
        code, said = hostler("plan", "run", plan, "--yes", *at)
        assert code == 0, said
        content = json.loads((tmp_path / "model.json").read_text())
        assert [each["node"] for each in content["guests"].values()].count(source) == 0
        assert hostler("plan", "rollback", plan, "-o", back, *at)[0] == 0
        code, said = hostler("plan", "run", back, "--yes", *at)
        assert code == 0, said
        assert where(daemon, 0) == source


def where(daemon: Daemon, number: int) -> str:
    with daemon.client() as client:
        node = client.call("guest", {"uuid": uuid_of(number)}).node
    assert isinstance(node, str)
    return node


def hostler(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([str(HOSTLER), *arguments], capture_output=True, text=True, timeout=HANG_SECONDS)
    return done.returncode, done.stdout + done.stderr
