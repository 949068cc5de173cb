"""Images that are made of instances of EC2: what the driver ``ec2`` does with snapshots."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final
from xml.etree import ElementTree

from ..ec2_api import MARK_TAG, UUID_TAG, Ec2Api, mark_of, tagging, tags_of
from ..protocol import Mark, NotFound, Snapshot, SnapshotState

STATES: Final[Mapping[str, SnapshotState]] = {
    "pending": "building",
    "available": "available",
    "invalid": "error",
    "failed": "error",
    "error": "error",
    "deregistered": "deleting",
}
"""States of images."""


def _seen(item: ElementTree.Element) -> Snapshot:
    tags = tags_of(item)
    state = STATES.get(item.findtext("imageState", ""), "building")
    return Snapshot(item.findtext("imageId", ""), mark_of(tags), tags.get("Name", ""), state)


async def images(api: Ec2Api, *filters: Mapping[str, Any]) -> AsyncIterator[list[ElementTree.Element]]:
    """The account's images that have a mark, by the pages of the API."""
    marked = {"Name": "tag-key", "Value": [MARK_TAG]}
    async for tree in api.pages("DescribeImages", {"Owner": ["self"], "Filter": [marked, *filters]}):
        yield list(tree.iterfind("imagesSet/item"))


async def listed(api: Ec2Api) -> list[Snapshot]:
    """All snapshots."""
    return [_seen(item) async for page in images(api) for item in page]


async def of_uuid(api: Ec2Api, installation: str, uuid: str) -> list[tuple[Snapshot, ElementTree.Element]]:
    """The images of a snapshot of an installation."""
    found = []
    async for page in images(api, {"Name": f"tag:{UUID_TAG}", "Value": [uuid]}):
        for item in page:
            snapshot = _seen(item)
            if snapshot.mark is not None and snapshot.mark.installation == installation:
                found.append((snapshot, item))
    return found


async def make(api: Ec2Api, instance: ElementTree.Element, mark: Mark, name: str) -> Snapshot:
    """Begin to make an image of the root volume of an instance, which goes on running. The account's images may have it
    some seconds later. Conflict if they will have it already."""
    root = instance.findtext("rootDeviceName", "")
    devices = [each.findtext("deviceName", "") for each in instance.iterfind("blockDeviceMapping/item")]
    parameters: dict[str, Any] = {
        "InstanceId": instance.findtext("instanceId", ""),
        "Name": f"hostler-{mark.uuid}-{mark.claim}",  # of which an account has one
        "NoReboot": True,
        "TagSpecification": tagging("image", mark, name),
    }
    others = [device for device in devices if device != root]
    if others:  # the volumes of the guest are no part of it
        parameters["BlockDeviceMapping"] = [{"DeviceName": device, "NoDevice": ""} for device in others]
    tree = await api.call("CreateImage", parameters)
    return Snapshot(tree.findtext("imageId", ""), mark, name, "building")


async def remove(api: Ec2Api, installation: str, uuid: str, claim: int | None) -> None:
    """Remove the images of a snapshot with the EBS snapshots that these are made of: in the same call, where the cloud
    knows that, else after it."""
    for snapshot, item in await of_uuid(api, installation, uuid):
        if snapshot.mark is not None and claim in (None, snapshot.mark.claim):
            await _gone(api, "DeregisterImage", {"ImageId": snapshot.key, "DeleteAssociatedSnapshots": True})
            for key in _parts(item):
                await _gone(api, "DeleteSnapshot", {"SnapshotId": key})


def _parts(item: ElementTree.Element) -> Iterable[str]:
    ids = (each.findtext("ebs/snapshotId", "") for each in item.iterfind("blockDeviceMapping/item"))
    return [key for key in ids if key]


async def _gone(api: Ec2Api, action: str, parameters: Mapping[str, Any]) -> None:
    try:
        await api.call(action, parameters)
    except NotFound:
        return
