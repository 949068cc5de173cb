"""VMware, from the tabs vHost and vInfo of RVTools: a workbook, or CSV files, also as a German Excel saves them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...placement.types.errors import InvalidValue
from ...placement.types.request import Flavor
from .cloud import CloudDraft, GuestDraft, HostDraft, memory_mb, not_running, size
from .tables import Line, Table


def read(
    found: Sequence[Table], *, powered_off: bool, affinity: Sequence[str] = (), anti_affinity: Sequence[str] = ()
) -> CloudDraft:
    """The hosts and guests of all tabs. ``powered_off``: guests that do not run are taken as well. ``affinity`` and
    ``anti_affinity``: rules of clusters by name, whose kind the export does not tell."""
    cloud = CloudDraft()
    hosts = [table for table in found if table.has("Host", "# Memory")]
    guests = [table for table in found if table.has("VM", "CPUs", "Memory")]
    if not hosts:
        hint = "export all tabs to Excel, or vHost to CSV as well"
        raise InvalidValue("no file has the tab vHost of RVTools", field="files", hint=hint)
    for table in hosts:
        if not table.has("# Cores") and not table.has("# CPU", "Cores per CPU"):
            raise InvalidValue(f"{table.file}: the tab vHost has no column # Cores", field="files")
    _note_unread(cloud, found, [*hosts, *guests])
    names = _Names([line for table in hosts for line in table.lines])
    for line in (line for table in hosts for line in table.lines):
        _host(cloud, line, names)
    policies = dict.fromkeys(affinity, "affinity") | dict.fromkeys(anti_affinity, "anti-affinity")
    for line in (line for table in guests for line in table.lines):
        _guest(cloud, line, powered_off, policies, names)
    for name in sorted(policies.keys() - cloud.groups.keys()):
        raise InvalidValue(f"no guest is in a cluster rule {name!r}", field="affinity")
    return cloud


def _note_unread(cloud: CloudDraft, found: Sequence[Table], read: Sequence[Table]) -> None:
    """Say of which files nothing is read, and that there are no guests."""
    known = {table.file for table in read}
    for table in found:
        if table.file not in known:
            shown = ", ".join(table.columns[:8])
            cloud.report.note(
                f"nothing is read of {table.file}: it is neither vHost nor vInfo, its columns are {shown}"
            )
    if not any(table.has("VM") for table in read):
        cloud.report.note("no file has the tab vInfo of RVTools: there are no guests")


class _Names:
    """What hosts and clusters are called: with their vCenter, where another one has one of the same name."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._servers: dict[tuple[str, str], set[str]] = {}
        for line in lines:
            for key in (("host", line.text("Host")), ("zone", _zone(line))):
                self._servers.setdefault(key, set()).add(_server(line))

    def host(self, line: Line) -> str:
        """The host of a line."""
        return self._told("host", line.text("Host"), line)

    def zone(self, line: Line) -> str:
        """The availability zone of a line."""
        return self._told("zone", _zone(line), line)

    def _told(self, kind: str, name: str, line: Line) -> str:
        several = name and len(self._servers.get((kind, name), ())) > 1
        return f"{_server(line)}/{name}" if several else name


def _server(line: Line) -> str:
    """The vCenter that a line is from."""
    return line.text("VI SDK Server")


def _zone(line: Line) -> str:
    """Guests move within their cluster."""
    return "/".join(part for part in (line.text("Datacenter"), line.text("Cluster")) if part)


def _host(cloud: CloudDraft, line: Line, names: _Names) -> None:
    name = names.host(line)
    try:
        cores = size(line, "# Cores") or size(line, "# CPU") * size(line, "Cores per CPU")
        memory = memory_mb(line, "# Memory")
    except ValueError as error:
        cloud.report.drop(line, name, str(error))
        return
    maintenance = line.flag("in Maintenance Mode")
    cloud.add_host(
        HostDraft(
            name=name,
            line=line,
            vcpus=cores * (2 if line.flag("HT Active") else 1),
            memory_mb=memory,
            zone=names.zone(line),
            hypervisor="VMware vCenter Server",
            disabled="in maintenance mode when it was exported" if maintenance else "",
        )
    )


def _guest(cloud: CloudDraft, line: Line, powered_off: bool, policies: dict[str, str], names: _Names) -> None:
    name = line.text("VM")
    if not line.has("Powerstate"):
        cloud.report.note(f"{line.file} does not tell which guests run (Powerstate): all are taken")
    runs = not line.has("Powerstate") or line.text("Powerstate").lower() == "poweredon"
    if line.flag("Template"):
        cloud.report.drop(line, name, "it is a template")
    elif line.flag("SRM Placeholder"):
        cloud.report.drop(line, name, "it is a placeholder of Site Recovery Manager")
    elif not runs and not powered_off:
        cloud.report.drop(line, name, not_running(line.text("Powerstate")))
    else:
        try:
            vcpus, memory, host = size(line, "CPUs"), memory_mb(line, "Memory"), line.text("Host")
        except ValueError as error:
            cloud.report.drop(line, name, str(error))
            return
        cloud.guests.append(
            GuestDraft(
                key=line.text("VM UUID", "VM Instance UUID", "VM ID") or f"{_server(line)}/{name} on {host}",
                host=names.host(line),
                line=line,
                flavor=Flavor(name=f"{vcpus} vCPUs, {memory} MiB", vcpus=vcpus, memory_mb=memory),
                zone=names.zone(line) or None,
                group=_group(cloud, line, policies),
            )
        )


def _group(cloud: CloudDraft, line: Line, policies: dict[str, str]) -> str | None:
    """The first cluster rule of a guest whose kind is known."""
    group = None
    for rule in re.split(r"[,;]\s*", line.text("Cluster rule(s)")):
        if rule in policies:
            cloud.groups[rule] = policies[rule]
            group = group or rule
        elif rule:
            hint = "--affinity or --anti-affinity tells it"
            cloud.report.note(f"the kind of the cluster rule {rule!r} is not in the export: {hint}")
    return group
