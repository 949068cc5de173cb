"""Proxmox VE, from ``pvesh get /cluster/resources --output-format json``."""

from __future__ import annotations

from collections.abc import Sequence

from ...placement.types.errors import InvalidValue
from ...placement.types.request import Flavor
from .cloud import CloudDraft, GuestDraft, HostDraft, memory_mb, size
from .tables import Line, Table

_MIB = 1 / 2**20


def read(found: Sequence[Table], *, powered_off: bool) -> CloudDraft:
    """The nodes and guests of all files. ``powered_off``: guests that do not run are taken as well."""
    cloud = CloudDraft()
    for table in found:
        if not table.columns:
            cloud.report.note(f"{table.file} lists nothing")
        elif not table.has("type", "node", "maxcpu", "maxmem"):
            hint = "pvesh get /cluster/resources --output-format json"
            raise InvalidValue(f"{table.file} does not list the resources of a cluster", field="files", hint=hint)
    lines = [line for table in found for line in table.lines]
    for line in lines:
        if line.text("type") == "node":
            _node(cloud, line)
    for line in lines:
        kind = line.text("type")
        if kind in ("qemu", "lxc"):
            _guest(cloud, line, powered_off)
        elif kind != "node":
            cloud.report.drop(line, line.text("id"), f"it is of type {kind}")
    return cloud


def _node(cloud: CloudDraft, line: Line) -> None:
    name, status = line.text("node"), line.text("status")
    if status != "online" and not line.text("maxcpu") and not line.text("maxmem"):
        cloud.report.drop(line, name, f"it was {status or 'unknown'}, and the export does not tell its size")
        return
    try:
        vcpus, memory = size(line, "maxcpu"), _room_mb(line)
    except ValueError as error:
        cloud.report.drop(line, name, str(error))
        return
    disabled = "" if status == "online" else f"{status or 'unknown'} when it was exported"
    cloud.add_host(HostDraft(name=name, line=line, vcpus=vcpus, memory_mb=memory, disabled=disabled))


def _room_mb(line: Line) -> int:
    """Memory of a node in MiB, rounded down."""
    value = line.get("maxmem")
    return int(value * _MIB) if isinstance(value, int) and value >= 0 else memory_mb(line, "maxmem", unit=_MIB)


def _guest(cloud: CloudDraft, line: Line, powered_off: bool) -> None:
    name = line.text("id") or f"{line.text('type')}/{line.text('vmid')}"
    if line.flag("template"):
        cloud.report.drop(line, name, "it is a template")
    elif (status := line.text("status")) != "running" and not powered_off:
        why = "it does not run" if status in ("stopped", "") else f"it is {status}"
        cloud.report.drop(line, name, f"{why} (--powered-off takes it)")
    else:
        try:
            vcpus, memory = size(line, "maxcpu"), memory_mb(line, "maxmem", unit=_MIB)
        except ValueError as error:
            cloud.report.drop(line, name, str(error))
            return
        flavor = Flavor(name=f"{vcpus} vCPUs, {memory} MiB", vcpus=vcpus, memory_mb=memory)
        cloud.guests.append(
            GuestDraft(key=name, host=line.text("node"), line=line, flavor=flavor, project=line.text("pool"))
        )
