"""Files as tables, by content and not by name: CSV of any delimiter and encoding, Excel workbooks, JSON, JSON lines and
Parquet, also compressed by gzip or zstandard. It knows no platform."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import chain, count, islice, zip_longest
from pathlib import Path
from typing import Any, Final

from ...placement.types.errors import InvalidValue
from ...placement.types.extras import import_extra

MOST_BYTES: Final = 2 << 30
"""Bytes of a file after decompression at most."""
_PIECE: Final = 65_536
"""Bytes that are decompressed at once."""
_DELIMITERS: Final = ",;\t|"
_TITLES: Final = 10
"""Rows among which the header is."""
_TRUE: Final = frozenset(
    {"true", "wahr", "vrai", "verdadero", "vero", "waar", "yes", "ja", "oui", "t", "1", "1.0", "on"}
)
_EITHER: Final = re.compile(r"[-+]?[1-9]\d{0,2}[.,]\d{3}")
"""A number whose mark may stand between thousands or before decimals."""
_COMMA: Final = re.compile(r"[-+]?(?:\d+|\d{1,3}(?:\.\d{3})+),\d+")
"""A number with one comma, perhaps behind points between thousands."""
_POINT: Final = re.compile(r"[-+]?(?:\d+|\d{1,3}(?:,\d{3})+)\.\d+")


@dataclass(frozen=True, slots=True)
class Line:
    """One row: where it is (``line`` counts from 1 as an editor does; the objects of a list in JSON, the rows of a
    Parquet file), and its cells by column."""

    file: str
    line: int
    cells: Mapping[str, Any]
    comma: frozenset[str] = frozenset()
    """Columns whose numbers have a decimal comma."""

    def has(self, *names: str) -> bool:
        """True if the line has one of the columns."""
        return any(folded(name) in self.cells for name in names)

    def get(self, *names: str) -> Any:
        """The first cell that is not empty, by column name in upper or lower case; None if there is none."""
        for name in names:
            value = self.cells.get(folded(name))
            if value is not None and value != "":
                return value
        return None

    def text(self, *names: str) -> str:
        """A cell as text, empty if there is none."""
        value = self.get(*names)
        return "" if value is None else str(value).strip()

    def number(self, *names: str) -> float | None:
        """A cell as a number; None if there is none. ValueError, with the column, if it is not a number."""
        value = self.get(*names)
        if value is None:
            return None
        try:
            if isinstance(value, (int, float)):
                if math.isfinite(value):
                    return value
                raise ValueError("not finite")
            comma = any(folded(name) in self.comma for name in names if self.cells.get(folded(name)) is value)
            return number(str(value), comma=comma)
        except (ValueError, OverflowError):
            raise ValueError(f"{names[0]} is {value!r:.60}, not a number") from None

    def flag(self, *names: str) -> bool:
        """A cell as true or false, in the words of Excel in English, German, French, Spanish, Italian or Dutch."""
        value = self.get(*names)
        return value if isinstance(value, bool) else str(value).strip().lower() in _TRUE


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one sheet or file. ``name``: of the sheet, else of the file without its ending."""

    file: str
    name: str
    columns: tuple[str, ...]
    lines: Sequence[Line]

    def has(self, *columns: str) -> bool:
        """True if all columns are there."""
        return set(map(folded, columns)) <= set(map(folded, self.columns))


@lru_cache(maxsize=4096)
def folded(name: str) -> str:
    """The name of a column in lower case, without blanks around it: exports differ in them."""
    return name.strip().casefold()


def line_of(
    file: str, number: int, columns: Sequence[str], cells: Sequence[Any], *, comma: frozenset[str] = frozenset()
) -> Line:
    """A line of such columns; of those that are there twice, the first counts. NaN is a cell without anything."""
    told: dict[str, Any] = {}
    for name, cell in zip(columns, cells, strict=False):
        told.setdefault(folded(name), None if cell != cell else cell)
    return Line(file, number, told, comma)


def titles_before(rows: Iterable[Sequence[Any]]) -> int:
    """How many rows before the header are titles: with one cell at most, where one of the next rows has more."""
    for at, row in enumerate(islice(rows, _TITLES)):
        if sum(cell is not None and cell != "" for cell in row) > 1:
            return at
    return 0


