"""The engine's calls under pytest-benchmark, to see what a change does to them. Figures to quote come from curve.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hostler.bench.rounds import Arguments, in_rounds
from hostler.bench.workload import POLICIES, make_fleet, make_policy, make_requests
from hostler.placement.decide.engine import Engine
from hostler.placement.types.request import Request

ROUNDS = 10
SIZES = (1_000, 10_000)


class Stream:
    """An engine under load: batches of new guests, each as large as what was released before it."""

    def __init__(self, hosts: int, policy: str, size: int) -> None:
        self.engine = Engine(make_fleet(hosts, policy=policy), make_policy(policy))
        made = make_requests(self.engine.fleet, size * (ROUNDS + 3), policy=policy)
        self._batches = [made[start : start + size] for start in range(0, len(made), size)]
        self._alive: list[Sequence[Request]] = []
        for _ in range(2):
            self.engine.place_many(self.next())

    def next(self) -> Sequence[Request]:
        """The next batch; the oldest of three goes."""
        self._alive.append(self._batches.pop(0))
        if len(self._alive) > 2:
            self.engine.release(self.placed(self._alive.pop(0)))
        return self._alive[-1]

    def placed(self, batch: Sequence[Request]) -> list[str]:
        """Uuids of a batch's guests that are on a host."""
        names = [request.instance_uuids[0] for request in batch]
        return [name for name in names if self.engine._context.rows_holding(name)]


def _time(benchmark: BenchmarkFixture, stream: Stream, target: Callable[[Sequence[Request]], object]) -> None:
    in_rounds(benchmark, target, setup=lambda: ((stream.next(),), {}), rounds=ROUNDS)


@pytest.mark.benchmark(group="place_many, 500 guests")
@pytest.mark.parametrize("hosts", SIZES)
@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "numa"])
def test_place_many(benchmark: BenchmarkFixture, policy: str, hosts: int) -> None:
    stream = Stream(hosts, policy, 500)
    _time(benchmark, stream, stream.engine.place_many)


@pytest.mark.benchmark(group="place_many, 50 guests with a NUMA cell")
def test_place_many_numa(benchmark: BenchmarkFixture) -> None:
    stream = Stream(1_000, "numa", 50)
    _time(benchmark, stream, stream.engine.place_many)


@pytest.mark.benchmark(group="place, 100 guests one by one")
@pytest.mark.parametrize("hosts", SIZES)
def test_place(benchmark: BenchmarkFixture, hosts: int) -> None:
    stream = Stream(hosts, "nova", 100)
    _time(benchmark, stream, lambda batch: [stream.engine.place(request) for request in batch])


@pytest.mark.benchmark(group="release, 500 guests")
def test_release(benchmark: BenchmarkFixture) -> None:
    engine = Engine(make_fleet(10_000), make_policy("nova"))
    made = make_requests(engine.fleet, 500 * ROUNDS)

    def placed() -> Arguments:
        batch = [made.pop() for _ in range(500)]
        engine.place_many(batch)
        return ([request.instance_uuids[0] for request in batch],), {}

    in_rounds(benchmark, engine.release, setup=placed, rounds=ROUNDS)


@pytest.fixture(scope="module")
def usual() -> tuple[Engine, Request]:
    """Ten thousand hosts, and a request that was decided once."""
    engine = Engine(make_fleet(10_000), make_policy("nova"))
    (request,) = make_requests(engine.fleet, 1)
    engine.place(request)
    return engine, request.with_changes(instance_uuids=())


@pytest.mark.benchmark(group="questions, 10,000 hosts")
@pytest.mark.parametrize("question", ["explain", "rank", "fits"])
def test_question(benchmark: BenchmarkFixture, usual: tuple[Engine, Request], question: str) -> None:
    engine, request = usual
    in_rounds(benchmark, getattr(engine, question), request, rounds=ROUNDS)


@pytest.mark.benchmark(group="forks, 10,000 hosts")
def test_what_if(benchmark: BenchmarkFixture, usual: tuple[Engine, Request]) -> None:
    engine, request = usual
    benchmark(lambda: (engine.what_if().place(request), engine.fleet))


@pytest.mark.benchmark(group="first decision of all")
@pytest.mark.parametrize("hosts", SIZES)
def test_first_decision(benchmark: BenchmarkFixture, hosts: int) -> None:
    engine = Engine(make_fleet(hosts), make_policy("nova"))
    (request,) = make_requests(engine.fleet, 1)

    def forget() -> None:
        engine._context.compiled.forget()

    in_rounds(benchmark, engine.place, request.with_changes(instance_uuids=()), setup=forget, rounds=ROUNDS)
