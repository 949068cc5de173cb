"""What a request of a user who is not a cloud admin may specify. Everything not listed here is refused: a field that is
added to requests is reserved for cloud admins until it is listed.

Cloud admins may specify everything. All others name flavors and images that the service keeps, or give a size of their
own that says nothing of where it goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final

import msgspec

from ...placement.types.errors import HostlerError
from ...placement.types.request import Flavor, Image, RequestSpec
from .catalog import check_size
from .errors import NotAllowed

SPEC_FIELDS: Final = frozenset({"flavor", "image", "availability_zone", "scheduler_hints", "is_bfv"})
"""Fields of a RequestSpec; flavor, image and hints within the limits below."""
FLAVOR_FIELDS: Final = frozenset({"name", "vcpus", "memory_mb", "root_gb", "ephemeral_gb", "swap"})
"""Fields of a flavor that the service does not keep. Extra specs choose hosts and change what a guest counts as."""
IMAGE_FIELDS: Final = frozenset({"disk_format", "properties"})
"""Fields of an image that the service does not keep. An id may stand for hosts of its own (IsolatedHostsFilter)."""
IMAGE_PROPERTIES: Final = frozenset(
    {
        *("architecture", "hw_architecture", "hypervisor_type", "img_hv_type", "vm_mode", "hw_vm_mode"),
        *("img_hv_requested_version", "hypervisor_version_requires"),
        *("os_distro", "os_type", "os_version", "os_require_quiesce"),
        *("hw_boot_menu", "hw_cdrom_bus", "hw_disk_bus", "hw_firmware_type", "hw_input_bus", "hw_machine_type"),
        *("hw_qemu_guest_agent", "hw_rng_model", "hw_scsi_model", "hw_video_model", "hw_vif_model"),
    }
)
"""Properties that say what the image can run on. They change no amounts, and choose no CPUs, cells or devices."""
GUEST_HINTS: Final = ("same_host", "different_host")
"""Scheduler hints that name guests; these must be such that the caller may see."""
REGION_HINTS: Final = ("region", "region_traits", "near")
"""Scheduler hints by which a parent chooses among its regions."""


class TenancyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the operator allows all who are not cloud admins, judged before a command is queued: commands in a journal
    are carried out whatever the options are now."""

    inline_flavors: bool = True
    """A request may bring a flavor of its own, without extra specs. False: it names one that the service keeps."""


def problem_of(spec: RequestSpec, *, flavor_kept: bool, image_kept: bool) -> HostlerError | None:
    """Why a spec is reserved for cloud admins; None if it is not. ``flavor_kept`` and ``image_kept``: the service keeps
    them, the spec only names them. O(size of the spec)."""
    try:
        _check(spec, flavor_kept, image_kept)
    except HostlerError as error:
        return error
    return None


def named_guests(spec: RequestSpec) -> Iterator[tuple[str, str]]:
    """(hint, uuid) of the guests that a spec names."""
    for hint in GUEST_HINTS:
        for uuid in spec.scheduler_hints.get(hint, ()):
            yield hint, uuid


def _check(spec: RequestSpec, flavor_kept: bool, image_kept: bool) -> None:
    _refuse_others(given(spec), SPEC_FIELDS, "spec")
    _refuse_others(spec.scheduler_hints, frozenset((*GUEST_HINTS, *REGION_HINTS)), "spec.scheduler_hints")
    if not flavor_kept and isinstance(spec.flavor, Flavor):
        _refuse_others(given(spec.flavor), FLAVOR_FIELDS, "spec.flavor")
        check_size(spec.flavor, "spec.flavor")
    if not image_kept and isinstance(spec.image, Image):
        _refuse_others(given(spec.image), IMAGE_FIELDS, "spec.image")
        _refuse_others(spec.image.properties, IMAGE_PROPERTIES, "spec.image.properties")


def _refuse_others(names: Any, allowed: frozenset[str], field: str) -> None:
    for name in names:
        if name not in allowed:
            raise refused(f"{field}.{name}"[:200])


def refused(field: str, what: str = "") -> NotAllowed:
    """The error for a field that only cloud admins may give; ``what`` they give there."""
    hint = "name a flavor or image that the service keeps" if field.startswith(("spec.flavor", "spec.image")) else None
    return NotAllowed(f"only cloud admins may specify {what or field}", field=field, hint=hint)


def given(value: Any) -> Iterator[str]:
    """Names of a dataclass's fields that differ from their defaults, or have none."""
    for each in fields(value):
        item = getattr(value, each.name)
        default = None if each.default is MISSING else each.default
        if isinstance(item, Mapping) and not item:
            continue
        if item != default and item is not None:
            yield each.name
