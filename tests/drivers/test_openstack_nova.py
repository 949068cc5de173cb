"""The driver openstack passes the conformance suite of compute on a real Nova: that at the address in the variable
HOSTLER_TEST_NOVA (such as http://127.0.0.1:8774/v2.1), which takes the token ``admin:admin``, has a zone ``nova``, a
flavor of one vCPU and 512 MiB, and no networks. Keystone is a stand-in; passed on Nova 34.0.0 with its fake virt
driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from hostler.drivers.compute import openstack
from hostler.drivers.conformance import ComputeBench, ComputeConformance

from ..patience import HANG_SECONDS
from .fault_proxy import FaultProxy
from .json_service import Call, Reply, served
from .openstack_cloud import IMAGE

NOVA = os.environ.get("HOSTLER_TEST_NOVA", "")
TOKEN = "admin:admin"
pytestmark = [pytest.mark.soak, pytest.mark.skipif(not NOVA, reason="HOSTLER_TEST_NOVA names no Nova")]


class TestOpenStackComputesOnNova(ComputeConformance):
    @pytest.fixture
    def bench(self) -> Iterator[ComputeBench]:
        at = urlsplit(NOVA)
        with (
            FaultProxy(str(at.hostname), at.port or 8774, lambda request: request.method != "GET").running() as proxy,
            served(lambda call: _login(call, f"{proxy.endpoint}{at.path}")) as (host, port),
        ):
            yield _bench(proxy, f"{proxy.endpoint}{at.path}/", f"http://{host}:{port}")


def _login(call: Call, nova: str) -> Reply:
    endpoints = [{"interface": "public", "url": nova}]
    return Reply(201, {"token": {"catalog": [{"type": "compute", "endpoints": endpoints}]}}, {"X-Subject-Token": TOKEN})


def _bench(proxy: FaultProxy, nova: str, identity: str) -> ComputeBench:
    async def ask(method: str, path: str, body: Any = None) -> Any:
        headers = {"X-Auth-Token": TOKEN, "OpenStack-API-Version": "compute 2.60"}
        async with httpx.AsyncClient(base_url=nova, headers=headers, timeout=HANG_SECONDS) as client:
            return (await client.request(method, path, json=body)).raise_for_status()

    async def make_stranger() -> str:
        order = {"name": "www", "flavorRef": "1", "networks": "none", "imageRef": IMAGE}
        return str((await ask("POST", "servers", {"server": order})).json()["server"]["id"])

    async def change_outside(uuid: str, what: Literal["stop", "remove"]) -> None:
        (server,) = (await ask("GET", f"servers/detail?tags=hostler-{uuid}")).json()["servers"]
        if what == "stop":
            await ask("POST", f"servers/{server['id']}/action", {"os-stop": None})
            return
        await ask("DELETE", f"servers/{server['id']}")
        for _ in range(100):
            if not (await ask("GET", f"servers/detail?tags=hostler-{uuid}")).json()["servers"]:
                return
            await trio.sleep(0.1)

    account = {"auth_url": identity, "username": "admin", "password": "secret", "project": "admin"}
    options = {**account, "page": 2, "look_seconds": 0.2, "network": "none", "volume_types": []}
    return ComputeBench(
        open=lambda context: openstack.open_driver(options, context),
        node="nova",
        vcpus=1,
        memory_mb=512,
        image=IMAGE,
        lose_answers=proxy.lose_answers,
        outage=proxy.outage,
        hang=proxy.hang,
        make_stranger=make_stranger,
        change_outside=change_outside,
        page=5,
    )
