"""The libvirt driver passes the conformance suite on libvirt's test driver, which needs no hypervisor. That one cannot
show lost answers, full hosts, attached volumes, and guests that take their time to shut down."""

from __future__ import annotations

import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import trio

from ..patience import HANG_SECONDS

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")

from hostler.drivers.compute import libvirt as driver_module  # noqa: E402  # after the skip
from hostler.drivers.compute import libvirt_host as host_module  # noqa: E402  # after the skip
from hostler.drivers.compute.libvirt_snapshots import image_name  # noqa: E402  # after the skip
from hostler.drivers.compute.libvirt_xml import disk_xml  # noqa: E402  # after the skip
from hostler.drivers.conformance import ComputeBench, ComputeConformance  # noqa: E402  # after the skip
from hostler.drivers.protocol import (  # noqa: E402  # after the skip
    Capacity,
    ComputeDriver,
    Connection,
    DriverContext,
    DriverError,
    Mark,
    NotFound,
    Permanent,
    Transient,
    Unknown,
    computes,
    read_options,
    snapshots,
)

from .outages import Outages  # noqa: E402  # after the skip

open_driver = driver_module.open_driver
URI = "test:///default"
VOLUME = "5f0c1a8e-9a57-4d43-8f7e-5d0e6b1b7c11"


class Wire:
    """The way to libvirt: each call on a connection, or on what it has returned, is a request. One that is lost fails
    as when libvirtd is killed."""

    def __init__(self, outages: Outages, thing: Any) -> None:
        self._outages, self._thing = outages, thing

    def isAlive(self) -> bool:
        return not self._outages.gone

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._thing, name)

        def request(*arguments: Any) -> Any:
            lost, arrives = self._outages.fate()
            self._outages.wait()
            answer = method(*arguments) if arrives else None
            if lost:
                failure = libvirt.libvirtError("lost")
                text = "End of file while reading data: Input/output error" if arrives else "Broken pipe"
                failure.err = (libvirt.VIR_ERR_SYSTEM_ERROR, 7, text, 2, None, None, None, -1, -1)
                raise failure
            parts = answer if isinstance(answer, list) else [answer]
            wired = [Wire(self._outages, each) if isinstance(each, libvirt.virDomain) else each for each in parts]
            return wired if isinstance(answer, list) else wired[0]

        return request


@pytest.fixture
def outages(monkeypatch: pytest.MonkeyPatch) -> Outages:
    outages, connect = Outages(), host_module._connect

    def connected(uri: str) -> Any:
        if outages.gone:
            raise Transient("Failed to connect socket: Connection refused")
        return Wire(outages, connect(uri))

    monkeypatch.setattr(host_module, "_connect", connected)
    monkeypatch.setattr(host_module, "LEFT_ALONE", 0.02)
    return outages


class TestLibvirtComputes(ComputeConformance):
    @pytest.fixture
    def bench(self, outages: Outages) -> ComputeBench:
        options = {"uri": URI, "node": "host", "domain_type": "test"}

        async def make_stranger() -> str:
            name = str(uuid.uuid4())
            xml = f"<domain type='test'><name>{name}</name><uuid>{name}</uuid><memory>65536</memory>"
            keep.defineXML(f"{xml}<vcpu>1</vcpu><os><type>hvm</type></os></domain>")
            return name

        async def change_outside(uuid: str, what: Literal["stop", "remove"]) -> None:
            domain = keep.lookupByUUIDString(uuid)
            if domain.isActive():
                domain.destroy()
            if what == "remove":
                domain.undefine()

        keep = libvirt.open(URI)  # the state lasts as long as some connection of the process
        return ComputeBench(
            open=lambda context: open_driver(options, context),
            node="host",
            outage=outages,
            hang=outages.hang,
            make_stranger=make_stranger,
            change_outside=change_outside,
        )


NODE = """<node>
  <cpu><mhz>2600</mhz><model>x86_64</model><active>8</active><nodes>1</nodes><sockets>1</sockets><cores>8</cores>
  <threads>1</threads></cpu>
  <memory>8388608</memory>
</node>"""
"""A host of libvirt's test driver: 8 CPUs, 8 GiB. Each connection has a state of its own."""


