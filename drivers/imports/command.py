"""``hostler import KIND FILES``: a fleet's file from the exports of a platform, with a report of every line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final, Literal

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ...placement.persist.file import save
from ...placement.types.errors import InvalidValue
from . import libvirt, openstack, powercli, proxmox, rvtools
from .cloud import CloudDraft, ImportReport, counted
from .tables import Table, tables

app = cyclopts.App(name="import", help="A fleet's file from what a platform exports.")
Kind = Literal["openstack", "rvtools", "proxmox", "powercli", "libvirt"]
_SHOWN: Final = 20


@app.default
def import_files(
    kind: Kind,
    *files: Path,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="the fleet's file")],
    cpu_ratio: Annotated[
        float | None, Parameter(help="vCPUs a thread, where the export does not tell", validator=Number(gt=0))
    ] = None,
    powered_off: Annotated[bool, Parameter(help="take guests that do not run as well", negative="")] = False,
    affinity: Annotated[
        list[str] | None, Parameter(help="cluster rule that keeps guests together", negative="")
    ] = None,
    anti_affinity: Annotated[
        list[str] | None, Parameter(help="cluster rule that keeps guests apart", negative="")
    ] = None,
    report: Annotated[Path | None, Parameter(help="write every dropped line to this file as JSON")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="the report as JSON")] = False,
) -> int:
    """Read FILES, exported from a platform of KIND, and write the fleet with its guests. What a file is, is found by
    its content: CSV, Excel, JSON, JSON lines or Parquet, also compressed; libvirt's XML."""
    cloud = read(kind, files, powered_off=powered_off, affinity=affinity or [], anti_affinity=anti_affinity or [])
    fleet, requests = cloud.fleet(cpu_ratio)
    save(fleet, output, requests=requests)
    if report is not None:
        _write(report, cloud.report)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(cloud.report), indent=2).decode() + "\n")
    else:
        _show(cloud.report)
    return 0


def read(
    kind: Kind,
    files: tuple[Path, ...],
    *,
    powered_off: bool = False,
    affinity: list[str] | None = None,
    anti_affinity: list[str] | None = None,
) -> CloudDraft:
    """What files of a kind hold."""
    if not files:
        raise InvalidValue("name at least one file", field="files")
    if kind == "libvirt":
        return libvirt.read(files)
    found: list[Table] = [table for path in files for table in tables(path)]
    match kind:
        case "openstack":
            return openstack.read(found)
        case "rvtools":
            return rvtools.read(
                found, powered_off=powered_off, affinity=affinity or [], anti_affinity=anti_affinity or []
            )
        case "proxmox":
            return proxmox.read(found, powered_off=powered_off)
        case "powercli":
            return powercli.read(found, powered_off=powered_off)


def _write(path: Path, report: ImportReport) -> None:
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    except OSError as error:
        raise InvalidValue(f"the report cannot be written to {path}: {error.strerror}", field="report") from None


def _show(report: ImportReport) -> None:
    print(f"{report.hosts} hosts, {report.guests} guests and {report.groups} server groups taken")
    for why, count in counted(report.dropped).items():
        print(f"{count} dropped: {why}")
    for each in report.dropped[:_SHOWN]:
        print(f"  {each.file}:{each.line}: {each.what}: {each.why}")
    if len(report.dropped) > _SHOWN:
        print(f"  and {len(report.dropped) - _SHOWN} more lines: --report FILE names them all")
    for note in report.notes:
        print(f"note: {note}")
