"""Volumes of the vsphere driver, on vcsim: they outlast their guests, and are known and reached from where they lie."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

pytest.importorskip("pyVmomi", reason="pyvmomi is not installed")

from pyVmomi import vim

from hostler.drivers.compute import (
    vsphere,
    vsphere_reading,
    vsphere_snapshots,
    vsphere_specs,
    vsphere_volumes,
)
from hostler.drivers.compute.vsphere_api import Found
from hostler.drivers.compute.vsphere_values import Cluster
from hostler.drivers.conformance import ComputeBench, StorageBench, StorageConformance
from hostler.drivers.conformance.bench import OURS, all_of, new_uuid
from hostler.drivers.protocol import (
    Capacity,
    Conflict,
    Connection,
    Mark,
    NotFound,
    Permanent,
    VolumeSpec,
)

from . import vcenter
from .fault_proxy import FaultProxy
from .vcenter import CLUSTER, HOST, STORE, changes, disks, machine, opener

port = pytest.fixture(scope="module")(vcenter.simulator)
client = pytest.fixture(scope="module")(vcenter.independent_client)
proxy = pytest.fixture(vcenter.losing_proxy)
bench = pytest.fixture(vcenter.guests_bench)


class TestVsphereStores(StorageConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy) -> StorageBench:
        return StorageBench(
            open=opener(proxy.endpoint, page=2),
            pool=STORE,
            node=CLUSTER,
            lose_answers=proxy.lose_answers,
            outage=proxy.outage,
            hang=proxy.hang,
            page=5,
        )


async def test_a_volume_outlasts_its_guest_and_is_in_no_snapshot_of_it(bench: ComputeBench, client: Any) -> None:
    """A vCenter removes all disks of a machine that is removed, and copies all."""
    assert bench.make_volume is not None
    volume = await bench.make_volume()
    async with bench.driver() as driver:
        assert isinstance(driver, vsphere.VsphereDriver)
        spec = bench.spec()._replace(disk_gb=1, volumes=(volume,))
        uuid, mark = spec.mark.uuid, Mark(OURS, new_uuid(), 1)
        assert (await driver.create_guest(spec)).volumes == (volume.volume,)
        await driver.snapshot_guest(uuid, mark, "image")
        assert len(disks(machine(client, uuid).config.hardware.device)) == 2
        assert len(disks(machine(client, mark.uuid).config.hardware.device)) == 1
        for change in (
            lambda: driver.delete_volume(volume.volume),
            lambda: driver.extend_volume(volume.volume, 2),
        ):
            with pytest.raises(Conflict, match="in use"):
                await change()
        await driver.delete_guest(uuid)
        other = bench.spec()
        await driver.create_guest(other)
        await driver.attach(other.mark.uuid, volume)  # its file is there
        with pytest.raises(Conflict, match="in use"):
            await driver.create_guest(bench.spec()._replace(volumes=(volume,)))
        await driver.detach(other.mark.uuid, volume.volume)
        await driver.delete_volume(volume.volume)
        await driver.delete_guest(other.mark.uuid)
        assert all(each.mark is None or each.mark.uuid != volume.volume for each in await all_of(driver.guests()))


@pytest.mark.parametrize(
    "path",
    [
        "hostler-volume-{0}/hostler-volume-{0}.vmdk",
        "hostler-volume-{0}_1/disk.vmdk",
        "3c0b5b5e-6a3c-17e1-0b2a-020012345678/hostler-volume-{0}.vmdk",  # vSAN: the id of an object
        "naa.600a098000aef3b2/hostler-volume-{0}_1-000002.vmdk",
        "hostler-volume-{0}.vmdk",
        "customers/a/hostler-volume-{0}/hostler-volume-{0}-000001.vmdk",
    ],
)
def test_the_file_of_a_volume_is_known_by_its_folder_or_its_name(path: str) -> None:
    uuid, backing = new_uuid(), vim.vm.device.VirtualDisk.FlatVer2BackingInfo
    disk = vim.vm.device.VirtualDisk(backing=backing(fileName=f"[vsanDatastore] {path.format(uuid)}"))
    assert vsphere_reading.volumes_among([disk], {}) == [(disk, uuid)]


def test_other_files_are_no_volumes() -> None:
    uuid, backing = new_uuid(), vim.vm.device.VirtualDisk.FlatVer2BackingInfo
    for path in (
        f"hostler-{uuid}/hostler-{uuid}.vmdk",
        f"my-hostler-volume-{uuid}.vmdk",
        f"x/hostler-volume-{uuid}-copy.vmdk",
    ):
        disk = vim.vm.device.VirtualDisk(backing=backing(fileName=f"[store] {path}"))
        assert not vsphere_reading.volumes_among([disk], {"hostler.disk.x": "6000c29a"})


async def test_a_volume_in_the_folder_of_an_object_outlasts_its_guest(
    bench: ComputeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vSAN and virtual volumes name the folder of a machine by the id of an object, which no client chooses: the folder
    of another machine stands for it."""

    def disk_in_object(size: int, pool: str) -> list[Any]:
        changes = vsphere_specs.new_disk(size, pool)
        changes[1].device.backing.fileName = f"[{pool}] DC0_C0_RP0_VM0/hostler-volume-{made.mark.uuid}.vmdk"
        return changes

    made = VolumeSpec(Mark(OURS, new_uuid(), 1), "volume", STORE, 1)
    monkeypatch.setattr(vsphere_volumes, "new_disk", disk_in_object)
    async with bench.driver() as driver:
        assert isinstance(driver, vsphere.VsphereDriver)
        await driver.create_volume(made)
        volume = await driver.connect(made.mark.uuid, CLUSTER)
        first, second = bench.spec()._replace(power="off"), bench.spec()._replace(power="off", volumes=(volume,))
        await driver.create_guest(first)
        for _ in range(2):
            await driver.attach(first.mark.uuid, volume)
        assert (await driver.get_guest(first.mark.uuid)).volumes == (volume.volume,)
        await driver.delete_guest(first.mark.uuid)
        assert (await driver.create_guest(second)).volumes == (volume.volume,), "its file is there"
        await driver.delete_guest(second.mark.uuid)
        await driver.delete_volume(volume.volume)


