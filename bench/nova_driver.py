"""Nova 33's own scheduler code behind a pipe, for bench/vs_nova.py: one JSON command a line in, one JSON answer a line
out.

Run by the Python of an environment that holds nova and no Hostler; it imports nothing of ours. Filters, weighers, host
states and consumption are Nova's; what Placement would have done (which hosts have room) is worked out here, off the
clock.

    {"do": "fleet", "hosts": [...], "aggregates": [...]}          the fleet, as vs_nova.py writes it {"do": "policy",
    "filters": [...], "weighers": [...]}         host states made anew from the fleet, under this policy {"do": "place",
    "request": {...}}                             {"host": name or null, "cpu": seconds, "considered": hosts} {"do":
    "order", "request": {...}}                             {"hosts": names, best first}; consumes nothing
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"

import nova.conf
from nova import objects
from nova.scheduler import host_manager
from nova.virt import hardware
from oslo_utils import timeutils

Value = dict[str, Any]

NOW = datetime.datetime(2026, 1, 1)
CELL = "11111111-1111-4111-8111-111111111111"


def start() -> None:
    """Nova's defaults, no configuration file, no logging below errors, a clock that stands still."""
    nova.conf.CONF([], project="nova", default_config_files=[], default_config_dirs=[])
    logging.getLogger().setLevel(logging.ERROR)
    objects.register_all()
    timeutils.set_time_override(NOW)


class DetachedHostManager(host_manager.HostManager):  # type: ignore[misc]  # Nova is not typed
    """Nova's host manager without the three look-ups in its database that it starts with."""

    def refresh_cells_caches(self) -> None:
        self.cells: Value = {}
        self.enabled_cells: list[Any] = []
        self.host_to_cell_uuid: Value = {}

    def _init_aggregates(self) -> None:
        pass

    def _init_instance_info(self, computes_by_cell: object = None) -> None:
        pass


# Values as Nova's objects


def compute_node(host: Value) -> Any:
    """What nova-compute reports of a host."""
    stats = {"num_instances": host["num_instances"], "io_workload": host["num_io_ops"], "failed_builds": 0}
    return objects.ComputeNode(
        uuid=host["uuid"],
        host=host["name"],
        hypervisor_hostname=host["name"],
        vcpus=host["vcpus"],
        vcpus_used=host["vcpus_used"],
        memory_mb=host["memory_mb"],
        memory_mb_used=host["memory_mb"] - host["free_ram_mb"],
        free_ram_mb=host["free_ram_mb"],
        local_gb=host["disk_gb"],
        local_gb_used=host["disk_used_gb"],
        free_disk_gb=host["disk_gb"] - host["disk_used_gb"],
        disk_available_least=None,
        hypervisor_type=host["hypervisor_type"],
        hypervisor_version=host["hypervisor_version"],
        host_ip="192.0.2.1",
        cpu_info=None,
        metrics="[]",
        stats={name: str(value) for name, value in stats.items()},
        supported_hv_specs=[objects.HVSpec.from_list(list(row)) for row in host["supported"]],
        numa_topology=numa_topology(host["numa"])._to_json() if host["numa"] else None,
        pci_device_pools=None,
        cpu_allocation_ratio=host["cpu_ratio"],
        ram_allocation_ratio=1.0,
        disk_allocation_ratio=1.0,
        mapped=1,
        updated_at=None,
    )


def numa_topology(cells: list[Value]) -> Any:
    """A host's NUMA cells."""
    return objects.NUMATopology(cells=[_numa_cell(cell) for cell in cells])


def _numa_cell(cell: Value) -> Any:
    made = objects.NUMACell(
        id=cell["id"],
        cpuset=set(cell["cpus"]),
        pcpuset=set(),
        memory=cell["memory_mb"],
        cpu_usage=cell["cpu_usage"],
        memory_usage=cell["memory_usage"],
        pinned_cpus=set(),
        siblings=[set(core) for core in cell["siblings"]],
        mempages=[
            objects.NUMAPagesTopology(size_kb=size_kb, total=total, used=0, reserved=0)
            for size_kb, total in cell["pages"]
        ],
        socket=cell["id"],
    )
    made.network_metadata = objects.NetworkMetadata(physnets=set(), tunneled=False)
    return made


