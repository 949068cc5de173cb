"""A stand-in for a small OpenStack cloud, in memory: Keystone, Nova, Cinder, Glance and Neutron behind one address.
Tokens expire, changes take time, names may repeat, limits refuse, and requests are checked as far as the driver's go.
What Nova answers was seen on Nova 34."""

from __future__ import annotations

import itertools
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from .json_service import Call, Reply

Item = dict[str, Any]
ZONES = ("az-1", "az-2")
TYPES = ("ssd", "hdd.v2")
IMAGE = "11111111-2222-4333-8444-555555555555"
FLAVORS = (
    ("1", "tiny", 1, 512, 1),
    ("2", "small", 2, 2_048, 20),
    ("3", "large", 8, 16_384, 80),
    ("4", "any", 4, 4_096, 0),
)
LIMITS = {"cores": 64, "ram": 262_144, "instances": 100, "gigabytes": 1_000, "volumes": 100}
_SERVER = {
    "name", "flavorRef", "availability_zone", "tags", "metadata", "networks", "imageRef", "block_device_mapping_v2",
    "user_data", "key_name", "security_groups",
}  # fmt: skip
_VOLUME = {"size", "name", "description", "availability_zone", "volume_type", "metadata", "imageRef"}


class Refusal(Exception):
    """An answer that is an error: ``{kind: {"code", "message"}}``."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, {kind: {"code": status, "message": message}})


def missing(what: str, key: object) -> Refusal:
    return Refusal(404, "itemNotFound", f"{what} {key} could not be found.")


class Cloud:
    """``ready``: seconds that a change takes. ``fault``: why the next server that is built ends in an error."""

    def __init__(self, ready: float = 0.0) -> None:
        self.ready = ready
        self.fault: str | None = None
        self.lifetime = 10**9
        """Requests that a token is good for."""
        self.tokens: dict[str, int] = {}
        self.logins: list[Item] = []
        self.servers: dict[str, Item] = {}
        self.volumes: dict[str, Item] = {}
        self.limits = dict(LIMITS)
        self.images = [{"id": IMAGE, "name": "debian"}, *({"id": str(uuid.uuid4()), "name": "twice"} for _ in "ab")]
        self.networks = [{"id": IMAGE.replace("1", "9"), "name": "front"}]
        self.services = {"compute": "nova", "volumev3": "cinder", "image": "glance", "network": "neutron"}
        self._numbers = itertools.count(1)

    # what is asked

    def answer(self, call: Call) -> Reply:
        """What the cloud says to a request."""
        try:
            if call.parts[0] == "identity":
                return self._token(call)
            token = call.headers.get("x-auth-token", "")
            if self.tokens.get(token, 0) <= 0:
                return Reply(
                    401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}
                )
            self.tokens[token] -= 1
            self._go_on()
            service, *path = call.parts
            return {"nova": self._nova, "cinder": self._cinder, "glance": self._glance, "neutron": self._neutron}[
                service
            ](call, tuple(path))
        except Refusal as refusal:
            return refusal.reply

    def _token(self, call: Call) -> Reply:
        assert (call.method, call.parts) == ("POST", ("identity", "v3", "auth", "tokens"))
        shown = call.body["auth"]["identity"]
        self.logins.append(call.body["auth"])
        good = {"password": lambda: shown["password"]["user"]["password"] == "secret",
                "application_credential": lambda: shown["application_credential"]["secret"] == "secret"}  # fmt: skip
        if not good[shown["methods"][0]]():
            return Reply(401, {"error": {"code": 401, "message": "The request you have made requires authentication."}})
        token = f"token-{next(self._numbers)}"
        self.tokens[token] = self.lifetime
        catalog = [
            {"type": kind, "endpoints": [
                {"interface": "admin", "region_id": "one", "url": "http://127.0.0.1:9/"},
                {"interface": "public", "region_id": "two", "url": "http://127.0.0.1:9/"},
                {"interface": "public", "region_id": "one", "url": f"http://{call.host}/{name}/"},
            ]}
            for kind, name in self.services.items()
        ]  # fmt: skip
        return Reply(201, {"token": {"catalog": catalog}}, {"X-Subject-Token": token})

    def _go_on(self) -> None:
        for items in (self.servers, self.volumes):
            for key, item in list(items.items()):
                if item["then"] is not None and time.monotonic() >= item["then"][0]:
                    change: Callable[[], None] = item["then"][1]
                    item["then"] = None
                    change()
                    if item.get("status") == "gone":
                        del items[key]

    def _soon(self, item: Item, change: Callable[[], None]) -> None:
        item["then"] = (time.monotonic() + self.ready, change)

    @staticmethod
    def _page(call: Call, name: str, items: list[Item]) -> Reply:
        limit, marker = min(int(call.query.get("limit", 1_000)), 1_000), call.query.get("marker")
        keys = [item["id"] for item in items]
        if marker is not None and marker not in keys:
            raise Refusal(400, "badRequest", f"marker [{marker}] not found")
        first = 0 if marker is None else keys.index(marker) + 1
        shown = [{key: value for key, value in item.items() if key != "then"} for item in items[first : first + limit]]
        more = {f"{name}_links": [{"rel": "next", "href": "http://elsewhere/"}]} if keys[first + limit :] else {}
        return Reply(200, {name: shown, **more})

    # Nova

    def _nova(self, call: Call, path: tuple[str, ...]) -> Reply:
        if call.headers.get("openstack-api-version") != "compute 2.60":
            raise Refusal(406, "computeFault", "Version is not supported by the API.")
        match call.method, *path:
            case "GET", "limits":
                return Reply(200, {"limits": {"absolute": self._nova_limits()}})
            case "GET", "os-availability-zone":
                zones = [{"zoneName": zone, "zoneState": {"available": True}} for zone in ("internal", *ZONES)]
                return Reply(200, {"availabilityZoneInfo": zones})
            case "GET", "flavors", "detail":
                flavors = [dict(zip(("id", "name", "vcpus", "ram", "disk"), each, strict=True)) for each in FLAVORS]
                return self._page(call, "flavors", flavors)
            case "GET", "servers", "detail":
                tag = call.query.get("tags")
                items = [item for item in self.servers.values() if tag is None or tag in item["tags"]]
                return self._page(call, "servers", items[::-1])  # the newest first
            case "POST", "servers":
                server = self._new_server(call.body["server"])
                return Reply(202, {"server": {"id": server["id"]}})
            case "DELETE", "servers", key:
                server = self._server(key)
                server["OS-EXT-STS:task_state"] = "deleting"
                self._soon(server, lambda: self._delete_server(server))
                return Reply(204)
            case "POST", "servers", key, "action":
                ((action, _),) = call.body.items()
                self.act(self._server(key), action)
                return Reply(202)
            case "POST", "servers", key, "os-volume_attachments":
                self._attach(self._server(key), call.body["volumeAttachment"]["volumeId"])
                return Reply(200, {"volumeAttachment": {}})
            case "DELETE", "servers", key, "os-volume_attachments", volume:
                self._detach(self._server(key), volume)
                return Reply(202)
        raise Refusal(404, "itemNotFound", "The resource could not be found.")

    def _server(self, key: str) -> Item:
        if key not in self.servers:
            raise missing("Instance", key)
        return self.servers[key]

    def _nova_limits(self) -> Item:
        sizes = [server["flavor"] for server in self.servers.values()]
        return {
            "maxTotalInstances": self.limits["instances"],
            "totalInstancesUsed": len(sizes),
            "maxTotalCores": self.limits["cores"],
            "totalCoresUsed": sum(size["vcpus"] for size in sizes),
            "maxTotalRAMSize": self.limits["ram"],
            "totalRAMUsed": sum(size["ram"] for size in sizes),
        }

    def _new_server(self, order: Item) -> Item:
        self._check_server(order)
        flavor = next((each for each in FLAVORS if each[0] == order["flavorRef"]), None)
        if flavor is None:
            raise Refusal(400, "badRequest", f"Flavor {order['flavorRef']} could not be found.")
        limits = self._nova_limits()
        if limits["totalCoresUsed"] + flavor[2] > limits["maxTotalCores"]:
            raise Refusal(403, "forbidden", "Quota exceeded for cores: Requested 1, but already used 64 of 64 cores")
        for mapping in order.get("block_device_mapping_v2", ()):
            if self._volume(mapping["uuid"])["status"] != "available":
                raise Refusal(
                    400, "badRequest", f"Invalid volume: volume {mapping['uuid']} status must be 'available'."
                )
        server = self.make(order, flavor)
        for mapping in order.get("block_device_mapping_v2", ()):
            self._attach(server, mapping["uuid"])
        return server

    @staticmethod
    def _check_server(order: Item) -> None:
        """Nova's schema, where a request can violate it."""
        name = order["name"]
        fine = not set(order) - _SERVER and name == name.strip() and 1 <= len(name) <= 255 and name.isprintable()
        fine = fine and all(len(tag) <= 60 and not set(tag) & set("/,") for tag in order["tags"])
        fine = fine and all(isinstance(value, str) and len(value) <= 255 for value in order["metadata"].values())
        fine = fine and (
            order["networks"] in ("auto", "none") or all(set(each) == {"uuid"} for each in order["networks"])
        )
        fine = fine and all(re.fullmatch(r"[\w. :-]{1,255}", key) for key in order["metadata"])
        if not fine:
            raise Refusal(400, "badRequest", f"Invalid input for field/attribute server: {order}")
        if order["availability_zone"] not in ZONES:
            raise Refusal(400, "badRequest", "The requested availability zone is not available")

    def make(self, order: Item, flavor: tuple[Any, ...]) -> Item:
        """A server that is being built."""
        key = str(uuid.uuid4())
        size = {"vcpus": flavor[2], "ram": flavor[3], "disk": flavor[4], "original_name": flavor[1]}
        server = self.servers[key] = {
            "id": key,
            "name": order["name"],
            "created": f"2026-01-01T00:00:{next(self._numbers):06d}Z",
            "status": "BUILD",
            "OS-EXT-STS:task_state": "scheduling",
            "OS-EXT-AZ:availability_zone": "",
            "flavor": size,
            "metadata": order.get("metadata", {}),
            "tags": order.get("tags", []),
            "os-extended-volumes:volumes_attached": [],
            "order": order,
            "then": None,
        }
        fault, self.fault = self.fault, None

        def built() -> None:
            server["OS-EXT-STS:task_state"] = None
            if fault is None:
                server.update({"status": "ACTIVE", "OS-EXT-AZ:availability_zone": order["availability_zone"]})
            else:
                server.update({"status": "ERROR", "fault": {"code": 500, "message": fault}})

        self._soon(server, built)
        return server

    def act(self, server: Item, action: str) -> None:
        """Have a server start, stop and so on."""
        steps = {
            "os-start": (("SHUTOFF",), "ACTIVE"),
            "os-stop": (("ACTIVE", "ERROR"), "SHUTOFF"),
            "pause": (("ACTIVE",), "PAUSED"),
            "unpause": (("PAUSED",), "ACTIVE"),
            "suspend": (("ACTIVE",), "SUSPENDED"),
            "resume": (("SUSPENDED",), "ACTIVE"),
            "shelve": (("ACTIVE", "SHUTOFF"), "SHELVED_OFFLOADED"),
            "unshelve": (("SHELVED", "SHELVED_OFFLOADED"), "ACTIVE"),
        }
        before, after = steps[action]
        if server["status"] not in before or server["OS-EXT-STS:task_state"] is not None:
            text = f"Cannot '{action}' instance {server['id']} while it is in vm_state {server['status']}"
            raise Refusal(409, "conflictingRequest", text)
        server["OS-EXT-STS:task_state"] = "powering"
        self._soon(server, lambda: server.update({"status": after, "OS-EXT-STS:task_state": None}))

    def _delete_server(self, server: Item) -> None:
        for each in server["os-extended-volumes:volumes_attached"]:
            self.volumes[each["id"]].update(status="available", attachments=[])
        server["status"] = "gone"

    def _attach(self, server: Item, key: str) -> None:
        volume = self._volume(key)
        if volume["status"] != "available":
            raise Refusal(400, "badRequest", f"Invalid volume: volume {key} status must be 'available'.")
        server["os-extended-volumes:volumes_attached"].append({"id": key, "delete_on_termination": False})
        volume["status"] = "attaching"
        self._soon(volume, lambda: volume.update(status="in-use", attachments=[{"server_id": server["id"]}]))

    def _detach(self, server: Item, key: str) -> None:
        volume, here = self._volume(key), server["os-extended-volumes:volumes_attached"]
        if key not in [each["id"] for each in here]:
            raise missing("Volume attachment", key)
        volume["status"] = "detaching"

        def detached() -> None:
            volume.update(status="available", attachments=[])
            here[:] = [each for each in here if each["id"] != key]

        self._soon(volume, detached)

    # Cinder

    def _cinder(self, call: Call, path: tuple[str, ...]) -> Reply:
        if call.headers.get("openstack-api-version") != "volume 3.42":
            raise Refusal(406, "computeFault", "Version is not supported by the API.")
        match call.method, *path:
            case "GET", "limits":
                return Reply(200, {"limits": {"absolute": self._cinder_limits()}})
            case "GET", "os-availability-zone":
                zones = [{"zoneName": zone, "zoneState": {"available": True}} for zone in ZONES]
                return Reply(200, {"availabilityZoneInfo": zones})
            case "GET", "types":
                return Reply(200, {"volume_types": [{"id": name * 2, "name": name} for name in TYPES]})
            case "GET", "volumes", "detail":
                name = call.query.get("name")
                items = [item for item in self.volumes.values() if name in (None, item["name"])]
                return self._page(call, "volumes", items[::-1])
            case "GET", "volumes", key:
                return Reply(200, {"volume": {k: v for k, v in self._volume(key).items() if k != "then"}})
            case "POST", "volumes":
                return Reply(202, {"volume": {"id": self._new_volume(call.body["volume"])["id"]}})
            case "DELETE", "volumes", key:
                volume = self._volume(key)
                if volume["status"] not in ("available", "error"):
                    raise Refusal(400, "badRequest", "Invalid volume: Volume status must be available or error.")
                volume["status"] = "deleting"
                self._soon(volume, lambda: volume.update(status="gone"))
                return Reply(202)
            case "POST", "volumes", key, "action":
                volume, size = self._volume(key), call.body["os-extend"]["new_size"]
                passing = volume["status"]
                if passing not in ("available", "in-use"):
                    text = f"Invalid volume: Volume {key} status must be '('available', 'in-use')' to extend"
                    raise Refusal(400, "badRequest", f"{text}, currently {passing}.")
                volume["status"] = "extending"
                self._soon(volume, lambda: volume.update(status=passing, size=size))
                return Reply(202)
        raise Refusal(404, "itemNotFound", "The resource could not be found.")

    def _volume(self, key: str) -> Item:
        if key not in self.volumes:
            raise missing("Volume", key)
        return self.volumes[key]

    def _cinder_limits(self) -> Item:
        return {
            "maxTotalVolumes": self.limits["volumes"],
            "totalVolumesUsed": len(self.volumes),
            "maxTotalVolumeGigabytes": self.limits["gigabytes"],
            "totalGigabytesUsed": sum(volume["size"] for volume in self.volumes.values()),
        }

    def _new_volume(self, order: Item) -> Item:
        fine = not set(order) - _VOLUME and len(order["name"]) <= 255 and len(order["description"]) <= 255
        if not fine or order["availability_zone"] not in ZONES or order["volume_type"] not in TYPES:
            raise Refusal(400, "badRequest", f"Invalid input received: {order}")
        limits = self._cinder_limits()
        if limits["totalGigabytesUsed"] + order["size"] > limits["maxTotalVolumeGigabytes"]:
            text = "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota."
            raise Refusal(413, "overLimit", text)
        return self.make_volume(**order)

    def make_volume(self, name: str, size: int, **order: Any) -> Item:
        """A volume that is being made."""
        key = str(uuid.uuid4())
        volume = self.volumes[key] = {
            "id": key,
            "name": name,
            "size": size,
            "created_at": f"2026-01-01T00:00:{next(self._numbers):06d}",
            "status": "creating",
            "attachments": [],
            "metadata": {},
            "description": None,
            "then": None,
            **order,
        }
        self._soon(volume, lambda: volume.update(status="available"))
        return volume

    # names

    def _glance(self, call: Call, path: tuple[str, ...]) -> Reply:
        assert path == ("v2", "images")
        return Reply(200, {"images": [each for each in self.images if each["name"] == call.query["name"]]})

    def _neutron(self, call: Call, path: tuple[str, ...]) -> Reply:
        assert path == ("v2.0", "networks")
        return Reply(200, {"networks": [each for each in self.networks if each["name"] == call.query["name"]]})
