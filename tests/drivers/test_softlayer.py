"""The softlayer driver passes the conformance suite on a stand-in, behind a proxy that loses answers. No simulator of
the service exists: what the stand-in answers follows the documented API."""

from __future__ import annotations

import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

from hostler.drivers.compute import softlayer
from hostler.drivers.conformance import ComputeBench, ComputeConformance
from hostler.drivers.conformance.bench import OURS, all_of
from hostler.drivers.protocol import (
    Capacity,
    Denied,
    DriverContext,
    DriverError,
    NotFound,
    Permanent,
    Quota,
    Transient,
    Unknown,
)
from hostler.placement.types.errors import InvalidValue

from .fault_proxy import Answer, FaultProxy, Request
from .softlayer_cloud import ZONES, Cloud

IMAGE = "UBUNTU_LATEST"
TYPES = {"B1_2X4X25": 0.05, "B1_4X8X100": 0.11, "M1_2X16X100": 0.09}


def method_of(request: Request) -> str:
    return str(xmlrpc.client.loads(request.body)[1]) if request.body else ""  # that of a call that was cancelled


@pytest.fixture
def cloud() -> Cloud:
    return Cloud(ready=0.03)


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[FaultProxy]:
    with (
        cloud.served() as (host, port),
        FaultProxy(host, port, lambda request: not method_of(request).startswith("get")).running() as proxy,
    ):
        yield proxy


def opener(
    proxy: FaultProxy, **more: Any
) -> Callable[[DriverContext], AbstractAsyncContextManager[softlayer.SoftLayerDriver]]:
    options = {
        "username": "user",
        "api_key": "secret",
        "endpoint": proxy.endpoint + "/",
        "page": 3,
        "shutdown_seconds": 0.0,
        "look_seconds": 0.01,
        **more,
    }
    return lambda context: softlayer.open_driver(options, context)


def bench_of(proxy: FaultProxy, cloud: Cloud, **more: Any) -> ComputeBench:
    async def make_stranger() -> str:
        return str(cloud.make("www", "example.com", startCpus=8, maxMemory=8_192)["id"])

    async def change_outside(uuid: str, what: Literal["stop", "remove"]) -> None:
        (key,) = [key for key, each in cloud.guests.items() if uuid in each["hostname"]]
        if what == "stop":
            cloud.guests[key]["powerState"] = {"keyName": "HALTED"}
        else:
            del cloud.guests[key]

    return ComputeBench(
        open=opener(proxy, **more),
        node="dal13",
        vcpus=2,
        memory_mb=4_096,
        image=IMAGE,
        lose_answers=proxy.lose_answers,
        outage=proxy.outage,
        hang=proxy.hang,
        make_stranger=make_stranger,
        change_outside=change_outside,
        page=7,
    )


class TestSoftLayerComputes(ComputeConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy, cloud: Cloud) -> ComputeBench:
        return bench_of(proxy, cloud)


@pytest.mark.soak  # the same tests once more
class TestSoftLayerComputesByFlavors(ComputeConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy, cloud: Cloud) -> ComputeBench:
        return bench_of(proxy, cloud, types=TYPES)


@pytest.fixture
def bench(proxy: FaultProxy, cloud: Cloud) -> ComputeBench:
    return bench_of(proxy, cloud)


# what is ordered


async def test_the_cheapest_flavor_that_a_guest_fits_on_is_ordered(proxy: FaultProxy, cloud: Cloud) -> None:
    bench = bench_of(proxy, cloud, types=TYPES)
    async with bench.driver() as driver:
        for memory_mb, disk_gb, wanted in ((4_096, 0, "B1_2X4X25"), (4_097, 0, "M1_2X16X100"), (1, 26, "M1_2X16X100")):
            spec = bench.spec()._replace(memory_mb=memory_mb, disk_gb=disk_gb)
            key = int((await driver.create_guest(spec)).key)
            assert cloud.guests[key]["order"]["supplementalCreateObjectOptions"] == {"flavorKeyName": wanted}
        with pytest.raises(Permanent, match="no configured flavor"):
            await driver.create_guest(bench.spec()._replace(vcpus=5))


