"""``hostler import KIND FILES``: a fleet's file from the exports of a platform or from OpenStack's databases, with a
report of every line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ...placement.fleet.fleet import Fleet
from ...placement.persist.file import save
from ...placement.types import counting
from ...placement.types.errors import InvalidValue
from ...placement.types.request import RequestSpec
from ..openstack.source.options import SourceOptions
from . import libvirt, openstack, powercli, proxmox, rvtools
from .cloud import CloudDraft, ImportReport, counted
from .data_folder import write_data_folder
from .openstack_databases import CloudBuilder
from .tables import Table, tables

app = cyclopts.App(name="import", help="A fleet's file from what a platform exports.")
Kind = Literal["openstack", "rvtools", "proxmox", "powercli", "libvirt"]
_SHOWN: Final = 20


@app.default
def import_files(
    kind: Kind,
    *files: Path,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="the fleet's file")] = None,
    data: Annotated[Path | None, Parameter(help="a new data folder, which `hostler serve --data` starts from")] = None,
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
    source: Annotated[SourceOptions | None, Parameter(name="*")] = None,
) -> int:
    """Read FILES, exported from a platform of KIND, and write the fleet with its guests. What a file is, is found by
    its content: CSV, Excel, JSON, JSON lines or Parquet, also compressed; libvirt's XML. Of kind openstack, the
    databases of Placement and Nova in place of files."""
    if output is None and data is None:
        raise InvalidValue("name what is written: --output FILE, --data FOLDER, or both", field="output")
    fleet, requests, found = _read(kind, files, source, cpu_ratio, powered_off, affinity or [], anti_affinity or [])
    if output is not None:
        save(fleet, output, requests=requests)
    if data is not None:
        write_data_folder(fleet, data, requests)
    if report is not None:
        _write(report, found)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    else:
        _show(found)
    return 0


def _read(
    kind: Kind,
    files: tuple[Path, ...],
    source: SourceOptions | None,
    cpu_ratio: float | None,
    powered_off: bool,
    affinity: list[str],
    anti_affinity: list[str],
) -> tuple[Fleet, dict[str, RequestSpec], ImportReport]:
    if source is not None and source.given:
        if kind != "openstack" or files:
            raise InvalidValue("databases are read for kind openstack, without files", field="kind")
        return read_databases(source)
    cloud = read(kind, files, powered_off=powered_off, affinity=affinity, anti_affinity=anti_affinity)
    fleet, requests = cloud.fleet(cpu_ratio)
    return fleet, requests, cloud.report


def read_databases(source: SourceOptions) -> tuple[Fleet, dict[str, RequestSpec], ImportReport]:
    """The fleet that Placement and Nova keep, what its guests were asked with, and the report. How far it is goes to
    standard error."""
    now = time.time()
    said = _Said()
    said("reading Placement")
    placement = source.read_placement()
    said("reading Nova")
    nova = source.read_nova(now)
    builder = CloudBuilder(placement, nova, now=now)
    with said.counting("providers and consumers", len(placement.providers) + len(placement.consumers)) as done:
        builder.build(done)
    if not len(builder.fleet):
        raise InvalidValue("the databases name no resource providers", field="placement")
    return builder.fleet, builder.requests, builder.report


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


class _Said:
    """Tells on standard error how far the reading is, where a terminal or a log looks at it."""

    def __call__(self, what: str) -> None:
        print(what, file=sys.stderr, flush=True)

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A callback for each that is done: a line for every tenth of many."""
        step, count, said = max(total // 10, 1_000), 0, 0

        def done(more: int) -> None:
            nonlocal count, said
            count += more
            if count - said >= step:
                said = count
                self(f"{count:,} of {total:,} {what}")

        yield done


def _write(path: Path, report: ImportReport) -> None:
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    except OSError as error:
        raise InvalidValue(f"the report cannot be written to {path}: {error.strerror}", field="report") from None


def _show(report: ImportReport) -> None:
    hosts, guests = counting.counted(report.hosts, "host"), counting.counted(report.guests, "guest")
    print(f"{hosts}, {guests} and {counting.counted(report.groups, 'server group')} taken")
    for why, count in counted(report.dropped).items():
        print(f"{count} dropped: {why}")
    for each in report.dropped[:_SHOWN]:
        print(f"  {each.file}:{each.line}: {each.what}: {each.why}")
    if len(report.dropped) > _SHOWN:
        print(f"  and {len(report.dropped) - _SHOWN} more lines: --report FILE names them all")
    for note in report.notes:
        print(f"note: {note}")
