"""Prefilters restrict the Placement query before any host is considered. One function each, in Nova's order.

A prefilter reads the request, the aggregates and the options, and returns a ``Narrowing``; it changes nothing. What
Nova asks Neutron for (the segments of a network, whether a port is remote-managed) is part of the request. Source: Nova
34 scheduler/request_filter.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

import os_traits

from ..types.errors import InvalidValue, NoValidHost
from ..types.host import Aggregate
from ..types.options import NEWEST_NOVA, Options
from ..types.request import Image, Request
from . import flavor_and_image as flavor_image
from .flavor_and_image import Wishes
from .resource_groups import standard_traits

TENANT_KEY: Final = "filter_tenant_id"
"""Aggregate metadata keys that start so name a tenant."""

OWNER_NOVA_VERSION: Final = 73
"""Least service version of a nova-compute that gives its providers the trait OWNER_NOVA."""
IMAGE_TRAITS: Final = {
    "hw_cdrom_bus": "COMPUTE_STORAGE_BUS",
    "hw_disk_bus": "COMPUTE_STORAGE_BUS",
    "hw_video_model": "COMPUTE_GRAPHICS_MODEL",
    "hw_vif_model": "COMPUTE_NET_VIF_MODEL",
    "hw_architecture": "HW_ARCH",
    "hw_emulation_architecture": "COMPUTE_ARCH",
    "hw_viommu_model": "COMPUTE_VIOMMU",
}
"""Image property -> what the trait for its value starts with."""


class NoImage(InvalidValue):
    """The request has no image, which Nova's prefilters require (``placement_query.with_image`` adds one)."""

    nova_error: ClassVar[str] = "AttributeError"


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """Additions of prefilters to a query. ``member_of``: of each set of aggregate uuids at least one. The traits are
    the root provider's."""

    member_of: tuple[frozenset[str], ...] = ()
    forbidden_aggregates: frozenset[str] = frozenset()
    root_required: frozenset[str] = frozenset()
    root_forbidden: frozenset[str] = frozenset()
    group_required: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Suffix of a request group -> traits that it requires as well."""

    def __or__(self, other: Narrowing) -> Narrowing:
        return Narrowing(
            member_of=self.member_of + other.member_of,
            forbidden_aggregates=self.forbidden_aggregates | other.forbidden_aggregates,
            root_required=self.root_required | other.root_required,
            root_forbidden=self.root_forbidden | other.root_forbidden,
            group_required={**self.group_required, **other.group_required},
        )


NOTHING: Final = Narrowing()


@dataclass(frozen=True, slots=True)
class Known:
    """Input of the prefilters. ``required_traits`` are all that the request's groups require; ``release`` is that of
    Nova; ``minimum_compute_version`` the least service version of all nova-computes, None if not all are known."""

    request: Request
    aggregates: tuple[Aggregate, ...]
    required_traits: frozenset[str]
    options: Options
    release: str = NEWEST_NOVA
    minimum_compute_version: int | None = None

    def image(self) -> Image:
        """The request's image. Raises NoImage."""
        if self.request.image is None:
            raise NoImage("the request has no image", field="image", hint="give it an empty one")
        return self.request.image

    def wishes(self) -> Wishes:
        """The settings of flavor and image. Raises NoImage."""
        self.image()
        return Wishes.of(self.request, self.release)


def narrow(known: Known) -> Narrowing:
    """The additions of all prefilters. Raises NoValidHost if one excludes every host, NoImage, InvalidValue.
    O(aggregates)."""
    narrowing = NOTHING
    for prefilter in PREFILTERS:
        narrowing |= prefilter(known)
    return narrowing


def require_tenant_aggregate(known: Known) -> Narrowing:
    """Only the aggregates of the request's project, if there are any or the option requires one. As in Nova, an
    aggregate belongs to the project if any of its metadata values is the project's id and it has a key that starts with
    ``filter_tenant_id``."""
    options = known.options.scheduler
    if not options.limit_tenants_to_placement_aggregate:
        return NOTHING
    project = known.request.project_id
    of_project = frozenset(
        aggregate.uuid
        for aggregate in known.aggregates
        if project in aggregate.metadata.values() and any(key.startswith(TENANT_KEY) for key in aggregate.metadata)
    )
    if of_project:
        return Narrowing(member_of=(of_project,))
    if options.placement_aggregate_required_for_tenants:
        raise NoValidHost(f"no aggregate is for project {project}", hint=f"set {TENANT_KEY} on one of them")
    return NOTHING


def map_az_to_placement_aggregate(known: Known) -> Narrowing:
    """Only the aggregates of the availability zone; a zone without aggregates does not restrict."""
    zone = known.request.spec.availability_zone
    of_zone = frozenset(
        aggregate.uuid for aggregate in known.aggregates if zone and aggregate.metadata.get("availability_zone") == zone
    )
    return Narrowing(member_of=(of_zone,)) if of_zone else NOTHING


def require_image_type_support(known: Known) -> Narrowing:
    """Only hosts that support the image's disk format, unless it boots from a volume. Unknown formats do not
    restrict."""
    if not known.options.scheduler.query_placement_for_image_type_support or known.request.spec.is_bfv:
        return NOTHING
    trait = f"COMPUTE_IMAGE_TYPE_{(known.image().disk_format or '').upper()}"
    return _root(trait) if trait in standard_traits() else NOTHING


