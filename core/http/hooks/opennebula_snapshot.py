"""What OpenNebula 7 sends to a scheduler driver, as values: hosts, virtual machines, groups, datastores, networks, and
where each machine may go. Units: CPU in percent of a core, memory and disk in MiB."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.etree import ElementTree

from ..errors import HttpError

PENDING, ACTIVE = 1, 3
"""States of a virtual machine."""
MONITORED: Final = frozenset({1, 2})
"""States of a host that takes virtual machines."""
RUNNING: Final = 3
"""LCM state of a machine that can be migrated."""


@dataclass(frozen=True, slots=True)
class OneHost:
    """A host. ``datastores``: free MiB of datastores on its own disks, by id."""

    id: int
    usable: bool
    cpu: int
    cpu_used: int
    memory_mb: int
    memory_used_mb: int
    datastores: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Machine:
    """A virtual machine. ``host``: where it is, None for one that is pending; ``role``: (id of its group, name)."""

    id: int
    state: int
    lcm_state: int
    resched: bool
    cpu: int
    memory_mb: int
    disk_mb: int
    host: int | None
    role: tuple[int, str] | None


@dataclass(frozen=True, slots=True)
class Needs:
    """Where a machine may go: hosts, datastores (None: it needs none), and networks of its NICs that have none yet."""

    machine: int
    hosts: tuple[int, ...]
    datastores: tuple[int, ...] | None
    nics: Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Role:
    """A role of a group. ``policy``: AFFINED, ANTI_AFFINED, or empty."""

    policy: str
    affined_hosts: tuple[int, ...]
    anti_affined_hosts: tuple[int, ...]


@dataclass(slots=True)
class Snapshot:
    """All of it. ``affined`` and ``anti_affined``: sets of roles that share hosts, or share none."""

    hosts: dict[int, OneHost] = field(default_factory=dict)
    machines: dict[int, Machine] = field(default_factory=dict)
    needs: list[Needs] = field(default_factory=list)
    datastores: dict[int, int] = field(default_factory=dict)
    """Free MiB of shared datastores by id."""
    networks: dict[int, int] = field(default_factory=dict)
    """Free addresses of networks by id."""
    roles: dict[tuple[int, str], Role] = field(default_factory=dict)
    affined: list[frozenset[tuple[int, str]]] = field(default_factory=list)
    anti_affined: list[frozenset[tuple[int, str]]] = field(default_factory=list)
    cluster: int = -1
    cluster_policy: str = "BALANCE"
    most_moves: int | None = None


def read(body: bytes) -> Snapshot:
    """The snapshot of a request, XML or base64 of XML. HttpError 400. O(size)."""
    root = _root(body)
    found = Snapshot()
    for each in _all(root, "HOST_POOL", "HOST"):
        host = _host(each)
        found.hosts[host.id] = host
    for each in _all(root, "VM_POOL", "VM"):
        machine = _machine(each)
        found.machines[machine.id] = machine
    for each in _all(root, "REQUIREMENTS", "VM"):
        found.needs.append(_needs(each))
    for each in _all(root, "DATASTORE_POOL", "DATASTORE"):
        if _text(each, "TEMPLATE/SHARED").upper() != "NO":
            found.datastores[_number(each, "ID")] = _number(each, "FREE_MB", 0)
    for each in _all(root, "VNET_POOL", "VNET"):
        size = sum(_number(part, "SIZE", 0) for part in each.findall("AR_POOL/AR"))
        found.networks[_number(each, "ID")] = size - _number(each, "USED_LEASES", 0)
    for each in _all(root, "VM_GROUP_POOL", "VM_GROUP"):
        _read_group(found, each)
    for each in _all(root, "CLUSTER_POOL", "CLUSTER"):
        _read_cluster(found, each)
        break
    return found


def _root(body: bytes) -> ElementTree.Element:
    raw = body.strip()
    if not raw.startswith(b"<"):
        try:
            raw = base64.b64decode(raw, validate=False)
        except binascii.Error as error:
            raise HttpError(400, f"the request is neither XML nor base64 of XML: {error}") from None
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise HttpError(400, "the request has a document type, which is not read")
    try:
        root = ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise HttpError(400, f"the request is not XML: {error}") from None
    for each in root.iter():
        each.tag = each.tag.rpartition("}")[2]
    if root.tag != "SCHEDULER_DRIVER_ACTION":
        raise HttpError(400, f"the request is a {root.tag[:64]}, not a SCHEDULER_DRIVER_ACTION")
    return root


def _all(root: ElementTree.Element, pool: str, kind: str) -> Iterator[ElementTree.Element]:
    yield from root.findall(f"{pool}/{kind}")


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _real(element: ElementTree.Element, path: str, default: float | None = None) -> float:
    text = _text(element, path)
    if not text and default is not None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 2**52:
        raise HttpError(400, f"{path} of a {element.tag} is {text[:64]!r}, not a number")
    return value


def _number(element: ElementTree.Element, path: str, default: int | None = None) -> int:
    return int(_real(element, path, default))


def _ids(element: ElementTree.Element, path: str) -> tuple[int, ...]:
    return tuple(_number(each, ".") for each in element.findall(f"{path}/ID"))


def _listed(text: str) -> tuple[int, ...]:
    """Ids that are separated by commas. HttpError 400."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise HttpError(400, f"{text[:64]!r} is not a list of ids") from None


