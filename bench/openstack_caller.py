"""Run by the Python of an environment with nova: calls nova-scheduler as nova-conductor does, and writes what
nova-compute writes, for bench/vs_openstack.py. One JSON command a line in, one JSON answer a line out. It imports
nothing of Hostler.

    {"do": "start", "conf": FILE, "cell": URL}        read nova.conf, connect to the bus
    {"do": "call", "count": N, "seed": S}             {"seconds": [...], "hosts": [...], "refused": M}
    {"do": "report", "on": true}                      write heartbeats and reports of all hosts, or no more
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"

import nova.conf
from nova import config, context, exception, objects, rpc
from nova.scheduler import rpcapi
from sqlalchemy import create_engine, text

Value = dict[str, Any]

FLAVORS = ((1, 2_048, 10), (2, 4_096, 20), (4, 8_192, 40), (8, 16_384, 80))
"""vCPUs, memory in MiB and disk in GiB."""
NOW = "timezone('utc', now())"
HEARTBEAT_SECONDS, REPORT_SECONDS = 10, 60
"""Nova's report_interval, and update_resources_interval."""


def request_spec(number: int, instance: str) -> Any:
    """A request as nova-conductor hands it to the scheduler."""
    vcpus, memory_mb, root_gb = FLAVORS[number]
    flavor = objects.Flavor(
        **{"id": number + 1, "flavorid": str(number), "name": f"f{number}", "vcpus": vcpus, "memory_mb": memory_mb},
        **{"root_gb": root_gb, "ephemeral_gb": 0, "swap": 0, "rxtx_factor": 1.0, "vcpu_weight": 0, "disabled": False},
        **{"is_public": True, "description": None, "extra_specs": {}},
    )
    image = {
        **{"id": "70a599e0-31e7-49b7-b260-868f441e862b", "disk_format": "qcow2", "container_format": "bare"},
        **{"min_ram": 0, "min_disk": 0, "size": 1, "status": "active", "properties": {"hw_architecture": "x86_64"}},
    }
    return objects.RequestSpec(
        flavor=flavor,
        image=objects.ImageMeta.from_dict(image),
        numa_topology=None,
        pci_requests=objects.InstancePCIRequests(instance_uuid=instance, requests=[]),
        project_id="p",
        user_id="u",
        availability_zone=None,
        num_instances=1,
        ignore_hosts=None,
        force_hosts=None,
        force_nodes=None,
        requested_destination=None,
        retry=None,
        limits=objects.SchedulerLimits(),
        instance_group=None,
        scheduler_hints={},
        instance_uuid=instance,
        security_groups=objects.SecurityGroupList(objects=[]),
        is_bfv=False,
        requested_resources=[],
        request_level_params=objects.RequestLevelParams(),
        requested_networks=objects.NetworkRequestList(objects=[]),
        network_metadata=objects.NetworkMetadata(physnets=set(), tunneled=False),
    )


class Caller:
    """nova-conductor's and nova-compute's part."""

    def start(self, command: Value) -> Value:
        """Read the configuration and connect."""
        config.parse_args(["nova-conductor", "--config-file", command["conf"]])
        objects.register_all()
        rpc.init(nova.conf.CONF)
        self.scheduler = rpcapi.SchedulerAPI()
        self.cell, self.end = create_engine(command["cell"]), threading.Event()
        return {}

    def call(self, command: Value) -> Value:
        """Ask for hosts, one after the other."""
        choices, seconds, hosts, refused = random.Random(command["seed"]), list[float](), list[str](), 0
        for _ in range(command["count"]):
            instance = str(uuid.UUID(int=choices.getrandbits(128), version=4))
            spec = request_spec(choices.randrange(len(FLAVORS)), instance)
            begun = time.perf_counter()
            try:
                found = self.scheduler.select_destinations(
                    context.RequestContext("u", "p", is_admin=True),
                    spec,
                    [instance],
                    return_objects=True,
                    return_alternates=True,
                )
            except exception.NoValidHost:
                refused += 1
            else:
                hosts.append(found[0][0].service_host)
                assert len(found[0]) == 3, "the chosen host and two alternates"
                assert found[0][0].allocation_request, "what was claimed"
            seconds.append(time.perf_counter() - begun)
        return {"seconds": seconds, "hosts": hosts, "refused": refused}

    def report(self, command: Value) -> Value:
        """Begin to write as many computes do, or end that."""
        if command["on"]:
            self.end.clear()
            threading.Thread(target=self._report, daemon=True).start()
        else:
            self.end.set()
        return {}

    def _report(self) -> None:
        """Each second a tenth of the services are heard, and a sixtieth of the hosts report: each has other room on its
        disks each time."""
        second = 0
        while not self.end.wait(1.0):
            second += 1
            with self.cell.begin() as connection:
                for table, columns, every in (
                    ("services", f"last_seen_up = {NOW}, report_count = report_count + 1,", HEARTBEAT_SECONDS),
                    ("compute_nodes", f"disk_available_least = free_disk_gb - {second % 97},", REPORT_SECONDS),
                ):
                    update = f"update {table} set {columns} updated_at = {NOW} where id % {every} = {second % every}"
                    connection.execute(text(update))


def main() -> None:
    """Answer commands until the pipe closes. Whatever Nova prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    caller = Caller()
    actions: dict[str, Callable[[Value], Value]] = {
        "start": caller.start,
        "call": caller.call,
        "report": caller.report,
    }
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(actions[command["do"]](command)), file=answers, flush=True)


if __name__ == "__main__":
    main()
