"""Instances of EC2 and of clouds with its API. Nodes are availability zones: the cloud selects the host, and shows no
capacity, so each zone has the limits of its options. Needs the extra ``ec2``."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Annotated, Any, Final, NamedTuple
from xml.etree import ElementTree

import msgspec
import trio

from ..ec2_api import MARK_TAG, UUID_TAG, VERSION, Account, Ec2Api, id_of, mark_of, open_api, tagging, tags_of
from ..ongoing import Ongoing, look_until, open_ongoing
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
    Snapshot,
    read_options,
)
from . import ec2_images

TIMEOUT: Final = 300.0
TYPES_A_CALL: Final = 100
LOOK_SECONDS: Final = 1.0
"""Between two looks at an instance that is being built."""

STATES: Final[Mapping[str, GuestState]] = {
    "pending": "building",
    "running": "on",
    "stopping": "on",
    "stopped": "off",
}
"""States of instances. Those that are shutting down or terminated are gone, although they are listed for a while."""
ALIVE: Final = {"Name": "instance-state-name", "Value": sorted(STATES)}
DEVICES: Final = tuple(f"/dev/sd{letter}" for letter in "fghijklmnop")
"""Names that EC2 recommends for volumes."""
TAKEN: Final = re.compile(r"attachment point \S+ is already in use", re.IGNORECASE)
"""Text of the error for a device name that another volume has."""


class Options(Account, kw_only=True, forbid_unknown_fields=True):
    """Options: ``types``, the instance types to use with their price per hour: of those that a guest fits on, the
    cheapest is taken. ``zones`` (default: all of the region), each with limits of ``zone_vcpus``, ``zone_memory_mb``
    and ``zone_disk_gb``, which the cloud does not tell. The ``key_name`` and ``security_groups`` of new instances."""

    types: Annotated[dict[str, float], msgspec.Meta(min_length=1)]
    zones: list[str] | None = None
    zone_vcpus: Annotated[int, msgspec.Meta(ge=0)] = 1_024
    zone_memory_mb: Annotated[int, msgspec.Meta(ge=0)] = 4_194_304
    zone_disk_gb: Annotated[int, msgspec.Meta(ge=0)] = 65_536
    key_name: str | None = None
    security_groups: tuple[str, ...] = ()


class InstanceType(NamedTuple):
    """A size of instances; ``zones`` that offer it, empty where that was not asked."""

    name: str
    vcpus: int
    memory_mb: int
    zones: frozenset[str] = frozenset()


class Ec2Driver:
    """A region of an account."""

    def __init__(self, api: Ec2Api, options: Options, installation: str, ongoing: Ongoing) -> None:
        self._api, self._options, self._installation, self._ongoing = api, options, installation, ongoing
        self._types: dict[str, InstanceType] = {}
        can = Can.COMPUTE | Can.SNAPSHOT | Can.ATTACH | Can.CHOOSES_HOST | Can.NATIVE_KEY
        self.facts = Facts("ec2", VERSION, can, options.poll, options.concurrency, TIMEOUT)

    async def check(self) -> None:
        """Ask for the zones."""
        await self._api.zones(self._options.zones)

    async def learn_types(self) -> None:
        """Ask for sizes of the configured types, and where they are offered. Permanent if one does not exist."""
        offered: dict[str, set[str]] = {name: set() for name in self._options.types}
        named = [{"Name": "instance-type", "Value": sorted(offered)}]
        where = {"LocationType": "availability-zone", "Filter": named}
        async for tree in self._api.pages("DescribeInstanceTypeOfferings", where):
            for item in tree.iterfind("instanceTypeOfferingSet/item"):
                offered.setdefault(item.findtext("instanceType", ""), set()).add(item.findtext("location", ""))
        await self._learn(sorted(self._options.types))
        for name in self._options.types:
            self._types[name] = self._types[name]._replace(zones=frozenset(offered[name]))

    async def _learn(self, names: Iterable[str]) -> None:
        """Ask for the sizes of types that are not known yet."""
        new = [name for name in names if name and name not in self._types]
        for first in range(0, len(new), TYPES_A_CALL):
            tree = await self._api.call("DescribeInstanceTypes", {"InstanceType": new[first : first + TYPES_A_CALL]})
            for item in tree.iterfind("instanceTypeSet/item"):
                name = item.findtext("instanceType", "")
                vcpus, memory = item.findtext("vCpuInfo/defaultVCpus", "0"), item.findtext("memoryInfo/sizeInMiB", "0")
                self._types[name] = InstanceType(name, int(vcpus), int(memory))
        for name in new:
            if name not in self._types:
                raise Permanent(f"there is no instance type {name}", field="options.types")

    # what there is

    async def nodes(self) -> AsyncIterator[Page[Node]]:
        """The zones, with what all instances of the account in them use."""
        options, guests = self._options, [guest async for page in self.guests() for guest in page.items]
        nodes = []
        for zone, up in (await self._api.zones(self._options.zones)).items():
            here = [guest for guest in guests if guest.node == zone and guest.state != "off"]
            used = sum(guest.vcpus for guest in here), sum(guest.memory_mb for guest in here)
            limits = options.zone_vcpus, options.zone_memory_mb, options.zone_disk_gb
            nodes.append(Node(zone, *limits, *used, state="up" if up else "down", hypervisor="EC2"))
        yield Page(tuple(nodes))

    async def guests(self) -> AsyncIterator[Page[Guest]]:
        """All instances that are not terminated, by the pages of the API."""
        volumes = await self._volumes_by_key([{"Name": "status", "Value": ["in-use"]}])
        async with aclosing(self._api.pages("DescribeInstances", {"Filter": [ALIVE]})) as pages:
            async for tree in pages:
                items = list(tree.iterfind("reservationSet/item/instancesSet/item"))
                await self._learn({item.findtext("instanceType", "") for item in items})
                yield Page(tuple(self._seen(item, volumes) for item in items))

    async def _volumes_by_key(self, filters: list[dict[str, Any]]) -> dict[str, str]:
        """The uuids of this installation's volumes, by their ids on the back end."""
        found, ours = {}, {"Name": f"tag:{MARK_TAG}", "Value": [f"hostler:{self._installation}:*"]}
        async for tree in self._api.pages("DescribeVolumes", {"Filter": [ours, *filters]}):
            for item in tree.iterfind("volumeSet/item"):
                found[item.findtext("volumeId", "")] = tags_of(item).get(UUID_TAG, "")
        return found

    def _seen(self, item: ElementTree.Element, volumes: Mapping[str, str]) -> Guest:
        tags, size = tags_of(item), self._types[item.findtext("instanceType", "")]
        return Guest(
            key=item.findtext("instanceId", ""),
            mark=mark_of(tags),
            name=tags.get("Name", ""),
            node=item.findtext("placement/availabilityZone", ""),
            state=STATES.get(item.findtext("instanceState/name", ""), "deleting"),
            vcpus=size.vcpus,
            memory_mb=size.memory_mb,
            volumes=tuple(sorted(volumes[key] for key in _attached(item) if key in volumes)),
        )

    async def get_guest(self, uuid: str) -> Guest:
        """Look an instance up by its tags."""
        return await self._as_guest(await self._instance(uuid))

    async def _as_guest(self, item: ElementTree.Element) -> Guest:
        await self._learn([item.findtext("instanceType", "")])
        keys, volumes = list(_attached(item)), dict[str, str]()
        if len(keys) > 1:  # the root volume is always there, and has no mark
            volumes = await self._volumes_by_key([{"Name": "volume-id", "Value": keys}])
        return self._seen(item, volumes)

    async def _instance(self, uuid: str) -> ElementTree.Element:
        """The instance of a guest of this installation. NotFound if there is none."""
        found = await self._instances(uuid)
        if not found:
            raise NotFound(f"there is no instance of guest {uuid}")
        return found[0]

    async def _instances(self, uuid: str) -> list[ElementTree.Element]:
        """All instances of a guest, the first one first: there are several where the cloud ignores client tokens."""
        found, by_uuid = list[ElementTree.Element](), {"Name": f"tag:{UUID_TAG}", "Value": [uuid]}
        async for tree in self._api.pages("DescribeInstances", {"Filter": [by_uuid, ALIVE]}):
            for item in tree.iterfind("reservationSet/item/instancesSet/item"):
                mark = mark_of(tags_of(item))
                if mark is not None and mark.installation == self._installation:
                    found.append(item)
        return sorted(found, key=lambda item: (item.findtext("launchTime", ""), item.findtext("instanceId", "")))

    # changes

    async def create_guest(self, want: GuestSpec) -> Guest:
        """Run an instance of the cheapest type that the guest fits on."""
        return await self._ongoing.run(want.mark.uuid, lambda: self._create(want))

    async def _create(self, want: GuestSpec) -> Guest:
        for volume in want.volumes:
            _check_protocol(volume)
        if len(want.volumes) > len(DEVICES):
            raise Permanent(f"an instance is given at most {len(DEVICES)} volumes", field="volumes")
        found = await self._instances(want.mark.uuid)
        if found:
            guest = await self._as_guest(found[0])
            kind = self._cheapest(want)
            if (guest.mark, guest.node) != (want.mark, want.node) or found[0].findtext("instanceType") != kind:
                raise Conflict(f"guest {want.mark.uuid} exists with another claim, zone or size")
            await self._terminate(found[1:])
        else:
            guest = await self._as_guest(await self._run_instance(want))
        while guest.state == "building" and (want.power == "off" or want.volumes):
            with suppress(NotFound):  # listings may be some seconds behind
                guest = await self.get_guest(want.mark.uuid)
            if guest.state == "building":
                await trio.sleep(LOOK_SECONDS)
        given = list[str]()
        for volume in want.volumes:
            given.append(await self._attach(want.mark.uuid, volume, given))
        if want.power == "off" and guest.state == "on":
            await self._api.call("StopInstances", {"InstanceId": [guest.key]})
        return await self.get_guest(want.mark.uuid) if want.volumes or want.power == "off" else guest

    def _cheapest(self, want: GuestSpec) -> str | None:
        """The type for a guest; None if it fits on none."""
        options = self._options
        fit = [
            (price, name)
            for name, price in options.types.items()
            if self._types[name].vcpus >= want.vcpus and self._types[name].memory_mb >= want.memory_mb
        ]
        offered = [each for each in fit if want.node in self._types[each[1]].zones]
        return min(offered or fit)[1] if fit else None

    async def _run_instance(self, want: GuestSpec) -> ElementTree.Element:
        kind = self._cheapest(want)
        if kind is None:
            raise Permanent(f"no configured instance type has {want.vcpus} vCPUs and {want.memory_mb} MiB")
        if want.node not in self._types[kind].zones:
            raise Capacity(f"zone {want.node} does not offer {kind}")
        parameters: dict[str, Any] = {
            "ImageId": id_of(want.image, "ami"),
            "InstanceType": kind,
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": hashlib.sha256(str(want.mark).encode()).hexdigest(),
            "Placement": {"AvailabilityZone": want.node},
            "TagSpecification": tagging("instance", want.mark, want.name),
        }
        if self._options.key_name is not None:
            parameters["KeyName"] = self._options.key_name
        if want.user_data:
            parameters["UserData"] = base64.b64encode(want.user_data.encode()).decode()
        if want.networks:
            parameters["NetworkInterface"] = [
                {
                    "DeviceIndex": number,
                    "SubnetId": id_of(subnet, "subnet"),
                    "SecurityGroupId": self._options.security_groups,
                }
                for number, subnet in enumerate(want.networks)
            ]
        elif self._options.security_groups:
            parameters["SecurityGroupId"] = self._options.security_groups
        if want.disk_gb:
            parameters["BlockDeviceMapping"] = [await self._root(want)]
        tree = await self._api.call("RunInstances", parameters)
        item = tree.find("instancesSet/item")
        if item is None or item.findtext("instanceState/name") not in STATES:
            raise Conflict(f"guest {want.mark.uuid} was made for this claim before, and is terminated")
        return item

    async def _root(self, want: GuestSpec) -> dict[str, Any]:
        """The root volume: as large as the guest's disk, and at least as its image."""
        tree = await self._api.call("DescribeImages", {"ImageId": [want.image]})
        device = tree.findtext("imagesSet/item/rootDeviceName", "/dev/sda1")
        sizes = [
            int(each.findtext("ebs/volumeSize", "0"))
            for each in tree.iterfind("imagesSet/item/blockDeviceMapping/item")
            if each.findtext("deviceName") == device
        ]
        ebs = {"VolumeSize": max([want.disk_gb, *sizes]), "DeleteOnTermination": True}
        return {"DeviceName": device, "Ebs": ebs}

    async def _terminate(self, items: Iterable[ElementTree.Element]) -> None:
        keys = [item.findtext("instanceId", "") for item in items]
        if keys:
            with suppress(NotFound):
                await self._api.call("TerminateInstances", {"InstanceId": keys})

    async def set_power(self, uuid: str, want: Power) -> Guest:
        """Start or stop an instance; it takes a while to be so."""
        return await self._ongoing.run(uuid, lambda: self._set_power(uuid, want))

    async def _set_power(self, uuid: str, want: Power) -> Guest:
        item = await self._instance(uuid)
        state = item.findtext("instanceState/name")
        if state not in (("pending", "running") if want == "on" else ("stopping", "stopped")):
            action = "StartInstances" if want == "on" else "StopInstances"
            await self._api.call(action, {"InstanceId": [item.findtext("instanceId", "")]})
        return await self.get_guest(uuid)

    async def delete_guest(self, uuid: str, claim: int | None = None) -> None:
        """Terminate the instances of a guest."""
        await self._ongoing.run(uuid, lambda: self._delete(uuid, claim))

    async def _delete(self, uuid: str, claim: int | None) -> None:
        found = await self._instances(uuid)
        await self._terminate(item for item in found if claim in (None, _claim(mark_of(tags_of(item)))))

    # snapshots

    async def snapshots(self) -> AsyncIterator[Page[Snapshot]]:
        """The images of the account that have a mark."""
        yield Page(tuple(await ec2_images.listed(self._api)))

    async def get_snapshot(self, uuid: str) -> Snapshot:
        """Look an image up by its tags."""
        found = await ec2_images.of_uuid(self._api, self._installation, uuid)
        if not found:
            raise NotFound(f"there is no image of snapshot {uuid}")
        return found[0][0]

    async def snapshot_guest(self, guest: str, mark: Mark, name: str) -> Snapshot:
        """Make an image of the root volume of an instance, while it goes on."""
        return await self._ongoing.run(mark.uuid, lambda: self._snapshot(guest, mark, name))

    async def _snapshot(self, guest: str, mark: Mark, name: str) -> Snapshot:
        with suppress(NotFound):
            made = await self.get_snapshot(mark.uuid)
            if made.mark != mark:
                raise Conflict(f"snapshot {mark.uuid} exists with another claim")
            return made

        async def make() -> Snapshot:
            return await ec2_images.make(self._api, await self._instance(guest), mark, name)

        return await self._ongoing.run(guest, make)  # no volume is attached meanwhile, which would be copied

    async def delete_snapshot(self, uuid: str, claim: int | None = None) -> None:
        """Remove an image with its EBS snapshots."""
        await self._ongoing.run(uuid, lambda: ec2_images.remove(self._api, self._installation, uuid, claim))

    # volumes

    async def attach(self, uuid: str, volume: Connection) -> None:
        """Attach an EBS volume, and wait until it is."""
        await self._ongoing.run(uuid, lambda: self._attach(uuid, volume))

    async def _attach(self, uuid: str, volume: Connection, given: Sequence[str] = ()) -> str:
        """Returns the device name, which is none of those that were ``given`` to volumes before: the instance may be
        listed without these for some seconds."""
        _check_protocol(volume)
        item, key = await self._instance(uuid), volume.address
        device = _attached(item).get(key, "")
        if not device:
            free = [name for name in DEVICES if name not in {*_attached(item).values(), *given}]
            if not free:
                raise Permanent(f"guest {uuid} has no free device name")
            device, instance = free[0], item.findtext("instanceId", "")
            try:
                await self._api.call("AttachVolume", {"VolumeId": key, "InstanceId": instance, "Device": device})
            except Permanent as error:
                if TAKEN.search(error.text):  # by a volume that the instance is not listed with yet
                    raise Conflict(error.text, backend_code=error.backend_code) from error
                raise
        await look_until(lambda: self._attachment(key), lambda status: status == "attached")
        return device

    async def detach(self, uuid: str, volume: str) -> bool:
        """Detach a volume, which the instance may take its time for."""
        return await self._ongoing.run(uuid, lambda: self._detach(uuid, volume))

    async def _detach(self, uuid: str, volume: str) -> bool:
        instance = (await self._instance(uuid)).findtext("instanceId", "")
        # What attaching has waited for: the instance may be listed without the volume for some seconds.
        here = [{"Name": "attachment.instance-id", "Value": [instance]}]
        for key, found in (await self._volumes_by_key(here)).items():
            if found == volume:
                if await self._attachment(key) not in (None, "detaching"):
                    # Some clouds need the instance beside the volume.
                    await self._api.call("DetachVolume", {"VolumeId": key, "InstanceId": instance})
                return await self._attachment(key) is None
        return True

    async def _attachment(self, key: str) -> str | None:
        tree = await self._api.call("DescribeVolumes", {"VolumeId": [key]})
        return tree.findtext("volumeSet/item/attachmentSet/item/status")


def _check_protocol(volume: Connection) -> None:
    if volume.protocol != "ebs":
        raise Permanent(f"EC2 attaches EBS volumes, no {volume.protocol}")


def _attached(item: ElementTree.Element) -> dict[str, str]:
    """Volumes of an instance by id, with their device names."""
    return {
        each.findtext("ebs/volumeId", ""): each.findtext("deviceName", "")
        for each in item.iterfind("blockDeviceMapping/item")
    }


def _claim(mark: Mark | None) -> int | None:
    return None if mark is None else mark.claim


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[Ec2Driver]:
    """A region, with the sizes of the configured instance types."""
    settings = read_options(options, Options)
    async with open_api(settings) as api, open_ongoing(TIMEOUT) as ongoing:
        driver = Ec2Driver(api, settings, context.installation, ongoing)
        await driver.learn_types()
        yield driver
