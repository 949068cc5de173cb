"""Reads named columns of a CSV file, gzipped or not, some rows at a time; errors name the file, line and column."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...placement.types.errors import HostlerError, InvalidValue
from ...placement.types.extras import import_extra
from ..progress import reading

MOST: Final = 2**31 - 1
"""Greatest number of anything, seconds and MiB included."""
CHUNK: Final = 1_000
"""Rows that are in memory as texts."""

Reader = Callable[[str], Any]
Texts = Mapping[str, Sequence[str]]
"""What stands in some rows, by column."""
_T = TypeVar("_T")
_DECIMAL_COMMA: Final = re.compile(r"^(-?\d+),(\d+)$")
_UNREADABLE: Final = (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error)


class Wrong(ValueError):
    """What a row says cannot be: of ``column``, or of the row itself if that is empty, with the ``problem`` in words,
    and the ``kind`` of error that is to tell it."""

    def __init__(
        self, column: str, problem: str, *, hint: str | None = None, kind: type[HostlerError] = InvalidValue
    ) -> None:
        super().__init__(problem)
        self.column, self.problem, self.hint, self.kind = column, problem, hint, kind


def read_columns(
    path: Path,
    readers: Mapping[str, Reader],
    *,
    field: str,
    names: Mapping[str, str] | None = None,
    optional: Sequence[str] = (),
) -> dict[str, list[Any]]:
    """The columns that ``readers`` names, in the order of the file.

    ``names`` says what a column is called in the file if not by its own name. An ``optional`` column that is not there
    is left out. InvalidValue with ``field`` for what cannot be read. O(file).
    """
    names = {name: (names or {}).get(name, name) for name in readers}

    def convert(texts: Texts) -> dict[str, list[Any]]:
        return {name: values(texts[name], name, readers[name]) for name in texts}

    columns: dict[str, list[Any]] = {}
    for chunk in read_chunks(path, names, convert, field=field, optional=optional):
        for name, column in chunk.items():
            columns.setdefault(name, []).extend(column)
    return columns


def read_chunks(
    path: Path, names: Mapping[str, str], convert: Callable[[Texts], _T], *, field: str, optional: Sequence[str] = ()
) -> Iterator[_T]:
    """What ``convert`` makes of the columns ``names`` = {name: what it is called in the file}, of CHUNK rows at a time,
    and of no rows first. A longer file moves a bar on a terminal.

    ``convert`` raises Wrong for what cannot be, and must not mind being called again with rows it has seen: with each
    row alone, to find the first at fault. Rows without anything are left out, also by the places of rows; a row may
    have more fields than there are columns only if they are empty. InvalidValue with ``field`` for what cannot be read.
    O(file), and memory for a chunk.
    """
    with _checked(path, field), opened(path) as (file, at_byte), reading(path) as advance:
        rows = rows_of(file)
        header = [name.strip() for name in next(rows, [])]
        places = _places(path, header, names, field, optional)
        yield convert(dict.fromkeys(places, ()))
        before = 0
        while chunk := list(islice(rows, CHUNK)):
            told = [row for row in chunk if row]
            try:
                yield convert(_texts(told, len(header), places))
            except Wrong:
                raise _first_wrong(path, told, before, len(header), places, names, convert, field) from None
            before += len(told)
            advance(at_byte())


class Kept:
    """Columns that grow by chunks, in little more memory than they need."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, NDArray[Any]] = {}

    def add(self, chunk: Mapping[str, NDArray[Any]]) -> None:
        """Keep the rows that come next: the same columns as before, of the same types."""
        end = self.rows
        for name, rows in chunk.items():
            kept, end = self._columns.setdefault(name, np.empty(0, rows.dtype)), self.rows + len(rows)
            if end > len(kept):
                # In place where the system can move pages: there are never two copies.
                kept.resize(max(end, len(kept) + len(kept) // 8), refcheck=False)
            kept[self.rows : end] = rows
        self.rows = end

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns of all rows, which are not kept here any more."""
        columns, self._columns = self._columns, {}
        for column in columns.values():
            column.resize(self.rows, refcheck=False)
        return columns


def values(texts: Sequence[str], column: str, read: Reader) -> list[Any]:
    """What ``read`` makes of each text, the same of the same; Wrong if it raises KeyError or ValueError for one."""
    different = set(texts)
    try:
        if 2 * len(different) > len(texts):
            return list(map(read, texts))
        known = {text: read(text) for text in different}
        return list(map(known.__getitem__, texts))
    except (KeyError, ValueError):
        text = texts[0] if len(texts) == 1 else ""
        raise Wrong(column, f"is {text[:40]!r}") from None


def whole(text: str) -> int:
    """A whole number from 0 to MOST; ValueError otherwise."""
    number = int(text)
    if not 0 <= number <= MOST:
        raise ValueError(f"{text} is out of range")
    return number


def whole_or_0(text: str) -> int:
    """As ``whole``; nothing counts as 0."""
    return whole(text) if text else 0


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[str], Callable[[], int]]]:
    """A file open as text, by its content and not its name: CSV, also compressed by gzip or zstandard, with or without
    a byte-order mark, or the rows of a Parquet file as CSV; and what tells how many of its bytes have been read."""
    with path.open("rb") as raw:
        begun = raw.read(4)
        raw.seek(0)
        if begun == b"PAR1":
            yield _parquet_text(path, raw), raw.tell
            return
        plain: Any = raw
        if begun[:2] == b"\x1f\x8b":
            plain = gzip.GzipFile(fileobj=raw)
        elif begun == b"\x28\xb5\x2f\xfd":
            plain = import_extra("zstandard", "imports", field="trace").ZstdDecompressor().stream_reader(raw)
        with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as text:
            yield text, raw.tell


def _parquet_text(path: Path, raw: IO[bytes]) -> IO[str]:
    """The rows of a Parquet file as CSV."""
    parquet = import_extra("pyarrow.parquet", "imports", field="trace")
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    try:
        file = parquet.ParquetFile(raw)
        writer.writerow(file.schema_arrow.names)
        for batch in file.iter_batches():
            writer.writerows(zip(*(_plain(column.to_pylist()) for column in batch.columns), strict=True))
    except (OSError, ValueError) as error:
        raise InvalidValue(f"{path}: no Parquet file: {error}", field="trace") from None
    text.seek(0)
    return text


def _plain(cells: Sequence[Any]) -> list[Any]:
    """Cells as CSV has them: nothing for null, dates of ISO 8601."""
    return ["" if cell is None else cell.isoformat() if hasattr(cell, "isoformat") else cell for cell in cells]


def rows_of(file: IO[str]) -> Rows:
    """The rows of a CSV file whose fields commas, semicolons or tabs separate, as its first line tells; where it is not
    commas, numbers may have a decimal comma."""
    first = file.readline()
    delimiter = max(",;\t", key=lambda mark: (first.count(mark), -",;\t".index(mark)))
    rows = csv.reader(itertools.chain([first] if first else [], file), delimiter=delimiter, skipinitialspace=True)
    return Rows(rows, decimal_comma=delimiter != ",")


class Rows:
    """Rows of a reader, with the number of the line that the last one ended on."""

    def __init__(self, rows: Any, *, decimal_comma: bool) -> None:
        self._rows, self._comma = rows, decimal_comma

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        row: list[str] = next(self._rows)
        return [_DECIMAL_COMMA.sub(r"\1.\2", cell) for cell in row] if self._comma else row

    @property
    def line_num(self) -> int:
        """The line on which the last row ended."""
        number: int = self._rows.line_num
        return number


def read_header(path: Path, *, field: str) -> list[str]:
    """What the columns of a file are called. InvalidValue with ``field`` for what cannot be read."""
    with _checked(path, field), opened(path) as (file, _):
        return [name.strip() for name in next(rows_of(file), [])]


@contextmanager
def _checked(path: Path, field: str) -> Iterator[None]:
    if not path.is_file():
        raise InvalidValue(f"{path}: no such file", field=field)
    try:
        yield
    except _UNREADABLE as error:
        raise InvalidValue(f"{path}: cannot be read: {error}", field=field) from None


def _places(
    path: Path, header: Sequence[str], names: Mapping[str, str], field: str, optional: Sequence[str]
) -> dict[str, int]:
    """Column -> its place in a row."""
    missing = [called for name, called in names.items() if called not in header and name not in optional]
    if missing:
        raise InvalidValue(f"{path}: no column {', '.join(missing)}", field=field, hint=columns_hint(header))
    for called in names.values():
        if header.count(called) > 1:
            raise InvalidValue(f"{path}: column {called} is there {header.count(called)} times", field=field)
    return {name: header.index(called) for name, called in names.items() if called in header}


def columns_hint(header: Sequence[str]) -> str:
    """Words that say which columns a file has."""
    return f"the columns are {', '.join(header)[:200]}" if header else "the file is empty"


def _texts(rows: Sequence[Sequence[str]], width: int, places: Mapping[str, int]) -> Texts:
    if set(map(len, rows)) - {width}:
        for row in rows:
            _check_width(row, width, places)
    return {name: list(map(itemgetter(place), rows)) for name, place in places.items()}


def _check_width(row: Sequence[str], width: int, places: Mapping[str, int]) -> None:
    if any(row[width:]):
        raise Wrong("", f"{len(row)} fields, but {width} columns", hint="fields with commas in them are quoted")
    for name, place in places.items():
        if place >= len(row):
            raise Wrong(name, f"is missing, there are {len(row)} fields")


def _first_wrong(
    path: Path,
    rows: Sequence[Sequence[str]],
    before: int,
    width: int,
    places: Mapping[str, int],
    names: Mapping[str, str],
    convert: Callable[[Texts], Any],
    field: str,
) -> HostlerError:
    """The error of the first row at fault; so many rows were ``before``."""
    for place, row in enumerate(rows):
        try:
            convert(_texts([row], width, places))
        except Wrong as wrong:
            column = wrong.column
            words = f"{names[column]} {wrong.problem}" if column else wrong.problem
            problem = f"{path}, line {line_of(path, before + place)}: {words}"
            return wrong.kind(problem, field=f"{field}.{column}" if column else field, hint=wrong.hint)
    raise AssertionError("rows that are wrong together but not alone")


def line_of(path: Path, row: int) -> int:
    """The line on which a row ends, counted from 0 after the header, without rows that are empty. O(file)."""
    with opened(path) as (file, _):
        rows = rows_of(file)
        next(islice(filter(None, rows), row + 1, None))
        return rows.line_num
