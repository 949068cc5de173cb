"""Domains of libvirt as XML: what a guest is written as, what is refused before anything is made, and what is read."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is not installed")

from hostler.drivers.compute.libvirt_domain import console_of
from hostler.drivers.compute.libvirt_xml import check_spec, domain_xml, volume_xml, volumes_of
from hostler.drivers.conformance import ComputeBench
from hostler.drivers.protocol import Connection, Permanent

BENCH = ComputeBench(open=None, node="host")  # type: ignore[arg-type]  # only its specs are used
VOLUME = "5f0c1a8e-9a57-4d43-8f7e-5d0e6b1b7c11"


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        (Connection(volume=VOLUME, protocol="file", address="/a&b", format="qcow2"), "<source file='/a&amp;b'/>"),
        (Connection(volume=VOLUME, protocol="block", address="/dev/x"), "<source dev='/dev/x'/>"),
        (
            Connection(volume=VOLUME, protocol="nbd", address="e", options={"hosts": "[::1]:10809"}),
            "<source protocol='nbd' name='e'><host name='::1' port='10809'/></source>",
        ),
        (
            Connection(
                volume=VOLUME,
                protocol="rbd",
                address="pool/image",
                options={"hosts": "a:1 b:2", "user": "u", "secret": VOLUME},
            ),
            "<source protocol='rbd' name='pool/image'><host name='a' port='1'/><host name='b' port='2'/>"
            f"<auth username='u'><secret type='ceph' uuid='{VOLUME}'/></auth></source>",
        ),
    ],
)
def test_each_protocol_has_its_source(volume: Connection, expected: str) -> None:
    xml = volume_xml(volume, "vdb")
    assert expected in xml.replace('"', "'")
    assert list(volumes_of(ElementTree.fromstring(f"<domain><devices>{xml}</devices></domain>"))) == [VOLUME]


def test_a_protocol_that_libvirt_does_not_know_is_refused() -> None:
    with pytest.raises(Permanent, match="by ebs"):
        volume_xml(Connection(volume=VOLUME, protocol="ebs", address="vol-1"), "vdb")


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"networks": ("a\x01b",)}, "text of XML"),
        ({"networks": ("a\ud800b",)}, "text of XML"),
        ({"volumes": (Connection(volume=VOLUME, protocol="vmdk", address="[store] a.vmdk"),)}, "by vmdk"),
        ({"volumes": (Connection(volume=VOLUME, protocol="file", address="/srv/\x02"),)}, "text of XML"),
        ({"volumes": (Connection(volume=VOLUME, protocol="file", address="/srv/a"),) * 25}, "at most 26 disks"),
    ],
)
def test_what_no_domain_can_be_is_refused_before_disks_are_made(part: dict[str, Any], why: str) -> None:
    spec = BENCH.spec()._replace(disk_gb=1, user_data="#cloud-config")
    check_spec(spec)
    with pytest.raises(Permanent, match=why):
        check_spec(spec._replace(**part))


def test_a_guest_has_a_screen_where_that_is_configured() -> None:
    spec = BENCH.spec()
    xml = domain_xml(spec, kind="kvm", machine=None, disk=None, real=True, vnc="127.0.0.1")
    assert "<graphics type='vnc' autoport='yes' listen=\"127.0.0.1\"/>" in xml


@pytest.mark.parametrize(
    ("devices", "kind", "address"),
    [
        ("<graphics type='vnc' port='5901' listen='10.0.0.7'/>", "vnc", "10.0.0.7:5901"),
        ("<graphics type='spice' port='5902' listen='0.0.0.0'/>", "spice", "node-1:5902"),
        (
            "<graphics type='vnc' port='-1'/><console type='pty'><source path='/dev/pts/3'/></console>",
            "serial",
            "/dev/pts/3",
        ),
        ("<serial type='pty'><source path='/dev/pts/4'/></serial>", "serial", "/dev/pts/4"),
    ],
)
def test_the_console_is_read_of_a_domain(devices: str, kind: str, address: str) -> None:
    class Domain:
        def XMLDesc(self) -> str:
            return f"<domain><devices>{devices}</devices></domain>"

        def UUIDString(self) -> str:
            return VOLUME

    found = console_of(Domain(), "node-1", "qemu:///system")
    assert (found.kind, found.address, found.node) == (kind, address, "node-1")


def test_a_domain_with_more_disks_than_target_devices_is_refused() -> None:
    volumes = tuple(Connection(volume=VOLUME, protocol="file", address=f"/srv/{number}") for number in range(26))
    spec = BENCH.spec()._replace(volumes=volumes)
    assert domain_xml(spec, kind="test", machine=None, disk=None, real=False).count("<disk ") == 26
    with pytest.raises(Permanent, match="at most 26 disks"):
        domain_xml(spec, kind="test", machine=None, disk="/srv/root", real=False)
