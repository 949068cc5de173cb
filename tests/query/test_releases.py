"""What differs between the releases of Nova that can be followed."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.placement.request import flavor_and_image as rules
from hostler.placement.request.flavor_and_image import Wishes
from hostler.placement.request.placement_query import PlacementQuery, placement_query
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.options import Options
from hostler.placement.types.request import PciRequest, Request, RequestGroup, RequestLevelParams

from .values import lookup, request

UEFI = {"hw_firmware_type": "uefi", "hw_machine_type": "q35"}
STATELESS = UEFI | {"hw_firmware_stateless": True}


def wishes(model: str | None, properties: dict[str, Any], release: str) -> Wishes:
    specs = {"hw:mem_encryption": "true"} | ({} if model is None else {"hw:mem_encryption_model": model})
    return Wishes.of(request(specs, properties), release)


def query(asked: Request, release: str, version: int | None) -> PlacementQuery:
    return placement_query(asked, (), lookup, Options(), release=release, minimum_compute_version=version)


@pytest.mark.parametrize(
    ("model", "properties", "trait"),
    [
        ("amd-sev-snp", STATELESS, "HW_CPU_X86_AMD_SEV_SNP"),
        ("intel-tdx", STATELESS | {"hw_video_model": "none"}, "HW_CPU_X86_INTEL_TDX"),
    ],
)
def test_nova_34_knows_two_more_models_of_memory_encryption(model: str, properties: Any, trait: str) -> None:
    assert rules.memory_encryption(wishes(model, properties, "34")) == model
    asked = request({"hw:mem_encryption": "true", "hw:mem_encryption_model": model}, properties)
    unsuffixed = query(asked, "34", None).unsuffixed
    assert trait in unsuffixed.required
    assert ("MEM_ENCRYPTION_CONTEXT", 1) in unsuffixed.resources
    with pytest.raises(InvalidValue, match="must be one of amd-sev, amd-sev-es"):
        rules.memory_encryption(wishes(model, properties, "33"))


@pytest.mark.parametrize(
    ("model", "properties", "field"),
    [
        ("amd-sev-snp", UEFI, "hw_firmware_stateless"),
        ("intel-tdx", UEFI, "hw_firmware_stateless"),
        ("intel-tdx", STATELESS, "hw_video_model"),
        ("intel-tdx", STATELESS | {"hw_video_model": "virtio"}, "hw_video_model"),
    ],
)
def test_the_new_models_need_stateless_firmware_and_tdx_no_video(model: str, properties: Any, field: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        rules.memory_encryption(wishes(model, properties, "34"))
    assert refused.value.field == field


def test_an_unknown_model_is_found_before_the_firmware_since_nova_34() -> None:
    with pytest.raises(InvalidValue, match="hw_firmware_type"):
        rules.memory_encryption(wishes("rot13", {}, "33"))
    with pytest.raises(InvalidValue, match="hw:mem_encryption_model"):
        rules.memory_encryption(wishes("rot13", {}, "34"))


def test_stateless_firmware_without_uefi_is_refused_by_nova_33_and_ignored_by_nova_34() -> None:
    asked = request({}, {"hw_firmware_stateless": True})
    with pytest.raises(InvalidValue, match="hw_firmware_type"):
        rules.needs_stateless_firmware(Wishes.of(asked, "33"))
    assert not rules.needs_stateless_firmware(Wishes.of(asked, "34"))
    assert rules.needs_stateless_firmware(Wishes.of(request({}, STATELESS), "34"))


@pytest.mark.parametrize(("release", "version"), [("33", 80), ("34", None), ("34", 72)])
def test_the_owner_is_not_asked_for_before_every_compute_tells_it(release: str, version: int | None) -> None:
    assert query(request(), release, version).root_required == frozenset()


def test_nova_34_asks_for_providers_that_nova_owns() -> None:
    assert query(request(), "34", 73).root_required == {"OWNER_NOVA"}


def test_the_providers_of_pci_devices_must_be_novas_too() -> None:
    alias = PciRequest(count=1, spec=({},), alias_name="gpu", request_id="11111111-0000-4000-8000-000000000001")
    port = PciRequest(count=1, spec=({},), request_id="11111111-0000-4000-8000-000000000002")
    groups = tuple(
        RequestGroup(resources={"CUSTOM_PCI": 1}, requester_id=f"{each.request_id}-0") for each in (alias, port)
    )
    asked = query(request(pci_requests=(alias, port), requested_resources=groups), "34", 74)
    required = {group.suffix: group.required for group in asked.groups}
    assert required[f"{alias.request_id}-0"] == {"OWNER_NOVA"}
    assert required[f"{port.request_id}-0"] == frozenset()


def test_a_request_that_asks_for_the_owner_itself_is_left_as_it_is() -> None:
    alias = PciRequest(count=1, spec=({},), alias_name="gpu", request_id="a")
    group = RequestGroup(resources={"CUSTOM_PCI": 1}, requester_id="a-0")
    params = RequestLevelParams(root_required=frozenset({"OWNER_NOVA"}))
    asked = request(pci_requests=(alias,), requested_resources=(group,), request_level_params=params)
    found = query(asked, "34", 74)
    assert found.root_required == {"OWNER_NOVA"}
    assert [group.required for group in found.groups if group.suffix] == [frozenset()]
