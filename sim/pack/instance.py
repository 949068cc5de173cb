"""Packing instances: equal bins, items, and the files that they come from."""

from __future__ import annotations

import csv
import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...placement.types.errors import InvalidValue, UnknownName

GREATEST: Final = 1 << 40
"""Sizes are at most this many times the finest fraction given in their dimension."""


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """``sizes`` int64[items, dimensions] into bins of ``capacity`` int64[dimensions]. Decimal fractions were scaled to
    whole numbers, one factor a dimension, so that sums are exact. ``labels`` name the items, maybe."""

    name: str
    dimensions: tuple[str, ...]
    capacity: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sizes)


def read(path: Path, *, capacity: Mapping[str, str] | None = None) -> Instance:
    """The instance in a file: ``.vbp`` (dimensions, capacities, items, then a line of sizes and a count for each item),
    or a CSV table with one row an item, packed into bins of ``capacity`` = {column: amount}; either may end in ``.gz``.

    CSV: columns that ``capacity`` does not name are ignored, but ``count`` repeats an item and ``name`` labels it.
    InvalidValue or UnknownName naming file and line. O(file).
    """
    kind = path.name.removesuffix(".gz")
    name = kind.rsplit(".", 1)[0]
    text = _text(path)
    if kind.endswith(".vbp"):
        if capacity:
            raise InvalidValue(f"{path} says itself what a bin holds", field="capacity")
        return _vbp(name, str(path), text)
    if not kind.endswith(".csv"):
        raise InvalidValue(f"{path} is neither a .vbp nor a .csv file", field="files")
    if not capacity:
        raise InvalidValue(f"{path} needs to know what a bin holds", field="capacity", hint="give --bin vcpus=64,...")
    return _table(name, str(path), text, capacity)


def read_archive(path: Path) -> Iterator[Instance]:
    """The instances in a tar archive of ``.vbp`` files, by name. InvalidValue naming file and line. O(archive)."""
    try:
        with tarfile.open(path) as archive:
            members = sorted((each for each in archive if each.name.endswith(".vbp")), key=lambda each: each.name)
            if not members:
                raise InvalidValue(f"{os.fspath(path)} holds no .vbp file", field="files")
            for member in members:
                file = archive.extractfile(member)
                if file is not None:
                    yield _vbp(Path(member.name).stem, f"{path}:{member.name}", file.read().decode())
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, tarfile.TarError) as error:
        raise InvalidValue(f"{os.fspath(path)} cannot be read: {error}", field="files") from None


def read_order(path: Path) -> dict[int, NDArray[np.int32]]:
    """Orders in which items are taken, by number of items: lines of the number and then each item's place in the file,
    from 0. InvalidValue for a line that names no such order. O(file)."""
    orders: dict[int, NDArray[np.int32]] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            count, *order = map(int, words)
        except ValueError:
            raise _bad(str(path), number, "whole numbers are wanted") from None
        if sorted(order) != list(range(count)):
            raise _bad(str(path), number, f"each of 0 to {count - 1} is wanted once")
        orders[count] = np.array(order, np.int32)
    return orders


