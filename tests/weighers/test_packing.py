"""Vector packing rules: the published scenario of dslab-iaas, and the forms of each rule against each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hostler import Engine, Flavor, Fleet, Host, Policy, Request, RequestSpec, add_hosts
from hostler.placement.view import FleetView, HostView
from hostler.placement.weighers.packing import PACKING_WEIGHERS

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


@pytest.mark.parametrize("name", PACKING_WEIGHERS)
def test_the_vectorised_form_says_what_the_host_form_says(name: str) -> None:
    engine = scenario(policy(name))
    weigher, fleet, asked = engine.policy.weighers[0], engine.fleet, Request(spec=spec(2, 1))
    values = weigher.values(FleetView(fleet), asked)
    assert values is not None
    assert np.allclose(values, [weigher.raw(HostView(fleet, row), asked) for row in range(fleet.rows)], rtol=1e-12)


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
