"""Tables of Nova's databases as far as the service reads them, with the rows of a cell of many computes and their
guests, and what these write while nothing happens. Nova's API database and the cell are one here."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

VCPUS, MEMORY_MB, DISK_GB, RESERVED_MB = 64, 262_144, 4_096, 512
GUEST: Final = {"vcpus": 4, "memory_mb": 8_192, "root_gb": 40}
CELL: Final = "11111111-1111-4111-8111-111111111111"
HEARTBEAT_SECONDS, REPORT_SECONDS = 10, 60
"""Nova's report_interval, and update_resources_interval."""


def metadata_of(kind: str) -> Any:
    """The tables, with those indexes of Nova's that matter to readers. Times have no fraction in MariaDB, as Nova's
    have none there."""
    import sqlalchemy as sa

    made = sa.MetaData()

    def table(name: str, *columns: Any, deleted: bool = True) -> None:
        times: list[Any] = [sa.Column(each, sa.DateTime) for each in ("created_at", "updated_at")]
        if deleted:
            times += [sa.Column("deleted_at", sa.DateTime), sa.Column("deleted", sa.Integer, default=0)]
        sa.Table(name, made, *times, sa.Column("id", sa.Integer, primary_key=True), *columns)

    def texts(*names: str) -> list[Any]:
        return [sa.Column(name, sa.String(255)) for name in names]

    def numbers(*names: str) -> list[Any]:
        return [sa.Column(name, sa.Integer) for name in names]

    def long(*names: str) -> list[Any]:
        return [sa.Column(name, sa.Text) for name in names]

    table(
        "services",
        *texts("host", "binary", "topic", "disabled_reason", "uuid"),
        *numbers("report_count", "version"),
        *(sa.Column(name, sa.Boolean) for name in ("disabled", "forced_down")),
        sa.Column("last_seen_up", sa.DateTime),
        sa.UniqueConstraint("host", "topic", "deleted"),
        sa.UniqueConstraint("host", "binary", "deleted"),
    )
    table(
        "compute_nodes",
        *texts("host", "hypervisor_hostname", "host_ip"),
        sa.Column("uuid", sa.String(36), unique=True),
        *numbers("vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used", "free_ram_mb"),
        *numbers("free_disk_gb", "disk_available_least", "hypervisor_version", "running_vms", "current_workload"),
        *long("hypervisor_type", "cpu_info", "supported_instances", "metrics", "pci_stats", "stats", "numa_topology"),
        *(sa.Column(f"{each}_allocation_ratio", sa.Double) for each in ("cpu", "ram", "disk")),
        sa.UniqueConstraint("host", "hypervisor_hostname", "deleted"),
    )
    table(
        "instances",
        *texts("user_id", "project_id", "image_ref", "vm_state", "task_state", "node", "availability_zone"),
        sa.Column("uuid", sa.String(36), unique=True),
        sa.Column("host", sa.String(255), index=True),
        *numbers("vcpus", "memory_mb", "root_gb", "ephemeral_gb", "instance_type_id"),
        sa.Index("instances_updated_at_project_id_idx", "updated_at", "project_id"),
    )
    table(
        "cell_mappings",
        *texts("uuid", "name"),
        *long("database_connection"),
        sa.Column("disabled", sa.Boolean),
        deleted=False,
    )
    table("instance_faults", *texts("instance_uuid", "message"), *numbers("code"))
    table("migrations", *texts("uuid", "instance_uuid", "dest_node", "status", "migration_type"))
    table("aggregates", *texts("uuid", "name"), deleted=False)
    table("aggregate_hosts", *texts("host"), *numbers("aggregate_id"), deleted=False)
    table("aggregate_metadata", *texts("key", "value"), *numbers("aggregate_id"), deleted=False)
    table("build_requests", *texts("instance_uuid"), deleted=False)
    table("instance_mappings", *texts("instance_uuid"), *numbers("cell_id"), deleted=False)
    return made


def fill(engine: Any, tables: Any, *, hosts: int, guests: int, cell: str) -> None:
    """Computes with two NUMA cells each, as libvirt reports them, with their services and ``guests`` on each."""
    now = _now()
    before = now - timedelta(days=1)
    seen = {"created_at": before, "updated_at": before, "deleted": 0}
    numa, cpu = json.dumps(_topology()), json.dumps({"arch": "x86_64", "model": "EPYC", "topology": {"cores": 16}})
    services, nodes, instances = list[Any](), list[Any](), list[Any]()
    for number in range(hosts):
        name = f"compute-{number:05}"
        services.append(
            {
                **{"host": name, "binary": "nova-compute", "topic": "compute", "report_count": 1, "version": 74},
                **{"disabled": False, "forced_down": False, "last_seen_up": now, **seen},
            }
        )
        nodes.append(_node(name, guests, numa, cpu) | seen)
        instances += [_instance(name, number, guest) | seen for guest in range(guests)]
    with engine.begin() as connection:
        insert = {name: each.insert() for name, each in tables.tables.items()}
        connection.execute(insert["services"], services)
        connection.execute(insert["compute_nodes"], nodes)
        if instances:
            connection.execute(insert["instances"], instances)
        connection.execute(
            insert["cell_mappings"],
            [{"uuid": CELL, "name": "cell1", "database_connection": cell, "disabled": False, "created_at": now}],
        )


