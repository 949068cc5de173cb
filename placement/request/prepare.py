"""What nova-api and nova-conductor do with a request before they call a scheduler: complete it, and refuse what is not
possible. A function of the spec and the policy; what depends on the fleet is in ``preparation``.

Nothing that is asked for is ignored: what no rule of the policy judges is refused by its name. Source: Nova 34.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import os_resource_classes

from ..filters.host_attributes import NAMES
from ..filters.resource_pools import POOLS_HINT
from ..numa.derive import derive
from ..policy.policy import Policy
from ..types.errors import InvalidValue, UnknownName
from ..types.image_properties import canonical, check_names
from ..types.options import Options
from ..types.pci_alias import check_aliases
from ..types.request import Flavor, Image, PciRequest, RequestGroup, RequestSpec
from ..types.validation import STANDARD_CLASSES, counted, is_custom, shown, standard_traits, uuid_words, whole_number
from .extra_spec_names import check_extra_specs, is_known
from .flavor_and_image import Wishes, pci_numa_policy
from .resource_groups import check_trait

MOST: Final = 2**31 - 1
"""Greatest amount of a flavor (nova-api)."""
LONGEST_NAME: Final = 255
_IDS: Final = uuid.UUID("9e1c5f5e-6f0c-5d4e-8a53-1f0b8a3c7d21")
"""Namespace of the request ids that are made of aliases."""

HINTS: Final[Mapping[str, str | None]] = {
    "group": None,
    "_nova_check_type": None,
    POOLS_HINT: None,
    "same_host": "SameHostFilter",
    "different_host": "DifferentHostFilter",
    "build_near_host_ip": "SimpleCIDRAffinityFilter",
    "cidr": "SimpleCIDRAffinityFilter",
    "query": "JsonFilter",
}
"""Scheduler hint -> the filter that reads it, None where none is needed."""
GROUP_RULES: Final = {
    "affinity": "ServerGroupAffinityFilter",
    "anti-affinity": "ServerGroupAntiAffinityFilter",
    "soft-affinity": "ServerGroupSoftAffinityWeigher",
    "soft-anti-affinity": "ServerGroupSoftAntiAffinityWeigher",
}
"""Policy of a server group -> the rule without which it means nothing."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a policy by name. ``custom``: some are not Hostler's own, and may read anything of a request."""

    names: frozenset[str]
    custom: bool

    def judged_by(self, rule: str) -> bool:
        return rule in self.names

    def need(self, rule: str, what: str, field: str) -> None:
        """Raise InvalidValue unless ``rule``, which judges ``what``, is enabled."""
        if rule not in self.names:
            option = "weight_classes" if rule.endswith("Weigher") else "enabled_filters"
            raise InvalidValue(
                f"{what} needs {rule}, which the policy does not enable",
                field=field,
                hint=f"add it to [filter_scheduler] {option}",
            )


def complete(spec: RequestSpec, policy: Policy, rules: Rules) -> RequestSpec:
    """``spec`` with what follows from its flavor and image: NUMA topology, PCI requests, canonical image properties,
    the default zone; ``spec`` itself if nothing does.

    Raises InvalidValue or UnknownName, naming the field, extra spec, property or hint. O(size of the spec).
    """
    asked, options, flavor = spec, policy.options, spec.flavor
    check_flavor(flavor)
    check_extra_specs(flavor.extra_specs)
    image = _image(spec.image)
    spec = _with_zone(spec, options)
    if image is not spec.image:
        spec = replace(spec, image=image)
    if spec.numa_topology is None:
        topology = derive(flavor, image)
        spec = spec if topology is None else replace(spec, numa_topology=topology)
    spec = _with_devices(spec, options)
    _check_judged(spec, asked, rules)
    return spec if spec is asked else replace(spec, prepare=False)


def check_flavor(flavor: Flavor) -> None:
    """Raise InvalidValue unless nova-api would keep the flavor: at least one CPU and one MiB, nothing negative."""
    if not flavor.name.strip() or len(flavor.name) > LONGEST_NAME:
        raise InvalidValue(
            f"flavor.name must be 1 to {LONGEST_NAME} characters, got {shown(flavor.name)}", field="flavor.name"
        )
    for name, least in (("vcpus", 1), ("memory_mb", 1), ("root_gb", 0), ("ephemeral_gb", 0), ("swap", 0)):
        whole_number(getattr(flavor, name), f"flavor.{name}", least=least, most=MOST)


