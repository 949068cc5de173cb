"""A made-up cloud as the Placement API sees it, and the calls that a scheduler makes of it."""

from __future__ import annotations

import http.client
import json
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

_NAMESPACE: Final = uuid.UUID("0d1c6a55-93b7-5a0f-8f5d-3f6b3a0e7c11")
TRAITS: Final = tuple(f"CUSTOM_BENCH_{number:02}" for number in range(20))
AGGREGATES: Final = tuple(str(uuid.uuid5(_NAMESPACE, f"aggregate-{number}")) for number in range(10))
PROJECTS: Final = tuple(uuid.uuid5(_NAMESPACE, f"project-{number}").hex for number in range(20))


@dataclass(frozen=True)
class Node:
    """A resource provider."""

    name: str
    parent: str | None
    inventories: dict[str, dict[str, Any]]
    traits: tuple[str, ...] = ()
    aggregates: tuple[str, ...] = ()

    @property
    def uuid(self) -> str:
        """Made from the name."""
        return str(uuid.uuid5(_NAMESPACE, self.name))


def nodes(count: int, *, nested: bool) -> Iterator[Node]:
    """``count`` compute nodes, parents first; each trait is on 8 of 20 of them, each node in one or two aggregates.

    ``nested``: CPUs and memory are in two NUMA cells below, and there are two GPUs.
    """
    for number in range(count):
        name = f"node-{number:06}"
        traits = tuple(sorted({TRAITS[(number * 7 + step * 3) % 20] for step in range(8)}))
        aggregates = tuple(sorted({AGGREGATES[number % 10], AGGREGATES[number // 10 % 10]}))
        if not nested:
            inventories = {"VCPU": _of(64, ratio=4.0), "MEMORY_MB": _of(262_144, reserved=512), "DISK_GB": _of(2_000)}
            yield Node(name, None, inventories, traits, aggregates)
            continue
        yield Node(name, None, {"DISK_GB": _of(2_000)}, traits, aggregates)
        for cell in range(2):
            inventories = {"VCPU": _of(32, ratio=4.0), "MEMORY_MB": _of(131_072)}
            yield Node(f"{name}-cell-{cell}", name, inventories, ("HW_NUMA_ROOT",))
        for gpu in range(2):
            yield Node(f"{name}-gpu-{gpu}", name, {"VGPU": _of(16)})


def _of(total: int, *, ratio: float = 1.0, reserved: int = 0) -> dict[str, Any]:
    figures = {"total": total, "reserved": reserved, "min_unit": 1, "max_unit": total, "step_size": 1}
    return figures | {"allocation_ratio": ratio}


class Client:
    """Calls of one server at 1.39, one after the other."""

    def __init__(self, port: int, seed: str = "") -> None:
        self.port, self.random = port, random.Random(seed)
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of the answer; the connection is kept where the server lets it."""
        headers = {"x-auth-token": "admin", "openstack-api-version": "placement 1.39", "accept": "application/json"}
        data = None if body is None else json.dumps(body)
        if data is not None:
            headers["content-type"] = "application/json"
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        self._connection.request(method, path, data, headers)
        answer = self._connection.getresponse()
        raw = answer.read()
        if answer.will_close:
            self._connection.close()
            self._connection = None
        return answer.status, raw

    def must(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that must be a success."""
        status, raw = self.call(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {raw[:300]!r}")
        return json.loads(raw) if raw else None


def load(client: Client, cloud: Iterator[Node]) -> int:
    """Make the nodes through the API; returns how many."""
    count = 0
    for trait in TRAITS:
        client.must("PUT", f"/traits/{trait}")
    for count, node in enumerate(cloud, 1):  # noqa: B007  # the last number is the answer
        parent = str(uuid.uuid5(_NAMESPACE, node.parent)) if node.parent else None
        body = {"name": node.name, "uuid": node.uuid, "parent_provider_uuid": parent}
        generation = client.must("POST", "/resource_providers", body)["generation"]
        for part, value in (
            ("inventories", node.inventories),
            ("traits", node.traits),
            ("aggregates", node.aggregates),
        ):
            if value:
                asked = {part: value, "resource_provider_generation": generation}
                answer = client.must("PUT", f"/resource_providers/{node.uuid}/{part}", asked)
                generation = answer["resource_provider_generation"]
    return count


# operations


def candidates_path(trait: str, limit: int, *, nested: bool) -> str:
    """A query for a small guest; nested: disk from the root, the rest from one NUMA cell."""
    if not nested:
        wish = f"resources=VCPU:2,MEMORY_MB:4096,DISK_GB:20&required={trait}"
    else:
        wish = f"resources=DISK_GB:20&resources_C=VCPU:2,MEMORY_MB:4096&root_required={trait}&group_policy=none"
    return f"/allocation_candidates?{wish}&limit={limit}"


Operation = Callable[[Client, list[Node], bool], bool]
"""Does its work once; whether it succeeded."""


def _ask(limit: int) -> Operation:
    def ask(client: Client, cloud: list[Node], nested: bool) -> bool:
        client.must("GET", candidates_path(client.random.choice(TRAITS), limit, nested=nested))
        return True

    return ask


def _consumer(client: Client, allocations: Any) -> tuple[str, dict[str, Any]]:
    path = f"/allocations/{uuid.UUID(int=client.random.getrandbits(128), version=4)}"
    body = {"allocations": allocations, "project_id": client.random.choice(PROJECTS), "user_id": "bench"}
    return path, body | {"consumer_generation": None, "consumer_type": "INSTANCE"}


def _write(client: Client, cloud: list[Node], nested: bool) -> bool:
    """An allocation on some node, unasked."""
    node = client.random.choice(cloud)
    resources = dict.fromkeys(node.inventories, 1)
    status, _ = client.call("PUT", *_consumer(client, {node.uuid: {"resources": resources}}))
    return status == 204


def _schedule(client: Client, cloud: list[Node], nested: bool) -> bool:
    """What a scheduler does for a guest: ask for a candidate and claim it."""
    found = client.must("GET", candidates_path(client.random.choice(TRAITS), 1, nested=nested))
    (candidate,) = found["allocation_requests"]
    status, _ = client.call("PUT", *_consumer(client, candidate["allocations"]))
    return status == 204


OPERATIONS: Final[dict[str, Operation]] = {
    "candidates, limit 1": _ask(1),
    "candidates, limit 1000": _ask(1_000),
    "write an allocation": _write,
    "candidate + claim": _schedule,
}
