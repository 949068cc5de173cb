"""The driver hmc passes the conformance suite on a stand-in for a console, behind a proxy that loses answers. It has
never been run on a console."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

from hostler.drivers.compute import hmc, hmc_values
from hostler.drivers.conformance import ComputeBench, ComputeConformance
from hostler.drivers.conformance.bench import all_of
from hostler.drivers.protocol import (
    Capacity,
    Conflict,
    NotFound,
    Permanent,
    Transient,
    Unknown,
    resizes,
)

from .fault_proxy import FaultProxy
from .hmc_bench import before, bench_of
from .hmc_console import Console, RefusedError


@pytest.fixture
def console() -> Console:
    return Console(ready=0.03)


@pytest.fixture
def proxy(console: Console) -> Iterator[FaultProxy]:
    with before(console) as proxy:
        yield proxy


class TestHmcComputes(ComputeConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy, console: Console) -> ComputeBench:
        return bench_of(proxy, console)


@pytest.fixture
def bench(proxy: FaultProxy, console: Console) -> ComputeBench:
    return bench_of(proxy, console)


def jobs(console: Console) -> list[str]:
    return [path.rpartition("/")[2] for method, path in console.log if "/do/" in path]


# what is made


async def test_memory_is_rounded_up_to_blocks_of_the_managed_system(bench: ComputeBench, console: Console) -> None:
    console.system("Server-1").block = 512
    async with bench.driver() as driver:
        spec = bench.spec()._replace(memory_mb=1_025, power="off")
        for _ in range(2):
            assert (await driver.create_guest(spec)).memory_mb == 1_536
        assert console.of_uuid(spec.mark.uuid).memory == 1_536


async def test_a_cpu_stands_for_a_part_of_a_processor(proxy: FaultProxy, console: Console) -> None:
    bench = bench_of(proxy, console, units_per_vcpu=0.15)
    console.make("www", vcpus=4, units=0.4)
    console.make("vios1", kind="VirtualIOServer", vcpus=2, units=1.0, memory=4_096)
    async with bench.driver() as driver:
        spec = bench.spec()._replace(vcpus=3, power="off")
        await driver.create_guest(spec)
        assert console.of_uuid(spec.mark.uuid).units == 0.45
        first, second = await all_of(driver.nodes())
    assert (first.vcpus, first.used_vcpus) == (133, 13), "20 / 0.15, and 1.85 / 0.15"
    assert (first.memory_mb, first.used_memory_mb) == (262_144 - 4_096, 1_024 + 4_096 + 1_024)
    assert (second.name, second.used_vcpus, second.state, second.hypervisor) == ("Server-2", 0, "up", "PowerVM")


async def test_what_is_not_available_for_another_reason_counts_as_use(bench: ComputeBench, console: Console) -> None:
    console.system("Server-1").pool = (10_240, 1.5)
    console.make("www", memory=4_096, units=1.0, state="running")
    console.make("off", memory=2_048, units=1.0)
    async with bench.driver() as driver:
        first, _ = await all_of(driver.nodes())
        assert (first.used_vcpus, first.used_memory_mb) == (3, 14_336), "2.5 units, and the pool beside what is active"
        console.system("Server-1").pool = (0, 0.0)
        first, _ = await all_of(driver.nodes())
        assert (first.used_vcpus, first.used_memory_mb) == (2, 6_144), "what is off is to be activated again"


async def test_partitions_that_serve_others_are_strangers(bench: ComputeBench, console: Console) -> None:
    key = console.make("vios1", kind="VirtualIOServer", state="running").key
    async with bench.driver() as driver:
        (found,) = await all_of(driver.guests())
    assert (found.key, found.mark, found.name, found.state) == (key, None, "vios1", "on")


async def test_an_adapter_is_made_for_each_virtual_network(
    bench: ComputeBench, console: Console, proxy: FaultProxy
) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()._replace(networks=("VLAN7-ETHERNET0", "VLAN1-ETHERNET0"))
        proxy.seen = lambda request, answer: (
            setattr(proxy, "fault", "lose answer") if "Adapter" in request.path else None
        )
        with pytest.raises(Unknown):
            await driver.create_guest(spec)
        proxy.fault, proxy.seen = "none", lambda request, answer: None
        for _ in range(2):
            assert (await driver.create_guest(spec)).state == "on"
        switch = console.system("Server-1").switch
        assert console.of_uuid(spec.mark.uuid).ports == [(switch, 7), (switch, 1)]
        with pytest.raises(NotFound, match="no virtual network VLAN9"):
            await driver.create_guest(bench.spec()._replace(networks=("VLAN9",)))
    assert len(console.partitions) == 1


@pytest.mark.parametrize("wrong", [{"disk_gb": 1}, {"user_data": "#cloud-config"}, {"image": "debian"}], ids=str)
async def test_what_partitions_do_not_get_is_refused(
    bench: ComputeBench, console: Console, wrong: dict[str, Any]
) -> None:
    async with bench.driver() as driver:
        with pytest.raises(Permanent):
            await driver.create_guest(bench.spec()._replace(**wrong))
    assert not console.partitions


async def test_an_image_is_how_a_partition_is_activated_the_first_time(proxy: FaultProxy, console: Console) -> None:
    bench = bench_of(proxy, console, boot="sms")
    async with bench.driver() as driver:
        for image, wanted in (("", "sms"), ("of", "of")):
            spec = bench.spec()._replace(image=image)
            await driver.create_guest(spec)
            (body,) = [each.body for each in proxy.requests if each.path.endswith("/do/PowerOn")]
            assert f"<web:ParameterValue>{wanted}<" in body.decode()
            await driver.set_power(spec.mark.uuid, "off")
            proxy.requests.clear()
            await driver.set_power(spec.mark.uuid, "on")
            (body,) = [each.body for each in proxy.requests if each.path.endswith("/do/PowerOn")]
            assert "<web:ParameterValue>norm<" in body.decode()
            proxy.requests.clear()


async def test_a_copy_of_a_partition_is_a_strangers(bench: ComputeBench, console: Console) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        console.make("copy", description=console.of_uuid(spec.mark.uuid).description)
        assert sorted(str(each.mark) for each in await all_of(driver.guests())) == ["None", str(spec.mark)]


@pytest.mark.parametrize("descriptions", ["dropped", "unknown"])
async def test_a_console_that_keeps_no_descriptions_is_left_without_a_partition(
    bench: ComputeBench, console: Console, descriptions: Any
) -> None:
    console.descriptions = descriptions
    spec = bench.spec()
    async with bench.driver() as driver:
        with pytest.raises(Permanent, match="unmarshal" if descriptions == "unknown" else "no description"):
            await driver.create_guest(spec)
    assert not console.partitions


# the console as it is


@pytest.mark.parametrize("state", ["power off", "no connection", "error"])
async def test_of_a_managed_system_that_is_down_nothing_is_concluded(
    bench: ComputeBench, console: Console, state: str
) -> None:
    async with bench.driver() as driver:
        here, there = bench.spec(), bench.spec()._replace(node="Server-2")
        for spec in (here, there):
            await driver.create_guest(spec)
        console.system("Server-2").state = state
        console.of_uuid(there.mark.uuid).state = "not available"
        assert {each.name: each.state for each in await all_of(driver.nodes())} == {
            "Server-1": "up",
            "Server-2": "down",
        }
        assert [each.mark for each in await all_of(driver.guests())] == [here.mark]
        for call in (driver.get_guest, driver.delete_guest):
            with pytest.raises(Transient) as caught:
                await call(there.mark.uuid)
            assert caught.value.nodes == {"Server-2"}
        with pytest.raises(Transient) as caught:
            await driver.create_guest(bench.spec()._replace(node="Server-2"))
        assert caught.value.nodes == {"Server-2"}
        await driver.delete_guest(here.mark.uuid)
    assert [each.system for each in console.partitions.values()] == [console.system("Server-2").key]


async def test_only_managed_systems_that_are_named_are_used(proxy: FaultProxy, console: Console) -> None:
    bench = bench_of(proxy, console, systems=["Server-2", "Server-3"])
    console.make("www")
    async with bench.driver() as driver:
        assert [each.name for each in await all_of(driver.nodes())] == ["Server-2"]
        assert not await all_of(driver.guests())
        with pytest.raises(NotFound, match="no node Server-1"):
            await driver.create_guest(bench.spec())


async def test_a_partition_of_the_same_name_elsewhere_hides_no_guest(bench: ComputeBench, console: Console) -> None:
    spec = bench.spec()._replace(node="Server-2", power="off")
    async with bench.driver() as driver:
        await driver.create_guest(spec)
        ours = console.of_uuid(spec.mark.uuid)
        console.partitions = {"x": console.make(ours.name), **console.partitions}
        assert (await driver.get_guest(spec.mark.uuid)).key == ours.key
        await driver.delete_guest(spec.mark.uuid)
        with pytest.raises(Conflict):
            await driver.create_guest(spec)
    assert {each.name for each in console.partitions.values()} == {ours.name}


async def test_long_listings_are_read_whole(bench: ComputeBench, console: Console) -> None:
    for number in range(60):
        console.make(f"www-{number}")
    async with bench.driver() as driver:
        assert {each.name for each in await all_of(driver.guests())} == {f"www-{number}" for number in range(60)}


async def test_a_partition_that_does_not_shut_down_is_switched_off(bench: ComputeBench, console: Console) -> None:
    async with bench.driver() as driver:
        for deaf, monitored, orders in ((False, True, 1), (True, True, 2), (False, False, 1)):
            spec = bench.spec()
            await driver.create_guest(spec)
            partition = console.of_uuid(spec.mark.uuid)
            partition.deaf, partition.monitored = deaf, monitored
            console.log.clear()
            assert (await driver.set_power(spec.mark.uuid, "off")).state == "off"
            assert jobs(console) == ["PowerOff"] * orders


@pytest.mark.parametrize("change", ["resize", "delete"])
async def test_a_partition_that_was_changed_meanwhile_is_a_conflict(
    bench: ComputeBench, console: Console, change: str
) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()._replace(power="off")
        await driver.create_guest(spec)
        partition = console.of_uuid(spec.mark.uuid)

        def change_first(method: str, path: str) -> None:
            if method in ("POST", "DELETE") and "/LogicalPartition/" in path:
                partition.slots += 1
                console.fail = lambda method, path: None

        async def work() -> None:
            if change == "delete":
                await driver.delete_guest(spec.mark.uuid)
            else:
                assert resizes(driver)
                await driver.resize_guest(spec.mark.uuid, 2, 2_048)

        console.fail = change_first
        with pytest.raises(Conflict, match="changed"):
            await work()
        assert partition.key in console.partitions
        assert partition.memory == 1_024
        await work()
    assert not console.partitions if change == "delete" else partition.memory == 2_048


async def test_a_size_that_does_not_start_is_taken_back(bench: ComputeBench, console: Console) -> None:
    console.system("Server-1").memory = 8_192
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        assert resizes(driver)
        with pytest.raises(Capacity, match="HSCL03EC"):
            await driver.resize_guest(spec.mark.uuid, 1, 16_384)
        found = await driver.get_guest(spec.mark.uuid)
    assert (found.state, found.vcpus, found.memory_mb) == ("on", 1, 1_024)


@pytest.mark.parametrize("change", ["delete", "resize", "power"])
async def test_a_partition_that_others_take_during_a_job_is_left_to_them(
    bench: ComputeBench, console: Console, change: str
) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        assert resizes(driver)
        theirs = console.of_uuid(spec.mark.uuid)
        console.log.clear()
        works: dict[str, Callable[[], Awaitable[object]]] = {
            "delete": lambda: driver.delete_guest(spec.mark.uuid),
            "resize": lambda: driver.resize_guest(spec.mark.uuid, 2, 2_048),
            "power": lambda: driver.set_power(spec.mark.uuid, "off"),
        }

        def take(method: str, path: str) -> None:
            if method == "GET" and "/jobs/" in path:
                theirs.name, theirs.description = "db", "taken over"
                theirs.changes += 1
                console.fail = lambda method, path: None

        console.fail = take
        with pytest.raises(Conflict, match="taken by others"):
            await works[change]()
        assert jobs(console) == ["PowerOff"]
        assert theirs.key in console.partitions
        assert theirs.memory == 1_024


async def test_what_is_answered_without_an_etag_is_not_changed(
    bench: ComputeBench, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()._replace(power="off")
        await driver.create_guest(spec)
        assert resizes(driver)
        made = hmc_values.partition_of
        monkeypatch.setattr(hmc, "partition_of", lambda *given: made(*given)._replace(etag=""))
        partition = console.of_uuid(spec.mark.uuid)
        with pytest.raises(Unknown, match="without an etag"):
            await driver.resize_guest(spec.mark.uuid, 2, 2_048)
        with pytest.raises(Unknown, match="without an etag"):
            await driver.delete_guest(spec.mark.uuid)
    assert console.partitions == {partition.key: partition}
    assert partition.memory == 1_024


async def test_a_partition_that_is_not_available_is_not_gone(bench: ComputeBench, console: Console) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        assert resizes(driver)
        partition = console.of_uuid(spec.mark.uuid)
        partition.state = "not available"  # while its managed system is operating
        for work in (
            lambda: driver.get_guest(spec.mark.uuid),
            lambda: driver.delete_guest(spec.mark.uuid),
            lambda: driver.set_power(spec.mark.uuid, "on"),
        ):
            with pytest.raises(Transient, match="does not answer") as caught:
                await work()
            assert caught.value.nodes == {"Server-1"}
    assert console.partitions == {partition.key: partition}


@pytest.mark.parametrize("lost", ["/rest/api/uom/", "/LogicalPartition/search/", "/ManagedSystem/", "/ManagedSystem?"])
async def test_a_listing_that_is_not_there_is_not_an_empty_one(
    bench: ComputeBench, console: Console, lost: str
) -> None:
    def miss(method: str, path: str) -> None:
        if method == "GET" and lost in path:
            raise RefusedError(404, "Not Found")

    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        driver._names.clear()  # type: ignore[attr-defined]  # of the driver hmc
        console.fail = miss
        partition = console.of_uuid(spec.mark.uuid)
        listings = (lambda: all_of(driver.guests()), lambda: all_of(driver.nodes()))
        lookups = (lambda: driver.get_guest(spec.mark.uuid), lambda: driver.delete_guest(spec.mark.uuid))
        for work in (*(() if "search" in lost else listings), *(() if lost == "/ManagedSystem/" else lookups)):
            with pytest.raises(Transient, match="not there"):
                await work()
    assert console.partitions == {partition.key: partition}


@pytest.mark.parametrize("lost", ["/do/PowerOff", "?group=None DELETE", "/LogicalPartition/{}?group=None GET"])
async def test_a_partition_is_gone_only_when_it_is_found_by_its_name_no_more(
    bench: ComputeBench, console: Console, lost: str
) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        partition = console.of_uuid(spec.mark.uuid)
        shown = lost.format(partition.key)

        def miss(method: str, path: str) -> None:
            if shown in f"{path} {method}":
                raise RefusedError(404, "Not Found")

        console.fail = miss
        with pytest.raises(Transient, match="is there"):
            await driver.delete_guest(spec.mark.uuid)
        if "DELETE" not in lost:
            with pytest.raises(Transient, match="is there"):
                await driver.set_power(spec.mark.uuid, "off")
        if "GET" in lost:
            with pytest.raises(Transient, match="is there"):
                await driver.create_guest(spec)

        def remove_first(method: str, path: str) -> None:
            if shown in f"{path} {method}":
                console.partitions.pop(partition.key, None)

        partition.state = "running"
        console.fail = remove_first
        await driver.delete_guest(spec.mark.uuid)
    assert not console.partitions


async def test_a_guest_that_cannot_be_resized_goes_on(
    bench: ComputeBench, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        assert resizes(driver)

        def without_shared_processors(*given: Any) -> hmc_values.Partition:
            found = made(*given)
            processors = found.element.find("{*}PartitionProcessorConfiguration")
            shared = found.element.find("{*}PartitionProcessorConfiguration/{*}SharedProcessorConfiguration")
            assert processors is not None
            assert shared is not None
            processors.remove(shared)
            return found

        made = hmc_values.partition_of
        monkeypatch.setattr(hmc, "partition_of", without_shared_processors)
        console.log.clear()
        with pytest.raises(Permanent, match="not resized"):
            await driver.resize_guest(spec.mark.uuid, 4, 2_048)
    assert jobs(console) == []
    assert console.of_uuid(spec.mark.uuid).state == "running"
