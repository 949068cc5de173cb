"""Small clouds as Placement and Nova keep them: SQLite files with the services' own tables and column names."""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostler.drivers.openstack.source import changed_rows as rows
from hostler.drivers.openstack.source.compute_nodes import SERVICE_COLUMNS
from hostler.drivers.openstack.source.databases import Database

NOW = 1_790_000_000.0
MODERN = 74
"""Service version of the computes: that of Nova 34, from whose 73 on schedulers require the trait OWNER_NOVA."""
CELL = "11111111-1111-4111-8111-111111111111"

PLACEMENT = """
CREATE TABLE resource_classes (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY, name VARCHAR(255));
CREATE TABLE resource_providers (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY, uuid VARCHAR(36),
  name VARCHAR(200), generation INTEGER, root_provider_id INTEGER, parent_provider_id INTEGER);
CREATE TABLE inventories (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY,
  resource_provider_id INTEGER, resource_class_id INTEGER, total INTEGER, reserved INTEGER, min_unit INTEGER,
  max_unit INTEGER, step_size INTEGER, allocation_ratio FLOAT);
CREATE TABLE allocations (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY,
  resource_provider_id INTEGER, consumer_id VARCHAR(36), resource_class_id INTEGER, used INTEGER);
CREATE TABLE resource_provider_aggregates (created_at DATETIME, updated_at DATETIME, resource_provider_id INTEGER,
  aggregate_id INTEGER);
CREATE TABLE placement_aggregates (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY, uuid VARCHAR(36));
CREATE TABLE traits (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY, name VARCHAR(255));
CREATE TABLE resource_provider_traits (created_at DATETIME, updated_at DATETIME, trait_id INTEGER,
  resource_provider_id INTEGER);
CREATE TABLE projects (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY, external_id VARCHAR(255));
CREATE TABLE users (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY, external_id VARCHAR(255));
CREATE TABLE consumers (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY, uuid VARCHAR(36),
  project_id INTEGER, user_id INTEGER, generation INTEGER, consumer_type_id INTEGER);
CREATE TABLE consumer_types (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY, name VARCHAR(255));
"""
TIMES = "created_at DATETIME, updated_at DATETIME, deleted_at DATETIME, deleted INTEGER DEFAULT 0"
CELL_TABLES = f"""
CREATE TABLE services ({TIMES}, id INTEGER PRIMARY KEY, uuid VARCHAR(36), host VARCHAR(255), binary VARCHAR(255),
  topic VARCHAR(255), report_count INTEGER, disabled BOOLEAN, disabled_reason VARCHAR(255), last_seen_up DATETIME,
  forced_down BOOLEAN, version INTEGER);
CREATE TABLE compute_nodes ({TIMES}, id INTEGER PRIMARY KEY, service_id INTEGER, host VARCHAR(255), uuid VARCHAR(36),
  vcpus INTEGER, memory_mb INTEGER, local_gb INTEGER, vcpus_used INTEGER, memory_mb_used INTEGER,
  local_gb_used INTEGER, hypervisor_type TEXT, hypervisor_version INTEGER, hypervisor_hostname VARCHAR(255),
  free_ram_mb INTEGER, free_disk_gb INTEGER, current_workload INTEGER, running_vms INTEGER, cpu_info TEXT,
  disk_available_least INTEGER, host_ip VARCHAR(39), supported_instances TEXT, metrics TEXT, pci_stats TEXT,
  extra_resources TEXT, stats TEXT, numa_topology TEXT, ram_allocation_ratio FLOAT, cpu_allocation_ratio FLOAT,
  disk_allocation_ratio FLOAT, mapped INTEGER);
CREATE TABLE instances ({TIMES}, id INTEGER PRIMARY KEY, uuid VARCHAR(36), user_id VARCHAR(255),
  project_id VARCHAR(255), image_ref VARCHAR(255), vm_state VARCHAR(255), task_state VARCHAR(255), memory_mb INTEGER,
  vcpus INTEGER, root_gb INTEGER, ephemeral_gb INTEGER, host VARCHAR(255), node VARCHAR(255), compute_id BIGINT,
  instance_type_id INTEGER, availability_zone VARCHAR(255), display_name VARCHAR(255));
CREATE TABLE instance_extra ({TIMES}, id INTEGER PRIMARY KEY, instance_uuid VARCHAR(36), numa_topology TEXT,
  pci_requests TEXT, flavor TEXT, vcpu_model TEXT);
CREATE TABLE instance_faults ({TIMES}, id INTEGER PRIMARY KEY, instance_uuid VARCHAR(36), code INTEGER,
  message VARCHAR(255));
CREATE TABLE pci_devices ({TIMES}, id INTEGER PRIMARY KEY, uuid VARCHAR(36), compute_node_id INTEGER,
  address VARCHAR(12), vendor_id VARCHAR(4), product_id VARCHAR(4), dev_type VARCHAR(8), dev_id VARCHAR(255),
  label VARCHAR(255), status VARCHAR(36), request_id VARCHAR(36), extra_info TEXT, instance_uuid VARCHAR(36),
  numa_node INTEGER, parent_addr VARCHAR(12));
CREATE TABLE migrations ({TIMES}, id INTEGER PRIMARY KEY, uuid VARCHAR(36), instance_uuid VARCHAR(36),
  source_compute VARCHAR(255), dest_compute VARCHAR(255), dest_node VARCHAR(255), status VARCHAR(255),
  migration_type VARCHAR(255));
"""
API_TABLES = """
CREATE TABLE cell_mappings (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY, uuid VARCHAR(36),
  name VARCHAR(255), transport_url TEXT, database_connection TEXT, disabled BOOLEAN);
CREATE TABLE aggregates (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY, uuid VARCHAR(36),
  name VARCHAR(255));
CREATE TABLE aggregate_hosts (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY, host VARCHAR(255),
  aggregate_id INTEGER);
CREATE TABLE aggregate_metadata (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY, key VARCHAR(255),
  value VARCHAR(255), aggregate_id INTEGER);
CREATE TABLE instance_groups (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY,
  user_id VARCHAR(255), project_id VARCHAR(255), uuid VARCHAR(36), name VARCHAR(255));
CREATE TABLE instance_group_member (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY,
  instance_uuid VARCHAR(255), group_id INTEGER);
CREATE TABLE instance_group_policy (id INTEGER PRIMARY KEY, policy VARCHAR(255), group_id INTEGER, rules TEXT);
CREATE TABLE request_specs (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY,
  instance_uuid VARCHAR(36), spec TEXT);
CREATE TABLE instance_mappings (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY,
  instance_uuid VARCHAR(36), cell_id INTEGER, project_id VARCHAR(255), queued_for_delete BOOLEAN);
CREATE TABLE build_requests (created_at DATETIME, updated_at DATETIME, id INTEGER PRIMARY KEY,
  instance_uuid VARCHAR(36), project_id VARCHAR(255));
"""


