"""Nova's databases as values: the API database (cells, aggregates, server groups, what instances were asked with) and
those of cells (compute nodes, services, instances, PCI devices, migrations). Nova 28 to 34."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ....placement.types.errors import HostlerError, InvalidValue
from ....placement.types.host import Aggregate
from ....placement.types.request import Flavor, RequestSpec
from ..nova.requests import flavor_of, request_of
from ..primitives import Primitive
from . import compute_nodes as cn
from .changed_rows import all_services
from .compute_nodes import Malformed
from .databases import Database, Reading
from .values import Device, NovaSource, Row, SourceAggregate, SourceGroup, SourceInstance

CELL0: Final = "00000000-0000-0000-0000-000000000000"
_HELD: Final = frozenset({"allocated", "claimed"})
"""States of a PCI device that an instance has."""
_INSTANCE_COLUMNS: Final = (
    *("id", "uuid", "host", "node", "project_id", "user_id", "availability_zone", "vm_state", "image_ref", "vcpus"),
    *("memory_mb", "root_gb", "ephemeral_gb", "instance_type_id"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell's database. ``uuid`` None: not told, so that all hosts are in one cell."""

    database: Database
    uuid: str | None = None


def cells_of(api: Database, opened: Callable[[str, str], Database] = Database) -> list[Cell]:
    """The cells that Nova's API database names, without cell0 and those that are disabled; those that are called
    alike have their uuids in their names. InvalidValue for a template
    in place of a URL: it is filled in from a nova.conf. ``opened``: makes the database of a name and a URL. O(cells).
    """
    found = []
    with api.reading() as reading:
        names = ("id", "uuid", "name", "database_connection", "disabled")
        mappings = list(reading.rows("cell_mappings", names))
        called = Counter(row.name for row in mappings)
        for row in mappings:
            if row.uuid == CELL0 or row.disabled:
                continue
            if "{" in (row.database_connection or "{"):
                problem = f"cell {row.name or row.uuid} has a template in place of the URL of its database"
                raise InvalidValue(problem, field="nova_cell", hint=f"give --nova-cell {row.uuid}=URL")
            name = f"cell {row.name}" if row.name else f"cell {row.uuid}"
            if row.name and called[row.name] > 1:
                name += f" ({row.uuid})"
            found.append(Cell(opened(name, row.database_connection), row.uuid))
    return found


def read_nova(cells: Sequence[Cell], api: Database | None, *, now: float) -> NovaSource:
    """All that Nova's databases have, as it is at ``now`` (seconds since the epoch). SourceFailed if one cannot be
    read. O(rows)."""
    found = NovaSource()
    for cell in cells:
        with cell.database.reading() as reading:
            nodes = _nodes(found, reading, cell, now)
            _instances(found, reading, cell.database.name)
            _devices(found, reading, nodes)
            if reading.columns("migrations"):
                rows = reading.rows("migrations", ("id", "uuid"), alive=True)
                found.migrations.update(row.uuid for row in rows if row.uuid)
    if api is None:
        found.notes.append("no API database of Nova is given: there are no aggregates, zones and server groups")
        return found
    with api.reading() as reading:
        found.aggregates = read_aggregates(reading)
        found.groups = _groups(found, reading, api.name)
        _specs(found, reading, api.name)
    return found


def _nodes(found: NovaSource, reading: Reading, cell: Cell, now: float) -> dict[int, str]:
    services, by_id = all_services(reading), dict[int, str]()
    table = f"{cell.database.name}: {cn.NODES}"
    for row in reading.rows(cn.NODES, cn.NODE_COLUMNS, alive=True):
        by_id[row.id] = row.uuid
        try:
            node = cn.node_of(row, services.get(row.host), cell=cell.uuid, now=now, table=table)
        except Malformed as error:
            found.problems.append((Row(table, row.id), row.hypervisor_hostname or row.host or "", str(error)))
            continue
        found.nodes[row.uuid] = node
    return by_id


def _instances(found: NovaSource, reading: Reading, name: str) -> None:
    table = f"{name}: instances"
    for row in reading.rows("instances", _INSTANCE_COLUMNS, alive=True):
        if not row.uuid:
            continue
        flavor = None
        if row.vcpus and row.memory_mb:
            flavor = Flavor(
                name=f"flavor {row.instance_type_id}",
                vcpus=row.vcpus,
                memory_mb=row.memory_mb,
                root_gb=row.root_gb or 0,
                ephemeral_gb=row.ephemeral_gb or 0,
            )
        found.instances[row.uuid] = SourceInstance(
            uuid=row.uuid,
            row=Row(table, row.id),
            host=row.host,
            node=row.node,
            project_id=row.project_id or "",
            user_id=row.user_id or "",
            availability_zone=row.availability_zone,
            vm_state=row.vm_state,
            is_bfv=not row.image_ref,
            flavor=flavor,
        )
    extra = f"{name}: instance_extra"
    for row in reading.rows("instance_extra", ("id", "instance_uuid", "flavor", "numa_topology"), alive=True):
        instance = found.instances.get(row.instance_uuid)
        if instance is None:
            continue
        instance.has_numa = bool(row.numa_topology)
        try:
            instance.flavor = _flavor(row.flavor) or instance.flavor
        except (ValueError, TypeError, KeyError, AttributeError, HostlerError) as error:
            found.problems.append((Row(extra, row.id), row.instance_uuid, f"its flavor cannot be read: {error}"))


