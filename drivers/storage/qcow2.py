"""Volumes as qcow2 files in directories, on local or shared file systems. Needs the program ``qemu-img``."""

from __future__ import annotations

import os
import re
import secrets
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
import trio

from ..protocol import (
    Can,
    Capacity,
    Conflict,
    Connection,
    Denied,
    DriverContext,
    DriverError,
    Facts,
    Mark,
    NotFound,
    Page,
    Permanent,
    Pool,
    Quota,
    Transient,
    Unknown,
    Volume,
    VolumeSpec,
    read_options,
)

T = TypeVar("T")
GIB: Final = 2**30
MAGIC: Final = b"QFI\xfb"
FORGOTTEN_SECONDS: Final = 3_600.0
"""Age at which a file that was begun and never finished is removed."""
ERRNO: Final[Mapping[int, type[DriverError]]] = {
    1: Denied,  # EPERM
    2: NotFound,  # ENOENT
    5: Transient,  # EIO
    13: Denied,  # EACCES
    28: Capacity,  # ENOSPC
    30: Permanent,  # EROFS
    110: Transient,  # ETIMEDOUT
    116: Transient,  # ESTALE
    122: Quota,  # EDQUOT
}
"""errno by class; others are transient."""
TEXTS: Final[Sequence[tuple[re.Pattern[str], type[DriverError]]]] = (
    (re.compile(r"No space left", re.IGNORECASE), Capacity),
    (re.compile(r"quota exceeded", re.IGNORECASE), Quota),
    (re.compile(r"Failed to get .* lock|another process", re.IGNORECASE), Conflict),
    (re.compile(r"No such file|Could not open", re.IGNORECASE), NotFound),
    (re.compile(r"Permission denied", re.IGNORECASE), Denied),
    (re.compile(r"Unknown|Invalid|unsupported", re.IGNORECASE), Permanent),
)
"""What qemu-img prints, as its exit code is always 1; the first that matches counts, else the outcome is unknown."""
_NAME: Final = re.compile(r"hostler_([0-9a-z-]{1,64})_([0-9a-f-]{36})_(\d{1,18})\.qcow2")


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options: ``pools``, directories (absolute) by name; ``images``, a directory of images that volumes are made
    from; the program ``qemu_img``."""

    pools: dict[str, str]
    images: str | None = None
    qemu_img: str = "qemu-img"
    poll: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


class Qcow2Driver:
    """Directories of volumes."""

    def __init__(self, options: Options, installation: str, version: str) -> None:
        self._options, self._installation = options, installation
        self._pools = {name: Path(path) for name, path in options.pools.items()}
        self._threads = trio.CapacityLimiter(options.concurrency)
        self.facts = Facts("qcow2", version, Can.STORAGE, options.poll, options.concurrency, timeout=600.0)

    async def _run(self, work: Callable[[], T]) -> T:
        def in_thread() -> T:
            try:
                return work()
            except OSError as error:
                raise ERRNO.get(error.errno or 0, Transient)(str(error), backend_code=str(error.errno)) from error

        return await trio.to_thread.run_sync(in_thread, abandon_on_cancel=True, limiter=self._threads)

    async def _qemu_img(self, *arguments: str) -> None:
        """Run qemu-img; cancelled, it is killed."""
        command = [self._options.qemu_img, *arguments]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        if done.returncode:
            text = done.stderr.decode(errors="replace").strip()
            kind = next((kind for pattern, kind in TEXTS if pattern.search(text)), Unknown)
            raise kind(text or f"qemu-img ended with {done.returncode}", backend_code=str(done.returncode))

    async def check(self) -> None:
        """Look at every directory."""
        for path in self._pools.values():
            await self._run(lambda path=path: os.statvfs(path))  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    # what there is

    async def pools(self) -> AsyncIterator[Page[Pool]]:
        """All directories."""
        yield Page(tuple(await self._run(lambda: [self._pool(name) for name in self._pools])))

    def _pool(self, name: str) -> Pool:
        figures = os.statvfs(self._pools[name])
        provisioned = sum(volume.size_gb for volume in self._in(name))
        total, free = figures.f_blocks * figures.f_frsize // GIB, figures.f_bavail * figures.f_frsize // GIB
        return Pool(name, total, free, provisioned, thin=True)

    async def volumes(self) -> AsyncIterator[Page[Volume]]:
        """The volumes of each directory, a page each."""
        for name in self._pools:
            yield Page(tuple(await self._run(lambda name=name: self._in(name))))  # type: ignore[misc]  # as above

    def _in(self, pool: str) -> list[Volume]:
        found = []
        for entry in os.scandir(self._pools[pool]):
            if entry.name.endswith(".qcow2") and entry.is_file():
                with suppress(FileNotFoundError):  # it went away meanwhile
                    found.append(_volume(pool, Path(entry.path)))
        return found

    async def get_volume(self, uuid: str) -> Volume:
        """Look for a volume's file in all directories."""
        return await self._run(lambda: self._found(uuid)[0])

    def _found(self, uuid: str) -> tuple[Volume, Path]:
        for pool, folder in self._pools.items():
            for path in folder.glob(f"hostler_{self._installation}_{uuid}_*.qcow2"):
                if _NAME.fullmatch(path.name):
                    return _volume(pool, path), path
        raise NotFound(f"there is no volume {uuid}")

    # changes

    async def create_volume(self, want: VolumeSpec) -> Volume:
        """Make a file under another name, then give it its own, unless that is taken meanwhile."""
        with suppress(NotFound):
            return self._same(await self.get_volume(want.mark.uuid), want)
        if want.pool not in self._pools:
            raise NotFound(f"there is no pool {want.pool}")
        folder = self._pools[want.pool]
        path, part = folder / _file_name(want.mark), folder / f".hostler_{secrets.token_hex(8)}.part"
        try:
            await self._qemu_img("create", "-q", "-f", "qcow2", *self._backing(want), str(part), f"{want.size_gb}G")
            with suppress(Conflict):  # made meanwhile by a call like this one
                await self._run(lambda: _link(part, path))
        finally:
            with trio.CancelScope(shield=True):
                await self._run(lambda: part.unlink(missing_ok=True))
        return self._same(await self.get_volume(want.mark.uuid), want)

    def _backing(self, want: VolumeSpec) -> tuple[str, ...]:
        if not want.image:
            return ()
        if self._options.images is None or "/" in want.image or want.image in (".", ".."):
            raise NotFound(f"there is no image {want.image}", hint="set the option images")
        kind = "qcow2" if want.image.endswith(".qcow2") else "raw"
        return ("-b", str(Path(self._options.images) / want.image), "-F", kind)

    @staticmethod
    def _same(found: Volume, want: VolumeSpec) -> Volume:
        if (found.mark, found.pool, found.size_gb) != (want.mark, want.pool, want.size_gb):
            raise Conflict(f"volume {want.mark.uuid} exists with another claim or size")
        return found

    async def delete_volume(self, uuid: str, claim: int | None = None) -> None:
        """Remove a volume's file. Conflict while a process has it open for writing."""
        try:
            volume, path = await self._run(lambda: self._found(uuid))
        except NotFound:
            return
        if volume.mark is None or claim not in (None, volume.mark.claim):
            return
        with suppress(NotFound):
            await self._qemu_img("info", "--output=json", str(path))  # refused while the file is locked
        await self._run(lambda: path.unlink(missing_ok=True))

    async def extend_volume(self, uuid: str, size_gb: int) -> Volume:
        """Let a file grow to a size."""
        volume, path = await self._run(lambda: self._found(uuid))
        if volume.size_gb > size_gb:
            raise Conflict(f"volume {uuid} is larger than {size_gb} GiB")
        if volume.size_gb < size_gb:
            await self._qemu_img("resize", "-q", "-f", "qcow2", str(path), f"{size_gb}G")
        return await self.get_volume(uuid)

    async def connect(self, uuid: str, node: str) -> Connection:
        """The path of the file, which the node is expected to reach under the same name."""
        _, path = await self._run(lambda: self._found(uuid))
        return Connection(volume=uuid, protocol="file", address=str(path), format="qcow2")

    def remove_forgotten(self) -> None:
        """Remove files that were begun long ago and never finished."""
        for folder in self._pools.values():
            for path in folder.glob(".hostler_*.part"):
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS:
                        path.unlink()