def versioned(name: str, version: str = "1.0", /, **data: Any) -> dict[str, Any]:
    """A versioned object of Nova as it is stored and sent."""
    return {
        "nova_object.name": name,
        "nova_object.namespace": "nova",
        "nova_object.version": version,
        "nova_object.data": data,
        "nova_object.changes": sorted(data),
    }


def flavor(**changes: Any) -> dict[str, Any]:
    values = {"name": "m1.small", "vcpus": 2, "memory_mb": 2048, "root_gb": 20, "ephemeral_gb": 0, "swap": 0}
    return versioned("Flavor", "1.2", **{**values, "extra_specs": {}, **changes})


def request_spec(**changes: Any) -> dict[str, Any]:
    values = {
        "flavor": flavor(),
        "image": versioned("ImageMeta", "1.8", id="i", properties=versioned("ImageMetaProps", "1.42")),
        "project_id": "p1",
        "user_id": "u1",
        "availability_zone": None,
        "num_instances": 1,
        "scheduler_hints": {},
        "is_bfv": False,
        "numa_topology": None,
        "pci_requests": versioned("InstancePCIRequests", "1.1", requests=[]),
        "instance_group": None,
        "requested_destination": None,
        "ignore_hosts": None,
        "force_hosts": None,
        "force_nodes": None,
    }
    return versioned("RequestSpec", "1.15", **{**values, **changes})


def node_uuid(number: int) -> str:
    return f"cccccccc-0000-4000-8000-{number:012}"


def instance_uuid(number: int) -> str:
    return f"dddddddd-0000-4000-8000-{number:012}"