def number(text: str, *, comma: bool) -> float:
    """A number as people write it: with separators of thousands, a decimal point or a decimal comma. ``comma`` decides
    where one mark may be either (``1.024``, ``1,024``). ValueError if it is none."""
    plain = re.sub(r"[\s\u00a0\u202f'\u2019]", "", text)
    last = max(".,", key=plain.rfind)
    # A mark that is there twice stands between thousands.
    comma_decimal = comma if _EITHER.fullmatch(plain) else (last == ",") == (plain.count(last) < 2)
    thousands, decimal = (".", ",") if comma_decimal else (",", ".")
    whole, mark, part = plain.partition(decimal)
    if thousands in whole and not re.fullmatch(rf"[-+]?\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+", whole):
        raise ValueError(f"{text} is not a number")
    found = float(whole.replace(thousands, "") + (f".{part}" if mark else ""))
    if found != found or found in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is not a finite number")
    return found


def content(path: Path) -> bytes:
    """The bytes of a file, decompressed. InvalidValue if it cannot be read, or is too large."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror}", field="files") from None
    try:
        while True:
            if data[:2] == b"\x1f\x8b":
                data = _limited(gzip.GzipFile(fileobj=io.BytesIO(data)), path)
            elif data[:4] == b"\x28\xb5\x2f\xfd":
                data = _unzstandard(data, path)
            else:
                return data
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InvalidValue(f"{path} is damaged: {error}", field="files") from None


def _limited(stream: Any, path: Path) -> bytes:
    data: bytes = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise _too_large(path)
    return data


def _too_large(path: Path) -> InvalidValue:
    return InvalidValue(f"{path} has more than {MOST_BYTES >> 30} GiB after decompression", field="files")


def _unzstandard(data: bytes, path: Path) -> bytes:
    """The content of frames of zstandard. EOFError where the last one is cut off, which the library's own reader takes
    for the end; OSError for damage."""
    zstandard = import_extra("zstandard", "imports", field="files")
    found, size = [], 0
    try:
        while data:
            frame = zstandard.ZstdDecompressor().decompressobj()
            for at in range(0, len(data), _PIECE):
                found.append(frame.decompress(data[at : at + _PIECE]))
                size += len(found[-1])
                if size > MOST_BYTES:
                    raise _too_large(path)
                if frame.eof:
                    data = frame.unused_data + data[at + _PIECE :]
                    break
            else:
                raise EOFError("it ends before the end of its last frame")
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from None
    return b"".join(found)


def tables(path: Path) -> list[Table]:
    """The tables of a file. InvalidValue if it is not a file of tables."""
    data = content(path)
    if data[:4] == b"PK\x03\x04":
        return _workbook(path, data)
    if data[:4] == b"PAR1":
        return [_parquet(path, data)]
    text = decoded(data)
    if text.lstrip()[:1] in ("{", "["):
        return _json(path, text)
    return [_csv(path, text)]


def decoded(data: bytes) -> str:
    """Text in the encoding that it says or looks like: a byte order mark, UTF-8, else Windows' Western European."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    for at, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if data[at : at + 1] == data[at + 2 : at + 3] == b"\0" != data[1 - at : 2 - at]:
            return data.decode(encoding, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _csv(path: Path, text: str) -> Table:
    lines = list(io.StringIO(text, newline=""))
    skipped = 0
    while lines and (lines[0].startswith("#TYPE") or re.fullmatch(r"sep=.\s*", lines[0]) or not lines[0].strip()):
        lines, skipped = lines[1:], skipped + 1
    if not lines:
        raise InvalidValue(f"{path} is empty", field="files")
    titles = titles_before(re.split(f"[{_DELIMITERS}]", line.strip()) for line in lines)
    lines, skipped = lines[titles:], skipped + titles
    delimiter = max(_DELIMITERS, key=lambda mark: (lines[0].count(mark), -_DELIMITERS.index(mark)))
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        columns = [name.strip() for name in next(reader)]
        rows = [(skipped + reader.line_num, row) for row in reader if any(row)]
    except csv.Error as error:
        raise InvalidValue(f"{path} is not a CSV file: {error}", field="files") from None
    comma = _comma_columns(columns, rows, delimiter)
    made = [line_of(path.name, line, columns, row, comma=comma) for line, row in rows]
    return Table(path.name, path.name.partition(".")[0], tuple(columns), made)


def _comma_columns(columns: Sequence[str], rows: Sequence[tuple[int, list[str]]], delimiter: str) -> frozenset[str]:
    """The columns whose numbers have a decimal comma: one is seen in the column, or, where the column does not tell,
    in others and no decimal point. Of what does not tell at all, a file with commas for delimiters has points."""
    seen: dict[str, str] = {}
    doubtful: set[str] = set()
    for name, cells in zip(columns, zip_longest(*(row for _, row in rows), fillvalue=""), strict=False):
        for cell in map(str.strip, cells):
            if "," not in cell and "." not in cell:
                continue
            if _EITHER.fullmatch(cell):
                doubtful.add(folded(name))
            elif _COMMA.fullmatch(cell):
                seen[folded(name)] = ","
            elif _POINT.fullmatch(cell):
                seen.setdefault(folded(name), ".")
    told = set(seen.values())
    others = told == {","} or (not told and delimiter != ",")
    return frozenset(name for name in doubtful | seen.keys() if seen.get(name, "," if others else ".") == ",")


def _json_lines(path: Path, text: str, whole: ValueError | RecursionError) -> list[tuple[int, Any]]:
    """The values of JSON lines, with the numbers of the lines. InvalidValue with the line at fault if the first is a
    value, else with what is wrong of the ``whole``."""
    found: list[tuple[int, Any]] = []
    for at, line in enumerate(text.split("\n"), 1):
        try:
            found += [(at, json.loads(line))] if line.strip() else []
        except (ValueError, RecursionError) as error:
            if found and isinstance(error, json.JSONDecodeError):
                problem = f"{path}:{at} is not JSON: {error.msg}, column {error.colno}"
                raise InvalidValue(problem, field="files") from None
            told = "nested too deeply" if isinstance(whole, RecursionError) else whole
            raise InvalidValue(f"{path} is not JSON: {told}", field="files") from None
    return found


def _json(path: Path, text: str) -> list[Table]:
    numbers: Iterable[int] | None = None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as whole:
        lines = _json_lines(path, text, whole)
        numbers, value = [at for at, _ in lines], [each for _, each in lines]
    if isinstance(value, dict):
        value = next((value[key] for key in ("data", "value", "results") if isinstance(value.get(key), list)), [value])
    rows = [(at, row) for at, row in zip(numbers or count(1), value, strict=False) if isinstance(row, dict)]
    if not rows and value:
        raise InvalidValue(f"{path} holds no objects", field="files")
    columns = tuple(dict.fromkeys(key for _, row in rows for key in row))
    made = [line_of(path.name, at, list(row), list(row.values())) for at, row in rows]
    return [Table(path.name, path.name.partition(".")[0], columns, made)]


def _workbook(path: Path, data: bytes) -> list[Table]:
    openpyxl = import_extra("openpyxl", "imports", field="files")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > MOST_BYTES:
            raise _too_large(path)
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        found = []
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # which some programs write wrong, and rows would be cut by
            found.append(_sheet(path, sheet.title, sheet.iter_rows(values_only=True)))
    except InvalidValue:
        raise
    except Exception as error:  # a library that reads what others wrote raises what it likes
        raise InvalidValue(f"{path} is not a workbook: {error}", field="files") from None
    return [table for table in found if table is not None]


def _sheet(path: Path, title: str, rows: Iterator[tuple[Any, ...]]) -> Table | None:
    begun = list(islice(rows, _TITLES))
    if not begun:
        return None
    at = titles_before(begun)
    columns = tuple("" if name is None else str(name).strip() for name in begun[at])
    lines = [
        line_of(f"{path.name}[{title}]", number, columns, row)
        for number, row in enumerate(chain(begun[at + 1 :], rows), at + 2)
        if any(cell is not None for cell in row)
    ]
    return Table(path.name, title, columns, lines)


def _parquet(path: Path, data: bytes) -> Table:
    parquet = import_extra("pyarrow.parquet", "imports", field="files")
    try:
        found = parquet.read_table(io.BytesIO(data))
        columns = tuple(found.column_names)
        rows = zip(*(map(_plain, _python(column)) for column in found.columns), strict=True)
        lines = [line_of(path.name, at, columns, row) for at, row in enumerate(rows, 1)]
    except Exception as error:
        raise InvalidValue(f"{path} is not a Parquet file: {error}", field="files") from None
    return Table(path.name, path.name.partition(".")[0], columns, lines)


def _python(column: Any) -> list[Any]:
    """The cells of a column; whole numbers in place of times that Python's types cannot hold."""
    cells: list[Any] = (column.cast("int64") if getattr(column.type, "unit", "") == "ns" else column).to_pylist()
    return cells


def _plain(cell: Any) -> Any:
    """A cell with text in place of bytes, which some programs write for it, and a float in place of a decimal."""
    if isinstance(cell, bytes):
        return decoded(cell)
    return float(cell) if isinstance(cell, Decimal) else cell
