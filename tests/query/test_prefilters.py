"""What narrows the placement query before any host is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.placement.request.prefilters import Known, Narrowing, NoImage, narrow
from hostler.placement.types.errors import NoValidHost
from hostler.placement.types.host import Aggregate
from hostler.placement.types.options import Options
from hostler.placement.types.request import Request

from .values import aggregate, request

DISABLED = frozenset({"COMPUTE_STATUS_DISABLED"})


def narrowed(asked: Request, *aggregates: Aggregate, traits: frozenset[str] = frozenset(), **options: Any) -> Narrowing:
    return narrow(Known(asked, aggregates, traits, Options.from_mapping({"scheduler": options})))


def roots(asked: Request, **options: Any) -> set[str]:
    return set(narrowed(asked, **options).root_required)


def test_disabled_hosts_are_never_asked_for() -> None:
    assert narrowed(request()) == Narrowing(root_forbidden=DISABLED)


# Aggregates

TENANTS = (
    aggregate("a", filter_tenant_id="p1"),
    aggregate("b", filter_tenant_id_2="p1"),
    aggregate("c", filter_tenant_id="p2"),
    aggregate("d", other="p1"),
)


@pytest.mark.parametrize(
    ("project", "options", "expected"),
    [
        ("p1", {}, ()),
        ("p1", {"limit_tenants_to_placement_aggregate": True}, (frozenset("ab"),)),
        ("p9", {"limit_tenants_to_placement_aggregate": True}, ()),
        ("p9", {"placement_aggregate_required_for_tenants": True}, ()),
    ],
)
def test_a_tenant_is_limited_to_its_aggregates(project: str, options: Any, expected: Any) -> None:
    assert narrowed(request(project_id=project), *TENANTS, **options).member_of == expected


def test_a_tenant_without_aggregates_may_be_refused() -> None:
    both: Any = {"limit_tenants_to_placement_aggregate": True, "placement_aggregate_required_for_tenants": True}
    with pytest.raises(NoValidHost, match="no aggregate is for project p9"):
        narrowed(request(project_id="p9"), *TENANTS, **both)


def test_any_metadata_of_a_tenants_aggregate_can_name_the_project_as_in_nova() -> None:
    quirk = aggregate("q", filter_tenant_id="p2", owner="p1")
    assert narrowed(request(), quirk, limit_tenants_to_placement_aggregate=True).member_of == (frozenset("q"),)


ZONES = (
    aggregate("a", availability_zone="z1"),
    aggregate("b", availability_zone="z1"),
    aggregate("c", availability_zone="z2"),
)


@pytest.mark.parametrize(("zone", "expected"), [("z1", (frozenset("ab"),)), ("z3", ()), (None, ()), ("", ())])
def test_a_zone_is_its_aggregates_and_an_unknown_one_is_none(zone: str | None, expected: Any) -> None:
    assert narrowed(request(availability_zone=zone), *ZONES).member_of == expected


def test_tenant_and_zone_must_both_hold() -> None:
    asked = request(availability_zone="z2")
    found = narrowed(asked, *TENANTS, *ZONES, limit_tenants_to_placement_aggregate=True)
    assert found.member_of == (frozenset("ab"), frozenset("c"))


ISOLATED = (
    aggregate("a", trait__CUSTOM_A="required"),
    aggregate("b", trait__CUSTOM_A="required", trait__CUSTOM_B="required"),
    aggregate("c", trait__CUSTOM_C="forbidden"),
)


@pytest.mark.parametrize(
    ("traits", "expected"),
    [(set(), {"a", "b"}), ({"CUSTOM_A"}, {"b"}), ({"CUSTOM_A", "CUSTOM_B"}, set()), ({"CUSTOM_B"}, {"a", "b"})],
)
def test_aggregates_kept_for_a_trait_are_forbidden_to_others(traits: set[str], expected: set[str]) -> None:
    found = narrowed(request(), *ISOLATED, traits=frozenset(traits), enable_isolated_aggregate_filtering=True)
    assert found.forbidden_aggregates == expected


def test_aggregates_are_kept_for_traits_only_if_the_option_says_so() -> None:
    assert narrowed(request(), *ISOLATED).forbidden_aggregates == frozenset()


# Traits of the root provider


@pytest.mark.parametrize(
    ("disk_format", "is_bfv", "expected"),
    [
        ("qcow2", False, {"COMPUTE_IMAGE_TYPE_QCOW2"}),
        ("qcow2", True, set()),
        ("punched-cards", False, set()),
        (None, False, set()),
    ],
)
def test_the_host_must_read_the_images_format(disk_format: str | None, is_bfv: bool, expected: set[str]) -> None:
    asked = request(disk_format=disk_format, is_bfv=is_bfv)
    assert roots(asked, query_placement_for_image_type_support=True) == expected
    assert roots(asked) == set()


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"hw_disk_bus": "virtio"}, {"COMPUTE_STORAGE_BUS_VIRTIO"}),
        ({"hw_cdrom_bus": "sata"}, {"COMPUTE_STORAGE_BUS_SATA"}),
        ({"hw_video_model": "virtio"}, {"COMPUTE_GRAPHICS_MODEL_VIRTIO"}),
        ({"hw_vif_model": "e1000e"}, {"COMPUTE_NET_VIF_MODEL_E1000E"}),
        ({"architecture": "amd64"}, {"HW_ARCH_X86_64"}),
        ({"hw_emulation_architecture": "aarch64"}, {"COMPUTE_ARCH_AARCH64"}),
        ({"hw_disk_bus": "virtio", "hw_vif_model": "carrier-pigeon"}, set()),
        ({"hw_viommu_model": "virtio"}, set()),
        ({"os_distro": "rhel"}, set()),
    ],
)
def test_the_host_must_have_what_the_image_names_unless_one_has_no_trait(
    properties: dict[str, str], expected: set[str]
) -> None:
    assert roots(request(properties=properties), image_metadata_prefilter=True) == expected
    assert roots(request(properties=properties)) == set()


@pytest.mark.parametrize(
    ("extra_specs", "properties", "expected"),
    [
        ({"accel:device_profile": "fpga1"}, {}, {"COMPUTE_ACCELERATORS"}),
        ({"accel:device_profile": ""}, {}, set()),
        ({"hw:virtio_packed_ring": "true"}, {}, {"COMPUTE_NET_VIRTIO_PACKED"}),
        ({}, {"hw_virtio_packed_ring": "true"}, {"COMPUTE_NET_VIRTIO_PACKED"}),
        ({"hw:ephemeral_encryption": "true"}, {}, {"COMPUTE_EPHEMERAL_ENCRYPTION"}),
        ({"hw:ephemeral_encryption_format": "luks"}, {}, set()),
        (
            {"hw:ephemeral_encryption": "true"},
            {"hw_ephemeral_encryption_format": "plain"},
            {"COMPUTE_EPHEMERAL_ENCRYPTION", "COMPUTE_EPHEMERAL_ENCRYPTION_PLAIN"},
        ),
        ({}, {"hw_sound_model": "virtio"}, {"COMPUTE_SOUND_MODEL_VIRTIO"}),
        ({}, {"hw_sound_model": "ac97"}, set()),
        ({"hw:tpm_version": "2.0"}, {}, {"COMPUTE_SECURITY_TPM_SECRET_SECURITY_USER"}),
        (
            {"hw:tpm_version": "2.0", "hw:tpm_secret_security": "host"},
            {},
            {"COMPUTE_SECURITY_TPM_SECRET_SECURITY_HOST"},
        ),
        ({"hw:tpm_secret_security": "host"}, {}, set()),
    ],
)
def test_a_wish_is_a_trait_of_the_root(extra_specs: Any, properties: Any, expected: set[str]) -> None:
    assert roots(request(extra_specs, properties)) == expected


def test_without_an_image_nova_fails() -> None:
    with pytest.raises(NoImage) as failure:
        narrowed(request(image=None))
    assert failure.value.nova_error == "AttributeError"
    assert failure.value.field == "image"


def test_a_tenant_is_refused_before_a_missing_image_is_noticed() -> None:
    both: Any = {"limit_tenants_to_placement_aggregate": True, "placement_aggregate_required_for_tenants": True}
    with pytest.raises(NoValidHost):
        narrowed(request(image=None, project_id="p9"), *TENANTS, **both)
