"""Nova 33's filters and weighers, stated a second time: a function for each rule, on the nodes of the oracle. Slow and
obvious; of the product it uses values and parsed options only.

Weighers that Nova does not have, those for packing, are the product's: ``tests/weighers/test_packing`` states them."""

from __future__ import annotations

import ipaddress
import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hostler.placement.policy.policy import Policy
from hostler.placement.types.options import Options
from hostler.placement.types.request import Request, ServerGroup
from hostler.placement.weighers.metrics import RequiredMetricNotFound

from .world import Node

# extra specs

COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    "s==": operator.eq,
    "s!=": operator.ne,
    "s<": operator.lt,
    "s<=": operator.le,
    "s>": operator.gt,
    "s>=": operator.ge,
}


def matches(value: str, wish: str) -> bool:
    """Whether a value satisfies an extra spec. A value that is not a number satisfies no comparison of numbers."""
    words = wish.split()
    first = words[0] if words else ""
    if first == "<or>":
        return value in words[1::2]
    if first == "<in>":
        return len(words) > 1 and words[1] in value
    if first == "<all-in>":
        return len(words) > 1 and all(word in value for word in words[1:])
    if first not in COMPARED:
        return value == wish
    if len(words) == 1:
        return False
    if first.startswith("s"):
        return COMPARED[first](value, words[1])
    try:
        return COMPARED[first](float(value), float(words[1]))
    except ValueError:
        return False


def metadata_of(node: Node) -> dict[str, set[str]]:
    """Values of each key over the host's aggregates, divided at commas."""
    found: dict[str, set[str]] = {}
    for aggregate in node.aggregates:
        for key, value in aggregate.metadata.items():
            found.setdefault(key, set()).update(part.strip() for part in value.split(","))
    return found


def image_of(request: Request) -> Mapping[str, Any]:
    return request.spec.image.properties if request.spec.image is not None else {}


def specs_of(request: Request) -> Mapping[str, str]:
    return request.spec.flavor.extra_specs


# filters: whether a node passes a request


def compute(node: Node, request: Request, options: Options) -> bool:
    service, now = node.service, request.now
    if service.disabled or service.forced_down:
        return False
    if now is None or service.last_seen_up is None:
        return True
    return abs(now - service.last_seen_up) <= options.default.service_down_time


def capabilities(node: Node, request: Request, options: Options) -> bool:
    for key, wish in specs_of(request).items():
        scope, _, name = key.rpartition(":")
        attributes = {each: value for each, value in vars(node).items() if each not in ("world", "stocks")}
        if scope == "" and name not in attributes and name not in node.stats:
            continue
        if scope not in ("", "capabilities"):
            continue
        value = attributes[name] if name in attributes else node.stats.get(name)
        if value is None or not matches(str(value), wish):
            return False
    return True


def image_properties(node: Node, request: Request, options: Options) -> bool:
    image = image_of(request)
    default = options.filter_scheduler.image_properties_default_architecture
    wanted = {image.get("hw_architecture") or default, image.get("img_hv_type"), image.get("hw_vm_mode")} - {None, ""}
    version = image.get("img_hv_requested_version")
    if not wanted:
        return True
    return any(wanted <= set(row) and newer(node.hypervisor_version, version) for row in node.supported_instances)


