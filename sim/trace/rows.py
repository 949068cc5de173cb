"""Rows of a table in a file, by what is in it and not by its name: CSV, Parquet, an Excel workbook, JSON lines or a
list in JSON, also compressed by gzip or zstandard. Cells are texts; it knows no columns."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from ...placement.types.errors import InvalidValue
from ...placement.types.extras import import_extra

_DECIMAL_COMMA: Final = re.compile(r"-?(?:\d+|\d{1,3}(?:\.\d{3})+),\d+")
"""A number with a decimal comma, perhaps with points between thousands."""
_DECIMAL_POINT: Final = re.compile(r"-?\d+\.\d+")
_THOUSANDS: Final = re.compile(r"-?[1-9]\d{0,2}(?:\.\d{3})+")
"""A number with what may be points between thousands."""
_SEPARATOR: Final = re.compile(r"sep=(.)\s*", re.IGNORECASE)
"""The line before the header by which a file tells Excel its delimiter."""
_UNREADABLE: Final = (OSError, EOFError, UnicodeError, zlib.error, csv.Error)
MOST_BYTES: Final = 2 << 30
"""Bytes of a workbook after decompression at most."""
_WESTERN: Final = "hostler.western"
"""Bytes that are not UTF-8 are taken for Windows' Western European, by this name of a handler of errors."""
_LOOKED_AT: Final = 1_000
"""Objects of JSON lines by which their columns are known."""
_PIECE: Final = 16_384
"""Bytes that are decompressed at once."""
_COPIED: Final = 1 << 20
_LAYERS: Final = 4
"""Times that a file may be compressed."""
_JOINED: Final = ("resources", "extra_specs")
"""Columns whose objects are written A=1|B=2; those of others are columns of their own, with a dot."""


def _western(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError) or error.encoding.lower() not in ("utf-8", "utf-8-sig"):
        raise error
    try:
        return error.object[error.start : error.end].decode("cp1252"), error.end
    except UnicodeDecodeError:
        raise error from None


codecs.register_error(_WESTERN, _western)


class Rows:
    """The rows of a table, the header first; ``line_num``: the number of the last one, of ``word``s of the file."""

    def __init__(self, rows: Iterable[tuple[int, list[str]]], word: str, at_byte: Callable[[], int]) -> None:
        self._rows, self.word, self.at_byte = iter(rows), word, at_byte
        self.line_num = 0

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        self.line_num, row = next(self._rows)
        return row


@contextmanager
def opened(path: Path, *, field: str) -> Iterator[Rows]:
    """A file, open as a table. Its rows are read as they are asked for, but of a list in JSON, which is read whole.
    InvalidValue with ``field`` for what cannot be read, there and in the body."""
    if not path.is_file():
        raise InvalidValue(f"{path}: no such file", field=field)
    try:
        with path.open("rb") as raw:
            plain = decompressed(raw, field)
            begun = plain.peek(4)[:4]
            if begun in (b"PAR1", b"PK\x03\x04"):
                whole: IO[bytes] = raw if plain is raw else io.BytesIO(plain.read())
                rows, word = (_parquet if begun == b"PAR1" else _workbook)(path, whole, field), "row"
                yield Rows(rows, word, raw.tell)
                return
            with io.TextIOWrapper(plain, encoding=_encoding(begun), errors=_WESTERN, newline="") as text:
                yield Rows(*_of_text(path, text, field), raw.tell)
    except _UNREADABLE as error:
        raise InvalidValue(f"{path}: cannot be read: {error}", field=field) from None


def read_text(path: Path, *, field: str) -> str:
    """The text of a file, decompressed. InvalidValue with ``field`` for what cannot be read."""
    try:
        with path.open("rb") as raw:
            data = decompressed(raw, field).read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise InvalidValue(f"{path}: more than {MOST_BYTES >> 30} GiB after decompression", field=field)
        return data.decode(_encoding(data[:4]), errors=_WESTERN)
    except _UNREADABLE as error:
        raise InvalidValue(f"{path}: cannot be read: {error}", field=field) from None


