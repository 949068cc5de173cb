"""OpenStack, from the listings of its command line in JSON or CSV: ``hypervisor list --long``, ``server list --all
--long``, ``flavor list --long``, ``aggregate show``, ``server group list --long`` and ``resource provider inventory
list``; and from Nova's table ``instances``."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...placement.types.errors import InvalidValue
from ...placement.types.host import Aggregate
from ...placement.types.request import Flavor
from .cloud import CloudDraft, GuestDraft, HostDraft, size, uuid_from
from .tables import Line, Table

_NO_ALLOCATION = frozenset({"DELETED", "SOFT_DELETED", "SHELVED_OFFLOADED", "ERROR", "BUILD"})


def read(found: Sequence[Table]) -> CloudDraft:
    """The hosts and guests of all tables."""
    cloud = CloudDraft()
    kinds: dict[str, list[Table]] = {}
    for table in found:
        kinds.setdefault(_kind(table), []).append(table)
    for line in _lines(kinds, "hypervisors"):
        _hypervisor(cloud, line)
    for table in kinds.get("inventories", ()):
        _inventories(cloud, table)
    for line in _lines(kinds, "aggregates"):
        _aggregate(cloud, line)
    members = _groups(cloud, _lines(kinds, "groups"))
    flavors = _flavors(cloud, _lines(kinds, "flavors"))
    for line in _lines(kinds, "servers"):
        _server(cloud, line, flavors, members)
    for line in _lines(kinds, "instances"):
        _instance(cloud, line, members)
    return cloud


def _lines(kinds: Mapping[str, Sequence[Table]], kind: str) -> list[Line]:
    return [line for table in kinds.get(kind, ()) for line in table.lines]


def _kind(table: Table) -> str:
    for kind, columns in (
        ("hypervisors", ("Hypervisor Hostname",)),
        ("flavors", ("VCPUs", "RAM", "Name")),
        ("groups", ("Members",)),
        ("servers", ("ID", "Status")),
        ("inventories", ("resource_class", "total")),
        ("instances", ("uuid", "host", "vcpus", "memory_mb")),
        ("aggregates", ("Name", "Availability Zone")),
        ("aggregates", ("name", "availability_zone", "hosts")),
    ):
        if table.has(*columns):
            return kind
    shown = ", ".join(table.columns[:8])
    hint = "export with --long; hypervisors, servers, flavors, aggregates, server groups and inventories are read"
    raise InvalidValue(f"{table.file} is none of the listings of OpenStack: its columns are {shown}", hint=hint)


def _hypervisor(cloud: CloudDraft, line: Line) -> None:
    name = line.text("Hypervisor Hostname")
    try:
        vcpus, memory_mb = size(line, "vCPUs"), size(line, "Memory MB")
        disk_gb = size(line, "Local GB", "Disk GB", "Local Disk GB")
    except ValueError as error:
        cloud.report.drop(line, name, str(error))
        return
    if not vcpus or not memory_mb:
        cloud.report.drop(line, name, "vCPUs or Memory MB is empty: list with --os-compute-api-version 2.87")
        return
    down = line.text("State").lower() == "down"
    disabled = line.text("Status").lower() == "disabled"
    cloud.add_host(
        HostDraft(
            name=name,
            line=line,
            vcpus=vcpus,
            memory_mb=memory_mb,
            disk_gb=disk_gb,
            hypervisor=line.text("Hypervisor Type") or None,
            disabled="down when it was exported" if down else "disabled when it was exported" if disabled else "",
        )
    )


def _inventories(cloud: CloudDraft, table: Table) -> None:
    """Inventories of one provider: the file has its name."""
    host = cloud.hosts.get(cloud.known_host(table.name) or "")
    for line in table.lines:
        name = line.text("resource_class")
        if host is None:
            cloud.report.drop(line, name, f"{table.name!r}, the name of the file, is not the name of a hypervisor")
            continue
        try:
            total, reserved = size(line, "total"), size(line, "reserved")
            ratio = line.number("allocation_ratio") or 1.0
        except ValueError as error:
            cloud.report.drop(line, name, str(error))
            continue
        if name == "VCPU":
            host.vcpus, host.reserved_vcpus, host.cpu_ratio = total, reserved, ratio
        elif name == "MEMORY_MB":
            host.memory_mb, host.reserved_memory_mb, host.memory_ratio = total, reserved, ratio
        elif name == "DISK_GB":
            host.disk_gb, host.reserved_disk_gb, host.disk_ratio = total, reserved, ratio
        else:
            cloud.report.drop(line, name, "only VCPU, MEMORY_MB and DISK_GB of hosts are taken")


def _aggregate(cloud: CloudDraft, line: Line) -> None:
    name = line.text("Name", "name")
    metadata = _mapping(line.get("Properties", "properties"))
    zone = line.text("Availability Zone", "availability_zone")
    if zone and zone != "None":
        metadata["availability_zone"] = zone
    aggregate = Aggregate(
        uuid=uuid_from(line.text("UUID", "uuid") or f"aggregate {name}"), name=name, metadata=metadata
    )
    hosts = _listed(line.get("Hosts", "hosts"))
    if not hosts:
        cloud.report.drop(line, name, "it names no hosts: give `openstack aggregate show -f json` of it")
    for host in hosts:
        known = cloud.known_host(host)
        if known is None:
            cloud.report.drop(line, name, f"its host {host!r} is not in the files")
        else:
            cloud.hosts[known].aggregates[aggregate.uuid] = aggregate


def _groups(cloud: CloudDraft, lines: Sequence[Line]) -> dict[str, str]:
    """Group by member."""
    members: dict[str, str] = {}
    for line in lines:
        name, policies = line.text("ID"), _listed(line.get("Policy", "Policies"))
        if not policies or policies[0] not in ("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"):
            cloud.report.drop(line, name, f"its policy {', '.join(policies)!r} is not known")
            continue
        cloud.groups[name] = policies[0]
        members.update(dict.fromkeys(_listed(line.get("Members")), name))
    return members


def _flavors(cloud: CloudDraft, lines: Sequence[Line]) -> dict[str, Flavor]:
    """Flavors by name and by id."""
    flavors: dict[str, Flavor] = {}
    for line in lines:
        name = line.text("Name")
        try:
            flavor = Flavor(
                name=name,
                vcpus=size(line, "VCPUs"),
                memory_mb=size(line, "RAM"),
                root_gb=size(line, "Disk"),
                ephemeral_gb=size(line, "Ephemeral"),
                swap=size(line, "Swap"),
                extra_specs=_mapping(line.get("Properties")),
            )
        except ValueError as error:
            cloud.report.drop(line, name, str(error))
            continue
        flavors[line.text("ID")] = flavor
        flavors[name] = flavor
    return flavors


def _server(cloud: CloudDraft, line: Line, flavors: Mapping[str, Flavor], members: Mapping[str, str]) -> None:
    key, status, host = line.text("ID"), line.text("Status").upper(), line.text("Host", "OS-EXT-SRV-ATTR:host")
    wanted = line.text("Flavor Name", "Flavor", "Flavor ID")
    flavor = flavors.get(wanted) or flavors.get(line.text("Flavor ID"))
    nowhere = host in ("", "None")
    if status in _NO_ALLOCATION or nowhere:
        cloud.report.drop(line, key, f"it is {status} and on no host" if nowhere else f"it is {status}")
    elif flavor is None:
        cloud.report.drop(line, key, f"its flavor {wanted!r} is not in the files")
    else:
        image = line.text("Image Name", "Image", "Image ID")
        cloud.guests.append(
            GuestDraft(
                key=key,
                host=host,
                line=line,
                flavor=flavor,
                zone=_zone(cloud, host, line.text("Availability Zone")),
                project=line.text("Project ID"),
                group=members.get(key),
                is_bfv=not image or "booted from volume" in image,
            )
        )


def _zone(cloud: CloudDraft, host: str, zone: str) -> str | None:
    """The zone that a server keeps: the one it is in, if its host is in it too. A host in no aggregate with a zone is
    in the zone of its servers."""
    known = cloud.known_host(host)
    if known is None or zone in ("", "None", "nova"):
        return None
    draft = cloud.hosts[known]
    zones = {each.metadata.get("availability_zone") for each in draft.aggregates.values()} - {None}
    if not zones:
        draft.zone = draft.zone or zone
        zones = {draft.zone}
    cloud.report.note("the zone that a server was asked with is not in the listing: it keeps the one it is in")
    return zone if zone in zones else None


def _instance(cloud: CloudDraft, line: Line, members: Mapping[str, str]) -> None:
    """A row of Nova's table ``instances``."""
    key, state = line.text("uuid"), line.text("vm_state").lower()
    if line.text("deleted") not in ("", "0") or state in ("deleted", "soft-delete", "error", "building"):
        cloud.report.drop(line, key, "it is deleted" if state != "error" else "it is in error")
        return
    if not line.text("host"):
        cloud.report.drop(line, key, "it is on no host")
        return
    try:
        flavor = Flavor(
            name=f"instance type {line.text('instance_type_id') or 'unknown'}",
            vcpus=size(line, "vcpus"),
            memory_mb=size(line, "memory_mb"),
            root_gb=size(line, "root_gb"),
            ephemeral_gb=size(line, "ephemeral_gb"),
        )
    except ValueError as error:
        cloud.report.drop(line, key, str(error))
        return
    cloud.report.note("rows of the table instances have no extra specs: pinning and traits are not kept")
    cloud.guests.append(
        GuestDraft(
            key=key,
            host=line.text("node", "host"),
            line=line,
            flavor=flavor,
            project=line.text("project_id"),
            group=members.get(key),
        )
    )


def _parsed(value: Any) -> Any:
    """A cell that holds JSON or a Python literal, as the command line prints them in CSV."""
    if not isinstance(value, str):
        return value
    for read_text in (json.loads, ast.literal_eval):
        try:
            return read_text(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return value


def _mapping(value: Any) -> dict[str, str]:
    value = _parsed(value)
    if isinstance(value, Mapping):
        return {str(key): str(item) for key, item in value.items()}
    pairs = (pair.partition("=") for pair in str(value or "").split(",") if "=" in pair)
    return {key.strip(): item.strip().strip("'\"") for key, _, item in pairs}


def _listed(value: Any) -> list[str]:
    value = _parsed(value)
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    return [part.strip() for part in str(value or "").split(",") if part.strip()]
