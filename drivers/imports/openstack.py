"""OpenStack, from the listings of its command line in JSON or CSV: ``hypervisor list --long``, ``server list --all
--long``, ``flavor list --long``, ``aggregate show``, ``server group list --long`` and ``resource provider inventory
list``, ``trait list`` and ``usage show``; and from Nova's table ``instances``."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...placement.types.errors import InvalidValue
from ...placement.types.host import Aggregate
from ...placement.types.request import Flavor
from ...placement.types.validation import is_custom, standard_traits
from .cloud import CloudDraft, GuestDraft, HostDraft, memory_mb, size, uuid_from
from .tables import Line, Table

_NO_ALLOCATION = frozenset({"DELETED", "SHELVED_OFFLOADED"})
"""States in which a server takes nothing of the host that is listed (Nova's ALLOW_RESOURCE_REMOVAL). One that is in
error, being built or deleted softly takes what it has, if it is on a host."""
_NO_ZONE = frozenset({"", "None", "nova"})
_PAIR = re.compile(r"""\s*([^=,\s][^=,]*?)\s*=\s*('[^']*'|"[^"]*"|[^,]*)""")
"""A property as clients before 5.0 print it: ``hw:numa_cpus.0='0,1'``."""


def read(found: Sequence[Table]) -> CloudDraft:
    """The hosts and guests of all tables."""
    cloud = CloudDraft()
    kinds: dict[str, list[Table]] = {}
    for table in found:
        if not table.columns and not table.lines:
            cloud.report.note(f"{table.file} lists nothing")
            continue
        kinds.setdefault(_kind(table), []).append(table)
    hypervisors = _lines(kinds, "hypervisors")
    names = [line.text("Hypervisor Hostname") for line in hypervisors]
    inventories, traits, usages = (_OfHosts(kinds.get(kind, ()), names) for kind in ("inventories", "traits", "usages"))
    for line in hypervisors:
        _hypervisor(cloud, line, inventories, traits)
    for table in (*inventories.others, *traits.others, *usages.others):
        for line in table.lines:
            why = f"{table.name!r}, the name of the file, is not the name of a hypervisor"
            cloud.report.drop(line, line.text("resource_class", "name"), why)
    for line in _lines(kinds, "aggregates"):
        _aggregate(cloud, line)
    members = _groups(cloud, _lines(kinds, "groups"))
    flavors = _flavors(cloud, _lines(kinds, "flavors"))
    for line in _lines(kinds, "servers"):
        _server(cloud, line, flavors, members)
    for line in _lines(kinds, "instances"):
        _instance(cloud, line, members)
    _compare(cloud, usages)
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
        ("usages", ("resource_class", "usage")),
        ("instances", ("uuid", "host", "vcpus", "memory_mb")),
        ("aggregates", ("Name", "Availability Zone")),
        ("aggregates", ("name", "availability_zone", "hosts")),
    ):
        if table.has(*columns):
            return kind
    if [column.lower() for column in table.columns] == ["name"]:
        return "traits"
    shown = ", ".join(table.columns[:8])
    hint = "export with --long; hypervisors, servers, flavors, aggregates, server groups and inventories are read"
    raise InvalidValue(f"{table.file} is none of the listings of OpenStack: its columns are {shown}", hint=hint)


class _OfHosts:
    """Tables of one provider each, by the hypervisor that the table's file is named after: ``others`` are those of
    none."""

    def __init__(self, found: Sequence[Table], hypervisors: Sequence[str]) -> None:
        self._of: dict[str, list[Table]] = {}
        self.others: list[Table] = []
        full = {name.lower(): name for name in hypervisors}
        short: dict[str, list[str]] = {}
        for name in hypervisors:
            short.setdefault(name.partition(".")[0].lower(), []).append(name)
        for table in found:
            parts = table.file.lower().split(".")
            whole = (full.get(".".join(parts[:count])) for count in range(len(parts), 0, -1))
            alike = short.get(parts[0], [])
            name = next(filter(None, whole), alike[0] if len(alike) == 1 else "")
            if not name:
                self.others.append(table)
            else:
                self._of.setdefault(name, []).append(table)

    @property
    def hypervisors(self) -> list[str]:
        """Those that have a table."""
        return list(self._of)

    def lines(self, hypervisor: str) -> list[Line]:
        """The lines of a hypervisor's tables."""
        return [line for table in self._of.get(hypervisor, ()) for line in table.lines]


