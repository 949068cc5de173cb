"""nova.conf as data: names, defaults, types and limits."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hostler.placement.types.errors import HostlerError, InvalidValue, UnknownName
from hostler.placement.types.options import Options, Ratios


def read(group: str, option: str, value: Any) -> Any:
    """What ``Options`` makes of one value."""
    options = Options.from_mapping({group: {option: value}})
    return getattr(getattr(options, group.lower()), option)


def fault(group: str, option: str, value: Any) -> HostlerError:
    with pytest.raises(HostlerError) as failure:
        read(group, option, value)
    return failure.value


def test_without_values_every_option_has_novas_default() -> None:
    options = Options.from_mapping({})
    assert options == Options()
    assert options.filter_scheduler.max_io_ops_per_host == 8
    assert options.filter_scheduler.io_ops_weight_multiplier == -1.0
    assert options.metrics.weight_of_unavailable == -10000.0
    assert options.scheduler.max_placement_results == 1000
    assert options.default.service_down_time == 60
    assert options.default.cpu_allocation_ratio is None


@pytest.mark.parametrize(
    ("group", "option", "value", "expected"),
    [
        ("metrics", "required", False, False),
        ("metrics", "required", "no", False),
        ("metrics", "required", " TRUE ", True),
        ("metrics", "required", "1", True),
        ("filter_scheduler", "max_io_ops_per_host", 3, 3),
        ("filter_scheduler", "max_io_ops_per_host", "3", 3),
        ("filter_scheduler", "ram_weight_multiplier", -2, -2.0),
        ("filter_scheduler", "ram_weight_multiplier", "-2.5e3", -2500.0),
        ("filter_scheduler", "isolated_hosts", "a, b", ("a", "b")),
        ("filter_scheduler", "isolated_hosts", ["a", " b "], ("a", "b")),
        ("filter_scheduler", "isolated_hosts", "", ()),
        ("filter_scheduler", "image_properties_default_architecture", None, None),
        ("scheduler", "workers", "4", 4),
        ("DEFAULT", "cpu_allocation_ratio", 16, 16.0),
        ("metrics", "weight_setting", "a=1, b=-0.5", Ratios({"a": 1.0, "b": -0.5})),
        ("metrics", "weight_setting", {"a": 1}, Ratios({"a": 1.0})),
    ],
)
def test_a_value_may_have_its_type_or_be_written_as_in_nova_conf(
    group: str, option: str, value: Any, expected: Any
) -> None:
    found = read(group, option, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("group", "option", "value"),
    [
        ("filter_scheduler", "host_subset_size", 0),
        ("filter_scheduler", "host_subset_size", True),
        ("filter_scheduler", "host_subset_size", 1.0),
        ("filter_scheduler", "host_subset_size", 2**64),
        ("filter_scheduler", "host_subset_size", None),
        ("filter_scheduler", "pci_weight_multiplier", -0.1),
        ("filter_scheduler", "ram_weight_multiplier", math.nan),
        ("filter_scheduler", "ram_weight_multiplier", "inf"),
        ("filter_scheduler", "ram_weight_multiplier", 10**400),
        ("filter_scheduler", "isolated_hosts", ["a", ""]),
        ("filter_scheduler", "isolated_hosts", ["a", 1]),
        ("filter_scheduler", "isolated_hosts", {"a": 1}),
        ("filter_scheduler", "enabled_filters", 7),
        ("scheduler", "discover_hosts_in_cells_interval", -2),
        ("metrics", "required", "maybe"),
        ("metrics", "required", 1),
        ("metrics", "weight_setting", "a=nan"),
        ("metrics", "weight_setting", "a=1,a=2"),
        ("metrics", "weight_setting", {"a=b": 1}),
        ("metrics", "weight_setting", {"a": "much"}),
        ("DEFAULT", "servicegroup_driver", "\ud800"),
    ],
)
def test_a_bad_value_is_refused_by_option_and_value(group: str, option: str, value: Any) -> None:
    error = fault(group, option, value)
    assert isinstance(error, InvalidValue)
    assert error.field == f"{group}.{option}"
    assert str(error).startswith(f"{group}.{option} is ")


def test_an_unknown_group_is_refused_with_the_closest() -> None:
    with pytest.raises(UnknownName, match="closest: filter_scheduler"):
        Options.from_mapping({"filter_schedule": {}})


def test_an_unknown_option_is_refused_with_the_closest() -> None:
    error = fault("filter_scheduler", "ram_weight_multiplyer", 1)
    assert isinstance(error, UnknownName)
    assert error.field == "filter_scheduler.ram_weight_multiplyer"
    assert "ram_weight_multiplier" in str(error)


def test_a_group_that_is_no_table_is_refused() -> None:
    with pytest.raises(InvalidValue, match="metrics is 3"):
        Options.from_mapping({"metrics": 3})  # type: ignore[dict-item]


def test_malformed_ratios_are_ignored_as_nova_does() -> None:
    assert read("metrics", "weight_setting", ["a=bad", "b=2", "c", "=1"]) == Ratios({"b": 2.0})


def test_only_what_differs_from_the_defaults_is_written() -> None:
    values = {"filter_scheduler": {"max_io_ops_per_host": 8, "ram_weight_multiplier": 2.0, "isolated_images": ["i"]}}
    written = Options.from_mapping(values).to_mapping()
    assert written == {"filter_scheduler": {"ram_weight_multiplier": 2.0, "isolated_images": ["i"]}}


def test_negative_zero_is_kept() -> None:
    written = Options.from_mapping({"filter_scheduler": {"num_instances_weight_multiplier": -0.0}}).to_mapping()
    assert math.copysign(1.0, written["filter_scheduler"]["num_instances_weight_multiplier"]) == -1.0


def test_ratios_keep_their_order_and_hash_by_it() -> None:
    one, other = Ratios([("a", 1.0), ("b", 2.0)]), Ratios([("b", 2.0), ("a", 1.0)])
    assert one != other
    assert hash(one) == hash(Ratios({"a": 1.0, "b": 2.0}))
    assert one.to_words() == ["a=1.0", "b=2.0"]
    assert (one["b"], len(one), one != {"a": 1.0}) == (2.0, 2, True)
    assert repr(one) == "Ratios({'a': 1.0, 'b': 2.0})"


def test_options_are_hashable() -> None:
    assert hash(Options()) == hash(Options.from_mapping({}))
