"""Writes reports of runs: a self-contained HTML file, pictures, tables and JSON."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from ...placement.types.errors import InvalidValue
from .findings import Report
from .libraries import library
from .page import write_html
from .picture import write_picture


def write(report: Report, path: Path) -> None:
    """Write the report in the form that the ending names: .html, .json, .csv, .parquet, .png or .svg.

    InvalidValue for another ending, for a library that is not installed, or a path that cannot be written.
    """
    check([path])
    try:
        _WRITERS[path.suffix](report, path)
    except OSError as error:
        raise InvalidValue(f"{path}: cannot be written: {error}", field="report") from None


def check(paths: Iterable[Path]) -> None:
    """InvalidValue for reports that could not be written, before hours are spent on what they are to tell."""
    for path in paths:
        if path.suffix not in _WRITERS:
            raise InvalidValue(f"{path}: a report ends with {', '.join(_WRITERS)}", field="report")
        if not path.parent.is_dir() or path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise InvalidValue(f"{path}: cannot be written", field="report", hint="a file in a folder that is there")
        for name in _NEEDS.get(path.suffix, ()):
            library(name)


def rows(report: Report) -> list[dict[str, Any]]:
    """All samples of all outcomes as rows of plain values."""
    found = []
    for number, outcome in enumerate(report.outcomes):
        for sample in outcome.samples:
            row: dict[str, Any] = {
                "run": number,
                "policy": outcome.policy,
                "cpu_ratio": outcome.cpu_ratio,
                "seed": outcome.seed,
                "hosts": outcome.hosts,
            }
            row |= {
                "hours": sample.hours,
                "guests": sample.guests,
                "waiting": sample.waiting,
                "refused": sample.refused,
                "hosts_down": sample.hosts_down,
            }
            row["stranded_percent"] = sample.stranded_percent
            for zone, used in sample.used_percent.items():
                row |= {f"{zone}_{resource}_percent": value for resource, value in used.items()}
            found.append(row)
    return found


def _write_csv(report: Report, path: Path) -> None:
    table = rows(report)
    columns = list(dict.fromkeys(name for row in table for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def _write_parquet(report: Report, path: Path) -> None:
    arrow, parquet = library("pyarrow"), library("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(rows(report)), path)


def _write_json(report: Report, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


_WRITERS: Final = {
    ".html": write_html,
    ".json": _write_json,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".png": write_picture,
    ".svg": write_picture,
}

_NEEDS: Final = {
    ".html": ("bokeh.plotting",),
    ".parquet": ("pyarrow.parquet",),
    ".png": ("matplotlib.pyplot",),
    ".svg": ("matplotlib.pyplot",),
}

__all__ = ["Report", "check", "rows", "write"]