def _hypervisor(cloud: CloudDraft, line: Line, inventories: _OfHosts, traits: _OfHosts) -> None:
    name = line.text("Hypervisor Hostname")
    down = line.text("State").lower() == "down"
    disabled = line.text("Status").lower() == "disabled"
    try:
        host = HostDraft(
            name=name,
            line=line,
            vcpus=size(line, "vCPUs"),
            memory_mb=memory_mb(line, "Memory MB"),
            disk_gb=size(line, "Local GB", "Disk GB", "Local Disk GB"),
            hypervisor=line.text("Hypervisor Type") or None,
            disabled="down when it was exported" if down else "disabled when it was exported" if disabled else "",
        )
    except ValueError as error:
        cloud.report.drop(line, name, str(error))
        return
    # Beside shared CPUs, of which VCPU is, a host may have dedicated ones.
    listed = host.vcpus
    dedicated = sum(_inventory(cloud, host, each) for each in inventories.lines(name))
    host.cpus = max(listed, host.vcpus + dedicated)
    host.traits = frozenset(_traits(cloud, traits.lines(name)))
    if not host.vcpus or not host.memory_mb:
        why = "vCPUs or Memory MB is empty: list with --os-compute-api-version 2.87, or give its inventories"
        cloud.report.drop(line, name, why)
        return
    cloud.add_host(host)


def _inventory(cloud: CloudDraft, host: HostDraft, line: Line) -> int:
    """A line of the inventories of a host; returns how many dedicated CPUs it tells of."""
    name = line.text("resource_class")
    try:
        total, reserved = size(line, "total"), size(line, "reserved")
        ratio = line.number("allocation_ratio") or 1.0
    except ValueError as error:
        cloud.report.drop(line, name, str(error))
        return 0
    if name == "VCPU":
        host.vcpus, host.reserved_vcpus, host.cpu_ratio = total, reserved, ratio
    elif name == "MEMORY_MB":
        host.memory_mb, host.reserved_memory_mb, host.memory_ratio = total, reserved, ratio
    elif name == "DISK_GB":
        host.disk_gb, host.reserved_disk_gb, host.disk_ratio = total, reserved, ratio
    else:
        cloud.report.drop(line, name, "only VCPU, MEMORY_MB and DISK_GB of hosts are taken")
    return total if name == "PCPU" else 0


def _traits(cloud: CloudDraft, lines: Sequence[Line]) -> Iterator[str]:
    """The traits of a host that are known here, or custom."""
    for line in lines:
        name = line.text("name")
        if name in standard_traits() or is_custom(name):
            yield name
        else:
            cloud.report.drop(line, name, "it is newer than os-traits here: upgrade that")


def _compare(cloud: CloudDraft, usages: _OfHosts) -> None:
    """Say where guests take other amounts than Placement counts. O(guests + lines)."""
    taken: dict[str | None, Counter[str]] = {name: Counter() for name in usages.hypervisors}
    for guest in cloud.guests if taken else ():
        own = taken.get(cloud.known_host(guest.host))
        if own is not None:
            own.update(VCPU=guest.flavor.vcpus, MEMORY_MB=guest.flavor.memory_mb)
    for hypervisor in usages.hypervisors:
        for line in usages.lines(hypervisor):
            name = line.text("resource_class")
            try:
                used = size(line, "usage")
            except ValueError as error:
                cloud.report.drop(line, name, str(error))
                continue
            own = taken[hypervisor]
            if name in ("VCPU", "MEMORY_MB") and used != own[name]:
                there = f"guests of the files take {own[name]:,} {name} of {hypervisor}"
                cloud.report.note(f"{there}, {used:,} are used in Placement")


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
        most = _mapping(line.get("Rules")).get("max_server_per_host", "")
        if most.isdecimal() and int(most) > 1:
            cloud.most_per_host[name] = int(most)
        members.update(dict.fromkeys(_listed(line.get("Members")), name))
    return members


