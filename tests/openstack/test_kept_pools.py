"""Kept pools follow Cinder's pool states by what changes, and judge its requests as its filters and weighers do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hostler.drivers.openstack.cinder.kept_pools import KeptPools, NotModelled

OPTIONS: dict[str, Any] = {
    "scheduler_default_filters": ["AvailabilityZoneFilter", "CapacityFilter", "CapabilitiesFilter"],
    "scheduler_default_weighers": ["CapacityWeigher"],
}


def pool(name: str, free: Any = 100, **changes: Any) -> SimpleNamespace:
    """A PoolState of 1,000 GiB in zone az1."""
    values: dict[str, Any] = {
        **{"host": name, "cluster_name": None, "capabilities": {"ssd": "true"}, "total_capacity_gb": 1000},
        **{"free_capacity_gb": free, "allocated_capacity_gb": 0, "provisioned_capacity_gb": 0},
        **{"reserved_percentage": 0, "max_over_subscription_ratio": 20.0, "thin_provisioning_support": False},
        **{"filter_function": None, "service": {"availability_zone": "az1"}},
    }
    values.update(changes)
    return SimpleNamespace(**values, backend_id=values["cluster_name"] or name)


def asked(size: int | None = 10, **changes: Any) -> dict[str, Any]:
    spec = {"volume_properties": {"size": size, "attach_status": "detached"}}
    return {"size": size, "volume_type": {}, "resource_type": {}, "request_spec": spec, **changes}


def judged(kept: KeptPools, pools: list[SimpleNamespace], request: dict[str, Any]) -> list[str]:
    return list(kept.judge(pools, request).weights)


def kept_pools(**options: Any) -> KeptPools:
    kept = KeptPools()
    kept.use({**OPTIONS, **options})
    return kept


A, B, C = "h1@lvm#a", "h1@lvm#b", "h2@lvm#c"


def test_pools_that_pass_come_best_first() -> None:
    assert judged(kept_pools(), [pool(A, 50), pool(B, 200), pool(C, 5)], asked()) == [B, A]


def test_what_was_consumed_counts_and_only_its_backend_is_read_again() -> None:
    kept, pools = kept_pools(), [pool(A, 150), pool(B, 100), pool(C, 20)]
    assert judged(kept, pools, asked())[0] == A
    assert kept.changes == 2
    pools[0].free_capacity_gb -= 140
    assert judged(kept, pools, asked(20)) == [B, C]
    assert kept.changes == 3
    assert judged(kept, pools, asked(20)) == [B, C]
    assert kept.changes == 3


def test_equal_pools_come_in_the_order_that_cinder_has_them_in() -> None:
    kept, pools = kept_pools(), [pool(A), pool(B), pool(C)]
    assert judged(kept, pools, asked()) == [A, B, C]
    found = kept.judge([pools[2], pools[1], pools[0]], asked())
    assert list(found.weights) == [C, B, A]
    assert "CapacityWeigher" in kept.reason(found, A)


def test_extra_specs_are_compared_with_what_was_reported_and_capacity_with_what_is_left() -> None:
    kept, state = kept_pools(), pool(A, 150, capabilities={"free_capacity_gb": 150})
    roomy = {"name": "roomy", "extra_specs": {"free_capacity_gb": ">= 100"}}
    shared = {"name": "shared", "extra_specs": {"multiattach": "False"}}
    state.free_capacity_gb, state.multiattach = 50, False
    assert judged(kept, [state], asked(volume_type=roomy, resource_type=roomy)) == [A]
    assert judged(kept, [state], asked(60, volume_type=roomy, resource_type=roomy)) == []
    assert judged(kept, [state], asked(volume_type=shared, resource_type=shared)) == []
    state.capabilities = {"free_capacity_gb": 90}
    assert judged(kept, [state], asked(volume_type=roomy, resource_type=roomy)) == []


def test_only_the_given_pools_are_judged() -> None:
    kept, pools = kept_pools(), [pool(A), pool(B), pool(C)]
    judged(kept, pools, asked())
    assert judged(kept, pools[2:], asked()) == [C]


def test_pools_that_are_not_given_leave_the_weights_of_the_others_alone() -> None:
    pools = [pool(A, 150), pool(B, 100), pool(C, 900)]
    kept, alone = kept_pools(), kept_pools()
    kept.judge(pools, asked())
    assert kept.judge(pools[:2], asked()).weights == alone.judge(pools[:2], asked()).weights


def test_a_pool_that_is_reported_no_more_is_gone() -> None:
    kept = kept_pools()
    judged(kept, [pool(A), pool(B)], asked())
    assert judged(kept, [pool(B)], asked()) == [B]
    assert len(kept) == 1


def test_a_cluster_s_pool_is_named_by_the_cluster() -> None:
    assert judged(kept_pools(), [pool(A, cluster_name="cl@lvm#a")], asked()) == ["cl@lvm#a"]


def test_zones_and_extra_specs_are_judged() -> None:
    kept, pools = kept_pools(), [pool(A), pool(C, service={"availability_zone": "az2"}, capabilities={})]
    assert judged(kept, pools, asked(availability_zone="az2")) == [C]
    fast = {"name": "fast", "extra_specs": {"ssd": "true"}}
    assert judged(kept, pools, asked(volume_type=fast, resource_type=fast)) == [A]
    pools[1].service = {"availability_zone": "az1"}
    pools[1].free_capacity_gb = 99
    assert judged(kept, pools, asked(availability_zone="az2")) == []


def test_a_service_that_changes_its_zone_alone_is_read_again() -> None:
    kept, pools = kept_pools(), [pool(A)]
    assert judged(kept, pools, asked(availability_zone="az1")) == [A]
    pools[0].service = {"availability_zone": "az2"}
    assert judged(kept, pools, asked(availability_zone="az1")) == []
    assert judged(kept, pools, asked(availability_zone="az2")) == [A]


def test_a_cluster_is_where_the_service_is_that_serves_it_now() -> None:
    kept = kept_pools()
    judged(kept, [pool(A, cluster_name="cl@lvm#a")], asked())
    taken_over = [pool(C, cluster_name="cl@lvm#a", service={"availability_zone": "az2"})]
    assert judged(kept, taken_over, asked(availability_zone="az2")) == ["cl@lvm#a"]
    assert judged(kept, taken_over, asked(availability_zone="az1")) == []


def test_an_extend_needs_room_for_the_growth_and_a_retype_none_where_it_is() -> None:
    kept, pools = kept_pools(), [pool(A, 15), pool(C, 3)]
    assert judged(kept, pools, asked(10, new_size=20)) == [A]
    assert judged(kept, pools, asked(10, new_size=12)) == [A, C]
    assert C in judged(kept, pools, asked(10, vol_exists_on=C))
    assert judged(kept, pools, asked(0)) == [A, C]


def test_a_pool_that_was_tried_is_not_tried_again_where_the_filter_says_so() -> None:
    kept = kept_pools(scheduler_default_filters=["IgnoreAttemptedHostsFilter", "CapacityFilter"])
    retry = {"num_attempts": 2, "backends": [A], "hosts": [A]}
    assert judged(kept, [pool(A, 500), pool(C)], asked(retry=retry)) == [C]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"scheduler_default_weighers": ["VolumeNumberWeigher"]}, "VolumeNumberWeigher"),
        ({"scheduler_default_weighers": ["ChanceWeigher"]}, "chance"),
        ({"scheduler_weight_handler": "cinder.scheduler.weights.stochastic.StochasticHostWeightHandler"}, "chance"),
        ({"scheduler_default_filters": ["MyFilter"]}, "policy"),
    ],
)
def test_what_needs_the_database_or_chance_or_is_unknown_is_not_modelled(options: dict[str, Any], field: str) -> None:
    with pytest.raises(NotModelled) as raised:
        kept_pools(**options)
    assert raised.value.field == field


def test_hints_that_name_volumes_are_not_modelled_where_a_filter_reads_them() -> None:
    hint = {"same_host": ["dddddddd-0000-4000-8000-000000000001"]}
    assert judged(kept_pools(), [pool(A)], asked(scheduler_hints=hint)) == [A]
    kept = kept_pools(scheduler_default_filters=["SameBackendFilter"])
    with pytest.raises(NotModelled, match="same_host"):
        kept.judge([pool(A)], asked(scheduler_hints=hint))
    with pytest.raises(NotModelled, match="no size"):
        kept.judge([pool(A)], asked(None))


def test_the_reasons_for_a_pool_are_said() -> None:
    kept = kept_pools()
    found = kept.judge([pool(A, 50), pool(B, 200), pool(C, 5)], asked())
    assert "CapacityFilter refuses it: free 5 GiB < 10 GiB" in kept.reason(found, C)
    assert "CapacityWeigher" in kept.reason(found, A)
    assert kept.reason(found, "h9@lvm#z") == "it is no candidate"
