"""Writes usage and cost rows as CSV or Parquet, as they come."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from ...placement.types.errors import InvalidValue
from ..run.charges import COLUMNS
from .libraries import library

ROWS: Final = 50_000
"""Rows of Parquet that are in memory."""
_NUMBERS: Final = {
    *("BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "ConsumedQuantity", "PricingQuantity"),
}


def check_rows(path: Path) -> None:
    """InvalidValue for a file that rows could not be written to."""
    if path.suffix not in (".csv", ".parquet"):
        raise InvalidValue(f"{path}: rows are written to .csv or .parquet", field="focus")
    if not path.parent.is_dir() or path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidValue(f"{path}: cannot be written", field="focus", hint="a file in a folder that is there")
    if path.suffix == ".parquet":
        library("pyarrow.parquet")


def write_rows(rows: Iterable[dict[str, Any]], path: Path) -> int:
    """Write rows; how many they are. InvalidValue for a path that cannot be written."""
    check_rows(path)
    try:
        return _csv(rows, path) if path.suffix == ".csv" else _parquet(rows, path)
    except OSError as error:
        raise InvalidValue(f"{path}: cannot be written: {error}", field="focus") from None


def _csv(rows: Iterable[dict[str, Any]], path: Path) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row)
            count += 1
    return count


def _parquet(rows: Iterable[dict[str, Any]], path: Path) -> int:
    arrow, parquet = library("pyarrow"), library("pyarrow.parquet")
    fields = [arrow.field(name, arrow.float64() if name in _NUMBERS else arrow.string()) for name in COLUMNS]
    schema, count, each = arrow.schema(fields), 0, iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while part := list(itertools.islice(each, ROWS)):
            writer.write_table(arrow.Table.from_pylist(part, schema=schema))
            count += len(part)
    return count
