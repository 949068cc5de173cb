"""Random commands on the engine and on a slow, obvious scheduler: the same decisions, figures and counts."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hostler.placement.storage.decision import VolumeDecision
from hostler.placement.storage.engine import VolumeEngine
from hostler.placement.storage.pools.policy import VolumePolicy
from hostler.placement.storage.pools.request import VolumeRequest, VolumeSpec

from .oracle import Oracle, Pool
from .values import random_report, random_spec

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

FILTERS = ["AvailabilityZoneFilter", "CapacityFilter", "CapabilitiesFilter", "DriverFilter", "JsonFilter"]
OPTION = {
    "CapacityWeigher": "capacity_weight_multiplier",
    "AllocatedCapacityWeigher": "allocated_capacity_weight_multiplier",
    "VolumeNumberWeigher": "volume_number_multiplier",
}


class Both:
    """The engine and the oracle, told the same."""

    def __init__(self, chance: random.Random) -> None:
        filters = FILTERS[: chance.randint(2, 5)]
        names = chance.sample([*OPTION, "GoodnessWeigher"], chance.randint(1, 4))
        weighers = {name: chance.choice([1.0, -1.0, 2.5]) if name in OPTION else 1.0 for name in names}
        options: dict[str, Any] = {OPTION[name]: value for name, value in weighers.items() if name in OPTION}
        options |= {"scheduler_default_filters": filters, "scheduler_default_weighers": names}
        self.engine = VolumeEngine(policy=VolumePolicy.from_mapping({"storage": options}))
        self.oracle = Oracle(filters, weighers)
        self.chance = chance
        self.now = 1_000.0
        self.placed: dict[str, tuple[Pool, int]] = {}
        self.specs = [random_spec(chance) for _ in range(4)]

    def command(self) -> None:
        self.now += 1
        kind = self.chance.choice(["report", "service", "place", "place", "many", "fork", "release", "extend"])
        getattr(self, kind)()

    def report(self) -> None:
        made = random_report(self.chance, self.now - self.chance.choice([0, 0, 5]))
        key = made.cluster_name or made.host
        last = self.oracle.last.get(key)
        assert self.engine.pools.report(made) is (last is None or made.at >= last.at)
        if last is None or made.at >= last.at:
            self.oracle.report(made)

    def service(self) -> None:
        if not self.engine.pools.services:
            return
        host = self.chance.choice(sorted(self.engine.pools.services))
        up = self.chance.random() < 0.6
        key = self.engine.pools.services[host].key
        self.engine.pools.set_service(host, up=up)
        self.oracle.set_up(key, up)
        if not up:
            self.placed = {
                volume: (pool, size) for volume, (pool, size) in self.placed.items() if pool in self.oracle.pools
            }

    def request(self) -> VolumeRequest:
        return VolumeRequest(spec=self.chance.choice(self.specs), now=self.now)

    def place(self) -> None:
        request = self.request()
        self.same(request.spec, self.engine.place(request))

    def many(self) -> None:
        requests = [self.request() for _ in range(self.chance.randint(1, 12))]
        for request, decision in zip(requests, list(self.engine.place_many(requests)), strict=True):
            self.same(request.spec, decision)

    def fork(self) -> None:
        """What is done on a fork leaves no trace."""
        trial = self.engine.what_if()
        trial.place_many(self.request() for _ in range(3))
        trial.pools.report(random_report(self.chance, self.now))
        trial.place(self.request())

    def same(self, spec: VolumeSpec, decision: VolumeDecision) -> None:
        ranked, removed = self.oracle.rank(spec, spec.size_gb)
        assert {name: decision.removed[name] for name in removed} == removed
        assert decision.considered == len(self.oracle.pools)
        if not ranked:
            assert decision.refusal is not None
            return
        pool, weight = ranked[0]
        assert (decision.selected.backend_id, decision.selected.weight) == (pool.name, weight)
        assert not decision.selected.parts or decision.selected.points == weight
        self.oracle.consume(pool, spec.size_gb, self.now)
        self.oracle.volumes[pool.name] += 1
        self.placed[decision.selected.volume_id] = (pool, spec.size_gb)

    def release(self) -> None:
        if self.placed:
            volume = self.chance.choice(sorted(self.placed))
            pool, size = self.placed.pop(volume)
            if pool not in self.oracle.pools:
                return
            self.engine.pools.advance(self.now)
            self.engine.release(volume)
            self.oracle.consume(pool, -size, self.now)
            self.oracle.volumes[pool.name] -= 1

    def extend(self) -> None:
        spec = self.chance.choice(self.specs)
        growth = self.chance.choice([1, 20])
        ranked, _ = self.oracle.rank(spec, growth)
        pools = self.oracle.pools
        if not pools:
            return
        pool = self.chance.choice(pools)
        request = VolumeRequest(spec=spec, now=self.now)
        decision = self.engine.extend(request, spec.size_gb + growth, pool.name)
        assert decision.placed is (pool in [each for each, _ in ranked])
        if decision.placed:
            self.oracle.consume(pool, growth, self.now)

    def check(self) -> None:
        """The same pools in the same order, with the same figures."""
        pools = self.engine.pools
        rows = pools.live_rows().tolist()
        assert [pools.fact(row).backend_id for row in rows] == [pool.name for pool in self.oracle.pools]
        for row, pool in zip(rows, self.oracle.pools, strict=True):
            columns = pools.columns
            assert columns["allocated"][row] == pool.allocated
            assert columns["provisioned"][row] == pool.provisioned
            assert isinstance(pool.free, str) or columns["free"][row] == pool.free
        self.engine.fleet.check()


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32))
@example(933301166)  # a filter function reads the request, once a goodness function did
def test_engine_and_oracle_decide_alike_whatever_was_done(seed: int) -> None:
    both = Both(random.Random(seed))
    for _ in range(25):
        both.command()
        both.check()


@pytest.mark.soak
@settings(max_examples=4_000, deadline=None)
@given(st.integers(0, 2**32))
def test_engine_and_oracle_decide_alike_for_long(seed: int) -> None:
    both = Both(random.Random(seed))
    for _ in range(80):
        both.command()
    both.check()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_the_index_and_the_scan_decide_alike(seed: int) -> None:
    both = Both(random.Random(seed))
    for _ in range(12):
        both.command()
    request = both.request()
    ranking = both.engine.rank(request)
    decision = both.engine.place(request)
    assert decision.removed == ranking.removed
    if decision.placed:
        first = both.engine.pools.fact(int(ranking.rows[0])).backend_id
        assert (decision.selected.backend_id, decision.selected.weight) == (first, ranking.weights[0])
        assert decision.selected.parts == ranking.parts(0)
