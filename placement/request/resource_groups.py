"""Resource classes, amounts and traits of a request, by request group.

    extra spec resources[S]:CLASS=n, trait[S]:TRAIT=required|forbidden   group S, none for the unsuffixed one
    image property trait:TRAIT=required                                  unsuffixed
    flavor      VCPU, MEMORY_MB (MiB), DISK_GB = ephemeral + swap rounded up + root unless booted from a volume (GiB);
                only the classes that no extra spec names; 0 takes a class away
    hw:* wishes CPU pinning, memory encryption, pmem, vTPM, ...          unsuffixed

    requested_resources                                                  the group's requester_id

Source: Nova 34 ResourceRequest.from_request_spec.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import os_resource_classes
import os_traits

from ..types.errors import InvalidValue, UnknownName
from ..types.request import Request, RequestGroup
from . import flavor_and_image as flavor_image
from .flavor_and_image import Wishes

MOST: Final = 2**31 - 1
"""Maximum amount that Placement accepts."""

GROUP_POLICIES: Final = ("none", "isolate")
_SPEC: Final = re.compile(r"(resources|trait)([a-zA-Z0-9_-]{1,64})?:(.*)", re.DOTALL)
_CUSTOM: Final = re.compile(r"CUSTOM_[A-Z0-9_]{1,248}")
_MEMORY_ENCRYPTION: Final = {
    "amd-sev": os_traits.HW_CPU_X86_AMD_SEV,
    "amd-sev-es": os_traits.HW_CPU_X86_AMD_SEV_ES,
    "amd-sev-snp": os_traits.HW_CPU_X86_AMD_SEV_SNP,
    "intel-tdx": os_traits.HW_CPU_X86_INTEL_TDX,
}
_TPM_VERSION: Final = {"1.2": os_traits.COMPUTE_SECURITY_TPM_1_2, "2.0": os_traits.COMPUTE_SECURITY_TPM_2_0}
_TPM_MODEL: Final = {"tpm-tis": os_traits.COMPUTE_SECURITY_TPM_TIS, "tpm-crb": os_traits.COMPUTE_SECURITY_TPM_CRB}
_ADDRESS_SPACE: Final = {
    "emulate": os_traits.COMPUTE_ADDRESS_SPACE_EMULATED,
    "passthrough": os_traits.COMPUTE_ADDRESS_SPACE_PASSTHROUGH,
}


@dataclass(slots=True)
class Group:
    """A request group under construction. ``resources``: class -> amount. ``member_of``: of each set at least one
    aggregate."""

    resources: dict[str, int] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    forbidden: set[str] = field(default_factory=set)
    member_of: list[frozenset[str]] = field(default_factory=list)
    forbidden_aggregates: set[str] = field(default_factory=set)
    in_tree: str | None = None

    def add_trait(self, trait: str, wish: str) -> None:
        """``wish``: ``required`` or ``forbidden``."""
        (self.required if wish == "required" else self.forbidden).add(trait)

    def is_empty(self) -> bool:
        aggregates = self.member_of or self.forbidden_aggregates
        return not (self.resources or self.required or self.forbidden or aggregates)

    def add(self, group: RequestGroup) -> None:
        """Add all that a group from outside asks for."""
        for name, amount in group.resources.items():
            self.resources[name] = self.resources.get(name, 0) + amount
        self.required |= group.required_traits
        self.forbidden |= group.forbidden_traits
        self.member_of += group.aggregates
        self.forbidden_aggregates |= group.forbidden_aggregates
        self.in_tree = group.in_tree or self.in_tree


@dataclass(slots=True)
class Groups:
    """The request groups by suffix ("" for the unsuffixed one), and the group policy."""

    by_suffix: dict[str, Group] = field(default_factory=dict)
    policy: str | None = None
    suffixed_of_flavor: int = 0
    """Groups with a suffix that the flavor's extra specs name."""

    def group(self, suffix: str = "") -> Group:
        return self.by_suffix.setdefault(suffix, Group())

    def names(self, resource_class: str) -> bool:
        """Whether any group contains the class, with any amount."""
        return any(resource_class in group.resources for group in self.by_suffix.values())

    def strip(self) -> None:
        """Remove amounts of 0, and groups that are empty then."""
        for group in self.by_suffix.values():
            group.resources = {name: amount for name, amount in group.resources.items() if amount}
        self.by_suffix = {suffix: group for suffix, group in self.by_suffix.items() if not group.is_empty()}


def groups_of(request: Request, wishes: Wishes, *, pinned: bool = True) -> Groups:
    """The request groups of ``request``. ``pinned`` False requests dedicated CPUs as VCPU, as hosts reported them
    before PCPU existed.

    Raises InvalidValue and UnknownName, naming the extra spec or image property.
    """
    groups = Groups()
    _add_extra_specs(groups, request)
    groups.suffixed_of_flavor = sum(1 for suffix in groups.by_suffix if suffix)
    _add_image_traits(groups, request)
    if pinned:
        _add_pinned_cpus(groups.group(), wishes)
    _add_requested(groups, request.spec.requested_resources)
    _add_flavor(groups, request)
    _add_devices(groups.group(), wishes)
    _add_guest_features(groups.group(), wishes)
    groups.strip()
    if groups.policy is None and groups.suffixed_of_flavor <= 1 and sum(map(bool, groups.by_suffix)) > 1:
        groups.policy = "none"
    return groups


def required_traits(groups: Groups) -> frozenset[str]:
    """All traits that some group requires."""
    return frozenset().union(*(group.required for group in groups.by_suffix.values()))


