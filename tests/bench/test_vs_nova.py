"""bench/vs_nova.py without Nova: what it writes for the driver, and what it says where Nova can't be had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostler.bench import engine, vs_nova
from hostler.bench.workload import make_requests
from hostler.placement.fleet.fleet import Fleet


def test_the_driver_is_told_the_whole_fleet_in_json() -> None:
    hosts = vs_nova.make_hosts(30, seed=1)
    values = json.loads(json.dumps(vs_nova.fleet_values(hosts)))
    assert [value["name"] for value in values["hosts"]] == [host.host for host in hosts]
    assert sum(len(aggregate["hosts"]) for aggregate in values["aggregates"]) == 2 * len(hosts)
    assert all(len(value["numa"]) == 2 for value in values["hosts"])


def test_the_driver_is_told_a_request_s_group_by_its_policy() -> None:
    fleet = Fleet()
    (request,) = make_requests(fleet, 1, policy="heavy")
    value = vs_nova.request_value(fleet, request)
    assert value["group"] == [request.server_group, "anti-affinity"]
    assert json.loads(json.dumps(value)) == value


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "thesis.txt"
    kept.write_text("years of work")
    assert engine.main([f"--venv={tmp_path}"], vs_nova.app) == 3
    assert kept.exists()
    assert "is no virtual environment" in capsys.readouterr().err


def test_an_environment_that_cannot_be_made_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert engine.main([f"--venv={tmp_path / 'venv'}"], vs_nova.app) == 3
    assert "could not be made" in capsys.readouterr().err


def test_an_unknown_set_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert engine.main(["--sets", "light"], vs_nova.app) == 2
    assert "the sets are default, heavy, numa" in capsys.readouterr().err
