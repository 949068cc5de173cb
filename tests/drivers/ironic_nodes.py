"""A stand-in for Ironic's API, in memory: nodes with the states of provisioning and power, which take time;
allocations; locks; microversions; pages. What it answers was seen on Ironic 39.0, on which the same tests run."""

from __future__ import annotations

import json
import time
from typing import Any

from .json_service import Call, Reply

Item = dict[str, Any]
NEWEST = (1, 115)
DELETABLE = ("active", "deploy failed", "error", "wait call-back", "rescue")


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Nodes:
    """``ready``: seconds that a change takes. ``locked``: requests that are refused since their node is locked."""

    def __init__(self, count: int, ready: float = 0.0) -> None:
        self.ready = ready
        self.locked = 0
        self.fails: dict[str, str] = {}
        """By node: the provision state that its next change ends in."""
        self.deaf = set[str]()
        """Nodes whose guests do not shut down when they are asked."""
        self.allocations: dict[str, Item] = {}
        self.nodes: dict[str, Item] = {}
        for number in range(1, count + 1):
            self.add(f"00000000-0000-4000-9000-{number:012d}", f"bm-{number}")

    def add(self, uuid: str, name: str | None, **more: Any) -> Item:
        """Enrol a node."""
        self.nodes[uuid] = {
            "uuid": uuid,
            "name": name,
            "resource_class": "baremetal",
            "traits": [],
            "properties": {"cpus": 8, "memory_mb": "32768", "local_gb": 100},
            "instance_uuid": None,
            "instance_info": {},
            "provision_state": "available",
            "power_state": "power off",
            "target_power_state": None,
            "maintenance": False,
            "fault": None,
            "retired": False,
            "last_error": None,
            "then": None,
            **more,
        }
        return self.nodes[uuid]

    def node(self, name: str) -> Item:
        """A node by its name or uuid."""
        self._go_on()
        for node in self.nodes.values():
            if name in (node["uuid"], node["name"]):
                return node
        raise Refusal(404, f"Node {name} could not be found.")

    def _go_on(self) -> None:
        """Bring to an end what is due."""
        for node in self.nodes.values():
            if node["then"] is not None and time.monotonic() >= node["then"][0]:
                change = node["then"][1]
                node["then"] = None
                node.update(change)
                if change.get("provision_state") == "cleaning":
                    self._begin(node, {"provision_state": "available"})
        for each in self.allocations.values():
            if each["state"] == "allocating":
                self._allocate(each)

    def _begin(self, node: Item, change: Item) -> None:
        node["then"] = (time.monotonic() + self.ready, change)

    def _allocate(self, allocation: Item) -> None:
        for key in allocation["candidate_nodes"]:
            node = self.nodes[key]
            fits = node["resource_class"] == allocation["resource_class"]
            fits = fits and set(node["traits"]) >= set(allocation["traits"]) and not node["maintenance"]
            if (
                fits
                and node["provision_state"] == "available"
                and node["instance_uuid"] is None
                and node["power_state"]
            ):
                node["instance_uuid"] = allocation["uuid"]
                allocation.update(state="active", node_uuid=key)
                return
        text = f"Failed to process allocation {allocation['uuid']}: none of the requested nodes are available"
        allocation.update(state="error", last_error=text)

    def answer(self, call: Call) -> Reply:
        """What Ironic says to a request."""
        asked = call.headers.get("x-openstack-ironic-api-version", "1.1")
        versions = {"X-OpenStack-Ironic-API-Maximum-Version": "1.115", "X-OpenStack-Ironic-API-Version": asked}
        try:
            if tuple(map(int, asked.split("."))) > NEWEST:
                raise Refusal(406, f"Version {asked} was requested but the minor version is not supported")
            return self._answer(call)._replace(headers=versions)
        except Refusal as refusal:
            fault = {"faultcode": "Client", "faultstring": refusal.text, "debuginfo": None}
            return Reply(refusal.status, {"error_message": json.dumps(fault)}, versions)

    def _answer(self, call: Call) -> Reply:
        match call.method, *call.parts:
            case "GET", "v1", ("nodes" | "allocations") as kind:
                self._go_on()
                return Reply(200, self._page(kind, call))
            case "GET", "v1", "nodes", name:
                return Reply(200, self._shown(self.node(name)))
            case "GET", "v1", "allocations", uuid:
                self._go_on()
                return Reply(200, self._allocation(uuid))
            case "POST", "v1", "allocations":
                return Reply(201, self._new(call.body))
            case "DELETE", "v1", "allocations", uuid:
                self._release(self._allocation(uuid))
                return Reply(204)
            case "PATCH", "v1", "nodes", name:
                return Reply(200, self._shown(self._patched(self._unlocked(name), call.body)))
            case "PUT", "v1", "nodes", name, "states", ("provision" | "power") as what:
                node = self._unlocked(name)
                (self._provision if what == "provision" else self._power)(node, call.body)
                return Reply(202)
        raise Refusal(404, "The resource could not be found.")

    def _page(self, kind: str, call: Call) -> Item:
        items = list((self.nodes if kind == "nodes" else self.allocations).values())
        keys, marker, limit = [each["uuid"] for each in items], call.query.get("marker"), int(call.query["limit"])
        if marker is not None and marker not in keys:
            raise Refusal(404, f"{kind[:-1].title()} with marker {marker} could not be found.")
        first = 0 if marker is None else keys.index(marker) + 1
        shown = [self._shown(each) for each in items[first : first + limit]]
        more = (
            {"next": f"http://{call.host}/v1/{kind}?marker={keys[first + limit - 1]}"} if keys[first + limit :] else {}
        )
        return {kind: shown, **more}

    @staticmethod
    def _shown(item: Item) -> Item:
        return {name: value for name, value in item.items() if name != "then"}

    def _allocation(self, uuid: str) -> Item:
        if uuid not in self.allocations:
            raise Refusal(404, f"Allocation {uuid} could not be found.")
        return self.allocations[uuid]

    def _new(self, body: Item) -> Item:
        if body["uuid"] in self.allocations:
            raise Refusal(409, f"An allocation with UUID {body['uuid']} already exists.")
        unknown = set(body["candidate_nodes"]) - set(self.nodes)
        if unknown:
            raise Refusal(400, f"Nodes cannot be found: {', '.join(unknown)}")
        new = {"name": None, "traits": [], "extra": {}, **body, "state": "allocating", "node_uuid": None}
        self.allocations[body["uuid"]] = {**new, "last_error": None}
        return dict(self.allocations[body["uuid"]])

    def _release(self, allocation: Item) -> None:
        if allocation["node_uuid"] is not None:
            node = self._unlocked(allocation["node_uuid"])
            if node["provision_state"] != "available" and not node["maintenance"]:
                text = f"Cannot remove allocation {allocation['uuid']} for node {node['uuid']}, because the node is "
                raise Refusal(409, f"{text}{node['provision_state']} (and maintenance mode is off)")
            node["instance_uuid"] = None
        del self.allocations[allocation["uuid"]]

    def _unlocked(self, name: str) -> Item:
        node = self.node(name)
        if self.locked:
            self.locked -= 1
            raise Refusal(409, f"Node {node['uuid']} is locked by host conductor-1, please retry after it is done.")
        return node

    @staticmethod
    def _patched(node: Item, patch: list[Item]) -> Item:
        for each in patch:
            assert each["op"] == "add"
            _, first, name = each["path"].split("/")
            assert first == "instance_info"
            node["instance_info"][name.replace("~1", "/").replace("~0", "~")] = each["value"]
        return node

    def _provision(self, node: Item, body: Item) -> None:
        target, state = body["target"], node["provision_state"]
        if node["maintenance"]:
            raise Refusal(400, f"The provisioning operation can't be performed on node {node['uuid']}: in maintenance")
        if state not in {"active": ("available",), "deleted": DELETABLE}[target]:
            text = f'The requested action "{target}" can not be performed on node "{node["uuid"]}" '
            raise Refusal(400, f'{text}while it is in state "{state}".')
        failed = self.fails.pop(node["uuid"], None)
        if target == "active":
            if not {"image_source", "ramdisk"} & set(node["instance_info"]):
                raise Refusal(400, "Failed to validate deploy: some parameters were missing: image_source")
            node.update(provision_state="deploying", configdrive=body.get("configdrive"))
            change = {"provision_state": failed or "active", "power_state": "power off" if failed else "power on"}
            self._begin(node, {**change, "last_error": "no agent" if failed else None})
        elif failed:
            node.update(provision_state="deleting")
            self._begin(node, {"provision_state": failed, "last_error": "the power cannot be switched"})
        else:
            self.allocations.pop(node["instance_uuid"] or "", None)
            node.update(provision_state="deleting", power_state="power off", instance_uuid=None, instance_info={})
            self._begin(node, {"provision_state": "cleaning"})

    def _power(self, node: Item, body: Item) -> None:
        to = body["target"].removeprefix("soft ")
        node["target_power_state"] = to
        heard = body["target"] == to or node["uuid"] not in self.deaf
        self._begin(node, {"target_power_state": None, **({"power_state": to} if heard else {})})
