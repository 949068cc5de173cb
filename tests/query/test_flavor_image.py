"""What a flavor and an image wish for together, and where they contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hostler.placement.request import flavor_and_image as rules
from hostler.placement.request.flavor_and_image import FlavorImageConflict, Wishes
from hostler.placement.types.errors import InvalidValue

from .values import request, wishes


@pytest.mark.parametrize(
    ("flavor", "image", "expected"),
    [
        (None, None, None),
        (None, "mixed", "mixed"),
        (None, "shared", "shared"),
        ("dedicated", "shared", "dedicated"),
        ("dedicated", "mixed", "dedicated"),
        ("mixed", "shared", "mixed"),
        ("mixed", "dedicated", FlavorImageConflict),
        ("shared", "dedicated", FlavorImageConflict),
        ("shared", "mixed", FlavorImageConflict),
        ("pinned", None, InvalidValue),
        (None, "pinned", InvalidValue),
    ],
)
def test_a_flavor_that_dedicates_cpus_prevails(flavor: str | None, image: str | None, expected: Any) -> None:
    assert answer(rules.cpu_policy, "cpu_policy", flavor, image) == expected


@pytest.mark.parametrize(
    ("flavor", "image", "expected"),
    [
        (None, "require", "require"),
        ("prefer", "require", "prefer"),
        ("isolate", None, "isolate"),
        ("isolate", "isolate", "isolate"),
        ("isolate", "require", FlavorImageConflict),
        ("share", None, InvalidValue),
    ],
)
def test_a_thread_policy_must_not_be_contradicted(flavor: str | None, image: str | None, expected: Any) -> None:
    assert answer(rules.cpu_thread_policy, "cpu_thread_policy", flavor, image) == expected


@pytest.mark.parametrize(
    ("flavor", "image", "expected"),
    [
        (None, None, False),
        ("true", None, True),
        ("no", None, False),
        (None, "yes", True),
        ("on", True, True),
        ("false", True, FlavorImageConflict),
        ("true", False, FlavorImageConflict),
    ],
)
def test_a_switch_is_on_if_one_says_so_and_the_other_does_not_object(
    flavor: str | None, image: Any, expected: Any
) -> None:
    assert answer(lambda both: both.switch("virtio_packed_ring"), "virtio_packed_ring", flavor, image) == expected


def answer(rule: Callable[[Wishes], Any], key: str, flavor: str | None, image: Any) -> Any:
    """What ``rule`` says if the flavor and the image have these values, or the type of its error."""
    extra_specs = {} if flavor is None else {f"hw:{key}": flavor}
    try:
        return rule(wishes(extra_specs, {f"hw_{key}": image}))
    except InvalidValue as error:
        return type(error)


MIXED = "hw:cpu_dedicated_mask"


@pytest.mark.parametrize(
    ("extra_specs", "expected"),
    [
        ({MIXED: "0-1"}, {0, 1}),
        ({MIXED: "0-2,^1"}, {0, 2}),
        ({MIXED: "^0"}, {1, 2, 3}),
        ({MIXED: "3"}, {3}),
        ({"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "^0-1"}, {2, 3}),
        ({"hw:cpu_realtime": "yes", "hw:emulator_threads_policy": "share"}, {0, 1, 2, 3}),
    ],
)
def test_a_mixed_guest_dedicates_the_cpus_of_its_mask(extra_specs: dict[str, str], expected: set[int]) -> None:
    assert rules.dedicated_cpus(wishes(extra_specs)) == expected


@pytest.mark.parametrize(
    "extra_specs",
    [
        {},
        {MIXED: "0-3"},
        {MIXED: "4"},
        {MIXED: "^0-3"},
        {MIXED: "a"},
        {MIXED: "3-1"},
        {MIXED: ","},
        {"hw:cpu_realtime": "no", "hw:cpu_realtime_mask": "0"},
        {"hw:cpu_realtime": "yes"},
        {"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "0-4"},
    ],
)
def test_a_mask_must_name_some_of_the_flavors_cpus(extra_specs: dict[str, str]) -> None:
    with pytest.raises(InvalidValue):
        rules.dedicated_cpus(wishes(extra_specs))


def test_a_mask_of_a_monstrous_flavor_is_refused_at_once() -> None:
    for mask in ("^0", "0"):
        with pytest.raises(InvalidValue):
            rules.dedicated_cpus(Wishes.of(request({MIXED: mask}, flavor={"vcpus": 10**12})))


@pytest.mark.parametrize(
    ("rule", "extra_specs", "properties", "error"),
    [
        (rules.memory_encryption, {"hw:mem_encryption": "1"}, {}, FlavorImageConflict),
        (
            rules.memory_encryption,
            {"hw:mem_encryption": "1"},
            {"hw_firmware_type": "uefi", "hw_machine_type": "pc"},
            InvalidValue,
        ),
        (
            rules.memory_encryption,
            {"hw:mem_encryption": "1", "hw:mem_encryption_model": "tdx"},
            {"hw_firmware_type": "uefi"},
            InvalidValue,
        ),
        (rules.virtual_tpm, {"hw:tpm_version": "3.0"}, {}, InvalidValue),
        (rules.virtual_tpm, {"hw:tpm_version": "1.2", "hw:tpm_model": "tpm-crb"}, {}, InvalidValue),
        (rules.virtual_tpm, {"hw:tpm_version": "1.2"}, {"hw_tpm_version": "2.0"}, FlavorImageConflict),
        (rules.tpm_secret_security, {"hw:tpm_secret_security": "nobody"}, {}, InvalidValue),
        (rules.needs_secure_boot, {"os:secure_boot": "required"}, {"os_secure_boot": "disabled"}, FlavorImageConflict),
        (rules.maxphysaddr_mode, {"hw:maxphysaddr_mode": "wide"}, {}, InvalidValue),
        (
            rules.ephemeral_encryption,
            {"hw:ephemeral_encryption": "1", "hw:ephemeral_encryption_format": "rot13"},
            {},
            InvalidValue,
        ),
        (rules.isolates_emulator_threads, {"hw:emulator_threads_policy": "none"}, {}, InvalidValue),
        (rules.has_virtio_sound, {"hw:sound_model": "beep"}, {}, InvalidValue),
    ],
)
def test_wishes_that_make_no_sense_are_refused(
    rule: Callable[[Wishes], Any], extra_specs: dict[str, str], properties: dict[str, Any], error: type[InvalidValue]
) -> None:
    with pytest.raises(error) as failure:
        rule(wishes(extra_specs, properties))
    assert type(failure.value) is error
    assert failure.value.field


def test_a_conflict_has_novas_name() -> None:
    assert FlavorImageConflict.nova_error == "FlavorImageConflict"
