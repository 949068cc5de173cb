"""The XML that describes domains and disks to libvirt, and what is read of it. It makes no calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from ..protocol import Connection, GuestSpec, Mark, Permanent

NAMESPACE: Final = "urn:hostler:guest:1"
GIB: Final = 2**30
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Q35_PORTS: Final = 8
"""Free ports of the machine q35, into which volumes are plugged; others need none."""
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def check_spec(want: GuestSpec) -> None:
    """Permanent for a guest that no domain can be: before disks are made for it."""
    if any("\0" in name for name in (want.image, *want.networks)):  # which the library takes for the end of a text
        raise Permanent("names of images and networks have no NUL")
    disk, seed = "disk" if want.image or want.disk_gb else None, "seed" if want.user_data else None
    try:
        ElementTree.fromstring(domain_xml(want, kind="kvm", machine=None, disk=disk, seed=seed, real=True))
    except (ElementTree.ParseError, UnicodeEncodeError) as error:
        raise Permanent(f"names of networks and addresses of volumes are text of XML: {error}") from error


def domain_xml(
    want: GuestSpec,
    *,
    kind: str,
    machine: str | None,
    disk: str | None,
    real: bool,
    seed: str | None = None,
    vnc: str | None = None,
) -> str:
    """A new domain of type ``kind``. ``disk``: path of its root disk; None: it boots from its first volume. ``seed``:
    path of the image of its user data, which it cannot write to and which is the last of its disks. ``real``: with a
    console, and the ACPI that volumes are plugged and guests shut down by, which the test driver does not know.
    ``vnc``: the address of its screen."""
    machine_type = f" machine={quoteattr(machine)}" if machine else ""
    title = re.sub(r"[^ -\ud7ff\ue000-\ufffd]", "?", want.name)
    devices = [f"<interface type='network'><source network={quoteattr(name)}/></interface>" for name in want.networks]
    if disk is not None:
        devices.append(
            f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file={quoteattr(disk)}/>"
            "<target dev='vda' bus='virtio'/></disk>"
        )
    first = 0 if disk is None else 1
    disks = first + len(want.volumes) + (seed is not None)
    if disks > len(_LETTERS):
        raise Permanent(f"a domain has at most {len(_LETTERS)} disks", field="volumes")
    devices += [volume_xml(each, f"vd{_LETTERS[first + at]}") for at, each in enumerate(want.volumes)]
    if seed is not None:
        devices.append(
            f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file={quoteattr(seed)}/>"
            f"<target dev='vd{_LETTERS[disks - 1]}' bus='virtio'/><readonly/></disk>"
        )
    if real:
        devices.append("<serial type='pty'/><console type='pty'/>")
    if real and vnc is not None:
        devices.append(f"<graphics type='vnc' autoport='yes' listen={quoteattr(vnc)}/>")
    if machine is not None and "q35" in machine:
        devices += ["<controller type='pci' model='pcie-root-port'/>"] * Q35_PORTS
    features = "<features><acpi/><apic/></features>" if real else ""
    return (
        f"<domain type={quoteattr(kind)}><name>hostler-{want.mark.uuid}</name><uuid>{want.mark.uuid}</uuid>"
        f"<title>{escape(title)}</title>"
        f"<metadata><h:guest xmlns:h='{NAMESPACE}' mark={quoteattr(str(want.mark))}/></metadata>"
        f"<memory unit='MiB'>{want.memory_mb}</memory><vcpu>{want.vcpus}</vcpu>"
        f"<os><type{machine_type}>hvm</type></os>{features}<devices>{''.join(devices)}</devices></domain>"
    )


def disk_xml(name: str, size: int, backing: tuple[str, str] | None) -> str:
    """A new root disk of ``size`` bytes in a storage pool, over an image (path, format) if there is one."""
    over = ""
    if backing is not None:
        path, form = backing
        over = f"<backingStore><path>{escape(path)}</path><format type={quoteattr(form)}/></backingStore>"
    return (
        f"<volume><name>{name}</name><capacity unit='bytes'>{size}</capacity><allocation>0</allocation>"
        f"<target><format type='qcow2'/></target>{over}</volume>"
    )


def seed_xml(name: str, size: int) -> str:
    """A new image of ``size`` bytes in a storage pool."""
    return (
        f"<volume><name>{name}</name><capacity unit='bytes'>{size}</capacity><target><format type='raw'/></target>"
        "</volume>"
    )


def volume_xml(volume: Connection, target: str) -> str:
    """A volume as a disk at a target device. Its serial number is its uuid. Permanent for protocols that libvirt does
    not know."""
    make = _SOURCES.get(volume.protocol)
    if make is None:
        known = ", ".join(_SOURCES)
        raise Permanent(f"volumes by {volume.protocol} cannot be attached", hint=f"the protocols are {known}")
    kind, source = make(volume)
    return (
        f"<disk type='{kind}' device='disk'><driver name='qemu' type={quoteattr(volume.format)}/>{source}"
        f"<target dev='{target}' bus='virtio'/><serial>{escape(volume.volume)}</serial></disk>"
    )


def _file(volume: Connection) -> tuple[str, str]:
    return "file", f"<source file={quoteattr(volume.address)}/>"


def _block(volume: Connection) -> tuple[str, str]:
    return "block", f"<source dev={quoteattr(volume.address)}/>"


def _network(volume: Connection) -> tuple[str, str]:
    hosts = volume.options.get("hosts", "").split()
    listed = "".join(_host(each) for each in hosts)
    auth = ""
    if "secret" in volume.options:
        kind = "ceph" if volume.protocol == "rbd" else volume.protocol
        user = quoteattr(volume.options.get("user", "admin"))
        auth = f"<auth username={user}><secret type='{kind}' uuid={quoteattr(volume.options['secret'])}/></auth>"
    return "network", f"<source protocol='{volume.protocol}' name={quoteattr(volume.address)}>{listed}{auth}</source>"


def _host(text: str) -> str:
    name, _, port = text.rpartition(":")
    return f"<host name={quoteattr(name.strip('[]'))} port={quoteattr(port)}/>"


_SOURCES: Final[Mapping[str, Callable[[Connection], tuple[str, str]]]] = {
    "file": _file,
    "nfs": _file,
    "block": _block,
    "nbd": _network,
    "iscsi": _network,
    "rbd": _network,
}
"""By protocol of a connection. Those over a network have ``hosts`` (HOST:PORT, separated by spaces) among the
options, and ``user`` and ``secret`` (uuid of a secret that libvirt knows) where they need credentials."""


def volumes_of(tree: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """The disks of a domain that are volumes, by uuid."""
    disks = ((disk.findtext("serial", ""), disk) for disk in tree.findall("devices/disk"))
    return {serial: disk for serial, disk in disks if _UUID.fullmatch(serial)}


def free_target(*trees: ElementTree.Element) -> str:
    """The first target device that no disk of a domain has, as it is defined and as it runs. Permanent if all are
    taken."""
    taken = {target.get("dev") for tree in trees for target in tree.findall("devices/disk/target")}
    free = (f"vd{letter}" for letter in _LETTERS if f"vd{letter}" not in taken)
    found = next(free, None)
    if found is None:
        raise Permanent("the domain has no free target device for one more disk")
    return found


def mark_of(tree: ElementTree.Element, uuid: str) -> Mark | None:
    """Whose a domain is. A mark of another uuid was copied with the domain, and is none."""
    marked = tree.find(f"metadata/{{{NAMESPACE}}}guest")
    mark = None if marked is None else Mark.parse(marked.get("mark", ""))
    return mark if mark is not None and mark.uuid == uuid else None
