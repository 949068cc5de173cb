"""The libvirt driver passes the conformance suite on libvirt's test driver, which needs no hypervisor. That one cannot
show lost answers, full hosts, attached volumes, and guests that take their time to shut down."""

from __future__ import annotations

import uuid
from typing import Any, Literal

import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")

from hostler.drivers.compute import libvirt as driver_module  # noqa: E402  # after the skip
from hostler.drivers.conformance import ComputeBench, ComputeConformance  # noqa: E402  # after the skip
from hostler.drivers.protocol import (  # noqa: E402  # after the skip
    Capacity,
    DriverContext,
    Mark,
    Permanent,
    Unknown,
    computes,
)

open_driver = driver_module.open_driver
URI = "test:///default"


class TestLibvirtComputes(ComputeConformance):
    @pytest.fixture
    def bench(self) -> ComputeBench:
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
            make_stranger=make_stranger,
            change_outside=change_outside,
        )


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


@pytest.mark.parametrize("code", sorted(driver_module.ERRORS))
def test_each_code_has_its_class(code: int) -> None:
    assert type(driver_module._as_ours(_error(code, "x"))) is driver_module.ERRORS[code]


def test_texts_say_more_than_the_code_of_internal_errors() -> None:
    assert isinstance(driver_module._as_ours(_error(1, "qemu: Cannot allocate memory")), Capacity)
    assert isinstance(driver_module._as_ours(_error(999, "something new")), Unknown)


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
        assert driver_module.LibvirtDriver(keep, driver_module.Options(uri=URI), "a")._seen(domain).mark is None
    finally:
        domain.undefine()
