"""The driver openstack passes the conformance suites of compute and storage on a stand-in for a cloud, behind a proxy
that loses answers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import trio

pytest.importorskip("httpx", reason="httpx is not installed")

from hostler.drivers import log_ons
from hostler.drivers.compute import openstack
from hostler.drivers.conformance import ComputeBench, ComputeConformance, StorageBench, StorageConformance
from hostler.drivers.conformance.bench import OURS, all_of, new_uuid
from hostler.drivers.protocol import (
    Can,
    Capacity,
    Conflict,
    Connection,
    Denied,
    DriverContext,
    DriverError,
    Mark,
    NotFound,
    Permanent,
    Quota,
    Transient,
    Unknown,
    VolumeSpec,
    attaches,
)
from hostler.placement.types.errors import InvalidValue

from .fault_proxy import Answer, FaultProxy, Request
from .json_service import served
from .openstack_cloud import FLAVORS, IMAGE, ZONES, Cloud


def changes(request: Request) -> bool:
    return request.method != "GET" and "/auth/" not in request.path


@pytest.fixture
def cloud() -> Cloud:
    return Cloud(ready=0.005)


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[FaultProxy]:
    with served(cloud.answer) as address, FaultProxy(*address, changes).running() as proxy:
        yield proxy


def options(proxy: FaultProxy, **more: Any) -> dict[str, Any]:
    account = {"username": "user", "password": "secret", "project": "demo", "region": "one"}
    return {"auth_url": f"{proxy.endpoint}/identity", **account, "page": 2, "look_seconds": 0.005, **more}


def compute_bench(proxy: FaultProxy, cloud: Cloud, **more: Any) -> ComputeBench:
    def server(uuid: str) -> dict[str, Any]:
        (found,) = [each for each in cloud.servers.values() if f"hostler-{uuid}" in each["tags"]]
        return found

    async def make_stranger() -> str:
        return str(cloud.make({"name": "www", "availability_zone": "az-1"}, FLAVORS[2])["id"])

    async def change_outside(uuid: str, what: Literal["stop", "remove"]) -> None:
        if what == "stop":
            cloud.act(server(uuid), "os-stop")
        else:
            del cloud.servers[server(uuid)["id"]]

    async def make_volume() -> Connection:
        uuid = new_uuid()
        mark = {"hostler:mark": str(Mark(OURS, uuid, 1))}
        key = cloud.make_volume(f"hostler-{uuid}", 1, metadata=mark, availability_zone="az-1", volume_type="ssd")["id"]
        cloud.volumes[key].update(status="available", then=None)
        return Connection(volume=uuid, protocol="cinder", address=key)

    return ComputeBench(
        open=lambda context: openstack.open_driver(options(proxy, **more), context),
        node="az-1",
        vcpus=2,
        memory_mb=2_048,
        image="debian",
        lose_answers=proxy.lose_answers,
        outage=proxy.outage,
        hang=proxy.hang,
        make_stranger=make_stranger,
        change_outside=change_outside,
        make_volume=make_volume,
        page=5,
    )


class TestOpenStackComputes(ComputeConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy, cloud: Cloud) -> ComputeBench:
        return compute_bench(proxy, cloud)


class TestOpenStackStores(StorageConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy, cloud: Cloud) -> StorageBench:
        async def make_stranger() -> str:
            key = cloud.make_volume("theirs", 4, availability_zone="az-2", volume_type="ssd")["id"]
            return str(key)

        return StorageBench(
            open=lambda context: openstack.open_driver(options(proxy), context),
            pool="az-1.hdd.v2",
            lose_answers=proxy.lose_answers,
            outage=proxy.outage,
            hang=proxy.hang,
            make_stranger=make_stranger,
            page=5,
        )


@pytest.fixture
def bench(proxy: FaultProxy, cloud: Cloud) -> ComputeBench:
    return compute_bench(proxy, cloud)


# what is ordered


async def test_a_server_is_ordered_as_the_guest_asks(proxy: FaultProxy, cloud: Cloud) -> None:
    bench = compute_bench(proxy, cloud, key_name="ops", security_groups=["web", "ssh"])
    async with bench.driver() as driver:
        spec = bench.spec(name=" a\x00b\n")._replace(networks=("front", IMAGE), user_data="#cloud-config", disk_gb=21)
        await driver.create_guest(spec)
    (server,) = cloud.servers.values()
    assert server["order"] == {
        "name": "a b",
        "flavorRef": "3",
        "availability_zone": "az-1",
        "tags": [f"hostler-{spec.mark.uuid}"],
        "metadata": {"hostler:mark": str(spec.mark), "hostler:size": "2x2048x21", "hostler:zone": "az-1"},
        "networks": [{"uuid": cloud.networks[0]["id"]}, {"uuid": IMAGE}],
        "imageRef": IMAGE,
        "user_data": base64.b64encode(b"#cloud-config").decode(),
        "key_name": "ops",
        "security_groups": [{"name": "web"}, {"name": "ssh"}],
    }


@pytest.mark.parametrize("image", ["", "debian"])
async def test_a_server_boots_from_its_first_volume_where_it_has_no_image(
    bench: ComputeBench, cloud: Cloud, image: str
) -> None:
    assert bench.make_volume is not None
    volumes = await bench.make_volume(), await bench.make_volume()
    async with bench.driver() as driver:
        await driver.create_guest(bench.spec()._replace(image=image, volumes=volumes, disk_gb=0 if image else 500))
    (server,) = cloud.servers.values()
    mapped = [(each["uuid"], each["boot_index"]) for each in server["order"]["block_device_mapping_v2"]]
    assert mapped == [(volumes[0].address, -1 if image else 0), (volumes[1].address, -1)]
    assert ("imageRef" in server["order"]) == bool(image)


async def test_the_cheapest_flavor_that_a_guest_fits_on_is_taken_and_of_these_the_smallest(
    proxy: FaultProxy, cloud: Cloud
) -> None:
    for flavors, wants in (
        (None, {(1, 1, 1): "1", (1, 513, 1): "2", (2, 2_048, 20): "2", (2, 2_048, 21): "3", (3, 1, 0): "4"}),
        ({"tiny": 2.0, "large": 1.0}, {(1, 1, 1): "3", (8, 16_384, 80): "3"}),
    ):
        bench = compute_bench(proxy, cloud, flavors=flavors)
        async with bench.driver() as driver:
            for (vcpus, memory_mb, disk_gb), wanted in wants.items():
                spec = bench.spec()._replace(vcpus=vcpus, memory_mb=memory_mb, disk_gb=disk_gb)
                key = (await driver.create_guest(spec)).key
                assert cloud.servers[key]["order"]["flavorRef"] == wanted
                await driver.delete_guest(spec.mark.uuid)
            with pytest.raises(Permanent, match="no flavor has"):
                await driver.create_guest(bench.spec()._replace(vcpus=9))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"image": ""}, Permanent),
        ({"image": "fedora"}, NotFound),
        ({"image": "twice"}, Permanent),
        ({"networks": ("back",)}, NotFound),
        ({"node": "az-9"}, NotFound),
        ({"volumes": (Connection(volume=IMAGE, protocol="nbd", address="x"),)}, Permanent),
        ({"volumes": (Connection(volume=IMAGE, protocol="cinder", address=IMAGE),)}, NotFound),
    ],
    ids=str,
)
async def test_what_cannot_be_ordered_is_refused(
    bench: ComputeBench, cloud: Cloud, change: dict[str, Any], kind: type[DriverError]
) -> None:
    async with bench.driver() as driver:
        with pytest.raises(DriverError) as caught:
            await driver.create_guest(bench.spec()._replace(**change))
    assert type(caught.value) is kind
    assert not cloud.servers


# the cloud as it is


async def test_the_quota_of_the_project_is_what_its_zones_have_left(proxy: FaultProxy, cloud: Cloud) -> None:
    bench = compute_bench(proxy, cloud, zone_memory_mb=9_000)
    cloud.limits["cores"] = 6
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        while (await driver.get_guest(spec.mark.uuid)).state != "on":  # each look goes on
            pass
        nodes = {node.name: node for node in await all_of(driver.nodes())}
        assert {name: (node.vcpus, node.used_vcpus) for name, node in nodes.items()} == {"az-1": (6, 2), "az-2": (4, 0)}
        assert {name: (node.memory_mb, node.used_memory_mb) for name, node in nodes.items()} == {
            "az-1": (9_000, 2_048),
            "az-2": (9_000, 0),
        }
        cloud.limits["instances"] = 1
        nodes = {node.name: node for node in await all_of(driver.nodes())}
        assert [(node.vcpus, node.used_vcpus) for node in nodes.values()] == [(2, 2), (0, 0)]
        with pytest.raises(Quota):
            await driver.create_guest(bench.spec()._replace(vcpus=8))
        cloud.limits = dict.fromkeys(cloud.limits, -1)
        assert [node.vcpus for node in await all_of(driver.nodes())] == [1_024, 1_024]


async def test_a_pool_has_what_the_quota_leaves(proxy: FaultProxy, cloud: Cloud) -> None:
    cloud.limits["gigabytes"] = 10
    async with openstack.open_driver(options(proxy), DriverContext("bench", OURS)) as driver:
        spec = VolumeSpec(Mark(OURS, new_uuid(), 1), "v", "az-2.ssd", 4)
        await driver.create_volume(spec)
        pools = {
            pool.name: (pool.total_gb, pool.free_gb, pool.provisioned_gb)
            async for page in driver.pools()
            for pool in page.items
        }
        assert pools == {
            "az-1.hdd.v2": (6, 6, 0),
            "az-1.ssd": (6, 6, 0),
            "az-2.hdd.v2": (6, 6, 0),
            "az-2.ssd": (10, 6, 4),
        }
        with pytest.raises(Quota):
            await driver.create_volume(VolumeSpec(Mark(OURS, new_uuid(), 1), "v", "az-2.ssd", 7))


async def test_of_several_servers_with_one_mark_the_first_one_stays(bench: ComputeBench, cloud: Cloud) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        first = await driver.create_guest(spec)
        cloud.make(cloud.servers[first.key]["order"], FLAVORS[1])
        assert (await driver.create_guest(spec)).key == first.key
        await driver.delete_guest(spec.mark.uuid)
        assert not cloud.servers


async def test_a_server_made_from_anothers_snapshot_is_a_stranger(bench: ComputeBench, cloud: Cloud) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        first = await driver.create_guest(spec)
        copy = cloud.make({**cloud.servers[first.key]["order"], "tags": []}, FLAVORS[1])
        assert {each.key: each.mark for each in await all_of(driver.guests())} == {
            first.key: spec.mark,
            copy["id"]: None,
        }


@pytest.mark.parametrize("action", ["pause", "suspend", "shelve"])
async def test_a_server_starts_from_whatever_state_it_is_in(bench: ComputeBench, cloud: Cloud, action: str) -> None:
    cloud.ready = 0.0
    async with bench.driver() as driver:
        spec = bench.spec()
        key = (await driver.create_guest(spec)).key
        cloud._go_on()
        cloud.act(cloud.servers[key], action)
        assert (await driver.get_guest(spec.mark.uuid)).state == ("off" if action == "shelve" else "paused")
        await driver.set_power(spec.mark.uuid, "on")
        assert (await driver.get_guest(spec.mark.uuid)).state == "on"


async def test_a_server_that_no_host_takes_is_in_error(bench: ComputeBench, cloud: Cloud) -> None:
    cloud.ready, cloud.fault = 0.0, "No valid host was found."
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        assert (await driver.get_guest(spec.mark.uuid)).state == "error"
        await driver.delete_guest(spec.mark.uuid)
        assert not cloud.servers


async def test_a_volume_that_cannot_be_attached_is_said(bench: ComputeBench, cloud: Cloud) -> None:
    assert bench.make_volume is not None
    volume = await bench.make_volume()
    async with bench.driver() as driver:
        assert attaches(driver)
        spec = bench.spec()
        await driver.create_guest(spec)
        cloud.volumes[volume.address]["status"] = "in-use"
        with pytest.raises(Conflict):
            await driver.attach(spec.mark.uuid, volume)
        cloud.volumes[volume.address]["status"] = "error"
        server = next(iter(cloud.servers.values()))
        server["os-extended-volumes:volumes_attached"].append({"id": volume.address})
        with pytest.raises(Transient, match="could not be attached"):
            await driver.attach(spec.mark.uuid, volume)


# the account


@pytest.mark.parametrize(
    ("account", "wanted"),
    [
        (
            {"project_domain": "d"},
            {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": "user", "password": "secret", "domain": {"name": "Default"}}},
                },
                "scope": {"project": {"name": "demo", "domain": {"name": "d"}}},
            },
        ),
        (
            {"application_credential_id": "a", "application_credential_secret": "secret"},
            {
                "identity": {
                    "methods": ["application_credential"],
                    "application_credential": {"id": "a", "secret": "secret"},
                }
            },
        ),
    ],
)
async def test_keystone_is_shown_what_is_configured(
    proxy: FaultProxy, cloud: Cloud, account: dict[str, str], wanted: dict[str, Any]
) -> None:
    if "application_credential_id" in account:
        account = {**account, "username": None, "password": None, "project": None}  # type: ignore[dict-item]  # options that are not given
    async with openstack.open_driver(options(proxy, **account), DriverContext("bench", OURS)):
        pass
    assert cloud.logins == [wanted]


async def test_a_token_that_expires_is_replaced_once(bench: ComputeBench, cloud: Cloud) -> None:
    cloud.lifetime = 3
    async with bench.driver() as driver:
        for _ in range(6):
            await driver.check()
        assert len(cloud.logins) > 1
        cloud.lifetime = 0
        before = len(cloud.logins)
        cloud.tokens.clear()
        with pytest.raises(Denied):
            await driver.check()
        assert len(cloud.logins) == before + 1


async def test_a_wrong_password_is_denied(proxy: FaultProxy) -> None:
    with pytest.raises(Denied, match="requires authentication"):
        async with openstack.open_driver(options(proxy, password="wrong"), DriverContext("bench", OURS)):
            pass


async def test_calls_at_the_same_time_do_not_lock_an_account(
    bench: ComputeBench, proxy: FaultProxy, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.driver() as driver:
        proxy.instead = lambda request: Answer(401, {}, b"") if request.path.endswith("/auth/tokens") else None
        cloud.tokens.clear()
        proxy.requests.clear()

        async def ask() -> None:
            with pytest.raises(Denied):
                await driver.check()

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
        assert [each.path for each in proxy.requests].count("/identity/v3/auth/tokens") == 1
        proxy.instead = lambda request: None
        monkeypatch.setattr(log_ons, "DENIED_SECONDS", 0.0)
        await driver.check()


async def test_a_project_that_may_read_nothing_is_denied(bench: ComputeBench, proxy: FaultProxy) -> None:
    async with bench.driver() as driver:
        proxy.instead = lambda request: Answer(403, {}, b'{"forbidden": {"message": "no"}}')
        with pytest.raises(Denied):
            await driver.check()


async def test_endpoints_are_those_of_the_region(proxy: FaultProxy) -> None:
    with pytest.raises(Permanent, match="no public endpoint of compute"):
        async with openstack.open_driver(options(proxy, region="three"), DriverContext("bench", OURS)):
            pass


@pytest.mark.parametrize("without", ["service", "option"])
async def test_a_cloud_without_volumes_is_a_driver_of_compute_alone(
    proxy: FaultProxy, cloud: Cloud, without: str
) -> None:
    if without == "service":
        del cloud.services["volumev3"]
    bench = compute_bench(proxy, cloud, **({"volume_types": []} if without == "option" else {}))
    async with bench.driver() as driver:
        assert driver.facts.can == Can.COMPUTE | Can.CHOOSES_HOST
        assert len(await all_of(driver.nodes())) == len(ZONES)
        assert not await all_of(driver.guests())


# errors


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(403, {}, b'{"forbidden": {"message": "Quota exceeded for ram: Requested 1"}}'), Quota),
        (Answer(403, {}, b'{"forbidden": {"message": "Policy doesn\'t allow x to be performed."}}'), Permanent),
        (Answer(403, {}, b'{"forbidden": {"message": "no"}}'), Permanent),
        (Answer(413, {"Retry-After": "3"}, b'{"overLimit": {"message": "This request was rate-limited."}}'), Transient),
        (Answer(429, {}, b""), Transient),
        (Answer(409, {}, b'{"conflictingRequest": {"message": "Instance x is locked"}}'), Conflict),
        (Answer(400, {}, b'{"badRequest": {"message": "Can not find requested image"}}'), NotFound),
        (Answer(400, {}, b'{"badRequest": {"message": "Invalid key_name provided."}}'), Permanent),
        (Answer(500, {}, b'{"computeFault": {"message": "No valid host was found."}}'), Capacity),
        (Answer(500, {}, b'{"computeFault": {"message": "Unexpected API Error."}}'), Unknown),
        (Answer(502, {}, b"<html>"), Unknown),
        (Answer(503, {"Retry-After": "9"}, b""), Transient),
    ],
    ids=str,
)
async def test_a_refused_order_is_an_error_of_its_class(
    bench: ComputeBench, proxy: FaultProxy, cloud: Cloud, answer: Answer, kind: type[DriverError]
) -> None:
    async with bench.driver() as driver:
        proxy.instead = lambda request: answer if request.path.endswith("/servers") else None
        with pytest.raises(DriverError) as caught:
            await driver.create_guest(bench.spec())
    assert (type(caught.value), caught.value.backend_code) == (kind, str(answer.status))
    if isinstance(caught.value, Transient):
        assert caught.value.after == float(answer.headers.get("Retry-After", "0"))
    assert not cloud.servers


async def test_no_error_repeats_user_data(bench: ComputeBench, proxy: FaultProxy) -> None:
    """Nova quotes the values that it refuses."""
    encoded = base64.b64encode(b"password: x").decode()
    said = f'{{"badRequest": {{"message": "Invalid input for user_data. Value: {encoded}. {encoded} is too long"}}}}'
    async with bench.driver() as driver:
        proxy.instead = lambda request: Answer(400, {}, said.encode()) if request.path.endswith("/servers") else None
        with pytest.raises(Permanent) as caught:
            await driver.create_guest(bench.spec()._replace(user_data="password: x"))
        assert str(caught.value).endswith("Invalid input for user_data. Value: …")
        with pytest.raises(Permanent, match="more than 65535 characters") as caught:
            await driver.create_guest(bench.spec()._replace(user_data="password: x" * 5_000))
        assert "cGFz" not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"servers": 3}', b'{"servers": [3]}', b"", b'{"servers": null}'])
async def test_a_listing_that_is_not_understood_is_no_empty_one(
    bench: ComputeBench, proxy: FaultProxy, body: bytes
) -> None:
    async with bench.driver() as driver:
        proxy.instead = lambda request: Answer(200, {}, body) if "/servers/detail" in request.path else None
        with pytest.raises(Transient):
            await all_of(driver.guests())


@pytest.mark.parametrize(
    "wrong",
    [{"auth_url": None}, {"username": None}, {"project": None}, {"application_credential_id": "a"}, {"flavors": 3}],
)
async def test_wrong_options_are_refused(proxy: FaultProxy, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        async with openstack.open_driver({**options(proxy), **wrong}, DriverContext("bench", OURS)):
            pass


async def test_a_flavor_that_does_not_exist_is_said(proxy: FaultProxy) -> None:
    with pytest.raises(Permanent, match="no flavor huge"):
        async with openstack.open_driver(options(proxy, flavors={"huge": 1.0}), DriverContext("bench", OURS)):
            pass
