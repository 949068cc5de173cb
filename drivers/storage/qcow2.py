"""Volumes as qcow2 files in local directories. Needs the program ``qemu-img``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec

from ..ongoing import open_ongoing
from ..protocol import Can, DriverContext, Facts, read_options
from .directory import TIMEOUT, Directory, DirectoryDriver, QemuImg, folders_of


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options: ``pools``, directories (absolute) by name; ``images``, a directory of images that volumes are made
    from; the program ``qemu_img``."""

    pools: Annotated[dict[str, str], msgspec.Meta(min_length=1)]
    images: str | None = None
    qemu_img: str = "qemu-img"
    poll: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[DirectoryDriver]:
    """Directories that are there."""
    settings = read_options(options, Options)
    qemu_img = QemuImg(settings.qemu_img)
    facts = Facts("qcow2", await qemu_img.version(), Can.STORAGE, settings.poll, settings.concurrency)
    directories = {name: Directory(path) for name, path in folders_of(settings.pools).items()}
    async with open_ongoing(TIMEOUT) as ongoing:
        driver = DirectoryDriver(facts, directories, qemu_img, ongoing, context.installation, images=settings.images)
        await driver.check()
        await driver.remove_forgotten()
        yield driver
