"""Reads traces of guests as workloads: CSV files with columns of any name, Azure's 2017 trace, OpenB's pods, and
journals."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..placement.errors import InvalidValue, UnknownName
from ..placement.gpu import gpu_extra_specs
from ..placement.request import Flavor, RequestSpec
from .azure import read_trace as read_azure
from .csv_columns import Reader, open_text, read_columns
from .journal import is_journal, read_journal
from .workload import ALONE, NEVER, STEP_S, Workload

COLUMNS: Final[Mapping[str, str]] = {
    "arrival_s": "seconds from the beginning",
    "departure_s": "seconds from the beginning; empty: never",
    "lifetime_s": "seconds; empty: forever",
    "flavor": "name of a flavor of the catalogue, in place of sizes",
    "vcpus": "vCPUs",
    "cpu_milli": "thousandths of a CPU, rounded up to whole ones",
    "memory_mb": "MiB",
    "memory_gb": "GiB",
    "disk_gb": "GiB",
    "gpus": "number of GPUs",
    "gpu_milli": "thousandths of each GPU",
    "gpu_models": "A|B",
    "zone": "availability zone; empty: any",
    "batch": "guests asked for together have the same",
    "group": "guests that must not share a host have the same; empty: none",
}
"""What a trace may say of a guest, and in which unit."""
_OPENB: Final = {
    "arrival_s": "creation_time",
    "departure_s": "deletion_time",
    "cpu_milli": "cpu_milli",
    "memory_mb": "memory_mib",
    "gpus": "num_gpu",
    "gpu_milli": "gpu_milli",
    "gpu_models": "gpu_spec",
}


def read_trace(
    path: Path, columns: Mapping[str, str] | None = None, flavors: Mapping[str, Flavor] | None = None
) -> Workload:
    """The workload of a CSV file, gzipped or not, with a row per guest, or of a Hostler service's journal.

    ``columns``: one of COLUMNS -> its name in the file, where that differs. ``flavors``: the catalogue that the column
    flavor names one of. Azure's and OpenB's files are known by their headers, journals by being a folder or a database.
    Times are brought to steps of five minutes: arrivals down, departures up. InvalidValue names the file, line and
    column at fault.
    """
    if is_journal(path):
        if columns or flavors:
            raise InvalidValue(f"{path}: a journal has no columns to be named", field="columns")
        return read_journal(path)
    header = _header(path)
    mapping = dict(columns or {})
    for name in mapping:
        if name not in COLUMNS:
            raise UnknownName.among("trace column", name, COLUMNS, field="columns")
    if not mapping and {"dur_bin", "cens", "vcpu"} <= header:
        return read_azure(path)
    if not mapping and {"num_gpu", "creation_time"} <= header:
        mapping = dict(_OPENB)
    for name in COLUMNS:
        if name in header:
            mapping.setdefault(name, name)
    sized = {"flavor"} if flavors is not None else {"vcpus", "cpu_milli"}
    if "arrival_s" not in mapping or not sized & mapping.keys():
        wanted = "arrival_s, vcpus or cpu_milli, and memory_mb or memory_gb (or a flavor and a catalogue)"
        raise InvalidValue(f"{path}: no {wanted}", field="trace", hint="name columns with --columns vcpus=cpu,...")
    readers = {name: _READERS.get(name, _number) for name in mapping}
    return _workload(path, read_columns(path, readers, field="trace", names=mapping), flavors)


def _header(path: Path) -> set[str]:
    if not path.is_file():
        raise InvalidValue(f"{path}: no such file", field="trace")
    try:
        with open_text(path) as file:
            return set(next(csv.reader(file), []))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidValue(f"{path}: cannot be read: {error}", field="trace") from None


def _number(text: str) -> float | None:
    """A number that is not negative; None where nothing is said."""
    if not text.strip():
        return None
    number = float(text)
    if not 0 <= number <= 2**53:
        raise ValueError(text)
    return number


_READERS: Final[Mapping[str, Reader]] = {"flavor": str, "zone": str, "batch": str, "group": str, "gpu_models": str}


def _workload(path: Path, columns: dict[str, list[Any]], flavors: Mapping[str, Flavor] | None) -> Workload:
    n = len(columns["arrival_s"])
    if not n:
        raise InvalidValue(f"{path}: no guests", field="trace")
    arrival = _whole(path, columns, "arrival_s") // STEP_S * STEP_S
    order = np.argsort(arrival, kind="stable")
    arrival = arrival[order]
    departure = _departures(path, columns, n)[order]
    departure = np.where(departure == NEVER, NEVER, np.maximum(-(-departure // STEP_S) * STEP_S, arrival + STEP_S))
    specs, spec = _specs(path, columns, n) if flavors is None else _named_specs(path, columns, flavors)
    return Workload(
        name=path.name,
        specs=specs,
        arrival_s=arrival,
        departure_s=departure,
        spec=spec[order],
        batch=_numbered(columns.get("batch"), n, arrival)[order],
        group=_groups(columns.get("group"), n)[order],
        standing=0,
        start_s=int(arrival[0]),
        end_s=int(arrival[-1]) + STEP_S,
    )


def _whole(path: Path, columns: Mapping[str, list[Any]], name: str, missing: int | None = None) -> NDArray[np.int64]:
    values = np.array(columns[name], np.float64)
    for line in np.flatnonzero(np.isnan(values)).tolist() if missing is None else ():
        raise InvalidValue(f"{path}, line {line + 2}: {name} is missing", field=f"trace.{name}")
    return np.where(np.isnan(values), -1 if missing is None else missing, values).astype(np.int64)


def _departures(path: Path, columns: Mapping[str, list[Any]], n: int) -> NDArray[np.int64]:
    if "departure_s" in columns:
        return _whole(path, columns, "departure_s", NEVER)
    if "lifetime_s" in columns:
        lifetime = _whole(path, columns, "lifetime_s", NEVER)
        return np.where(lifetime == NEVER, NEVER, _whole(path, columns, "arrival_s") + lifetime)
    return np.full(n, NEVER)


def _specs(path: Path, columns: Mapping[str, list[Any]], n: int) -> tuple[tuple[RequestSpec, ...], NDArray[np.int64]]:
    """One request per shape that occurs, and which of them each guest makes."""
    if not {"memory_mb", "memory_gb"} & columns.keys():
        raise InvalidValue(f"{path}: no memory_mb or memory_gb", field="trace")
    known: dict[tuple[Any, ...], int] = {}
    specs: list[RequestSpec] = []
    which = np.empty(n, np.int64)
    fields = ("vcpus", "cpu_milli", "memory_mb", "memory_gb", "disk_gb", "gpus", "gpu_milli", "gpu_models", "zone")
    lists = [columns.get(name, [None] * n) for name in fields]
    for index, values in enumerate(zip(*lists, strict=True)):
        number = known.get(values)
        if number is None:
            number = known[values] = len(specs)
            specs.append(_spec(path, index + 2, dict(zip(fields, values, strict=True))))
        which[index] = number
    return tuple(specs), which


def _named_specs(
    path: Path, columns: Mapping[str, list[Any]], flavors: Mapping[str, Flavor]
) -> tuple[tuple[RequestSpec, ...], NDArray[np.int64]]:
    """As ``_specs``, of flavors of a catalogue."""
    known: dict[tuple[str, str], int] = {}
    specs: list[RequestSpec] = []
    which: list[int] = []
    zones = columns.get("zone", [""] * len(columns["flavor"]))
    for line, pair in enumerate(zip(columns["flavor"], zones, strict=True), 2):
        if pair not in known:
            if pair[0] not in flavors:
                raise UnknownName.among(f"flavor in {path}, line {line}:", pair[0], flavors, field="trace.flavor")
            known[pair] = len(specs)
            specs.append(RequestSpec(flavor=flavors[pair[0]], availability_zone=pair[1] or None))
        which.append(known[pair])
    return tuple(specs), np.array(which, np.int64)


def _spec(path: Path, line: int, values: Mapping[str, Any]) -> RequestSpec:
    def amount(name: str) -> float:
        value = values[name]
        return 0.0 if value is None else float(value)

    vcpus = math.ceil(amount("vcpus") if values["vcpus"] is not None else amount("cpu_milli") / 1000)
    memory_mb = math.ceil(amount("memory_mb") if values["memory_mb"] is not None else amount("memory_gb") * 1024)
    gpus, milli = int(amount("gpus")), int(amount("gpu_milli"))
    if vcpus < 1 or max(vcpus, memory_mb) > 2**31 - 1 or milli > 1000 or gpus > 64:
        raise InvalidValue(
            f"{path}, line {line}: a guest of {vcpus} vCPUs, {memory_mb} MiB, {gpus} GPUs", field="trace"
        )
    milli = milli if values["gpu_milli"] is not None else 1000
    extra = gpu_extra_specs(milli, gpus, values["gpu_models"] or "")
    gpu = f"+{gpus}x{milli}" if extra else ""
    flavor = Flavor(
        name=f"{vcpus}x{memory_mb}{gpu}",
        vcpus=vcpus,
        memory_mb=memory_mb,
        root_gb=math.ceil(amount("disk_gb")),
        extra_specs=extra,
    )
    return RequestSpec(flavor=flavor, availability_zone=values["zone"] or None)


def _numbered(values: list[str] | None, n: int, arrival: NDArray[np.int64]) -> NDArray[np.int64]:
    if values is None:
        return np.arange(n)
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)


def _groups(values: list[str] | None, n: int) -> NDArray[np.int64]:
    if values is None:
        return np.full(n, ALONE)
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) if value else ALONE for value in values], np.int64)
