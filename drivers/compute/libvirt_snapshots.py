"""Images that are made of the disks of guests, in a storage pool of libvirt. They block: they are made in threads.

An image is whole once a second, empty volume beside it says so: what was cut off is made again. While a guest runs, the
copy is a backup job of QEMU, which holds the state of one moment; else a copy by the storage pool."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import libvirt

from ..protocol import Conflict, Mark, NotFound, Permanent, Snapshot
from .libvirt_host import or_none
from .libvirt_xml import disk_xml, seed_xml, volumes_of

IMAGE: Final = re.compile(r"hostler-snapshot_([0-9a-z-]+)_([0-9a-f-]{36})_(\d+)\.(qcow2|done)")
"""Names of images, and of the empty volumes that say that they are whole: installation, uuid and claim."""


def image_name(mark: Mark, suffix: str = "qcow2") -> str:
    """The name of the image of a mark, or of what is beside it."""
    return f"hostler-snapshot_{mark.installation}_{mark.uuid}_{mark.claim}.{suffix}"


def _seen(mark: Mark, names: set[str]) -> Snapshot:
    done = image_name(mark, "done") in names
    return Snapshot(image_name(mark), mark, "", "available" if done else "building")


def listed(pool: Any) -> Iterator[Snapshot]:
    """The images in a pool."""
    pool.refresh(0)
    names = set(pool.listVolumes())
    for name in sorted(names):
        found = IMAGE.fullmatch(name)
        if found is not None and found[4] == "qcow2":
            yield _seen(Mark(found[1], found[2], int(found[3])), names)


def image_of(pool: Any, installation: str, uuid: str) -> Snapshot:
    """The image of a uuid. NotFound if there is none."""
    for found in listed(pool):
        if found.mark is not None and (found.mark.installation, found.mark.uuid) == (installation, uuid):
            return found
    raise NotFound(f"there is no snapshot {uuid}")


def make_image(connection: Any, pool: Any, domain: Any, mark: Mark, *, real: bool) -> Snapshot:
    """Make an image of the disk that a domain has of its own, begin to, or find it made. ``real``: a domain that runs
    writes to its disk."""
    pool.refresh(0)
    names = set(pool.listVolumes())
    for name in names:
        found = IMAGE.fullmatch(name)
        if found and (found[1], found[2]) == (mark.installation, mark.uuid) and int(found[3]) != mark.claim:
            raise Conflict(f"snapshot {mark.uuid} exists with claim {found[3]}")
    if image_name(mark, "done") in names:
        return _seen(mark, names)
    target, source = _own_disk(domain)
    if not (real and domain.isActive()):
        _remove(pool, image_name(mark))
        volume = connection.storageVolLookupByPath(source)
        pool.createXMLFrom(disk_xml(image_name(mark), int(volume.info()[1]), None), volume)
        return _whole(pool, mark)
    path = f"{ElementTree.fromstring(pool.XMLDesc()).findtext('target/path', '')}/{image_name(mark)}"
    job = or_none(domain.backupGetXMLDesc, libvirt.VIR_ERR_NO_DOMAIN_BACKUP)
    if job is not None:
        if not any(each.get("file") == path for each in ElementTree.fromstring(job).iter("target")):
            raise Conflict(f"another backup of domain {domain.UUIDString()} is under way")
        return Snapshot(image_name(mark), mark, "", "building")
    # Read once, it is gone: what is there is of the last job, which was this one if its file is there.
    last = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    if image_name(mark) in names:
        if last.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP and last.get("success"):
            return _whole(pool, mark)
        _remove(pool, image_name(mark))
    disk = f"<disk name={quoteattr(target)} type='file'><target file={quoteattr(path)}/><driver type='qcow2'/></disk>"
    domain.backupBegin(f"<domainbackup mode='push'><disks>{disk}</disks></domainbackup>", None, 0)
    return Snapshot(image_name(mark), mark, "", "building")


def _own_disk(domain: Any) -> tuple[str, str]:
    """Target device and path of the disk that a domain has of its own. Permanent if it has none."""
    tree = ElementTree.fromstring(domain.XMLDesc())
    volumes = list(volumes_of(tree).values())
    for disk in tree.findall("devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        path = "" if source is None else source.get("file", "")
        own = disk not in volumes and disk.get("device", "disk") == "disk" and disk.find("readonly") is None
        if own and path and target is not None:
            return target.get("dev", ""), path
    raise Permanent(f"domain {domain.UUIDString()} has no disk of its own that is a file")


def _whole(pool: Any, mark: Mark) -> Snapshot:
    pool.createXML(seed_xml(image_name(mark, "done"), 512))
    return Snapshot(image_name(mark), mark, "", "available")


def _remove(pool: Any, name: str) -> None:
    volume = or_none(lambda: pool.storageVolLookupByName(name), libvirt.VIR_ERR_NO_STORAGE_VOL)
    if volume is not None:
        volume.delete()


def remove_image(pool: Any, installation: str, uuid: str, claim: int | None) -> None:
    """Remove the image of a uuid and, where given, of a claim. What says that it is whole goes first."""
    pool.refresh(0)
    for name in sorted(pool.listVolumes()):  # done before qcow2
        found = IMAGE.fullmatch(name)
        if found and (found[1], found[2]) == (installation, uuid) and claim in (None, int(found[3])):
            _remove(pool, name)
