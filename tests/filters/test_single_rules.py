"""The filters of one simple rule: load, isolated hosts, metrics, network, all hosts."""

from typing import Any

import pytest

from hostler.placement.filters.all_hosts import AllHostsFilter
from hostler.placement.filters.base import Bound
from hostler.placement.filters.cidr import SimpleCIDRAffinityFilter
from hostler.placement.filters.io_ops_and_instances import IoOpsFilter, NumInstancesFilter
from hostler.placement.filters.isolated import IsolatedHostsFilter
from hostler.placement.filters.metrics import MetricsFilter
from hostler.placement.types.errors import InvalidValue

from .values import build, host, request


def test_every_host_passes_the_filter_of_all_hosts() -> None:
    judge = build(AllHostsFilter)
    assert not judge.applies(request())
    assert judge.host_passes(host(), request())


@pytest.mark.parametrize(("load", "passes"), [(0, True), (7, True), (8, False), (9, False)])
def test_io_operations_must_stay_below_the_limit(load: int, passes: bool) -> None:
    assert build(IoOpsFilter).host_passes(host(num_io_ops=load), request()) is passes


@pytest.mark.parametrize(("load", "passes"), [(49, True), (50, False)])
def test_instances_must_stay_below_the_limit(load: int, passes: bool) -> None:
    assert build(NumInstancesFilter).host_passes(host(num_instances=load), request()) is passes


def test_the_limits_are_bounds_on_columns() -> None:
    limits = {"max_io_ops_per_host": 0, "max_instances_per_host": 3}
    assert build(IoOpsFilter, filter_scheduler=limits).bounds(request()) == (Bound("num_io_ops", high=-1),)
    assert build(NumInstancesFilter, filter_scheduler=limits).bounds(request()) == (Bound("num_instances", high=2),)


def test_the_reason_names_load_and_limit() -> None:
    assert build(IoOpsFilter).reason(host(num_io_ops=9), request()) == (
        "num_io_ops 9 is not below max_io_ops_per_host 8"
    )


@pytest.mark.parametrize(
    ("images", "restrict", "image", "on_isolated", "on_others"),
    [
        ([], True, "image-1", False, True),
        ([], False, "image-1", True, True),
        (["image-1"], True, "image-1", True, False),
        (["image-1"], True, "image-2", False, True),
        (["image-1"], True, None, False, True),
        (["image-1"], False, "image-1", True, False),
        (["image-1"], False, "image-2", True, True),
    ],
)
def test_isolated_hosts_and_images_go_together(
    images: list[str], restrict: bool, image: str | None, on_isolated: bool, on_others: bool
) -> None:
    values = {
        "isolated_hosts": ["h1"],
        "isolated_images": images,
        "restrict_isolated_hosts_to_isolated_images": restrict,
    }
    judge, asked = build(IsolatedHostsFilter, filter_scheduler=values), request(image=image)
    assert judge.host_passes(host(host="h1"), asked) is on_isolated
    assert judge.host_passes(host(host="h2"), asked) is on_others
    assert judge.applies(asked) is not (on_isolated and on_others)


def test_a_host_must_have_all_metrics_that_are_weighed() -> None:
    judge = build(MetricsFilter, metrics={"weight_setting": ["cpu.percent=1", "cpu.frequency=-1"]})
    assert judge.host_passes(host(metrics={"cpu.percent": 0, "cpu.frequency": 2, "x": 1}), request())
    assert not judge.host_passes(host(metrics={"cpu.percent": 0}), request())
    assert judge.reason(host(metrics={"cpu.percent": 0}), request()) == "metrics cpu.frequency are not reported"
    assert not build(MetricsFilter).applies(request())


@pytest.mark.parametrize(
    ("host_ip", "hints", "passes"),
    [
        ("10.0.3.200", {"build_near_host_ip": ("10.0.3.7",)}, True),
        ("10.0.4.7", {"build_near_host_ip": ("10.0.3.7",)}, False),
        ("10.0.4.7", {"build_near_host_ip": ("10.0.3.7",), "cidr": ("/16",)}, True),
        ("10.0.3.8", {"build_near_host_ip": ("10.0.3.7",), "cidr": ("",)}, False),
        ("10.9.9.9", {"cidr": ("/16",)}, True),
        ("10.9.9.9", {"build_near_host_ip": ("",)}, True),
        ("fe80::9", {"build_near_host_ip": ("fe80::1",), "cidr": ("/64",)}, True),
        ("10.0.3.7", {"build_near_host_ip": ("fe80::1",)}, False),
        (None, {"build_near_host_ip": ("10.0.3.7",)}, False),
        ("unknown", {"build_near_host_ip": ("10.0.3.7",)}, False),
    ],
)
def test_a_host_must_be_in_the_network_around_the_named_address(
    host_ip: str | None, hints: dict[str, Any], passes: bool
) -> None:
    assert build(SimpleCIDRAffinityFilter).host_passes(host(host_ip=host_ip), request(hints=hints)) is passes


@pytest.mark.parametrize(
    "hints",
    [
        {"build_near_host_ip": ("here",)},
        {"build_near_host_ip": ("10.0.3.7",), "cidr": ("/40",)},
        {"build_near_host_ip": ("10.0.3.7", "10.0.3.8")},
    ],
)
def test_hints_that_make_no_network_are_an_error(hints: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue) as caught:
        build(SimpleCIDRAffinityFilter).host_passes(host(host_ip="10.0.3.7"), request(hints=hints))
    assert caught.value.field == "scheduler_hints.build_near_host_ip"


def test_the_reason_names_address_and_network() -> None:
    asked = request(hints={"build_near_host_ip": ("10.0.3.7",)})
    assert build(SimpleCIDRAffinityFilter).reason(host(host_ip="10.0.4.7"), asked) == (
        "host_ip 10.0.4.7 is not in 10.0.3.0/24"
    )
