"""Random choices: the ranking draws what the scan draws, alone and in batches, and prefers no host."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler import Engine, Flavor, Fleet, Host, Policy, Request, RequestSpec, add_hosts
from hostler.placement.decide.scan_placement import ScanPlacement
from hostler.placement.types.decision import Decision

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

GROUP = "6e760000-0000-4000-8000-00000000000{}"
SMALL = RequestSpec(flavor=Flavor(name="small", vcpus=1, memory_mb=1024), prepare=False)
POLICIES: dict[str, dict[str, Any]] = {
    "any host": {"weight_classes": [], "shuffle_best_same_weighed_hosts": True},
    "any of the best": {"weight_classes": ["NumInstancesWeigher"], "shuffle_best_same_weighed_hosts": True},
    "one of three": {"host_subset_size": 3},
    "one of three of any": {"weight_classes": [], "shuffle_best_same_weighed_hosts": True, "host_subset_size": 3},
    "any even one": {"weight_classes": ["CosineWeigher"], "shuffle_best_same_weighed_hosts": True},
}


def engine(hosts: int, *, seed: int = 5, vcpus: int = 4, **options: Any) -> Engine:
    fleet = Fleet()
    add_hosts(fleet, [Host(host=f"h{n}", vcpus_total=vcpus, total_usable_ram_mb=65_536) for n in range(hosts)])
    for number, policy in enumerate(("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity")):
        fleet.add_server_group(GROUP.format(number), policy)
    return Engine(fleet, Policy.from_mapping({"filter_scheduler": options}), seed=seed)


def told(decision: Decision) -> Any:
    """What must be the same however it was decided; parts are not told of batches."""
    chosen = [(each.host, each.weight, each.alternates, each.allocations) for each in decision.selections]
    return decision.sequence, decision.seed, decision.considered, decision.removed, chosen


@pytest.mark.parametrize("options", POLICIES.values(), ids=POLICIES)
@given(hosts=st.integers(1, 40), seed=st.integers(0, 2**63 - 1), data=st.data())
@settings(deadline=None, max_examples=15)
def test_the_ranked_way_draws_what_the_scan_draws(
    options: dict[str, Any], hosts: int, seed: int, data: st.DataObject
) -> None:
    scanned, ranked, batch = (engine(hosts, seed=seed, **options) for _ in range(3))
    groups = st.sampled_from([None, None, *(GROUP.format(number) for number in range(4))])
    requests = []
    for number in range(data.draw(st.integers(1, 25), label="requests")):
        request = Request(
            spec=SMALL,
            server_group=data.draw(groups),
            alternates=data.draw(st.sampled_from([0, 0, 0, 2, 100])),
            instance_uuids=(f"00000000-0000-4000-8000-{number:012}",),
        )
        requests.append(request)
        assert ranked._context.ranked_way(request) is not None
        decision = ScanPlacement(scanned._context, request).place()
        assert told(ranked.place(request)) == told(decision)
    assert [told(decision) for decision in batch.place_many(requests)] == [
        told(each) for each in (engine_again(hosts, seed, options, requests))
    ]


def engine_again(hosts: int, seed: int, options: dict[str, Any], requests: list[Request]) -> list[Decision]:
    """The same requests, one by one."""
    one_by_one = engine(hosts, seed=seed, **options)
    return [one_by_one.place(request) for request in requests]


@pytest.mark.parametrize("options", POLICIES.values(), ids=POLICIES)
def test_guests_whose_hosts_are_drawn_are_placed_together(options: dict[str, Any]) -> None:
    assert engine(3, **options)._context.signature(Request(spec=SMALL)).simple


@pytest.mark.parametrize("options", [POLICIES["any host"], POLICIES["any of the best"]], ids=["any host", "any best"])
def test_each_of_the_equal_hosts_is_chosen_equally_often(options: dict[str, Any]) -> None:
    """Pearson's chi-square of 3,000 decisions among 50 hosts; 85.4 is exceeded once in a thousand."""
    trial = engine(50, vcpus=1000, **options)
    times: Counter[str] = Counter()
    for _ in range(3000):
        decision = trial.place(Request(spec=SMALL))
        times[decision.host] += 1
        trial.release(decision.selected.instance_uuid)
    counts = np.array([times[f"h{number}"] for number in range(50)])
    assert ((counts - 60.0) ** 2 / 60.0).sum() < 85.4


def test_the_seed_decides() -> None:
    def hosts(seed: int) -> list[str]:
        return [
            each.host for each in engine(20, seed=seed, **POLICIES["any host"]).place_many([Request(spec=SMALL)] * 20)
        ]

    assert hosts(1) == hosts(1)
    assert hosts(1) != hosts(2)


def test_one_of_the_best_few_is_taken_and_no_other() -> None:
    options: dict[str, Any] = {
        "weight_classes": ["NumInstancesWeigher"],
        "num_instances_weight_multiplier": -1.0,
        "host_subset_size": 3,
    }
    chosen = {engine(9, seed=seed, **options).place(Request(spec=SMALL)).host for seed in range(60)}
    assert chosen == {"h0", "h1", "h2"}