@contextmanager
def decompressed_file(path: Path, *, field: str) -> Iterator[Path]:
    """A file that holds what a file holds, decompressed: itself, or one that is there within the body. InvalidValue
    with ``field`` for what cannot be read."""
    try:
        with path.open("rb") as raw, tempfile.NamedTemporaryFile() as file:
            plain = decompressed(raw, field)
            if plain is raw:
                yield path
                return
            shutil.copyfileobj(plain, file, _COPIED)
            file.flush()
            yield Path(file.name)
    except _UNREADABLE as error:
        raise InvalidValue(f"{path}: cannot be read: {error}", field=field) from None


def begins_with(path: Path, magic: bytes) -> bool:
    """True for a file that begins so after decompression."""
    try:
        with path.open("rb") as raw:
            return bool(decompressed(raw, "trace").read(len(magic)) == magic)
    except (*_UNREADABLE, InvalidValue):
        return False


def _encoding(begun: bytes) -> str:
    """How a text is encoded that begins with four bytes."""
    if begun[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    for at, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if begun[at : at + 1] == begun[at + 2 : at + 3] == b"\0" != begun[1 - at : 2 - at]:
            return encoding
    return "utf-8-sig"


def place_of(path: Path, row: int, *, field: str) -> str:
    """Where a row ends, ``line 5``; rows count from 0 after the header, without those that are empty. O(file)."""
    with opened(path, field=field) as rows:
        next(itertools.islice(filter(None, rows), row + 1, None))
        return f"{rows.word} {rows.line_num}"


# compression


def decompressed(raw: io.BufferedReader, field: str) -> io.BufferedReader:
    """What a file holds, also if it was compressed more than once. Reading it raises OSError, EOFError or zlib.error
    for what is damaged or cut off."""
    for _ in range(_LAYERS):
        begun = raw.peek(4)[:4]
        if begun[:2] == b"\x1f\x8b":
            raw = io.BufferedReader(gzip.GzipFile(filename="", mode="rb", fileobj=raw))
        elif begun == b"\x28\xb5\x2f\xfd":
            raw = io.BufferedReader(_Zstandard(raw, field))
        else:
            break
    return raw


class _Zstandard(io.RawIOBase):
    """The content of frames of zstandard, one after another. EOFError where the last one is cut off, which the
    library's own reader takes for the end; OSError for damage."""

    def __init__(self, raw: IO[bytes], field: str) -> None:
        self._library = import_extra("zstandard", "imports", field=field)
        self._raw, self._held = raw, memoryview(b"")
        self._frame = self._new()
        self._begun = False

    def _new(self) -> Any:
        return self._library.ZstdDecompressor().decompressobj()

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what comes next; 0 at the end."""
        while not self._held:
            piece = (self._frame.unused_data if self._frame.eof else b"") or self._raw.read(_PIECE)
            if not piece:
                if self._begun and not self._frame.eof:
                    raise EOFError("compressed file ended before the end of its last frame")
                return 0
            if self._frame.eof:
                self._frame = self._new()
            self._begun = True
            try:
                self._held = memoryview(self._frame.decompress(piece))
            except self._library.ZstdError as error:
                raise OSError(str(error)) from None
        count = min(len(buffer), len(self._held))
        buffer[:count], self._held = self._held[:count], self._held[count:]
        return count


# texts


def _of_text(path: Path, text: IO[str], field: str) -> tuple[Iterator[tuple[int, list[str]]], str]:
    first = text.readline()
    lines = itertools.chain([first] if first else [], text)
    if first.lstrip()[:1] == "{":
        return _json_lines(path, lines, field), "line"
    if first.lstrip()[:1] == "[":
        return _table(path, enumerate(_json_list(path, lines, field), 1), field), "object"
    return _csv(first, lines), "line"


def _csv(first: str, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Fields that commas, semicolons or tabs separate, as the first line tells or looks; where it is not commas,
    numbers may have a decimal comma. Empty lines before the header are skipped."""
    before = 0
    delimiter = ""
    for line in lines:
        told = _SEPARATOR.fullmatch(line)
        if told is None and line.strip("\r\n \t;,"):
            lines, first = itertools.chain([line], lines), line
            break
        delimiter = told[1] if told is not None else delimiter
        before += 1
    delimiter = delimiter or max(",;\t", key=lambda mark: (first.count(mark), -",;\t".index(mark)))
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    numbered = ((before + rows.line_num, row) for row in rows)
    if delimiter == ",":
        yield from numbered
        return
    begun = list(itertools.islice(numbered, _LOOKED_AT))
    thousands = _with_thousands(begun, delimiter)
    for number, row in itertools.chain(begun, numbered):
        row = list(map(_plain, row))
        for place in thousands:
            if place < len(row) and _THOUSANDS.fullmatch(row[place]):
                row[place] = row[place].replace(".", "")
        yield number, row


def _with_thousands(rows: Sequence[tuple[int, list[str]]], delimiter: str) -> list[int]:
    """The columns in whose numbers points stand between thousands, by the first rows, the header first: where all have
    three figures behind each point, and other numbers of the file a decimal comma. Where no number has decimals, and
    semicolons separate fields as where commas are decimal, those columns that do not count GiB or percent."""
    cells = [row for _, row in rows[1:]]
    commas = any(_DECIMAL_COMMA.fullmatch(cell) for row in cells for cell in row)
    points = any(_DECIMAL_POINT.fullmatch(cell) and not _THOUSANDS.fullmatch(cell) for row in cells for cell in row)
    if points or not (commas or delimiter == ";"):
        return []
    header = rows[0][1] if rows else []
    fractions = () if commas else ("gb", "gib", "percent")
    return [
        place
        for place, name in enumerate(header)
        if not name.strip().casefold().endswith(fractions)
        and any(place < len(row) and _THOUSANDS.fullmatch(row[place]) for row in cells)
    ]


def _plain(cell: str) -> str:
    """A cell with a decimal point in place of a comma."""
    return cell.replace(".", "").replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell


def _json_lines(path: Path, lines: Iterable[str], field: str) -> Iterator[tuple[int, list[str]]]:
    def decoded() -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, msgspec.json.decode(line)
                except (msgspec.DecodeError, RecursionError) as error:
                    raise InvalidValue(f"{path}, line {number}: no JSON: {_shown(error)}", field=field) from None

    return _table(path, decoded(), field)


def _json_list(path: Path, lines: Iterable[str], field: str) -> list[Any]:
    try:
        return msgspec.json.decode("".join(lines), type=list[Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidValue(f"{path}: no list in JSON: {_shown(error)}", field=field) from None


def _shown(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _table(path: Path, objects: Iterable[tuple[int, Any]], field: str) -> Iterator[tuple[int, list[str]]]:
    """Objects as rows, whose columns are the keys of the first of them. InvalidValue for other values, and for
    keys that these have not."""
    flat = ((number, _flat(path, number, value, field)) for number, value in objects)
    looked_at = list(itertools.islice(flat, _LOOKED_AT))
    columns = list(dict.fromkeys(key for _, told in looked_at for key in told))
    yield 0, columns
    known = set(columns)
    for number, told in itertools.chain(looked_at, flat):
        if told.keys() - known:
            (key, *_) = sorted(told.keys() - known)
            hint = "the first may say null for what others have"
            raise InvalidValue(f"{path}, {number}: none of the first objects has {key[:40]!r}", field=field, hint=hint)
        yield number, [told.get(name, "") for name in columns]


def _flat(path: Path, number: int, value: Any, field: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidValue(f"{path}, {number}: {str(value)[:40]!r} is no object", field=field)
    found: dict[str, str] = {}
    for name, cell in value.items():
        if isinstance(cell, Mapping) and name not in _JOINED:
            found |= {f"{name}.{key}": _cell(each) for key, each in cell.items()}
        else:
            found[name] = _cell(cell)
    return found


# tables of libraries


def _parquet(path: Path, raw: IO[bytes], field: str) -> Iterator[tuple[int, list[str]]]:
    library, parquet = (import_extra(name, "imports", field=field) for name in ("pyarrow", "pyarrow.parquet"))
    try:
        file = parquet.ParquetFile(raw)
        names: list[str] = []
        for each in file.schema_arrow:
            inner = library.types.is_struct(each.type) and each.name not in _JOINED
            names += [f"{each.name}.{part.name}" for part in each.type] if inner else [each.name]
        yield 0, names
        number = itertools.count(1)
        for batch in file.iter_batches(batch_size=_LOOKED_AT):
            columns: list[Sequence[Any]] = []
            for each, column in zip(batch.schema, batch.columns, strict=True):
                column = _microseconds(library, column)
                inner = library.types.is_struct(each.type) and each.name not in _JOINED
                columns += [part.to_pylist() for part in column.flatten()] if inner else [column.to_pylist()]
            yield from ((next(number), list(map(_cell, row))) for row in zip(*columns, strict=True))
    except (OSError, ValueError) as error:
        raise InvalidValue(f"{path}: no Parquet file: {error}", field=field) from None


def _microseconds(library: Any, column: Any) -> Any:
    """A column of times without what Python's times do not have."""
    types, kind = library.types, column.type
    if getattr(kind, "unit", "") != "ns":
        return column
    if types.is_timestamp(kind):
        return column.cast(library.timestamp("us", kind.tz), safe=False)
    return column.cast(library.duration("us") if types.is_duration(kind) else library.time64("us"), safe=False)


def _workbook(path: Path, raw: IO[bytes], field: str) -> Iterator[tuple[int, list[str]]]:
    """The first sheet that is not empty."""
    library = import_extra("openpyxl", "imports", field=field)
    try:
        with zipfile.ZipFile(raw) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > MOST_BYTES:
            raise InvalidValue(f"{path}: more than {MOST_BYTES >> 30} GiB after decompression", field=field)
        raw.seek(0)
        book = library.load_workbook(raw, read_only=True, data_only=True)
        for sheet in book.worksheets:
            sheet.reset_dimensions()
            width = 0
            for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
                cells = list(map(_cell, row))
                while cells and not cells[-1] and (not width or len(cells) > width):
                    cells.pop()
                width = width or len(cells)
                if width:
                    yield number, [*cells, *[""] * (width - len(cells))] if any(cells) else []
            if width:
                return
    except InvalidValue:
        raise
    except Exception as error:  # a library that reads what others wrote raises what it likes
        raise InvalidValue(f"{path}: no Excel workbook: {error}", field=field) from None


def _cell(cell: Any) -> str:
    """A cell as CSV has it: nothing for null, 1 and 0 for true and false, ISO 8601 for dates, H:MM:SS for durations,
    A|B for lists, A=1|B=2 for maps."""
    if isinstance(cell, str):
        return cell
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, (bool, int)):
        return str(int(cell))
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, timedelta):
        minutes, seconds = divmod(cell.total_seconds(), 60)
        return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{seconds:09.6f}"
    if isinstance(cell, bytes):
        return cell.decode("utf-8", errors="replace")
    if isinstance(cell, Mapping):
        return "|".join(f"{key}={_cell(each)}" for key, each in cell.items())
    if isinstance(cell, (list, tuple)):
        return "|".join(
            f"{each[0]}={_cell(each[1])}" if isinstance(each, tuple) and len(each) == 2 else _cell(each)
            for each in cell
        )
    return str(cell.isoformat()) if hasattr(cell, "isoformat") else str(cell)
