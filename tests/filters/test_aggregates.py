"""The filters that read aggregate metadata."""

from collections.abc import Mapping
from typing import Any

import pytest

from hostler.placement.filters.aggregate_image_properties_isolation import AggregateImagePropertiesIsolation
from hostler.placement.filters.aggregate_instance_extra_specs import AggregateInstanceExtraSpecsFilter
from hostler.placement.filters.aggregate_multitenancy_isolation import AggregateMultiTenancyIsolation
from hostler.placement.filters.aggregate_type_affinity import AggregateTypeAffinityFilter
from hostler.placement.filters.io_ops_and_instances import (
    AggregateIoOpsFilter,
    AggregateNumInstancesFilter,
    IoOpsFilter,
)
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import Host

from .values import aggregate, build, host, request


def member(*metadata: Mapping[str, str], **changes: Any) -> Host:
    """A host in one aggregate for each metadata."""
    return host(aggregates=tuple(aggregate(f"a{i}", **each) for i, each in enumerate(metadata)), **changes)


TIERS = member({"tier": "gold, silver", "ssd": "2"}, {"tier": "bronze", "ssd": "few"})


@pytest.mark.parametrize(
    ("extra_specs", "passes"),
    [
        ({}, True),
        ({"tier": "silver"}, True),
        ({"tier": "platinum"}, False),
        ({"aggregate_instance_extra_specs:tier": "<or> platinum <or> bronze"}, True),
        ({"aggregate_instance_extra_specs:tier": "<in> old"}, True),
        ({"ssd": ">= 2"}, True),
        ({"ssd": ">= 3"}, False),
        ({"unknown": "x"}, False),
        ({"other:tier": "x", "trait:CUSTOM_A": "required", "a:aggregate_instance_extra_specs:b": "c"}, True),
        ({"tier": "gold", "ssd": "9"}, False),
    ],
)
def test_some_value_in_the_hosts_aggregates_must_satisfy_each_extra_spec(
    extra_specs: Mapping[str, str], passes: bool
) -> None:
    asked = request(extra_specs=extra_specs)
    assert build(AggregateInstanceExtraSpecsFilter).host_passes(TIERS, asked) is passes


