"""Volumes as image files in directories: what the drivers ``qcow2`` and ``nfs`` share. Needs the program ``qemu-img``.

A directory that does not answer is a pool that is down; the others are not affected by it."""

from __future__ import annotations

import os
import re
import secrets
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeVar

import msgspec
import trio

from ...placement.types.errors import InvalidValue
from ..ongoing import Ongoing
from ..programs import Texts, by_text, run_program
from ..protocol import (
    Can,
    Capacity,
    Conflict,
    Connection,
    Denied,
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
)
from .wanted import same_volume

T = TypeVar("T")
Format = Literal["qcow2", "raw"]
GIB: Final = 2**30
MAGIC: Final = b"QFI\xfb"
TIMEOUT: Final = 600.0
FORGOTTEN_SECONDS: Final = 3_600.0
"""Age at which a file that was begun and never finished is removed."""
SUFFIXES: Final = (".qcow2", ".raw", ".img")
"""Files with other names are no volumes."""
ERRNO: Final[Mapping[int, type[DriverError]]] = {
    1: Denied,  # EPERM
    2: NotFound,  # ENOENT
    13: Denied,  # EACCES
    16: Conflict,  # EBUSY
    17: Conflict,  # EEXIST
    20: Permanent,  # ENOTDIR
    22: Permanent,  # EINVAL
    26: Conflict,  # ETXTBSY
    27: Permanent,  # EFBIG
    28: Capacity,  # ENOSPC
    30: Permanent,  # EROFS
    36: Permanent,  # ENAMETOOLONG
    95: Permanent,  # EOPNOTSUPP
    122: Quota,  # EDQUOT
}
"""errno by class. Others, such as EIO, ESTALE and ETIMEDOUT, are transient; the outcome of a change is then unknown."""
TEXTS: Final[Texts] = (
    (re.compile(r"No space left", re.IGNORECASE), Capacity),
    (re.compile(r"quota exceeded", re.IGNORECASE), Quota),
    (re.compile(r"Failed to get .* lock|another process", re.IGNORECASE), Conflict),
    (re.compile(r"Permission denied", re.IGNORECASE), Denied),
    (re.compile(r"Read-only file system|File too large", re.IGNORECASE), Permanent),
    (re.compile(r"Stale file handle|Input/output error|timed out", re.IGNORECASE), Unknown),
    (re.compile(r"No such file|Could not open", re.IGNORECASE), NotFound),
    (re.compile(r"Unknown|Invalid|unsupported", re.IGNORECASE), Permanent),
)
"""What qemu-img prints, as its exit code is always 1; the first that matches counts, else the outcome is unknown."""
_NAME: Final = re.compile(r"hostler_([0-9a-z-]{1,64})_([0-9a-f-]{36})_(\d{1,18})\.(qcow2|raw)")


class Directory(NamedTuple):
    """One pool: the directory, the format of new files in it, and what connections to its volumes carry as options."""

    path: Path
    format: Format = "qcow2"
    options: Mapping[str, str] = {}


def folders_of(paths: Mapping[str, str], field: str = "options.pools.{}") -> dict[str, Path]:
    """The directories of pools by name. InvalidValue, naming the ``field``, for a path that is not absolute, which
    programs and nodes would take for another, and for one that two pools have."""
    found = dict[str, Path]()
    for name, text in paths.items():
        path = Path(os.path.normpath(text))
        if not text.startswith("/"):
            raise InvalidValue(f"{text} is not an absolute path", field=field.format(name))
        if path in found.values():
            raise InvalidValue(f"{path} is the directory of another pool", field=field.format(name))
        found[name] = path
    return found


class Access(NamedTuple):
    """How directories are reached. ``seconds``: how long one access may take before its directory is down. ``ready``:
    called in a thread before each access; it raises Transient while a directory must not be used. ``protocol``: the
    name that connections carry."""

    seconds: float = TIMEOUT
    ready: Callable[[Directory], None] = lambda directory: None
    protocol: str = "file"


