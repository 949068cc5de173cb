"""VMware, from the tabs vHost and vInfo of RVTools: a workbook, or CSV files, also as a German Excel saves them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...placement.types.errors import InvalidValue
from ...placement.types.request import Flavor
from .cloud import CloudDraft, GuestDraft, HostDraft, size
from .tables import Line, Table


def read(
    found: Sequence[Table], *, powered_off: bool, affinity: Sequence[str] = (), anti_affinity: Sequence[str] = ()
) -> CloudDraft:
    """The hosts and guests of all tabs. ``powered_off``: guests that do not run are taken as well. ``affinity`` and
    ``anti_affinity``: rules of clusters by name, whose kind the export does not tell."""
    cloud = CloudDraft()
    hosts = [table for table in found if table.has("Host", "# Cores")]
    guests = [table for table in found if table.has("VM", "CPUs", "Memory")]
    if not hosts:
        hint = "export all tabs to Excel, or vHost to CSV as well"
        raise InvalidValue("no file has the tab vHost of RVTools", field="files", hint=hint)
    for line in (line for table in hosts for line in table.lines):
        _host(cloud, line)
    policies = dict.fromkeys(affinity, "affinity") | dict.fromkeys(anti_affinity, "anti-affinity")
    for line in (line for table in guests for line in table.lines):
        _guest(cloud, line, powered_off, policies)
    for name in sorted(policies.keys() - cloud.groups.keys()):
        raise InvalidValue(f"no guest is in a cluster rule {name!r}", field="affinity")
    return cloud


def _zone(line: Line) -> str:
    """Guests move within their cluster."""
    return "/".join(part for part in (line.text("Datacenter"), line.text("Cluster")) if part)


def _host(cloud: CloudDraft, line: Line) -> None:
    name = line.text("Host")
    try:
        cores = size(line, "# Cores") or size(line, "# CPU") * size(line, "Cores per CPU")
        memory_mb = size(line, "# Memory")
    except ValueError as error:
        cloud.report.drop(line, name, str(error))
        return
    maintenance = line.flag("in Maintenance Mode")
    cloud.add_host(
        HostDraft(
            name=name,
            line=line,
            vcpus=cores * (2 if line.flag("HT Active") else 1),
            memory_mb=memory_mb,
            zone=_zone(line),
            hypervisor="VMware vCenter Server",
            disabled="in maintenance mode when it was exported" if maintenance else "",
        )
    )


def _guest(cloud: CloudDraft, line: Line, powered_off: bool, policies: dict[str, str]) -> None:
    name = line.text("VM")
    state = line.text("Powerstate").lower()
    if line.flag("Template"):
        cloud.report.drop(line, name, "it is a template")
    elif line.flag("SRM Placeholder"):
        cloud.report.drop(line, name, "it is a placeholder of Site Recovery Manager")
    elif state != "poweredon" and not powered_off:
        cloud.report.drop(line, name, "it is powered off (--powered-off takes it)")
    else:
        try:
            vcpus, memory_mb = size(line, "CPUs"), size(line, "Memory")
        except ValueError as error:
            cloud.report.drop(line, name, str(error))
            return
        cloud.guests.append(
            GuestDraft(
                key=line.text("VM UUID", "VM Instance UUID", "VM ID") or f"{line.text('VI SDK Server')}/{name}",
                host=line.text("Host"),
                line=line,
                flavor=Flavor(name=f"{vcpus} vCPUs, {memory_mb} MiB", vcpus=vcpus, memory_mb=memory_mb),
                zone=_zone(line) or None,
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
