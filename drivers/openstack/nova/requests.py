"""Nova's RequestSpec as a Request, as it is once Nova's prefilters have run. Works on any object with its fields;
imports nothing of Nova."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ....placement.types.errors import HostlerError
from ....placement.types.request import (
    Destination,
    Flavor,
    Image,
    InstanceNumaCell,
    InstanceNumaTopology,
    PciRequest,
    Request,
    RequestGroup,
    RequestLevelParams,
    RequestSpec,
    ServerGroup,
)
from .hosts import image_properties, networks_of
from .reading import field

READ: Final = frozenset(
    {
        *("image", "numa_topology", "pci_requests", "project_id", "user_id", "availability_zone", "flavor"),
        *("num_instances", "ignore_hosts", "force_hosts", "force_nodes", "requested_destination", "instance_group"),
        *("scheduler_hints", "instance_uuid", "network_metadata", "is_bfv", "requested_resources"),
        "request_level_params",
    }
)
"""Fields of RequestSpec 1.15 that a decision depends on."""
UNREAD: Final = frozenset(
    {"id", "retry", "limits", "security_groups", "requested_networks", "created_at", "updated_at"}
    | {"deleted_at", "deleted"}
)
"""Fields that no filter or weigher of Nova 33 and 34 reads once the prefilters have run."""


class NotModelled(HostlerError):
    """A request, or a setting, that Hostler does not decide by Nova's rules. ``field`` names it."""

    code = "not_modelled"


def request_of(spec: Any, instance_uuids: Sequence[str], *, alternates: int, now: float) -> Request:
    """A RequestSpec, for these instances, as seen at ``now`` (seconds since the epoch). NotModelled if it has a field
    that this version of Hostler does not know."""
    for name in spec.fields:
        if name not in READ and name not in UNREAD and field(spec, name):
            raise NotModelled(f"the request has {name}, which Hostler does not know", field="request_field")
    return Request(
        spec=_spec(spec),
        instance_uuids=tuple(instance_uuids),
        project_id=field(spec, "project_id") or "",
        user_id=field(spec, "user_id") or "",
        server_group=_group(field(spec, "instance_group")),
        now=now,
        alternates=alternates,
    )


def _spec(spec: Any) -> RequestSpec:
    hints = field(spec, "scheduler_hints") or {}
    networks = field(spec, "network_metadata")
    params = field(spec, "request_level_params")
    return RequestSpec(
        flavor=flavor_of(spec.flavor),
        image=_image(field(spec, "image")),
        availability_zone=field(spec, "availability_zone"),
        scheduler_hints={name: (value,) if isinstance(value, str) else tuple(value) for name, value in hints.items()},
        ignore_hosts=tuple(field(spec, "ignore_hosts") or ()),
        force_hosts=tuple(field(spec, "force_hosts") or ()),
        force_nodes=tuple(field(spec, "force_nodes") or ()),
        requested_destination=_destination(field(spec, "requested_destination")),
        pci_requests=_pci(field(spec, "pci_requests")),
        numa_topology=_topology(field(spec, "numa_topology")),
        is_bfv=bool(field(spec, "is_bfv")),
        requested_resources=tuple(_resources(each) for each in field(spec, "requested_resources") or ()),
        request_level_params=None if params is None else _params(params),
        network_metadata=None if networks is None else networks_of(networks),
        prepare=False,
    )


def flavor_of(flavor: Any) -> Flavor:
    """A flavor of Nova."""
    return Flavor(
        name=field(flavor, "name") or "unnamed",
        vcpus=flavor.vcpus,
        memory_mb=flavor.memory_mb,
        root_gb=field(flavor, "root_gb") or 0,
        ephemeral_gb=field(flavor, "ephemeral_gb") or 0,
        swap=field(flavor, "swap") or 0,
        extra_specs={str(key): str(value) for key, value in (field(flavor, "extra_specs") or {}).items()},
    )


def _image(image: Any) -> Image | None:
    if image is None:
        return None
    properties = field(image, "properties")
    return Image(
        id=field(image, "id"),
        disk_format=field(image, "disk_format"),
        properties={} if properties is None else image_properties(properties),
    )


def _destination(given: Any) -> Destination | None:
    if given is None:
        return None
    cell = field(given, "cell")
    return Destination(
        host=field(given, "host"),
        node=field(given, "node"),
        cell_uuid=None if cell is None else cell.uuid,
        allow_cross_cell_move=bool(field(given, "allow_cross_cell_move")),
        aggregates=tuple(field(given, "aggregates") or ()),
        forbidden_aggregates=frozenset(field(given, "forbidden_aggregates") or ()),
    )


def _pci(requests: Any) -> tuple[PciRequest, ...]:
    return tuple(
        PciRequest(
            count=each.count,
            spec=tuple(dict(spec) for spec in each.spec),
            alias_name=field(each, "alias_name"),
            request_id=field(each, "request_id"),
            numa_policy=field(each, "numa_policy"),
            requester_id=field(each, "requester_id"),
        )
        for each in (() if requests is None else requests.requests)
    )


def _topology(topology: Any) -> InstanceNumaTopology | None:
    if topology is None:
        return None
    cells = tuple(
        InstanceNumaCell(
            id=cell.id,
            cpuset=frozenset(cell.cpuset),
            pcpuset=frozenset(field(cell, "pcpuset") or ()),
            memory=cell.memory,
            pagesize=field(cell, "pagesize"),
            cpu_policy=field(cell, "cpu_policy"),
            cpu_thread_policy=field(cell, "cpu_thread_policy"),
        )
        for cell in topology.cells
    )
    return InstanceNumaTopology(cells=cells, emulator_threads_policy=field(topology, "emulator_threads_policy"))


def _resources(group: Any) -> RequestGroup:
    return RequestGroup(
        resources=dict(field(group, "resources") or {}),
        required_traits=frozenset(field(group, "required_traits") or ()),
        forbidden_traits=frozenset(field(group, "forbidden_traits") or ()),
        aggregates=tuple(frozenset(each) for each in field(group, "aggregates") or ()),
        forbidden_aggregates=frozenset(field(group, "forbidden_aggregates") or ()),
        in_tree=field(group, "in_tree"),
        use_same_provider=bool(field(group, "use_same_provider", True)),
        requester_id=field(group, "requester_id"),
    )


def _params(params: Any) -> RequestLevelParams:
    return RequestLevelParams(
        root_required=frozenset(field(params, "root_required") or ()),
        root_forbidden=frozenset(field(params, "root_forbidden") or ()),
        same_subtree=tuple(tuple(each) for each in field(params, "same_subtree") or ()),
    )


def _group(group: Any) -> ServerGroup | None:
    if group is None:
        return None
    policy = field(group, "policy")
    if policy is None:
        return None
    rules = field(group, "_rules") or {}  # the field behind the property ``rules``, whose values are texts
    return ServerGroup(
        uuid=group.uuid,
        policy=policy,
        max_server_per_host=int(rules.get("max_server_per_host", 1)),
        members=frozenset(field(group, "members") or ()),
        hosts=frozenset(field(group, "hosts") or ()),
    )
