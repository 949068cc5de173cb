"""The hosts of a fleet's file, with their guests, as a running service takes them: ``hostler host add --state``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ...placement.decide.moves import confirm
from ...placement.fleet.fleet import Fleet
from ...placement.fleet.host_view import HostView
from ...placement.fleet.server_groups import GROUP_POLICIES
from ...placement.persist.file import load, load_requests
from ...placement.plan.guests import Guests
from ...placement.types.counting import counted
from ...placement.types.errors import InvalidValue
from ...placement.types.host import Host, RunningInstance, Service
from ...placement.types.request import RequestSpec
from ..engine_commands import AddServerGroup

_FOLDER: Final = "hostler import KIND FILES --data FOLDER writes a data folder that has all of it"
_RESERVED: Final = {"VCPU": "reserved_vcpus", "MEMORY_MB": "reserved_ram_mb", "DISK_GB": "reserved_disk_gb"}
_OWN: Final = frozenset({"VCPU", "PCPU", *_RESERVED})
"""Resource classes of a host's own report."""
_FOLLOWS: Final = frozenset(
    {
        *("vcpus_used", "free_ram_mb", "free_disk_mb", "disk_mb_used", "num_instances", "num_io_ops", "failed_builds"),
        *("instances", "service", "stats"),
    }
)
"""Fields that follow from the guests, or are made here."""
_POLICY_OF: Final = {number: name for name, number in GROUP_POLICIES.items()}


class StateHosts(NamedTuple):
    """Hosts with their guests, and the server groups that have to be there before them."""

    hosts: tuple[Host, ...]
    groups: tuple[AddServerGroup, ...]
    guests: int


def read_hosts(path: Path) -> StateHosts:
    """The hosts of a fleet's file. Guests that were moving have moved; services that are down stay down. SnapshotError
    for a file that is no fleet; InvalidValue for one without hosts, or with resources that no report of a host has."""
    fleet = load(path)
    for uuid in sorted(fleet._consumers.moves):
        confirm(fleet, uuid)
    rows = np.flatnonzero(fleet.is_host[: fleet.rows]).tolist()
    if not rows:
        raise InvalidValue(f"{path}: no hosts", field="state")
    _check_plain(fleet, rows, path)
    asked = {uuid: spec.as_kept() for uuid, spec in load_requests(path).items()}
    read = Guests(fleet, {"kind": "evacuate"})
    hosts = tuple(_host(fleet, row, {each.uuid: asked.get(each.uuid) for each in read.on(row)}) for row in rows)
    return StateHosts(hosts, tuple(_groups(fleet)), sum(len(host.instances) for host in hosts))


def _check_plain(fleet: Fleet, rows: Iterable[int], path: Path) -> None:
    nested = int(np.count_nonzero(~fleet.is_host[: fleet.rows]))
    if nested:
        what = counted(nested, "provider")
        raise InvalidValue(f"{path}: {what} below or beside the hosts, such as GPUs", field="state", hint=_FOLDER)
    for row in rows:
        other = sorted(fleet.inventory(fleet.name(row)).keys() - _OWN)
        if other:
            raise InvalidValue(f"{path}: {fleet.name(row)} has {other[0]}", field="state", hint=_FOLDER)


def _host(fleet: Fleet, row: int, asked: Mapping[str, RequestSpec | None]) -> Host:
    """The host as its service would report it."""
    view = HostView(fleet, row)
    known = {each.name for each in fields(Host)} - _FOLLOWS - set(_RESERVED.values())
    values: dict[str, Any] = {name: getattr(view, name) for name in known}
    for name, (inventory, _) in fleet.inventory(view.nodename).items():
        if name in _RESERVED:
            values[_RESERVED[name]] = inventory.reserved
    service = view.service
    down = service.forced_down or not (service.disabled or fleet.column("service_up")[row])
    values["service"] = Service(
        disabled=service.disabled,
        disabled_reason=service.disabled_reason,
        forced_down=bool(down),
        version=service.version,
    )
    properties = view.instances
    values["instances"] = {
        uuid: _instance(fleet, uuid, spec, properties.get(uuid, {})) for uuid, spec in sorted(asked.items())
    }
    return Host(**values)


def _instance(
    fleet: Fleet, uuid: str, spec: RequestSpec | None, properties: Mapping[str, Any]
) -> RunningInstance | dict[str, Any]:
    held = fleet.consumer(uuid)
    if spec is None and not held.resources:
        return dict(properties)
    extras = fleet._consumers.extras.get(fleet.consumer_id(uuid))
    if extras is not None and extras.numa is not None:
        # A report tells what CPUs and pages all guests of a cell have, not which guest has them.
        raise InvalidValue(f"{uuid} on {held.provider} has NUMA cells", field="state", hint=_FOLDER)
    return RunningInstance(
        flavor=spec.flavor if spec is not None else None,
        resources=held.resources or None,
        image_properties=dict(properties),
        project_id=held.project_id,
        user_id=held.user_id,
        server_group=held.server_group,
        is_bfv=spec.is_bfv if spec is not None else False,
        pci_devices=extras.pci if extras is not None else (),
    )


def _groups(fleet: Fleet) -> Iterable[AddServerGroup]:
    for uuid, index in sorted(fleet._groups.items()):
        policy, most = fleet._kernel.group_policy(index)
        yield AddServerGroup(uuid=uuid, policy=_POLICY_OF[policy], max_server_per_host=most)
