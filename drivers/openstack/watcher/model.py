"""Watcher's compute model as a fleet of Hostler: hosts and guests with sizes, ratios, zones and extra specs, by whose
rules a plan of moves is made. It imports nothing of Watcher: what it reads are attributes of its elements.

The model does not have the zones of hosts, but those that guests are pinned to, in which they stand: where any guest is
pinned, a host is in the zone of its pinned guests, and one without such guests takes none of any zone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, Protocol
from uuid import UUID, uuid5

from ....placement.fleet.fleet import Fleet
from ....placement.load.bulk import add_hosts
from ....placement.types.host import Aggregate, Host, RunningInstance
from ....placement.types.request import Flavor, RequestSpec

RUNS = frozenset({"active", "paused", "suspended", "stopped"})
"""States of guests that stay on their hosts and hold what they were given."""

_ZONES: Final = UUID("6e7e0000-0000-4000-8000-000000000000")
"""The name space of the uuids of zones' aggregates."""


class ComputeModel(Protocol):
    """What is read of Watcher's model."""

    def get_all_compute_nodes(self) -> Any:
        """Node by uuid."""
        ...

    def get_node_instances(self, node: Any) -> Iterable[Any]:
        """The guests on a node."""
        ...


def fleet_of(model: ComputeModel) -> tuple[Fleet, dict[str, RequestSpec], frozenset[str]]:
    """The fleet, what each guest was asked with, and the guests that must stay: those that are locked or that the
    audit's scope excludes. A node without CPUs or memory, and what stands on it, is left out."""
    fleet, asked, pinned = Fleet(), dict[str, RequestSpec](), set[str]()
    hosts, closed, down, zone_of = [], dict[str, str](), [], dict[str, str | None]()
    for node in sorted(model.get_all_compute_nodes().values(), key=lambda node: str(node.hostname)):
        if node.vcpus <= 0 or node.memory <= 0:
            continue
        instances, zones = {}, set[str]()
        for instance in sorted(model.get_node_instances(node), key=lambda each: str(each.uuid)):
            spec = _spec(instance)
            asked[instance.uuid] = spec
            zones |= {spec.availability_zone} if spec.availability_zone else set()
            instances[instance.uuid] = RunningInstance(flavor=spec.flavor, project_id=_told(instance, "project_id", ""))
            if instance.watcher_exclude or _told(instance, "locked", False) or _text(instance.state) not in RUNS:
                pinned.add(instance.uuid)
        hosts.append(_host(node, instances))
        zone_of[node.hostname] = min(zones, default=None)
        if _text(node.status) != "enabled":
            closed[node.hostname] = _told(node, "disabled_reason", "") or "disabled"
        if _text(node.state) != "up":
            down.append(node.hostname)
    if any(zone_of.values()):
        hosts = [replace(host, aggregates=(_aggregate(zone_of[host.host]),)) for host in hosts]
    add_hosts(fleet, hosts)
    for name, reason in closed.items():
        fleet.set_service(name, disabled=True, disabled_reason=reason)
    if down:
        fleet.set_service(down, forced_down=True)
    return fleet, asked, frozenset(pinned)


def _host(node: Any, instances: dict[str, RunningInstance]) -> Host:
    return Host(
        host=node.hostname,
        vcpus_total=node.vcpus,
        cpu_allocation_ratio=_told(node, "vcpu_ratio", 1.0) or 1.0,
        reserved_vcpus=_told(node, "vcpu_reserved", 0),
        total_usable_ram_mb=node.memory,
        ram_allocation_ratio=_told(node, "memory_ratio", 1.0) or 1.0,
        reserved_ram_mb=_told(node, "memory_mb_reserved", 0),
        total_usable_disk_gb=node.disk,
        disk_allocation_ratio=_told(node, "disk_ratio", 1.0) or 1.0,
        reserved_disk_gb=_told(node, "disk_gb_reserved", 0),
        instances=instances,
    )


def _spec(instance: Any) -> RequestSpec:
    flavor = Flavor(
        name=f"{instance.vcpus} vCPUs, {instance.memory} MiB",
        vcpus=instance.vcpus,
        memory_mb=instance.memory,
        root_gb=instance.disk,
        extra_specs=dict(_told(instance, "flavor_extra_specs", {}) or {}),
    )
    return RequestSpec(flavor=flavor, availability_zone=_told(instance, "pinned_az", "") or None)


def _aggregate(zone: str | None) -> Aggregate:
    """The aggregate of a zone, or of hosts whose zone is not known."""
    name = zone or "(unknown zone)"
    return Aggregate(uuid=str(uuid5(_ZONES, name)), name=name, metadata={"availability_zone": name})


def _told(element: Any, name: str, default: Any) -> Any:
    """An attribute that a model of an older Watcher may not have, or that is not set."""
    try:
        value = getattr(element, name)
    except (AttributeError, NotImplementedError):
        # Fields of Watcher's objects (oslo.versionedobjects) that are not set are loaded when they are read, which
        # its objects cannot do: that is the second of the errors.
        return default
    return default if value is None else value


def _text(value: Any) -> str:
    """A state as text, whether it is one or an enumeration's."""
    return str(getattr(value, "value", value)).lower()