class Cloud:
    """A cloud with one cell, in three SQLite files; each method writes rows."""

    def __init__(self, folder: Path) -> None:
        self.placement, self.cell, self.api = (folder / f"{name}.sqlite" for name in ("placement", "cell1", "api"))
        for path, tables in ((self.placement, PLACEMENT), (self.cell, CELL_TABLES), (self.api, API_TABLES)):
            self.script(path, tables)
        self.write(self.api, "cell_mappings", id=1, uuid="00000000-0000-0000-0000-000000000000", name="cell0")
        self.write(
            self.api, "cell_mappings", id=2, uuid=CELL, name="cell1", database_connection=self.url("cell"), disabled=0
        )
        self.classes: dict[str, int] = {}
        for name in ("VCPU", "MEMORY_MB", "DISK_GB"):
            self.resource_class(name)

    def url(self, name: str) -> str:
        return f"sqlite:///{getattr(self, name)}"

    @property
    def options(self) -> list[str]:
        """The options that name the databases."""
        return ["--placement", self.url("placement"), "--nova-api", self.url("api")]

    @staticmethod
    def script(path: Path, text: str) -> None:
        with sqlite3.connect(path) as connection:
            connection.executescript(text)
        connection.close()

    @staticmethod
    def write(path: Path, table: str, **values: Any) -> int:
        names = ", ".join(values)
        marks = ", ".join("?" for _ in values)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            done = connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))
        connection.close()
        assert done.lastrowid is not None
        return done.lastrowid

    @staticmethod
    def change(path: Path, statement: str, *values: Any) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute(statement, values)
        connection.close()

    @staticmethod
    def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(path) as connection:
            found = connection.execute(query).fetchall()
        connection.close()
        return found

    # Placement

    def resource_class(self, name: str) -> int:
        if name not in self.classes:
            self.classes[name] = self.write(self.placement, "resource_classes", name=name)
        return self.classes[name]

    def provider(
        self,
        uuid: str,
        name: str,
        inventories: Mapping[str, Mapping[str, Any]],
        *,
        parent: int | None = None,
        traits: tuple[str, ...] = (),
        aggregates: tuple[str, ...] = (),
    ) -> int:
        number = self.write(
            self.placement, "resource_providers", uuid=uuid, name=name, generation=7, parent_provider_id=parent
        )
        for resource, figures in inventories.items():
            values = {
                "reserved": 0,
                "min_unit": 1,
                "max_unit": figures["total"],
                "step_size": 1,
                "allocation_ratio": 1.0,
                **figures,
            }
            resource_class_id = self.resource_class(resource)
            self.write(
                self.placement,
                "inventories",
                resource_provider_id=number,
                resource_class_id=resource_class_id,
                **values,
            )
        for trait in traits:
            trait_id = self._named("traits", "name", trait)
            self.write(self.placement, "resource_provider_traits", trait_id=trait_id, resource_provider_id=number)
        for aggregate in aggregates:
            aggregate_id = self._named("placement_aggregates", "uuid", aggregate)
            self.write(
                self.placement,
                "resource_provider_aggregates",
                resource_provider_id=number,
                aggregate_id=aggregate_id,
            )
        return number

    def _named(self, table: str, column: str, value: str) -> int:
        with sqlite3.connect(self.placement) as connection:
            found = connection.execute(f"SELECT id FROM {table} WHERE {column} = ?", (value,)).fetchone()
        connection.close()
        return int(found[0]) if found else self.write(self.placement, table, **{column: value})

    def allocate(
        self,
        consumer: str,
        provider: int,
        resources: Mapping[str, int],
        *,
        project: str = "p1",
        kind: str | None = None,
    ) -> None:
        with sqlite3.connect(self.placement) as connection:
            known = connection.execute("SELECT id FROM consumers WHERE uuid = ?", (consumer,)).fetchone()
        connection.close()
        if known is None:
            self.write(
                self.placement,
                "consumers",
                uuid=consumer,
                project_id=self._named("projects", "external_id", project),
                user_id=self._named("users", "external_id", "u1"),
                generation=1,
                consumer_type_id=None if kind is None else self._named("consumer_types", "name", kind),
            )
        for name, amount in resources.items():
            self.write(
                self.placement,
                "allocations",
                resource_provider_id=provider,
                consumer_id=consumer,
                resource_class_id=self.resource_class(name),
                used=amount,
            )

    # Nova

    def host(self, number: int, *, seen: float = NOW, traits: tuple[str, ...] = (), **changes: Any) -> int:
        """A compute node of Nova 34 with its service and its provider; returns the number of the provider's row."""
        name, uuid, cell = f"cmp{number}", node_uuid(number), self.cell
        at = moment(seen)
        service = {"disabled": 0, "forced_down": 0, "last_seen_up": at, "created_at": at, "version": MODERN}
        service |= {key: changes.pop(key) for key in list(changes) if key in ("disabled", "disabled_reason")}
        self.write(cell, "services", host=name, binary="nova-compute", topic="compute", **service)
        node = {
            "vcpus": 8,
            "memory_mb": 16_384,
            "local_gb": 500,
            "vcpus_used": 0,
            "memory_mb_used": 512,
            "local_gb_used": 0,
            "free_ram_mb": 15_872,
            "free_disk_gb": 500,
            "hypervisor_type": "QEMU",
            "hypervisor_version": 8_000_000,
            "cpu_info": json.dumps({"model": "Haswell", "features": ["vmx"]}),
            "host_ip": f"10.0.0.{number}",
            "supported_instances": json.dumps([["x86_64", "kvm", "hvm"]]),
            "metrics": "[]",
            "stats": json.dumps({"num_instances": "0", "io_workload": "0", "failed_builds": "0"}),
            "cpu_allocation_ratio": 4.0,
            "ram_allocation_ratio": 1.0,
            "disk_allocation_ratio": 1.0,
            "updated_at": at,
            **changes,
        }
        self.write(cell, "compute_nodes", id=number, uuid=uuid, host=name, hypervisor_hostname=name, **node)
        inventories: dict[str, dict[str, Any]] = {
            "VCPU": {"total": 8, "allocation_ratio": 4.0},
            "MEMORY_MB": {"total": 16_384, "reserved": 512},
            "DISK_GB": {"total": 500},
        }
        return self.provider(uuid, name, inventories, traits=("OWNER_NOVA", *traits))

    def instance(self, number: int, host: int | None, provider: int | None, **changes: Any) -> str:
        """An instance with what it was asked with, and with its allocation if ``provider`` names a row."""
        uuid = instance_uuid(number)
        asked = flavor(**changes.pop("flavor", {}))
        spec = request_spec(flavor=asked, **changes.pop("spec", {}))
        name = None if host is None else f"cmp{host}"
        values = {
            "project_id": "p1",
            "user_id": "u1",
            "image_ref": "i",
            "vm_state": "active",
            "vcpus": 2,
            "memory_mb": 2048,
            "root_gb": 20,
            "ephemeral_gb": 0,
            **changes,
        }
        self.write(self.cell, "instances", uuid=uuid, host=name, node=name, **values)
        kept = json.dumps({"cur": asked, "old": None, "new": None})
        self.write(self.cell, "instance_extra", instance_uuid=uuid, flavor=kept)
        self.write(self.api, "request_specs", instance_uuid=uuid, spec=json.dumps(spec))
        if provider is not None:
            self.allocate(uuid, provider, {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20})
        return uuid

    def aggregate(self, number: int, *hosts: str, **metadata: str) -> str:
        uuid = f"aaaaaaaa-0000-4000-8000-{number:012}"
        self.write(self.api, "aggregates", id=number, uuid=uuid, name=f"aggregate {number}")
        for host in hosts:
            self.write(self.api, "aggregate_hosts", host=host, aggregate_id=number)
        for key, value in metadata.items():
            self.write(self.api, "aggregate_metadata", key=key, value=value, aggregate_id=number)
        return uuid

    def group(self, number: int, policy: str, *members: str, rules: str = "{}") -> str:
        uuid = f"bbbbbbbb-0000-4000-8000-{number:012}"
        self.write(self.api, "instance_groups", id=number, uuid=uuid, name="g", project_id="p1", user_id="u1")
        self.write(self.api, "instance_group_policy", policy=policy, group_id=number, rules=rules)
        for member in members:
            self.write(self.api, "instance_group_member", instance_uuid=member, group_id=number)
        return uuid


def check_sums_of_keys(database: Database) -> None:
    """What the database adds up is what is added here of the rows themselves."""
    with database.reading() as reading:
        nodes = [(row.id, row.uuid, row.host, row.hypervisor_hostname) for row in rows.node_keys(reading)]
        assert rows.sum_of_node_keys(reading) == (len(nodes), sum(rows.key_of(*each) for each in nodes))
        places = [(row.uuid, row.host, row.node) for row in rows.instance_places(reading)]
        assert rows.sum_of_place_keys(reading) == (len(places), sum(rows.key_of(*each) for each in places))
        column = [SERVICE_COLUMNS.index(name) for name in ("id", "host", "version", "disabled_reason")]
        services = [[each[index] for index in column] for each in rows.all_services(reading).values()]
        assert rows.sum_of_service_keys(reading) == (len(services), sum(rows.key_of(*each) for each in services))
        assert nodes
        assert places
        assert services


def moment(seconds: float) -> str:
    """A time as SQLAlchemy stores it in SQLite."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