@pytest.mark.parametrize("spec", ["ssd", "aggregate_instance_extra_specs:ssd", "aggregate_instance_extra_specs:none"])
def test_a_bad_number_in_an_extra_spec_is_an_error_that_names_it(spec: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        build(AggregateInstanceExtraSpecsFilter).host_passes(TIERS, request(extra_specs={spec: ">= x"}))
    assert caught.value.field == spec


@pytest.mark.parametrize(
    ("extra_specs", "error"),
    [
        ({"ssd": ">= 2"}, None),
        ({"ssd": ">= 3"}, "ValueError"),
        ({"ssd": ">= x"}, "ValueError"),
        ({"tier": "platinum", "ssd": ">= 3"}, None),
        ({"unknown": ">= x"}, None),
    ],
)
def test_nova_raises_where_no_value_can_be_compared(extra_specs: Mapping[str, str], error: str | None) -> None:
    judge = build(AggregateInstanceExtraSpecsFilter)
    assert judge.nova_error(TIERS, request(extra_specs=extra_specs)) == error


def test_the_reason_names_the_values_that_were_found() -> None:
    judge = build(AggregateInstanceExtraSpecsFilter)
    assert judge.reason(member({"tier": "general"}), request(extra_specs={"tier": "<or> memory"})) == (
        "aggregate metadata tier=general does not satisfy '<or> memory'"
    )
    assert judge.reason(host(), request(extra_specs={"tier": "gold"})) == (
        "no aggregate has metadata tier, extra spec tier asks for 'gold'"
    )


ISOLATING = member({"os_distro": "ubuntu, rhel", "hw_pmu": "True", "zone": "a"}, {"hw_cpu_cores": "4"})


@pytest.mark.parametrize(
    ("properties", "passes"),
    [
        (None, True),
        ({}, True),
        ({"os_distro": "rhel"}, True),
        ({"os_distro": "windows"}, False),
        ({"os_distro": ""}, True),
        ({"vmware_ostype": "windows"}, False),
        ({"zone": "b"}, True),
        ({"hw_pmu": "yes"}, True),
        ({"hw_pmu": "no"}, True),
        ({"hw_cpu_cores": 4}, True),
        ({"hw_cpu_cores": "8"}, False),
    ],
)
def test_metadata_that_names_an_image_property_lists_what_is_admitted(
    properties: dict[str, Any] | None, passes: bool
) -> None:
    assert build(AggregateImagePropertiesIsolation).host_passes(ISOLATING, request(properties=properties)) is passes


@pytest.mark.parametrize(
    ("namespace", "separator", "passes"), [("os", "_", False), ("hw", "_", True), ("os", ".", True)]
)
def test_with_a_namespace_only_metadata_with_that_prefix_counts(namespace: str, separator: str, passes: bool) -> None:
    judge = build(
        AggregateImagePropertiesIsolation,
        filter_scheduler={
            "aggregate_image_properties_isolation_namespace": namespace,
            "aggregate_image_properties_isolation_separator": separator,
        },
    )
    assert judge.host_passes(ISOLATING, request(properties={"os_distro": "windows"})) is passes


def test_the_reason_names_the_property() -> None:
    asked = request(properties={"os_distro": "windows"})
    assert build(AggregateImagePropertiesIsolation).reason(ISOLATING, asked) == (
        "aggregate metadata os_distro=rhel,ubuntu does not admit the image's 'windows'"
    )


@pytest.mark.parametrize(
    ("metadata", "passes"),
    [
        (({},), True),
        (({"filter_tenant_id": "p1"},), True),
        (({"filter_tenant_id": "p2"},), False),
        (({"filter_tenant_id": "p2, p1"},), True),
        (({"filter_tenant_id": "p2"}, {"filter_tenant_id7": "p1"}), True),
        (({"filter_tenant": "p2"},), True),
        (({"filter_tenant_id": ""},), False),
    ],
)
def test_a_host_may_be_reserved_for_projects(metadata: tuple[Mapping[str, str], ...], passes: bool) -> None:
    judge = build(AggregateMultiTenancyIsolation)
    assert judge.host_passes(member(*metadata), request(project_id="p1")) is passes


@pytest.mark.parametrize(
    ("metadata", "passes"),
    [
        (({},), True),
        (({"instance_type": "m1.small"},), True),
        (({"instance_type": "m1.large, c1"},), False),
        (({"instance_type": "m1.large"}, {"instance_type": "c1, m1.small"}), True),
    ],
)
def test_a_host_may_be_reserved_for_flavors(metadata: tuple[Mapping[str, str], ...], passes: bool) -> None:
    judge = build(AggregateTypeAffinityFilter)
    assert judge.host_passes(member(*metadata), request(flavor="m1.small")) is passes


def test_the_reasons_name_for_whom_a_host_is_reserved() -> None:
    reserved = member({"filter_tenant_id": "p3,p2", "instance_type": "c1"})
    assert build(AggregateMultiTenancyIsolation).reason(reserved, request()) == (
        "reserved for projects p2,p3, not for 'p1'"
    )
    assert (
        build(AggregateTypeAffinityFilter).reason(reserved, request()) == "reserved for flavors c1, not for 'm1.small'"
    )


@pytest.mark.parametrize(
    ("limits", "load", "passes"),
    [
        ((), 2, True),
        ((), 3, False),
        (("5",), 4, True),
        (("5",), 5, False),
        (("5", " 2 "), 2, False),
        (("5", "many"), 2, True),
        (("5", "many"), 3, False),
        (("1,2",), 2, True),
    ],
)
def test_the_least_limit_of_the_aggregates_holds_unless_one_is_no_number(
    limits: tuple[str, ...], load: int, passes: bool
) -> None:
    configured = {"max_io_ops_per_host": 3, "max_instances_per_host": 3}
    io_ops = build(AggregateIoOpsFilter, filter_scheduler=configured)
    instances = build(AggregateNumInstancesFilter, filter_scheduler=configured)
    busy = member(*({"max_io_ops_per_host": limit} for limit in limits), num_io_ops=load)
    full = member(*({"max_instances_per_host": limit} for limit in limits), num_instances=load)
    assert io_ops.host_passes(busy, request()) is passes
    assert instances.host_passes(full, request()) is passes


def test_the_plain_filters_do_not_read_aggregates() -> None:
    judge = build(IoOpsFilter)
    assert judge.host_passes(member({"max_io_ops_per_host": "1"}, num_io_ops=7), request())
    assert judge.fields(request()) == {"num_io_ops"}
    assert build(AggregateIoOpsFilter).fields(request()) == {"num_io_ops", "aggregates"}
