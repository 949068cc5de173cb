"""Traces that cloud providers have published, as the columns of a trace: known by their headers, or by their shape
where they have none.

    Azure 2017, 2019    vmtable: no header, 11 columns; cores and memory of 2019 are buckets, the last of them open
    Azure 2020          "packing": tables vm and vmType, in SQLite or two CSV files; days, fractions of a machine
    Google 2019         instance_events: microseconds, fractions of the largest machine
    Alibaba 2018        container_meta: no header, 8 columns; hundredths of a CPU, percent of a machine's memory

Fractions are of a machine whose size the caller names, since none of these says it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

from ...placement.types.errors import InvalidValue
from .csv_columns import Texts, read_header
from .machines import Machine
from .rows import begins_with, decompressed_file, opened

_SQLITE: Final = b"SQLite format 3\0"
_USAGE: Final = ("cpu_usage_percent", "cpu_usage_p95_percent")
SIZES: Final = {">24": "30", ">64": "70"}
"""What open buckets of Azure's 2019 trace are taken for."""
_DAY_S: Final = 86_400.0
_EVENTS: Final = {
    **{"SUBMIT": 0, "QUEUE": 1, "ENABLE": 2, "SCHEDULE": 3, "EVICT": 4, "FAIL": 5, "FINISH": 6, "KILL": 7, "LOST": 8},
    **{"UPDATE_PENDING": 9, "UPDATE_RUNNING": 10},
}
"""Google's events, which files have by number or by name."""
_ENDS: Final = range(_EVENTS["EVICT"], _EVENTS["LOST"] + 1)
"""Those that end an instance, until another one says that it goes on."""
_AFTER_US: Final = 10**18
"""Google's times from here on are after the end of the trace, 2^63 - 1."""
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


_T = TypeVar("_T")


class Published(NamedTuple):
    """A trace as texts of columns, all of the same length; where each row stands in the file, in words; what was
    assumed; and whether sizes are fractions of a machine."""

    texts: Texts
    places: Sequence[str]
    notes: list[str]
    fractions: bool = True


Told = Mapping[str, str]
"""A row, by column."""


class Placed(NamedTuple):
    """A row of a file, and where it stands, in words."""

    place: str
    row: Told


def is_packing_trace(path: Path) -> bool:
    """True for Azure's packing trace in a SQLite file."""
    if not begins_with(path, _SQLITE):
        return False
    try:
        with (
            decompressed_file(path, field="trace") as plain,
            closing(sqlite3.connect(_uri(plain), uri=True)) as database,
        ):
            names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    except (OSError, sqlite3.Error):
        return False
    return {"vm", "vmType"} <= names


def _uri(path: Path) -> str:
    """The address of a SQLite file, which is only read."""
    return f"file:{quote(str(path))}?mode=ro&immutable=1"


