"""Loading a fleet under pytest-benchmark: from arrays, from Host values with and without NUMA cells, from a
snapshot."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hostler.bench.rounds import in_rounds
from hostler.bench.workload import hosts_with_cells, load, make_arrays, make_fleet
from hostler.placement.fleet import Fleet
from hostler.placement.load import add_hosts

ROUNDS = 5


@pytest.mark.benchmark(group="load_hosts")
@pytest.mark.parametrize("hosts", [1_000, 10_000, 100_000])
def test_load_hosts(benchmark: BenchmarkFixture, hosts: int) -> None:
    arrays = make_arrays(hosts)
    in_rounds(benchmark, load, arrays, rounds=ROUNDS)


@pytest.mark.benchmark(group="add_hosts, 1,000 hosts")
@pytest.mark.parametrize("cells", [True, False], ids=["two NUMA cells", "no NUMA cells"])
def test_add_hosts(benchmark: BenchmarkFixture, cells: bool) -> None:
    hosts = list(hosts_with_cells(make_arrays(1_000)))
    if not cells:
        hosts = [replace(host, numa_topology=None) for host in hosts]
    in_rounds(benchmark, lambda: add_hosts(Fleet(), hosts), rounds=ROUNDS)


@pytest.mark.benchmark(group="snapshot, 100,000 hosts")
@pytest.mark.parametrize("step", ["save", "load"])
def test_snapshot(benchmark: BenchmarkFixture, tmp_path: Path, step: str) -> None:
    if importlib.util.find_spec("hostler.placement.fleet_file") is None:
        pytest.skip("there is no placement/fleet_file.py yet")
    file: Any = importlib.import_module("hostler.placement.fleet_file")
    fleet, path = make_fleet(100_000), tmp_path / "fleet"
    file.save(fleet, path)
    in_rounds(benchmark, getattr(file, step), *((fleet, path) if step == "save" else (path,)), rounds=ROUNDS)
