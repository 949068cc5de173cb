"""ImagePropertiesFilter."""

from typing import Any

import pytest

from hostler.placement.filters.image_properties import ImagePropertiesFilter
from hostler.placement.types.errors import InvalidValue

from .values import build, host, request

JUDGE = ImagePropertiesFilter
HOST = host(
    supported_instances=(("x86_64", "kvm", "hvm"), ("i686", "xen", "xen")),
    hypervisor_version=8002001,
    cpu_info='{"maxphysaddr": {"mode": "passthrough", "bits": 46}}',
)

TABLE: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"hw_architecture": "x86_64"}, True),
    ({"hw_architecture": "amd64"}, True),
    ({"hw_architecture": "aarch64"}, False),
    ({"img_hv_type": "KVM", "hw_vm_mode": "hv"}, True),
    ({"hw_architecture": "i386", "hw_vm_mode": "pv"}, True),
    ({"hw_architecture": "x86_64", "hw_vm_mode": "xen"}, False),
    ({"img_hv_requested_version": ">=9"}, True),
    ({"img_hv_type": "kvm", "img_hv_requested_version": ">=9"}, False),
    ({"img_hv_type": "kvm", "img_hv_requested_version": ">=8.2, <9"}, True),
    ({"img_hv_type": "kvm", "img_hv_requested_version": "==8.2.1"}, True),
    ({"img_hv_type": "kvm", "img_hv_requested_version": "!=8.2.1.0"}, False),
    ({"img_hv_type": "kvm", "img_hv_requested_version": ">8.2.1,<=10"}, False),
    ({"img_hv_type": "kvm", "img_hv_requested_version": "<8.10"}, True),
    ({"hw_maxphysaddr_bits": 46, "hw_maxphysaddr_mode": "emulate"}, True),
    ({"hw_maxphysaddr_bits": "47"}, False),
]


@pytest.mark.parametrize(("properties", "passes"), TABLE)
def test_one_row_of_what_the_host_supports_must_have_all_that_the_image_wants(
    properties: dict[str, Any], passes: bool
) -> None:
    assert build(JUDGE).host_passes(HOST, request(properties=properties)) is passes


def test_a_host_that_tells_nothing_supports_nothing() -> None:
    judge, mute = build(JUDGE), host()
    assert not judge.host_passes(mute, request(properties={"hw_architecture": "x86_64"}))
    assert not judge.host_passes(mute, request(properties={"hw_maxphysaddr_bits": 40}))
    assert judge.host_passes(mute, request(properties={"os_distro": "ubuntu"}))


@pytest.mark.parametrize("version", [None, 0])
def test_an_unknown_hypervisor_version_satisfies_every_request(version: int | None) -> None:
    known_kind = host(supported_instances=(("x86_64", "kvm", "hvm"),), hypervisor_version=version)
    asked = request(properties={"img_hv_type": "kvm", "img_hv_requested_version": ">=9"})
    assert build(JUDGE).host_passes(known_kind, asked)


def test_an_image_without_an_architecture_has_the_configured_one() -> None:
    judge = build(JUDGE, filter_scheduler={"image_properties_default_architecture": "AArch64"})
    assert not judge.host_passes(HOST, request())
    assert not judge.host_passes(HOST, request(properties={}))
    assert judge.host_passes(HOST, request(properties={"hw_architecture": "x86_64"}))


@pytest.mark.parametrize(
    ("properties", "fields"),
    [
        ({"os_distro": "x", "img_hv_requested_version": ">=9"}, None),
        ({"hw_vm_mode": "hvm"}, {"supported_instances"}),
        ({"hw_vm_mode": "hvm", "img_hv_requested_version": ">=9"}, {"supported_instances", "hypervisor_version"}),
        ({"hw_maxphysaddr_bits": 40}, {"cpu_info"}),
    ],
)
def test_only_the_fields_that_the_image_asks_for_are_read(properties: dict[str, Any], fields: set[str] | None) -> None:
    judge, asked = build(JUDGE), request(properties=properties)
    assert judge.applies(asked) is (fields is not None)
    assert judge.fields(asked) == (fields or set())


@pytest.mark.parametrize(
    ("properties", "field"),
    [
        ({"hw_vm_mode": "hvm", "img_hv_requested_version": "six"}, "img_hv_requested_version"),
        ({"hw_vm_mode": "hvm", "img_hv_requested_version": ">=6,"}, "img_hv_requested_version"),
        ({"hw_maxphysaddr_bits": "many"}, "hw_maxphysaddr_bits"),
    ],
)
def test_a_property_that_cannot_be_read_is_an_error_that_names_it(properties: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        build(JUDGE).host_passes(HOST, request(properties=properties))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"hw_architecture": "ppc64", "img_hv_type": "kvm"}, "no supported instance type has ppc64 kvm"),
        (
            {"img_hv_type": "kvm", "img_hv_requested_version": ">=9"},
            "hypervisor version 8.2.1 does not satisfy '>=9'",
        ),
        ({"hw_maxphysaddr_bits": 52}, "the CPU is not known to have 52 physical address bits"),
    ],
)
def test_the_reason_names_what_the_image_lacks(properties: dict[str, Any], reason: str) -> None:
    assert build(JUDGE).reason(HOST, request(properties=properties)) == reason


def test_nova_raises_on_physical_address_bits_of_an_image() -> None:
    judge = build(JUDGE)
    assert judge.nova_error(HOST, request(properties={"hw_maxphysaddr_bits": 40})) == "AttributeError"
    assert judge.nova_error(HOST, request(properties={"hw_vm_mode": "hvm"})) is None
