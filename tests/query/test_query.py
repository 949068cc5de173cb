"""The query as a value and as Nova's string."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.request.placement_query import PlacementQuery, RequestGroup, placement_query, with_image
from hostler.placement.types.errors import HostlerError, NoValidHost
from hostler.placement.types.options import Options
from hostler.placement.types.request import Destination

from .values import aggregate, lookup, params, query, request

RESOURCES = ("resources", "DISK_GB:10,MEMORY_MB:2048,VCPU:4")


def test_a_plain_request_asks_for_its_flavors_sizes() -> None:
    assert query(request()).to_querystrings() == [
        "limit=1000&resources=DISK_GB%3A10%2CMEMORY_MB%3A2048%2CVCPU%3A4&root_required=%21COMPUTE_STATUS_DISABLED"
    ]


def test_parameters_are_sorted_and_so_are_their_values() -> None:
    extra_specs = {
        "trait:CUSTOM_Z": "required",
        "trait:CUSTOM_A": "required",
        "trait:CUSTOM_N": "forbidden",
        "resources1:VGPU": "1",
        "trait1:CUSTOM_B": "required",
        "group_policy": "isolate",
    }
    assert params(request(extra_specs)) == [
        ("group_policy", "isolate"),
        ("required", "CUSTOM_A,CUSTOM_Z,!CUSTOM_N"),
        ("required1", "CUSTOM_B"),
        RESOURCES,
        ("resources1", "VGPU:1"),
    ]


@pytest.mark.parametrize("hint", ["group", "same_host", "different_host"])
def test_hints_of_filters_that_need_every_host_lift_the_limit(hint: str) -> None:
    assert query(request(scheduler_hints={hint: ("x",)})).limit is None


def test_the_limit_is_the_options_otherwise() -> None:
    assert query(request(scheduler_hints={"query": ("x",)}), max_placement_results=7).limit == 7


@pytest.mark.parametrize(
    ("spec", "in_tree", "limit"),
    [
        ({"force_hosts": ("h1",)}, "uuid-1", 1000),
        ({"force_nodes": ("n2",)}, "uuid-2", 1000),
        ({"force_hosts": ("h2",)}, None, None),
        ({"force_hosts": ("h2",), "force_nodes": ("n3",)}, "uuid-3", 1000),
        ({"requested_destination": Destination(host="h1", node="n1")}, "uuid-1", 1000),
        ({"requested_destination": Destination(host="h2", cell_uuid="c2")}, "uuid-3", 1000),
        ({"requested_destination": Destination(host="h1"), "force_hosts": ("h2",)}, "uuid-1", 1000),
        ({"requested_destination": Destination(cell_uuid="c2")}, None, 1000),
    ],
)
def test_the_only_node_to_go_to_is_named_and_several_lift_the_limit(
    spec: dict[str, Any], in_tree: str | None, limit: int | None
) -> None:
    found = query(request(**spec))
    assert (found.unsuffixed.in_tree, found.limit) == (in_tree, limit)


@pytest.mark.parametrize(
    "spec", [{"force_hosts": ("H1",)}, {"requested_destination": Destination(host="h1", node="n2")}]
)
def test_a_host_that_does_not_exist_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(NoValidHost, match="no such host"):
        query(request(**spec))


def test_a_destinations_aggregates_are_anded_and_each_is_any_of() -> None:
    destination = Destination(aggregates=("b,a", "c"), forbidden_aggregates=frozenset("zy"))
    asked = request(requested_destination=destination, availability_zone="z1")
    found = params(asked, [aggregate("d", availability_zone="z1")])
    members = [value for name, value in found if name == "member_of"]
    assert members == ["!in:y,z", "in:a,b", "in:c", "in:d"]
    assert query(asked).unsuffixed.member_of == (frozenset("ab"), frozenset("c"))


def test_pinned_cpus_are_also_asked_for_as_plain_ones() -> None:
    extra_specs = {"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "isolate"}
    first, second = query(request(extra_specs)).to_querystrings()
    assert ("PCPU%3A4" in first, "HW_CPU_HYPERTHREADING" in first) == (True, True)
    assert ("VCPU%3A4" in second, "PCPU" in second, "HW_CPU_HYPERTHREADING" in second) == (True, False, False)


def test_mixed_cpus_have_no_fallback() -> None:
    assert query(request({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0"})).fallback is None


def test_the_fallback_can_be_switched_off() -> None:
    options = Options.from_mapping({"workarounds": {"disable_fallback_pcpu_query": True}})
    found = placement_query(request({"hw:cpu_policy": "dedicated"}), (), lookup, options)
    assert found.fallback is None


def test_required_traits_keep_aggregates_that_are_kept_for_them() -> None:
    kept = aggregate("a", trait__CUSTOM_A="required")
    asked = request({"trait1:CUSTOM_A": "required", "resources1:VGPU": "1"})
    assert query(asked, [kept], enable_isolated_aggregate_filtering=True).unsuffixed.forbidden_aggregates == frozenset()


def test_a_request_without_an_image_gets_an_empty_one() -> None:
    asked = request(image=None)
    assert query(with_image(asked)) == query(request(disk_format=None))
    assert with_image(request()).image is not None


def test_a_query_is_one_key_for_equal_requests() -> None:
    assert len({query(request()), query(request()), query(request({"resources:VGPU": "1"}))}) == 2


def test_every_part_of_a_query_is_in_its_string() -> None:
    unsuffixed = RequestGroup(
        resources=(("VCPU", 1),),
        required=frozenset({"A"}),
        any_of=(frozenset({"C", "B"}),),
        member_of=(frozenset("xy"),),
        forbidden_aggregates=frozenset("z"),
        in_tree="u",
    )
    suffixed = replace(unsuffixed, suffix="_N", any_of=(), in_tree=None)
    whole = PlacementQuery(groups=(unsuffixed, suffixed), same_subtree=(("_N", "_M"),), group_policy="none", limit=3)
    assert parse_qsl(whole.to_querystring()) == [
        ("group_policy", "none"),
        ("in_tree", "u"),
        ("limit", "3"),
        ("member_of", "!in:z"),
        ("member_of", "in:x,y"),
        ("member_of_N", "!in:z"),
        ("member_of_N", "in:x,y"),
        ("required", "A"),
        ("required", "in:B,C"),
        ("required_N", "A"),
        ("resources", "VCPU:1"),
        ("resources_N", "VCPU:1"),
        ("same_subtree", "_N,_M"),
    ]


TWO = {"resources1:VGPU": "1", "resources2:VGPU": "1"}


@pytest.mark.parametrize(
    ("extra_specs", "words"),
    [
        (TWO, "need group_policy"),
        ({"resources:VCPU": "0", "resources:MEMORY_MB": "0", "resources:DISK_GB": "0"}, "no resources"),
        ({"trait1:CUSTOM_A": "required"}, "request group '1' has no resources"),
        (
            {"hw:cpu_thread_policy": "require", "trait:HW_CPU_HYPERTHREADING": "forbidden"},
            "both required and forbidden",
        ),
    ],
)
def test_what_placement_refuses_is_no_valid_host(extra_specs: dict[str, str], words: str) -> None:
    with pytest.raises(NoValidHost, match=words):
        query(request(extra_specs)).check()


@pytest.mark.parametrize("extra_specs", [{}, TWO | {"group_policy": "none"}, {"resources1:VGPU": "1"}])
def test_what_placement_takes_passes_the_check(extra_specs: dict[str, str]) -> None:
    query(request(extra_specs)).check()


def test_a_group_without_resources_passes_if_it_names_a_subtree() -> None:
    bare = RequestGroup(suffix="1", required=frozenset({"CUSTOM_A"}))
    PlacementQuery(groups=(RequestGroup(resources=(("VCPU", 1),)), bare), same_subtree=(("1",),)).check()


@pytest.mark.parametrize("suffixes", [("2",), ("1", "_A"), ("",)])
def test_a_subtree_of_a_group_that_is_none_is_refused_by_its_suffix(suffixes: tuple[str, ...]) -> None:
    groups = (RequestGroup(resources=(("VCPU", 1),)), RequestGroup(suffix="1", resources=(("VGPU", 1),)))
    with pytest.raises(NoValidHost, match=f"same_subtree names {suffixes[-1]!r}, which is no request group"):
        PlacementQuery(groups=groups, same_subtree=(suffixes,)).check()


def test_without_an_unsuffixed_group_there_is_an_empty_one() -> None:
    assert PlacementQuery(groups=()).unsuffixed == RequestGroup()


# Whatever extra specs and image properties say

KEYS = [
    *(f"hw:{key}" for key in ("cpu_policy", "cpu_dedicated_mask", "cpu_thread_policy", "mem_encryption", "pmem")),
    *("hw:tpm_version", "hw:tpm_model", "os:secure_boot", "hw:ephemeral_encryption", "hw:cpu_realtime"),
    *(
        "resources:VCPU",
        "resources:VGPU",
        "resources1:VGPU",
        "resources_A:CUSTOM_B",
        "trait:CUSTOM_A",
        "trait1:",
        "group_policy",
    ),
]
VALUES = [
    "dedicated",
    "mixed",
    "shared",
    "0-1",
    "^0",
    "require",
    "isolate",
    "true",
    "no",
    "2.0",
    "tpm-crb",
    "required",
    "0",
    "1",
]
words = st.sampled_from(VALUES) | st.text(max_size=6)
extra_specs_given = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), words, max_size=6)
properties_given = st.dictionaries(
    st.sampled_from([key.replace(":", "_") for key in KEYS] + ["hw_firmware_type", "trait:CUSTOM_C"])
    | st.text(max_size=8),
    words | st.booleans() | st.integers() | st.none() | st.just("uefi"),
    max_size=6,
)


@pytest.mark.property
@settings(deadline=None)
@given(extra_specs_given, properties_given)
def test_a_request_has_a_query_or_a_hostler_error(extra_specs: dict[str, str], properties: dict[str, Any]) -> None:
    with contextlib.suppress(HostlerError):
        found = query(request(extra_specs, properties), image_metadata_prefilter=True)
        assert found == query(request(extra_specs, properties), image_metadata_prefilter=True)
        names = [name for name, _ in parse_qsl(found.to_querystring())]
        assert names == sorted(names)
        assert all(amount > 0 for group in found.groups for _, amount in group.resources)
        found.check()
