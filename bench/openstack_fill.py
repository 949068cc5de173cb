"""Run by the Python of an environment with nova and placement: writes hosts with guests into the databases of both, as
nova-compute and nova-scheduler would have. It imports nothing of Hostler.

    python openstack_fill.py < VALUES

``VALUES`` is JSON: ``hosts`` and ``guests`` (a host) are counts, ``api``, ``cell`` and ``placement`` URLs of databases.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import uuid
from collections.abc import Iterator
from typing import Any

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"

from nova import objects
from nova.db.api import models as api_models
from nova.db.main import models
from nova.objects.service import SERVICE_VERSION
from placement.db.sqlalchemy import models as placement_models  # type: ignore[import-not-found]  # not typed, and not here
from sqlalchemy import create_engine, text

Value = dict[str, Any]

VCPUS, MEMORY_MB, DISK_GB, RESERVED_MB = 64, 262_144, 4_096, 512
GUEST = {"VCPU": 4, "MEMORY_MB": 8_192, "DISK_GB": 40}
TRAITS = (
    *("OWNER_NOVA", "COMPUTE_NODE", "COMPUTE_RESCUE_BFV", "COMPUTE_TRUSTED_CERTS", "COMPUTE_VOLUME_EXTEND"),
    *(
        "COMPUTE_VOLUME_MULTI_ATTACH",
        "COMPUTE_NET_ATTACH_INTERFACE",
        "COMPUTE_DEVICE_TAGGING",
        "COMPUTE_IMAGE_TYPE_RAW",
    ),
    *(
        "COMPUTE_IMAGE_TYPE_QCOW2",
        "COMPUTE_STORAGE_BUS_VIRTIO",
        "COMPUTE_STORAGE_BUS_SCSI",
        "COMPUTE_GRAPHICS_MODEL_VGA",
    ),
    *(
        "COMPUTE_NET_VIF_MODEL_VIRTIO",
        "COMPUTE_SECURITY_UEFI_SECURE_BOOT",
        "COMPUTE_ACCELERATORS",
        "COMPUTE_ADDRESS_SPACE_EMULATED",
    ),
    *("HW_CPU_X86_SSE42", "HW_CPU_X86_AVX", "HW_CPU_X86_AVX2", "HW_CPU_X86_AESNI", "HW_CPU_X86_VMX", "HW_ARCH_X86_64"),
)
"""Some of those that nova-compute with libvirt reports."""


def uuid_of(kind: str, *number: int) -> str:
    """The uuid of something by its number."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{kind}-{number}"))


def host_name(number: int) -> str:
    """The name of a host by its number."""
    return f"compute-{number:05}"


def numa_topology() -> str:
    """Two cells, as libvirt reports them."""
    half = VCPUS // 2
    cells = []
    for cell in range(2):
        cpus = range(cell * half, (cell + 1) * half)
        cells.append(
            objects.NUMACell(
                id=cell,
                cpuset=set(cpus),
                pcpuset=set(),
                memory=MEMORY_MB // 2,
                cpu_usage=0,
                memory_usage=0,
                pinned_cpus=set(),
                siblings=[{cpu, cpu + 1} for cpu in cpus[::2]],
                mempages=[objects.NUMAPagesTopology(size_kb=4, total=MEMORY_MB * 128, used=0, reserved=0)],
                socket=cell,
                network_metadata=objects.NetworkMetadata(physnets=set(), tunneled=False),
            )
        )
    return str(objects.NUMATopology(cells=cells)._to_json())


def nova_rows(hosts: int, guests: int) -> Iterator[tuple[Any, list[Value]]]:
    """Tables of a cell with their rows."""
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    numa, names = numa_topology(), [host_name(number) for number in range(hosts)]
    cpu = json.dumps({"arch": "x86_64", "model": "EPYC", "topology": {"sockets": 2, "cores": 16, "threads": 2}})
    seen = {"created_at": now, "updated_at": now, "last_seen_up": now, "disabled": False, "forced_down": False}
    service = {"binary": "nova-compute", "topic": "compute", "report_count": 1, "version": SERVICE_VERSION, **seen}
    services = [{"uuid": uuid_of("service", n), "host": name, "deleted": 0, **service} for n, name in enumerate(names)]
    node = {
        **{"created_at": now, "updated_at": now, "deleted": 0, "mapped": 1, "hypervisor_type": "QEMU"},
        **{"vcpus": VCPUS, "memory_mb": MEMORY_MB, "local_gb": DISK_GB, "hypervisor_version": 8_002_002},
        **{"cpu_info": cpu, "host_ip": "192.0.2.1", "numa_topology": numa, "metrics": "[]", "extra_resources": None},
        **{"supported_instances": json.dumps([["x86_64", "kvm", "hvm"]]), "disk_available_least": None},
        **{"cpu_allocation_ratio": 4.0, "ram_allocation_ratio": 1.0, "disk_allocation_ratio": 1.0},
    }
    nodes, instances = list[Value](), list[Value]()
    for number, name in enumerate(names):
        mine = _guests_of(number, guests)
        used = {amount: GUEST[amount] * mine for amount in GUEST}
        stats = {"num_instances": str(mine), "num_proj_p": str(mine), "num_vm_active": str(mine), "io_workload": "0"}
        nodes.append(
            {
                **node,
                **{"uuid": uuid_of("node", number), "host": name, "hypervisor_hostname": name},
                **{"vcpus_used": used["VCPU"], "memory_mb_used": used["MEMORY_MB"] + RESERVED_MB},
                **{"local_gb_used": used["DISK_GB"], "free_disk_gb": DISK_GB - used["DISK_GB"]},
                **{"free_ram_mb": MEMORY_MB - used["MEMORY_MB"] - RESERVED_MB, "current_workload": 0},
                **{"running_vms": mine, "stats": json.dumps(stats)},
            }
        )
        instances += [_instance(number, guest, name, now) for guest in range(mine)]
    yield models.Service.__table__, services
    yield models.ComputeNode.__table__, nodes
    yield models.Instance.__table__, instances


