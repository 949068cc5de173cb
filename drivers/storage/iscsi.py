"""Volumes as files that tgt, the SCSI target daemon on this host, serves by iSCSI. Needs the programs ``tgtadm`` and
``qemu-img``, and root.

The files are the volumes. The daemon forgets its targets when it ends, so each volume of this installation that has
none is given one again whenever volumes are listed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import trio

from ..ongoing import Ongoing, open_ongoing
from ..programs import Texts, by_text, run_program
from ..protocol import (
    Can,
    Capacity,
    Conflict,
    Connection,
    Denied,
    DriverContext,
    Facts,
    NotFound,
    Page,
    Permanent,
    Transient,
    Unknown,
    Volume,
    VolumeSpec,
    read_options,
)
from .directory import TIMEOUT, Directory, DirectoryDriver, QemuImg, folders_of

LUN: Final = "1"
"""The logical unit of a volume in its target; 0 is the daemon's own."""
TRIES: Final = 20
"""Numbers that are tried for a new target, while others take them."""
TEXTS: Final[Texts] = (
    (re.compile(r"already exists", re.IGNORECASE), Conflict),
    (re.compile(r"in use|still has|active", re.IGNORECASE), Conflict),
    (re.compile(r"can't find the (target|logical unit)|no such", re.IGNORECASE), NotFound),
    (re.compile(r"can't connect|connection refused", re.IGNORECASE), Transient),
    (re.compile(r"permission|not permitted", re.IGNORECASE), Denied),
    (re.compile(r"out of memory|no memory|no space", re.IGNORECASE), Capacity),
    (re.compile(r"invalid|unknown|unrecogni[sz]ed|can't find the driver", re.IGNORECASE), Permanent),
)
"""What tgtadm prints, as its exit code is 22 for most failures; the first that matches counts, else the outcome is
unknown."""
_TARGET: Final = re.compile(r"^Target (\d+): (\S+)$", re.MULTILINE)
_PATH: Final = re.compile(r"Backing store path: (/.*)$", re.MULTILINE)
_SESSION: Final = re.compile(r"^\s+I_T nexus: \d+", re.MULTILINE)


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options: ``pools``, directories (absolute) by name; ``portal``, the HOST:PORT at which nodes reach the
    daemon; the prefix ``iqn`` of targets; ``initiators``, addresses that may log in. ``control`` and ``socket``: the
    daemon's control port and the path of its socket, if they are not its defaults. ``images``, a directory of images
    that volumes are copies of; the programs ``tgtadm`` and ``qemu_img``."""

    pools: Annotated[dict[str, str], msgspec.Meta(min_length=1)]
    portal: Annotated[str, msgspec.Meta(pattern=r"^\S+:\d+$")]
    iqn: Annotated[str, msgspec.Meta(pattern=r"^iqn\.\d{4}-\d{2}\.[a-z0-9.-]+$")] = "iqn.2026-01.internal.hostler"
    initiators: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("ALL",)
    control: int | None = None
    socket: str | None = None
    images: str | None = None
    tgtadm: str = "tgtadm"
    qemu_img: str = "qemu-img"
    poll: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


class Target(NamedTuple):
    """A target of the daemon: its number, the files that its logical units serve, and whether an initiator is logged
    in."""

    number: str
    files: tuple[str, ...]
    in_use: bool


class Tgt:
    """The daemon."""

    def __init__(self, options: Options) -> None:
        control = [] if options.control is None else ["-C", str(options.control)]
        self._line = [options.tgtadm, *control, "--lld", "iscsi"]
        self._environment = {} if options.socket is None else {"TGT_IPC_SOCKET": options.socket}
        self._initiators = options.initiators
        self._changing = trio.Lock()

    async def _adm(self, operation: str, mode: str, *arguments: str) -> str:
        """What tgtadm prints."""
        line = [*self._line, "--op", operation, "--mode", mode, *arguments]
        otherwise = Transient if operation == "show" else Unknown
        return await run_program(line, by_text(TEXTS, otherwise), package="tgt", environment=self._environment)

    async def targets(self) -> dict[str, Target]:
        """All targets by name."""
        return targets_of(await self._adm("show", "target"))

    async def export(self, name: str, path: str) -> None:
        """Have a file served by a target; no change if it is."""
        async with self._changing:
            for _ in range(TRIES):
                targets = await self.targets()
                if name in targets:
                    break
                number = str(1 + max((int(each.number) for each in targets.values()), default=0))
                with suppress(Conflict):  # another program took the number, or made the target
                    await self._adm("new", "target", "--tid", number, "-T", name)
            else:
                raise Transient(f"no number is left for target {name}")
            target = (await self.targets())[name]
            if path not in target.files:
                await self._adm("new", "logicalunit", "--tid", target.number, "--lun", LUN, "-b", path)
            for initiator in self._initiators:
                with suppress(Conflict):  # it may log in already
                    await self._adm("bind", "target", "--tid", target.number, "-I", initiator)

    async def withdraw(self, name: str) -> None:
        """Remove a target, if there is one. Conflict while an initiator is logged in."""
        async with self._changing:
            target = (await self.targets()).get(name)
            if target is not None:
                if target.in_use:
                    raise Conflict(f"target {name} is in use")
                with suppress(NotFound):
                    await self._adm("delete", "target", "--tid", target.number)


def targets_of(text: str) -> dict[str, Target]:
    """The targets that ``tgtadm --op show --mode target`` prints."""
    parts = _TARGET.split(text)[1:]
    return {
        name: Target(number, tuple(_PATH.findall(part)), _SESSION.search(part) is not None)
        for number, name, part in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


class IscsiDriver(DirectoryDriver):
    """Directories of volumes, each served by a target of its own."""

    def __init__(
        self, tgt: Tgt, options: Options, facts: Facts, qemu_img: QemuImg, ongoing: Ongoing, installation: str
    ) -> None:
        directories = {name: Directory(path, "raw") for name, path in folders_of(options.pools).items()}
        super().__init__(facts, directories, qemu_img, ongoing, installation, images=options.images)
        self._tgt, self._options = tgt, options

    def _target(self, uuid: str) -> str:
        return f"{self._options.iqn}:{self._installation}.{uuid}"

    async def check(self) -> None:
        """Look at every directory, and at the daemon."""
        await super().check()
        await self._tgt.targets()

    async def volumes(self) -> AsyncIterator[Page[Volume]]:
        """The files of each directory. Volumes of this installation that have no target are given one."""
        targets = await self._tgt.targets()
        async for page in super().volumes():
            ours = [each.mark.uuid for each in page.items if each.mark and each.mark.installation == self._installation]
            for uuid in ours:
                if self._target(uuid) not in targets:
                    with suppress(NotFound, Conflict):  # it is being removed
                        await self._ongoing.run(uuid, partial(self._export, uuid))
            yield Page(tuple(self._as_served(volume, targets) for volume in page.items))

    def _as_served(self, volume: Volume, targets: Mapping[str, Target]) -> Volume:
        target = None if volume.mark is None else targets.get(self._target(volume.mark.uuid))
        return volume._replace(state="in_use") if target is not None and target.in_use else volume

    async def get_volume(self, uuid: str) -> Volume:
        """Look for a volume's file in all directories, and at its target."""
        return self._as_served(await super().get_volume(uuid), await self._tgt.targets())

    async def _export(self, uuid: str) -> None:
        _, path = await self._found(uuid)
        await self._tgt.export(self._target(uuid), str(path))

    async def _create(self, want: VolumeSpec) -> Volume:
        await super()._create(want)
        await self._export(want.mark.uuid)
        return await self.get_volume(want.mark.uuid)

    async def _delete(self, uuid: str, claim: int | None) -> None:
        try:
            volume, _ = await self._found(uuid)
        except NotFound:
            return
        if volume.mark is not None and claim in (None, volume.mark.claim):
            await self._tgt.withdraw(self._target(uuid))
            await super()._delete(uuid, claim)

    async def _extend(self, uuid: str, size_gb: int) -> Volume:
        """The daemon learns the size of a file when it begins to serve it: nothing may use the volume meanwhile."""
        volume = await self.get_volume(uuid)
        if volume.size_gb < size_gb:
            await self._tgt.withdraw(self._target(uuid))
        try:
            return await super()._extend(uuid, size_gb)
        finally:
            await self._export(uuid)

    async def connect(self, uuid: str, node: str) -> Connection:
        """The target and logical unit, at the daemon's portal."""

        async def export() -> Connection:
            await self._export(uuid)
            address, options = f"{self._target(uuid)}/{LUN}", {"hosts": self._options.portal}
            return Connection(volume=uuid, protocol="iscsi", address=address, options=options)

        return await self._ongoing.run(uuid, export)


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[IscsiDriver]:
    """Directories that are there, and a daemon that answers."""
    settings = read_options(options, Options)
    qemu_img = QemuImg(settings.qemu_img)
    facts = Facts("iscsi", await qemu_img.version(), Can.STORAGE, settings.poll, settings.concurrency)
    async with open_ongoing(TIMEOUT) as ongoing:
        driver = IscsiDriver(Tgt(settings), settings, facts, qemu_img, ongoing, context.installation)
        await driver.check()
        await driver.remove_forgotten()
        yield driver