def _host(each: ElementTree.Element) -> OneHost:
    share = each.find("HOST_SHARE")
    if share is None:
        share = ElementTree.Element("HOST_SHARE")
    return OneHost(
        id=_number(each, "ID"),
        usable=_number(each, "STATE", 0) in MONITORED,
        cpu=max(_number(share, "MAX_CPU", 0), 0),
        cpu_used=max(_number(share, "CPU_USAGE", 0), 0),
        memory_mb=max(_number(share, "MAX_MEM", 0) // 1024, 0),
        memory_used_mb=max(-(-_number(share, "MEM_USAGE", 0) // 1024), 0),
        datastores={_number(part, "ID"): _number(part, "FREE_MB", 0) for part in share.findall("DATASTORES/DS")},
    )


def _machine(each: ElementTree.Element) -> Machine:
    state = _number(each, "STATE", PENDING)
    records = each.findall("HISTORY_RECORDS/HISTORY")
    group = _text(each, "TEMPLATE/VMGROUP/VMGROUP_ID")
    role = (_number(each, "TEMPLATE/VMGROUP/VMGROUP_ID"), _text(each, "TEMPLATE/VMGROUP/ROLE")) if group else None
    return Machine(
        id=_number(each, "ID"),
        state=state,
        lcm_state=_number(each, "LCM_STATE", 0),
        resched=bool(_number(each, "RESCHED", 0)),
        cpu=math.ceil(round(100 * _real(each, "TEMPLATE/CPU", 0.0), 6)),
        memory_mb=_number(each, "TEMPLATE/MEMORY", 0),
        disk_mb=sum(_number(disk, "SIZE", 0) for disk in each.findall("TEMPLATE/DISK")),
        host=_number(records[-1], "HID") if state == ACTIVE and records else None,
        role=role,
    )


def _needs(each: ElementTree.Element) -> Needs:
    return Needs(
        machine=_number(each, "ID"),
        hosts=_ids(each, "HOSTS"),
        datastores=_ids(each, "DATASTORES") if each.find("DATASTORES") is not None else None,
        nics={_number(nic, "ID"): _ids(nic, "VNETS") for nic in each.findall("NIC")},
    )


def _read_group(found: Snapshot, each: ElementTree.Element) -> None:
    group = _number(each, "ID")
    for role in each.findall("ROLES/ROLE"):
        found.roles[group, _text(role, "NAME")] = Role(
            _text(role, "POLICY").upper(),
            _listed(_text(role, "HOST_AFFINED")),
            _listed(_text(role, "HOST_ANTI_AFFINED")),
        )
    for kind, sets in (("AFFINED", found.affined), ("ANTI_AFFINED", found.anti_affined)):
        for rule in each.findall(f"TEMPLATE/{kind}"):
            sets.append(frozenset((group, name.strip()) for name in (rule.text or "").split(",") if name.strip()))


def _read_cluster(found: Snapshot, each: ElementTree.Element) -> None:
    found.cluster = _number(each, "ID")
    found.cluster_policy = (_text(each, "TEMPLATE/ONE_DRS/POLICY") or "BALANCE").upper()
    most = _number(each, "TEMPLATE/ONE_DRS/MIGRATION_THRESHOLD", -1)
    found.most_moves = None if most < 0 else most
