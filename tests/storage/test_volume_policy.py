"""The storage section of a policy: Cinder's options, checked, readable, writable, comparable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostler import BackendReport, Policy, VolumeEngine, VolumeRequest, VolumeSpec
from hostler.placement.storage.pools.policy import VolumePolicy
from hostler.placement.types.errors import HostlerError, InvalidValue, UnknownName


def test_the_defaults_are_cinder_s() -> None:
    policy = VolumePolicy.cinder_default()
    assert [rule.name for rule in policy.filters] == ["AvailabilityZoneFilter", "CapacityFilter", "CapabilitiesFilter"]
    assert [rule.name for rule in policy.weighers] == ["CapacityWeigher"]
    assert (policy.options.scheduler_max_attempts, policy.options.max_over_subscription_ratio) == (3, "20.0")
    assert not policy.stochastic


def test_a_policy_survives_toml_and_stands_beside_nova_s(tmp_path: Path) -> None:
    text = """
    [filter_scheduler]
    ram_weight_multiplier = -1.0
    [storage]
    scheduler_default_filters = "CapacityFilter, DriverFilter"
    scheduler_weight_handler = "cinder.scheduler.weights.stochastic.StochasticHostWeightHandler"
    capacity_weight_multiplier = "-2"
    compat = "strict"
    """
    path = tmp_path / "policy.toml"
    path.write_text(text)
    policy = VolumePolicy.from_toml(path)
    assert (policy.strict, policy.stochastic, policy.options.capacity_weight_multiplier) == (True, True, -2.0)
    assert VolumePolicy.from_toml(policy.to_toml()) == policy == VolumePolicy.from_toml(text)
    assert hash(policy) != hash(VolumePolicy.cinder_default())
    assert Policy.from_toml(path).options.filter_scheduler.ram_weight_multiplier == -1.0


@pytest.mark.parametrize(
    ("values", "error", "field"),
    [
        ({"storage": {"scheduler_default_filters": ["CapacityFiler"]}}, UnknownName, "scheduler_default_filters"),
        ({"storage": {"scheduler_default_weighers": ["Capacity"]}}, UnknownName, "scheduler_default_weighers"),
        ({"storage": {"scheduler_weight_handler": "Random"}}, UnknownName, "scheduler_weight_handler"),
        ({"storage": {"max_over_subscription_ratio": "-1"}}, InvalidValue, "max_over_subscription_ratio"),
        ({"storage": {"scheduler_max_attempts": 0}}, InvalidValue, "scheduler_max_attempts"),
        ({"storage": {"capacity_weight_multiplier": "inf"}}, InvalidValue, "capacity_weight_multiplier"),
        ({"storage": {"compat": "nova"}}, UnknownName, "compat"),
        ({"storage": {"capacity_wait_multiplier": 1}}, UnknownName, "capacity_wait_multiplier"),
        ({"storage": 5}, InvalidValue, "storage"),
        ({"storag": {}}, UnknownName, "storag"),
        ([], InvalidValue, "policy"),
    ],
)
def test_what_is_no_policy_names_the_option(values: Any, error: type[HostlerError], field: str) -> None:
    with pytest.raises(error) as caught:
        VolumePolicy.from_mapping(values)
    assert caught.value.field is not None
    assert field in caught.value.field


def test_a_misspelt_filter_is_answered_with_the_closest() -> None:
    with pytest.raises(UnknownName, match="closest: CapacityFilter"):
        VolumePolicy.from_mapping({"storage": {"scheduler_default_filters": ["CapacityFiler"]}})


@pytest.mark.parametrize("text", ["[storage", "nowhere.toml"])
def test_a_text_that_is_no_toml_and_a_file_that_is_not_there_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        VolumePolicy.from_toml(text)


def test_a_weigher_that_is_named_twice_counts_twice_and_a_filter_removes_once() -> None:
    twice = {
        "scheduler_default_filters": ["CapacityFilter", "JsonFilter", "CapacityFilter"],
        "scheduler_default_weighers": ["CapacityWeigher", "VolumeNumberWeigher", "CapacityWeigher"],
    }
    policy = VolumePolicy.from_mapping({"storage": twice})
    assert [rule.name for rule in policy.filters] == ["CapacityFilter", "JsonFilter"]
    assert [rule.name for rule in policy.weighers] == twice["scheduler_default_weighers"]
    assert VolumePolicy.from_toml(policy.to_toml()) == policy
    engine = VolumeEngine(policy=policy)
    for number, free in enumerate((10, 300, 70)):
        capabilities = {"pool_name": "p", "total_capacity_gb": 500, "free_capacity_gb": free}
        engine.pools.report(BackendReport(host=f"h{number}@b", capabilities={"pools": [capabilities]}, at=1.0))
    placed = engine.place(VolumeRequest(spec=VolumeSpec(size_gb=50)))
    assert placed.selected.backend_id == "h1@b#p"
    assert placed.removed["CapacityFilter"] == 1
    assert placed.selected.weight == sum(part.points for part in placed.selected.parts)