def _image(image: Image | None) -> Image | None:
    """The image with its properties under Nova's names and in Nova's types; ``trait:`` and numbered ones stay.
    ``traits_required``, which is what ImageMetaProps makes of ``trait:``, is such ones again."""
    if image is None or not image.properties:
        return image
    check_names(image.properties)
    for name in image.properties:
        if name.startswith("trait:"):
            check_trait(name.removeprefix("trait:"), name)
    properties: dict[str, Any] = canonical(image.properties)
    properties |= _required_traits(properties.pop("traits_required", ()))
    properties |= {name: value for name, value in image.properties.items() if _is_kept(name)}
    same = properties == dict(image.properties)
    return image if same else replace(image, properties=properties)


def _required_traits(traits: Any) -> dict[str, str]:
    """Traits that an image requires, as properties. InvalidValue or UnknownName for anything but a list of traits."""
    if not isinstance(traits, (list, tuple)) or not all(isinstance(trait, str) for trait in traits):
        problem = f"image property traits_required must be a list of traits, got {shown(traits)}"
        raise InvalidValue(problem, field="traits_required")
    for trait in traits:
        check_trait(trait, "traits_required")
    return {f"trait:{trait}": "required" for trait in traits}


def _is_kept(name: str) -> bool:
    return name.startswith(("trait:", "hw_numa_cpus.", "hw_numa_mem."))


# zones


def _with_zone(spec: RequestSpec, options: Options) -> RequestSpec:
    """``zone:host[:node]`` names a host as well, and no zone means the configured one (``default_schedule_zone``)."""
    zone = spec.availability_zone
    if zone and ":" in zone:
        name, _, rest = zone.partition(":")
        host, _, node = rest.partition(":")
        if ":" in node or not (host or node):
            raise InvalidValue(f"{shown(zone)} is not ZONE, ZONE:HOST or ZONE:HOST:NODE", field="availability_zone")
        hosts, nodes = (host,) if host else (), (node,) if node else ()
        spec = replace(spec, availability_zone=name or None, force_hosts=hosts, force_nodes=nodes)
    if not spec.availability_zone:
        default = options.default.default_schedule_zone
        if spec.availability_zone != default:
            spec = replace(spec, availability_zone=default)
    return spec


# PCI devices


def _with_devices(spec: RequestSpec, options: Options) -> RequestSpec:
    """PCI requests of the flavor's aliases before those of ports, unless they are there."""
    wanted = spec.flavor.extra_specs.get("pci_passthrough:alias")
    if wanted is None or any(request.alias_name is not None for request in spec.pci_requests):
        return spec
    image = spec.image.properties if spec.image is not None else {}
    policy = pci_numa_policy(Wishes(spec.flavor.vcpus, spec.flavor.extra_specs, canonical(image)))
    requests = alias_requests(wanted, policy, options)
    spec = replace(spec, pci_requests=(*requests, *spec.pci_requests))
    if options.filter_scheduler.pci_in_placement:
        spec = replace(spec, requested_resources=(*spec.requested_resources, *device_groups(requests)))
    return spec


def alias_requests(wanted: str, numa_policy: str | None, options: Options) -> tuple[PciRequest, ...]:
    """The PCI requests of ``NAME:COUNT, ...``. ``numa_policy`` prevails over the aliases' own.

    The request ids are made of the position and the name: equal flavors have equal ones.
    """
    field, aliases = "pci_passthrough:alias", options.pci.alias
    check_aliases(aliases, pci_in_placement=options.filter_scheduler.pci_in_placement)
    requests = []
    for position, part in enumerate(wanted.split(",")):
        name, _, count = part.partition(":")
        name = name.strip()
        if name not in aliases:
            raise UnknownName.among("PCI alias", name, aliases, field=field)
        devices = counted(count.strip(), MOST)
        if not devices:
            raise InvalidValue(f"{field}: {shown(part)} must ask for at least one device", field=field)
        alias = aliases[name]
        requests.append(
            PciRequest(
                count=devices,
                spec=tuple(dict(spec) for spec in alias.specs),
                alias_name=name,
                request_id=str(uuid.uuid5(_IDS, f"{position}:{name}")),
                numa_policy=numa_policy or alias.numa_policy,
            )
        )
    return tuple(requests)