async def test_an_order_has_what_the_guest_asks_for(bench: ComputeBench, cloud: Cloud) -> None:
    template = "0f2b4f27-cf0a-4b8c-8f0f-3c4f0a1b2c3d"
    async with bench.driver() as driver:
        spec = bench.spec(name="a\x00b")._replace(
            disk_gb=25, image=template, networks=("public:12", "private:34"), user_data="#cloud-config", memory_mb=1_500
        )
        order = cloud.guests[int((await driver.create_guest(spec)).key)]["order"]
        assert order["blockDeviceTemplateGroup"] == {"globalIdentifier": template}
        assert order["primaryNetworkComponent"] == {"networkVlan": {"id": 12}}
        assert order["primaryBackendNetworkComponent"] == {"networkVlan": {"id": 34}}
        assert order["blockDevices"] == [{"device": "0", "diskImage": {"capacity": 25}}]
        assert (order["userData"], order["maxMemory"], order["notes"]) == ([{"value": "#cloud-config"}], 2_048, "a b")


@pytest.mark.parametrize(
    "wrong", [{"image": ""}, {"networks": ("eth0",)}, {"networks": ("public:1", "public:2")}], ids=str
)
async def test_what_cannot_be_ordered_is_refused(bench: ComputeBench, cloud: Cloud, wrong: dict[str, Any]) -> None:
    async with bench.driver() as driver:
        with pytest.raises(Permanent):
            await driver.create_guest(bench.spec()._replace(**wrong))
    assert not cloud.guests


# the cloud as it is


async def test_of_several_guests_with_one_mark_the_first_one_stays(bench: ComputeBench, cloud: Cloud) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        first = await driver.create_guest(spec)
        again = cloud.guests[int(first.key)]
        cloud.make(again["hostname"], again["domain"], **again["order"])
        assert (await driver.create_guest(spec)).key == first.key
        ours = [each.key for each in await all_of(driver.guests()) if each.mark == spec.mark]
        assert ours == [first.key]
        await driver.delete_guest(spec.mark.uuid)
        assert not await all_of(driver.guests())


async def test_guests_that_are_removed_between_pages_hide_no_others(bench: ComputeBench, cloud: Cloud) -> None:
    strangers = [cloud.make(f"h{number}", "example.com")["id"] for number in range(12)]
    turns = iter(range(100))

    def remove_two() -> None:
        if next(turns) == 2:
            for key in strangers[:2]:
                del cloud.guests[key]

    async with bench.driver() as driver:
        cloud.between = remove_two
        keys = [int(each.key) for each in await all_of(driver.guests())]
    assert set(strangers[2:]) <= set(keys)
    assert len(keys) == len(set(keys))


async def test_a_guest_that_does_not_shut_down_is_switched_off(proxy: FaultProxy, cloud: Cloud) -> None:
    bench = bench_of(proxy, cloud, shutdown_seconds=0.1)
    async with bench.driver() as driver:
        deaf, polite = bench.spec(), bench.spec()
        for spec in (deaf, polite):
            guest = await driver.create_guest(spec)
            cloud.guests[int(guest.key)]["deaf"] = spec is deaf
        for spec in (deaf, polite):
            assert (await driver.set_power(spec.mark.uuid, "off")).state == "off"
    asked = [method_of(request) for request in proxy.requests]
    assert (asked.count("powerOffSoft"), asked.count("powerOff")) == (2, 1)


async def test_all_datacenters_are_nodes_unless_some_are_configured(proxy: FaultProxy, cloud: Cloud) -> None:
    cloud.make("old", "example.com", datacenter={"name": "tok01"})
    async with opener(proxy)(DriverContext("bench", OURS)) as driver:
        assert {node.name: node.state for node in await all_of(driver.nodes())} == {
            **dict.fromkeys(ZONES, "up"),
            "tok01": "maintenance",
        }
    cloud.guests.clear()
    for zones, wanted in ((None, list(ZONES)), (["dal13"], ["dal13"])):
        async with opener(proxy, zones=zones)(DriverContext("bench", OURS)) as driver:
            assert [node.name for node in await all_of(driver.nodes())] == wanted


