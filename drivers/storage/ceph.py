"""Volumes as RBD images of Ceph. Needs the programs ``rbd`` and ``ceph``, which are processes that can be ended: the
libraries behind them wait for a cluster that is down without end."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Final

import msgspec
import trio

from ...placement.types.errors import InvalidValue
from ..ongoing import Ongoing, open_ongoing
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
    Quota,
    Transient,
    Unknown,
    Volume,
    VolumeSpec,
    read_options,
)
from .wanted import same_volume

GIB: Final = 2**30
TIMEOUT: Final = 600.0
"""Seconds for one change; the data of a large image takes long to remove."""
LONGEST_INSTALLATION: Final = 32
"""Characters, since names of images have at most 96."""
CHANGES: Final = ("create", "clone", "resize", "rm")
"""Commands of rbd that change something."""

EXIT: Final[Mapping[int, type[DriverError]]] = {
    2: NotFound,  # ENOENT
    13: Denied,  # EACCES
    16: Conflict,  # EBUSY: a client watches the image
    17: Conflict,  # EEXIST
    22: Permanent,  # EINVAL
    28: Capacity,  # ENOSPC
    30: Permanent,  # EROFS
    39: Conflict,  # ENOTEMPTY: it has snapshots
    75: Permanent,  # EOVERFLOW
    95: Permanent,  # EOPNOTSUPP
    108: Transient,  # ESHUTDOWN: the client is on the block list
    122: Quota,  # EDQUOT
}
"""Exit codes, which are numbers of errors, by class. Others, such as 110 (ETIMEDOUT), are transient; the outcome of a
change is then unknown."""
TEXTS: Final[Texts] = (
    (re.compile(r"permission denied|not permitted|\(13\)|no keyring found", re.IGNORECASE), Denied),
    (re.compile(r"couldn't connect|error connecting|timed out", re.IGNORECASE), Transient),
    (re.compile(r"unrecogni[sz]ed|too many arguments|invalid", re.IGNORECASE), Permanent),
)
"""What is printed with exit code 1, which stands for no error; the first that matches counts."""
_NAME: Final = re.compile(r"hostler_([0-9a-z-]{1,64})_([0-9a-f-]{36})_(\d{1,18})")
_IMAGE: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*){1,2}@\w[\w.-]*")


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options: ``pools``, pools of the cluster (or POOL/NAMESPACE) by the names under which they are known; ``conf``,
    the cluster's configuration file, and ``user``, the client's name without "client.", if they are not Ceph's own
    defaults; ``secret``, the uuid of a secret of libvirt with the user's key, which nodes use. ``timeout``: seconds in
    which the cluster has to answer; the programs ``rbd`` and ``ceph``."""

    pools: Annotated[dict[str, str], msgspec.Meta(min_length=1)]
    conf: str | None = None
    user: str = "admin"
    secret: str | None = None
    timeout: Annotated[int, msgspec.Meta(ge=1, le=300)] = 25
    rbd: str = "rbd"
    ceph: str = "ceph"
    poll: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=32)] = 4