def _file_name(mark: Mark) -> str:
    return f"hostler_{mark.installation}_{mark.uuid}_{mark.claim}.qcow2"


def _volume(pool: str, path: Path) -> Volume:
    """A volume as its file says. The size is in the header of the format, in bytes 24 to 31."""
    with path.open("rb") as file:
        header = file.read(32)
    size = struct.unpack(">Q", header[24:32])[0] if header[:4] == MAGIC and len(header) == 32 else 0
    found = _NAME.fullmatch(path.name)
    mark = None if found is None else Mark(found[1], found[2], int(found[3]))
    return Volume(path.name, mark, path.name, pool, -(-size // GIB), "available")


def _link(part: Path, path: Path) -> None:
    try:
        os.link(part, path)
    except FileExistsError:
        raise Conflict(f"{path.name} exists") from None


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split("\n", 1)[0]


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[Qcow2Driver]:
    """Directories that are there."""
    settings = read_options(options, Options)
    try:
        version = await trio.to_thread.run_sync(_version, settings.qemu_img)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Permanent(f"{settings.qemu_img} cannot be run: {error}", hint="install qemu-utils") from error
    driver = Qcow2Driver(settings, context.installation, version)
    await driver.check()
    await trio.to_thread.run_sync(driver.remove_forgotten)
    yield driver
