"""Cinder 29's own scheduler code behind a pipe, for bench/vs_cinder.py: one JSON command a line in, one JSON answer a
line out.

Run by the Python of an environment that holds cinder and no Hostler; it imports nothing of ours. Pool states, filters,
weighers, expressions and consumption are Cinder's; only the list of services, which its database has, is given here.

    {"do": "pools", "reports": [{"host": ..., "capabilities": {...}}]}   pools made anew
    {"do": "policy", "filters": [...], "weighers": [...]}               a scheduler made anew, under this policy
    {"do": "place", "request": {"size": ..., "extra_specs": {...}}}     {"backend": id or null, "cpu": seconds}
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from cinder import context as cinder_context
from cinder import objects

objects.register_all()  # what the scheduler imports relies on it

from cinder.scheduler import driver as scheduler_driver  # noqa: E402
from cinder.scheduler import filter_scheduler  # noqa: E402
from oslo_config import cfg  # type: ignore[import-untyped,import-not-found,unused-ignore]  # noqa: E402

Value = dict[str, Any]

cfg.CONF([], project="cinder", default_config_files=[], default_config_dirs=[])
logging.getLogger().setLevel(logging.CRITICAL)
logging.disable(logging.CRITICAL)


class Service(dict):  # type: ignore[type-arg]  # Cinder reads it as an object and as a dict
    """What Cinder's scheduler reads of a service record."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Services:
    """A list of services as the database layer gives it."""

    def __init__(self, services: list[Service]) -> None:
        self.objects = services


class Driver:
    """The scheduler, and the reports that it is told."""

    def __init__(self) -> None:
        self.reports: list[Value] = []
        self.services = Services([])
        self.context = cinder_context.get_admin_context()
        self.scheduler: Any = None
        objects.ServiceList.get_all = lambda *_, **__: self.services
        scheduler_driver.volume_rpcapi.VolumeAPI = lambda: None  # it would ask the database for versions

    def pools(self, command: Value) -> Value:
        self.reports = command["reports"]
        self.services = Services(
            [
                Service(
                    host=report["host"],
                    cluster_name=None,
                    is_up=True,
                    service_topic_queue=f"cinder-volume.{report['host']}",
                    availability_zone="nova",
                )
                for report in self.reports
            ]
        )
        return {}

    def policy(self, command: Value) -> Value:
        self.scheduler = filter_scheduler.FilterScheduler()
        conf = cfg.CONF
        conf.set_override("scheduler_default_filters", command["filters"])
        conf.set_override("scheduler_default_weighers", command["weighers"])
        self.scheduler = filter_scheduler.FilterScheduler()
        for report in self.reports:
            self.scheduler.host_manager.update_service_capabilities(
                "volume", report["host"], report["capabilities"], None, None
            )
        return {"pools": len(list(self.scheduler.host_manager.get_all_backend_states(self.context)))}

    def place(self, command: Value) -> Value:
        given = command["request"]
        properties = {
            "size": given["size"],
            "availability_zone": None,
            "qos_specs": None,
            "metadata": {},
            "attach_status": "detached",
            "user_id": "",
        }
        spec = {
            "volume_properties": properties,
            "resource_properties": properties,
            "volume_type": {"extra_specs": given["extra_specs"]},
            "volume_id": "v",
        }
        start = time.process_time()
        found = self.scheduler._schedule(self.context, spec, {})
        spent = time.process_time() - start
        return {"backend": found.obj.backend_id if found else None, "cpu": spent}


def serve() -> None:
    """Answer commands until there are no more."""
    driver = Driver()
    commands: dict[str, Callable[[Value], Value]] = {
        "pools": driver.pools,
        "policy": driver.policy,
        "place": driver.place,
    }
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(commands[command["do"]](command)), flush=True)


if __name__ == "__main__":
    serve()