class CephDriver:
    """Pools of a cluster."""

    def __init__(self, options: Options, installation: str, ongoing: Ongoing) -> None:
        self._options, self._installation, self._ongoing = options, installation, ongoing
        self._processes = trio.CapacityLimiter(options.concurrency)
        self._monitors = ""
        self.facts = Facts("ceph", "", Can.STORAGE, options.poll, options.concurrency, TIMEOUT)

    async def open(self) -> None:
        """Find out the version and the monitors, and check that the pools are there."""
        versions = await self._ceph("version")
        self.facts = self.facts._replace(version=str(versions.get("version", "")))
        found = [each["public_addrs"]["addrvec"] for each in (await self._ceph("mon", "dump")).get("mons", ())]
        addresses = [{each["type"]: each["addr"] for each in mon} for mon in found]
        self._monitors = " ".join(sorted(each.get("v1") or each["v2"] for each in addresses))
        await self.check()

    # programs

    async def _run(self, line: Sequence[str], *, changes: bool) -> str:
        """What a program prints. Cancelled, it is ended."""
        otherwise: type[DriverError] = Unknown if changes else Transient

        def failed(code: int, text: str) -> type[DriverError]:
            return by_text(TEXTS, otherwise)(code, text) if code == 1 else EXIT.get(code, otherwise)

        async with self._processes:
            return await run_program(line, failed, package="ceph-common")

    def _who(self) -> list[str]:
        conf = [] if self._options.conf is None else ["--conf", self._options.conf]
        return [*conf, "--id", self._options.user]

    async def _ceph(self, *command: str) -> dict[str, Any]:
        line = [self._options.ceph, *command, *self._who(), "--connect-timeout", str(self._options.timeout)]
        found: dict[str, Any] = _object(await self._run([*line, "-f", "json"], changes=False), dict)
        return found

    async def _rbd(self, command: str, *arguments: str) -> str:
        limit = str(self._options.timeout)
        limits = ("--rados-osd-op-timeout", limit, "--rados-mon-op-timeout", limit, "--client-mount-timeout", limit)
        line = [self._options.rbd, command, *arguments, *self._who(), *limits]
        return await self._run(line, changes=command in CHANGES)

    async def check(self) -> None:
        """Look at every pool."""
        for pool in self._options.pools.values():
            await self._rbd("ls", pool)

    # what there is

    async def pools(self) -> AsyncIterator[Page[Pool]]:
        """All pools. What is free is the cluster's estimate, less what a quota keeps back."""
        stats = {each["name"]: each["stats"] for each in (await self._ceph("df", "detail")).get("pools", ())}
        pools = []
        for name, pool in self._options.pools.items():
            figures = stats.get(pool.partition("/")[0])
            if figures is None:
                raise NotFound(f"the cluster has no pool {pool}")
            stored, free, quota = (int(figures.get(key, 0)) for key in ("stored", "max_avail", "quota_bytes"))
            if quota:
                free = max(0, min(free, quota - stored))
            provisioned = sum(volume.size_gb for volume in await self._in(name))
            pools.append(Pool(name, (stored + free) // GIB, free // GIB, provisioned, thin=True))
        yield Page(tuple(pools))

    async def volumes(self) -> AsyncIterator[Page[Volume]]:
        """The images of each pool, a page each."""
        for name in self._options.pools:
            yield Page(tuple(await self._in(name)))

    async def _in(self, pool: str) -> list[Volume]:
        lines = await self._ls(self._options.pools[pool], "-l")
        return [_volume(pool, line) for line in lines if "snapshot" not in line]

    async def _ls(self, pool: str, *options: str) -> list[Any]:
        """The images of a pool. Transient if the pool is not there, which says nothing of its images."""
        try:
            return list(_object(await self._rbd("ls", *options, pool, "--format", "json"), list))
        except NotFound as error:
            raise Transient(f"pool {pool} is not there: {error.text}", backend_code=error.backend_code) from error

    async def get_volume(self, uuid: str) -> Volume:
        """Look for an image in all pools."""
        found = await self._found(uuid)
        if not found:
            raise NotFound(f"there is no volume {uuid}")
        return found[0]

    async def _found(self, uuid: str) -> list[Volume]:
        """The images of a volume, that of the newest claim first."""
        found = []
        for pool, of_cluster in self._options.pools.items():
            for name in await self._ls(of_cluster):
                mark = _mark_of(str(name))
                if mark is not None and mark[:2] == (self._installation, uuid):
                    with suppress(NotFound):  # it went away meanwhile
                        line = _object(await self._rbd("info", f"{of_cluster}/{name}", "--format", "json"), dict)
                        found.append((mark.claim, _volume(pool, {**line, "image": name})))
        return [volume for _, volume in sorted(found, key=lambda each: -each[0])]

    def _path(self, volume: Volume) -> str:
        return f"{self._options.pools[volume.pool]}/{volume.name}"

    # changes

    async def create_volume(self, want: VolumeSpec) -> Volume:
        """Make an image, blank or as a clone of a snapshot. Its name has its mark."""
        return await self._ongoing.run(want.mark.uuid, lambda: self._create(want))

    async def _create(self, want: VolumeSpec) -> Volume:
        if want.pool not in self._options.pools:
            raise NotFound(f"there is no pool {want.pool}")
        found, path = await self._found(want.mark.uuid), f"{self._options.pools[want.pool]}/{_name(want.mark)}"
        if not found:
            with suppress(Conflict):  # made meanwhile by a call like this one
                await self._make(want, path)
            found = await self._found(want.mark.uuid)
        made = found[0] if found else None
        if made is not None and want.image and made.mark == want.mark and made.size_gb < want.size_gb:
            await self._rbd("resize", path, "--size", f"{want.size_gb}G", "--no-progress")
            made = await self.get_volume(want.mark.uuid)
        if made is None:
            raise Conflict(f"volume {want.mark.uuid} is not there, although it was made")
        return same_volume(made, want)

    async def _make(self, want: VolumeSpec, path: str) -> None:
        if not want.image:
            await self._rbd("create", path, "--size", f"{want.size_gb}G")
            return
        if not _IMAGE.fullmatch(want.image) or _mark_of(want.image.rpartition("/")[2].partition("@")[0]):
            raise NotFound(f"there is no image {want.image}", hint="an image is POOL/IMAGE@SNAPSHOT")
        image = _object(await self._rbd("info", want.image, "--format", "json"), dict)
        if int(image.get("size", 0)) > want.size_gb * GIB:
            raise Permanent(f"image {want.image} is larger than {want.size_gb} GiB", field="size_gb")
        await self._rbd("clone", want.image, path, "--rbd-default-clone-format", "2")

    async def delete_volume(self, uuid: str, claim: int | None = None) -> None:
        """Remove an image. Conflict while a client has it open."""
        await self._ongoing.run(uuid, lambda: self._delete(uuid, claim))

    async def _delete(self, uuid: str, claim: int | None) -> None:
        for volume in await self._found(uuid):
            if volume.mark is not None and claim in (None, volume.mark.claim):
                with suppress(NotFound):
                    await self._rbd("rm", self._path(volume), "--no-progress")

    async def extend_volume(self, uuid: str, size_gb: int) -> Volume:
        """Let an image grow to a size."""
        return await self._ongoing.run(uuid, lambda: self._extend(uuid, size_gb))

    async def _extend(self, uuid: str, size_gb: int) -> Volume:
        volume = await self.get_volume(uuid)
        if volume.size_gb > size_gb:
            raise Conflict(f"volume {uuid} is larger than {size_gb} GiB")
        if volume.size_gb < size_gb:
            await self._rbd("resize", self._path(volume), "--size", f"{size_gb}G", "--no-progress")
        return await self.get_volume(uuid)

    async def connect(self, uuid: str, node: str) -> Connection:
        """The image's name, with the monitors, and the user as whom nodes reach it."""
        volume, options = await self.get_volume(uuid), {"hosts": self._monitors, "user": self._options.user}
        if self._options.secret is not None:
            options["secret"] = self._options.secret
        return Connection(volume=uuid, protocol="rbd", address=self._path(volume), options=options)


def _name(mark: Mark) -> str:
    return f"hostler_{mark.installation}_{mark.uuid}_{mark.claim}"


def _mark_of(name: str) -> Mark | None:
    found = _NAME.fullmatch(name)
    return None if found is None else Mark(found[1], found[2], int(found[3]))


def _volume(pool: str, line: Mapping[str, Any]) -> Volume:
    """An image as ``rbd ls -l`` or ``rbd info`` reports it. One with a lock is open for writing."""
    name = str(line["image"])
    return Volume(
        key=name,
        mark=_mark_of(name),
        name=name,
        pool=pool,
        size_gb=-(-int(line.get("size", 0)) // GIB),
        state="in_use" if line.get("lock_type") else "available",
    )


def _object(text: str, kind: type[Any]) -> Any:
    """The JSON that a program printed. Transient for anything else: only commands that read print JSON."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise Transient(f"the program printed no report: {text[:200]}") from error


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[CephDriver]:
    """Pools that are there."""
    settings = read_options(options, Options)
    if len(context.installation) > LONGEST_INSTALLATION:
        raise InvalidValue(f"the id of the installation is longer than {LONGEST_INSTALLATION} characters")
    async with open_ongoing(TIMEOUT) as ongoing:
        driver = CephDriver(settings, context.installation, ongoing)
        await driver.open()
        yield driver
