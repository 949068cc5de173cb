"""Templates that are made of guests on a vCenter: what the driver ``vsphere`` does with snapshots. The calls that make
them set their uuid and mark, as those that make guests do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from pyVmomi import vim

from ..protocol import Mark, Permanent, Snapshot
from .vsphere_reading import extra_of, volumes_among
from .vsphere_specs import CONFIGURED, printable

NAME: Final = "hostler-snapshot-"
"""What the names of these templates begin with; uuid and claim follow."""


def name_of(mark: Mark) -> str:
    """The name of the template of a mark."""
    return f"{NAME}{mark.uuid}-{mark.claim}"


def seen(mark: Mark, name: str) -> Snapshot:
    """A template that is there."""
    return Snapshot(key=name_of(mark), mark=mark, name=name, state="available")


def begin(machine: Any, folder: Callable[[], Any], mark: Mark, name: str) -> Any:
    """Begin to copy a machine to a template; returns the task."""
    extra = {CONFIGURED.mark: str(mark), CONFIGURED.name: printable(name), CONFIGURED.size: ""}
    values = [vim.option.OptionValue(key=key, value=value) for key, value in extra.items()]
    present = machine.config
    volumes = volumes_among(present.hardware.device, extra_of(present))
    notes = [key for key in extra_of(present) if key.startswith(CONFIGURED.disk)]
    values += [vim.option.OptionValue(key=key, value="") for key in notes]
    without = [vim.vm.device.VirtualDeviceSpec(operation="remove", device=each) for each, _ in volumes]
    config = vim.vm.ConfigSpec(instanceUuid=mark.uuid, extraConfig=values, deviceChange=without)
    copy = vim.vm.CloneSpec(location=vim.vm.RelocateSpec(), config=config, powerOn=False, template=True)
    return machine.CloneVM_Task(folder=folder(), name=name_of(mark), spec=copy)


async def check_disk(config: Awaitable[Any], uuid: str) -> None:
    """Permanent for a machine without a disk of its own."""
    present = await config
    disks = [each for each in present.hardware.device if isinstance(each, vim.vm.device.VirtualDisk)]
    if len(disks) == len(volumes_among(disks, extra_of(present))):
        raise Permanent(f"guest {uuid} has no disk of its own")