def service(host: Value) -> Value:
    """The row of a host's nova-compute service, seen just now."""
    seen = NOW.replace(tzinfo=datetime.UTC)
    return {
        "host": host["name"],
        "binary": "nova-compute",
        "topic": "compute",
        "disabled": host["disabled"],
        "disabled_reason": "maintenance" if host["disabled"] else None,
        "forced_down": False,
        "last_seen_up": seen,
        "created_at": seen,
        "updated_at": seen,
        "report_count": 1,
    }


def request_spec(request: Value, group: Any) -> Any:
    """A request as nova-api and nova-conductor hand it to the scheduler."""
    flavor = objects.Flavor(
        id=1,
        flavorid=request["flavor"]["name"],
        ephemeral_gb=0,
        swap=0,
        rxtx_factor=1.0,
        vcpu_weight=0,
        disabled=False,
        is_public=True,
        description=None,
        **request["flavor"],
    )
    image = objects.ImageMeta.from_dict(
        {
            "id": request["uuid"],
            "disk_format": "qcow2",
            "container_format": "bare",
            "min_ram": 0,
            "min_disk": 0,
            "size": 1,
            "status": "active",
            "properties": request["image_properties"],
        }
    )
    spec = objects.RequestSpec(
        flavor=flavor,
        image=image,
        numa_topology=hardware.numa_get_constraints(flavor, image),
        pci_requests=None,
        project_id=request["project_id"],
        user_id="user",
        availability_zone=None,
        num_instances=1,
        ignore_hosts=None,
        force_hosts=None,
        force_nodes=None,
        requested_destination=None,
        retry=None,
        limits=None,
        instance_group=group,
        scheduler_hints={},
        instance_uuid=request["uuid"],
        security_groups=objects.SecurityGroupList(objects=[]),
        is_bfv=False,
        requested_resources=[],
        request_level_params=objects.RequestLevelParams(),
        requested_networks=objects.NetworkRequestList(objects=[]),
    )
    spec.obj_reset_changes(recursive=True)
    return spec


# Scheduling


class Room:
    """What is left of a host by Placement's rule: ``used + amount <= int(total * allocation_ratio)``, and at most
    ``total`` at once."""

    def __init__(self, host: Value) -> None:
        self.most = (host["vcpus"], host["memory_mb"], host["disk_gb"])
        self.left = [
            int(host["vcpus"] * host["cpu_ratio"]) - host["vcpus_used"],
            host["free_ram_mb"],
            host["disk_gb"] - host["disk_used_gb"],
        ]

    def fits(self, amounts: tuple[int, int, int]) -> bool:
        """Whether a guest of this size would be among the allocation candidates here."""
        return all(
            amount <= left and amount <= most for amount, left, most in zip(amounts, self.left, self.most, strict=True)
        )

    def take(self, amounts: tuple[int, int, int]) -> None:
        """Claim a guest's resources."""
        self.left = [left - amount for left, amount in zip(self.left, amounts, strict=True)]