class QemuImg:
    """The program ``qemu-img``."""

    def __init__(self, program: str) -> None:
        self._program = program

    async def run(self, *arguments: str) -> str:
        """What it prints. Cancelled, it is ended. Permanent if it cannot be run."""
        return await run_program([self._program, *arguments], by_text(TEXTS, Unknown), package="qemu-utils")

    async def version(self) -> str:
        """The first line of ``qemu-img --version``."""
        return (await self.run("--version")).split("\n", 1)[0]

    async def size_of(self, image: Path, form: str) -> int:
        """The size of an image that a guest sees, in bytes."""
        text = await self.run("info", "-U", "--output=json", "-f", form, str(image))
        try:
            return int(msgspec.json.decode(text)["virtual-size"])
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise Transient(f"qemu-img tells no size of {image.name}: {text[:200]}") from error


class DirectoryDriver:
    """Directories of volumes. Each has threads of its own, as a file system whose server is gone blocks them."""

    def __init__(
        self,
        facts: Facts,
        directories: Mapping[str, Directory],
        qemu_img: QemuImg,
        ongoing: Ongoing,
        installation: str,
        *,
        images: str | None = None,
        access: Access | None = None,
    ) -> None:
        self._directories, self._qemu_img, self._ongoing = dict(directories), qemu_img, ongoing
        self._installation, self._images = installation, None if images is None else Path(images)
        self._access = Access() if access is None else access
        self._threads = {name: trio.CapacityLimiter(facts.concurrency) for name in directories}
        self.facts = facts._replace(can=Can.STORAGE, timeout=TIMEOUT)

    async def _run(self, pool: str, work: Callable[[Path], T], *, changes: bool = False) -> T:
        """Access a directory in one of its threads. Transient if it does not answer, Unknown if that was a change."""
        directory, failed = self._directories[pool], Unknown if changes else Transient

        def in_thread() -> T:
            self._access.ready(directory)
            try:
                return work(directory.path)
            except OSError as error:
                kind = ERRNO.get(error.errno or 0, failed)
                raise kind(str(error), backend_code=str(error.errno)) from error

        with trio.move_on_after(self._access.seconds):
            return await trio.to_thread.run_sync(in_thread, abandon_on_cancel=True, limiter=self._threads[pool])
        raise failed(f"{directory.path} did not answer in {self._access.seconds:g} s")

    async def _each(self, work: Callable[[str], Awaitable[T]]) -> dict[str, T | None]:
        """Something for every pool at once; None for those that are down."""
        results: dict[str, T | None] = dict.fromkeys(self._directories)
        failures: list[DriverError] = []

        async def one(pool: str) -> None:
            try:
                results[pool] = await work(pool)
            except Transient:
                return
            except DriverError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for pool in self._directories:
                nursery.start_soon(one, pool)
        if failures:
            raise failures[0]
        return results

    async def check(self) -> None:
        """Look at every directory. Transient if none answers."""

        async def look(pool: str) -> bool:
            return await self._run(pool, lambda path: os.statvfs(path).f_bsize > 0)

        if not any((await self._each(look)).values()):
            await look(next(iter(self._directories)))

    # what there is

    async def pools(self) -> AsyncIterator[Page[Pool]]:
        """All directories."""

        async def look(name: str) -> Pool:
            return await self._run(name, lambda path: _pool(name, path))

        found = await self._each(look)
        down = {name: Pool(name, 0, 0, 0, thin=True, state="down") for name in found}
        yield Page(tuple(pool or down[name] for name, pool in found.items()))

    async def volumes(self) -> AsyncIterator[Page[Volume]]:
        """The volumes of each directory that is up, a page each."""

        async def look(name: str) -> list[Volume]:
            return await self._run(name, lambda path: _volumes(name, path))

        for volumes in (await self._each(look)).values():
            if volumes is not None:
                yield Page(tuple(volumes))

    async def get_volume(self, uuid: str) -> Volume:
        """Look for a volume's file in all directories. Transient if it is in none that is up, and one is down."""
        return (await self._found(uuid))[0]

    async def _found(self, uuid: str) -> tuple[Volume, Path]:
        async def look(name: str) -> list[tuple[Volume, Path]]:
            return await self._run(name, lambda path: _of_uuid(name, path, self._installation, uuid))

        found = await self._each(look)
        for files in found.values():
            for volume, path in files or ():
                return volume, path
        down = [name for name, files in found.items() if files is None]
        if down:
            raise Transient(f"volume {uuid} is not found, and the pools {', '.join(down)} do not answer")
        raise NotFound(f"there is no volume {uuid}")

    # changes

    async def create_volume(self, want: VolumeSpec) -> Volume:
        """Make a file under another name, then give it its own, unless that is taken meanwhile."""
        return await self._ongoing.run(want.mark.uuid, lambda: self._create(want))

    async def _create(self, want: VolumeSpec) -> Volume:
        if want.pool not in self._directories:
            raise NotFound(f"there is no pool {want.pool}")
        with suppress(NotFound, Transient):  # a pool that is down may hold what an earlier claim has left
            return same_volume(await self.get_volume(want.mark.uuid), want)
        await self._run(want.pool, os.statvfs)
        directory = self._directories[want.pool]
        part, name = directory.path / f".hostler_{secrets.token_hex(8)}.part", _file_name(want.mark, directory.format)
        try:
            await self._fill(part, want)
            with suppress(Conflict):  # made meanwhile by a call like this one
                await self._run(want.pool, lambda path: os.link(part, path / name), changes=True)
        finally:
            with trio.move_on_after(self._access.seconds, shield=True), suppress(DriverError):
                await self._run(want.pool, lambda path: part.unlink(missing_ok=True))
        return same_volume(await self.get_volume(want.mark.uuid), want)

    async def _fill(self, part: Path, want: VolumeSpec) -> None:
        """Make a file of the size and format that is wanted: blank, over an image (qcow2), or as a copy of it (raw)."""
        form, size = self._directories[want.pool].format, want.size_gb * GIB
        image = await self._image(want, size) if want.image else None
        if form == "qcow2":
            backing = () if image is None else ("-b", str(image[0]), "-F", image[1])
            await self._qemu_img.run("create", "-q", "-f", "qcow2", *backing, str(part), str(size))
            return
        if image is not None:
            await self._qemu_img.run("convert", "-q", "-f", image[1], "-O", "raw", str(image[0]), str(part))
        await self._run(want.pool, lambda path: _grow(part, size), changes=True)

    async def _image(self, want: VolumeSpec, size: int) -> tuple[Path, Format]:
        """The file of an image, and its format. Permanent if the volume is too small for it."""
        if self._images is None or "/" in want.image or want.image in (".", "..") or _NAME.fullmatch(want.image):
            raise NotFound(f"there is no image {want.image}", hint="set the option images")
        path, form = self._images / want.image, _format_of(want.image)
        if await self._qemu_img.size_of(path, form) > size:
            raise Permanent(f"image {want.image} is larger than {want.size_gb} GiB", field="size_gb")
        return path, form

    async def delete_volume(self, uuid: str, claim: int | None = None) -> None:
        """Remove a volume's file. Conflict while a process has it open for writing."""
        await self._ongoing.run(uuid, lambda: self._delete(uuid, claim))

    async def _delete(self, uuid: str, claim: int | None) -> None:
        try:
            volume, path = await self._found(uuid)
        except NotFound:
            return
        if volume.mark is None or claim not in (None, volume.mark.claim):
            return
        with suppress(NotFound):  # qemu-img refuses files that are locked
            await self._qemu_img.run("info", "--output=json", "-f", _format_of(path.name), str(path))
        await self._run(volume.pool, lambda _: path.unlink(missing_ok=True), changes=True)

    async def extend_volume(self, uuid: str, size_gb: int) -> Volume:
        """Let a file grow to a size."""
        return await self._ongoing.run(uuid, lambda: self._extend(uuid, size_gb))

    async def _extend(self, uuid: str, size_gb: int) -> Volume:
        volume, path = await self._found(uuid)
        if volume.size_gb > size_gb:
            raise Conflict(f"volume {uuid} is larger than {size_gb} GiB")
        if volume.size_gb < size_gb:
            await self._qemu_img.run("resize", "-q", "-f", _format_of(path.name), str(path), f"{size_gb}G")
        return await self.get_volume(uuid)

    async def connect(self, uuid: str, node: str) -> Connection:
        """The path of the file, which the node is expected to reach under the same name."""
        volume, path = await self._found(uuid)
        return Connection(
            volume=uuid,
            protocol=self._access.protocol,
            address=str(path),
            format=_format_of(path.name),
            options=self._directories[volume.pool].options,
        )

    async def remove_forgotten(self) -> None:
        """Remove files that were begun long ago and never finished."""

        async def remove(pool: str) -> None:
            await self._run(pool, _remove_forgotten)

        await self._each(remove)


