"""Changes of one libvirt domain, and what is read of it. They block: they are made in threads."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import libvirt

from ..protocol import Conflict, ConsoleAddress, Mark, NotFound, Permanent
from .libvirt_host import as_ours
from .libvirt_xml import NAMESPACE


def present(domain: Any) -> tuple[int, ...]:
    """Flags of what a domain is: as it is defined, and as it runs, if it does. Each is changed by itself, so that a
    change that was cut off can be completed."""
    config = int(libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    return (int(libvirt.VIR_DOMAIN_AFFECT_LIVE), config) if domain.isActive() else (config,)


def set_mark(domain: Any, mark: Mark | None) -> None:
    """Write a mark into a domain as it is defined, and as it runs; or remove it."""
    flags = domain.isActive() and libvirt.VIR_DOMAIN_AFFECT_LIVE
    flags |= domain.isPersistent() and libvirt.VIR_DOMAIN_AFFECT_CONFIG
    xml = None if mark is None else f"<guest mark={quoteattr(str(mark))}/>"
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, xml, "h", NAMESPACE, flags)


def let_go(domain: Any, disk: str, flag: int) -> None:
    """Ask a domain to let a disk go, unless that is under way."""
    try:
        domain.detachDeviceFlags(disk, flag)
    except libvirt.libvirtError as error:
        if not isinstance(as_ours(error), Conflict | NotFound):
            raise


def tree_of(domain: Any, flag: int) -> ElementTree.Element:
    """A domain as it is defined, or as it runs."""
    defined = flag == libvirt.VIR_DOMAIN_AFFECT_CONFIG
    return ElementTree.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE if defined else 0))


def defined_xml(domain: Any) -> str:
    """A domain as it is defined, with the passwords in it, so that it can be defined again."""
    return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))


def resized_xml(domain: Any, vcpus: int, memory_mb: int) -> str:
    """A domain as it is defined, with another number of CPUs and amount of memory."""
    tree = ElementTree.fromstring(defined_xml(domain))
    for name in ("memory", "currentMemory"):
        amount = tree.find(name)
        if amount is not None:
            amount.set("unit", "MiB")
            amount.text = str(memory_mb)
    cpus = tree.find("vcpu")
    if cpus is not None:
        cpus.text = str(vcpus)
        cpus.attrib.pop("current", None)
    return ElementTree.tostring(tree, encoding="unicode")


def console_of(domain: Any, node: str, uri: str) -> ConsoleAddress:
    """How the console of a domain that runs is reached: its screen, or else its serial line. The password of a screen
    is not told. Permanent if it has neither."""
    tree = ElementTree.fromstring(domain.XMLDesc())
    for screen in tree.findall("devices/graphics"):
        kind, port, listen = screen.get("type"), screen.get("port", "-1"), screen.get("listen", "")
        if kind in ("vnc", "spice") and port != "-1":
            note = f"it listens on {listen or 'no address'} of node {node}"
            host = node if listen in ("", "0.0.0.0", "::") else listen  # what is read, not bound
            return ConsoleAddress(kind=kind, address=f"{host}:{port}", node=node, note=note)  # type: ignore[arg-type]  # one of two names
    for line in (*tree.findall("devices/console"), *tree.findall("devices/serial")):
        source = line.find("source")
        if line.get("type") == "pty" and source is not None:
            note = f"virsh -c {uri} console {domain.UUIDString()}"
            return ConsoleAddress(kind="serial", address=source.get("path", ""), node=node, note=note)
    raise Permanent(f"domain {domain.UUIDString()} has no console")
