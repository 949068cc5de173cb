"""Volumes of Cinder in another OpenStack cloud, as one of its projects uses it. A pool is one volume type in one zone:
the cloud selects the back end, and shows no capacity but the quota of the project. Part of the driver ``openstack``.

A volume is named ``hostler-UUID``, by which it is looked up before it is made, and has its mark in its metadata; of
several that a lost answer left, the first one counts, and the others are removed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final, Protocol

from ..ongoing import Ongoing, look_until
from ..openstack_api import MARK_KEY, Service, Texts, is_id, named, path_of, printable, room, zones_of
from ..protocol import (
    Capacity,
    Conflict,
    Connection,
    Mark,
    NotFound,
    Page,
    Permanent,
    Pool,
    Quota,
    Transient,
    Volume,
    VolumeSpec,
    VolumeState,
)
from .wanted import same_volume

MICROVERSION: Final = "volume 3.42"
"""Of Cinder 11 (Pike): the oldest that extends volumes in use."""
KINDS: Final = ("block-storage", "volumev3", "block-store")
PROTOCOL: Final = "cinder"
PREFIX: Final = "hostler-"
STATES: Final[Mapping[str, VolumeState]] = {
    "attaching": "in_use",
    "available": "available",
    "creating": "building",
    "detaching": "in_use",
    "downloading": "building",
    "error": "error",
    "error_deleting": "error",
    "error_extending": "error",
    "error_managing": "error",
    "error_restoring": "error",
    "in-use": "in_use",
    "reserved": "in_use",
}
"""Status of volumes; others are passing ones of volumes that are in use or available, by whether they are attached."""
GONE: Final = ("deleting", "deleted")
TEXTS: Final[Texts] = (
    (re.compile(r"no valid (host|backend)|no weighed backends|insufficient free space", re.IGNORECASE), Capacity),
    (re.compile(r"quota|VolumeLimitExceeded|VolumeSizeExceeds", re.IGNORECASE), Quota),
    (re.compile(r"policy doesn't allow", re.IGNORECASE), Permanent),
    (re.compile(r"status must be|invalid volume|must not be|in use", re.IGNORECASE), Conflict),
    (re.compile(r"could not be found", re.IGNORECASE), NotFound),
)
"""What messages of Cinder say, where the status says less."""


class VolumeOptions(Protocol):
    """The options that are read here; ``driver.Options`` describes them."""

    page: int
    zones: list[str] | None
    volume_types: list[str] | None
    pool_gb: int | None
    look_seconds: float


class CinderVolumes:
    """The volumes of a project. Without a service there are none."""

    def __init__(
        self, service: Service | None, options: VolumeOptions, installation: str, ongoing: Ongoing, images: Service
    ) -> None:
        self._cinder, self._storage, self._images = service, options, images
        self._installation, self._ongoing = installation, ongoing

    def _volumes(self) -> Service:
        if self._cinder is None:
            raise Permanent("this back end has no volumes", hint="set the option volume_types")
        return self._cinder

    # what there is

    async def pools(self) -> AsyncIterator[Page[Pool]]:
        """Each volume type in each zone, with what the quota of the project leaves beside its volumes there."""
        used, cinder = dict[str, int](), self._volumes()
        async for page in self.volumes():
            for volume in page.items:
                used[volume.pool] = used.get(volume.pool, 0) + volume.size_gb
        limits = (await cinder.get("limits")).get("limits", {}).get("absolute", {})
        if 0 <= int(limits.get("maxTotalVolumes", -1)) <= int(limits.get("totalVolumesUsed", 0)):
            limits = {**limits, "maxTotalVolumeGigabytes": 0}  # no volume more, of whatever size
        pools, types = list[Pool](), await self._types()
        for zone, up in (await self._zones()).items():
            for kind in types:
                taken, most = used.get(f"{zone}.{kind}", 0), self._storage.pool_gb
                total = room(taken, limits, "maxTotalVolumeGigabytes", "totalGigabytesUsed", most, 51_200)
                free = max(0, total - taken)
                pools.append(Pool(f"{zone}.{kind}", total, free, taken, state="up" if up else "down"))
        yield Page(tuple(pools))

    async def _zones(self) -> dict[str, bool]:
        return zones_of(await self._volumes().get("os-availability-zone"), self._storage.zones)

    async def _types(self) -> Sequence[str]:
        if self._storage.volume_types is not None:
            return self._storage.volume_types
        found = (await self._volumes().get("types")).get("volume_types") or ()
        return sorted(str(each.get("name")) for each in found)

    async def volumes(self) -> AsyncIterator[Page[Volume]]:
        """All volumes of the project."""
        pages = self._volumes().pages("volumes/detail", "volumes", self._storage.page)
        async with aclosing(pages):
            async for items in pages:
                yield Page(tuple(_seen(item) for item in items if item.get("status") not in GONE))

    async def uuids_by_key(self) -> dict[str, str]:
        """The uuids of this installation's volumes, by their ids in the cloud."""
        if self._cinder is None:
            return {}
        found = dict[str, str]()
        async for page in self.volumes():
            for volume in page.items:
                if volume.mark is not None and volume.mark.installation == self._installation:
                    found[volume.key] = volume.mark.uuid
        return found

    async def get_volume(self, uuid: str) -> Volume:
        """Look a volume up by its name and mark."""
        found = await self._found(uuid)
        if not found:
            raise NotFound(f"there is no volume {uuid}")
        return found[0]

    async def _found(self, uuid: str) -> list[Volume]:
        """All volumes of this installation with a uuid, the first one first."""
        found, by_name = list[tuple[str, Volume]](), {"name": f"{PREFIX}{uuid}"}
        pages = self._volumes().pages("volumes/detail", "volumes", self._storage.page, params=by_name)
        async with aclosing(pages):
            async for items in pages:
                for item in items:
                    volume = _seen(item)
                    ours = volume.mark is not None and volume.mark[:2] == (self._installation, uuid)
                    if ours and item.get("status") not in GONE:
                        found.append((str(item.get("created_at")), volume))
        return [volume for _, volume in sorted(found, key=lambda each: (each[0], each[1].key))]

    # changes

    async def create_volume(self, want: VolumeSpec) -> Volume:
        """Make a volume, empty or from an image, and wait until it is made."""
        return await self._ongoing.run(want.mark.uuid, lambda: self._create_volume(want))

    async def _create_volume(self, want: VolumeSpec) -> Volume:
        found = await self._found(want.mark.uuid)
        if found:
            same_volume(found[0], want)
            for volume in found[1:]:
                await self._remove_volume(volume)
        else:
            order = await self._volume_order(want)
            await self._volumes().call("POST", "volumes", {"volume": order})
        return await self._look_at(want.mark.uuid, lambda volume: volume.state != "building")

    async def _volume_order(self, want: VolumeSpec) -> dict[str, Any]:
        pools = {(zone, kind) for zone in await self._zones() for kind in await self._types()}
        zone, kind = next(((zone, kind) for zone, kind in pools if f"{zone}.{kind}" == want.pool), ("", ""))
        if not zone:
            raise NotFound(f"there is no pool {want.pool}")
        order = {
            "size": want.size_gb,
            "name": f"{PREFIX}{want.mark.uuid}",
            "description": printable(want.name),
            "availability_zone": zone,
            "volume_type": kind,
            "metadata": {MARK_KEY: str(want.mark)},
        }
        if want.image:
            image = want.image
            order["imageRef"] = image if is_id(image) else await named(self._images, "v2/images", "images", image)
        return order

    async def _look_at(self, uuid: str, right: Any) -> Volume:
        return await look_until(lambda: self.get_volume(uuid), right, seconds=self._storage.look_seconds)

    async def delete_volume(self, uuid: str, claim: int | None = None) -> None:
        """Remove a volume that no server uses."""

        async def delete() -> None:
            found = [each for each in await self._found(uuid) if each.mark and claim in (None, each.mark.claim)]
            for volume in found:
                await self._remove_volume(volume)
            for volume in found:
                await look_until(
                    lambda volume=volume: self._is_gone(volume.key),  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                    lambda gone: gone,
                    seconds=self._storage.look_seconds,
                )

        await self._ongoing.run(uuid, delete)

    async def _remove_volume(self, volume: Volume) -> None:
        with suppress(NotFound):
            await self._volumes().call("DELETE", path_of("volumes", volume.key))

    async def _item(self, key: str) -> dict[str, Any]:
        found = (await self._volumes().get(path_of("volumes", key))).get("volume")
        if not isinstance(found, dict):
            raise Transient(f"the answer has no volume {key}")
        return found

    async def _is_gone(self, key: str) -> bool:
        """True once a volume is deleted. Transient if Cinder could not delete it."""
        try:
            item = await self._item(key)
        except NotFound:
            return True
        if item.get("status") == "error_deleting":
            raise Transient(f"volume {key} could not be deleted")
        return item.get("status") == "deleted"

    async def extend_volume(self, uuid: str, size_gb: int) -> Volume:
        """Let a volume grow, attached or not."""

        async def extend() -> Volume:
            volume = await self.get_volume(uuid)
            if volume.size_gb > size_gb:
                raise Conflict(f"volume {uuid} is larger than {size_gb} GiB")
            if volume.size_gb < size_gb:
                action = {"os-extend": {"new_size": size_gb}}
                await self._volumes().call("POST", path_of("volumes", volume.key, "action"), action)
                volume = await self._look_at(uuid, lambda now: now.size_gb >= size_gb or now.state == "error")
            return volume

        return await self._ongoing.run(uuid, extend)

    async def connect(self, uuid: str, node: str) -> Connection:
        """The volume's id, which servers of the cloud can attach."""
        volume = await self.get_volume(uuid)
        return Connection(volume=uuid, protocol=PROTOCOL, address=volume.key)

    # attachments

    async def attached(self, key: str, server: str) -> None:
        """Return once a volume is attached to a server. Transient if it is so no more."""
        await look_until(lambda: self._is_attached(key, server), lambda done: done, seconds=self._storage.look_seconds)

    async def _is_attached(self, key: str, server: str) -> bool:
        item = await self._item(key)
        if item.get("status") in ("available", "error"):
            raise Transient(f"volume {key} could not be attached")
        return item.get("status") == "in-use" and server in _servers_of(item)

    async def is_detaching(self, key: str) -> bool:
        """True for a volume that is being detached, or is so already."""
        return (await self._item(key)).get("status") in ("detaching", "available")


def _servers_of(item: Mapping[str, Any]) -> list[str]:
    return [str(each.get("server_id")) for each in item.get("attachments") or ()]


def _seen(item: Mapping[str, Any]) -> Volume:
    name, passing = str(item.get("name") or ""), "in_use" if _servers_of(item) else "available"
    mark = Mark.parse(str((item.get("metadata") or {}).get(MARK_KEY, "")))
    if mark is not None and name != f"{PREFIX}{mark.uuid}":
        mark = None  # a copy, made by others
    return Volume(
        key=str(item.get("id")),
        mark=mark,
        name=name if mark is None else str(item.get("description") or ""),
        pool=f"{item.get('availability_zone')}.{item.get('volume_type')}",
        size_gb=int(item.get("size") or 0),
        state=STATES.get(str(item.get("status")), passing),  # type: ignore[arg-type]  # a literal of two
    )