class Scheduler:
    """One fleet under one policy."""

    def __init__(self) -> None:
        self.fleet: Value = {}
        self.manager: Any = None
        self.states: list[Any] = []
        self.room: list[Room] = []
        self.groups: dict[str, tuple[str, list[str], list[str]]] = {}

    def load(self, command: Value) -> Value:
        """Keep the fleet for the policies to come."""
        self.fleet = command
        return {"hosts": len(command["hosts"])}

    def use(self, command: Value) -> Value:
        """Make Nova's host manager and host states, all as the fleet was loaded."""
        nova.conf.CONF.set_override("enabled_filters", command["filters"], group="filter_scheduler")
        self.manager = DetachedHostManager()
        order = command["weighers"]
        self.manager.weighers.sort(key=lambda weigher: order.index(type(weigher).__name__))
        self.manager.update_aggregates(
            [
                objects.Aggregate(
                    id=i, uuid=each["uuid"], name=each["name"], hosts=each["hosts"], metadata=each["metadata"]
                )
                for i, each in enumerate(self.fleet["aggregates"], 1)
            ]
        )
        nodes = [compute_node(host) for host in self.fleet["hosts"]]
        begun = time.process_time()
        self.states = [self._state(host, node) for host, node in zip(self.fleet["hosts"], nodes, strict=True)]
        cpu = time.process_time() - begun
        self.room = [Room(host) for host in self.fleet["hosts"]]
        self.groups = {}
        return {"states_cpu": cpu}

    def _state(self, host: Value, node: Any) -> Any:
        state = self.manager.host_state_cls(host["name"], host["name"], CELL, compute=node)
        aggregates = [self.manager.aggs_by_id[i] for i in sorted(self.manager.host_aggregates_map[host["name"]])]
        state.update(node, service(host), aggregates, {})
        return state

    def order(self, command: Value) -> Value:
        """All hosts that pass, best first."""
        spec = request_spec(command["request"], self._group(command["request"]))
        states, _ = self._candidates(command["request"])
        filtered = self.manager.get_filtered_hosts(states, spec)
        return {"hosts": [weighed.obj.host for weighed in self.manager.get_weighed_hosts(filtered, spec)]}

    def place(self, command: Value) -> Value:
        """Choose the best host and consume the request there; only Nova's work is on the clock."""
        request = command["request"]
        group = self._group(request)
        spec = request_spec(request, group)
        states, amounts = self._candidates(request)
        begun = time.process_time()
        filtered = self.manager.get_filtered_hosts(states, spec)
        weighed = self.manager.get_weighed_hosts(filtered, spec)
        if weighed:
            weighed[0].obj.consume_from_request(spec)
        cpu = time.process_time() - begun
        if not weighed:
            return {"host": None, "cpu": cpu, "considered": len(states)}
        chosen = weighed[0].obj
        self._claim(chosen, request, amounts)
        return {"host": chosen.host, "cpu": cpu, "considered": len(states)}

    def _candidates(self, request: Value) -> tuple[list[Any], tuple[int, int, int]]:
        """The hosts that Placement would return for the request, with their allocation candidates."""
        flavor = request["flavor"]
        amounts = (flavor["vcpus"], flavor["memory_mb"], flavor["root_gb"])
        resources = dict(zip(("VCPU", "MEMORY_MB", "DISK_GB"), amounts, strict=True))
        found = []
        for state, room in zip(self.states, self.room, strict=True):
            if room.fits(amounts):
                state.allocation_candidates = [
                    {"allocations": {state.uuid: {"resources": resources}}, "mappings": {"": [state.uuid]}}
                ]
                found.append(state)
        return found, amounts

    def _group(self, request: Value) -> Any:
        """The request's server group as it stands, with the request as a member."""
        if request["group"] is None:
            return None
        name, policy = request["group"]
        _, members, hosts = self.groups.setdefault(name, (policy, [], []))
        return objects.InstanceGroup(
            uuid=name,
            name=name,
            policy=policy,
            policies=[policy],
            rules={},
            members=[*members, request["uuid"]],
            hosts=list(hosts),
        )

    def _claim(self, chosen: Any, request: Value, amounts: tuple[int, int, int]) -> None:
        """What Placement and the group's record take note of once a host was chosen."""
        self.room[self.states.index(chosen)].take(amounts)
        chosen.instances[request["uuid"]] = objects.Instance(uuid=request["uuid"])
        if request["group"] is not None:
            _, members, hosts = self.groups[request["group"][0]]
            members.append(request["uuid"])
            hosts.append(chosen.host)


def main() -> None:
    """Answer commands until the pipe closes. Whatever Nova prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    start()
    scheduler = Scheduler()
    actions: dict[str, Callable[[Value], Value]] = {
        "fleet": scheduler.load,
        "policy": scheduler.use,
        "place": scheduler.place,
        "order": scheduler.order,
    }
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(actions[command["do"]](command)), file=answers, flush=True)


if __name__ == "__main__":
    main()