class _Flavors(NamedTuple):
    """Flavors as servers name them."""

    by_name: dict[str, Flavor]
    by_id: dict[str, Flavor]

    def of(self, line: Line) -> Flavor | None:
        """The flavor of a server, if it is known."""
        either = line.text("Flavor", "Flavor Name")
        return self.by_name.get(either) or self.by_id.get(line.text("Flavor ID")) or self.by_id.get(either)


def _flavors(cloud: CloudDraft, lines: Sequence[Line]) -> _Flavors:
    flavors = _Flavors({}, {})
    for line in lines:
        name = line.text("Name")
        try:
            flavor = Flavor(
                name=name,
                vcpus=size(line, "VCPUs"),
                memory_mb=memory_mb(line, "RAM"),
                root_gb=size(line, "Disk"),
                ephemeral_gb=size(line, "Ephemeral"),
                swap=size(line, "Swap"),
                extra_specs=_mapping(line.get("Properties")),
            )
        except ValueError as error:
            cloud.report.drop(line, name, str(error))
            continue
        flavors.by_id[line.text("ID")] = flavor
        flavors.by_name[name] = flavor
    return flavors


def _server(cloud: CloudDraft, line: Line, flavors: _Flavors, members: Mapping[str, str]) -> None:
    key, status, host = line.text("ID"), line.text("Status").upper(), line.text("Host", "OS-EXT-SRV-ATTR:host")
    flavor = flavors.of(line)
    nowhere = host in ("", "None")
    if status in _NO_ALLOCATION or nowhere:
        cloud.report.drop(line, key, f"it is {status} and on no host" if nowhere else f"it is {status}")
    elif flavor is None:
        wanted = line.text("Flavor Name", "Flavor", "Flavor ID")
        cloud.report.drop(line, key, f"its flavor {wanted!r} is not in the files")
    else:
        cloud.guests.append(
            GuestDraft(
                key=key,
                host=host,
                line=line,
                flavor=flavor,
                zone=_zone(cloud, host, line),
                project=line.text("Project ID"),
                group=members.get(key),
                is_bfv=_is_bfv(cloud, line),
            )
        )


def _is_bfv(cloud: CloudDraft, line: Line) -> bool:
    """True for a server that the listing shows without an image: it boots from a volume, and takes no disk of its
    host."""
    names = ("Image Name", "Image", "Image ID")
    if not line.has(*names):
        cloud.report.note(f"{line.file} does not tell which servers boot from volumes: none of them does (--long)")
        return False
    image = line.text(*names)
    return image in ("", "None") or "booted from volume" in image


def _zone(cloud: CloudDraft, host: str, line: Line) -> str | None:
    """The zone that a server keeps: the one that it was asked with, where the listing has it (from microversion 2.96
    on), else the one it is in, if its host is in it too. A host in no aggregate with a zone is in the zone of its
    servers."""
    known = cloud.known_host(host)
    zone, pinned = line.text("Availability Zone"), "Pinned Availability Zone"
    if known is None or zone in _NO_ZONE:
        return None
    draft = cloud.hosts[known]
    zones = {each.metadata.get("availability_zone") for each in draft.aggregates.values()} - {None}
    if not zones:
        draft.zone = draft.zone or zone
        zones = {draft.zone}
    if line.has(pinned):
        zone = "" if line.text(pinned) in _NO_ZONE else line.text(pinned)
    else:
        cloud.report.note("the zone that a server was asked with is not in the listing: it keeps the one it is in")
    return zone if zone in zones else None


def _instance(cloud: CloudDraft, line: Line, members: Mapping[str, str]) -> None:
    """A row of Nova's table ``instances``."""
    key, state = line.text("uuid"), line.text("vm_state").lower()
    if line.text("deleted") not in ("", "0") or state == "deleted":
        cloud.report.drop(line, key, "it is deleted")
        return
    if not line.text("host") or state == "shelved_offloaded":
        cloud.report.drop(line, key, f"it is {state or 'there'} and on no host")
        return
    try:
        flavor = Flavor(
            name=f"instance type {line.text('instance_type_id') or 'unknown'}",
            vcpus=size(line, "vcpus"),
            memory_mb=memory_mb(line, "memory_mb"),
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
    return {key: item.strip().strip("'\"") for key, item in _PAIR.findall(str(value or ""))}


def _listed(value: Any) -> list[str]:
    value = _parsed(value)
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    return [part.strip() for part in str(value or "").split(",") if part.strip()]