def published(path: Path, machine: Machine) -> Published | None:
    """The columns of a published trace; None for another file. InvalidValue, with the line, for a row at fault."""
    if not path.is_file():
        return None
    if is_packing_trace(path):
        return _packing(path, machine, *_of_database(path), path)
    header = read_header(path, field="trace")
    if {"vmId", "vmTypeId", "starttime", "endtime"} <= set(header):
        types_path, types = _types_beside(path)
        return _packing(path, machine, _table(path), types, types_path)
    if {"time", "type", "collection_id", "instance_index", "resource_request.cpus"} <= set(header):
        return _google(path, machine)
    if len(header) == 11 and header[3].isdecimal() and header[4].isdecimal():
        return _vmtable(path)
    if len(header) == len(_CONTAINER) and header[2].isdecimal() and header[5].isdecimal() and header[0] != "id":
        return _containers(path, machine)
    return None


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The rows of a file that has no header, and where they stand."""
    with opened(path, field="trace") as rows:
        yield from ((f"{rows.word} {rows.line_num}", row) for row in rows if row)


def _table(path: Path) -> Iterator[Placed]:
    """The rows of a file with a header."""
    rows = _rows(path)
    _, header = next(rows, ("", []))
    names = [name.strip() for name in header]
    for place, row in rows:
        if len(row) < len(names):
            raise InvalidValue(f"{path}, {place}: {len(row)} fields, but {len(names)} columns", field="trace")
        yield Placed(place, dict(zip(names, row, strict=False)))


def _read(path: Path, place: str, make: Callable[..., _T], *told: object) -> _T:
    """What ``make`` makes of a row. InvalidValue, with its place, for one of which nothing can be made."""
    try:
        return make(*told)
    except KeyError as error:
        raise InvalidValue(f"{path}, {place}: no column {error.args[0]}", field="trace") from None
    except (ValueError, IndexError) as error:
        raise InvalidValue(f"{path}, {place}: {error}", field="trace") from None


def _number(told: Told, name: str, *, least: float = 0.0) -> float:
    """A cell as a number. ValueError, with its column, for a text that is not a number, not finite, or less."""
    text = told[name]
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not least <= found < math.inf:
        raise ValueError(f"{name} is {text[:40]!r}")
    return found


def _published(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    places: Sequence[str],
    notes: list[str],
    *,
    fractions: bool = True,
) -> Published:
    columns = map(list, zip(*rows, strict=True)) if rows else ([] for _ in names)
    return Published(dict(zip(names, columns, strict=True)), places, notes, fractions)


# Azure's vmtable

_VMTABLE: Final = (
    *("vm id", "subscription id", "deployment id", "created", "deleted", "max cpu", "avg cpu", "p95 max cpu"),
    *("category", "core count bucket", "memory bucket"),
)


def _vmtable(path: Path) -> Published:
    names = ("id", "arrival_s", "departure_s", "vcpus", "memory_gb", "project", "batch", *_USAGE)
    rows, places, last, opened_buckets = [], [], 0.0, False
    for place, row in _rows(path):
        found = _read(path, place, _guest, row)
        opened_buckets = opened_buckets or any(cell in SIZES for cell in row[9:11])
        rows.append(found)
        places.append(place)
        last = max(last, float(found[2]))
    # Guests that were there before the trace began, or after it ended, have its first and last time.
    rows = [
        (each[0], "-1" if float(each[1]) == 0 else each[1], "" if float(each[2]) == last else each[2], *each[3:])
        for each in rows
    ]
    notes = ["Azure's vmtable: guests of time 0 stood there before, those of the last time stay"]
    if opened_buckets:
        notes.append("of Azure's open buckets >24 cores are taken for 30, >64 GiB for 70")
    return _published(names, rows, places, notes, fractions=False)


def _guest(row: Sequence[str]) -> tuple[str, ...]:
    if len(row) != len(_VMTABLE):
        raise ValueError(f"{len(row)} fields, but {len(_VMTABLE)} columns")
    told = dict(zip(_VMTABLE, row, strict=True))
    cores, memory = (SIZES.get(told[name], told[name]) for name in _VMTABLE[9:])
    told |= {_VMTABLE[9]: cores, _VMTABLE[10]: memory}
    used = told["avg cpu"] and told["p95 max cpu"]
    numbers = {name: _number(told, name) for name in (*_VMTABLE[3:5], *_VMTABLE[9:], *(_VMTABLE[6:8] if used else ()))}
    return (
        *(told["vm id"], told["created"], told["deleted"], cores, memory),
        *(told["subscription id"], told["deployment id"], told["avg cpu"] if used else ""),
        repr(max(numbers["avg cpu"], numbers["p95 max cpu"])) if used else "",
    )


# Azure's packing trace


def _of_database(path: Path) -> tuple[list[Placed], list[Placed]]:
    try:
        with (
            decompressed_file(path, field="trace") as plain,
            closing(sqlite3.connect(_uri(plain), uri=True)) as database,
        ):
            database.row_factory = sqlite3.Row
            guests, types = (
                [
                    Placed(f"row {number} of {name}", _as_texts(dict(row)))
                    for number, row in enumerate(database.execute(f"SELECT * FROM {name}"), 1)
                ]
                for name in ("vm", "vmType")
            )
    except sqlite3.Error as error:
        raise InvalidValue(f"{path}: cannot be read: {error}", field="trace") from None
    return guests, types


def _as_texts(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: "" if value is None else str(value) for key, value in row.items()}


def _types_beside(path: Path) -> tuple[Path, list[Placed]]:
    """The table vmType beside the table vm, and its file."""
    for other in sorted(path.parent.iterdir()):
        if other != path and other.is_file():
            try:
                header = read_header(other, field="trace")
            except InvalidValue:
                continue  # something else that lies there
            if {"vmTypeId", "machineId", "core", "memory"} <= set(header):
                return other, list(_table(other))
    hint = "its table vmType, with core and memory, must lie beside it"
    raise InvalidValue(f"{path}: the sizes of its guests are not there", field="trace", hint=hint)


def _packing(
    path: Path, machine: Machine, guests: Iterable[Placed], types: Sequence[Placed], types_path: Path
) -> Published:
    on: dict[str, dict[str, tuple[float, float]]] = {}
    """Machine -> type -> fractions of CPUs and memory."""
    for place, told in types:
        fractions = _read(types_path, place, _fractions, told)
        machine_id, type_id = (_read(types_path, place, told.__getitem__, name) for name in ("machineId", "vmTypeId"))
        on.setdefault(machine_id, {})[type_id] = fractions
    if not on:
        raise InvalidValue(f"{types_path}: no types of guests", field="trace")
    most = max(sorted(on, key=lambda name: (len(name), name)), key=lambda name: len(on[name]))
    sizes = on[most]
    names = ("id", "arrival_s", "departure_s", "cpu_milli", "memory_gb", "batch", "priority", "preemptible")
    rows, places, without = [], [], 0
    for place, told in guests:
        size = sizes.get(_read(path, place, told.__getitem__, "vmTypeId"))
        if size is None:
            without += 1
            continue
        rows.append(_read(path, place, _packed, told, size, machine))
        places.append(place)
    notes = [
        f"Azure's packing trace: times are days, sizes fractions of machine {most}, taken for {machine.vcpus} vCPUs and"
        f" {machine.memory_gb:g} GiB (--machine); guests of priority 0 are preemptible"
    ]
    notes += [f"{without:,} guests of types that this machine cannot hold are left out"] if without else []
    return _published(names, rows, places, notes)


def _fractions(told: Told) -> tuple[float, float]:
    return _number(told, "core"), _number(told, "memory")


def _packed(told: Told, size: tuple[float, float], machine: Machine) -> tuple[str, ...]:
    begins = _number(told, "starttime", least=-math.inf) * _DAY_S
    ends = _number(told, "endtime", least=-math.inf) * _DAY_S if told["endtime"] else None
    low = told.get("priority", "1") == "0"
    return (
        told["vmId"],
        repr(begins),
        "" if ends is None else repr(max(begins, ends)),
        f"{size[0] * machine.vcpus * 1000:.3f}",
        repr(size[1] * machine.memory_gb),
        told.get("tenantId", ""),
        "0" if low else "1",
        "1" if low else "0",
    )


# Google's instance events


@dataclass(slots=True)
class _Instance:
    """What Google's events say of an instance: places and times of the first and the last of them, in microseconds,
    whether that ends it, and its sizes by the first event that has them."""

    place: str
    first: int
    last: int
    ended: bool
    sizes: tuple[float, float] | None
    sized: int
    priority: str


def _google(path: Path, machine: Machine) -> Published:
    found: dict[tuple[str, str], _Instance] = {}
    for place, told in _table(path):
        _read(path, place, _event, found, place, told)
    names = ("id", "arrival_s", "departure_s", "cpu_milli", "memory_gb", "batch", "priority")
    rows, places = [], []
    for (collection, index), each in sorted(found.items(), key=lambda item: item[1].first):
        if each.sizes is None or each.first >= _AFTER_US:
            continue
        stays = not each.ended or each.last >= _AFTER_US
        rows.append(
            (
                f"{collection}/{index}",
                repr(each.first / 1e6) if each.first > 0 else "-1",
                "" if stays else repr(each.last / 1e6),
                f"{each.sizes[0] * machine.vcpus * 1000:.3f}",
                repr(each.sizes[1] * machine.memory_gb),
                collection,
                each.priority,
            )
        )
        places.append(each.place)
    notes = [
        f"Google's instance events: sizes are fractions of the largest machine, taken for {machine.vcpus} vCPUs and"
        f" {machine.memory_gb:g} GiB (--machine), CPUs rounded up to whole ones"
    ]
    without = len(found) - len(rows)
    notes += [f"{without:,} instances that the trace gives no size or beginning are left out"] if without else []
    return _published(names, rows, places, notes)


def _event(found: dict[tuple[str, str], _Instance], place: str, told: Told) -> None:
    """Take note of an event; files have them in any order. Of several at one time one that ends the instance counts as
    the last."""
    at = _whole(told, "time")
    text = told["type"].strip()
    kind = _EVENTS.get(text.upper(), int(text) if text.isdecimal() else -1)
    if kind not in range(len(_EVENTS)):
        raise ValueError(f"type is {text[:40]!r}")
    cpus, memory = told["resource_request.cpus"], told["resource_request.memory"]
    sizes = None
    if cpus and memory:
        sizes = _number(told, "resource_request.cpus"), _number(told, "resource_request.memory")
    key = told["collection_id"], told["instance_index"]
    each = found.get(key)
    if each is None:
        each = found[key] = _Instance(place, at, at, kind in _ENDS, sizes, at, told.get("priority") or "0")
        return
    if at < each.first:
        each.place, each.first, each.priority = place, at, told.get("priority") or each.priority
    if at > each.last or (at == each.last and kind in _ENDS):
        each.last, each.ended = at, kind in _ENDS
    if sizes is not None and (each.sizes is None or at < each.sized):
        each.sizes, each.sized = sizes, at


def _whole(told: Told, name: str) -> int:
    text = told[name].strip()
    if not text.isdecimal():
        raise ValueError(f"{name} is {text[:40]!r}")
    return int(text)


# Alibaba's containers


def _containers(path: Path, machine: Machine) -> Published:
    names = ("id", "arrival_s", "vcpus", "memory_gb", "project")
    first: dict[str, tuple[int, str, Sequence[str]]] = {}
    """Container -> time, place and row of the earliest of its records."""
    for place, row in _rows(path):
        at, found = _read(path, place, _container, row, machine)
        known = first.get(found[0])
        if known is None or at < known[0]:
            first[found[0]] = at, place, found
    note = (
        f"Alibaba's container_meta: memory is percent of a machine, taken for {machine.memory_gb:g} GiB (--machine);"
        " a container arrives with its first record and stays"
    )
    return _published(names, [row for _, _, row in first.values()], [place for _, place, _ in first.values()], [note])


def _container(row: Sequence[str], machine: Machine) -> tuple[int, Sequence[str]]:
    """The time of a record, and its cells."""
    if len(row) != len(_CONTAINER):
        raise ValueError(f"{len(row)} fields, but {len(_CONTAINER)} columns")
    told = dict(zip(_CONTAINER, row, strict=True))
    vcpus, at = -(-_whole(told, "cpu_request") // 100), _whole(told, "time_stamp")
    memory = _number(told, "mem_size") / 100 * machine.memory_gb
    return at, (told["container_id"], str(at), str(vcpus), repr(memory), told["app_du"])
