"""Whatever a caller of a hook sends in place of a value, it is answered, or refused as malformed: the service does not
fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

from hostler.core.http.errors import HttpError
from hostler.core.http.hooks import opennebula
from hostler.core.http.hooks.api import HooksApi
from hostler.core.http.hooks.config import HooksConfig
from hostler.core.http.messages import Request
from hostler.core.service import Service
from hostler.core.writer.writer import open_writer

from ..core.orders import NOW, machine
from ..replacing import OTHERS, paths, replaced
from .test_hooks import NOVA, nova_request
from .test_snapshot_hooks import host, needs, snapshot, vm

UUID = "11111111-2222-4333-8444-555555555555"
POD = {
    "metadata": {"name": "w", "namespace": "d", "uid": UUID, "labels": {"a": "b"}},
    "spec": {
        "nodeSelector": {"topology.kubernetes.io/zone": "z"},
        "containers": [{"name": "c", "resources": {"requests": {"memory": "1Gi", "cpu": "100m", "x.y/gpu": "1"}}}],
        "initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"cpu": 1}}}],
        "overhead": {"cpu": "10m"},
    },
}
NODES = {"Pod": POD, "NodeNames": ["node-0", "zz"]}
POOLS = {"context": {}, "hosts": [{"host": "n@b#p"}], "weights": {"n@b#p": 1.0}}
GROUP = (
    "<VM_GROUP><ID>5</ID><ROLES><ROLE><NAME>a</NAME><POLICY>AFFINED</POLICY><HOST_AFFINED>1,2</HOST_AFFINED>"
    "<HOST_ANTI_AFFINED>3</HOST_ANTI_AFFINED></ROLE></ROLES><TEMPLATE><AFFINED>a,b</AFFINED></TEMPLATE></VM_GROUP>"
)
KIND = {"name": "t", "extra_specs": {"a": "b"}}


def nova() -> dict[str, Any]:
    found = nova_request("node-0", "node-1")
    data = found["spec"]["nova_object.data"]
    data |= {"instance_uuid": UUID, "scheduler_hints": {"same_host": [UUID], "query": ['["=", "$free_ram_mb", 1]']}}
    specs = {"hw:cpu_policy": "dedicated", "trait:CUSTOM_X": "required", "aggregate_instance_extra_specs:a": "b"}
    data["flavor"]["nova_object.data"]["extra_specs"] = specs
    return found


REQUESTS: dict[str, tuple[str, Any]] = {
    "nova": (NOVA, nova()),
    "cinder": (
        "/scheduler/cinder/external",
        {"spec": {"volume_properties": {"size": 1, "availability_zone": "z"}, "volume_type": KIND}, **POOLS},
    ),
    "manila": ("/scheduler/manila/external", {"spec": {"share_properties": {"size": 1}, "share_type": KIND}, **POOLS}),
    "filter": ("/kubernetes/filter", NODES),
    "filter in full": ("/kubernetes/filter", {"Pod": POD, "Nodes": {"items": [{"metadata": {"name": "node-0"}}]}}),
    "prioritize": ("/kubernetes/prioritize", NODES),
    "preempt": (
        "/kubernetes/preempt",
        {"Pod": POD, "NodeNameToMetaVictims": {"node-0": {"Pods": [{"UID": UUID}], "NumPDBViolations": 0}}},
    ),
    "preempt in full": (
        "/kubernetes/preempt",
        {"Pod": POD, "NodeNameToVictims": {"node-0": {"Pods": [{"metadata": {"uid": UUID}}], "NumPDBViolations": 0}}},
    ),
    "bind": ("/kubernetes/bind", {"PodName": "w", "PodNamespace": "d", "PodUID": UUID, "Node": "node-0"}),
    "ironic": (
        "/ironic/allocations",
        {"resource_class": "gold", "traits": ["CUSTOM_A"], "candidate_nodes": ["node-0"], "uuid": UUID, "owner": "o"},
    ),
    "confirm": ("/holds/confirm", {"uuids": [UUID]}),
}


async def ask(path: str, bodies: Iterator[tuple[object, bytes]]) -> list[int]:
    """The statuses of requests, each of which is no fault of the service."""
    m, statuses = machine(2), []
    async with open_writer(m) as writer:
        service = Service(m, writer, clock=lambda: NOW)
        api = HooksApi(service, HooksConfig(hold_nova=True), clock=lambda: NOW)
        for what, body in bodies:

            async def read(body: bytes = body) -> bytes:
                return body

            response, exchange = await api.respond(Request("POST", path, "", {}, read))
            assert not exchange.problem, (what, exchange.problem)
            statuses.append(response.status)
    return statuses


@pytest.mark.parametrize("name", REQUESTS)
async def test_no_value_of_a_request_makes_the_service_fail(name: str) -> None:
    path, body = REQUESTS[name]
    bodies = (
        ((where, other), json.dumps(replaced(body, where, other)).encode()) for where in paths(body) for other in OTHERS
    )
    assert set(await ask(path, bodies)) <= {200, 201, 400, 404, 409}


@pytest.mark.parametrize("name", REQUESTS)
async def test_no_depth_of_a_value_makes_the_service_fail(name: str) -> None:
    """Between what is decoded and what is too deep to be decoded are depths that a handler cannot walk."""
    path, body = REQUESTS[name]
    nested = [
        (before * levels + "1" + after * levels).encode()
        for levels in (40, 600, 50_000)
        for before, after in (("[", "]"), ('{"a":', "}"), ('{"nova_object.data":', "}"))
    ]
    bodies = (
        ((where, value[:20], len(value)), json.dumps(replaced(body, where, "@@")).encode().replace(b'"@@"', value))
        for where in paths(body)
        for value in nested
    )
    assert set(await ask(path, bodies)) <= {200, 201, 400, 404, 409}


@pytest.mark.parametrize("plan", [opennebula._placement, opennebula._optimization])
def test_no_text_or_element_of_a_snapshot_makes_the_service_fail(plan: Callable[[bytes], bytes]) -> None:
    """Both are worked out in a child process, here without one."""
    machines = vm(7, role="a") + vm(8, on=1)
    whole = snapshot(host(1) + host(2, used=100), machines, needs(7, 1, 2, nics={0: (3,)}), groups=GROUP)
    for number, element in enumerate(ElementTree.fromstring(whole).iter()):
        for text in ("", "x", "-1", "0", "1e300", "nan", "inf", "1" * 30, "1" * 5_000, "\u0663", "\u00b2"):
            tree = ElementTree.fromstring(whole)
            each = list(tree.iter())[number]
            for inner in list(each):
                each.remove(inner)
            each.text = text
            try:
                plan(ElementTree.tostring(tree))
            except HttpError as error:
                assert error.status == 400, (element.tag, text)  # noqa: PT017  # any other error fails the test