class TestLibvirtMovesBetweenHosts(ComputeConformance):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> ComputeBench:
        hosts = {}
        for name in ("one", "two"):
            (tmp_path / f"{name}.xml").write_text(NODE)
            hosts[name] = f"test://{tmp_path}/{name}.xml"
        options = {"hosts": hosts, "domain_type": "test"}
        shared = Shared(options)

        @contextmanager
        def other_node_down() -> Iterator[None]:
            (tmp_path / "two.xml").unlink()
            shared._hosts[1].close()
            yield
            (tmp_path / "two.xml").write_text(NODE)
            shared._hosts[1]._again = 0.0

        return ComputeBench(
            open=shared.open,
            node="one",
            other_node="two",
            moves_live=False,
            other_node_down=other_node_down,
        )


class Shared:
    """Drivers of several installations on the same connections, since others would not see the same hosts."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = read_options(options, driver_module.Options)
        self._hosts = [host_module.Host(uri, name) for name, uri in self._options.hosts.items()]

    @asynccontextmanager
    async def open(self, context: DriverContext) -> AsyncIterator[ComputeDriver]:
        yield driver_module.LibvirtDriver(self._hosts, self._options, context.installation)


async def test_a_host_that_does_not_answer_is_a_node_that_is_down(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.xml").write_text(NODE)
    hosts = {name: f"test://{tmp_path}/{name}.xml" for name in ("one", "two")}
    shared = Shared({"hosts": hosts, "domain_type": "test"})
    bench = ComputeBench(open=shared.open, node="one", other_node="two")
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        assert [node.state async for page in driver.nodes() for node in page.items] == ["up", "up"]
        (tmp_path / "one.xml").unlink()
        shared._hosts[0].close()
        states = {node.name: node.state async for page in driver.nodes() for node in page.items}
        assert states == {"one": "down", "two": "up"}
        assert [guest async for page in driver.guests() for guest in page.items] == []
        with pytest.raises(Transient) as caught:
            await driver.get_guest(spec.mark.uuid)
        assert caught.value.nodes == {"one"}
        evacuated = spec._replace(mark=spec.mark._replace(claim=2), node="two")
        assert (await driver.create_guest(evacuated)).node == "two"
        assert (await driver.get_guest(spec.mark.uuid)).mark == evacuated.mark


async def test_one_host_that_does_not_answer_does_not_keep_the_back_end_closed(tmp_path: Path) -> None:
    (tmp_path / "one.xml").write_text(NODE)
    hosts = {name: f"test://{tmp_path}/{name}.xml" for name in ("two", "one")}
    async with open_driver({"hosts": hosts, "domain_type": "test"}, DriverContext("a", "b")) as driver:
        await driver.check()
        assert [node.name async for page in driver.nodes() for node in page.items] == ["one"]
        bench = ComputeBench(open=None, node="one")  # type: ignore[arg-type]  # only its specs are used
        spec = bench.spec("b")
        assert (await driver.create_guest(spec)).node == "one"
        with pytest.raises(Transient) as caught:
            await driver.create_guest(bench.spec("b")._replace(node="two"))
        assert caught.value.nodes == {"two"}
        with pytest.raises(Transient):
            await driver.move_guest(spec.mark.uuid, "two", live=False)
        assert (await driver.get_guest(spec.mark.uuid)).state == "on", "it was not stopped for a host that is down"
        await driver.delete_guest(spec.mark.uuid)
        (tmp_path / "two.xml").write_text(NODE)
        driver._hosts["two"]._again = 0.0
        assert {node.name async for page in driver.nodes() for node in page.items} == {"one", "two"}


async def test_a_host_that_hangs_while_it_is_connected_to_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a libvirtd that is stopped: it takes connections, and says nothing."""
    monkeypatch.setattr(host_module, "OPEN_WAIT", 0.01)
    hosts = {name: f"test://{tmp_path}/{name}.xml" for name in ("stopped", "one")}
    for name in hosts:
        (tmp_path / f"{name}.xml").write_text(NODE)
    connect, going_on = host_module._connect, threading.Event()

    def slowly(uri: str) -> Any:
        if "stopped" in uri:
            going_on.wait()
        return connect(uri)

    monkeypatch.setattr(host_module, "_connect", slowly)
    monkeypatch.setattr(host_module, "FIRST_WAIT", 0.05)
    options = {"hosts": hosts, "domain_type": "test", "concurrency": 1}
    async with open_driver(options, DriverContext("a", "b")) as driver:
        for _ in range(2):
            assert [node.name async for page in driver.nodes() for node in page.items] == ["one"]
        spec = ComputeBench(open=None, node="one").spec("b")  # type: ignore[arg-type]  # only its specs are used
        assert (await driver.create_guest(spec)).node == "one"
        assert (await driver.get_guest(spec.mark.uuid)).node == "one"
        with pytest.raises(Transient, match="being connected to") as caught:
            await driver.create_guest(spec._replace(mark=spec.mark._replace(uuid=VOLUME), node="stopped"))
        assert caught.value.nodes == {"stopped"}
        going_on.set()
        with trio.fail_after(HANG_SECONDS):
            while len([node async for page in driver.nodes() for node in page.items]) < 2:  # noqa: ASYNC110  # a thread
                await trio.sleep(0.01)


