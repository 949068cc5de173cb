"""Servers and volumes of another OpenStack cloud, as one of its projects uses it. Nodes are availability zones: the
cloud selects the host, and shows no capacity but the quota of the project. Needs the extra ``openstack``.

Nova has no key that joins two creations. A server has a tag with the uuid of its guest, by which it is looked up before
it is made, and the mark in its metadata, both set by the call that makes it; of several that a lost answer left, the
first one counts, and the others are removed."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import trio

from ...placement.types.errors import InvalidValue
from ..http import Http
from ..ongoing import Ongoing, look_until, open_ongoing
from ..openstack_api import (
    MARK_KEY,
    SIZE_KEY,
    ZONE_KEY,
    Account,
    Identity,
    Service,
    Texts,
    is_id,
    named,
    open_account,
    path_of,
    printable,
    room,
    zones_of,
)
from ..protocol import (
    Can,
    Capacity,
    Conflict,
    Connection,
    DriverContext,
    Facts,
    Guest,
    GuestSpec,
    GuestState,
    Mark,
    Node,
    NotFound,
    Page,
    Permanent,
    Power,
    Quota,
    read_options,
)
from ..storage.openstack import KINDS, PROTOCOL, CinderVolumes
from ..storage.openstack import MICROVERSION as VOLUME_MICROVERSION
from ..storage.openstack import TEXTS as VOLUME_TEXTS

MICROVERSION: Final = "2.60"
"""Of Nova 17 (Queens): the oldest with tags of new servers, sizes of flavors in them, and what is used here of
volumes."""
TIMEOUT: Final = 600.0
PREFIX: Final = "hostler-"
LONGEST_USER_DATA: Final = 65_535
"""Characters that Nova takes."""

STATES: Final[Mapping[str, GuestState]] = {
    "ACTIVE": "on",
    "BUILD": "building",
    "ERROR": "error",
    "HARD_REBOOT": "on",
    "MIGRATING": "on",
    "PASSWORD": "on",
    "PAUSED": "paused",
    "REBOOT": "on",
    "REBUILD": "building",
    "RESCUE": "on",
    "RESIZE": "on",
    "REVERT_RESIZE": "on",
    "SHELVED": "off",
    "SHELVED_OFFLOADED": "off",
    "SHUTOFF": "off",
    "SUSPENDED": "paused",
    "VERIFY_RESIZE": "on",
}
"""Status of servers. Those that are deleted are gone, although an administrator is shown them."""
GONE: Final = ("DELETED", "SOFT_DELETED")
STARTS: Final[Mapping[str, str]] = {
    "PAUSED": "unpause",
    "SHELVED": "unshelve",
    "SHELVED_OFFLOADED": "unshelve",
    "SUSPENDED": "resume",
}
"""Action by which a server of that status runs; others are started."""
TEXTS: Final[Texts] = (
    (re.compile(r"no valid host|exceeded max scheduling|insufficient (compute )?resources", re.IGNORECASE), Capacity),
    (re.compile(r"quota", re.IGNORECASE), Quota),
    (re.compile(r"policy doesn't allow", re.IGNORECASE), Permanent),  # of this operation, with good credentials
    (re.compile(r"invalid volume|already attached|not available|while it is in|is locked", re.IGNORECASE), Conflict),
    (re.compile(r"could not be found|can not find|unable to find", re.IGNORECASE), NotFound),
)
"""What messages of Nova, Glance and Neutron say, where the status says less."""


class Options(Account, kw_only=True, forbid_unknown_fields=True):
    """Options: ``flavors`` to use with their price per hour (default: all that the project sees, at no price): of those
    that a guest fits on, the cheapest is taken, and of these the smallest. ``zones`` (default: all), each with limits
    of ``zone_vcpus``, ``zone_memory_mb`` and ``zone_disk_gb`` beside the quota of the project. ``key_name`` and
    ``security_groups`` of new servers, and what ``network`` those have that name none. ``volume_types`` whose volumes
    are made (default: all; none: no volumes), with at most ``pool_gb`` of each in a zone, beside the quota.
    ``wait_seconds`` for a server that is soon built, where it is to be stopped then."""

    flavors: dict[str, float] | None = None
    zones: list[str] | None = None
    zone_vcpus: Annotated[int, msgspec.Meta(ge=0)] | None = None
    zone_memory_mb: Annotated[int, msgspec.Meta(ge=0)] | None = None
    zone_disk_gb: Annotated[int, msgspec.Meta(ge=0)] = 65_536
    key_name: str | None = None
    security_groups: tuple[str, ...] = ()
    network: str = "auto"
    volume_types: list[str] | None = None
    pool_gb: Annotated[int, msgspec.Meta(ge=0)] | None = None
    wait_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    look_seconds: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class Flavor(NamedTuple):
    """A size of servers. A ``disk_gb`` of 0 stands for the size of the image."""

    price: float
    vcpus: int
    memory_mb: int
    disk_gb: int
    name: str
    key: str


class Cloud(NamedTuple):
    """The services of a cloud. ``volume`` is None where it has none, or none is wanted."""

    compute: Service
    image: Service
    network: Service
    volume: Service | None


class OpenStackDriver(CinderVolumes):
    """A project of a cloud: a driver of compute, and of storage where the cloud has volumes."""

    def __init__(self, cloud: Cloud, options: Options, installation: str, ongoing: Ongoing) -> None:
        super().__init__(cloud.volume, options, installation, ongoing, cloud.image)
        self._nova, self._cloud, self._settings = cloud.compute, cloud, options
        self._flavors: list[Flavor] = []
        can = Can.COMPUTE | Can.CHOOSES_HOST
        if cloud.volume is not None:
            can |= Can.ATTACH | Can.STORAGE
        self.facts = Facts("openstack", MICROVERSION, can, options.poll, options.concurrency, TIMEOUT)

    async def check(self) -> None:
        """Ask for the limits of the project."""
        await self._nova.get("limits")

    async def learn_flavors(self) -> None:
        """Ask for the flavors. Permanent if one that is configured does not exist."""
        prices, found = self._settings.flavors, list[Flavor]()
        async with aclosing(self._nova.pages("flavors/detail", "flavors", self._settings.page)) as pages:
            async for items in pages:
                for item in items:
                    name = str(item.get("name"))
                    if not item.get("OS-FLV-DISABLED:disabled") and (prices is None or name in prices):
                        found.append(_flavor(item, 0.0 if prices is None else prices[name]))
        missing = set(prices or ()) - {each.name for each in found}
        if missing:
            raise Permanent(f"there is no flavor {min(missing)}", field="options.flavors")
        self._flavors = sorted(found)

    # what there is

    async def nodes(self) -> AsyncIterator[Page[Node]]:
        """The zones, with what all servers of the project in them take, and what its quota leaves beside it."""
        options, guests = self._settings, [guest async for page in self.guests() for guest in page.items]
        limits = (await self._nova.get("limits")).get("limits", {}).get("absolute", {})
        if 0 <= int(limits.get("maxTotalInstances", -1)) <= int(limits.get("totalInstancesUsed", 0)):
            limits = {**limits, "maxTotalCores": 0, "maxTotalRAMSize": 0}  # no server more, of whatever size
        await self.learn_flavors()
        nodes = []
        for zone, up in (await self._compute_zones()).items():
            here = [guest for guest in guests if guest.node == zone]
            vcpus, memory_mb = sum(guest.vcpus for guest in here), sum(guest.memory_mb for guest in here)
            total_vcpus = room(vcpus, limits, "maxTotalCores", "totalCoresUsed", options.zone_vcpus, 1_024)
            total_mb = room(memory_mb, limits, "maxTotalRAMSize", "totalRAMUsed", options.zone_memory_mb, 4_194_304)
            size = total_vcpus, total_mb, options.zone_disk_gb
            nodes.append(Node(zone, *size, vcpus, memory_mb, state="up" if up else "down", hypervisor="OpenStack"))
        yield Page(tuple(nodes))

    async def _compute_zones(self) -> dict[str, bool]:
        """The zones in use, and whether each is available."""
        return zones_of(await self._nova.get("os-availability-zone"), self._settings.zones)

    async def guests(self) -> AsyncIterator[Page[Guest]]:
        """All servers of the project."""
        volumes = await self.uuids_by_key()
        async with aclosing(self._nova.pages("servers/detail", "servers", self._settings.page)) as pages:
            async for items in pages:
                yield Page(tuple(_seen(item, volumes) for item in items if item.get("status") not in GONE))

    async def get_guest(self, uuid: str) -> Guest:
        """Look a server up by its tag."""
        return await self._as_guest(await self._server(uuid))

    async def _as_guest(self, item: Mapping[str, Any]) -> Guest:
        return _seen(item, await self.uuids_by_key() if _attached(item) else {})

    async def _server(self, uuid: str) -> dict[str, Any]:
        """The server of a guest of this installation. NotFound if there is none."""
        found = await self._servers(uuid)
        if not found:
            raise NotFound(f"there is no server of guest {uuid}")
        return found[0]

    async def _servers(self, uuid: str) -> list[dict[str, Any]]:
        """All servers of a guest, the first one first."""
        found, tag = list[dict[str, Any]](), {"tags": f"{PREFIX}{uuid}"}
        async with aclosing(self._nova.pages("servers/detail", "servers", self._settings.page, params=tag)) as pages:
            async for items in pages:
                for item in items:
                    mark = _mark_of(item)
                    ours = mark is not None and mark[:2] == (self._installation, uuid)
                    if ours and item.get("status") not in GONE:
                        found.append(item)
        return sorted(found, key=lambda item: (str(item.get("created")), str(item.get("id"))))

    # changes

    async def create_guest(self, want: GuestSpec) -> Guest:
        """Make a server of the cheapest flavor that the guest fits on, with its volumes attached."""
        return await self._ongoing.run(want.mark.uuid, lambda: self._create(want))

    async def _create(self, want: GuestSpec) -> Guest:
        uuid, found = want.mark.uuid, await self._servers(want.mark.uuid)
        if found:
            wanted = {MARK_KEY: str(want.mark), SIZE_KEY: _size(want), ZONE_KEY: want.node}
            if not wanted.items() <= (found[0].get("metadata") or {}).items():
                raise Conflict(f"guest {uuid} exists with another claim, zone or size")
            await self._remove(found[1:])
        else:
            order = await self._order(want)
            secrets = [order["user_data"]] if want.user_data else []
            await self._nova.call("POST", "servers", {"server": order}, secrets=secrets)
        server = await self._server(uuid)
        if want.power == "off":
            with trio.move_on_after(self._settings.wait_seconds):
                server = await self._look(uuid, ("BUILD",))
            if server.get("status") == "ACTIVE":
                await self._act(server, "os-stop")
                server = await self._server(uuid)
        return await self._as_guest(server)

    async def _look(self, uuid: str, unlike: tuple[str, ...]) -> dict[str, Any]:
        return await look_until(
            lambda: self._server(uuid),
            lambda item: str(item.get("status")) not in unlike,
            seconds=self._settings.look_seconds,
        )

    async def _order(self, want: GuestSpec) -> dict[str, Any]:
        """What a new server is to be. NotFound and Permanent if the cloud has nothing like it."""
        if want.node not in await self._compute_zones():
            raise NotFound(f"there is no zone {want.node}")
        if not want.image and not want.volumes:
            raise Permanent("a server needs an image or a volume to boot from", field="image")
        settings = self._settings
        order: dict[str, Any] = {
            "name": printable(want.name) or f"{PREFIX}{want.mark.uuid}",
            "flavorRef": self._cheapest(want).key,
            "availability_zone": want.node,
            "tags": [f"{PREFIX}{want.mark.uuid}"],
            "metadata": {MARK_KEY: str(want.mark), SIZE_KEY: _size(want), ZONE_KEY: want.node},
            "networks": [await self._network(name) for name in want.networks] or settings.network,
        }
        if want.image:
            image = want.image
            order["imageRef"] = image if is_id(image) else await named(self._cloud.image, "v2/images", "images", image)
        if want.volumes:
            first = -1 if want.image else 0
            order["block_device_mapping_v2"] = [
                {
                    "uuid": _id_of_volume(volume),
                    "source_type": "volume",
                    "destination_type": "volume",
                    "boot_index": first if number == 0 else -1,
                    "delete_on_termination": False,
                }
                for number, volume in enumerate(want.volumes)
            ]
        if want.user_data:
            order["user_data"] = base64.b64encode(want.user_data.encode()).decode()
            if len(order["user_data"]) > LONGEST_USER_DATA:
                raise Permanent(f"user data has more than {LONGEST_USER_DATA} characters in base64", field="user_data")
        if settings.key_name is not None:
            order["key_name"] = settings.key_name
        if settings.security_groups:
            order["security_groups"] = [{"name": name} for name in settings.security_groups]
        return order

    async def _network(self, name: str) -> dict[str, str]:
        found = name if is_id(name) else await named(self._cloud.network, "v2.0/networks", "networks", name)
        return {"uuid": found}

    def _cheapest(self, want: GuestSpec) -> Flavor:
        """The flavor for a guest. Permanent if it fits on none."""
        for each in self._flavors:
            has_disk = each.disk_gb >= want.disk_gb or (not want.image and bool(want.volumes))
            if each.vcpus >= want.vcpus and each.memory_mb >= want.memory_mb and has_disk:
                return each
        raise Permanent(f"no flavor has {want.vcpus} vCPUs, {want.memory_mb} MiB and {want.disk_gb} GiB")

    async def _act(self, server: Mapping[str, Any], action: str) -> None:
        await self._nova.call("POST", path_of("servers", str(server.get("id")), "action"), {action: None})

    async def set_power(self, uuid: str, want: Power) -> Guest:
        """Start or stop a server; it takes a while to be so."""
        return await self._ongoing.run(uuid, lambda: self._set_power(uuid, want))

    async def _set_power(self, uuid: str, want: Power) -> Guest:
        server = await self._server(uuid)
        status = str(server.get("status"))
        if STATES.get(status) != want and server.get("OS-EXT-STS:task_state") is None:
            await self._act(server, STARTS.get(status, "os-start") if want == "on" else "os-stop")
        return await self.get_guest(uuid)

    async def delete_guest(self, uuid: str, claim: int | None = None) -> None:
        """Delete the servers of a guest; their volumes stay."""
        await self._ongoing.run(uuid, lambda: self._delete(uuid, claim))

    async def _delete(self, uuid: str, claim: int | None) -> None:
        found = [item for item in await self._servers(uuid) if claim in (None, _claim_of(item))]
        await self._remove(found)
        gone = {item.get("id") for item in found}
        await look_until(
            lambda: self._servers(uuid),
            lambda left: gone.isdisjoint(item.get("id") for item in left),
            seconds=self._settings.look_seconds,
        )

    async def _remove(self, items: Iterable[Mapping[str, Any]]) -> None:
        for item in items:
            if item.get("OS-EXT-STS:task_state") != "deleting":
                with suppress(NotFound):
                    await self._nova.call("DELETE", path_of("servers", str(item.get("id"))))

    # volumes

    async def attach(self, uuid: str, volume: Connection) -> None:
        """Attach a volume of the cloud, and wait until it is."""
        await self._ongoing.run(uuid, lambda: self._attach(uuid, volume))

    async def _attach(self, uuid: str, volume: Connection) -> None:
        key, server = _id_of_volume(volume), await self._server(uuid)
        if key not in _attached(server):
            path = path_of("servers", str(server.get("id")), "os-volume_attachments")
            await self._nova.call("POST", path, {"volumeAttachment": {"volumeId": key}})
        await self.attached(key, str(server.get("id")))

    async def detach(self, uuid: str, volume: str) -> bool:
        """Detach a volume, which the server may take its time for."""
        return await self._ongoing.run(uuid, lambda: self._detach(uuid, volume))

    async def _detach(self, uuid: str, volume: str) -> bool:
        server, ours = await self._server(uuid), await self.uuids_by_key()
        for key in _attached(server):
            if ours.get(key) == volume:
                if not await self.is_detaching(key):
                    path = path_of("servers", str(server.get("id")), "os-volume_attachments", key)
                    with suppress(NotFound):
                        await self._nova.call("DELETE", path)
                return key not in _attached(await self._server(uuid))
        return True


# Values of the API.


def _flavor(item: Mapping[str, Any], price: float) -> Flavor:
    size = int(item.get("vcpus") or 0), int(item.get("ram") or 0), int(item.get("disk") or 0)
    return Flavor(price, *size, str(item.get("name")), str(item.get("id")))


def _size(want: GuestSpec) -> str:
    return f"{want.vcpus}x{want.memory_mb}x{want.disk_gb}"


def _mark_of(item: Mapping[str, Any]) -> Mark | None:
    """The mark in a server's metadata, which must agree with its tag: a server made from its snapshot has none."""
    mark = Mark.parse(str((item.get("metadata") or {}).get(MARK_KEY, "")))
    return mark if mark is not None and f"{PREFIX}{mark.uuid}" in (item.get("tags") or ()) else None


