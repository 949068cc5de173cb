"""Reads a trace of Azure's 2017 guests as a workload: every arrival, tenant batch and lifetime, none left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...placement.types.errors import InvalidValue
from ...placement.types.request import Flavor, RequestSpec
from .csv_columns import MOST, Kept, Reader, Texts, read_chunks, values, whole
from .rows import place_of
from .workload import ALONE, NEVER, STEP_S, Workload

BINS: Final = "duration_bins.csv.gz"
"""Beside every trace: which lifetimes its bins hold."""


def read_trace(path: Path) -> Workload:
    """The workload of ``path``, a CSV file with a row per guest, gzipped or not; BINS lies beside it.

    A guest lives as long as its bin allows, one step at least; one that still ran at the trace's edge (cens C) never
    departs. InvalidValue names the file, line and column at fault.
    """
    if not path.exists():
        raise InvalidValue(f"{path}: no such file", field="trace")
    if not path.with_name(BINS).exists():
        hint = "the lifetimes that the trace's bins stand for must lie beside it"
        raise InvalidValue(f"{path.with_name(BINS)}: no such file", field="trace", hint=hint)
    bins = _read(path.with_name(BINS), {"dur_bin": whole, "max_s": whole})
    longest = dict(zip(bins["dur_bin"].tolist(), bins["max_s"].tolist(), strict=True))
    readers: dict[str, Reader] = {
        "arrival_s": whole,
        "batch": whole,
        "vcpu": whole,
        "mem_gb": float,
        "cens": {"U": 0.0, "C": 1.0}.__getitem__,
        "dur_bin": lambda text: longest[int(text)],
    }
    rows = _read(path, readers)
    _check(path, rows)
    arrival_s = rows["arrival_s"].astype(np.int64)
    lifetime_s = np.maximum(rows["dur_bin"].astype(np.int64), STEP_S)
    specs, spec = _specs(rows["vcpu"], rows["mem_gb"])
    return Workload(
        name=path.name,
        specs=specs,
        arrival_s=arrival_s,
        departure_s=np.where(rows["cens"] != 0, NEVER, arrival_s + lifetime_s),
        spec=spec,
        batch=rows["batch"].astype(np.int64),
        group=np.full(len(arrival_s), ALONE),
        standing=0,
        start_s=int(arrival_s[0]),
        end_s=int(arrival_s[-1]) + STEP_S,
    )


def _specs(
    vcpus: NDArray[np.float64], memory_gb: NDArray[np.float64]
) -> tuple[tuple[RequestSpec, ...], NDArray[np.int64]]:
    """One request per flavor that occurs, and which of them each guest makes."""
    cpus, which_cpus = np.unique(vcpus, return_inverse=True)
    memory_mb, which_memory = np.unique(memory_gb * 1024, return_inverse=True)
    shapes, spec = np.unique(which_cpus * len(memory_mb) + which_memory, return_inverse=True)
    pairs = zip(cpus[shapes // len(memory_mb)].tolist(), memory_mb[shapes % len(memory_mb)].tolist(), strict=True)
    flavors = [Flavor(name=f"{vcpu:.0f}x{mb:.0f}", vcpus=int(vcpu), memory_mb=int(mb)) for vcpu, mb in pairs]
    return tuple(RequestSpec(flavor=flavor) for flavor in flavors), spec.astype(np.int64)


def _check(path: Path, rows: Mapping[str, NDArray[np.float64]]) -> None:
    """InvalidValue for a malformed row, or one that is out of order."""
    if not len(rows["arrival_s"]):
        raise InvalidValue(f"{path}: no guests", field="trace")
    wrong = {
        "arrival_s": np.diff(rows["arrival_s"], prepend=0) < 0,
        "vcpu": rows["vcpu"] < 1,
        "mem_gb": ~((rows["mem_gb"] * 1024 >= 1) & (rows["mem_gb"] * 1024 <= MOST)),
    }
    wrong["arrival_s"] |= rows["arrival_s"] % STEP_S != 0
    for name, where in wrong.items():
        if np.any(where):
            row = int(np.argmax(where))
            hint = f"arrivals rise in steps of {STEP_S} s" if name == "arrival_s" else None
            problem = f"{path}, {place_of(path, row, field='trace')}: {name} is {rows[name][row]:.15g}"
            raise InvalidValue(problem, field=f"trace.{name}", hint=hint)


def _read(path: Path, columns: Mapping[str, Reader]) -> dict[str, NDArray[np.float64]]:
    """The named columns of a CSV file as numbers."""

    def convert(texts: Texts) -> dict[str, NDArray[np.float64]]:
        return {name: np.array(values(texts[name], name, read), np.float64) for name, read in columns.items()}

    kept = Kept()
    for chunk in read_chunks(path, {name: name for name in columns}, convert, field="trace"):
        kept.add(chunk)
    return kept.columns()
