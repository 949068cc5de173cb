"""How much a weigher counts: its option, and the aggregates that override it."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.placement.types.host import Host
from hostler.placement.weighers import BUILTIN_WEIGHERS

from .values import aggregate, host, in_aggregates, weigher

DEFAULTS = {
    "RAMWeigher": ("ram_weight_multiplier", 1.0),
    "CPUWeigher": ("cpu_weight_multiplier", 1.0),
    "DiskWeigher": ("disk_weight_multiplier", 1.0),
    "IoOpsWeigher": ("io_ops_weight_multiplier", -1.0),
    "HypervisorVersionWeigher": ("hypervisor_version_weight_multiplier", 1.0),
    "NumInstancesWeigher": ("num_instances_weight_multiplier", 0.0),
    "PCIWeigher": ("pci_weight_multiplier", 1.0),
    "ServerGroupSoftAffinityWeigher": ("soft_affinity_weight_multiplier", 1.0),
    "ServerGroupSoftAntiAffinityWeigher": ("soft_anti_affinity_weight_multiplier", 1.0),
    "BuildFailureWeigher": ("build_failure_weight_multiplier", -1000000.0),
    "CrossCellWeigher": ("cross_cell_move_weight_multiplier", 1000000.0),
    "MetricsWeigher": ("metrics_weight_multiplier", 1.0),
    "ImagePropertiesWeigher": ("image_props_weight_multiplier", 0.0),
}


def test_all_weighers_are_in_the_table() -> None:
    assert DEFAULTS.keys() == BUILTIN_WEIGHERS.keys()


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_weigher_has_novas_key_and_default(name: str) -> None:
    judge = weigher(name)
    assert (judge.option, judge.multiplier()) == DEFAULTS[name]
    assert judge.host_multiplier(host()) == judge.multiplier()


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name not in ("MetricsWeigher", "BuildFailureWeigher")])
def test_the_option_sets_the_multiplier(name: str) -> None:
    assert weigher(name, filter_scheduler={DEFAULTS[name][0]: 2.5}).multiplier() == 2.5


def test_metrics_have_an_option_of_their_own() -> None:
    assert weigher("MetricsWeigher", metrics={"weight_multiplier": 2.5}).multiplier() == 2.5


def test_build_failures_count_against_a_host() -> None:
    judge = weigher("BuildFailureWeigher", filter_scheduler={"build_failure_weight_multiplier": 3})
    assert judge.multiplier() == -3.0
    assert judge.host_multiplier(in_aggregates({"build_failure_weight_multiplier": "5.5"})) == -5.5
    assert judge.host_multiplier(in_aggregates({"build_failure_weight_multiplier": "-2"})) == 2.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 7.0),
        (["2"], 2.0),
        (["2", "-1", "3"], -1.0),
        ([" 1e1 "], 10.0),
        (["oops"], 7.0),
        (["2", "oops"], 7.0),
        ([""], 7.0),
        (["nan", "2"], 7.0),
        (["inf"], 7.0),
    ],
)
def test_the_least_value_of_the_aggregates_prevails_unless_one_is_no_number(values: list[str], expected: float) -> None:
    judge = weigher("RAMWeigher", filter_scheduler={"ram_weight_multiplier": 7})
    of: Host = in_aggregates(*({"ram_weight_multiplier": value} for value in values), {"other": "1"})
    assert judge.host_multiplier(of) == expected


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_aggregate_overrides_by_the_weighers_own_key(name: str) -> None:
    judge = weigher(name)
    others: dict[str, Any] = {key: "9" for key, _ in DEFAULTS.values() if key != judge.option}
    assert judge.host_multiplier(host(aggregates=(aggregate(**others),))) == judge.multiplier()
    assert abs(judge.host_multiplier(in_aggregates({judge.option: "9"}))) == 9.0