# What runs in threads: it may block.


@contextmanager
def _there(path: Path) -> Iterator[None]:
    """Transient if a directory is not there, which says nothing of its volumes."""
    try:
        yield
    except FileNotFoundError as error:
        raise Transient(f"{path} is not there: {error}", backend_code=str(error.errno)) from error


def _pool(name: str, path: Path) -> Pool:
    with _there(path):
        figures = os.statvfs(path)
    provisioned = sum(volume.size_gb for volume in _volumes(name, path))
    total, free = figures.f_blocks * figures.f_frsize // GIB, figures.f_bavail * figures.f_frsize // GIB
    return Pool(name, total, free, provisioned, thin=True)


def _volumes(pool: str, path: Path) -> list[Volume]:
    found = []
    with _there(path), os.scandir(path) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIXES) and not entry.name.startswith("."):
                with suppress(FileNotFoundError):  # it went away meanwhile
                    if entry.is_file():
                        found.append(_volume(pool, Path(entry.path)))
    return found


def _of_uuid(pool: str, path: Path, installation: str, uuid: str) -> list[tuple[Volume, Path]]:
    """The files of a volume of an installation, that of the newest claim first."""
    found = []
    with _there(path), os.scandir(path) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match is not None and match.group(1, 2) == (installation, uuid):
                with suppress(FileNotFoundError):
                    found.append((int(match[3]), _volume(pool, Path(entry.path)), Path(entry.path)))
    return [each[1:] for each in sorted(found, key=lambda each: -each[0])]


def _volume(pool: str, path: Path) -> Volume:
    """A volume as its file says. The size of qcow2 is in bytes 24 to 31 of the file."""
    if path.suffix == ".qcow2":
        with path.open("rb") as file:
            header = file.read(32)
        size = struct.unpack(">Q", header[24:32])[0] if header[:4] == MAGIC and len(header) == 32 else 0
    else:
        size = path.stat().st_size
    found = _NAME.fullmatch(path.name)
    mark = None if found is None else Mark(found[1], found[2], int(found[3]))
    return Volume(path.name, mark, path.name, pool, -(-size // GIB), "available")


def _grow(part: Path, size: int) -> None:
    with part.open("ab") as file:
        file.truncate(size)


def _remove_forgotten(folder: Path) -> None:
    for path in folder.glob(".hostler_*.part"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS:
                path.unlink()


# Values.


def _file_name(mark: Mark, form: Format) -> str:
    return f"hostler_{mark.installation}_{mark.uuid}_{mark.claim}.{form}"


def _format_of(name: str) -> Format:
    return "qcow2" if name.endswith(".qcow2") else "raw"
