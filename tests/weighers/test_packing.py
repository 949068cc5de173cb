"""Vector packing rules: the published scenario of dslab-iaas, and the kernel's form of each rule against the host's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler import Engine, Flavor, Fleet, Host, Policy, Request, RequestSpec, add_hosts
from hostler.placement.fleet.host_view import HostView
from hostler.placement.types.decision import ScorePart
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import Aggregate
from hostler.placement.weighers.packing import PACKING_WEIGHERS, DotProductWeigher
from tests.weighers.scoring import score

pytestmark = pytest.mark.kernel_twin

GROUP = "6e760000-0000-4000-8000-000000000001"
HOSTS = [(10, 5), (10, 5), (13, 4), (13, 4)]
PLACED = [("h1", (6, 2)), ("h2", (6, 2)), ("h3", (7, 1)), ("h4", (9, 1))]
REQUESTS = [(2, 2), (3, 1), (1, 1)]


def policy(*weighers: str, **options: float) -> Policy:
    return Policy.from_mapping({"filter_scheduler": {"weight_classes": list(weighers), **options}})


def spec(cpus: int, memory_gib: int, **wishes: Any) -> RequestSpec:
    return RequestSpec(flavor=Flavor(name="f", vcpus=cpus, memory_mb=memory_gib * 1024), **wishes)


def scenario(policy: Policy) -> Engine:
    fleet = Fleet()
    hosts = [
        Host(host=f"h{n}", vcpus_total=cpus, cpu_allocation_ratio=1.0, total_usable_ram_mb=gib * 1024)
        for n, (cpus, gib) in enumerate(HOSTS, 1)
    ]
    add_hosts(fleet, hosts)
    engine = Engine(fleet, policy)
    for host, guest in PLACED:
        engine.place(Request(spec=spec(*guest, force_hosts=(host,))))
    return engine


@pytest.mark.parametrize(
    ("rule", "hosts"),
    [
        (policy(), "121"),
        (policy("CPUWeigher", cpu_weight_multiplier=-1.0), "122"),
        (policy("CPUWeigher"), "312"),
        (policy("DotProductWeigher"), "341"),
        (policy("WeightedDotProductWeigher"), "314"),
        (policy("L2NormDiffWeigher"), "414"),
        (policy("CosineWeigher"), "133"),
        (policy("DeltaPerpWeigher"), "433"),
    ],
    ids=["first fit", "best fit", "worst fit", *PACKING_WEIGHERS],
)
def test_the_published_scenario_is_met(rule: Policy, hosts: str) -> None:
    engine = scenario(rule)
    assert "".join(engine.place(Request(spec=spec(*asked))).host[1:] for asked in REQUESTS) == hosts
    batch = scenario(rule)
    decisions = batch.place_many(Request(spec=spec(*asked)) for asked in REQUESTS)
    assert "".join(decision.host[1:] for decision in decisions) == hosts


def test_first_fit_with_no_two_on_a_host_meets_the_published_scenario() -> None:
    engine = scenario(policy())
    engine.fleet.add_server_group(GROUP, "anti-affinity")
    hosts = [engine.place(Request(spec=spec(*asked), server_group=GROUP)).host for asked in REQUESTS]
    assert hosts == ["h1", "h2", "h3"]


def raw_values(name: str, capacity: Any, used: Any, asked: Any) -> Any:
    """The rules as their papers write them, over arrays [hosts, 2]."""
    load, part = (used / capacity).mean(axis=0), asked / capacity
    if name == "DotProductWeigher":
        return ((capacity - used) * asked / capacity**2).sum(axis=1)
    if name == "WeightedDotProductWeigher":
        return (load * (1 - used / capacity) * part).sum(axis=1)
    if name == "L2NormDiffWeigher":
        return -(load * (1 - used / capacity - part) ** 2).sum(axis=1)
    unit = capacity / np.linalg.norm(capacity, axis=1)[:, None]
    if name == "CosineWeigher":
        return (unit * (used + asked)).sum(axis=1) / np.linalg.norm(used + asked, axis=1)
    away = [np.abs(unit[:, 0] * each[:, 1] - unit[:, 1] * each[:, 0]) for each in (used, used + asked)]
    return away[0] - away[1]


@pytest.mark.parametrize("name", PACKING_WEIGHERS)
def test_raw_values_are_those_of_the_rule(name: str) -> None:
    engine, asked = scenario(policy(name)), (2, 1)
    used = np.array([guest for _, guest in PLACED])
    weigher, request = engine.policy.weighers[0], Request(spec=spec(*asked))
    hosts = [HostView(engine.fleet, row) for row in range(len(HOSTS))]
    expected = raw_values(name, np.array(HOSTS), used, np.array(asked))
    assert [weigher.raw(host, request) for host in hosts] == pytest.approx(expected.tolist(), rel=1e-9)
    assert [part.raw for part in explained(engine, request, name)] == [weigher.raw(host, request) for host in hosts]


def explained(engine: Engine, request: Request, name: str) -> list[ScorePart]:
    """The weigher's part of each host's score, by host."""
    hosts = sorted(engine.explain(request, top=len(HOSTS)).top, key=lambda host: host.host)
    return [part for host in hosts for part in host.parts if part.weigher == name]


@pytest.mark.parametrize("name", PACKING_WEIGHERS)
def test_a_host_without_cpus_or_memory_has_a_raw_value_too(name: str) -> None:
    fleet = Fleet()
    figures: list[dict[str, Any]] = [
        {},
        {"cpu_allocation_ratio": 0.0},
        {"ram_allocation_ratio": 1e-38},
        {"total_usable_ram_mb": 0},
    ]
    add_hosts(
        fleet,
        [
            Host(host=f"h{n}", **({"vcpus_total": 4, "total_usable_ram_mb": 4096} | each))
            for n, each in enumerate(figures)
        ],
    )
    engine = Engine(fleet, policy(name))
    assert engine.place(Request(spec=spec(1, 1))).host == "h0"
    assert all(
        np.isfinite(engine.policy.weighers[0].raw(HostView(fleet, row), Request(spec=spec(1, 1)))) for row in range(4)
    )


@given(data=st.data(), name=st.sampled_from(list(PACKING_WEIGHERS)), seed=st.integers(0, 2**16))
@settings(deadline=None, max_examples=60)
def test_every_decision_is_that_of_the_host_form(data: st.DataObject, name: str, seed: int) -> None:
    """Whatever ends, multipliers and other weighers there are, and whatever was placed before."""
    ends = data.draw(st.sampled_from([(None, None), (0.2, None), (None, 0.3), (-0.1, 0.4)]))
    own: Any = type("Own", (PACKING_WEIGHERS[name],), {"name": "Own", "minval": ends[0], "maxval": ends[1]})
    rule = Policy.from_mapping(
        {
            "filter_scheduler": {
                "weight_classes": data.draw(st.sampled_from([[], ["RAMWeigher"], ["CosineWeigher", "CPUWeigher"]])),
                "ram_weight_multiplier": data.draw(st.sampled_from([1.0, -0.3])),
            }
        },
        weighers=[own],
    )
    rng = np.random.default_rng(seed)
    slow = Aggregate(uuid=GROUP, name="slow", metadata={own.option: data.draw(st.sampled_from(["2.5", "-1"]))})
    fleet = Fleet()
    add_hosts(
        fleet,
        [
            Host(
                host=f"h{n}",
                vcpus_total=int(rng.integers(4, 12)),
                cpu_allocation_ratio=float(rng.choice([1.0, 1.5])),
                total_usable_ram_mb=int(rng.integers(4, 12)) * 1024,
                aggregates=(slow,) if n % 3 == 0 else (),
            )
            for n in range(int(rng.integers(2, 40)))
        ],
    )
    engine, specs = Engine(fleet, rule), [spec(1, 1), spec(2, 1), spec(1, 2)]
    for _ in range(12):
        request = Request(spec=specs[int(rng.integers(3))])
        ranked = engine.rank(request)
        hosts = [HostView(fleet, int(row)) for row in sorted(ranked.rows.tolist())]
        expected = score(hosts, request, engine.policy.weighers)
        assert ranked.weights.tolist() == [one.total for one in expected]
        decision = engine.place(request) if rng.random() < 0.5 else engine.place_many([request])[0]
        assert decision.placed == bool(expected)
        if decision.placed:
            best = expected[0]
            assert (decision.host, decision.selected.weight) == (hosts[best.host_index].host, best.total)
            if rng.random() < 0.4:
                engine.release(decision.selected.instance_uuid)


def test_guests_of_packing_rules_are_placed_together() -> None:
    """No rule of these needs Python between two decisions of a batch."""
    for name in PACKING_WEIGHERS:
        engine = scenario(policy(name))
        assert engine._context.signature(Request(spec=spec(1, 1))).simple


def test_a_formula_that_the_kernels_do_not_have_is_refused() -> None:
    class Wrong(DotProductWeigher):
        name = "Wrong"
        number = 17

    with pytest.raises(InvalidValue, match=r"Wrong\.formula must return a Formula"):
        scenario(Policy.from_mapping({}, weighers=[Wrong]))


def test_a_rule_that_looks_at_all_hosts_weighs_none_that_is_in_no_fleet() -> None:
    weigher = policy("L2NormDiffWeigher").weighers[0]
    with pytest.raises(InvalidValue, match="weighs hosts of a fleet only"):
        weigher.raw(Host(host="h", vcpus_total=1, total_usable_ram_mb=1), Request(spec=spec(1, 1)))


@pytest.mark.parametrize("name", PACKING_WEIGHERS)
def test_ranked_decisions_follow_every_change_of_the_fleet(name: str) -> None:
    """A ranking that is kept up to date chooses as one that is made anew."""
    kept, rng = scenario(policy(name)), np.random.default_rng(1)
    specs = [spec(1, 1), spec(2, 1), spec(1, 2)]
    for _ in range(30):
        chosen = specs[int(rng.integers(3))]
        anew = kept.fork(policy(name)).place(Request(spec=chosen))
        decision = kept.place(Request(spec=chosen))
        assert decision.placed == anew.placed
        if decision.placed:
            assert decision.host == anew.host
            if rng.random() < 0.5:
                kept.release(decision.selected.instance_uuid)