async def test_a_volume_whose_file_was_renamed_is_known_by_the_uuid_of_its_disk(
    bench: ComputeBench, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vCenter renames files that it moves to another datastore; the simulator does not, so no name is looked at. Its
    disks have no uuids: their files stand for these."""

    def file_of(device: Any) -> str:
        return str(device.backing.fileName)

    assert bench.make_volume is not None
    volume, snapshot = await bench.make_volume(), Mark(OURS, new_uuid(), 1)
    async with bench.driver() as driver:
        assert isinstance(driver, vsphere.VsphereDriver)
        for module in (vsphere_reading, vsphere_volumes):
            monkeypatch.setattr(module, "disk_uuid", file_of)
        spec = bench.spec()._replace(disk_gb=1, power="off", volumes=(volume,))
        await driver.create_guest(spec)
        monkeypatch.setattr(vsphere_reading, "_VOLUME_FILE", re.compile("(?!)"))
        driver._known.clear()
        assert (await driver.get_guest(spec.mark.uuid)).volumes == (volume.volume,)
        await driver.snapshot_guest(spec.mark.uuid, snapshot, "image")
        assert len(disks(machine(client, snapshot.uuid).config.hardware.device)) == 1
        with pytest.raises(Conflict, match="in use"):
            await driver.delete_volume(volume.volume)
        other = bench.spec()._replace(power="off")
        await driver.create_guest(other)
        await driver.delete_guest(spec.mark.uuid)
        await driver.attach(other.mark.uuid, volume)  # its file is there
        await driver.detach(other.mark.uuid, volume.volume)
        for uuid in (other.mark.uuid, snapshot.uuid):
            extra = {each.key: each.value for each in machine(client, uuid).config.extraConfig}
            assert not [key for key, value in extra.items() if key.startswith("hostler.disk.") and value]
        await driver.delete_snapshot(snapshot.uuid)
        await driver.delete_guest(other.mark.uuid)
        await driver.delete_volume(volume.volume)


async def test_a_volume_is_not_looked_at_while_another_change_of_it_is_under_way(
    bench: ComputeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.make_volume is not None
    volume = await bench.make_volume()
    refused = list[str]()
    async with bench.driver() as driver:
        assert isinstance(driver, vsphere.VsphereDriver)
        check, looked = driver._check_unused, trio.Event()

        async def slow_check(uuid: str, *, but: Any = None) -> None:
            await check(uuid, but=but)
            looked.set()
            await trio.sleep(0.2)  # others go on meanwhile

        async def noted(name: str, change: Awaitable[Any]) -> None:
            try:
                await change
            except Conflict:
                refused.append(name)

        monkeypatch.setattr(driver, "_check_unused", slow_check)
        guests = [bench.spec()._replace(power="off") for _ in range(2)]
        for guest in guests:
            await driver.create_guest(guest)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(noted, "first", driver.attach(guests[0].mark.uuid, volume))
            await looked.wait()
            nursery.start_soon(noted, "second", driver.attach(guests[1].mark.uuid, volume))
            nursery.start_soon(noted, "extension", driver.extend_volume(volume.volume, 2))
            nursery.start_soon(noted, "deletion", driver.delete_volume(volume.volume))
        assert sorted(refused) == ["deletion", "extension", "second"]
        assert [(await driver.get_guest(each.mark.uuid)).volumes for each in guests] == [(volume.volume,), ()]
        for guest in guests:
            await driver.delete_guest(guest.mark.uuid)
        await driver.delete_volume(volume.volume)


async def test_a_volume_that_is_attached_while_a_snapshot_begins_is_not_in_it(
    bench: ComputeBench, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.make_volume is not None
    volume, begin, looked = await bench.make_volume(), vsphere_snapshots.begin, trio.Event()

    def slow_begin(ref: Any, folder: Callable[[], Any], mark: Mark, name: str) -> Any:
        def folder_soon() -> Any:
            """What is asked for last before the copy begins, in a thread."""
            trio.from_thread.run_sync(looked.set)
            time.sleep(0.2)  # others go on meanwhile
            return folder()

        return begin(ref, folder_soon, mark, name)

    monkeypatch.setattr(vsphere_snapshots, "begin", slow_begin)
    async with bench.driver() as driver:
        assert isinstance(driver, vsphere.VsphereDriver)
        spec, mark = bench.spec()._replace(disk_gb=1, power="off"), Mark(OURS, new_uuid(), 1)
        await driver.create_guest(spec)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driver.snapshot_guest, spec.mark.uuid, mark, "image")
            await looked.wait()
            await driver.attach(spec.mark.uuid, volume)
        assert len(disks(machine(client, spec.mark.uuid).config.hardware.device)) == 2
        assert len(disks(machine(client, mark.uuid).config.hardware.device)) == 1
        await driver.delete_snapshot(mark.uuid)
        await driver.delete_guest(spec.mark.uuid)
        await driver.delete_volume(volume.volume)


async def test_other_volumes_than_its_own_are_refused_before_anything_is_made(
    bench: ComputeBench, proxy: FaultProxy
) -> None:
    assert bench.make_volume is not None
    own = await bench.make_volume()
    other = Connection(volume=new_uuid(), protocol="iscsi", address="10.0.0.1:3260")
    async with bench.driver() as driver:
        assert isinstance(driver, vsphere.VsphereDriver)
        spec, before = bench.spec()._replace(volumes=(own, other)), len(proxy.requests)
        with pytest.raises(Permanent, match="no iscsi"):
            await driver.create_guest(spec)
        assert not [each for each in proxy.requests[before:] if changes(each)]
        with pytest.raises(NotFound):
            await driver.get_guest(spec.mark.uuid)
        await driver.delete_volume(own.volume)


async def test_a_guest_moves_to_a_host_that_reaches_its_volumes(
    bench: ComputeBench, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All hosts of the simulator reach all datastores."""
    assert bench.make_volume is not None
    volume = await bench.make_volume()
    async with bench.driver() as driver:
        assert isinstance(driver, vsphere.VsphereDriver)
        clusters, less = driver._clusters, 1

        async def clusters_of_which_hosts_reach_none() -> dict[str, Any]:
            found = await clusters()
            cut = {each.ref for each in found[CLUSTER].usable[:less]}
            hosts = [
                each._replace(properties={**each.properties, "datastore": []}) if each.ref in cut else each
                for each in found[CLUSTER].hosts
            ]
            return {**found, CLUSTER: found[CLUSTER]._replace(hosts=hosts)}

        spec = bench.spec()._replace(node=HOST, volumes=(volume,))
        await driver.create_guest(spec)
        monkeypatch.setattr(driver, "_clusters", clusters_of_which_hosts_reach_none)
        less = 3
        with pytest.raises(Permanent, match=f"no host of cluster {CLUSTER} that is up reaches all volumes"):
            await driver.move_guest(spec.mark.uuid, CLUSTER, live=False)
        with pytest.raises(Capacity, match="reaches a datastore"):
            await driver.create_guest(bench.spec())
        assert (await driver.get_guest(spec.mark.uuid)).state == "on"
        less = 1
        unfit = (await clusters())[CLUSTER].usable[0].ref
        moved = await driver.move_guest(spec.mark.uuid, CLUSTER, live=False)
        assert (moved.node, moved.state, moved.volumes) == (CLUSTER, "on", (volume.volume,))
        assert machine(client, spec.mark.uuid).runtime.host._moId != unfit._moId
        await driver.delete_guest(spec.mark.uuid)
        await driver.delete_volume(volume.volume)


def test_a_host_is_chosen_with_the_datastore_that_it_reaches() -> None:
    def host(name: str, *stores: str, used: int = 0) -> Found:
        up = {"runtime.connectionState": "connected", "runtime.inMaintenanceMode": False, "datastore": list(stores)}
        return Found(name, {**up, "summary.hardware.memorySize": 2**33, "summary.quickStats.overallMemoryUsage": used})

    def store(name: str, free: int, accessible: bool = True) -> Found:
        return Found(name, {"summary.freeSpace": free, "summary.accessible": accessible})

    def chosen(*needed: str) -> tuple[str, str] | None:
        found = cluster.host_and_store(needed)
        return None if found is None else (found[0].ref, found[1].ref)

    hosts = [host("idle", "shared"), host("busy", "shared", "large", "lost", used=4_096)]
    cluster = Cluster(Found("cluster", {}), hosts, [store("shared", 5), store("large", 9), store("lost", 99, False)])
    assert chosen() == ("busy", "large")
    assert chosen("shared") == ("busy", "large")
    assert chosen("elsewhere") is None
    assert cluster.host(["shared"]) == hosts[0]
    assert cluster.host(["shared", "large"]) == hosts[1]
    assert cluster._replace(datastores=[store("none", 50), store("shared", 5)]).host_and_store(()) == (
        hosts[0],
        store("shared", 5),
    )


def test_a_disk_is_added_where_a_controller_has_room() -> None:
    devices = list[Any]()
    for count in range(60):
        changes = [change.device for change in vsphere_volumes.disk_added(devices, f"[store] {count}.vmdk")]
        new = {-101: 1_000 + count}
        for device in changes:
            device.key = new.get(device.key, 2_000 + count)
            device.controllerKey = new.get(device.controllerKey, device.controllerKey)
        devices += changes
    taken = [(each.controllerKey, each.unitNumber) for each in devices if isinstance(each, vim.vm.device.VirtualDisk)]
    assert len(set(taken)) == 60
    assert {unit for _, unit in taken} == {*range(7), *range(8, 16)}
    with pytest.raises(Capacity):
        vsphere_volumes.disk_added(devices, "[store] one-more.vmdk")
