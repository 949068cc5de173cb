"""The same inputs and seed give the same bytes: on one core, on several, on a cluster of two workers, whatever the hash
seed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostler.core.cli import main

from .values import written

BUSY = "arrival_s,lifetime_s,vcpus,memory_gb,batch,group\n" + "".join(
    f"{300 * n},{600 + 1800 * (n % 3)},{1 + n % 2},2,{n // 2},{'g' if n % 5 < 2 else ''}\n" for n in range(40)
)
SPREAD = {
    "sweep": ["sweep", "--sizes", "2,3", "--cpu-ratios", "1,2", "--policies", "nova,random", "--make-hours", "12"],
    "compare": ["compare", "--policies", "nova,best-fit", "--seeds", "2", "--make-hours", "12", "--wait", "1"],
    "forecast": ["forecast", "--days", "2", "--seeds", "3", "--growth", "9", "--target", "1"],
}
ALONE = {
    "run": ["run", "--make-hours", "24", "--wait", "1"],
    "size": ["size", "--target", "1", "--make-hours", "12"],
}


def arguments(folder: Path, command: list[str]) -> list[str]:
    shape = ["--hosts", "3", "--vcpus", "4", "--memory-gb", "8"]
    return ["simulate", *command, "--trace", written(folder, BUSY), *shape, "--json"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as started:
        yield started.scheduler_address


@pytest.mark.parametrize("name", SPREAD)
def test_however_runs_are_spread_the_bytes_are_the_same(
    tmp_path: Path, capsysbinary: Any, cluster: str, name: str
) -> None:
    given = arguments(tmp_path, SPREAD[name])
    answers = []
    for spread in (["--workers", "1"], ["--workers", "2"], ["--workers", "3"], ["--cluster", cluster]):
        assert main([*given, *spread]) == 0
        answers.append(capsysbinary.readouterr().out)
    assert len(answers[0]) > 200
    assert set(answers) == {answers[0]}


def answer(given: list[str], hash_seed: str) -> bytes:
    """What a process of its own prints."""
    command = [sys.executable, "-c", "import sys; from hostler.core.cli import main; sys.exit(main())", *given]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed})
    return done.stdout


@pytest.mark.parametrize("name", ALONE)
def test_hash_seeds_and_processes_change_nothing(tmp_path: Path, name: str) -> None:
    given = arguments(tmp_path, ALONE[name])
    one = answer(given, "1")
    assert one == answer(given, "2")
    assert len(one) > 200


def test_another_seed_gives_another_answer(tmp_path: Path, capsysbinary: Any) -> None:
    given = arguments(tmp_path, ALONE["run"])
    for seed in ("0", "1"):
        assert main([*given, "--seed", seed]) == 0
    one, other = capsysbinary.readouterr().out.splitlines()
    assert one != other