def _node(name: str, guests: int, numa: str, cpu: str) -> dict[str, Any]:
    used = {amount: each * guests for amount, each in GUEST.items()}
    stats = {"num_instances": str(guests), "num_proj_p": str(guests), "num_vm_active": str(guests), "io_workload": "0"}
    return {
        **{"uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, name)), "host": name, "hypervisor_hostname": name},
        **{"vcpus": VCPUS, "memory_mb": MEMORY_MB, "local_gb": DISK_GB, "hypervisor_version": 8_002_002},
        **{"vcpus_used": used["vcpus"], "memory_mb_used": used["memory_mb"] + RESERVED_MB},
        **{"local_gb_used": used["root_gb"], "free_disk_gb": DISK_GB - used["root_gb"]},
        **{"free_ram_mb": MEMORY_MB - used["memory_mb"] - RESERVED_MB, "running_vms": guests, "current_workload": 0},
        **{"hypervisor_type": "QEMU", "cpu_info": cpu, "host_ip": "192.0.2.1", "metrics": "[]", "numa_topology": numa},
        **{"supported_instances": json.dumps([["x86_64", "kvm", "hvm"]]), "disk_available_least": None},
        **{"cpu_allocation_ratio": 4.0, "ram_allocation_ratio": 1.0, "disk_allocation_ratio": 1.0, "pci_stats": None},
        "stats": json.dumps(stats),
    }


def _instance(host: str, number: int, guest: int) -> dict[str, Any]:
    return {
        **{"uuid": str(uuid.UUID(int=(number << 20) + guest, version=4)), "host": host, "node": host},
        **{"user_id": "u", "project_id": "p", "image_ref": "i", "vm_state": "active", "ephemeral_gb": 0},
        **{"instance_type_id": 1, **GUEST},
    }


def _topology() -> dict[str, Any]:
    """Two cells, as Nova stores them."""
    half, cells = VCPUS // 2, list[Any]()
    for cell in range(2):
        cpus = list(range(cell * half, (cell + 1) * half))
        pages = {"size_kb": 4, "total": MEMORY_MB * 128, "used": 0, "reserved": 0}
        network = {"physnets": [], "tunneled": False}
        cells.append(
            _object(
                "NUMACell",
                id=cell,
                cpuset=cpus,
                pcpuset=[],
                memory=MEMORY_MB // 2,
                cpu_usage=0,
                memory_usage=0,
                pinned_cpus=[],
                siblings=[[cpu, cpu + 1] for cpu in cpus[::2]],
                mempages=[_object("NUMAPagesTopology", **pages)],
                socket=cell,
                network_metadata=_object("NetworkMetadata", **network),
            )
        )
    return _object("NUMATopology", cells=cells)


def _object(name: str, /, **data: Any) -> dict[str, Any]:
    return {
        **{"nova_object.name": name, "nova_object.namespace": "nova", "nova_object.version": "1.0"},
        "nova_object.data": data,
    }


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


@contextmanager
def report(engine: Any) -> Iterator[None]:
    """Each second a tenth of the services are heard, and a sixtieth of the computes report, each with other room on its
    disks than before; in a thread, until the end of the context."""
    end = threading.Event()
    thread = threading.Thread(target=_report, args=(engine, end), daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _report(engine: Any, end: threading.Event) -> None:
    from sqlalchemy import text

    second, begun = 0, _now()
    while not end.wait(1.0):
        second += 1
        now = max(_now(), begun + timedelta(seconds=second))
        with engine.begin() as connection:
            for table, columns, every in (
                ("services", "last_seen_up = :now, report_count = report_count + 1,", HEARTBEAT_SECONDS),
                ("compute_nodes", f"disk_available_least = free_disk_gb - {second % 97},", REPORT_SECONDS),
            ):
                update = f"update {table} set {columns} updated_at = :now where id % {every} = {second % every}"
                connection.execute(text(update), {"now": now})


__all__ = ["fill", "metadata_of", "report"]
