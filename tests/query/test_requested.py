"""Request groups of ports, device profiles and PCI devices, request-level parameters, and routed networks."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.placement.request.checks import check_spec
from hostler.placement.types.errors import InvalidValue, NoValidHost, UnknownName
from hostler.placement.types.request import (
    Flavor,
    RequestedNetwork,
    RequestGroup,
    RequestLevelParams,
    RequestSpec,
)

from .values import params, query, request

PORT = "4f0c6b2e-8c1f-4b9e-9f8d-0f8a3b1c2d3e"
BANDWIDTH = RequestGroup(
    resources={"NET_BW_EGR_KILOBIT_PER_SEC": 1000},
    required_traits=frozenset({"CUSTOM_PHYSNET_A"}),
    requester_id=PORT,
)


def test_a_ports_group_has_its_uuid_as_suffix() -> None:
    assert (f"resources{PORT}", "NET_BW_EGR_KILOBIT_PER_SEC:1000") in params(request(requested_resources=(BANDWIDTH,)))
    assert (f"required{PORT}", "CUSTOM_PHYSNET_A") in params(request(requested_resources=(BANDWIDTH,)))


def test_all_that_a_group_says_reaches_the_query() -> None:
    group = RequestGroup(
        resources={"FPGA": 1},
        forbidden_traits=frozenset({"CUSTOM_OLD"}),
        aggregates=(frozenset({"b", "a"}),),
        forbidden_aggregates=frozenset({"c"}),
        in_tree="tree",
        requester_id="device_profile_0",
    )
    found = params(request(requested_resources=(group,)))
    assert [pair for pair in found if pair[0].endswith("device_profile_0")] == [
        ("in_treedevice_profile_0", "tree"),
        ("member_ofdevice_profile_0", "!in:c"),
        ("member_ofdevice_profile_0", "in:a,b"),
        ("requireddevice_profile_0", "!CUSTOM_OLD"),
        ("resourcesdevice_profile_0", "FPGA:1"),
    ]


def test_a_group_that_need_not_be_of_one_provider_joins_the_unsuffixed_one() -> None:
    group = RequestGroup(resources={"FPGA": 1}, use_same_provider=False, requester_id="x")
    assert ("resources", "DISK_GB:10,FPGA:1,MEMORY_MB:2048,VCPU:4") in params(request(requested_resources=(group,)))


def test_several_groups_from_outside_need_no_group_policy() -> None:
    second = RequestGroup(resources={"FPGA": 1}, requester_id="device_profile_0")
    assert ("group_policy", "none") in params(request(requested_resources=(BANDWIDTH, second)))
    assert query(request(requested_resources=(BANDWIDTH,))).group_policy is None
    two_of_flavor = request({"resources1:VGPU": "1", "resources2:VGPU": "1"}, requested_resources=(BANDWIDTH,))
    assert query(two_of_flavor).group_policy is None


def test_request_level_parameters_join_what_prefilters_say() -> None:
    level = RequestLevelParams(
        root_required=frozenset({"CUSTOM_A"}), root_forbidden=frozenset({"CUSTOM_B"}), same_subtree=(("z", PORT),)
    )
    groups = (BANDWIDTH, RequestGroup(required_traits=frozenset({"CUSTOM_NIC"}), requester_id="z"))
    asked = query(request(requested_resources=groups, request_level_params=level))
    assert asked.root_required == {"CUSTOM_A"}
    assert asked.root_forbidden == {"CUSTOM_B", "COMPUTE_STATUS_DISABLED"}
    assert asked.same_subtree == ((PORT, "z"),)
    asked.check()


@pytest.mark.parametrize(
    ("groups", "error"),
    [
        ((BANDWIDTH, BANDWIDTH), InvalidValue),
        ((RequestGroup(requester_id="empty"),), InvalidValue),
        ((RequestGroup(resources={"BANDWIDTH": 1}, requester_id="a"),), UnknownName),
        ((RequestGroup(resources={"FPGA": 1}, required_traits=frozenset({"FAST"}), requester_id="a"),), UnknownName),
    ],
)
def test_groups_that_make_no_sense_are_refused(groups: tuple[RequestGroup, ...], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"requested_resources|unknown|asks for nothing|have the suffix"):
        query(request(requested_resources=groups))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("requested_resources", ("group",)),
        ("requested_resources", (RequestGroup(requester_id="with space"),)),
        ("requested_resources", (RequestGroup(resources={"FPGA": -1}),)),
        ("requested_resources", (RequestGroup(),) * 257),
        ("request_level_params", {"root_required": []}),
        ("request_level_params", RequestLevelParams(root_required="CUSTOM_A")),  # type: ignore[arg-type]  # wrong
        ("requested_networks", (RequestedNetwork(port_id=7),)),  # type: ignore[arg-type]  # on purpose
        ("network_metadata", "physnet0"),
        ("prepare", "yes"),
    ],
)
def test_malformed_fields_are_named(field: str, value: Any) -> None:
    parts: dict[str, Any] = {"flavor": Flavor(name="f", vcpus=1, memory_mb=1), field: value}
    with pytest.raises(InvalidValue) as refused:
        check_spec(RequestSpec(**parts))
    assert (refused.value.field or "").startswith(field)


def test_a_routed_network_narrows_to_the_aggregates_of_its_segments() -> None:
    networks = (
        RequestedNetwork(network_id="n", segment_aggregates=frozenset({"a", "b"})),
        RequestedNetwork(port_id="p", segment_aggregates=frozenset({"c"})),
        RequestedNetwork(network_id="flat"),
    )
    asked = request(requested_networks=networks)
    found = params(asked, query_placement_for_routed_network_aggregates=True)
    assert [value for name, value in found if name == "member_of"] == ["in:a,b", "in:c"]
    assert "member_of" not in dict(params(asked))


def test_a_routed_network_without_aggregates_has_no_host() -> None:
    asked = request(requested_networks=(RequestedNetwork(network_id="n", segment_aggregates=frozenset()),))
    with pytest.raises(NoValidHost, match="network n"):
        query(asked, query_placement_for_routed_network_aggregates=True)


def test_a_remote_managed_port_needs_a_host_that_attaches_such() -> None:
    asked = request(requested_networks=(RequestedNetwork(port_id="p", remote_managed=True),))
    assert query(asked).root_required == {"COMPUTE_REMOTE_MANAGED_PORTS"}
