"""Volumes as logical volumes of LVM, for guests on the host whose volume groups these are, or that shares them. Needs
the program ``lvm``, and root.

Extents hold what their last owner wrote, so that each volume is zeroed before it is available; a tag marks it until
then, and whatever interrupts that, the next look at the volume goes on."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Final

import msgspec
import trio

from ...core.tasks import background
from ..programs import Texts, by_text, run_program
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
    Transient,
    Unknown,
    Volume,
    VolumeSpec,
    VolumeState,
    read_options,
)
from .wanted import same_volume
from .zeroing import zero_from

GIB: Final = 2**30
TEXTS: Final[Texts] = (
    (re.compile(r"insufficient (free|suitable)", re.IGNORECASE), Capacity),
    (re.compile(r"already exists", re.IGNORECASE), Conflict),
    (re.compile(r"in use|is used by|open count", re.IGNORECASE), Conflict),
    (re.compile(r"failed to find|not found", re.IGNORECASE), NotFound),
    (re.compile(r"permission denied|non-root", re.IGNORECASE), Denied),
    (re.compile(r"can't get lock|lock.*(timed out|failed)", re.IGNORECASE), Transient),
    (re.compile(r"invalid|unsupported|unrecognised|without using device-mapper", re.IGNORECASE), Permanent),
)
"""What lvm prints, as its exit code is 5 for most failures; the first that matches counts, else the outcome is
unknown."""
_NAME: Final = re.compile(r"hostler_([0-9a-z-]{1,64})_([0-9a-f-]{36})")
OPEN: Final = "o"
"""The sixth of the attributes of a logical volume that something has open."""
_UNCLEARED: Final = re.compile(r"hostler_uncleared_(\d+)")
"""The tag of a logical volume that is to be zeroed from this byte on."""
CLEAR_SECONDS: Final = 30.0
"""How long a call waits for a volume to be zeroed; it is ``building`` after that."""

log = logging.getLogger("hostler.drivers.lvm")


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options: ``pools``, volume groups by the names under which they are known; ``system_dir``, the folder of lvm's
    configuration, if it is not lvm's own; the program ``lvm``. ``metadata_only``: make logical volumes that are never
    activated nor zeroed, on kernels without device-mapper, for tests."""

    pools: dict[str, str]
    system_dir: str | None = None
    lvm: str = "lvm"
    metadata_only: bool = False
    poll: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


