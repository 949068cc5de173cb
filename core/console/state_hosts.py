"""The hosts of a fleet's file, with their guests, as a running service takes them: ``hostler host add --state``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from ...ext.tables import format_uuid, make_many
from ...placement.decide.moves import confirm
from ...placement.fleet.fleet import Fleet
from ...placement.fleet.host_view import HostView
from ...placement.fleet.server_groups import GROUP_POLICIES
from ...placement.persist.file import load, load_requests
from ...placement.plan.guests import Guests
from ...placement.types.counting import counted
from ...placement.types.errors import DuplicateName, InvalidValue
from ...placement.types.host import Host, RunningInstance, Service
from ...placement.types.request import RequestSpec
from ..engine_commands import AddHosts, AddServerGroup
from ..machine.queries import HostDetail
from ..rpc.client import BlockingClient

AT_A_TIME: Final = 500
"""Hosts in one command."""
BYTES: Final = 4 << 20
"""Bytes of the hosts of one command, which fit into a message."""
_PAGE: Final = 1_000
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
    stock: Mapping[str, Mapping[str, tuple[int, int]]]
    """Total and limit of each resource class, by node."""


class Added(NamedTuple):
    """What was added, and how many hosts were there already; ``answers`` of the service, one of each command."""

    hosts: int
    guests: int
    there: int
    answers: list[Any]


def add_to(client: BlockingClient, found: StateHosts) -> Added:
    """Add what a service does not have. Hosts that are there with the same sizes and guests were added before, by a
    call that has failed in the middle. DuplicateName, before anything is added, where a host or a server group of that
    name is there and differs, or a guest is on another host."""
    there = {line.node for line in _pages(client, "hosts", "node")}
    kept = [host for host in found.hosts if _node(host) in there]
    for host in kept:
        _check_same(client.call("host", {"name": _node(host)}), host, found.stock[_node(host)])
    new = [host for host in found.hosts if _node(host) not in there]
    _check_guests(client, new)
    groups = _new_groups(client, found.groups)
    for group in groups:
        client.call("add_server_group", group)
    answers = [client.call("add_hosts", AddHosts(hosts=some, negative_free=True)) for some in in_messages(new)]
    return Added(len(new), sum(len(host.instances) for host in new), len(kept), answers)


def in_messages(hosts: Sequence[Host]) -> Iterator[tuple[Host, ...]]:
    """Hosts in the order given, as many at a time as a message holds; one that is longer by itself."""
    some, size = list[Host](), 0
    for each in hosts:
        own = len(msgspec.msgpack.encode(each))
        if some and (len(some) == AT_A_TIME or size + own > BYTES):
            yield tuple(some)
            some, size = [], 0
        some.append(each)
        size += own
    if some:
        yield tuple(some)


def _node(host: Host) -> str:
    return host.nodename or host.host


def _pages(client: BlockingClient, method: str, key: str) -> Iterator[Any]:
    """All lines of a list. ``key``: the field that its pages continue after."""
    page = client.call(method, {"limit": _PAGE})
    while page:
        yield from page
        page = client.call(method, {"limit": _PAGE, "after": getattr(page[-1], key)}) if len(page) == _PAGE else []


def _check_guests(client: BlockingClient, new: Iterable[Host]) -> None:
    """DuplicateName if a guest of a host that is not there is on another."""
    coming = {uuid: _node(host) for host in new for uuid in host.instances}
    for line in _pages(client, "instances", "uuid") if coming else ():
        if line.uuid in coming:
            problem = f"{line.uuid} of {coming[line.uuid]} is there already, on {line.node}"
            raise DuplicateName(problem, field="state", hint="it has moved since the export was made")


def _check_same(there: HostDetail, host: Host, stock: Mapping[str, tuple[int, int]]) -> None:
    """DuplicateName if a host of the service is not the one of the file."""
    other = {name: (each.total, each.limit) for name, each in there.inventory.items()} != stock
    guests = set(there.instances) != set(host.instances)
    if other or guests:
        what = "another inventory" if other else "other guests"
        hint = "remove it from the service, or from the export"
        raise DuplicateName(f"{_node(host)} is there already, with {what}", field="state", hint=hint)


def _new_groups(client: BlockingClient, groups: Iterable[AddServerGroup]) -> list[AddServerGroup]:
    """The server groups that a service does not have. DuplicateName if it has one with other rules."""
    lines = _pages(client, "server_groups", "uuid")
    there = {line.uuid: (line.policy, line.max_server_per_host) for line in lines}
    new = []
    for group in groups:
        if group.uuid not in there:
            new.append(group)
        elif there[group.uuid] != (group.policy, group.max_server_per_host):
            problem = f"server group {group.uuid} is there already, as {there[group.uuid][0]}"
            raise DuplicateName(problem, field="state", hint=f"it is {group.policy} in the file")
    return new


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
    made = _made(fleet)
    hosts = tuple(_host(fleet, row, {each.uuid: asked.get(each.uuid) for each in read.on(row)}, made) for row in rows)
    stock = {
        name: {
            each: (line.total, int((line.total - line.reserved) * line.allocation_ratio))
            for each, (line, _) in fleet.inventory(name).items()
        }
        for name in map(_node, hosts)
    }
    return StateHosts(hosts, tuple(_groups(fleet)), stock)


def _made(fleet: Fleet) -> frozenset[str]:
    """The uuids that a fleet has made for hosts without one. Every fleet makes the same, so that they say nothing of
    the host, and the service makes its own."""
    words = make_many(fleet.seed, 0, fleet._providers.made).tolist()
    return frozenset(format_uuid(high, low) for high, low in words)


def _check_plain(fleet: Fleet, rows: Iterable[int], path: Path) -> None:
    nested = int(np.count_nonzero(~fleet.is_host[: fleet.rows]))
    if nested:
        what = counted(nested, "provider")
        raise InvalidValue(f"{path}: {what} below or beside the hosts, such as GPUs", field="state", hint=_FOLDER)
    for row in rows:
        other = sorted(fleet.inventory(fleet.name(row)).keys() - _OWN)
        if other:
            raise InvalidValue(f"{path}: {fleet.name(row)} has {other[0]}", field="state", hint=_FOLDER)


def _host(fleet: Fleet, row: int, asked: Mapping[str, RequestSpec | None], made: frozenset[str]) -> Host:
    """The host as its service would report it."""
    view = HostView(fleet, row)
    known = {each.name for each in fields(Host)} - _FOLLOWS - set(_RESERVED.values())
    values: dict[str, Any] = {name: getattr(view, name) for name in known}
    if values["uuid"] in made:
        values["uuid"] = ""
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