def parse_capacity(text: str) -> dict[str, str]:
    """``vcpus=64,memory_gb=512`` as a dictionary; InvalidValue if it is none."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, amount = part.partition("=")
        if not name.strip() or not amount.strip() or name.strip() in found:
            raise InvalidValue(f"{text!r:.80} is not of the form vcpus=64,memory_gb=512", field="capacity")
        found[name.strip()] = amount.strip()
    return found


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidValue(f"{os.fspath(path)} cannot be read: {reason}", field="files") from None


def _vbp(name: str, path: str, text: str) -> Instance:
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.split()]
    try:
        (at, [dimensions]), (_, bins), (_, [items]) = lines[:3]
        count = int(dimensions)
        numbers = [[int(word) for word in words] for _, words in lines[3:]]
        capacity = [int(word) for word in bins]
    except ValueError:
        raise InvalidValue(f"{path} is not a .vbp file: expected whole numbers, line by line", field="files") from None
    if count < 1 or len(capacity) != count or min(capacity) < 0 or max(capacity) > GREATEST:
        raise _bad(path, at, f"{dimensions} capacities of 0 to {GREATEST} are wanted")
    if str(len(numbers)) != items:
        raise _bad(path, lines[2][0], f"{items} items are announced, {len(numbers)} are there")
    sizes: list[list[int]] = []
    for (number, _), row in zip(lines[3:], numbers, strict=True):
        if len(row) != count + 1 or not 0 <= row[-1] <= 1_000_000:
            raise _bad(path, number, f"{count} sizes and a count are wanted")
        _check_fits(path, number, row[:-1], capacity)
        sizes += [row[:-1]] * row[-1]
    names = tuple(f"d{number}" for number in range(1, count + 1))
    return Instance(name, names, np.array(capacity, np.int64), np.array(sizes, np.int64).reshape(-1, count))


def _check_fits(path: str, number: int, row: list[int], capacity: list[int]) -> None:
    for size, most in zip(row, capacity, strict=True):
        if not -GREATEST <= size <= most:
            raise _bad(path, number, f"an item of {size} does not fit a bin of {most}")


def _table(name: str, path: str, text: str, capacity: Mapping[str, str]) -> Instance:
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    columns = rows.fieldnames or ()
    for wanted in capacity:
        if wanted not in columns:
            raise UnknownName.among(f"column in {path}:", wanted, columns, field="capacity")
        if list(columns).count(wanted) > 1:
            raise _bad(path, 1, f"column {wanted} is there more than once")
    bins = [_amount("--bin", 0, wanted, amount) for wanted, amount in capacity.items()]
    items, labels = [], []
    for number, (row, repeated) in enumerate(_rows(path, rows), 2):
        sizes = [_amount(path, number, wanted, row[wanted]) for wanted in capacity]
        for wanted, size, most in zip(capacity, sizes, bins, strict=True):
            if size > most:
                raise _bad(path, number, f"{wanted} {size} does not fit a bin of {most}")
        items += [sizes] * repeated
        labels += [row.get("name") or ""] * repeated
    scales = [_scale([most, *(item[d] for item in items)]) for d, most in enumerate(bins)]
    whole = [[int(size * scale) for size, scale in zip(item, scales, strict=True)] for item in items]
    return Instance(
        name,
        tuple(capacity),
        np.array([int(most * scale) for most, scale in zip(bins, scales, strict=True)], np.int64),
        np.array(whole, np.int64).reshape(-1, len(bins)),
        tuple(labels) if any(labels) else (),
    )


def _rows(path: str, rows: csv.DictReader[str]) -> Iterator[tuple[dict[str, str], int]]:
    """Rows with how often each counts."""
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise _bad(path, number, "there are more, or fewer, values than columns")
        count = row.get("count") or "1"
        if not count.isdecimal() or int(count) > 1_000_000:
            raise _bad(path, number, f"count must be a whole number up to 1000000, got {count!r:.30}")
        yield row, int(count)


def _amount(path: str, number: int, column: str, text: str) -> Decimal:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0 or value > GREATEST:
        raise _bad(path, number, f"{column} must be a number of 0 to {GREATEST}, got {text!r:.30}")
    return value


def _scale(values: list[Decimal]) -> Decimal:
    """What makes all values whole."""
    places = max((-int(value.as_tuple().exponent) for value in values), default=0)
    scale = Decimal(10) ** max(places, 0)
    if max(values) * scale > GREATEST:
        raise InvalidValue(f"{max(values)} with {places} decimals is too fine", field="files")
    return scale


def _bad(path: str, number: int, problem: str) -> InvalidValue:
    return InvalidValue(f"{path}, line {number}: {problem}" if number else f"{path}: {problem}", field="files")
