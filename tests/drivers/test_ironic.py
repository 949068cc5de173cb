"""The driver ironic passes the conformance suite on a stand-in, and, as a soak, on a real Ironic with the driver
fake-hardware; both behind a proxy that loses answers. The latter deploys nothing and cleans nothing, in no time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

from hostler.drivers.compute import ironic
from hostler.drivers.compute.ironic_values import STATES
from hostler.drivers.conformance import ComputeBench, ComputeConformance
from hostler.drivers.conformance.bench import OURS, all_of, new_uuid
from hostler.drivers.protocol import (
    Capacity,
    Conflict,
    Denied,
    DriverContext,
    DriverError,
    NotFound,
    Permanent,
    Transient,
    Unknown,
)
from hostler.placement.types.errors import InvalidValue

from .fault_proxy import Answer, FaultProxy, Request
from .ironic_nodes import Nodes
from .ironic_service import VERSION
from .ironic_service import ironic as real_ironic
from .json_service import served

NODE = "00000000-0000-4000-9000-000000000001"


def changes(request: Request) -> bool:
    return request.method != "GET"


@pytest.fixture
def nodes() -> Nodes:
    return Nodes(4, ready=0.005)


@pytest.fixture
def proxy(nodes: Nodes) -> Iterator[FaultProxy]:
    with served(nodes.answer) as address, FaultProxy(*address, changes).running() as proxy:
        yield proxy


def options(proxy: FaultProxy, **more: Any) -> dict[str, Any]:
    known = {"instance_info": {"debian": {"image_source": "http://images/debian.qcow2"}}}
    return {"endpoint": proxy.endpoint, "page": 2, "look_seconds": 0.01, "shutdown_seconds": 5.0, **known, **more}


def bench_of(proxy: FaultProxy, **more: Any) -> ComputeBench:
    async def ask(method: str, path: str, body: Any = None) -> Any:
        async with httpx.AsyncClient(base_url=f"{proxy.endpoint}/v1/", headers=VERSION) as client:
            return (await client.request(method, path, json=body)).raise_for_status()

    async def make_stranger() -> str:
        uuid = new_uuid()
        await ask("POST", "allocations", {"uuid": uuid, "resource_class": "baremetal", "candidate_nodes": [_key(3)]})
        return _key(3)

    async def change_outside(uuid: str, what: Literal["stop", "remove"]) -> None:
        if what == "stop":
            await ask("PUT", f"nodes/{NODE}/states/power", {"target": "power off"})
        else:
            await ask("PUT", f"nodes/{NODE}/states/provision", {"target": "deleted"})
            for _ in range(100):
                if (await ask("GET", f"nodes/{NODE}")).json()["instance_uuid"] is None:
                    return

    return ComputeBench(
        open=lambda context: ironic.open_driver(options(proxy, **more), context),
        node="bm-1",
        vcpus=8,
        memory_mb=32_768,
        image="debian",
        lose_answers=proxy.lose_answers,
        outage=proxy.outage,
        hang=proxy.hang,
        make_stranger=make_stranger,
        change_outside=change_outside,
        page=1,  # a node takes one guest
    )


def _key(number: int) -> str:
    return f"00000000-0000-4000-9000-{number:012d}"


class TestIronicComputes(ComputeConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy) -> ComputeBench:
        return bench_of(proxy)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with real_ironic(tmp_path_factory.mktemp("ironic"), 4) as port:
        yield port


@pytest.mark.soak  # it is installed from PyPI
class TestIronicComputesForReal(ComputeConformance):
    @pytest.fixture
    def bench(self, service: int) -> Iterator[ComputeBench]:
        with FaultProxy("127.0.0.1", service, changes).running() as proxy:
            yield bench_of(proxy, look_seconds=0.1)


@pytest.fixture
def bench(proxy: FaultProxy) -> ComputeBench:
    return bench_of(proxy)


# deployment


async def test_a_node_is_told_of_its_image_user_data_and_name(proxy: FaultProxy, nodes: Nodes) -> None:
    installer = {"image_source": "file:///debian.raw", "image_checksum": "abc", "kernel/~x": "y"}
    bench = bench_of(proxy, instance_info={"debian": installer})
    async with bench.driver() as driver:
        spec = bench.spec(name="web\n'1'")._replace(image="debian", disk_gb=50, user_data="#cloud-config")
        await driver.create_guest(spec)
        node = nodes.node("bm-1")
        assert node["instance_info"] == {**installer, "display_name": "web\n'1'", "root_gb": 50}
        about = {"uuid": spec.mark.uuid, "name": "web\n'1'"}
        assert node["configdrive"] == {"meta_data": about, "user_data": "#cloud-config"}


async def test_what_cannot_be_deployed_leaves_no_allocation(bench: ComputeBench, nodes: Nodes) -> None:
    async with bench.driver() as driver:
        with pytest.raises(Permanent, match="image_source"):
            await driver.create_guest(bench.spec()._replace(image=""))
        for wrong in ({"networks": ("net",)}, {"vcpus": 9}, {"memory_mb": 65_536}, {"disk_gb": 101}):
            with pytest.raises(Permanent):
                await driver.create_guest(bench.spec()._replace(**wrong))
        assert not nodes.allocations
        assert nodes.node("bm-1")["instance_uuid"] is None


@pytest.mark.parametrize("image", ["file:///etc/passwd", "http://169.254.169.254/", "debian2", "ramdisk", "../x"])
async def test_only_images_that_are_described_or_of_glance_are_taken(
    bench: ComputeBench, nodes: Nodes, image: str
) -> None:
    async with bench.driver() as driver:
        with pytest.raises(NotFound, match="no image"):
            await driver.create_guest(bench.spec()._replace(image=image))
        assert not nodes.allocations
        in_glance = new_uuid()
        await driver.create_guest(bench.spec()._replace(image=in_glance))
        assert nodes.node("bm-1")["instance_info"]["image_source"] == in_glance


async def test_a_node_takes_one_guest(bench: ComputeBench, nodes: Nodes) -> None:
    async with bench.driver() as driver:
        await driver.create_guest(bench.spec())
        with pytest.raises(Capacity, match="bm-1 is active"):
            await driver.create_guest(bench.spec())
        assert len(nodes.allocations) == 1


async def test_an_allocation_that_fails_is_removed(bench: ComputeBench, proxy: FaultProxy, nodes: Nodes) -> None:
    def taken_meanwhile(request: Request) -> None:
        if request.method == "POST":
            nodes.node("bm-1")["instance_uuid"] = new_uuid()

    async with bench.driver() as driver:
        proxy.instead = taken_meanwhile
        with pytest.raises(Capacity, match="none of the requested nodes are available"):
            await driver.create_guest(bench.spec())
        assert not nodes.allocations


async def test_a_failed_deployment_is_an_error_of_the_guest_and_can_be_undone(
    bench: ComputeBench, nodes: Nodes
) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        nodes.fails[NODE] = "deploy failed"
        assert (await driver.create_guest(spec)).state == "error"
        await driver.delete_guest(spec.mark.uuid)
        assert (nodes.node("bm-1")["provision_state"], nodes.allocations) == ("available", {})


async def test_a_deployment_that_takes_long_is_under_way_when_the_call_returns(proxy: FaultProxy, nodes: Nodes) -> None:
    nodes.ready = 3600.0
    bench = bench_of(proxy, wait_seconds=0.05)
    async with bench.driver() as driver:
        spec = bench.spec()
        assert (await driver.create_guest(spec)).state == "building"
        assert (await driver.get_guest(spec.mark.uuid)).state == "building"
        assert (await driver.create_guest(spec)).state == "building"
        nodes.node("bm-1").update(provision_state="active", power_state="power on", then=None)
        assert (await driver.get_guest(spec.mark.uuid)).state == "on"


async def test_a_reservation_that_was_never_deployed_is_listed_and_no_guest(
    bench: ComputeBench, proxy: FaultProxy, nodes: Nodes
) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        proxy.instead = lambda request: Answer(503, {}, b"") if request.path.endswith("/provision") else None
        with pytest.raises(Transient):
            await driver.create_guest(spec)
        assert [(each.mark, each.state) for each in await all_of(driver.guests())] == [(spec.mark, "building")]
        with pytest.raises(NotFound):
            await driver.get_guest(spec.mark.uuid)
        proxy.instead = lambda request: None
        assert (await driver.create_guest(spec)).state == "on"


async def test_a_node_that_cannot_be_undeployed_is_an_error_of_that_node(bench: ComputeBench, nodes: Nodes) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        nodes.fails[NODE] = "error"
        with pytest.raises(Transient, match="the power cannot be switched") as caught:
            await driver.delete_guest(spec.mark.uuid)
        assert caught.value.nodes == {"bm-1"}
        await driver.delete_guest(spec.mark.uuid)
        assert not nodes.allocations


async def test_a_guest_that_does_not_shut_down_is_switched_off(proxy: FaultProxy, nodes: Nodes) -> None:
    bench = bench_of(proxy, shutdown_seconds=0.1)
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        nodes.deaf.add(NODE)
        assert (await driver.set_power(spec.mark.uuid, "off")).state == "off"
    asked = [request.body for request in proxy.requests if request.path.endswith("/power")]
    assert asked == [b'{"target":"soft power off","timeout":1}', b'{"target":"power off"}']


# what there is


async def test_nodes_are_those_with_the_class_and_traits_that_are_wanted(proxy: FaultProxy, nodes: Nodes) -> None:
    nodes.nodes.clear()
    for number, (kind, traits) in enumerate([("gpu", ["CUSTOM_A"]), ("gpu", []), ("small", ["CUSTOM_A"]), (None, [])]):
        nodes.add(_key(number), None if number == 0 else f"n{number}", resource_class=kind, traits=traits)
    for wanted, found in (
        ({}, [_key(0), "n1", "n2"]),
        ({"resource_classes": ["gpu"]}, [_key(0), "n1"]),
        ({"resource_classes": ["gpu"], "traits": ["CUSTOM_A"]}, [_key(0)]),
    ):
        bench = bench_of(proxy, **wanted)
        async with bench.driver() as driver:
            assert [node.name for node in await all_of(driver.nodes())] == found
    async with bench.driver() as driver:
        await driver.create_guest(bench.spec()._replace(node=_key(0)))
        with pytest.raises(NotFound):
            await driver.create_guest(bench.spec()._replace(node="n2"))
    (allocation,) = nodes.allocations.values()
    assert (allocation["resource_class"], allocation["traits"]) == ("gpu", ["CUSTOM_A"])


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"maintenance": True}, "maintenance"),
        ({"retired": True}, "maintenance"),
        ({"provision_state": "manageable"}, "maintenance"),
        ({"provision_state": "clean wait"}, "maintenance"),
        ({"provision_state": "inspect failed"}, "maintenance"),
        ({"power_state": None}, "down"),
        ({"maintenance": True, "fault": "power failure"}, "down"),
        ({"provision_state": "active"}, "up"),
    ],
)
async def test_a_node_is_up_while_it_has_or_can_have_a_guest(
    proxy: FaultProxy, nodes: Nodes, change: dict[str, Any], state: str
) -> None:
    nodes.node("bm-1").update(change)
    bench = bench_of(proxy, wait_seconds=0.0)
    async with bench.driver() as driver:
        assert next(node.state for node in await all_of(driver.nodes()) if node.name == "bm-1") == state
        with pytest.raises(Capacity):
            await driver.create_guest(bench.spec())


async def test_every_state_of_a_node_with_a_guest_has_a_state_of_the_guest(bench: ComputeBench, nodes: Nodes) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        for state, of_guest in {**STATES, "enroll": "error"}.items():
            nodes.node("bm-1")["provision_state"] = state
            (listed,) = await all_of(driver.guests())
            assert (listed.mark, listed.state) == (spec.mark, of_guest)


async def test_a_guest_on_a_node_whose_power_is_not_known_is_not_concluded_about(
    bench: ComputeBench, nodes: Nodes
) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        nodes.node("bm-1").update(power_state=None, maintenance=True, fault="power failure")
        assert not await all_of(driver.guests())
        with pytest.raises(Transient) as caught:
            await driver.get_guest(spec.mark.uuid)
        assert caught.value.nodes == {"bm-1"}


async def test_the_listing_begins_anew_where_the_node_between_two_pages_is_gone(
    bench: ComputeBench, proxy: FaultProxy, nodes: Nodes
) -> None:
    def removed(request: Request) -> None:
        if "marker=" in request.path:
            nodes.nodes.pop(_key(2), None)

    async with bench.driver() as driver:
        proxy.instead = removed
        with pytest.raises(Transient, match="changed while it was read"):
            await all_of(driver.nodes())
        assert len(await all_of(driver.nodes())) == 3


# errors


async def test_a_locked_node_is_transient_and_says_nothing_of_others(bench: ComputeBench, nodes: Nodes) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        nodes.locked = 1
        with pytest.raises(Transient, match="locked by host") as caught:
            await driver.set_power(spec.mark.uuid, "off")
        assert (set(caught.value.nodes), caught.value.backend_code) == ({"bm-1"}, "409")
        assert (await driver.set_power(spec.mark.uuid, "off")).state == "off"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(503, {"Retry-After": "7"}, b""), Transient),
        (Answer(500, {}, b"<html>"), Unknown),
        (Answer(401, {}, b""), Denied),
        (Answer(403, {}, b'{"error_message": "no"}'), Permanent),
        (
            Answer(403, {}, b'{"error_message": {"faultstring": "Node x is protected and cannot be undeployed"}}'),
            Conflict,
        ),
        (Answer(409, {}, b'{"error_message": "{\\"faultstring\\": \\"Node x is locked by host y\\"}"}'), Transient),
        (Answer(406, {}, b'{"error_message": "Version 1.61 was requested"}'), Permanent),
        (Answer(400, {}, b'{"error_message": "wrong"}'), Permanent),
    ],
    ids=str,
)
async def test_a_refused_change_is_an_error_of_its_class(
    bench: ComputeBench, proxy: FaultProxy, answer: Answer, kind: type[DriverError]
) -> None:
    async with bench.driver() as driver:
        proxy.instead = lambda request: answer if request.method == "POST" else None
        with pytest.raises(DriverError) as caught:
            await driver.create_guest(bench.spec())
        assert type(caught.value) is kind


async def test_no_error_repeats_user_data(bench: ComputeBench, proxy: FaultProxy) -> None:
    said = b"{\"error_message\": \"Schema error for configdrive: {'user_data': 'password: x'} is not valid\"}"
    async with bench.driver() as driver:
        proxy.instead = lambda request: Answer(400, {}, said) if request.path.endswith("/provision") else None
        with pytest.raises(Permanent) as caught:
            await driver.create_guest(bench.spec()._replace(user_data="password: x"))
        assert str(caught.value).endswith("Schema error for configdrive: {'user_data': '…")


async def test_an_ironic_that_is_too_old_is_said(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ironic, "MICROVERSION", "1.200")
    with pytest.raises(Permanent, match="not supported"):
        async with ironic.open_driver(options(proxy), DriverContext("bench", OURS)):
            pass


@pytest.mark.parametrize("wrong", [{"endpoint": None}, {"username": "admin"}, {"ca_file": "/no/such/file"}, {"x": 1}])
async def test_wrong_options_are_refused(proxy: FaultProxy, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        async with ironic.open_driver({**options(proxy), **wrong}, DriverContext("bench", OURS)):
            pass


@pytest.mark.parametrize("name", ["..", "../allocations", "a/b", "a?b#c", "bm-1\n", ""])
async def test_the_name_of_a_node_leads_nowhere_else(bench: ComputeBench, nodes: Nodes, name: str) -> None:
    async with bench.driver() as driver:
        with pytest.raises((NotFound, Permanent)):
            await driver.create_guest(bench.spec()._replace(node=name))
        assert not nodes.allocations
