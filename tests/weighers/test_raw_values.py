"""What each of Nova's weighers sees of a host."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.placement.types.errors import MetricNotFound
from hostler.placement.types.host import Host, PciPool
from hostler.placement.types.request import Destination, Request
from hostler.placement.weighers import BUILTIN_WEIGHERS

from .values import HOME, group, holding, host, in_aggregates, request, weigher

COLUMNS = [
    ("RAMWeigher", {"free_ram_mb": 512}, 512),
    ("RAMWeigher", {"free_ram_mb": -10}, -10),
    ("CPUWeigher", {"vcpus_total": 8, "cpu_allocation_ratio": 1.5, "vcpus_used": 5}, 7.0),
    ("CPUWeigher", {"vcpus_total": 2, "cpu_allocation_ratio": 1.0, "vcpus_used": 5}, -3.0),
    ("DiskWeigher", {"free_disk_mb": 2048}, 2048),
    ("IoOpsWeigher", {"num_io_ops": 3}, 3),
    ("NumInstancesWeigher", {"num_instances": 4}, 4),
    ("BuildFailureWeigher", {"failed_builds": 2}, 2),
    ("HypervisorVersionWeigher", {"hypervisor_version": 8002000}, 8002000),
    ("HypervisorVersionWeigher", {"hypervisor_version": None}, 0),
    ("PCIWeigher", {"pci_pools": ()}, 100),
    ("PCIWeigher", {"pci_pools": (PciPool(count=3), PciPool(count=4))}, 93),
    ("PCIWeigher", {"pci_pools": (PciPool(count=60), PciPool(count=60))}, 1),
]


@pytest.mark.parametrize(("name", "fields", "expected"), COLUMNS)
def test_a_column_weigher_reads_a_figure(name: str, fields: dict[str, Any], expected: float) -> None:
    judge = weigher(name)
    assert judge.raw(host(**fields), request()) == expected
    assert set(fields) <= judge.fields(request())
    assert judge.applies(request())


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("RAMWeigher", "free_ram_mb"),
        ("CPUWeigher", "free_vcpus"),
        ("DiskWeigher", "free_disk_mb"),
        ("IoOpsWeigher", "num_io_ops"),
        ("NumInstancesWeigher", "num_instances"),
        ("BuildFailureWeigher", "failed_builds"),
        ("HypervisorVersionWeigher", "hypervisor_version"),
        ("PCIWeigher", "pci_weight"),
        ("MetricsWeigher", None),
        ("ServerGroupSoftAffinityWeigher", None),
    ],
)
def test_columns_have_the_fleets_names(name: str, column: str | None) -> None:
    assert weigher(name).column(request()) == column


@pytest.mark.parametrize("name", ["RAMWeigher", "CPUWeigher", "DiskWeigher", "IoOpsWeigher"])
def test_figures_of_which_none_is_left_count_as_zero(name: str) -> None:
    assert BUILTIN_WEIGHERS[name].minval == 0.0


@pytest.mark.parametrize("name", [name for name in BUILTIN_WEIGHERS if name[:2] not in ("RA", "CP", "Di", "Io")])
def test_all_others_are_compared_with_the_least(name: str) -> None:
    assert (BUILTIN_WEIGHERS[name].minval, BUILTIN_WEIGHERS[name].maxval) == (None, None)


# Server groups

SOFT = {
    "ServerGroupSoftAffinityWeigher": ("soft-affinity", 2.0),
    "ServerGroupSoftAntiAffinityWeigher": ("soft-anti-affinity", -2.0),
}


@pytest.mark.parametrize("name", SOFT)
def test_a_soft_policy_counts_the_groups_members_on_the_host(name: str) -> None:
    judge = weigher(name)
    policy, expected = SOFT[name]
    asked = request(group=group(policy, "a", "b", "c"))
    assert judge.applies(asked)
    assert judge.raw(holding("a", "b", "x"), asked) == expected
    assert judge.group_factor == expected / 2
    assert judge.fields(asked) == {"instances"}
    assert judge.key(asked) == frozenset("abc")
    assert judge.describe(holding("a", "b"), asked, -3.0) == f"2 members of server group g ({policy}), best host has 3"
    assert judge.describe(holding("a"), asked) == f"1 members of server group g ({policy})"


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("kept", [None, "uuid-of-a-group", group("affinity", "a"), group("anti-affinity", "a")])
def test_another_policy_counts_nothing(name: str, kept: Any) -> None:
    judge, asked = weigher(name), request(group=kept)
    assert not judge.applies(asked)
    assert judge.raw(holding("a"), asked) == 0
    assert "in no group of policy soft-" in judge.describe(holding("a"), asked)
    assert judge.key(asked) is None


# Cells


@pytest.mark.parametrize(
    ("destination", "cell", "expected"),
    [
        (HOME, "home", 1.0),
        (HOME, "away", -1.0),
        (HOME, None, -1.0),
        (Destination(cell_uuid="home"), "home", 0.0),
        (Destination(allow_cross_cell_move=True), "home", 0.0),
        (None, "home", 0.0),
    ],
)
def test_a_move_across_cells_prefers_its_own(destination: Any, cell: str | None, expected: float) -> None:
    judge, asked = weigher("CrossCellWeigher"), request(destination=destination)
    assert judge.raw(host(cell_uuid=cell), asked) == expected
    assert judge.applies(asked) == (expected != 0)
    assert judge.key(asked) == ("home" if expected else None)
    assert judge.fields(asked) == {"cell_uuid"}


def test_cells_are_described() -> None:
    judge = weigher("CrossCellWeigher")
    moving, staying = request(destination=HOME), request()
    assert judge.describe(host(cell_uuid="home"), moving) == "in cell home, the request is in it"
    assert judge.describe(host(cell_uuid="away"), moving) == "in cell away, the request is in home"
    assert judge.describe(host(), staying) == "the request does not move across cells"


# Metrics


def metrics(**options: Any) -> dict[str, Any]:
    return {"metrics": options}


@pytest.mark.parametrize(
    ("options", "found", "expected"),
    [
        ({"weight_setting": "a=0.5,b=-1"}, {"a": 10, "b": 3}, 2.0),
        ({"weight_setting": ""}, {"a": 10}, 0.0),
        ({"weight_setting": "a=1,b=1", "required": False}, {"a": 10}, -10000.0),
        ({"weight_setting": "a=1,b=0", "required": False}, {"a": 10}, 10.0),
        ({"weight_setting": "a=1,b=1", "required": False, "weight_multiplier": 0}, {"a": 10}, 10.0),
        ({"weight_setting": "a=1", "required": False, "weight_of_unavailable": -5}, {}, -5.0),
    ],
)
def test_metrics_are_added_by_ratio(options: dict[str, Any], found: dict[str, float], expected: float) -> None:
    judge = weigher("MetricsWeigher", metrics=options)
    assert judge.raw(host(metrics=found), request()) == expected
    assert judge.applies(request()) == bool(options["weight_setting"])


def test_a_missing_metric_counts_if_an_aggregate_makes_it_count() -> None:
    judge = weigher("MetricsWeigher", metrics={"weight_setting": "a=1", "required": False, "weight_multiplier": 0})
    assert judge.raw(in_aggregates({"metrics_weight_multiplier": "2"}), request()) == -10000.0
    assert judge.fields(request()) == {"metrics", "aggregates"}


def test_a_missing_metric_that_is_required_fails_the_request() -> None:
    judge = weigher("MetricsWeigher", metrics={"weight_setting": "a=0", "weight_multiplier": 0})
    with pytest.raises(MetricNotFound, match="metric a is missing on host h1, node n1") as failure:
        judge.raw(host(), request())
    assert getattr(failure.value, "nova_error", None) == "ComputeHostMetricNotFound"
    assert judge.fields(request()) == {"metrics"}


def test_metrics_are_described() -> None:
    judge = weigher("MetricsWeigher", metrics={"weight_setting": "a=0.5,b=0", "required": False})
    text = "metrics 5 (a 10 * 0.5, b missing * 0)"
    assert judge.describe(host(metrics={"a": 10}), request()) == text
    assert judge.describe(host(metrics={"a": 10}), request(), 7.0) == f"{text} of best 7"


# Images

WEIGHED = {"image_props_weight_multiplier": 1}
RHEL = {"os_distro": "rhel", "hw_disk_bus": "virtio"}


@pytest.mark.parametrize(
    ("options", "wanted", "found", "expected"),
    [
        (WEIGHED, RHEL, {"os_distro": "rhel", "hw_disk_bus": "scsi"}, 2.0),
        (WEIGHED, RHEL, RHEL, 4.0),
        (WEIGHED, RHEL, {}, 0.0),
        (WEIGHED, {"hw_boot_menu": "yes"}, {"hw_boot_menu": True}, 2.0),
        (WEIGHED, {"architecture": "amd64"}, {"hw_architecture": "x86_64"}, 2.0),
        (WEIGHED, {"colour": "red"}, {"colour": "red"}, 0.0),
        (WEIGHED, None, RHEL, 0.0),
        (WEIGHED | {"image_props_weight_setting": "os_distro=0.25"}, RHEL, RHEL, 0.5),
        (WEIGHED | {"image_props_weight_setting": "os_type=3"}, RHEL, RHEL, 0.0),
        ({"image_props_weight_multiplier": 0}, RHEL, RHEL, 0.0),
    ],
)
def test_instances_of_alike_images_are_counted(
    options: dict[str, Any], wanted: dict[str, Any] | None, found: dict[str, Any], expected: float
) -> None:
    judge, asked = weigher("ImagePropertiesWeigher", filter_scheduler=options), request(properties=wanted)
    assert judge.raw(holding("i1", "i2", **found), asked) == expected


def test_the_image_weigher_is_off_unless_its_configured_multiplier_is_not_zero() -> None:
    asked = request(properties=RHEL)
    assert not weigher("ImagePropertiesWeigher").applies(asked)
    judge = weigher("ImagePropertiesWeigher", filter_scheduler=WEIGHED)
    assert judge.applies(asked)
    assert not judge.applies(request())
    assert judge.fields(asked) == {"instances"}
    assert judge.key(asked) == (("os_distro", "rhel"), ("hw_disk_bus", "virtio"))


def test_images_are_described() -> None:
    judge = weigher("ImagePropertiesWeigher", filter_scheduler=WEIGHED)
    of, asked = holding("i1", os_distro="rhel"), request(properties={"os_distro": "rhel"})
    text = "instances of alike images 1 (1 with os_distro * 1)"
    assert (judge.describe(of, asked), judge.describe(of, asked, 2.0)) == (text, f"{text} of best 2")


@pytest.mark.parametrize(("best", "expected"), [(None, "free_ram_mb 1024"), (4096, "free_ram_mb 1024 of best 4096")])
def test_a_figure_is_described_beside_the_best(best: float | None, expected: str) -> None:
    assert weigher("RAMWeigher").describe(host(free_ram_mb=1024), request(), best) == expected


def test_every_weigher_describes_any_host_in_one_line() -> None:
    plain: Host = host()
    asked: Request = request()
    texts = [weigher(name).describe(plain, asked) for name in BUILTIN_WEIGHERS]
    assert all(text and "\n" not in text for text in texts)
