"""VMware, from ``Get-VMHost`` and ``Get-VM`` of PowerCLI, exported by ``Select-Object`` and ``Export-Csv`` or as
JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...placement.types.errors import InvalidValue
from ...placement.types.request import Flavor
from .cloud import CloudDraft, GuestDraft, HostDraft, memory_mb, not_running, size
from .tables import Line, Table


def read(found: Sequence[Table], *, powered_off: bool) -> CloudDraft:
    """The hosts and guests of all files. ``powered_off``: guests that do not run are taken as well."""
    cloud = CloudDraft()
    memory = {"MemoryTotalGB", "MemoryTotalMB"}
    hosts = [table for table in found if table.has("Name", "NumCpu") and any(map(table.has, memory))]
    if not hosts:
        hint = "Get-VMHost | Select Name,NumCpu,MemoryTotalGB,ConnectionState,Parent | Export-Csv hosts.csv"
        raise InvalidValue("no file lists hosts", field="files", hint=hint)
    for line in (line for table in hosts for line in table.lines):
        _host(cloud, line)
    for table in found:
        if table.has("Name", "NumCpu", "VMHost"):
            for line in table.lines:
                _guest(cloud, line, powered_off)
        elif table.columns and table not in hosts:
            raise InvalidValue(f"{table.file} lists neither hosts nor guests", field="files")
    return cloud


def _memory(line: Line, name: str) -> int:
    """An amount of memory in MiB, of the columns that count in MB or GB."""
    return memory_mb(line, f"{name}MB") or memory_mb(line, f"{name}GB", unit=1_024)


def _named(line: Line, name: str) -> str:
    """A cell that names something: JSON may have the whole object in place of its name."""
    value = line.get(name)
    return str(value.get("Name", "")).strip() if isinstance(value, Mapping) else line.text(name)


def _host(cloud: CloudDraft, line: Line) -> None:
    name, state = line.text("Name"), line.text("ConnectionState")
    try:
        threads = 2 if line.flag("HyperthreadingActive") else 1
        vcpus, memory = size(line, "NumCpu") * threads, _memory(line, "MemoryTotal")
    except ValueError as error:
        cloud.report.drop(line, name, str(error))
        return
    disabled = "" if state in ("", "0", "Connected") else f"{state} when it was exported"
    if not line.has("HyperthreadingActive"):
        cloud.report.note(f"{line.file} does not tell of hyper-threading (HyperthreadingActive): a thread a core")
    zone = _named(line, "Parent")
    cloud.add_host(
        HostDraft(
            name=name,
            line=line,
            vcpus=vcpus,
            memory_mb=memory,
            zone=zone,
            disabled=disabled,
            hypervisor="VMware vCenter Server",
        )
    )


def _guest(cloud: CloudDraft, line: Line, powered_off: bool) -> None:
    name = line.text("Name")
    if not line.has("PowerState"):
        cloud.report.note(f"{line.file} does not tell which guests run (PowerState): all are taken")
    elif line.text("PowerState").lower() not in ("poweredon", "1") and not powered_off:
        cloud.report.drop(line, name, not_running(line.text("PowerState")))
        return
    try:
        vcpus, memory = size(line, "NumCpu"), _memory(line, "Memory")
    except ValueError as error:
        cloud.report.drop(line, name, str(error))
        return
    host = _named(line, "VMHost")
    known = cloud.known_host(host)
    flavor = Flavor(name=f"{vcpus} vCPUs, {memory} MiB", vcpus=vcpus, memory_mb=memory)
    zone = cloud.hosts[known].zone or None if known is not None else None
    cloud.guests.append(
        GuestDraft(key=line.text("Id") or f"{name} on {host}", host=host, line=line, flavor=flavor, zone=zone)
    )