def test_a_connection_that_is_dead_is_not_closed_while_calls_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing it frees memory that such a call uses: the process would crash."""

    class Connection:
        closed = 0
        alive = True

        def isAlive(self) -> bool:
            return self.alive

        def getLibVersion(self) -> int:
            return 9

        def close(self) -> None:
            self.closed += 1

    made = [Connection(), Connection()]
    connections = iter(made)
    monkeypatch.setattr(host_module, "_connect", lambda uri: next(connections))
    host = host_module.Host(URI, "host")
    assert host.connection() is made[0]
    made[0].alive = False
    assert host.connection() is made[1]
    assert made[0].closed == 0
    host.close()
    assert made[1].closed == 1


def test_calls_at_the_same_time_have_connections_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several threads that wait on one connection libvirt tells one that its peer is dead."""

    class Connection:
        def isAlive(self) -> bool:
            return True

        def getLibVersion(self) -> int:
            return 9

    made = list[Connection]()

    def connect(uri: str) -> Connection:
        made.append(Connection())
        return made[-1]

    monkeypatch.setattr(host_module, "_connect", connect)
    host, both, used = host_module.Host("qemu:///system", "host"), threading.Barrier(2), list[Any]()

    def work() -> None:
        used.append(host.connection())
        both.wait(60)
        assert host.connection() is host.connection()

    threads = [threading.Thread(target=host_module.leased, args=(work,)) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(used) == set(made)
    assert len(made) == 2
    assert host_module.leased(host.connection) in made
    assert len(made) == 2, "they are used again"


async def test_a_back_end_of_which_no_host_answers_is_not_opened(tmp_path: Path) -> None:
    hosts = {name: f"test://{tmp_path}/{name}.xml" for name in ("one", "two")}
    with pytest.raises(DriverError) as caught:
        async with open_driver({"hosts": hosts}, DriverContext("a", "b")):
            pass
    assert not caught.value.nodes


async def test_root_disks_are_volumes_of_a_pool_and_go_with_their_guest() -> None:
    keep = libvirt.open(URI)
    pool = keep.storagePoolLookupByName("default-pool")
    options = {"uri": URI, "node": "host", "domain_type": "test", "pool": "default-pool"}
    async with open_driver(options, DriverContext("a", "disks")) as driver:
        assert computes(driver)
        bench = ComputeBench(open=None, node="host")  # type: ignore[arg-type]  # only its specs are used
        spec = bench.spec("disks")._replace(disk_gb=2)
        await driver.create_guest(spec)
        (name,) = [each for each in pool.listVolumes() if spec.mark.uuid in each]
        assert pool.storageVolLookupByName(name).info()[1] == 2 * 2**30
        await driver.delete_guest(spec.mark.uuid)
        assert not [each for each in pool.listVolumes() if spec.mark.uuid in each]


async def test_without_a_pool_a_guest_with_a_disk_is_refused() -> None:
    async with open_driver({"uri": URI, "node": "host"}, DriverContext("a", "b")) as driver:
        bench = ComputeBench(open=None, node="host")  # type: ignore[arg-type]  # only its specs are used
        with pytest.raises(Permanent, match="storage pool"):
            await driver.create_guest(bench.spec()._replace(disk_gb=1))


def _error(code: int, text: str) -> Any:
    """An error of libvirt's, with a code."""
    error = libvirt.libvirtError(text)
    error.err = (code, 0, text, 2, "", "", "", 0, 0)
    return error


@pytest.mark.parametrize("code", sorted(host_module.ERRORS))
def test_each_code_has_its_class(code: int) -> None:
    assert type(host_module.as_ours(_error(code, "x"))) is host_module.ERRORS[code]


def test_texts_say_more_than_the_code_of_internal_errors() -> None:
    assert isinstance(host_module.as_ours(_error(1, "qemu: Cannot allocate memory")), Capacity)
    plug = "unable to execute QEMU command 'device_add': Bus 'pci.0' does not support hotplugging"
    assert isinstance(host_module.as_ours(_error(1, plug)), Permanent)
    assert isinstance(host_module.as_ours(_error(999, "something new")), Unknown)


def test_a_mark_of_another_uuid_is_no_mark() -> None:
    """A domain that was cloned with its metadata is a stranger's."""
    keep = libvirt.open(URI)
    own, other = str(uuid.uuid4()), str(uuid.uuid4())
    mark = Mark("a", other, 1)
    xml = (
        f"<domain type='test'><name>{own}</name><uuid>{own}</uuid><memory>65536</memory><vcpu>1</vcpu>"
        f"<metadata><h:guest xmlns:h='urn:hostler:guest:1' mark='{mark}'/></metadata><os><type>hvm</type></os></domain>"
    )
    domain: Any = keep.defineXML(xml)
    try:
        host = host_module.Host(URI, None)
        assert driver_module.LibvirtDriver([host], driver_module.Options(), "a")._seen(host, domain).mark is None
    finally:
        domain.undefine()


async def test_the_disk_of_a_guest_is_no_image() -> None:
    """Though it is in the same storage pool, and its name can be guessed by who knows the guest's uuid."""
    keep = libvirt.open(URI)
    options = {"uri": URI, "node": "host", "domain_type": "test", "pool": "default-pool"}
    bench = ComputeBench(open=lambda context: open_driver(options, context), node="host")
    async with bench.driver() as driver:
        spec, thief = bench.spec()._replace(disk_gb=1), bench.spec()
        await driver.create_guest(spec)
        names = keep.storagePoolLookupByName("default-pool").listVolumes()
        (disk,) = [name for name in names if spec.mark.uuid in name]
        with pytest.raises(NotFound):
            await driver.create_guest(thief._replace(image=disk))
        with pytest.raises(NotFound):
            await driver.get_guest(thief.mark.uuid)
        await driver.delete_guest(spec.mark.uuid)
    keep.close()


@pytest.mark.parametrize("power", ["on", "off"])
async def test_snapshots_are_volumes_of_the_storage_pool(power: Literal["on", "off"]) -> None:
    keep = libvirt.open(URI)
    options = {"uri": URI, "node": "host", "domain_type": "test", "pool": "default-pool"}
    bench = ComputeBench(open=lambda context: open_driver(options, context), node="host", disk_gb=1)
    suite = ComputeConformance()
    await suite.test_a_snapshot_is_made_listed_used_and_removed(bench, power)
    await suite.test_what_is_not_there_has_no_snapshot(bench)
    await suite.test_a_snapshot_cancelled_at_any_await_is_made_once(bench)
    assert keep.storagePoolLookupByName("default-pool").listVolumes() == []
    keep.close()


async def test_a_snapshot_that_was_cut_off_is_made_again() -> None:
    """One that nothing says to be whole."""
    keep = libvirt.open(URI)
    pool = keep.storagePoolLookupByName("default-pool")
    options = {"uri": URI, "node": "host", "domain_type": "test", "pool": "default-pool"}
    bench = ComputeBench(open=lambda context: open_driver(options, context), node="host")
    async with bench.driver() as driver:
        assert snapshots(driver)
        spec, mark = bench.spec()._replace(disk_gb=3), Mark("conformance-a", str(uuid.uuid4()), 1)
        await driver.create_guest(spec)
        pool.createXML(disk_xml(image_name(mark), 1, None))
        assert (await driver.get_snapshot(mark.uuid)).state == "building"
        assert (await driver.snapshot_guest(spec.mark.uuid, mark, "x")).state == "available"
        assert pool.storageVolLookupByName(image_name(mark)).info()[1] == 3 << 30
        await driver.delete_snapshot(mark.uuid)
        await driver.delete_guest(spec.mark.uuid)
    keep.close()


async def test_without_a_pool_user_data_is_refused() -> None:
    options = {"uri": URI, "node": "host", "domain_type": "test"}
    bench = ComputeBench(open=lambda context: open_driver(options, context), node="host")
    async with bench.driver() as driver:
        with pytest.raises(Permanent, match="no storage pool for the user data"):
            await driver.create_guest(bench.spec()._replace(user_data="#cloud-config"))
