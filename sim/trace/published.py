"""Traces that cloud providers have published, as the columns of a trace: known by their headers, or by their shape
where they have none.

    Azure 2017, 2019    vmtable: no header, 11 columns; cores and memory of 2019 are buckets, the last of them open
    Azure 2020          "packing": tables vm and vmType, in SQLite or two CSV files; days, fractions of a machine
    Google 2019         instance_events: microseconds, fractions of the largest machine
    Alibaba 2018        container_meta: no header, 8 columns; hundredths of a CPU, percent of a machine's memory

Fractions are of a machine whose size the caller names, since none of these says it."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from ...placement.types.errors import InvalidValue
from .csv_columns import Texts, opened, read_header

_USAGE: Final = ("cpu_usage_percent", "cpu_usage_p95_percent")
SIZES: Final = {">24": "30", ">64": "70"}
"""What open buckets of Azure's 2019 trace are taken for."""
_DAY_S: Final = 86_400.0
_ENDS: Final = {"4", "5", "6", "7", "8"}
"""Google's events that end an instance: EVICT, FAIL, FINISH, KILL and LOST."""
_CONTAINER: Final = (
    "container_id",
    "machine_id",
    "time_stamp",
    "app_du",
    "status",
    "cpu_request",
    "cpu_limit",
    "mem_size",
)


class Machine(NamedTuple):
    """The machine that sizes are fractions of."""

    vcpus: int = 64
    memory_gb: float = 256.0


class Published(NamedTuple):
    """A trace as texts of columns, all of the same length, and what was assumed."""

    texts: Texts
    notes: list[str]


def machine_of(text: str) -> Machine:
    """The machine that ``64x256`` names: vCPUs and GiB. InvalidValue for another text."""
    vcpus, _, memory = text.partition("x")
    try:
        found = Machine(int(vcpus), float(memory))
    except ValueError:
        found = Machine(0, 0.0)
    if not 0 < found.vcpus < 2**20 or not 0 < found.memory_gb < 2**20:
        raise InvalidValue(f"{text!r} is not a machine", field="machine", hint="vCPUs x GiB: 64x256")
    return found


def is_packing_trace(path: Path) -> bool:
    """True for Azure's packing trace in a SQLite file."""
    try:
        if path.read_bytes()[:16] != b"SQLite format 3\0":
            return False
        with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
            names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    except (OSError, sqlite3.Error):
        return False
    return {"vm", "vmType"} <= names


