"""Reads traces of guests as workloads: tables with columns of any name, traces that providers have published, OpenB's
pods, and journals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...placement.types.errors import InvalidValue, UnknownName
from ...placement.types.request import Flavor
from .azure import read_trace as read_azure
from .clock import Clock, clock_of
from .columns import COLUMNS, Columns
from .csv_columns import CHUNK, Wrong, columns_hint, named_in, read_chunks, read_header
from .journal import is_journal, read_journal
from .machines import Machine, machine_of
from .prometheus import read_usage
from .published import Published, published
from .terms import Usages
from .workload import DAY_S, NEVER, STEP_S, Workload

_OPENB: Final = {
    "arrival_s": "creation_time",
    "departure_s": "deletion_time",
    "cpu_milli": "cpu_milli",
    "memory_mb": "memory_mib",
    "gpus": "num_gpu",
    "gpu_milli": "gpu_milli",
    "gpu_models": "gpu_spec",
}


MACHINE: Final = "64x256"
"""The machine that sizes of published traces are fractions of, if none is named."""
Usage = tuple[Path, Usages]
SMALL_MB: Final = 512
"""MiB of memory of the largest guest up to which its unit is in doubt."""
LONGEST_S: Final = 20 * 366 * 86_400
"""Of a trace, which is played step by step."""


def read_trace(
    path: Path,
    columns: Mapping[str, str] | None = None,
    flavors: Mapping[str, Flavor] | None = None,
    *,
    time_unit: str = "",
    tz: str = "",
    usage: Path | None = None,
    machine: str = "",
) -> Workload:
    """The workload of a table with a row per guest, or of a Hostler service's journal. Tables are CSV files, Parquet
    files, Excel workbooks (their first sheet), JSON lines or lists in JSON, compressed or not.

    ``columns``: one of COLUMNS -> its name in the file, where that differs. ``flavors``: the catalogue that the column
    flavor names one of. Azure's and OpenB's files are known by their headers, journals by being a folder or a database.
    ``time_unit`` (s, ms, us, ns, days or iso) and ``tz`` say how times are written, where their looks do not.
    ``usage``: a file of range results of Prometheus that tells what guests use, by their ids. ``machine``: vCPUs x GiB
    of the machine that sizes are fractions of: of published traces MACHINE if it is not named; of others, whose vcpus
    and memory_gb are amounts, if it is named. InvalidValue for one of these that says nothing of the file.
    Times are brought to steps of five minutes: arrivals down, departures up. InvalidValue names the file, line and
    column at fault. O(file), and memory for the workload's columns; more for batches or groups whose names are no
    whole numbers.
    """
    told = {"columns": columns, "flavors": flavors, "time_unit": time_unit, "tz": tz, "usage": usage}
    told["machine"] = machine
    if is_journal(path):
        if columns:
            raise InvalidValue(f"{path}: a journal has no columns to be named", field="columns")
        _check_unused(path, told, "a Hostler service's journal")
        return read_journal(path)
    known = published(path, machine_of(machine or MACHINE)) if not columns and flavors is None else None
    if known is not None:
        _check_unused(path, told, "a published trace", but=("usage", "machine") if known.fractions else ("usage",))
        return _of_published(path, known, _usage(usage))
    header = read_header(path, field="trace")
    mapping = dict(columns or {})
    for name in mapping:
        if name not in COLUMNS:
            raise UnknownName.among("trace column", name, COLUMNS, field="columns")
    if not mapping and {"dur_bin", "cens", "vcpu"} <= set(header):
        _check_unused(path, told, "a trace of Azure's lifetime bins")
        return read_azure(path)
    if not mapping and {"num_gpu", "creation_time"} <= set(header):
        mapping = dict(_OPENB)
    for name in COLUMNS:
        called = named_in(header, name, path=path, field="trace") if name not in mapping else None
        if called is not None and called not in mapping.values():
            mapping[name] = called
    _check_enough(path, header, mapping, flavors is not None)
    clock = clock_of(_first_arrivals(path, mapping["arrival_s"]), time_unit, tz)
    used = _usage(usage)
    if used is not None and "id" not in mapping:
        raise InvalidValue(f"{path}: no id, by which {usage} names guests", field="trace", hint="--columns id=NAME")
    found = Columns(flavors, clock, used[1] if used is not None else None, _machine(path, machine, mapping))
    for chunk in read_chunks(path, mapping, found.convert, field="trace"):
        found.add(chunk)
    workload = _workload(path, found, clock)
    _note_small(workload)
    return _used(path, workload, found, used)


def _note_small(workload: Workload) -> None:
    """Say that guests with so little memory may be in another unit."""
    most_mb = max(spec.flavor.memory_mb for spec in workload.specs)
    if 0 < most_mb <= SMALL_MB:
        hint = "if the file says GiB, --columns memory_gb=NAME"
        workload.notes.append(f"no guest has more than {most_mb} MiB of memory: {hint}")


def _machine(path: Path, machine: str, mapping: Mapping[str, str]) -> Machine | None:
    """The machine that vcpus and memory_gb are fractions of, if one is named. InvalidValue for other sizes."""
    if not machine:
        return None
    if not {"vcpus", "memory_gb"} <= mapping.keys() or mapping.keys() & {"flavor", "cpu_milli", "memory_mb"}:
        problem = f"{path} has no vcpus and memory_gb that could be fractions of a machine"
        raise InvalidValue(problem, field="machine", hint="--columns vcpus=NAME,memory_gb=NAME names them")
    return machine_of(machine)


def _check_unused(path: Path, told: Mapping[str, Any], what: str, *, but: Sequence[str] = ()) -> None:
    """InvalidValue for an option that says nothing of such a file."""
    for name, value in told.items():
        if value and name not in but:
            raise InvalidValue(f"{path} is {what}: --{name.replace('_', '-')} says nothing of it", field=name)


def _usage(path: Path | None) -> Usage | None:
    return None if path is None else (path, read_usage(path))


def _used(path: Path, workload: Workload, found: Columns, usage: Usage | None) -> Workload:
    """The workload, with a note on whose usage is known. InvalidValue if it is known of none."""
    if usage is not None:
        if not found.used:
            hint = f"ids of {usage[0]} are {', '.join(list(usage[1])[:3])}"
            raise InvalidValue(f"{usage[0]} names no guest of {path}", field="usage", hint=hint)
        workload.notes.append(f"CPU usage of {found.used:,} of {len(workload):,} guests is known")
    return workload


def _of_published(path: Path, known: Published, usage: Usage | None) -> Workload:
    """The workload of a published trace."""
    if not known.places:
        said = f" ({'; '.join(known.notes[1:])})" if known.notes[1:] else ""
        raise InvalidValue(f"{path}: no guests{said}", field="trace")
    found = Columns(None, Clock(), usage[1] if usage is not None else None)
    for at in range(0, len(known.places), CHUNK):
        texts = {name: column[at : at + CHUNK] for name, column in known.texts.items()}
        try:
            found.add(found.convert(texts))
        except Wrong:
            raise _first_wrong(path, known, at, found) from None
    workload = _workload(path, found, Clock())
    workload.notes.extend(known.notes)
    return _used(path, workload, found, usage)


def _first_wrong(path: Path, known: Published, begin: int, found: Columns) -> InvalidValue:
    """The error of the first row at fault from a row on."""
    for at in range(begin, len(known.places)):
        try:
            found.convert({name: column[at : at + 1] for name, column in known.texts.items()})
        except Wrong as wrong:
            problem = f"{path}, {known.places[at]}: {wrong.column} {wrong.problem}"
            return InvalidValue(problem, field=f"trace.{wrong.column}", hint=wrong.hint)
    raise AssertionError("rows that are wrong together but not alone")


def _first_arrivals(path: Path, called: str) -> list[str]:
    """The first arrivals as they stand in the file."""
    for chunk in read_chunks(path, {"arrival_s": called}, lambda texts: list(texts["arrival_s"]), field="trace"):
        if chunk:
            return chunk
    return []


def _check_enough(path: Path, header: Sequence[str], mapping: Mapping[str, str], named: bool) -> None:
    """InvalidValue if the columns do not tell when guests arrive and how large they are."""
    has = mapping.keys()
    if named and "flavor" not in has:
        missing = "flavor"
    elif "arrival_s" not in has:
        missing = "arrival_s"
    elif not named and "flavor" in has and not {"vcpus", "cpu_milli"} & has:
        hint = "--flavors FILE names the catalogue of its flavors"
        raise InvalidValue(f"{path}: flavors, but no catalogue", field="trace", hint=hint)
    elif not named and not {"vcpus", "cpu_milli"} & has:
        missing = "vcpus or cpu_milli"
    elif not named and not {"memory_mb", "memory_gb"} & has:
        missing = "memory_mb or memory_gb"
    else:
        return
    hint = f"name columns with --columns {missing.partition(' ')[0]}=...; {columns_hint(header)}"
    raise InvalidValue(f"{path}: no {missing}", field="trace", hint=hint)


def _workload(path: Path, found: Columns, clock: Clock) -> Workload:
    columns: dict[str, Any] = dict(found.columns())
    if not len(columns["arrival_s"]):
        raise InvalidValue(f"{path}: no guests", field="trace")
    if np.any(columns["arrival_s"][1:] < columns["arrival_s"][:-1]):
        order = np.argsort(columns["arrival_s"], kind="stable")
        for name in list(columns):
            columns[name] = columns[name][order]
    epoch_s = int(columns["arrival_s"][0]) // DAY_S * DAY_S if clock.dated else None
    if epoch_s is not None:
        columns["arrival_s"] -= epoch_s
        columns["departure_s"] = np.where(columns["departure_s"] == NEVER, NEVER, columns["departure_s"] - epoch_s)
    arrival_s = columns["arrival_s"]
    standing = int(np.searchsorted(arrival_s, 0))
    if standing:
        there = (arrival_s >= 0) | (columns["departure_s"] > 0)
        for name in list(columns):
            columns[name] = columns[name][there]
        arrival_s = columns["arrival_s"]
        standing = int(np.searchsorted(arrival_s, 0))
    if not len(arrival_s):
        raise InvalidValue(f"{path}: all guests end before 0", field="trace")
    start_s, end_s = 0 if standing else int(arrival_s[0]), max(0, int(arrival_s[-1])) + STEP_S
    if end_s - start_s > LONGEST_S:
        problem = (
            f"{path}: from the first arrival, {start_s} s, to the last, {end_s - STEP_S} s, are more than 20 years"
        )
        raise InvalidValue(
            problem, field="trace.arrival_s", hint="times are in seconds, if --time-unit does not say ms or us"
        )
    return Workload(
        name=path.name,
        specs=found.specs,
        terms=found.terms,
        **columns,
        standing=standing,
        start_s=start_s,
        end_s=end_s,
        epoch_s=epoch_s,
        notes=[clock.note] if clock.note else [],
    )