def _claim_of(item: Mapping[str, Any]) -> int | None:
    mark = _mark_of(item)
    return None if mark is None else mark.claim


def _attached(item: Mapping[str, Any]) -> list[str]:
    """Ids of the volumes of a server."""
    return [str(each.get("id")) for each in item.get("os-extended-volumes:volumes_attached") or ()]


def _id_of_volume(volume: Connection) -> str:
    if volume.protocol != PROTOCOL:
        raise Permanent(f"OpenStack attaches volumes of its own, no {volume.protocol}")
    return volume.address


def _seen(item: Mapping[str, Any], volumes: Mapping[str, str]) -> Guest:
    status, metadata, flavor = str(item.get("status")), item.get("metadata") or {}, item.get("flavor") or {}
    leaving = item.get("OS-EXT-STS:task_state") == "deleting"
    mark = _mark_of(item)
    zone = item.get("OS-EXT-AZ:availability_zone") or ("" if mark is None else metadata.get(ZONE_KEY))
    return Guest(
        key=str(item.get("id")),
        mark=mark,
        name=str(item.get("name")),
        node=str(zone or ""),
        state="deleting" if leaving else STATES.get(status, "error"),
        vcpus=int(flavor.get("vcpus") or 0),
        memory_mb=int(flavor.get("ram") or 0),
        volumes=tuple(sorted(volumes[key] for key in _attached(item) if key in volumes)),
    )


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[OpenStackDriver]:
    """A project of a cloud, with its flavors."""
    settings = read_options(options, Options)
    if settings.auth_url is None:
        raise InvalidValue("auth_url is needed", field="options.auth_url")
    async with open_account(settings) as (http, identity), open_ongoing(TIMEOUT) as ongoing:
        assert identity is not None
        driver = OpenStackDriver(await _cloud(http, identity, settings), settings, context.installation, ongoing)
        await driver.check()
        await driver.learn_flavors()
        yield driver


async def _cloud(http: Http, identity: Identity, options: Options) -> Cloud:
    """The services of the catalog. Permanent if it lacks one that is needed."""

    def service(*kinds: str, microversion: str = "", texts: Texts = TEXTS) -> Service:
        headers = {"OpenStack-API-Version": microversion} if microversion else {}
        return Service(http, identity, None, kinds, headers=headers, texts=texts)

    volume: Service | None = service(*KINDS, microversion=VOLUME_MICROVERSION, texts=VOLUME_TEXTS)
    if options.volume_types is None:  # where the cloud has any
        try:
            await identity.endpoint(KINDS)
        except Permanent:
            volume = None
    elif not options.volume_types:
        volume = None
    compute = service("compute", microversion=f"compute {MICROVERSION}")
    return Cloud(compute, service("image"), service("network"), volume)