# errors


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (-32603, "Internal error", Unknown),
        (-32601, "No such method", Permanent),
        ("SoftLayer_Exception_Public", "There are insufficient resources behind router 'bcr01a.dal13'.", Capacity),
        ("SoftLayer_Exception_Virtual_Host_Pool_InsufficientResources", "full", Capacity),
        ("SoftLayer_Exception_Public", "You have reached the maximum number of hourly guests: limit exceeded.", Quota),
        ("SoftLayer_Exception_Public", "A transaction is in progress.", Transient),
        ("SoftLayer_Exception_WebService_RateLimitExceeded", "Slow down", Transient),
        ("SoftLayer_Exception_MissingCreationProperty", "Property 'domain' must be set", Permanent),
        ("SoftLayer_Exception_PermissionDenied", "no", Denied),
        ("SoftLayer_Exception_Public", "You do not have permission to order this", Denied),
        ("SoftLayer_Exception_ObjectNotFound", "Unable to find object with id of '1'.", NotFound),
        ("SoftLayer_Exception_New", "Invalid datacenter", Permanent),
    ],
)
async def test_each_fault_has_its_class(
    bench: ComputeBench, cloud: Cloud, code: Any, text: str, kind: type[DriverError]
) -> None:
    def fail(method: str) -> None:
        if method == "createObject":
            raise xmlrpc.client.Fault(code, text)

    async with bench.driver() as driver:
        cloud.fail = fail
        with pytest.raises(DriverError) as caught:
            await driver.create_guest(bench.spec())
        assert (type(caught.value), caught.value.backend_code) == (kind, str(code))
        assert not await all_of(driver.guests())


@pytest.mark.parametrize(
    ("answer", "reading", "changing"),
    [
        (Answer(503, {"Retry-After": "7"}, b"busy"), Transient, Transient),
        (Answer(500, {}, b"<html>oops</html>"), Transient, Unknown),
        (Answer(200, {}, b"<html>logged out</html>"), Transient, Unknown),
        (Answer(200, {}, b"<methodResponse><params>"), Transient, Unknown),
        (Answer(429, {}, b""), Transient, Transient),
        (Answer(403, {}, b"no"), Denied, Denied),
    ],
    ids=str,
)
async def test_an_answer_that_is_not_of_the_api_is_classed_by_its_status(
    bench: ComputeBench, proxy: FaultProxy, answer: Answer, reading: type[DriverError], changing: type[DriverError]
) -> None:
    async with bench.driver() as driver:
        proxy.instead = lambda request: answer
        with pytest.raises(reading):
            await driver.check()
        proxy.instead = lambda request: answer if method_of(request) == "createObject" else None
        with pytest.raises(changing):
            await driver.create_guest(bench.spec())


async def test_a_wrong_key_is_denied(proxy: FaultProxy) -> None:
    with pytest.raises(Denied, match="Invalid API token"):
        async with opener(proxy, api_key="wrong")(DriverContext("bench", OURS)):
            pass


async def test_a_cloud_that_cannot_be_reached_is_transient() -> None:
    options = {"username": "user", "api_key": "secret", "endpoint": "http://127.0.0.1:1/"}
    with pytest.raises(Transient):
        async with softlayer.open_driver(options, DriverContext("bench", OURS)):
            pass


async def test_wrong_options_are_said(proxy: FaultProxy) -> None:
    with pytest.raises(Permanent, match="not the name of a flavor"):
        async with opener(proxy, types={"large": 1.0})(DriverContext("bench", OURS)):
            pass
    with pytest.raises(InvalidValue):
        async with softlayer.open_driver({"username": "user"}, DriverContext("bench", OURS)):
            pass


async def test_a_deletion_waits_for_the_transaction_that_makes_the_guest(bench: ComputeBench, cloud: Cloud) -> None:
    cloud.ready = 0.3
    async with bench.driver() as driver:
        spec, began = bench.spec(), time.monotonic()
        await driver.create_guest(spec)
        await driver.delete_guest(spec.mark.uuid)
        assert time.monotonic() - began >= 0.3
        with pytest.raises(NotFound):
            await driver.get_guest(spec.mark.uuid)
