"""The vsphere driver passes the conformance suite on vcsim, VMware's simulator of a vCenter, behind a proxy that loses
answers. The simulator cannot show full clusters, duplicate names, tasks that take time, and tools in guests: errors of
those kinds are tested by their faults."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyVmomi", reason="pyvmomi is not installed")

from pyVmomi import vim, vmodl

from hostler.drivers.compute import vsphere, vsphere_api
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
    Quota,
    Transient,
    Unknown,
)
from hostler.placement.types.errors import InvalidValue

from . import vcenter
from .fault_proxy import Answer, FaultProxy
from .vcenter import CLUSTER, HOST, bench_of, disks, done, machine, opener

port = pytest.fixture(scope="module")(vcenter.simulator)
client = pytest.fixture(scope="module")(vcenter.independent_client)
proxy = pytest.fixture(vcenter.losing_proxy)
bench = pytest.fixture(vcenter.guests_bench)


class TestVsphereComputes(ComputeConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy, client: Any) -> ComputeBench:
        return bench_of(proxy, client, page=2)


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
