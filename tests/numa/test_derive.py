"""The NUMA topology that flavor and image ask for, and the contradictions that are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.placement.numa.derive import derive as numa_derive
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.request import Flavor, Image, InstanceNumaCell, InstanceNumaTopology

Specs = dict[str, str]


def derive(specs: Specs, image: dict[str, Any] | None = None, vcpus: int = 4) -> InstanceNumaTopology | None:
    flavor = Flavor(name="f", vcpus=vcpus, memory_mb=4096, extra_specs=specs)
    return numa_derive(flavor, None if image is None else Image(properties=image))


def cells(specs: Specs, image: dict[str, Any] | None = None) -> tuple[InstanceNumaCell, ...]:
    topology = derive(specs, image)
    assert topology is not None
    return topology.cells


@pytest.mark.parametrize(
    "specs",
    [
        {},
        {"hw:cpu_policy": "shared"},
        {"resources:VCPU": "4"},
        {"hw:pmem": " , "},
        {"hw:emulator_threads_policy": "share"},
    ],
    ids=str,
)
def test_most_flavors_ask_for_no_numa_cells(specs: Specs) -> None:
    assert derive(specs) is None


@pytest.mark.parametrize(
    "specs",
    [
        {"hw:numa_nodes": "1"},
        {"hw:mem_page_size": "large"},
        {"hw:cpu_policy": "dedicated"},
        {"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0"},
        {"hw:pmem": "4GB"},
        {"resources:PCPU": "4"},
    ],
    ids=str,
)
def test_nodes_pages_persistent_memory_and_dedicated_cpus_ask_for_cells(specs: Specs) -> None:
    assert len(cells(specs)) == 1


def test_nodes_share_cpus_and_memory_equally() -> None:
    expected = [(0, frozenset({0, 1}), 2048), (1, frozenset({2, 3}), 2048)]
    assert [(cell.id, cell.cpuset, cell.memory) for cell in cells({"hw:numa_nodes": "2"})] == expected


LISTED = {
    "hw:numa_nodes": "2",
    "hw:numa_cpus.0": "0",
    "hw:numa_cpus.1": "1-3",
    "hw:numa_mem.0": "1024",
    "hw:numa_mem.1": "3072",
}


def test_nodes_may_be_listed_one_by_one() -> None:
    expected = [(frozenset({0}), 1024), (frozenset({1, 2, 3}), 3072)]
    assert [(cell.cpuset, cell.memory) for cell in cells(LISTED)] == expected
    image = {name.replace("hw:", "hw_"): value for name, value in LISTED.items()}
    assert [(cell.cpuset, cell.memory) for cell in cells({}, {**image, "hw_numa_nodes": 2})] == expected


def test_dedicated_cpus_are_all_cpus() -> None:
    (cell,) = cells({"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "isolate"})
    assert (cell.cpuset, cell.pcpuset) == (frozenset(), frozenset({0, 1, 2, 3}))
    assert (cell.cpu_policy, cell.cpu_thread_policy) == ("dedicated", "isolate")


@pytest.mark.parametrize(("mask", "dedicated"), [("0-1", {0, 1}), ("^0", {1, 2, 3}), ("0-2,^1", {0, 2}), (" 3 ", {3})])
def test_a_mask_says_which_cpus_of_a_mixed_guest_are_dedicated(mask: str, dedicated: set[int]) -> None:
    (cell,) = cells({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": mask})
    assert cell.pcpuset == dedicated
    assert cell.cpuset == {0, 1, 2, 3} - dedicated


def test_realtime_cpus_of_a_mixed_guest_are_the_dedicated_ones() -> None:
    (cell,) = cells({"hw:cpu_policy": "mixed", "hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "^0-1"})
    assert cell.pcpuset == {2, 3}


@pytest.mark.parametrize(("trait", "policy"), [("required", "require"), ("forbidden", "isolate")])
def test_the_hyperthreading_trait_stands_for_a_thread_policy(trait: str, policy: str) -> None:
    (cell,) = cells({"hw:cpu_policy": "dedicated", "trait:HW_CPU_HYPERTHREADING": trait})
    assert cell.cpu_thread_policy == policy


def test_the_emulator_threads_policy_is_the_whole_guest_s() -> None:
    topology = derive({"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "isolate"})
    assert topology is not None
    assert topology.emulator_threads_policy == "isolate"


@pytest.mark.parametrize(
    ("text", "size"),
    [("small", -1), ("large", -2), ("any", -3), ("2048", 2048), ("2MB", 2048), ("1GB", 1048576), ("4KiB", 4)],
)
def test_page_sizes_are_classes_or_amounts(text: str, size: int) -> None:
    assert cells({"hw:mem_page_size": text})[0].pagesize == size


@pytest.mark.parametrize(
    "text", ["1" * 5_000, "1" * 5_000 + "MB", "\u00b2"], ids=["digits", "with a unit", "superscript"]
)
def test_page_sizes_of_more_digits_than_can_be_converted_are_refused(text: str) -> None:
    for specs, image in (({"hw:mem_page_size": text}, None), ({"hw:mem_page_size": "any"}, {"hw_mem_page_size": text})):
        with pytest.raises(InvalidValue, match="is not a page size"):
            derive(specs, image)


def test_an_image_chooses_pages_only_where_the_flavor_leaves_the_choice() -> None:
    assert cells({"hw:mem_page_size": "any"}, {"hw_mem_page_size": "2048"})[0].pagesize == 2048
    assert cells({"hw:mem_page_size": "large"}, {"hw_mem_page_size": "1GB"})[0].pagesize == 1048576


def test_an_image_may_choose_policies_that_the_flavor_does_not_name() -> None:
    (cell,) = cells({}, {"hw_cpu_policy": "dedicated", "hw_cpu_thread_policy": "prefer"})
    assert (cell.cpu_policy, cell.cpu_thread_policy) == ("dedicated", "prefer")


def test_a_dedicated_flavor_overrules_an_image_that_asks_for_less() -> None:
    assert cells({"hw:cpu_policy": "dedicated"}, {"hw_cpu_policy": "shared"})[0].cpu_policy == "dedicated"


DEDICATED = {"hw:cpu_policy": "dedicated"}
MIXED = {"hw:cpu_policy": "mixed"}


@pytest.mark.parametrize(
    ("specs", "image", "field"),
    [
        ({"hw:numa_nodes": "0"}, {}, "hw:numa_nodes"),
        ({"hw:numa_nodes": "two"}, {}, "hw:numa_nodes"),
        ({"hw:numa_nodes": " 2"}, {}, "hw:numa_nodes"),
        ({"hw:numa_nodes": "3"}, {}, "hw:numa_nodes"),
        ({"hw:numa_nodes": "2"}, {"hw_numa_nodes": 2}, "hw_numa_nodes"),
        ({**LISTED, "hw:numa_nodes": "1"}, {}, "hw:numa_cpus"),
        ({**LISTED, "hw:numa_cpus.1": "1-2"}, {}, "hw:numa_cpus"),
        ({**LISTED, "hw:numa_cpus.1": "1-4"}, {}, "hw:numa_cpus"),
        ({**LISTED, "hw:numa_cpus.1": "0-3"}, {}, "hw:numa_cpus"),
        ({**LISTED, "hw:numa_cpus.1": "x"}, {}, "hw:numa_cpus.1"),
        ({**LISTED, "hw:numa_mem.1": "3"}, {}, "hw:numa_mem"),
        ({**LISTED, "hw:numa_mem.1": "much"}, {}, "hw:numa_mem.1"),
        (LISTED, {"hw_numa_mem.0": "1024"}, "hw_numa_mem"),
        ({"hw:cpu_policy": "generous"}, {}, "hw:cpu_policy"),
        ({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "dedicated"}, "hw_cpu_policy"),
        (MIXED, {"hw_cpu_policy": "dedicated"}, "hw_cpu_policy"),
        (MIXED, {}, "hw:cpu_dedicated_mask"),
        ({**MIXED, "hw:cpu_dedicated_mask": "0-3"}, {}, "hw:cpu_dedicated_mask"),
        ({**MIXED, "hw:cpu_dedicated_mask": "4"}, {}, "hw:cpu_dedicated_mask"),
        ({**MIXED, "hw:cpu_dedicated_mask": "1-0"}, {}, "hw:cpu_dedicated_mask"),
        ({**DEDICATED, "hw:cpu_dedicated_mask": "0"}, {}, "hw:cpu_dedicated_mask"),
        ({"hw:cpu_dedicated_mask": "0"}, {}, "hw:cpu_dedicated_mask"),
        ({"hw:cpu_thread_policy": "prefer"}, {}, "hw:cpu_thread_policy"),
        ({**DEDICATED, "hw:cpu_thread_policy": "require"}, {"hw_cpu_thread_policy": "isolate"}, "hw_cpu_thread_policy"),
        ({**DEDICATED, "hw:cpu_thread_policy": "most"}, {}, "hw:cpu_thread_policy"),
        (
            {**DEDICATED, "hw:cpu_thread_policy": "require", "trait:HW_CPU_HYPERTHREADING": "required"},
            {},
            "hw:cpu_thread_policy",
        ),
        ({"hw:emulator_threads_policy": "isolate"}, {}, "hw:emulator_threads_policy"),
        ({**DEDICATED, "hw:emulator_threads_policy": "on"}, {}, "hw:emulator_threads_policy"),
        ({"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "^0"}, {}, "hw:cpu_realtime"),
        ({**DEDICATED, "hw:cpu_realtime": "yes"}, {}, "hw:cpu_realtime_mask"),
        ({**DEDICATED, "resources:PCPU": "4"}, {}, "resources:PCPU"),
        ({"resources:PCPU": "3"}, {}, "resources:PCPU"),
        ({"hw:mem_page_size": "huge"}, {}, "hw:mem_page_size"),
        ({"hw:mem_page_size": "2048"}, {"hw_mem_page_size": "4"}, "hw_mem_page_size"),
        ({}, {"hw_mem_page_size": "4"}, "hw_mem_page_size"),
        ({"hw:locked_memory": "true"}, {}, "hw:locked_memory"),
        ({"hw:mem_page_size": "any", "hw:locked_memory": "true"}, {"hw_locked_memory": "false"}, "hw_locked_memory"),
    ],
    ids=str,
)
def test_a_contradiction_is_refused_with_the_property_at_fault(specs: Specs, image: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValue) as refusal:
        derive(specs, image)
    assert refusal.value.field == field


def test_a_range_without_end_is_refused_before_it_is_built() -> None:
    with pytest.raises(InvalidValue, match="names no CPUs"):
        derive({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0-99999999999"})
