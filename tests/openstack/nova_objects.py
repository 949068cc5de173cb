"""Doubles of Nova's objects: fields that are unset raise, as in Nova, where the look-up would go to a database."""

from __future__ import annotations

import datetime
from types import SimpleNamespace
from typing import Any

NOW = datetime.datetime(2026, 1, 1, 12, 0, tzinfo=datetime.UTC)
CELL = "11111111-1111-4111-8111-111111111111"


class Versioned:
    """A versioned object: ``in`` says whether a field is set."""

    fields: tuple[str, ...] = ()

    def __init__(self, **values: Any) -> None:
        self._values = values
        if not self.fields:
            self.fields = tuple(values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise NotImplementedError(f"Cannot load {name!r} in the base class") from None


class RequestSpec(Versioned):
    """Nova's RequestSpec 1.15."""

    fields = (
        *("id", "image", "numa_topology", "pci_requests", "project_id", "user_id", "availability_zone", "flavor"),
        *("num_instances", "ignore_hosts", "force_hosts", "force_nodes", "requested_destination", "retry", "limits"),
        *("instance_group", "scheduler_hints", "instance_uuid", "security_groups", "network_metadata", "is_bfv"),
        *("requested_resources", "request_level_params", "requested_networks"),
    )


def flavor(**changes: Any) -> Versioned:
    values = {"name": "m1.small", "vcpus": 2, "memory_mb": 2048, "root_gb": 20, "ephemeral_gb": 0, "swap": 0}
    return Versioned(**{**values, "extra_specs": {}, **changes})


def request_spec(**changes: Any) -> RequestSpec:
    values: dict[str, Any] = {"flavor": flavor(), "project_id": "project", "user_id": "user", "is_bfv": False}
    return RequestSpec(**{**values, **changes})


def aggregate(number: int, **metadata: str) -> Versioned:
    uuid = f"aaaaaaaa-0000-4000-8000-{number:012}"
    return Versioned(id=number, uuid=uuid, name=f"aggregate {number}", metadata=metadata)


def node_uuid(number: int) -> str:
    return f"cccccccc-0000-4000-8000-{number:012}"


def instance_uuid(number: int) -> str:
    return f"eeeeeeee-0000-4000-8000-{number:012}"


def host_state(number: int, **changes: Any) -> SimpleNamespace:
    """Nova's HostState of an idle host of 16 CPUs, 64 GiB and 500 GiB."""
    values: dict[str, Any] = {
        "host": f"compute{number}",
        "nodename": f"compute{number}",
        "uuid": node_uuid(number),
        "cell_uuid": CELL,
        "vcpus_total": 16,
        "vcpus_used": 0,
        "cpu_allocation_ratio": 4.0,
        "total_usable_ram_mb": 65536,
        "free_ram_mb": 65536,
        "ram_allocation_ratio": 1.0,
        "total_usable_disk_gb": 500,
        "disk_mb_used": 0,
        "free_disk_mb": 512000,
        "disk_allocation_ratio": 1.0,
        "hypervisor_type": "QEMU",
        "hypervisor_version": 8002000,
        "host_ip": "192.0.2.1",
        "cpu_info": None,
        "supported_instances": [["x86_64", "kvm", "hvm"]],
        "stats": {"num_instances": "0"},
        "num_instances": 0,
        "num_io_ops": 0,
        "failed_builds": 0,
        "metrics": [],
        "aggregates": [],
        "instances": {},
        "service": {
            **{"disabled": False, "disabled_reason": None, "forced_down": False, "version": 72},
            **{"last_seen_up": NOW, "created_at": NOW},
        },
        "numa_topology": None,
        "pci_stats": None,
        "updated": NOW,
    }
    return SimpleNamespace(**{**values, **changes})


def candidates(*numbers: int) -> dict[str, list[dict[str, Any]]]:
    """Placement's allocation requests of ``flavor()`` by provider."""
    resources = {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20}
    return {
        uuid: [{"allocations": {uuid: {"resources": resources}}, "mappings": {"": [uuid]}}]
        for uuid in map(node_uuid, numbers)
    }
