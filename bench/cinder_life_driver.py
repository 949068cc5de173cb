"""cinder-api and three volume services for bench/cinder_life.py: what they send a cinder-scheduler over RabbitMQ, by
Cinder's own clients and objects, and what they are sent. One JSON command a line in, one JSON answer a line out.

Run by the Python of an environment that holds cinder; it imports nothing of Hostler.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

os.environ["OS_CINDER_DISABLE_EVENTLET_PATCHING"] = "1"

from cinder import monkey_patch

monkey_patch.patch("threading")

from cinder import context as cinder_context  # noqa: E402
from cinder import objects, rpc  # noqa: E402

objects.register_all()

import oslo_messaging  # noqa: E402
from cinder.common import config  # noqa: E402, F401  # registers the options
from cinder.db import api as database  # noqa: E402
from cinder.objects import base  # noqa: E402
from cinder.scheduler import rpcapi as scheduler_rpcapi  # noqa: E402
from cinder.volume import rpcapi as volume_rpcapi  # noqa: E402
from cinder.volume import volume_types  # noqa: E402
from oslo_config import cfg  # type: ignore[import-untyped,import-not-found,unused-ignore]  # noqa: E402

Value = dict[str, Any]
WAIT_SECONDS: Final = 120.0
PROJECT: Final = "11111111-0000-4000-8000-000000000001"


class VolumeService:
    """A volume service: its pools as it reports them, and what it is sent."""

    target = oslo_messaging.Target(version=volume_rpcapi.VolumeAPI.RPC_API_VERSION)

    def __init__(self, world: World, host: str, pools: list[Value], backend_name: str) -> None:
        self._world, self.host = world, host
        self.pools = {pool["pool_name"]: pool for pool in pools}
        self._backend_name = backend_name

    def publish_service_capabilities(self, context: Any) -> None:
        """A scheduler has started."""
        self.report()

    def report(self) -> None:
        """What a volume service reports each minute."""
        capabilities = {
            **{"volume_backend_name": self._backend_name, "vendor_name": "v", "driver_version": "1"},
            **{
                "storage_protocol": "iSCSI",
                "pools": [each | {"serial": self._world.serial} for each in self.pools.values()],
            },
        }
        self._world.api.update_service_capabilities(self._world.context, "volume", self.host, capabilities, None)

    def holds(self, pool: str, size: int) -> None:
        """A volume, or more of one, is there: less is free."""
        found = self.pools[pool]
        found["allocated_capacity_gb"] += size
        found["provisioned_capacity_gb"] += size
        used = size * 0.25 if found["thin_provisioning_support"] else size
        found["free_capacity_gb"] = round(found["free_capacity_gb"] - used, 3)

    def create_volume(
        self, context: Any, volume: Any, request_spec: Any = None, filter_properties: Any = None, **_: Any
    ) -> None:
        """Create it."""
        self.holds(volume.host.partition("#")[2], volume.size)
        volume.status = "available"
        volume.save()
        retry = (filter_properties or {}).get("retry") or {}
        self._tell("create_volume", volume.id, host=volume.host, attempts=retry.get("num_attempts"))

    def extend_volume(self, context: Any, volume: Any, new_size: int, reservations: Any) -> None:
        """Extend it."""
        self.holds(volume.host.partition("#")[2], new_size - volume.size)
        volume.update({"size": new_size, "status": "available"})
        with self._world.carrying:
            volume.save()
            self._tell("extend_volume", volume.id, host=volume.host)

    def retype(self, context: Any, volume: Any, new_type_id: str, host: Any, **_: Any) -> None:
        """Change its type, or have it moved."""
        volume.update({"volume_type_id": new_type_id, "status": "available"})
        with self._world.carrying:
            volume.save()
            self._tell("retype", volume.id, host=host["host"])

    def migrate_volume(self, context: Any, volume: Any, host: Any, force_host_copy: bool = False, **_: Any) -> None:
        """Move it."""
        volume.migration_status = "success"
        volume.save()
        self._tell("migrate_volume", volume.id, host=host["host"])

    def manage_existing(self, context: Any, volume: Any, ref: Any = None) -> None:
        """Take it over."""
        self._tell("manage_existing", volume.id, host=volume.host)

    def create_snapshot(self, context: Any, snapshot: Any) -> None:
        """Make a snapshot."""
        self._tell("create_snapshot", snapshot.id, host=snapshot.volume.host)

    def create_group(self, context: Any, group: Any) -> None:
        """Make a group."""
        self._tell("create_group", group.id, host=group.host)

    def _tell(self, what: str, id: str, **values: Any) -> None:
        self._world.sent.put((id, {"sent": what, "to": self.host, **values}))


class World:
    """All of them, and what was made."""

    def __init__(self) -> None:
        self.sent: queue.Queue[tuple[str, Value]] = queue.Queue()
        self.carrying = threading.Lock()
        """Held while a volume service writes a state that a refusal leaves too, and tells that it was sent one."""
        self.serial = 0
        self.volumes: list[Any] = []
        self.types: dict[str, Any] = {}
        self.services: list[VolumeService] = []
        self.context: Any = cinder_context.RequestContext("user", PROJECT, is_admin=True)
        self.api: Any = None

    def begin(self, command: Value) -> Value:
        """Read the configuration, write the rows of services and types, and serve the queues of the services."""
        cfg.CONF(["--config-file", command["conf"]], project="cinder")
        logging.disable(logging.CRITICAL)
        rpc.init(cfg.CONF)
        self.api = scheduler_rpcapi.SchedulerAPI()
        for name, specs in command["types"].items():
            self.types[name] = volume_types.create(self.context, name, specs)
        for each in command["services"]:
            service = VolumeService(self, each["host"], each["pools"], each["backend_name"])
            self.services.append(service)
            objects.Service(
                self.context,
                host=service.host,
                binary="cinder-volume",
                topic="cinder-volume",
                availability_zone=each["zone"],
                report_count=1,
                rpc_current_version=volume_rpcapi.VolumeAPI.RPC_API_VERSION,
                object_current_version=base.OBJ_VERSIONS.get_current(),
            ).create()
            for topic, name in (
                ("cinder-volume", service.host),
                (f"cinder-volume.{service.host}", service.host.partition("@")[0]),
            ):
                target = oslo_messaging.Target(topic=topic, server=name)
                rpc.get_server(target, [service], base.CinderObjectSerializer()).start()
        return {}

    def report(self, command: Value) -> Value:
        """Have all services report, and wait until the scheduler knows it."""
        self.serial += 1
        for service in self.services:
            service.report()
        end = time.monotonic() + WAIT_SECONDS
        while any(pool["capabilities"].get("serial") != self.serial for pool in self._pools()):
            if time.monotonic() > end:
                raise TimeoutError("the scheduler does not take reports")
            time.sleep(0.05)
        return {"pools": len(self._pools())}

    def _pools(self) -> list[Value]:
        """All pools, once the scheduler answers: what is sent before its queue is there is lost."""
        call = self.api.client.prepare(version="3.0", timeout=2).call
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            try:
                found: list[Value] = call(self.context, "get_pools", filters={})
            except oslo_messaging.MessagingTimeout:
                continue
            if found:
                return found
            time.sleep(0.05)
        raise TimeoutError("the scheduler does not answer")

    def pools(self, command: Value) -> Value:
        """Names of the pools that an administrator is shown."""
        found = self.api.get_pools(self.context, filters=command["filters"])
        return {"pools": sorted(pool["name"] for pool in found)}

    def create(self, command: Value) -> Value:
        """Create a volume."""
        volume = self._volume(command, status="creating")
        began = time.monotonic()
        self.api.create_volume(self.context, volume, request_spec=self._spec(volume, command), filter_properties={})
        return self._outcome(volume, lambda: volume.status == "error") | {"seconds": time.monotonic() - began}

    def capacity(self, command: Value) -> Value:
        """Ask whether a backend takes a volume."""
        spec = self._plain_spec(command["type"], command["size"])
        backend = command["backend"]
        return {"taken": self.api.validate_host_capacity(self.context, backend, spec, {})}

    def extend(self, command: Value) -> Value:
        """Extend a volume."""
        volume = self._known(command, status="extending", previous_status="available")
        size = volume.size + command["by"]
        spec = self._plain_spec(volume.volume_type.name, volume.size, volume)
        self.api.extend_volume(self.context, volume, size, [], spec, {})
        return self._outcome(volume, lambda: volume.status == "available")

    def retype(self, command: Value) -> Value:
        """Change the type of a volume."""
        volume = self._known(command, status="retyping", previous_status="available")
        spec = self._plain_spec(command["type"], volume.size, volume)
        spec |= {"migration_policy": command["policy"], "quota_reservations": [], "old_reservations": []}
        self.api.retype(self.context, volume, request_spec=spec, filter_properties={})
        return self._outcome(volume, lambda: volume.status == "available")

    def migrate(self, command: Value) -> Value:
        """Move a volume to a pool."""
        volume = self._known(command, migration_status="starting")
        spec = self._plain_spec(volume.volume_type.name, volume.size, volume)
        self.api.migrate_volume(self.context, volume, command["backend"], request_spec=spec, filter_properties={})
        return self._outcome(volume, lambda: volume.migration_status == "error")

    def manage(self, command: Value) -> Value:
        """Take over a volume that a backend has."""
        volume = self._volume(command, status="managing", host=command["backend"])
        spec = self._plain_spec(command["type"], command["size"], volume) | {"ref": {"source-name": "x"}}
        self.api.manage_existing(self.context, volume, request_spec=spec, filter_properties={})
        return self._outcome(volume, lambda: volume.status == "error_managing")

    def snapshot(self, command: Value) -> Value:
        """Make a snapshot of a volume."""
        volume = self._known(command)
        made = objects.Snapshot(
            self.context,
            volume_id=volume.id,
            volume_size=volume.size,
            status="creating",
            project_id=PROJECT,
            user_id="user",
            volume_type_id=volume.volume_type_id,
        )
        made.create()
        spec = objects.RequestSpec.from_primitives(self._plain_spec(volume.volume_type.name, volume.size, volume))
        self.api.create_snapshot(self.context, volume, made, volume.service_topic_queue, spec, {})
        return self._outcome(made, lambda: made.status == "error")

    def group(self, command: Value) -> Value:
        """Make a group whose volumes have some types."""
        types = [self._type(name) for name in command["types"]]
        made = objects.Group(
            self.context,
            status="creating",
            name="g",
            project_id=PROJECT,
            user_id="user",
            group_type_id=str(uuid.uuid4()),
            volume_type_ids=[each["id"] for each in types],
            availability_zone="nova",
        )
        made.create()
        specs = [
            {
                "volume_properties": {
                    "size": 0,
                    "user_id": "user",
                    "project_id": PROJECT,
                    "volume_type_id": each["id"],
                },
                "volume_type": {"id": each["id"], "name": each["name"], "extra_specs": dict(each["extra_specs"] or {})},
            }
            for each in types
        ]
        group_spec = {"group_type": {}, "volume_properties": {"size": 0}, "resource_properties": {"size": 0}}
        self.api.create_group(self.context, made, group_spec, specs, {}, [{} for _ in specs])
        return self._outcome(made, lambda: made.status == "error")

    # values

    def _volume(self, command: Value, **values: Any) -> Any:
        made = objects.Volume(
            self.context,
            size=command["size"],
            volume_type_id=self.types[command["type"]]["id"],
            availability_zone=command.get("zone"),
            user_id="user",
            project_id=PROJECT,
            display_name="v",
            attach_status="detached",
            metadata={},
            use_quota=False,
            **values,
        )
        made.create()
        self.volumes.append(made)
        return made

    def _known(self, command: Value, **values: Any) -> Any:
        """One of the volumes that are somewhere."""
        there = [each for each in self.volumes if each.host and each.status == "available"]
        volume = objects.Volume.get_by_id(self.context, there[command["number"] % len(there)].id)
        if values:
            volume.update(values)
            volume.save()
        return volume

    def _spec(self, volume: Any, command: Value) -> Any:
        type_of = objects.VolumeType()
        objects.VolumeType._from_db_object(self.context, type_of, self._type(command["type"]))
        properties = objects.VolumeProperties(
            size=volume.size,
            user_id="user",
            project_id=PROJECT,
            volume_type_id=volume.volume_type_id,
            availability_zone=command.get("zone"),
            attach_status="detached",
            status="creating",
            display_name="v",
            metadata={},
            qos_specs=None,
            snapshot_id=None,
            source_volid=None,
        )
        zones = [command["zone"]] if command.get("zone") else []
        return objects.RequestSpec(
            volume=volume,
            volume_id=volume.id,
            volume_type=type_of,
            volume_properties=properties,
            availability_zones=zones,
            snapshot_id=None,
            image_id=None,
            source_volid=None,
            consistencygroup_id=None,
            cgsnapshot_id=None,
            group_id=None,
            backup_id=None,
        )

    def _type(self, name: str) -> Any:
        return database.volume_type_get(self.context, self.types[name]["id"])

    def _plain_spec(self, name: str, size: int, volume: Any = None) -> Value:
        """A request as the API's other calls have it."""
        found = self._type(name)
        spec: Value = {
            "volume_properties": {
                **{"size": size, "user_id": "user", "project_id": PROJECT, "volume_type_id": found["id"]},
                **{"attach_status": "detached", "availability_zone": None, "metadata": {}, "qos_specs": None},
            },
            "volume_type": {"id": found["id"], "name": name, "extra_specs": dict(found["extra_specs"] or {})},
        }
        if volume is not None:
            spec["volume_id"] = volume.id
            spec["volume_properties"] |= {"host": volume.host, "cluster_name": volume.cluster_name}
        return spec

    def _outcome(self, made: Any, failed: Callable[[], bool]) -> Value:
        """What became of a request: what a volume service was sent, or the state that it left in the database."""
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            try:
                id, found = self.sent.get(timeout=0.25)
            except queue.Empty:
                with self.carrying:
                    made.refresh()
                    if failed() and self.sent.empty():
                        return {"sent": None, "status": made.status}
                continue
            if id == made.id:
                made.refresh()
                return found
        return {"sent": None, "status": "nothing happened"}


def serve() -> None:
    """Answer commands until there are no more."""
    world = World()
    commands: dict[str, Callable[[Value], Value]] = {
        each.__name__: each
        for each in (
            *(world.begin, world.report, world.pools, world.create, world.capacity, world.extend, world.retype),
            *(world.migrate, world.manage, world.snapshot, world.group),
        )
    }
    out = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(commands[command["do"]](command)), flush=True, file=out)


if __name__ == "__main__":
    serve()
    os._exit(0)