def _instance(number: int, guest: int, host: str, now: datetime.datetime) -> Value:
    return {
        **{"created_at": now, "uuid": uuid_of("guest", number, guest), "host": host, "node": host},
        **{"user_id": "u", "project_id": "p", "image_ref": uuid_of("image"), "vm_state": "active"},
        **{"vcpus": GUEST["VCPU"], "memory_mb": GUEST["MEMORY_MB"], "root_gb": GUEST["DISK_GB"]},
        **{"ephemeral_gb": 0, "instance_type_id": 1, "deleted": 0, "launch_index": 0, "hidden": False},
        **{"display_name": "guest", "hostname": "guest", "power_state": 1, "cleaned": 0, "locked": False},
    }


def _guests_of(number: int, guests: int) -> int:
    """How many a host has: no more than ``guests``, not all the same."""
    return guests - number % 2 if guests else 0


def fill_nova(values: Value) -> None:
    """The cell, and which hosts it has."""
    with create_engine(values["cell"]).begin() as connection:
        for table, rows in nova_rows(values["hosts"], values["guests"]):
            if rows:
                connection.execute(table.insert(), rows)
        connection.execute(text("analyze"))
    with create_engine(values["api"]).begin() as connection:
        cell = connection.execute(text("select id from cell_mappings where name = 'cell1'")).scalar_one()
        rows = [{"cell_id": cell, "host": host_name(number)} for number in range(values["hosts"])]
        connection.execute(api_models.HostMapping.__table__.insert(), rows)


def fill_placement(values: Value) -> None:
    """A provider for each host, with inventories, traits and the allocations of its guests."""
    m = placement_models
    with create_engine(values["placement"]).begin() as connection:

        def ids(model: Any) -> dict[str, int]:
            return {name: id for id, name in connection.execute(text(f"select id, name from {model.__tablename__}"))}

        def write(model: Any, rows: list[Value]) -> None:
            if rows:
                connection.execute(model.__table__.insert(), rows)

        classes, traits = ids(m.ResourceClass), ids(m.Trait)
        write(m.Project, [{"external_id": "p"}])
        write(m.User, [{"external_id": "u"}])
        numbers = range(values["hosts"])
        guests = {number: _guests_of(number, values["guests"]) for number in numbers}
        write(
            m.ResourceProvider,
            [
                {
                    **{"id": n + 1, "uuid": uuid_of("node", n), "name": host_name(n)},
                    **{"generation": 3, "root_provider_id": n + 1, "parent_provider_id": None},
                }
                for n in numbers
            ],
        )
        figures = {"VCPU": (VCPUS, 0, 4.0), "MEMORY_MB": (MEMORY_MB, RESERVED_MB, 1.0), "DISK_GB": (DISK_GB, 0, 1.0)}
        write(
            m.Inventory,
            [
                {
                    **{"resource_provider_id": n + 1, "resource_class_id": classes[name], "total": total},
                    **{"reserved": reserved, "min_unit": 1, "max_unit": total, "step_size": 1},
                    "allocation_ratio": ratio,
                }
                for n in numbers
                for name, (total, reserved, ratio) in figures.items()
            ],
        )
        write(
            m.ResourceProviderTrait,
            [{"resource_provider_id": n + 1, "trait_id": traits[name]} for n in numbers for name in TRAITS],
        )
        consumers = [(n, uuid_of("guest", n, guest)) for n in numbers for guest in range(guests[n])]
        write(m.Consumer, [{"uuid": each, "project_id": 1, "user_id": 1, "generation": 1} for _, each in consumers])
        write(
            m.Allocation,
            [
                {
                    **{"resource_provider_id": n + 1, "consumer_id": each, "resource_class_id": classes[name]},
                    "used": used,
                }
                for n, each in consumers
                for name, used in GUEST.items()
            ],
        )
        last = "(select max(id) from resource_providers)"
        connection.execute(text(f"select setval(pg_get_serial_sequence('resource_providers', 'id'), {last})"))
        connection.execute(text("analyze"))


if __name__ == "__main__":
    objects.register_all()
    asked = json.load(sys.stdin)
    fill_nova(asked)
    fill_placement(asked)
