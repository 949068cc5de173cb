"""The vsphere driver passes the conformance suite on vcsim, VMware's simulator of a vCenter, behind a proxy that loses
answers. The simulator cannot show full clusters, duplicate names, tasks that take time, and tools in guests: errors of
those kinds are tested by their faults. vcsim is found as the program of that name, or where the variable VCSIM says."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal

import pytest
import trio

pytest.importorskip("pyVmomi", reason="pyvmomi is not installed")

from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim, vmodl

from hostler.bench.free_ports import free_ports
from hostler.drivers.compute import (
    vsphere,
    vsphere_api,
    vsphere_reading,
    vsphere_snapshots,
    vsphere_specs,
    vsphere_volumes,
)
from hostler.drivers.compute.vsphere_api import Found
from hostler.drivers.compute.vsphere_values import Cluster
from hostler.drivers.conformance import ComputeBench, ComputeConformance, StorageBench, StorageConformance
from hostler.drivers.conformance.bench import OURS, all_of, new_uuid
from hostler.drivers.protocol import (
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
)
from hostler.placement.types.errors import InvalidValue

from ..patience import HANG_SECONDS
from .fault_proxy import Answer, FaultProxy, Request

VCSIM = os.environ.get("VCSIM") or shutil.which("vcsim")
if VCSIM is None:
    pytest.skip("vcsim is not installed", allow_module_level=True)

STORE = "LocalDS_0"
CLUSTER, HOST = "DC0_C0", "DC0_H0"
"""A cluster of three hosts, and a host outside of clusters, each with two virtual machines."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    (port,) = free_ports(1)
    environment = {**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("vcsim"))}
    process = subprocess.Popen([str(VCSIM), "-l", f"127.0.0.1:{port}"], env=environment, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + HANG_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "vcsim ended"
                assert time.monotonic() < until, "vcsim does not listen"
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def client(port: int) -> Iterator[Any]:
    """An independent client."""
    context = ssl._create_unverified_context()
    instance = SmartConnect(host="127.0.0.1", port=port, user="user", pwd="pass", sslContext=context)
    yield instance.content
    Disconnect(instance)


def changes(request: Request) -> bool:
    """Whether a request begins a task: it names the method in its body."""
    return b"_Task " in request.body or b"_Task>" in request.body


@pytest.fixture
def proxy(port: int) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", port, changes, tls=True).running() as proxy:
        yield proxy


def opener(address: str, **more: Any) -> Callable[[DriverContext], AbstractAsyncContextManager[vsphere.VsphereDriver]]:
    options = {"endpoint": address, "username": "user", "password": "pass", "shutdown_seconds": 0.0, **more}
    return lambda context: vsphere.open_driver(options, context)


def machine(client: Any, uuid: str) -> Any:
    return client.searchIndex.FindByUuid(None, uuid, True, True)


def done(task: Any) -> Any:
    while task.info.state not in ("success", "error"):
        time.sleep(0.01)
    assert task.info.state == "success", task.info.error
    return task.info.result


def disks(devices: Any) -> list[int]:
    """Sizes of disks, in KiB."""
    return [each.capacityInKB for each in devices if isinstance(each, vim.vm.device.VirtualDisk)]


def bench_of(proxy: FaultProxy, client: Any, **more: Any) -> ComputeBench:
    async def make_stranger() -> str:
        center = client.rootFolder.childEntity[0]
        pool = next(each for each in center.hostFolder.childEntity if each.name == CLUSTER).resourcePool
        files = vim.vm.FileInfo(vmPathName=f"[{center.datastore[0].name}]")
        spec = vim.vm.ConfigSpec(name=f"theirs-{new_uuid()}", numCPUs=1, memoryMB=32, guestId="otherGuest", files=files)
        return str(done(center.vmFolder.CreateVM_Task(config=spec, pool=pool))._moId)

    async def change_outside(uuid: str, what: Literal["stop", "remove"]) -> None:
        found = machine(client, uuid)
        if found.runtime.powerState == "poweredOn":
            done(found.PowerOffVM_Task())
        if what == "remove":
            done(found.Destroy_Task())

    async def make_volume() -> Connection:
        async with opener(proxy.endpoint, **more)(DriverContext("volumes", OURS)) as driver:
            spec = VolumeSpec(Mark(OURS, new_uuid(), 1), "volume", STORE, 1)
            await driver.create_volume(spec)
            return await driver.connect(spec.mark.uuid, CLUSTER)

    return ComputeBench(
        open=opener(proxy.endpoint, **more),
        make_volume=make_volume,
        node=CLUSTER,
        other_node=HOST,
        lose_answers=proxy.lose_answers,
        outage=proxy.outage,
        hang=proxy.hang,
        make_stranger=make_stranger,
        change_outside=change_outside,
        page=5,
        disk_gb=1,
    )


@pytest.fixture
def bench(proxy: FaultProxy, client: Any) -> ComputeBench:
    return bench_of(proxy, client, page=2)


class TestVsphereComputes(ComputeConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy, client: Any) -> ComputeBench:
        return bench_of(proxy, client, page=2)


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


async def test_clusters_and_hosts_outside_of_clusters_are_nodes(bench: ComputeBench) -> None:
    async with bench.driver() as driver:
        nodes = {node.name: node for node in await all_of(driver.nodes())}
        assert set(nodes) == {CLUSTER, HOST}
        assert (nodes[CLUSTER].vcpus, nodes[HOST].vcpus) == (6, 2)
        assert nodes[CLUSTER].memory_mb == 3 * 4_294_430_720 // 2**20
        assert nodes[CLUSTER].disk_gb > nodes[CLUSTER].used_disk_gb > 0


async def test_a_host_in_maintenance_counts_no_more(bench: ComputeBench, client: Any) -> None:
    center = client.rootFolder.childEntity[0]
    (host,) = next(each for each in center.hostFolder.childEntity if each.name == HOST).host
    done(host.EnterMaintenanceMode_Task(timeout=5))
    try:
        async with bench.driver() as driver:
            node = next(each for each in await all_of(driver.nodes()) if each.name == HOST)
            assert (node.state, node.vcpus, node.memory_mb) == ("maintenance", 0, 0)
            with pytest.raises(Capacity):
                await driver.create_guest(bench.spec()._replace(node=HOST))
    finally:
        done(host.ExitMaintenanceMode_Task(timeout=5))


async def test_a_copy_of_a_template_has_the_size_that_is_wanted(bench: ComputeBench, client: Any) -> None:
    center = client.rootFolder.childEntity[0]
    (host,) = next(each for each in center.hostFolder.childEntity if each.name == HOST).host
    original = host.vm[0]
    where = vim.vm.RelocateSpec(pool=original.resourcePool)
    copy = vim.vm.CloneSpec(location=where, powerOn=False, template=True)
    template = done(original.CloneVM_Task(folder=center.vmFolder, name="debian-12", spec=copy))
    try:
        async with bench.driver() as driver:
            spec = bench.spec()._replace(
                node=HOST, image="debian-12", vcpus=2, memory_mb=256, disk_gb=3, user_data="#cloud-config"
            )
            guest = await driver.create_guest(spec)
            assert (guest.state, guest.vcpus, guest.memory_mb) == ("on", 2, 256)
            assert (await driver.create_guest(spec)).key == guest.key
            made = machine(client, spec.mark.uuid).config
            assert [
                each.capacityInKB for each in made.hardware.device if isinstance(each, vim.vm.device.VirtualDisk)
            ] == [3 * 2**20]
            extra = {each.key: each.value for each in made.extraConfig}
            assert extra["guestinfo.userdata"] == "I2Nsb3VkLWNvbmZpZw=="
            assert "debian-12" not in [each.name for each in await all_of(driver.guests())]
            with pytest.raises(NotFound, match="no template"):
                await driver.create_guest(bench.spec()._replace(image=original.name))
            await driver.delete_guest(spec.mark.uuid)
    finally:
        done(template.Destroy_Task())


async def test_a_blank_guest_has_a_disk_and_network_cards(bench: ComputeBench, client: Any) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()._replace(disk_gb=2, networks=("VM Network", "DC0_DVPG0"), power="off")
        await driver.create_guest(spec)
        devices = machine(client, spec.mark.uuid).config.hardware.device
        assert disks(devices) == [2 * 2**20]
        cards = [each for each in devices if isinstance(each, vim.vm.device.VirtualVmxnet3)]
        assert [type(each.backing).__name__.rpartition(".")[2] for each in cards] == [
            "NetworkBackingInfo",
            "DistributedVirtualPortBackingInfo",
        ]
        with pytest.raises(NotFound, match="no network"):
            await driver.create_guest(bench.spec()._replace(networks=("nowhere",)))
        with pytest.raises(Capacity, match="no room"):
            await driver.create_guest(bench.spec()._replace(disk_gb=10**6))
        await driver.delete_guest(spec.mark.uuid)


async def test_a_copy_that_others_make_of_a_guest_is_a_strangers(bench: ComputeBench, client: Any) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()._replace(power="off")
        await driver.create_guest(spec)
        ours = machine(client, spec.mark.uuid)
        extra = [vim.option.OptionValue(key="hostler.mark", value=str(spec.mark))]
        config = vim.vm.ConfigSpec(instanceUuid=new_uuid(), extraConfig=extra)
        where = vim.vm.RelocateSpec(pool=ours.resourcePool)
        copy = vim.vm.CloneSpec(location=where, config=config, powerOn=False, template=False)
        theirs = done(ours.CloneVM_Task(folder=ours.parent, name="copy", spec=copy))
        marks = {each.key: each.mark for each in await all_of(driver.guests())}
        assert (marks[ours._moId], marks[theirs._moId]) == (spec.mark, None)
        await driver.delete_guest(spec.mark.uuid)
        assert theirs._moId in [each.key for each in await all_of(driver.guests())]
        done(theirs.Destroy_Task())


async def test_a_session_that_ended_is_opened_again(bench: ComputeBench, client: Any) -> None:
    async with bench.driver() as driver:
        assert isinstance(driver, vsphere.VsphereDriver)
        driver._session.content.sessionManager.Logout()
        await driver.check()
        assert len(await all_of(driver.nodes())) == 2


async def test_marks_are_read_once_while_nothing_changes(bench: ComputeBench, proxy: FaultProxy) -> None:
    async with bench.driver() as driver:
        spec = bench.spec()._replace(power="off")
        await driver.create_guest(spec)
        await all_of(driver.guests())
        before = len(proxy.requests)
        assert spec.mark in [each.mark for each in await all_of(driver.guests())]
        assert not [each for each in proxy.requests[before:] if b"extraConfig" in each.body]
        await driver.delete_guest(spec.mark.uuid)


async def test_a_guest_whose_move_fails_runs_on_where_it_was(bench: ComputeBench, proxy: FaultProxy) -> None:
    async with bench.driver() as driver:
        assert isinstance(driver, vsphere.VsphereDriver)
        spec = bench.spec()
        await driver.create_guest(spec)
        refused = Answer(503, {}, b"busy")
        proxy.instead = lambda request: refused if b"RelocateVM_Task" in request.body else None
        with pytest.raises(DriverError):
            await driver.move_guest(spec.mark.uuid, HOST, live=False)
        guest = await driver.get_guest(spec.mark.uuid)
        assert (guest.node, guest.state) == (CLUSTER, "on")
        await driver.delete_guest(spec.mark.uuid)


NO_MEMORY = b"""<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body><soapenv:Fault>
<faultcode>ServerFaultCode</faultcode><faultstring>no memory</faultstring><detail>
<InsufficientMemoryResourcesFaultFault xmlns="urn:vim25"><unreserved>1</unreserved><requested>2</requested>
</InsufficientMemoryResourcesFaultFault></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>"""


async def test_a_guest_that_cannot_be_switched_on_with_another_size_runs_with_its_own(
    bench: ComputeBench, proxy: FaultProxy
) -> None:
    """Reconfiguring a machine that is off asks for no memory."""
    refusals = [Answer(500, {"Content-Type": "text/xml"}, NO_MEMORY)]
    async with bench.driver() as driver:
        assert isinstance(driver, vsphere.VsphereDriver)
        spec = bench.spec()
        made = await driver.create_guest(spec)
        proxy.instead = lambda request: refusals.pop() if b"PowerOnVM_Task" in request.body and refusals else None
        with pytest.raises(Capacity):
            await driver.resize_guest(spec.mark.uuid, 2 * spec.vcpus, spec.memory_mb)
        assert not refusals
        assert await driver.get_guest(spec.mark.uuid) == made
        assert made.state == "on"
        assert (await driver.create_guest(spec)).key == made.key, "the size that is noted is put back too"
        await driver.delete_guest(spec.mark.uuid)


# errors


@pytest.mark.parametrize(
    ("error", "reading", "changing"),
    [
        (vim.fault.InsufficientMemoryResourcesFault(), Capacity, Capacity),
        (vim.fault.NoDiskSpace(), Capacity, Capacity),
        (vim.fault.NoCompatibleHost(), Capacity, Capacity),
        (vim.fault.DuplicateName(), Conflict, Conflict),
        (vim.fault.InvalidPowerState(), Conflict, Conflict),
        (vim.fault.TaskInProgress(), Transient, Transient),
        (vmodl.fault.NotEnoughLicenses(), Quota, Quota),
        (vim.fault.InvalidLogin(), Denied, Denied),
        (vim.fault.NoPermission(), Denied, Denied),
        (vim.fault.Timedout(), Transient, Unknown),
        (vmodl.fault.ManagedObjectNotFound(), NotFound, NotFound),
        (vmodl.fault.HostNotConnected(), Transient, Transient),
        (vmodl.fault.InvalidArgument(), Permanent, Permanent),
        (vmodl.fault.SystemError(), Transient, Unknown),
        (ConnectionRefusedError(111, "Connection refused"), Transient, Transient),
        (ConnectionResetError(104, "Connection reset"), Transient, Unknown),
        (TimeoutError("timed out"), Transient, Unknown),
        (http.client.BadStatusLine(""), Transient, Unknown),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_fault_has_its_class(
    error: BaseException, reading: type[DriverError], changing: type[DriverError]
) -> None:
    assert type(vsphere_api.as_ours(error, reads=True)) is reading
    assert type(vsphere_api.as_ours(error, reads=False)) is changing


async def test_an_answer_of_another_server_is_an_error_of_the_protocol(bench: ComputeBench, proxy: FaultProxy) -> None:
    async with bench.driver() as driver:
        for answer in (Answer(503, {}, b"busy"), Answer(200, {}, b"<html>"), Answer(500, {}, b"oops")):
            proxy.instead = lambda request, answer=answer: answer  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            with pytest.raises(Transient):
                await driver.check()
        proxy.instead = lambda request: None
        await driver.check()


async def test_wrong_options_are_said(proxy: FaultProxy, tmp_path: Path) -> None:
    context = DriverContext("bench", OURS)
    for more, kind in (
        ({"username": ""}, Denied),
        ({"datacenter": "DC9"}, NotFound),
        ({"endpoint": "10.0.0.1"}, InvalidValue),
        ({"endpoint": "http://127.0.0.1:1"}, Transient),
        ({"ca_file": str(tmp_path / "none.pem")}, InvalidValue),
    ):
        with pytest.raises(kind):
            async with opener(proxy.endpoint, **more)(context):
                pass


async def test_a_certificate_that_is_not_trusted_is_refused_unless_insecure(port: int) -> None:
    endpoint, context = f"https://127.0.0.1:{port}", DriverContext("bench", OURS)
    with pytest.raises(Transient, match="certificate"):
        async with opener(endpoint)(context):
            pass
    async with opener(endpoint, insecure=True, datacenter="DC0", clusters=[HOST])(context) as driver:
        assert [node.name for node in await all_of(driver.nodes())] == [HOST]


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