def _flavor(text: str | None) -> Flavor | None:
    """The current flavor of an instance. Errors if the column is malformed."""
    current = json.loads(text).get("cur") if text else None
    return None if current is None else flavor_of(Primitive(current))


def _devices(found: NovaSource, reading: Reading, nodes: Mapping[int, str]) -> None:
    names = ("id", "compute_node_id", "vendor_id", "product_id", "dev_type", "status", "instance_uuid", "numa_node")
    for row in reading.rows("pci_devices", names, alive=True):
        instance = found.instances.get(row.instance_uuid) if row.instance_uuid else None
        if instance is None or row.status not in _HELD or row.compute_node_id not in nodes:
            continue
        instance.devices.append(
            Device(
                node=nodes[row.compute_node_id],
                vendor_id=row.vendor_id,
                product_id=row.product_id,
                dev_type=row.dev_type,
                numa_node=row.numa_node,
            )
        )


def read_aggregates(reading: Reading) -> list[SourceAggregate]:
    """Host aggregates with their metadata and hosts. O(rows)."""
    hosts: dict[int, list[str]] = {}
    for row in reading.rows("aggregate_hosts", ("id", "host", "aggregate_id"), alive=True):
        hosts.setdefault(row.aggregate_id, []).append(row.host)
    metadata: dict[int, dict[str, str]] = {}
    for row in reading.rows("aggregate_metadata", ("id", "key", "value", "aggregate_id"), alive=True):
        metadata.setdefault(row.aggregate_id, {})[row.key] = row.value
    return [
        SourceAggregate(
            aggregate=Aggregate(uuid=row.uuid, name=row.name, metadata=metadata.get(row.id, {})),
            hosts=hosts.get(row.id, []),
        )
        for row in reading.rows("aggregates", ("id", "uuid", "name"), alive=True)
    ]


def _groups(found: NovaSource, reading: Reading, name: str) -> dict[str, SourceGroup]:
    members: dict[int, list[str]] = {}
    for row in reading.rows("instance_group_member", ("id", "instance_uuid", "group_id"), alive=True):
        members.setdefault(row.group_id, []).append(row.instance_uuid)
    policies = {
        row.group_id: row
        for row in reading.rows("instance_group_policy", ("id", "policy", "group_id", "rules"), alive=True)
    }
    groups: dict[str, SourceGroup] = {}
    table = f"{name}: instance_groups"
    for row in reading.rows("instance_groups", ("id", "uuid", "project_id"), alive=True):
        policy = policies.get(row.id)
        if policy is None:
            found.problems.append((Row(table, row.id), row.uuid, "it has no policy"))
            continue
        try:
            rules = json.loads(policy.rules) if policy.rules else {}
            most = int(rules.get("max_server_per_host", 1))
        except (ValueError, TypeError, AttributeError) as error:
            found.problems.append((Row(table, row.id), row.uuid, f"its rules cannot be read: {error}"))
            continue
        groups[row.uuid] = SourceGroup(
            uuid=row.uuid,
            policy=policy.policy,
            max_server_per_host=most,
            project_id=row.project_id or "",
            members=members.get(row.id, []),
        )
    return groups


def _specs(found: NovaSource, reading: Reading, name: str) -> None:
    """What instances were asked with. A spec that cannot be read leaves the instance with its flavor."""
    known: dict[RequestSpec, RequestSpec] = {}
    table = f"{name}: request_specs"
    for row in reading.rows("request_specs", ("id", "instance_uuid", "spec")):
        instance = found.instances.get(row.instance_uuid)
        if instance is None:
            continue
        try:
            spec = stored_spec(row.spec)
        except (ValueError, TypeError, LookupError, AttributeError, HostlerError) as error:
            found.problems.append((Row(table, row.id), row.instance_uuid, f"its request cannot be read: {error}"))
            continue
        if instance.flavor is not None and instance.flavor.extra_specs == spec.flavor.extra_specs:
            instance.flavor = spec.flavor
        elif instance.flavor is not None:
            spec = replace(spec, flavor=instance.flavor)
        instance.spec, instance.is_bfv = known.setdefault(spec, spec), spec.is_bfv


def stored_spec(text: str) -> RequestSpec:
    """A row of request_specs as what a guest was asked with, from which Hostler derives NUMA cells and PCI requests
    again. Errors if it is malformed."""
    spec = request_of(Primitive(json.loads(text)), (), alternates=0, now=0.0).spec
    return replace(
        spec,
        numa_topology=None,
        pci_requests=(),
        ignore_hosts=(),
        force_hosts=(),
        force_nodes=(),
        requested_destination=None,
        requested_resources=(),
        request_level_params=None,
        network_metadata=None,
        scheduler_hints={name: hint for name, hint in spec.scheduler_hints.items() if not name.startswith("_")},
        prepare=None,
    )


def hosts_of(instances: Iterable[SourceInstance]) -> dict[tuple[str, str], list[SourceInstance]]:
    """Instances by service host and node. O(instances)."""
    found: dict[tuple[str, str], list[SourceInstance]] = {}
    for instance in instances:
        if instance.host and instance.node:
            found.setdefault((instance.host, instance.node), []).append(instance)
    return found


__all__ = ["Cell", "cells_of", "hosts_of", "read_aggregates", "read_nova", "stored_spec"]
