"""Configurations of virtual machines of VMware: what the calls that make and change them are given."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from pyVmomi import vim

from ..protocol import GuestSpec, NotFound

GIB: Final = 2**30
KIB: Final = 2**10
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class Configured(NamedTuple):
    """Keys in the extra configuration of a machine."""

    mark: str
    name: str
    size: str
    pool: str
    disk: str
    """Followed by the uuid of a volume that the machine was given: the uuid of the volume's disk."""


CONFIGURED: Final = Configured("hostler.mark", "hostler.name", "hostler.size", "hostler.pool", "hostler.disk.")


def printable(name: str) -> str:
    """A user's name, as a configuration can hold it."""
    return _UNPRINTABLE.sub(" ", name)


def new_machine(want: GuestSpec, datastore: str, guest_id: str, networks: Iterable[Any], blank: bool) -> Any:
    """A new machine: ``blank``, with a disk of its own, or a copy of a template, which has one. ``networks``: those of
    its cluster. Its user data is where cloud-init's source VMware looks for it. NotFound for an unknown network."""
    extra = {
        CONFIGURED.mark: str(want.mark),
        CONFIGURED.name: printable(want.name),
        CONFIGURED.size: f"{want.vcpus}x{want.memory_mb}",
    }
    if want.user_data:
        extra["guestinfo.userdata"] = base64.b64encode(want.user_data.encode()).decode()
        extra["guestinfo.userdata.encoding"] = "base64"
    known = {network.name: network for network in networks} if want.networks else {}
    missing = [name for name in want.networks if name not in known]
    if missing:
        raise NotFound(f"the cluster has no network {missing[0]}", field="networks")
    devices = [_card(-201 - number, known[name]) for number, name in enumerate(want.networks)]
    if blank and want.disk_gb:
        devices += new_disk(want.disk_gb * GIB, datastore)
    return vim.vm.ConfigSpec(
        name=f"hostler-{want.mark.uuid}",
        instanceUuid=want.mark.uuid,
        guestId=guest_id if blank else None,
        numCPUs=want.vcpus,
        memoryMB=want.memory_mb,
        files=vim.vm.FileInfo(vmPathName=f"[{datastore}]") if blank else None,
        extraConfig=[vim.option.OptionValue(key=key, value=value) for key, value in extra.items()],
        deviceChange=devices,
    )


def _card(key: int, network: Any) -> Any:
    """A network card on a network, which may be a port group of a distributed switch."""
    card = vim.vm.device.VirtualEthernetCard
    if isinstance(network, vim.dvs.DistributedVirtualPortgroup):
        switch: Any = network.config.distributedVirtualSwitch
        port = vim.dvs.PortConnection(portgroupKey=network.key, switchUuid=switch.uuid)
        backing = card.DistributedVirtualPortBackingInfo(port=port)
    else:
        backing = card.NetworkBackingInfo(deviceName=network.name)
    plugged = vim.vm.device.VirtualDevice.ConnectInfo(startConnected=True, allowGuestControl=True, connected=True)
    device = vim.vm.device.VirtualVmxnet3(key=key, backing=backing, connectable=plugged, addressType="generated")
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=device)


def new_disk(size: int, datastore: str) -> list[Any]:
    """A thin disk of ``size`` bytes with its controller."""
    change = vim.vm.device.VirtualDeviceSpec
    controller = vim.vm.device.ParaVirtualSCSIController(key=-101, busNumber=0, sharedBus="noSharing")
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
        fileName=f"[{datastore}]", diskMode="persistent", thinProvisioned=True
    )
    disk = vim.vm.device.VirtualDisk(
        key=-102, controllerKey=-101, unitNumber=0, capacityInKB=size // KIB, backing=backing
    )
    return [
        change(operation="add", device=controller),
        change(operation="add", fileOperation="create", device=disk),
    ]


def resized(vcpus: int, memory_mb: int) -> Any:
    """The change of a machine to another number of CPUs and amount of memory, which is noted as the size wanted."""
    size = vim.option.OptionValue(key=CONFIGURED.size, value=f"{vcpus}x{memory_mb}")
    return vim.vm.ConfigSpec(numCPUs=vcpus, memoryMB=memory_mb, extraConfig=[size])


def disk_grown(devices: Iterable[Any], size: int) -> list[Any]:
    """The change that lets the first disk of a new machine have at least ``size`` bytes; none if it has them, or there
    is none."""
    disk = next((each for each in devices if isinstance(each, vim.vm.device.VirtualDisk)), None)
    if disk is None or disk.capacityInKB * KIB >= size:
        return []
    disk.capacityInKB = size // KIB
    return [vim.vm.device.VirtualDeviceSpec(operation="edit", device=disk)]
