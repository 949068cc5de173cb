"""A filter or weigher that a policy names twice: as in Nova it runs twice, and a weigher's points count twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hostler import Engine, Flavor, Fleet, Host, Policy, Request, RequestSpec, add_hosts

UUID = "00000000-0000-4000-8000-{:012}"
REQUEST = Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=2, memory_mb=1_024)))


def engine(**options: Any) -> Engine:
    fleet, draw = Fleet(), np.random.default_rng(7)
    add_hosts(
        fleet,
        [
            Host(
                host=f"h{i}",
                vcpus_total=int(draw.integers(1, 64)),
                total_usable_ram_mb=int(draw.integers(1, 64)) * 1_024,
                num_instances=int(draw.integers(0, 4)),
                num_io_ops=int(draw.integers(0, 9)),
            )
            for i in range(60)
        ],
    )
    return Engine(fleet, Policy.from_mapping({"filter_scheduler": options}))


def test_a_weigher_that_is_named_twice_counts_twice() -> None:
    twice = engine(weight_classes=["RAMWeigher", "CPUWeigher", "RAMWeigher"])
    doubled = engine(weight_classes=["RAMWeigher", "CPUWeigher"], ram_weight_multiplier=2.0)
    assert twice.rank(REQUEST).weights.tolist() == pytest.approx(doubled.rank(REQUEST).weights.tolist(), abs=1e-12)
    for _ in range(40):
        one, other = twice.place(REQUEST), doubled.place(REQUEST)
        assert one.host == other.host
        assert [part.weigher for part in one.selected.parts] == ["RAMWeigher", "CPUWeigher", "RAMWeigher"]


def test_what_is_said_of_a_doubled_weigher_leaves_out_both() -> None:
    twice = engine(weight_classes=["RAMWeigher", "CPUWeigher", "RAMWeigher"])
    doubled = engine(weight_classes=["RAMWeigher", "CPUWeigher"], ram_weight_multiplier=2.0)
    said = [each for each in twice.explain(REQUEST).counterfactuals if each.startswith("without")]
    assert said == [each for each in doubled.explain(REQUEST).counterfactuals if each.startswith("without")]
    assert said


@pytest.mark.parametrize(
    "name", ["IoOpsFilter", "ServerGroupAntiAffinityFilter", "NumInstancesFilter", "ComputeFilter"]
)
def test_a_filter_that_is_named_twice_removes_what_it_removes_once(name: str) -> None:
    others = ["ComputeCapabilitiesFilter", "IsolatedHostsFilter"]
    once, twice = engine(enabled_filters=[name, *others]), engine(enabled_filters=[name, *others, name])
    for each in (once, twice):
        each.fleet.add_server_group(UUID.format(500), "anti-affinity")
    for number in range(70):
        request = REQUEST.with_changes(
            server_group=UUID.format(500) if "Group" in name else None, instance_uuids=(UUID.format(number),)
        )
        one, other = once.place(request), twice.place(request)
        assert (one.removed, one.refusal, one.selections) == (other.removed, other.refusal, other.selections)
    assert once.explain(REQUEST).refused == twice.explain(REQUEST).refused
