"""The drivers of OpenStack's services in a scheduler, which places, builds and removes guests by them."""

from __future__ import annotations

from typing import Any

import pytest
import trio

pytest.importorskip("httpx", reason="httpx is not installed")

from hostler import Flavor, Request, RequestSpec, Scheduler, open_scheduler
from hostler.core.lifecycle_commands import guest_volume

from .fault_proxy import FaultProxy
from .ironic_nodes import Nodes
from .json_service import served
from .openstack_cloud import Cloud
from .test_ironic import options as ironic_options
from .test_openstack_cloud import options as openstack_options


def config(driver: str, options: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"backends": {"there": {"driver": driver, "options": {**options, "poll": 0.1}, **more}}}


async def ready(scheduler: Scheduler) -> None:
    while not scheduler.status().backends[0].nodes:  # noqa: ASYNC110  # the status has no events
        await trio.sleep(0.02)


def request(vcpus: int, memory_mb: int) -> Request:
    return Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=vcpus, memory_mb=memory_mb)), project_id="p")


async def test_a_server_is_built_with_its_volumes_and_all_is_removed_again() -> None:
    cloud = Cloud(ready=0.01)
    with served(cloud.answer) as address, FaultProxy(*address, lambda request: False).running() as proxy:
        async with open_scheduler(
            config("openstack", openstack_options(proxy), images={"stable": "debian"})
        ) as scheduler:
            await ready(scheduler)
            wanted = (guest_volume(10, project_id="p"), guest_volume(3, keep=True, project_id="p"))
            decision = await scheduler.create_guest(request(2, 2_048), name="web", image="stable", volumes=wanted)
            (selection,) = decision.selections
            found = await scheduler.until_settled(selection.instance_uuid)
            assert found is not None
            assert (found.status, found.node) == ("active", selection.node)
            (server,) = cloud.servers.values()
            assert server["OS-EXT-AZ:availability_zone"] == selection.node
            attached = {each["id"] for each in server["os-extended-volumes:volumes_attached"]}
            assert attached == set(cloud.volumes)
            await scheduler.stop_guest(selection.instance_uuid)
            found = await scheduler.until_settled(selection.instance_uuid)
            assert found is not None
            assert (found.status, server["status"]) == ("stopped", "SHUTOFF")
            await scheduler.delete_guest(selection.instance_uuid)
            while cloud.servers or len(cloud.volumes) > 1:  # noqa: ASYNC110  # the cloud has no events
                await trio.sleep(0.02)
            assert [volume["size"] for volume in cloud.volumes.values()] == [3]


async def test_a_server_that_no_host_takes_is_built_in_another_zone() -> None:
    cloud = Cloud(ready=0.01)
    cloud.fault = "No valid host was found."
    with served(cloud.answer) as address, FaultProxy(*address, lambda request: False).running() as proxy:
        options = openstack_options(proxy, volume_types=[])
        async with open_scheduler(config("openstack", options)) as scheduler:
            await ready(scheduler)
            first = (await scheduler.create_guest(request(1, 512), image="debian")).selections[0]
            found = await scheduler.until_settled(first.instance_uuid)
            assert found is not None
            assert found.status == "active"
            assert found.node != first.node
            assert [server["status"] for server in cloud.servers.values()] == ["ACTIVE"]


async def test_a_deployment_that_fails_is_tried_on_another_node_and_again_when_it_is_wanted() -> None:
    nodes = Nodes(2, ready=0.01)
    nodes.fails = dict.fromkeys(nodes.nodes, "deploy failed")
    with served(nodes.answer) as address, FaultProxy(*address, lambda request: False).running() as proxy:
        async with open_scheduler(config("ironic", ironic_options(proxy))) as scheduler:
            await ready(scheduler)
            decision = await scheduler.create_guest(request(8, 32_768), image="debian")
            uuid = decision.selections[0].instance_uuid
            found = await scheduler.until_settled(uuid)
            assert found is not None
            assert (found.status, nodes.fails, nodes.allocations) == ("error", {}, {})
            await scheduler.start_guest(uuid)
            found = await scheduler.until_settled(uuid)
            assert found is not None
            assert (found.status, list(nodes.allocations)) == ("active", [uuid])
            await scheduler.delete_guest(uuid)
            assert await scheduler.until_settled(uuid) is None
            assert not nodes.allocations