class LvmDriver:
    """Volume groups."""

    def __init__(self, options: Options, installation: str, nursery: trio.Nursery) -> None:
        self._options, self._installation, self._nursery = options, installation, nursery
        self._clearing: dict[str, _Clearing] = {}
        """By uuid: volumes that are being zeroed."""
        self._changing = trio.Lock()
        """lvm changes a volume group by one command at a time, and has the others wait."""
        self._environment = {} if options.system_dir is None else {"LVM_SYSTEM_DIR": options.system_dir}
        self.facts = Facts("lvm", "", Can.STORAGE, options.poll, options.concurrency, timeout=120.0)

    async def open(self) -> None:
        """Find out the version, and check that the volume groups are there."""
        (first, *_) = (await self._lvm("version")).splitlines()
        self.facts = self.facts._replace(version=first.partition(":")[2].strip())
        await self.check()

    async def _lvm(self, command: str, *arguments: str) -> str:
        """Run a command of lvm; what it prints. Cancelled, it is ended: each change of metadata is done or not done."""
        line = [self._options.lvm, command, *arguments]
        if self._options.metadata_only and command != "version":
            line += ["--driverloaded", "n"]
        return await run_program(line, by_text(TEXTS, Unknown), package="lvm2", environment=self._environment)

    async def _report(self, command: str, key: str, fields: str, *more: str) -> list[dict[str, str]]:
        """Lines of ``vgs`` or ``lvs``, sizes in bytes."""
        form = ("--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields)
        text = await self._lvm(command, *form, *more)
        try:
            report: list[dict[str, list[dict[str, str]]]] = msgspec.json.decode(text)["report"]
            return report[0][key]
        except (msgspec.DecodeError, KeyError, IndexError, TypeError) as error:
            raise Unknown(f"lvm {command} printed no report: {text[:200]}") from error

    async def check(self) -> None:
        """Look at every volume group."""
        await self._report("vgs", "vg", "vg_name", *self._options.pools.values())

    # what there is

    async def pools(self) -> AsyncIterator[Page[Pool]]:
        """All volume groups."""
        found = await self._report("vgs", "vg", "vg_name,vg_size,vg_free", *self._options.pools.values())
        groups = {each["vg_name"]: each for each in found}
        pools = []
        for name, group in self._options.pools.items():
            total, free = int(groups[group]["vg_size"]), int(groups[group]["vg_free"])
            pools.append(Pool(name, total // GIB, free // GIB, -(-(total - free) // GIB)))
        yield Page(tuple(pools))

    async def volumes(self) -> AsyncIterator[Page[Volume]]:
        """The logical volumes of each volume group, a page each."""
        for name in self._options.pools:
            yield Page(tuple(await self._in(name)))

    async def _in(self, pool: str, *select: str) -> list[Volume]:
        group, fields = self._options.pools[pool], "lv_name,lv_size,lv_tags,lv_attr,lv_path"
        try:
            lines = await self._report("lvs", "lv", fields, *select, group)
        except NotFound as error:  # that of the group says nothing of its volumes
            raise Transient(f"volume group {group} is not there: {error.text}") from error
        for line in lines:
            self._go_on_clearing(pool, line)
        return [_volume(pool, line) for line in lines]

    async def get_volume(self, uuid: str) -> Volume:
        """Look for a volume in all volume groups."""
        for pool in self._options.pools:
            for volume in await self._in(pool, "-S", f"lv_name={self._name(uuid)}"):
                if volume.mark is not None:
                    return volume
        raise NotFound(f"there is no volume {uuid}")

    def _name(self, uuid: str) -> str:
        return f"hostler_{self._installation}_{uuid}"

    def _path(self, volume: Volume) -> str:
        return f"{self._options.pools[volume.pool]}/{volume.name}"

    # changes

    async def create_volume(self, want: VolumeSpec) -> Volume:
        """Make a logical volume with its mark as a tag, and have it zeroed; a large one is ``building`` meanwhile. Its
        name is its uuid's, which a volume group has once."""
        with suppress(NotFound):
            same_volume(await self.get_volume(want.mark.uuid), want)
            return await self._cleared(want.mark.uuid)
        if want.pool not in self._options.pools:
            raise NotFound(f"there is no pool {want.pool}")
        if want.image:
            raise Permanent("logical volumes are blank: this driver copies no images")
        size = ("-L", f"{want.size_gb}g", "-n", self._name(want.mark.uuid), "--addtag", str(want.mark))
        form: tuple[str, ...] = ("-Zy", "-Wy", "-y", "--addtag", _uncleared(0))
        if self._options.metadata_only:
            form = ("-an", "-Zn", "-Wn")
        async with self._changing:
            with suppress(Conflict):  # made meanwhile by a call like this one
                await self._lvm("lvcreate", "-q", *form, *size, self._options.pools[want.pool])
        return same_volume(await self._cleared(want.mark.uuid), want)

    async def delete_volume(self, uuid: str, claim: int | None = None) -> None:
        """Remove a logical volume. Conflict while something has it open."""
        with suppress(NotFound):
            volume = await self.get_volume(uuid)
            if volume.mark is not None and claim in (None, volume.mark.claim):
                await self._stop_clearing(uuid)
                if (await self.get_volume(uuid)).state == "in_use":
                    raise Conflict(f"volume {uuid} is in use")
                async with self._changing:
                    await self._lvm("lvremove", "-q", "-f", self._path(volume))

    async def extend_volume(self, uuid: str, size_gb: int) -> Volume:
        """Let a logical volume grow to a size. Conflict while something has it open, which could read what is in the
        new extents before they are zeroed."""
        volume = await self._cleared(uuid)
        if volume.size_gb > size_gb:
            raise Conflict(f"volume {uuid} is larger than {size_gb} GiB")
        if volume.size_gb < size_gb:
            async with self._changing:
                state = (await self.get_volume(uuid)).state
                if state != "available":
                    raise Conflict(f"volume {uuid} is {state}: it is extended while it is available")
                if not self._options.metadata_only:
                    (line,) = await self._report("lvs", "lv", "lv_size", self._path(volume))
                    await self._lvm("lvchange", "-q", "--addtag", _uncleared(int(line["lv_size"])), self._path(volume))
                await self._lvm("lvextend", "-q", "-L", f"{size_gb}g", self._path(volume))
        return await self._cleared(uuid)

    async def connect(self, uuid: str, node: str) -> Connection:
        """The path of the block device. Transient while it is being zeroed."""
        volume = await self.get_volume(uuid)
        if volume.state == "building":
            raise Transient(f"volume {uuid} is being zeroed")
        return Connection(volume=uuid, protocol="block", address=f"/dev/{self._path(volume)}")

    # clearing

    async def _cleared(self, uuid: str) -> Volume:
        """A volume, once it is zeroed or CLEAR_SECONDS have passed."""
        volume = await self.get_volume(uuid)
        clearing = self._clearing.get(uuid)
        if clearing is None:
            return volume
        with trio.move_on_after(CLEAR_SECONDS):
            await clearing.ended.wait()
        return await self.get_volume(uuid)

    def _go_on_clearing(self, pool: str, line: Mapping[str, str]) -> None:
        """Have a volume of this installation zeroed that is not yet, unless that is under way."""
        mark = _volume(pool, line).mark
        if mark is None or mark.installation != self._installation or _uncleared_from(line["lv_tags"]) is None:
            return
        if mark.uuid not in self._clearing:
            clearing = self._clearing[mark.uuid] = _Clearing()
            self._nursery.start_soon(self._clear, pool, mark.uuid, line["lv_path"], clearing)

    async def _clear(self, pool: str, uuid: str, path: str, clearing: _Clearing) -> None:
        """Zero a volume. If that fails, the next look at it tries again."""
        target, began = f"{self._options.pools[pool]}/{self._name(uuid)}", trio.current_time()

        async def find_start() -> int | None:
            lines = await self._report("lvs", "lv", "lv_tags", target)
            return _uncleared_from(lines[0]["lv_tags"]) if lines else None

        async def done() -> None:
            (line,) = await self._report("lvs", "lv", "lv_tags", target)
            tags = [tag for tag in line["lv_tags"].split(",") if _UNCLEARED.fullmatch(tag)]
            async with self._changing:
                await self._lvm("lvchange", "-q", *(part for tag in tags for part in ("--deltag", tag)), target)

        try:
            with clearing.scope:
                await zero_from(path, find_start, done)
                log.info("volume %s was zeroed in %.1f s", uuid, trio.current_time() - began)
        except DriverError as error:
            log.warning("volume %s is not zeroed yet: %s", uuid, error)
        finally:
            del self._clearing[uuid]
            clearing.ended.set()

    async def _stop_clearing(self, uuid: str) -> None:
        clearing = self._clearing.get(uuid)
        if clearing is not None:
            clearing.scope.cancel()
            await clearing.ended.wait()


class _Clearing:
    """A volume that is being zeroed."""

    def __init__(self) -> None:
        self.scope, self.ended = trio.CancelScope(), trio.Event()


def _uncleared(start: int) -> str:
    return f"hostler_uncleared_{start}"


def _uncleared_from(tags: str) -> int | None:
    """The byte from which on a volume is to be zeroed; None if it is zeroed."""
    starts = [int(found[1]) for tag in tags.split(",") if (found := _UNCLEARED.fullmatch(tag))]
    return min(starts, default=None)


def _volume(pool: str, line: Mapping[str, str]) -> Volume:
    """A logical volume as lvm reports it. Its mark is the tag that belongs to its name."""
    name, found = line["lv_name"], _NAME.fullmatch(line["lv_name"])
    marks = (Mark.parse(tag) for tag in line["lv_tags"].split(","))
    owner = None if found is None else (found[1], found[2])
    mark = next((each for each in marks if each is not None and (each.installation, each.uuid) == owner), None)
    state: VolumeState = "in_use" if line["lv_attr"][5:6] == OPEN else "available"
    if _uncleared_from(line["lv_tags"]) is not None:
        state = "building"
    return Volume(name, mark, name, pool, -(-int(line["lv_size"]) // GIB), state)


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[LvmDriver]:
    """Volume groups that are there."""
    async with background() as nursery:
        driver = LvmDriver(read_options(options, Options), context.installation, nursery)
        await driver.open()
        try:
            yield driver
        finally:
            nursery.cancel_scope.cancel()