def compute_status(known: Known) -> Narrowing:
    """No hosts that are disabled."""
    return Narrowing(root_forbidden=frozenset({os_traits.COMPUTE_STATUS_DISABLED}))


def isolate_aggregates(known: Known) -> Narrowing:
    """No aggregates reserved for a trait (``trait:X=required``) that the request does not require."""
    if not known.options.scheduler.enable_isolated_aggregate_filtering:
        return NOTHING
    wanted = {f"trait:{trait}" for trait in known.required_traits}
    isolated = (aggregate.uuid for aggregate in known.aggregates if _isolating_keys(aggregate) - wanted)
    return Narrowing(forbidden_aggregates=frozenset(isolated))


def transform_image_metadata(known: Known) -> Narrowing:
    """Only hosts that support the image's buses, models and architectures. A value without a trait disables the
    prefilter."""
    if not known.options.scheduler.image_metadata_prefilter:
        return NOTHING
    properties = known.wishes().properties
    traits = [
        f"{prefix}_{str(properties[name]).replace('-', '_').upper()}"
        for name, prefix in IMAGE_TRAITS.items()
        if name in properties
    ]
    return _root(*traits) if standard_traits().issuperset(traits) else NOTHING


def accelerators(known: Known) -> Narrowing:
    """Only hosts that can attach accelerators, if the flavor has a device profile."""
    return _root(os_traits.COMPUTE_ACCELERATORS) if known.request.extra_specs.get("accel:device_profile") else NOTHING


def packed_virtqueue(known: Known) -> Narrowing:
    """Only hosts with packed virtqueues, if requested."""
    return _root(os_traits.COMPUTE_NET_VIRTIO_PACKED) if known.wishes().switch("virtio_packed_ring") else NOTHING


def routed_networks(known: Known) -> Narrowing:
    """For each routed network only hosts in an aggregate of its segments."""
    if not known.options.scheduler.query_placement_for_routed_network_aggregates:
        return NOTHING
    terms = []
    for network in known.request.spec.requested_networks:
        if network.segment_aggregates is None:
            continue
        if not network.segment_aggregates:
            name = network.port_id or network.network_id
            raise NoValidHost(f"no aggregates are known for the segments of network {name}")
        terms.append(network.segment_aggregates)
    return Narrowing(member_of=tuple(terms))


def remote_managed_ports(known: Known) -> Narrowing:
    """Only hosts that can attach remote-managed ports, if there is one."""
    wanted = any(network.remote_managed for network in known.request.spec.requested_networks)
    return _root(os_traits.COMPUTE_REMOTE_MANAGED_PORTS) if wanted else NOTHING


def ephemeral_encryption(known: Known) -> Narrowing:
    """Only hosts that encrypt local disks in the requested format."""
    encrypted, encryption_format = flavor_image.ephemeral_encryption(known.wishes())
    if not encrypted:
        return NOTHING
    trait = os_traits.COMPUTE_EPHEMERAL_ENCRYPTION
    return _root(trait, f"{trait}_{encryption_format.upper()}") if encryption_format else _root(trait)


def virtio_sound(known: Known) -> Narrowing:
    """Only hosts with virtio sound, if requested."""
    return _root(os_traits.COMPUTE_SOUND_MODEL_VIRTIO) if flavor_image.has_virtio_sound(known.wishes()) else NOTHING


def tpm_secret_security(known: Known) -> Narrowing:
    """Only hosts that support the requested secret security of a virtual TPM."""
    wishes = known.wishes()
    if flavor_image.virtual_tpm(wishes) is None:
        return NOTHING
    return _root(f"COMPUTE_SECURITY_TPM_SECRET_SECURITY_{flavor_image.tpm_secret_security(wishes).upper()}")


def owner_nova(known: Known) -> Narrowing:
    """Only providers that Nova owns: the root, and those of PCI devices. Since Nova 34, once every nova-compute reports
    so (service version 73)."""
    spec = known.request.spec
    params = spec.request_level_params
    asked = params is not None and os_traits.OWNER_NOVA in params.root_required
    version = known.minimum_compute_version
    if known.release == "33" or asked or version is None or version < OWNER_NOVA_VERSION:
        return NOTHING
    ids = {request.request_id or "" for request in spec.pci_requests if request.alias_name is not None} - {""}
    suffixes = (group.requester_id or "" for group in spec.requested_resources)
    owned = frozenset({os_traits.OWNER_NOVA})
    of_devices = {suffix: owned for suffix in suffixes if suffix.rpartition("-")[0] in ids}
    return Narrowing(root_required=owned, group_required=of_devices)


PREFILTERS: Final[tuple[Callable[[Known], Narrowing], ...]] = (
    require_tenant_aggregate,
    map_az_to_placement_aggregate,
    require_image_type_support,
    compute_status,
    isolate_aggregates,
    transform_image_metadata,
    accelerators,
    packed_virtqueue,
    routed_networks,
    remote_managed_ports,
    ephemeral_encryption,
    virtio_sound,
    tpm_secret_security,
    owner_nova,
)
"""In the order in which Nova runs them: the first that fails decides the error."""


def _root(*traits: str) -> Narrowing:
    return Narrowing(root_required=frozenset(traits))


def _isolating_keys(aggregate: Aggregate) -> set[str]:
    return {key for key, value in aggregate.metadata.items() if key.startswith("trait:") and value == "required"}