def device_groups(requests: Sequence[PciRequest]) -> tuple[RequestGroup, ...]:
    """A request group for each device of PCI requests that are not of ports, as PCI in Placement has them: suffix
    ``<request id>-<number>``, one unit of the device's resource class, its traits.

    InvalidValue for a request with alternatives. Source: Nova 34 generate_request_groups_from_pci_requests.
    """
    groups = []
    for request in requests:
        if request.alias_name is None:
            continue
        if len(request.spec) != 1:
            raise InvalidValue(
                f"PCI request {request.alias_name} has {len(request.spec)} specs; PCI in Placement takes one",
                field="pci_requests.spec",
            )
        (spec,) = request.spec
        name = spec.get("resource_class") or f"CUSTOM_PCI_{spec.get('vendor_id')}_{spec.get('product_id')}"
        wanted = [text.strip() for text in str(spec.get("traits") or "").split(",") if text.strip()]
        groups += [
            RequestGroup(
                resources={_normalised(str(name).upper(), STANDARD_CLASSES): 1},
                required_traits=frozenset(_normalised(trait, standard_traits()) for trait in wanted),
                requester_id=f"{request.request_id}-{number}",
            )
            for number in range(request.count)
        ]
    return tuple(groups)


def _normalised(name: str, standard: Collection[str]) -> str:
    """A standard name as it is, any other in the form of a custom one."""
    if name in standard:
        return name
    upper = name.upper()
    return upper if is_custom(upper) else os_resource_classes.normalize_name(name)


# what is judged


def _check_judged(spec: RequestSpec, asked: RequestSpec, rules: Rules) -> None:
    """Raise InvalidValue for a wish that no enabled rule judges. ``asked``: the spec before it was completed. A
    topology or PCI requests that it brings may be what custom rules read, as hints may."""
    if spec.numa_topology is not None and not (rules.custom and asked.numa_topology is not None):
        rules.need("NUMATopologyFilter", f"the guest's NUMA topology ({_numa_source(spec)})", _numa_source(spec))
    if spec.pci_requests and not (rules.custom and asked.pci_requests):
        asked_by = "pci_passthrough:alias" if "pci_passthrough:alias" in spec.flavor.extra_specs else "pci_requests"
        rules.need("PciPassthroughFilter", f"a PCI device ({asked_by})", asked_by)
    profile = spec.flavor.extra_specs.get("accel:device_profile")
    if profile is not None and not any(
        (group.requester_id or "").startswith("device_profile") for group in spec.requested_resources
    ):
        raise InvalidValue(
            f"device profile {shown(profile)} is asked for, but not its request groups",
            field="accel:device_profile",
            hint="give them as requested_resources, requester_id device_profile_0 and so on",
        )
    for name in spec.flavor.extra_specs:
        _check_extra_spec(name, rules)
    for hint in spec.scheduler_hints:
        _check_hint(hint, rules)


def _numa_source(spec: RequestSpec) -> str:
    """The first extra spec or image property that asks for NUMA cells."""
    properties = spec.image.properties if spec.image is not None else {}
    names = ("numa_nodes", "mem_page_size", "cpu_policy", "pmem")
    found = [f"hw:{name}" for name in names if f"hw:{name}" in spec.flavor.extra_specs]
    found += [f"hw_{name}" for name in names if f"hw_{name}" in properties]
    found += [name for name in spec.flavor.extra_specs if name.startswith("resources") and name.endswith(":PCPU")]
    return next(iter(found), "numa_topology")


def _check_extra_spec(name: str, rules: Rules) -> None:
    if name.startswith("capabilities:") or name == "hw:maxphysaddr_bits":
        rules.need("ComputeCapabilitiesFilter", f"extra spec {name}", name)
    elif name.startswith("aggregate_instance_extra_specs:"):
        rules.need("AggregateInstanceExtraSpecsFilter", f"extra spec {name}", name)
    elif not is_known(name) and not rules.custom:
        by_host = rules.judged_by("ComputeCapabilitiesFilter") and name in NAMES
        if ":" in name:
            raise UnknownName(f"no rule reads the extra spec {shown(name)}", field=name, hint="leave it out")
        if not by_host:
            rules.need("AggregateInstanceExtraSpecsFilter", f"extra spec {name}", name)


def _check_hint(name: str, rules: Rules) -> None:
    if name in HINTS:
        rule = HINTS[name]
        if rule is not None and not rules.custom:
            rules.need(rule, f"hint {name}", f"scheduler_hints.{name}")
    elif not rules.custom:
        of_callers = (known for known in HINTS if not known.startswith("_"))
        raise UnknownName.among("scheduler hint", name, of_callers, field=f"scheduler_hints.{name}")


def group_of_hint(spec: RequestSpec) -> str | None:
    """The uuid in the hint ``group``, None without one. Raises InvalidValue if it is not one uuid."""
    values = spec.scheduler_hints.get("group")
    if values is None:
        return None
    if len(values) != 1:
        raise InvalidValue(f"the hint group names one server group, got {shown(values)}", field="scheduler_hints.group")
    uuid_words(values[0], "scheduler_hints.group")
    return values[0]
