"""Loading a fleet under pytest-benchmark: from arrays, from Host values with and without NUMA cells, from a
snapshot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hostler.bench.rounds import in_rounds
from hostler.bench.workload import hosts_with_cells, load, make_arrays, make_fleet
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.load.bulk import add_hosts
from hostler.placement.persist import file as fleet_file

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
    fleet, path = make_fleet(100_000), tmp_path / "fleet"
    fleet_file.save(fleet, path)
    in_rounds(benchmark, getattr(fleet_file, step), *((fleet, path) if step == "save" else (path,)), rounds=ROUNDS)