def newer(version: int | None, wish: str | None) -> bool:
    """Whether a hypervisor's version, such as 8002001 for 8.2.1, satisfies a predicate such as ``>=7``; one that is not
    known does."""
    if not wish or not version:
        return True
    name = wish.rstrip("0123456789. ")
    asked = [int(part) for part in wish[len(name) :].strip().split(".")]
    has = [version // 1_000_000, version // 1_000 % 1_000, version % 1_000]
    return COMPARED[name.strip()](has, asked + [0] * (3 - len(asked)))


def anti_affinity(node: Node, request: Request, options: Options) -> bool:
    group = group_of(request, "anti-affinity")
    if group is None or request.instance_uuids[0] in node.instances:
        return True
    return len(group.members & set(node.instances)) < group.max_server_per_host


def affinity(node: Node, request: Request, options: Options) -> bool:
    group = group_of(request, "affinity")
    return group is None or not group.hosts or node.host in group.hosts


def group_of(request: Request, policy: str) -> ServerGroup | None:
    """The request's server group if it has that policy."""
    group = request.server_group
    return group if isinstance(group, ServerGroup) and group.policy == policy else None


def every_host(node: Node, request: Request, options: Options) -> bool:
    return True


def different_host(node: Node, request: Request, options: Options) -> bool:
    return not set(request.scheduler_hints.get("different_host", ())) & set(node.instances)


def same_host(node: Node, request: Request, options: Options) -> bool:
    named = set(request.scheduler_hints.get("same_host", ()))
    return not named or bool(named & set(node.instances))


def near_address(node: Node, request: Request, options: Options) -> bool:
    near = request.scheduler_hints.get("build_near_host_ip")
    if not near:
        return True
    if node.host_ip is None:
        return False
    (length,) = request.scheduler_hints.get("cidr", ("/24",))
    return ipaddress.ip_address(node.host_ip) in ipaddress.ip_network(near[0] + length, strict=False)


def aggregate_extra_specs(node: Node, request: Request, options: Options) -> bool:
    metadata = metadata_of(node)
    for key, wish in specs_of(request).items():
        scope, _, name = key.rpartition(":")
        if scope in ("", "aggregate_instance_extra_specs") and not any(
            matches(value, wish) for value in metadata.get(name, ())
        ):
            return False
    return True


def aggregate_image(node: Node, request: Request, options: Options) -> bool:
    image = image_of(request)
    return all(str(image[key]) in values for key, values in metadata_of(node).items() if key in image)


def aggregate_tenants(node: Node, request: Request, options: Options) -> bool:
    metadata = metadata_of(node)
    allowed = {project for key in metadata if key.startswith("filter_tenant_id") for project in metadata[key]}
    return not allowed or request.project_id in allowed


def aggregate_type(node: Node, request: Request, options: Options) -> bool:
    names = metadata_of(node).get("instance_type", set())
    return not names or request.spec.flavor.name in names


def io_ops(node: Node, request: Request, options: Options) -> bool:
    return node.num_io_ops < options.filter_scheduler.max_io_ops_per_host


def instances(node: Node, request: Request, options: Options) -> bool:
    return node.num_instances < options.filter_scheduler.max_instances_per_host


def aggregate_io_ops(node: Node, request: Request, options: Options) -> bool:
    return node.num_io_ops < least(node, "max_io_ops_per_host", options.filter_scheduler.max_io_ops_per_host, int)


def aggregate_instances(node: Node, request: Request, options: Options) -> bool:
    most = least(node, "max_instances_per_host", options.filter_scheduler.max_instances_per_host, int)
    return node.num_instances < most


def least(node: Node, key: str, configured: float, kind: Callable[[str], float]) -> float:
    """The least of a key's values over the host's aggregates; the configured one without any, or if one is invalid."""
    values = [aggregate.metadata[key] for aggregate in node.aggregates if key in aggregate.metadata]
    try:
        found = [kind(value) for value in values]
    except ValueError:
        return configured
    return min(found) if found and all(map(math.isfinite, found)) else configured


def isolated(node: Node, request: Request, options: Options) -> bool:
    group, image = options.filter_scheduler, request.spec.image
    image_is = image is not None and image.id in group.isolated_images
    host_is, restricted = node.host in group.isolated_hosts, group.restrict_isolated_hosts_to_isolated_images
    if not group.isolated_images:
        return not (restricted and host_is)
    return image_is == host_is if restricted else not image_is or host_is


def json_query(node: Node, request: Request, options: Options) -> bool:
    query = request.scheduler_hints.get("query")
    if not query:
        return True
    found = evaluated(node, json.loads(query[0]))
    return any(found) if isinstance(found, list) else bool(found)


def evaluated(node: Node, query: Any) -> Any:
    """The value of a JSON query in prefix form."""
    if isinstance(query, str) and query.startswith("$"):
        name, *keys = query[1:].split(".")
        value = getattr(node, name, None)
        for key in keys:
            value = None if value is None else value.get(key)
        return value
    if not isinstance(query, list):
        return query
    name, *rest = query
    values = [value for value in (evaluated(node, each) for each in rest) if value is not None]
    if name == "not":
        return [not value for value in values]
    if name in ("and", "or"):
        return all(values) if name == "and" else any(values)
    if len(values) < 2:
        return False
    if name == "in":
        return values[0] in values[1:]
    compare = {"=": operator.eq, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}[name]
    return all(compare(values[0], value) for value in values[1:])


def metrics(node: Node, request: Request, options: Options) -> bool:
    return set(options.metrics.weight_setting) <= set(node.metrics)


FILTERS: Mapping[str, Callable[[Node, Request, Options], bool]] = {
    "AggregateImagePropertiesIsolation": aggregate_image,
    "AggregateInstanceExtraSpecsFilter": aggregate_extra_specs,
    "AggregateIoOpsFilter": aggregate_io_ops,
    "AggregateMultiTenancyIsolation": aggregate_tenants,
    "AggregateNumInstancesFilter": aggregate_instances,
    "AggregateTypeAffinityFilter": aggregate_type,
    "AllHostsFilter": every_host,
    "ComputeCapabilitiesFilter": capabilities,
    "ComputeFilter": compute,
    "DifferentHostFilter": different_host,
    "ImagePropertiesFilter": image_properties,
    "IoOpsFilter": io_ops,
    "IsolatedHostsFilter": isolated,
    "JsonFilter": json_query,
    "MetricsFilter": metrics,
    "NUMATopologyFilter": every_host,  # the requests here have no NUMA topology
    "NumInstancesFilter": instances,
    "PciPassthroughFilter": every_host,  # and ask for no PCI devices
    "SameHostFilter": same_host,
    "ServerGroupAffinityFilter": affinity,
    "ServerGroupAntiAffinityFilter": anti_affinity,
    "SimpleCIDRAffinityFilter": near_address,
}
ONCE = frozenset(FILTERS) - {
    "AggregateIoOpsFilter",
    "AggregateNumInstancesFilter",
    "IoOpsFilter",
    "JsonFilter",
    "MetricsFilter",
    "NUMATopologyFilter",
    "NumInstancesFilter",
    "PciPassthroughFilter",
    "ServerGroupAffinityFilter",
    "ServerGroupAntiAffinityFilter",
}
"""Filters that run for the first instance of a request only."""
ON_REBUILD = frozenset({"AggregateImagePropertiesIsolation", "ImagePropertiesFilter", "IsolatedHostsFilter"})
"""Filters that judge a rebuild."""


# weighers: the raw weight of a node


def hypervisor_version(node: Node, request: Request, options: Options) -> float:
    return node.hypervisor_version or 0


def devices(node: Node, request: Request, options: Options) -> float:
    return 100 - min(sum(pool.count for pool in node.pci_pools), 99)


def soft_affinity(node: Node, request: Request, options: Options) -> float:
    group = group_of(request, "soft-affinity")
    return 0 if group is None else len(group.members & set(node.instances))


def soft_anti_affinity(node: Node, request: Request, options: Options) -> float:
    group = group_of(request, "soft-anti-affinity")
    return 0 if group is None else -len(group.members & set(node.instances))


def cross_cell(node: Node, request: Request, options: Options) -> float:
    destination = request.spec.requested_destination
    if destination is None or destination.cell_uuid is None or not destination.allow_cross_cell_move:
        return 0
    return 1 if node.cell_uuid == destination.cell_uuid else -1


def measured(node: Node, request: Request, options: Options) -> float:
    total, group = 0.0, options.metrics
    multiplier = least(node, "metrics_weight_multiplier", group.weight_multiplier, float)
    for name, ratio in group.weight_setting.items():
        if name in node.metrics:
            total += node.metrics[name] * ratio
        elif group.required:
            raise RequiredMetricNotFound(f"{node.host} has no metric {name}")
        elif ratio * multiplier != 0:
            return group.weight_of_unavailable
    return total


def alike_images(node: Node, request: Request, options: Options) -> float:
    group, total = options.filter_scheduler, 0.0
    if group.image_props_weight_multiplier == 0:
        return 0.0
    for name, value in image_of(request).items():
        alike = [each for each in node.instances.values() if str(each.get(name)) == str(value)]
        ratio = group.image_props_weight_setting.get(name, 0.0) if group.image_props_weight_setting else 1.0
        total += len(alike) * ratio
    return total


def free_vcpus(node: Node, request: Request, options: Options) -> float:
    return node.vcpus_total * node.cpu_allocation_ratio - node.vcpus_used


@dataclass(frozen=True)
class NovaWeigher:
    """A weigher of Nova's, with what the scorer reads of one."""

    name: str
    option: str
    of: Callable[[Node, Request, Options], float]
    options: Options
    minval: float | None = None
    maxval: float | None = None

    def raw(self, node: Node, request: Request) -> float:
        return self.of(node, request, self.options)

    def host_multiplier(self, node: Node) -> float:
        """The least value of the option in the metadata of the host's aggregates, else the configured one."""
        configured = (
            self.options.metrics.weight_multiplier
            if self.name == "MetricsWeigher"
            else getattr(self.options.filter_scheduler, self.option)
        )
        found = least(node, self.option, configured, float)
        return -found if self.name == "BuildFailureWeigher" else found


WEIGHERS: Mapping[str, tuple[str, Callable[[Node, Request, Options], float]]] = {
    "BuildFailureWeigher": ("build_failure", lambda node, *_: node.failed_builds),
    "CPUWeigher": ("cpu", free_vcpus),
    "CrossCellWeigher": ("cross_cell_move", cross_cell),
    "DiskWeigher": ("disk", lambda node, *_: node.free_disk_mb),
    "HypervisorVersionWeigher": ("hypervisor_version", hypervisor_version),
    "ImagePropertiesWeigher": ("image_props", alike_images),
    "IoOpsWeigher": ("io_ops", lambda node, *_: node.num_io_ops),
    "MetricsWeigher": ("metrics", measured),
    "NumInstancesWeigher": ("num_instances", lambda node, *_: node.num_instances),
    "PCIWeigher": ("pci", devices),
    "RAMWeigher": ("ram", lambda node, *_: node.free_ram_mb),
    "ServerGroupSoftAffinityWeigher": ("soft_affinity", soft_affinity),
    "ServerGroupSoftAntiAffinityWeigher": ("soft_anti_affinity", soft_anti_affinity),
}
FROM_ZERO = frozenset({"CPUWeigher", "DiskWeigher", "IoOpsWeigher", "RAMWeigher"})
"""Weighers whose least value is 0."""


def weighers_of(policy: Policy) -> Iterable[Any]:
    """The policy's weighers in its order: Nova's as stated here, others as they are."""
    for weigher in policy.weighers:
        if weigher.name in WEIGHERS:
            option, of = WEIGHERS[weigher.name]
            minval = 0.0 if weigher.name in FROM_ZERO else None
            yield NovaWeigher(weigher.name, f"{option}_weight_multiplier", of, policy.options, minval)
        else:
            yield weigher
