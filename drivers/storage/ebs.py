"""Volumes of EBS, the block storage beside EC2. A pool is one volume type in one zone. Needs the extra ``ec2``."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Final
from xml.etree import ElementTree

import msgspec
import trio

from ..ec2_api import UUID_TAG, VERSION, Account, Ec2Api, id_of, mark_of, open_api, tagging, tags_of
from ..ongoing import Ongoing, open_ongoing
from ..protocol import (
    Can,
    Conflict,
    Connection,
    DriverContext,
    Facts,
    NotFound,
    Page,
    Pool,
    Volume,
    VolumeSpec,
    VolumeState,
    read_options,
)
from .wanted import same_volume

TIMEOUT: Final = 120.0
LOOK_SECONDS: Final = 0.5
"""Between two looks at a volume that is being made."""
STATES: Final[Mapping[str, VolumeState]] = {
    "creating": "building",
    "available": "available",
    "in-use": "in_use",
    "error": "error",
}
"""States of volumes. Those that are being deleted are gone, although they are listed for a while."""
ALIVE: Final = {"Name": "status", "Value": sorted(STATES)}


class Options(Account, kw_only=True, forbid_unknown_fields=True):
    """Options: the volume ``types`` and the ``zones`` (default: all of the region), each pair of which is a pool named
    ``ZONE.TYPE`` with ``pool_gb``, a limit that the cloud does not tell."""

    types: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("gp3",)
    zones: list[str] | None = None
    pool_gb: Annotated[int, msgspec.Meta(ge=0)] = 51_200


class EbsDriver:
    """The volumes of an account in a region."""

    def __init__(self, api: Ec2Api, options: Options, installation: str, ongoing: Ongoing) -> None:
        self._api, self._options, self._installation, self._ongoing = api, options, installation, ongoing
        can = Can.STORAGE | Can.NATIVE_KEY
        self.facts = Facts("ebs", VERSION, can, options.poll, options.concurrency, TIMEOUT)

    async def check(self) -> None:
        """Ask for the zones."""
        await self._api.zones(self._options.zones)

    # what there is

    async def pools(self) -> AsyncIterator[Page[Pool]]:
        """Each volume type in each zone."""
        used: dict[str, int] = {}
        async for page in self.volumes():
            for volume in page.items:
                used[volume.pool] = used.get(volume.pool, 0) + volume.size_gb
        total, pools = self._options.pool_gb, []
        for zone, up in (await self._api.zones(self._options.zones)).items():
            for kind in self._options.types:
                taken = used.get(f"{zone}.{kind}", 0)
                free = max(0, total - taken)
                pools.append(Pool(f"{zone}.{kind}", total, free, taken, state="up" if up else "down"))
        yield Page(tuple(pools))

    async def volumes(self) -> AsyncIterator[Page[Volume]]:
        """All volumes, by the pages of the API."""
        async for tree in self._api.pages("DescribeVolumes", {"Filter": [ALIVE]}):
            yield Page(tuple(_seen(item) for item in tree.iterfind("volumeSet/item")))

    async def get_volume(self, uuid: str) -> Volume:
        """Look a volume up by its tags."""
        found = await self._found(uuid)
        if not found:
            raise NotFound(f"there is no volume {uuid}")
        return found[0]

    async def _found(self, uuid: str) -> list[Volume]:
        """All volumes with a uuid, the first one first: there are several where the cloud ignores client tokens."""
        found, by_uuid = list[tuple[str, Volume]](), {"Name": f"tag:{UUID_TAG}", "Value": [uuid]}
        async for tree in self._api.pages("DescribeVolumes", {"Filter": [by_uuid, ALIVE]}):
            for item in tree.iterfind("volumeSet/item"):
                volume = _seen(item)
                if volume.mark is not None and volume.mark.installation == self._installation:
                    found.append((item.findtext("createTime", ""), volume))
        return [volume for _, volume in sorted(found, key=lambda each: (each[0], each[1].key))]

    # changes

    async def create_volume(self, want: VolumeSpec) -> Volume:
        """Make a volume, empty or from the snapshot that ``image`` names."""
        return await self._ongoing.run(want.mark.uuid, lambda: self._create(want))

    async def _create(self, want: VolumeSpec) -> Volume:
        found = await self._found(want.mark.uuid)
        if found:
            first = same_volume(found[0], want)
            for volume in found[1:]:
                await self._remove(volume)
            return first
        zone, _, kind = want.pool.rpartition(".")
        if kind not in self._options.types or zone not in await self._api.zones(self._options.zones):
            raise NotFound(f"there is no pool {want.pool}")
        parameters = {
            "AvailabilityZone": zone,
            "VolumeType": kind,
            "Size": want.size_gb,
            "ClientToken": hashlib.sha256(str(want.mark).encode()).hexdigest(),
            "TagSpecification": tagging("volume", want.mark, want.name),
        }
        if want.image:
            parameters["SnapshotId"] = id_of(want.image, "snap")
        volume = _seen(await self._api.call("CreateVolume", parameters))
        while volume.state == "building":
            await trio.sleep(LOOK_SECONDS)
            with suppress(NotFound):  # listings may be some seconds behind
                volume = await self.get_volume(want.mark.uuid)
        return volume

    async def delete_volume(self, uuid: str, claim: int | None = None) -> None:
        """Remove a volume that no instance uses."""

        async def delete() -> None:
            for volume in await self._found(uuid):
                if volume.mark is not None and claim in (None, volume.mark.claim):
                    await self._remove(volume)

        await self._ongoing.run(uuid, delete)

    async def _remove(self, volume: Volume) -> None:
        try:
            await self._api.call("DeleteVolume", {"VolumeId": volume.key})
        except NotFound:
            return

    async def extend_volume(self, uuid: str, size_gb: int) -> Volume:
        """Let a volume grow; the cloud allows that once in some hours."""

        async def extend() -> Volume:
            volume = await self.get_volume(uuid)
            if volume.size_gb > size_gb:
                raise Conflict(f"volume {uuid} is larger than {size_gb} GiB")
            if volume.size_gb < size_gb:
                await self._api.call("ModifyVolume", {"VolumeId": volume.key, "Size": size_gb})
            return await self.get_volume(uuid)

        return await self._ongoing.run(uuid, extend)

    async def connect(self, uuid: str, node: str) -> Connection:
        """The volume's id, which instances of its zone can attach."""
        volume = await self.get_volume(uuid)
        return Connection(volume=uuid, protocol="ebs", address=volume.key)


def _seen(item: ElementTree.Element) -> Volume:
    tags = tags_of(item)
    return Volume(
        key=item.findtext("volumeId", ""),
        mark=mark_of(tags),
        name=tags.get("Name", ""),
        pool=f"{item.findtext('availabilityZone', '')}.{item.findtext('volumeType', '')}",
        size_gb=int(item.findtext("size", "0")),
        state=STATES.get(item.findtext("status", ""), "deleting"),
    )


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[EbsDriver]:
    """The volumes of a region."""
    settings = read_options(options, Options)
    async with open_api(settings) as api, open_ongoing(TIMEOUT) as ongoing:
        driver = EbsDriver(api, settings, context.installation, ongoing)
        await driver.check()
        yield driver
