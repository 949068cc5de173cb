"""Many volume types on pools whose reports change: what the index says is what the scan says."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.storage.engine import VolumeEngine
from hostler.placement.storage.pools import pool_classes
from hostler.placement.storage.pools.policy import VolumePolicy
from hostler.placement.storage.pools.reports import BackendReport
from hostler.placement.storage.pools.request import VolumeRequest, VolumeSpec, VolumeType

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

VALUES: tuple[Any, ...] = ("gold", "silver", 1, True, 1.0, None, ["gold", 2], {"a": "b"}, "5", 5)
WISHES = ("gold", "<or> gold <or> 5", "<is> True", ">= 2", "s!= gold", "<in> old", None, "<or>", "== 1")
KEYS = ("tier", "capabilities:tier", "kind", "kind:a", "vendor:kind", "online_extend_support")
RULES = ("AvailabilityZoneFilter", "CapacityFilter", "CapabilitiesFilter", "DriverFilter")
FILTERS = ("stats.total_capacity_gb > 50", "capabilities.kind == 5", None)
RATINGS = ("min(100, stats.total_capacity_gb)", "capabilities.kind ? 90 : 30", "nonsense(", None)


def _engine(chance: random.Random) -> VolumeEngine:
    weighers = chance.sample(["CapacityWeigher", "GoodnessWeigher", "VolumeNumberWeigher"], chance.randint(1, 3))
    options: dict[str, Any] = {"scheduler_default_filters": list(RULES), "scheduler_default_weighers": weighers}
    options["capacity_weight_multiplier"] = chance.choice([1.0, -1.0])
    return VolumeEngine(policy=VolumePolicy.from_mapping({"storage": options}))


def _report(chance: random.Random, now: float) -> BackendReport:
    pools = []
    for number in range(chance.randint(1, 5)):
        total = chance.choice([20, 60, 100, "infinite"])
        pool: dict[str, Any] = {"pool_name": f"p{number}", "total_capacity_gb": total, "free_capacity_gb": total}
        pool |= {name: chance.choice(VALUES) for name in ("tier", "kind") if chance.random() < 0.8}
        if chance.random() < 0.2:
            pool["online_extend_support"] = chance.random() < 0.5
        for name, texts in (("filter_function", FILTERS), ("goodness_function", RATINGS)):
            if (text := chance.choice(texts)) is not None:
                pool[name] = text
        pools.append(pool)
    host = f"h{chance.randint(0, 4)}@b"
    return BackendReport(host=host, capabilities={"volume_backend_name": "b", "pools": pools}, at=now)


def _spec(chance: random.Random, number: int) -> VolumeSpec:
    wishes = {chance.choice(KEYS): chance.choice(WISHES) for _ in range(chance.randint(0, 3))}
    zone = chance.choice([None, None, "nova", "other"])
    return VolumeSpec(
        size_gb=chance.choice([0, 1, 5]),
        volume_type=VolumeType(name=f"t{number}", extra_specs=wishes),
        availability_zone=zone,
    )


def _alike(engine: VolumeEngine, spec: VolumeSpec) -> None:
    """A decision is what the scan says."""
    ranking = engine.rank(VolumeRequest(spec=spec))
    decision = engine.place(VolumeRequest(spec=spec))
    assert decision.removed == ranking.removed
    assert decision.placed is (len(ranking.rows) > 0)
    if decision.placed:
        best = engine.pools.fact(int(ranking.rows[0])).backend_id
        assert (decision.selected.backend_id, decision.selected.weight) == (best, ranking.weights[0])
        assert decision.selected.parts == ranking.parts(0)


def _live(chance: random.Random, engine: VolumeEngine, changes: int) -> None:
    specs = [_spec(chance, number) for number in range(20)]
    for change in range(changes):
        engine.pools.report(_report(chance, 1_000.0 + change))
        if chance.random() < 0.3:
            trial = engine.what_if()
            trial.pools.report(_report(chance, 2_000.0 + change))
            _alike(trial, chance.choice(specs))
        engine.place_many(VolumeRequest(spec=chance.choice(specs)) for _ in range(3))
        for _ in range(3):
            _alike(engine, chance.choice(specs))
    engine.fleet.check()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_volume_types_are_decided_as_by_the_scan_while_reports_change(seed: int) -> None:
    chance = random.Random(seed)
    _live(chance, _engine(chance), 8)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([("MOST_READ", 2), ("CLASSES_PER_ROW", 1), ("MOST_VERDICTS", 1)]))
def test_they_are_where_there_is_little_room_for_what_is_known(seed: int, limit: tuple[str, int]) -> None:
    chance = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_classes, *limit)
        _live(chance, _engine(chance), 6)


def test_types_that_admit_the_same_pools_share_a_ranking() -> None:
    engine = VolumeEngine(policy=VolumePolicy.cinder_default())
    engine.pools.report(_report(random.Random(1), 1_000.0))
    types = [VolumeType(name=str(number), extra_specs={"vendor:note": str(number)}) for number in range(3)]
    signatures = [engine._context.signature(VolumeRequest(spec=VolumeSpec(size_gb=1, volume_type=t))) for t in types]
    assert len({id(each.ranking) for each in signatures if each is not None}) == 1
