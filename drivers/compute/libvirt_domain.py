"""Changes of one libvirt domain, and what is read of it. They block: they are made in threads."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import libvirt

from ..protocol import Conflict, Mark, NotFound
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