def published(path: Path, machine: Machine) -> Published | None:
    """The columns of a published trace; None for another file. InvalidValue, with the line, for a row at fault."""
    if not path.is_file():
        return None
    if is_packing_trace(path):
        return _packing(path, machine, *_of_database(path))
    header = read_header(path, field="trace")
    if {"vmId", "vmTypeId", "starttime", "endtime"} <= set(header):
        return _packing(path, machine, _table(path), _types_beside(path))
    if {"time", "type", "collection_id", "instance_index", "resource_request.cpus"} <= set(header):
        return _google(path, machine)
    if len(header) == 11 and header[3].isdecimal() and header[4].isdecimal():
        return _vmtable(path)
    if len(header) == len(_CONTAINER) and header[2].isdecimal() and header[5].isdecimal() and header[0] != "id":
        return _containers(path, machine)
    return None


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file, with their lines."""
    with opened(path) as (file, _):
        rows = csv.reader(file)
        yield from ((rows.line_num, row) for row in rows if row)


def _table(path: Path) -> list[dict[str, str]]:
    rows = [row for _, row in _rows(path)]
    return [dict(zip(rows[0], row, strict=False)) for row in rows[1:]]


def _read(path: Path, line: int, make: Callable[[], Sequence[str]]) -> Sequence[str]:
    try:
        return make()
    except (ValueError, IndexError, KeyError) as error:
        raise InvalidValue(f"{path}, line {line}: {error}", field="trace") from None


def _texts(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Texts:
    if not rows:
        return {name: [] for name in names}
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


# Azure's vmtable


def _vmtable(path: Path) -> Published:
    names = ("id", "arrival_s", "departure_s", "vcpus", "memory_gb", "project", "batch", *_USAGE)
    rows, last = [], 0
    for line, row in _rows(path):
        found = _read(path, line, lambda row=row: _guest(row))  # type: ignore[misc]  # bound at once
        rows.append(found)
        last = max(last, int(found[2]))
    # Guests that were there before the trace began, or after it ended, have its first and last time.
    rows = [
        (each[0], "-1" if each[1] == "0" else each[1], "" if int(each[2]) == last else each[2], *each[3:])
        for each in rows
    ]
    notes = ["Azure's vmtable: guests of time 0 stood there before, those of the last time stay"]
    if any(cell in SIZES for _, row in _rows(path) for cell in row[9:11]):
        notes.append("of Azure's open buckets >24 cores are taken for 30, >64 GiB for 70")
    return Published(_texts(names, rows), notes)


def _guest(row: Sequence[str]) -> tuple[str, ...]:
    name, subscription, deployment, created, deleted, _, mean, p95, _, cores, memory = row
    cores, memory = SIZES.get(cores, cores), SIZES.get(memory, memory)
    for number in (created, deleted, mean, p95, cores, memory):
        float(number)
    return (name, created, deleted, cores, memory, subscription, deployment, mean, str(max(float(mean), float(p95))))


# Azure's packing trace


def _of_database(path: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
        database.row_factory = sqlite3.Row
        guests, types = (list(map(dict, database.execute(f"SELECT * FROM {name}"))) for name in ("vm", "vmType"))
    return list(map(_as_texts, guests)), list(map(_as_texts, types))


def _as_texts(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: "" if value is None else str(value) for key, value in row.items()}


def _types_beside(path: Path) -> list[dict[str, str]]:
    """The table vmType beside the table vm."""
    for other in sorted(path.parent.iterdir()):
        if other != path and other.is_file() and other.suffix in (".csv", ".gz", ".zst"):
            header = read_header(other, field="trace")
            if {"vmTypeId", "machineId", "core", "memory"} <= set(header):
                return _table(other)
    hint = "its table vmType, with core and memory, must lie beside it"
    raise InvalidValue(f"{path}: the sizes of its guests are not there", field="trace", hint=hint)


def _packing(path: Path, machine: Machine, guests: list[dict[str, str]], types: list[dict[str, str]]) -> Published:
    machines = sorted({each["machineId"] for each in types}, key=lambda name: (len(name), name))
    most = max(machines, key=lambda name: sum(each["machineId"] == name for each in types))
    sizes = {each["vmTypeId"]: each for each in types if each["machineId"] == most}
    names = ("id", "arrival_s", "departure_s", "cpu_milli", "memory_gb", "batch", "priority", "preemptible")
    rows, without = [], 0
    for number, guest in enumerate(guests, 2):
        size = sizes.get(guest["vmTypeId"])
        if size is None:
            without += 1
            continue

        def row(guest: dict[str, str] = guest, size: dict[str, str] = size) -> tuple[str, ...]:
            begins, ends = float(guest["starttime"]) * _DAY_S, guest["endtime"]
            milli, memory = float(size["core"]) * machine.vcpus * 1000, float(size["memory"]) * machine.memory_gb
            low = guest.get("priority", "1") == "0"
            return (
                guest["vmId"],
                repr(begins),
                repr(max(begins, float(ends) * _DAY_S)) if ends else "",
                f"{milli:.3f}",
                repr(memory),
                guest.get("tenantId", ""),
                "0" if low else "1",
                "1" if low else "0",
            )

        rows.append(_read(path, number, row))
    notes = [
        f"Azure's packing trace: times are days, sizes fractions of machine {most}, taken for {machine.vcpus} vCPUs and"
        f" {machine.memory_gb:g} GiB (--machine); guests of priority 0 are preemptible"
    ]
    notes += [f"{without:,} guests of types that this machine cannot hold are left out"] if without else []
    return Published(_texts(names, rows), notes)


# Google's instance events


def _google(path: Path, machine: Machine) -> Published:
    first: dict[tuple[str, str], tuple[float, dict[str, str]]] = {}
    last: dict[tuple[str, str], float | None] = {}
    header: list[str] = []
    for line, row in _rows(path):
        if not header:
            header = row
            continue
        told = dict(zip(header, row, strict=False))
        key = told.get("collection_id", ""), told.get("instance_index", "")
        (text,) = _read(path, line, lambda told=told: (str(int(told["time"]) / 1e6),))  # type: ignore[misc]  # bound at once
        at = float(text)
        if key not in first and told["resource_request.cpus"] and told["resource_request.memory"]:
            first[key] = at, told
        last[key] = at if told["type"] in _ENDS else None
    names = ("id", "arrival_s", "departure_s", "cpu_milli", "memory_gb", "batch", "priority")
    rows = []
    for (collection, index), (at, told) in first.items():
        ends = last[collection, index]
        milli = float(told["resource_request.cpus"]) * machine.vcpus * 1000
        memory = float(told["resource_request.memory"]) * machine.memory_gb
        departure = "" if ends is None or ends > 1e12 else repr(max(at, ends))
        arrival = repr(at) if at > 0 else "-1"
        priority = told.get("priority") or "0"
        rows.append((f"{collection}/{index}", arrival, departure, f"{milli:.3f}", repr(memory), collection, priority))
    note = (
        f"Google's instance events: sizes are fractions of the largest machine, taken for {machine.vcpus} vCPUs and"
        f" {machine.memory_gb:g} GiB (--machine), CPUs rounded up to whole ones"
    )
    return Published(_texts(names, rows), [note])


# Alibaba's containers


def _containers(path: Path, machine: Machine) -> Published:
    names = ("id", "arrival_s", "vcpus", "memory_gb", "project")
    rows: dict[str, Sequence[str]] = {}
    for line, row in _rows(path):

        def guest(row: list[str] = row) -> tuple[str, ...]:
            told = dict(zip(_CONTAINER, row, strict=True))
            vcpus = -(-int(told["cpu_request"]) // 100)
            memory = float(told["mem_size"]) / 100 * machine.memory_gb
            return told["container_id"], told["time_stamp"], str(vcpus), repr(memory), told["app_du"]

        found = _read(path, line, guest)
        rows.setdefault(found[0], found)
    note = (
        f"Alibaba's container_meta: memory is percent of a machine, taken for {machine.memory_gb:g} GiB (--machine);"
        " a container arrives with its first record and stays"
    )
    return Published(_texts(names, list(rows.values())), [note])