# Extra specs and image properties that contain classes and traits


def _add_extra_specs(groups: Groups, request: Request) -> None:
    for spec, value in request.extra_specs.items():
        if spec == "group_policy":
            groups.policy = _one_of(spec, value, GROUP_POLICIES)
            continue
        match = _SPEC.fullmatch(spec)
        if match is None:
            continue
        kind, suffix, name = match.groups("")
        if kind == "resources":
            groups.group(suffix).resources[check_resource_class(name, spec)] = _amount(spec, value)
        else:
            groups.group(suffix).add_trait(check_trait(name, spec), _one_of(spec, value, ("required", "forbidden")))


def _add_image_traits(groups: Groups, request: Request) -> None:
    for name, value in request.image_properties.items():
        if name.startswith("trait:") and value == "required":
            groups.group().add_trait(check_trait(name.removeprefix("trait:"), name), "required")


def _add_requested(groups: Groups, requested: Sequence[RequestGroup]) -> None:
    """Groups of ports, device profiles and PCI devices, each under its requester's id."""
    for position, each in enumerate(requested):
        field = f"requested_resources[{position}]"
        for name in each.resources:
            check_resource_class(name, f"{field}.resources")
        for trait in (*each.required_traits, *each.forbidden_traits):
            check_trait(trait, f"{field}.traits")
        suffix = (each.requester_id or str(position)) if each.use_same_provider else ""
        if suffix in groups.by_suffix and suffix:
            raise InvalidValue(f"two request groups have the suffix {suffix}", field=f"{field}.requester_id")
        group = groups.group(suffix)
        group.add(each)
        if suffix and group.is_empty():
            raise InvalidValue(f"request group {suffix} asks for nothing", field=field)


def check_resource_class(name: str, field: str) -> str:
    """``name``, if it is a standard or a custom resource class; else raises UnknownName."""
    if name in os_resource_classes.STANDARDS or _CUSTOM.fullmatch(name):
        return name
    raise UnknownName.among("resource class", name, os_resource_classes.STANDARDS, field=field)


def check_trait(name: str, field: str) -> str:
    """``name``, if it is a standard or a custom trait; else raises UnknownName."""
    if name in standard_traits() or _CUSTOM.fullmatch(name):
        return name
    raise UnknownName.among("trait", name, standard_traits(), field=field)


@functools.cache
def standard_traits() -> frozenset[str]:
    """The traits of os-traits."""
    return frozenset(os_traits.get_traits())


def _amount(spec: str, value: str) -> int:
    try:
        amount = int(value)
    except ValueError:
        amount = -1
    if not 0 <= amount <= MOST:
        raise InvalidValue(f"{spec} is {value[:200]!r}, but must be a number from 0 to {MOST}", field=spec)
    return amount


def _one_of(spec: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise InvalidValue(f"{spec} is {value[:200]!r}, but must be one of {', '.join(valid)}", field=spec)
    return value


# Translation of the flavor's sizes and the hw: settings


def _add_flavor(groups: Groups, request: Request) -> None:
    flavor = request.flavor
    root_gb = 0 if request.spec.is_bfv else flavor.root_gb
    sizes = {
        "MEMORY_MB": flavor.memory_mb,
        "DISK_GB": flavor.ephemeral_gb + -(-flavor.swap // 1024) + root_gb,
    }
    if not groups.names("PCPU"):
        sizes["VCPU"] = flavor.vcpus
    for name, amount in sizes.items():
        if not groups.names(name):
            groups.group().resources[name] = amount


def _add_pinned_cpus(group: Group, wishes: Wishes) -> None:
    policy = flavor_image.cpu_policy(wishes)
    if policy in ("dedicated", "mixed"):
        pinned = wishes.vcpus if policy == "dedicated" else len(flavor_image.dedicated_cpus(wishes))
        group.resources["PCPU"] = pinned + flavor_image.isolates_emulator_threads(wishes)
        if policy == "mixed":
            group.resources["VCPU"] = wishes.vcpus - pinned
    threads = {"require": "required", "isolate": "forbidden"}.get(flavor_image.cpu_thread_policy(wishes) or "")
    if threads is not None:
        group.add_trait(os_traits.HW_CPU_HYPERTHREADING, threads)


def _add_devices(group: Group, wishes: Wishes) -> None:
    model = flavor_image.memory_encryption(wishes)
    if model is not None:
        group.resources["MEM_ENCRYPTION_CONTEXT"] = 1
        group.required.add(_MEMORY_ENCRYPTION[model])
    for label, count in Counter(flavor_image.pmem_labels(wishes)).items():
        group.resources[os_resource_classes.normalize_name(f"PMEM_NAMESPACE_{label}")] = count


def _add_guest_features(group: Group, wishes: Wishes) -> None:
    tpm = flavor_image.virtual_tpm(wishes)
    if tpm is not None:
        version, model = tpm
        group.required |= {_TPM_VERSION[version], _TPM_MODEL[model]}
    if flavor_image.pci_numa_policy(wishes) == "socket":
        group.required.add(os_traits.COMPUTE_SOCKET_PCI_NUMA_AFFINITY)
    if flavor_image.needs_secure_boot(wishes):
        group.required.add(os_traits.COMPUTE_SECURITY_UEFI_SECURE_BOOT)
    mode = flavor_image.maxphysaddr_mode(wishes)
    if mode is not None:
        group.required.add(_ADDRESS_SPACE[mode])
    if flavor_image.needs_stateless_firmware(wishes):
        group.required.add(os_traits.COMPUTE_SECURITY_STATELESS_FIRMWARE)
