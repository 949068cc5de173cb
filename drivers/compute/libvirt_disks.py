"""The disks of guests in a storage pool of libvirt. They block: they are made in threads."""

from __future__ import annotations

import re
from typing import Any, Final
from xml.etree import ElementTree

import libvirt

from ..protocol import GuestSpec, Mark, NotFound
from .libvirt_host import or_none
from .libvirt_xml import GIB, disk_xml, seed_xml
from .seed_image import seed_image

DISK: Final = re.compile(r"hostler_([0-9a-z-]+)_([0-9a-f-]{36})_(\d+)\.(qcow2|iso)")
"""Names of root disks, and of images of user data: installation, uuid and claim."""
OF_A_GUEST: Final = re.compile(r"hostler_[0-9a-z-]+_[0-9a-f-]{36}_\d+\.\w+")
"""Names of disks and volumes that are no images, though they may be in the same storage pool: what is in them is
another guest's."""


def _name(mark: Mark, suffix: str) -> str:
    return f"hostler_{mark.installation}_{mark.uuid}_{mark.claim}.{suffix}"


def make_disk(connection: Any, pool_name: str | None, want: GuestSpec) -> str | None:
    """The path of the root disk, made where it is missing; None for a guest without one."""
    if pool_name is None or not (want.image or want.disk_gb):
        return None
    pool, name = connection.storagePoolLookupByName(pool_name), _name(want.mark, "qcow2")
    known = or_none(lambda: pool.storageVolLookupByName(name), libvirt.VIR_ERR_NO_STORAGE_VOL)
    if known is not None:
        return str(known.path())
    backing, size = None, want.disk_gb * GIB
    if want.image:
        if OF_A_GUEST.fullmatch(want.image):
            raise NotFound(f"there is no image {want.image}")
        image = pool.storageVolLookupByName(want.image)
        size = max(size, int(image.info()[1]))
        form = ElementTree.fromstring(image.XMLDesc()).find("target/format")
        backing = str(image.path()), "raw" if form is None else form.get("type", "raw")
    return str(pool.createXML(disk_xml(name, size, backing)).path())


def make_seed(connection: Any, pool_name: str | None, want: GuestSpec) -> str | None:
    """The path of the image with the user data of a guest, written again where it is there, as the first time may have
    been cut off. None for a guest without user data."""
    if pool_name is None or not want.user_data:
        return None
    pool, name = connection.storagePoolLookupByName(pool_name), _name(want.mark, "iso")
    image = seed_image(want.mark.uuid, want.name, want.user_data)
    volume = or_none(lambda: pool.storageVolLookupByName(name), libvirt.VIR_ERR_NO_STORAGE_VOL)
    if volume is None:
        volume = pool.createXML(seed_xml(name, len(image)))
    stream = connection.newStream()
    try:
        volume.upload(stream, 0, len(image))
        sent = 0
        while sent < len(image):
            sent += stream.send(image[sent : sent + 65_536])
    except BaseException:
        stream.abort()
        raise
    stream.finish()
    return str(volume.path())
