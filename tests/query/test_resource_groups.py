"""Which resources and traits a flavor and an image ask for, group by group."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.placement.request.flavor_and_image import Wishes
from hostler.placement.request.resource_groups import groups_of, required_traits
from hostler.placement.types.errors import HostlerError, InvalidValue, UnknownName

from .values import groups, request

DEFAULT = {"VCPU": 4, "MEMORY_MB": 2048, "DISK_GB": 10}
MIXED = {"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0-1"}


@pytest.mark.parametrize(
    ("flavor", "disk_gb"),
    [
        ({"root_gb": 10}, 10),
        ({"root_gb": 10, "ephemeral_gb": 5}, 15),
        ({"root_gb": 10, "swap": 1}, 11),
        ({"root_gb": 10, "swap": 1024}, 11),
        ({"root_gb": 0, "swap": 1025}, 2),
        ({"root_gb": 0}, None),
    ],
)
def test_disk_is_root_and_ephemeral_and_swap_rounded_up(flavor: dict[str, int], disk_gb: int | None) -> None:
    assert groups(request(flavor=flavor)).group().resources.get("DISK_GB") == disk_gb


def test_a_boot_from_volume_needs_no_root_disk() -> None:
    asked = request(flavor={"root_gb": 10, "ephemeral_gb": 3}, is_bfv=True)
    assert groups(asked).group().resources["DISK_GB"] == 3


@pytest.mark.parametrize(
    ("extra_specs", "expected"),
    [
        ({}, DEFAULT),
        ({"resources:VGPU": "1"}, DEFAULT | {"VGPU": 1}),
        ({"resources:MEMORY_MB": "99"}, DEFAULT | {"MEMORY_MB": 99}),
        ({"resources:DISK_GB": "0"}, {"VCPU": 4, "MEMORY_MB": 2048}),
        ({"resources1:DISK_GB": "0"}, {"VCPU": 4, "MEMORY_MB": 2048}),
        ({"resources1:VCPU": "2"}, {"MEMORY_MB": 2048, "DISK_GB": 10}),
        ({"resources:PCPU": "2"}, {"PCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 10}),
        ({"resources:CUSTOM_BAREMETAL_X": "1", "resources:VCPU": "0"}, DEFAULT | {"CUSTOM_BAREMETAL_X": 1, "VCPU": 0}),
        ({"hw:cpu_policy": "dedicated"}, DEFAULT | {"PCPU": 4, "VCPU": 0}),
        ({"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "isolate"}, DEFAULT | {"PCPU": 5, "VCPU": 0}),
        ({"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "share"}, DEFAULT | {"PCPU": 4, "VCPU": 0}),
        ({"hw:cpu_policy": "shared"}, DEFAULT),
        (MIXED, DEFAULT | {"PCPU": 2, "VCPU": 2}),
        (MIXED | {"hw:emulator_threads_policy": "isolate"}, DEFAULT | {"PCPU": 3, "VCPU": 2}),
        ({"hw:pmem": "4GB, 4GB,,16gb"}, DEFAULT | {"CUSTOM_PMEM_NAMESPACE_4GB": 2, "CUSTOM_PMEM_NAMESPACE_16GB": 1}),
        ({"other:VGPU": "1", "resourcesVGPU": "1"}, DEFAULT),
    ],
)
def test_the_unsuffixed_group_has_the_flavors_sizes_and_extra_specs(
    extra_specs: dict[str, str], expected: dict[str, int]
) -> None:
    wanted = {name: amount for name, amount in expected.items() if amount}
    assert groups(request(extra_specs)).group().resources == wanted


def test_groups_with_a_suffix_stand_beside() -> None:
    asked = request({"resources1:VGPU": "1", "trait1:CUSTOM_A": "forbidden", "resources_N-t:SRIOV_NET_VF": "2"})
    found = groups(asked)
    assert sorted(found.by_suffix) == ["", "1", "_N-t"]
    assert (found.group("1").resources, found.group("1").forbidden) == ({"VGPU": 1}, {"CUSTOM_A"})
    assert found.group("_N-t").resources == {"SRIOV_NET_VF": 2}


def test_a_group_of_nothing_is_no_group() -> None:
    assert list(groups(request({"resources1:VGPU": "0"})).by_suffix) == [""]


def test_traits_come_from_the_flavor_and_the_image() -> None:
    properties = {
        "trait:CUSTOM_IMG": "required",
        "trait:CUSTOM_NOT": "forbidden",
        "traits_required": ["CUSTOM_LIST"],
    }
    asked = request({"trait:HW_CPU_X86_AVX2": "required", "trait1:CUSTOM_B": "required"}, properties)
    found = groups(asked)
    assert found.group().required == {"HW_CPU_X86_AVX2", "CUSTOM_IMG"}
    assert required_traits(found) == {"HW_CPU_X86_AVX2", "CUSTOM_IMG", "CUSTOM_B"}


UEFI = {"hw_firmware_type": "uefi"}


@pytest.mark.parametrize(
    ("extra_specs", "properties", "required", "forbidden"),
    [
        ({"hw:cpu_thread_policy": "require"}, {}, {"HW_CPU_HYPERTHREADING"}, set()),
        ({"hw:cpu_thread_policy": "isolate"}, {}, set(), {"HW_CPU_HYPERTHREADING"}),
        ({"hw:cpu_thread_policy": "prefer"}, {}, set(), set()),
        ({"hw:mem_encryption": "true"}, UEFI, {"HW_CPU_X86_AMD_SEV"}, set()),
        ({}, UEFI | {"hw_mem_encryption": True, "hw_machine_type": "pc-q35-5"}, {"HW_CPU_X86_AMD_SEV"}, set()),
        (
            {"hw:mem_encryption": "1", "hw:mem_encryption_model": "amd-sev-es"},
            UEFI,
            {"HW_CPU_X86_AMD_SEV_ES"},
            set(),
        ),
        ({"hw:tpm_version": "1.2"}, {}, {"COMPUTE_SECURITY_TPM_1_2", "COMPUTE_SECURITY_TPM_TIS"}, set()),
        (
            {"hw:tpm_version": "2.0"},
            {"hw_tpm_model": "tpm-crb"},
            {"COMPUTE_SECURITY_TPM_2_0", "COMPUTE_SECURITY_TPM_CRB"},
            set(),
        ),
        ({"hw:tpm_model": "tpm-crb"}, {}, set(), set()),
        ({"os:secure_boot": "required"}, {}, {"COMPUTE_SECURITY_UEFI_SECURE_BOOT"}, set()),
        ({}, {"os_secure_boot": "optional"}, set(), set()),
        ({"hw:maxphysaddr_mode": "emulate"}, {}, {"COMPUTE_ADDRESS_SPACE_EMULATED"}, set()),
        ({}, {"hw_maxphysaddr_mode": "passthrough"}, {"COMPUTE_ADDRESS_SPACE_PASSTHROUGH"}, set()),
        ({"hw:maxphysaddr_bits": "42"}, {}, set(), set()),
        ({}, UEFI | {"hw_firmware_stateless": "yes"}, {"COMPUTE_SECURITY_STATELESS_FIRMWARE"}, set()),
        ({"hw:pci_numa_affinity_policy": "socket"}, {}, {"COMPUTE_SOCKET_PCI_NUMA_AFFINITY"}, set()),
        ({"hw:pci_numa_affinity_policy": "preferred"}, {}, set(), set()),
    ],
)
def test_a_wish_is_a_trait(
    extra_specs: dict[str, str], properties: dict[str, Any], required: set[str], forbidden: set[str]
) -> None:
    found = groups(request(extra_specs, properties)).group()
    assert (found.required, found.forbidden) == (required, forbidden)


def test_memory_encryption_takes_a_context() -> None:
    found = groups(request({"hw:mem_encryption": "true"}, UEFI)).group()
    assert found.resources["MEM_ENCRYPTION_CONTEXT"] == 1


def test_unpinned_cpus_and_their_threads_are_plain_ones() -> None:
    asked = request({"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require"})
    found = groups_of(asked, Wishes.of(asked), pinned=False).group()
    assert (found.resources, found.required) == (DEFAULT, set())


@pytest.mark.parametrize(
    ("extra_specs", "error", "words"),
    [
        ({"resources:VGPUS": "1"}, UnknownName, "closest: VGPU"),
        ({"resources:CUSTOM_a": "1"}, UnknownName, "resource class 'CUSTOM_a'"),
        ({"resources:VGPU": "-1"}, InvalidValue, "resources:VGPU is '-1'"),
        ({"resources:VGPU": "one"}, InvalidValue, "from 0 to 2147483647"),
        ({"resources:VGPU": "2147483648"}, InvalidValue, "from 0 to 2147483647"),
        ({"trait:HW_CPU_X86_AVX3": "required"}, UnknownName, "HW_CPU_X86_AVX"),
        ({"trait:CUSTOM_A": "wanted"}, InvalidValue, "required, forbidden"),
        ({"trait:": "required"}, UnknownName, "unknown trait ''"),
        ({"group_policy": "spread"}, InvalidValue, "none, isolate"),
    ],
)
def test_names_and_amounts_that_do_not_exist_are_refused(
    extra_specs: dict[str, str], error: type[HostlerError], words: str
) -> None:
    with pytest.raises(error) as failure:
        groups(request(extra_specs))
    assert words in str(failure.value)
    assert failure.value.field == next(iter(extra_specs))


def test_an_unknown_trait_of_the_image_is_refused() -> None:
    with pytest.raises(UnknownName) as failure:
        groups(request(properties={"trait:NOT_A_TRAIT": "required"}))
    assert failure.value.field == "trait:NOT_A_TRAIT"
