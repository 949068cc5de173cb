"""bench/engine.py: what its command prints, at sizes that take no time, and that the same seed makes the same work."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hostler.bench import engine as bench
from hostler.bench.workload import POLICIES, make_arrays, make_fleet, make_requests

KEYS = {
    "hosts",
    "decisions",
    "placed",
    "policy",
    "single",
    "seed",
    "cpu_us_per_decision",
    "wall_us_per_decision",
    "p99_us",
    "bytes_per_host",
    "release_cpu_us",
    "load_seconds",
    "signatures",
    "first_decision_ms",
}


def measured(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """The JSON object that the command prints."""
    assert bench.main(["--hosts=120", "--requests=60", "--batch=20", "--json", *options]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("single", [False, True], ids=["batches", "single"])
def test_prints_one_object_with_sane_figures(capsys: pytest.CaptureFixture[str], policy: str, single: bool) -> None:
    result = measured(capsys, f"--policy={policy}", *(["--single"] if single else []))
    assert result.keys() >= KEYS
    assert (result["hosts"], result["decisions"], result["policy"], result["single"]) == (120, 60, policy, single)
    assert 0 < result["placed"] <= 60
    assert result["signatures"] >= 1
    for name in (
        "cpu_us_per_decision",
        "wall_us_per_decision",
        "p99_us",
        "release_cpu_us",
        "first_decision_ms",
        "load_seconds",
    ):
        assert result[name] > 0, name
    assert 100 < result["bytes_per_host"] < 100_000


@pytest.mark.parametrize("policy", POLICIES)
def test_batches_and_single_calls_place_the_same_guests(policy: str) -> None:
    batches, single = (bench.run(hosts=100, requests=40, batch=20, policy=policy, single=way) for way in (False, True))
    assert batches.placed == single.placed


def test_as_many_guests_are_released_as_placed(capsys: pytest.CaptureFixture[str]) -> None:
    result = measured(capsys)
    assert result["released"] == result["placed"]


def test_without_json_it_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--hosts=50", "--requests=10"]) == 0
    assert "cpu_us_per_decision" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", ["--hosts=0", "--hosts=many", "--policy=fastest", "--fill=2", "--no-such-option", "surplus"]
)
def test_a_wrong_command_line_exits_with_2_and_says_why(capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    assert bench.main([wrong]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert wrong.removeprefix("--").split("=")[0] in said.err


def test_the_same_seed_makes_the_same_fleet_and_requests() -> None:
    (one, two), other = (make_arrays(50, seed=3) for _ in range(2)), make_arrays(50, seed=4)
    assert all(np.array_equal(one.figures[name], two.figures[name]) for name in one.figures)
    assert not np.array_equal(one.template_of, other.template_of)
    first, again = (make_requests(make_fleet(50), 30, policy="affinity", seed=3) for _ in range(2))
    assert [(each.instance_uuids, each.flavor, each.server_group) for each in first] == [
        (each.instance_uuids, each.flavor, each.server_group) for each in again
    ]


def test_the_fleet_is_in_use_at_about_what_was_asked() -> None:
    fleet = make_fleet(1_000, fill=0.6)
    total, free = fleet.column("total_usable_ram_mb"), fleet.column("free_ram_mb")
    assert 0.55 < 1.0 - free.sum() / total.sum() < 0.65
    assert len(fleet._classes) > 9
