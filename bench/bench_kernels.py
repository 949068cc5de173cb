"""The kernels alone under pytest-benchmark: numbers in, numbers out, nothing of the engine around them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from hostler.bench.rounds import Arguments, in_rounds
from hostler.bench.workload import make_fleet, make_policy, make_requests, random_uuids
from hostler.ext import batch
from hostler.ext.ranking import Ranking
from hostler.ext.tables import NameTable, UuidTable, parse_many
from hostler.placement.decide.engine import Engine
from hostler.placement.fleet.fleet import Fleet

HOSTS = 10_000
GUESTS = 1_000


@pytest.fixture(scope="module")
def ranked() -> tuple[Fleet, Ranking, int]:
    """A fleet, the ranking of one flavor over it, and the flavor's shape."""
    engine = Engine(make_fleet(HOSTS), make_policy("nova"))
    signature = engine._context.signature(make_requests(engine.fleet, 1)[0])
    return engine.fleet, signature.ranking, signature.shape


@pytest.mark.benchmark(group="ranking, 10,000 hosts")
def test_best_of_an_unchanged_fleet(benchmark: BenchmarkFixture, ranked: tuple[Fleet, Ranking, int]) -> None:
    _, ranking, _ = ranked
    benchmark(ranking.best)


@pytest.mark.benchmark(group="ranking, 10,000 hosts")
@pytest.mark.parametrize("changed", [1, 100])
def test_best_after_changes(benchmark: BenchmarkFixture, ranked: tuple[Fleet, Ranking, int], changed: int) -> None:
    fleet, ranking, _ = ranked
    rows = np.random.default_rng(1).permutation(HOSTS)[:changed].astype(np.int32)

    def best() -> tuple[list[int], list[float]]:
        fleet._kernel.mark_changed(rows)
        return ranking.best()

    benchmark(best)


@pytest.mark.benchmark(group="scans, 10,000 hosts")
@pytest.mark.parametrize("scan", ["stages", "score_rows", "parts"])
def test_scan(benchmark: BenchmarkFixture, ranked: tuple[Fleet, Ranking, int], scan: str) -> None:
    _, ranking, _ = ranked
    rows = np.flatnonzero(ranking.stages() == 0).astype(np.int32)
    benchmark(getattr(ranking, scan), *(() if scan == "stages" else (rows,)))


class Batch:
    """The arrays of a call of the batch kernel, for guests of one shape."""

    def __init__(self, fleet: Fleet, ranking: Ranking, shape: int) -> None:
        self.fleet, self.ranking, self.shape = fleet, ranking, shape
        self.made, self.gone = 0, True
        self.consumers: NDArray[np.int32] = np.empty(GUESTS, np.int32)

    def arguments(self) -> Arguments:
        """New uuids, and everything else as before; the guests of the last call go."""
        if not self.gone:
            batch.release(self.fleet._kernel, self.consumers)
        self.made, self.gone = self.made + 1, False
        uuids = np.stack([np.full(GUESTS, self.made, np.uint64), np.arange(GUESTS, dtype=np.uint64)], axis=1)
        nothing, shapes = np.zeros(GUESTS, np.int32), np.full(GUESTS, self.shape, np.int32)
        rows, scores, counts = np.empty(GUESTS, np.int32), np.empty(GUESTS), np.empty((GUESTS, 12), np.int64)
        inputs = (nothing, shapes, uuids, nothing, nothing, np.full(GUESTS, -1, np.int32), True)
        return (self.fleet._kernel, [self.ranking], *inputs, rows, self.consumers, scores, counts), {}


@pytest.mark.benchmark(group="batch kernel, 1,000 guests")
def test_place(benchmark: BenchmarkFixture, ranked: tuple[Fleet, Ranking, int]) -> None:
    calls = Batch(*ranked)
    in_rounds(benchmark, batch.place, setup=calls.arguments, rounds=20)
    batch.release(calls.fleet._kernel, calls.consumers)


@pytest.mark.benchmark(group="batch kernel, 1,000 guests")
def test_release(benchmark: BenchmarkFixture, ranked: tuple[Fleet, Ranking, int]) -> None:
    calls = Batch(*ranked)

    def placed() -> Arguments:
        inputs, _ = calls.arguments()
        batch.place(*inputs)
        calls.gone = True
        return (calls.fleet._kernel, calls.consumers), {}

    in_rounds(benchmark, batch.release, setup=placed, rounds=20)


@pytest.mark.benchmark(group="tables, 10,000 names or uuids")
def test_names(benchmark: BenchmarkFixture) -> None:
    names = np.char.add(b"host-", np.arange(HOSTS).astype("S"))
    benchmark(lambda: NameTable().add_many(names))


@pytest.mark.benchmark(group="tables, 10,000 names or uuids")
def test_uuids_parsed(benchmark: BenchmarkFixture) -> None:
    benchmark(parse_many, random_uuids(np.random.default_rng(1), HOSTS))


@pytest.mark.benchmark(group="tables, 10,000 names or uuids")
def test_uuids_added(benchmark: BenchmarkFixture) -> None:
    words = parse_many(random_uuids(np.random.default_rng(1), HOSTS))
    values = np.arange(HOSTS, dtype=np.int32)
    benchmark(lambda: UuidTable().add_many(words, values))
