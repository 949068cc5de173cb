"""Volumes as files on NFS shares that are mounted, or on other network file systems. Needs the program ``qemu-img``.

A share that is not mounted is an empty local directory: nothing is read from or written to it. One whose server is gone
blocks whatever touches it: its pool is down, and other shares go on."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from ..ongoing import open_ongoing
from ..protocol import Can, DriverContext, Facts, Transient, read_options
from .directory import TIMEOUT, Access, Directory, DirectoryDriver, Format, QemuImg, folders_of

MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class Share(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A pool: the directory ``path`` at or below the place where a share is mounted, the same on all nodes; ``export``,
    what must be mounted there (SERVER:/PATH); the ``format`` of new volumes."""

    path: str
    export: str | None = None
    format: Format = "qcow2"


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options: ``pools``, shares by name; ``file_systems``, the kinds of file system that count as a share;
    ``timeout``, the seconds in which a share has to answer; ``images``, a directory of images that volumes
    are made from; the program ``qemu_img``."""

    pools: Annotated[dict[str, Share], msgspec.Meta(min_length=1)]
    file_systems: tuple[str, ...] = ("nfs", "nfs4")
    timeout: Annotated[float, msgspec.Meta(gt=0, le=300)] = 25.0
    images: str | None = None
    qemu_img: str = "qemu-img"
    poll: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


class Mount(NamedTuple):
    """What is mounted at a path: the ``source`` of a file system of a ``kind``."""

    point: str
    kind: str
    source: str


def mount_of(path: str, mounts: str) -> Mount:
    """What a path is on, by the lines of /proc/self/mountinfo. It touches no file system."""
    found = Mount("/", "", "")
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point, (kind, source, *_) = _plain(left.split(" ")[4]), right.split(" ")
        if os.path.commonpath([path, point]) == point and len(point) >= len(found.point):
            found = Mount(point, kind, _plain(source))  # of several at one place, the last one is on top
    return found


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def _read_shares(settings: Options) -> dict[str, Directory]:
    folders = folders_of({name: share.path for name, share in settings.pools.items()}, "options.pools.{}.path")
    shares = dict[str, Directory]()
    for name, share in settings.pools.items():
        options = {} if share.export is None else {"export": share.export}
        shares[name] = Directory(folders[name], share.format, options)
    return shares


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[DirectoryDriver]:
    """Shares, of which at least one answers."""
    settings = read_options(options, Options)
    shares, qemu_img = _read_shares(settings), QemuImg(settings.qemu_img)

    def ready(share: Directory) -> None:
        mount, export = mount_of(str(share.path), MOUNTS.read_text()), share.options.get("export")
        if mount.kind not in settings.file_systems:
            kinds = ", ".join(settings.file_systems)
            raise Transient(f"{share.path} is not mounted: it is on {mount.kind} at {mount.point}, not on {kinds}")
        if export not in (None, mount.source):
            raise Transient(f"{share.path} is on {mount.source}, not on {export}")

    facts = Facts("nfs", await qemu_img.version(), Can.STORAGE, settings.poll, settings.concurrency)
    access = Access(settings.timeout, ready, "nfs")
    async with open_ongoing(TIMEOUT) as ongoing:
        driver = DirectoryDriver(
            facts, shares, qemu_img, ongoing, context.installation, images=settings.images, access=access
        )
        await driver.check()
        await driver.remove_forgotten()
        yield driver
