"""Reads named columns of a CSV file, gzipped or not, as numbers or texts; whatever is wrong is named by file, line and
column."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Final

from ..placement.errors import InvalidValue

MOST: Final = 2**31 - 1
"""Greatest number of anything, seconds and MiB included."""

Reader = Callable[[str], Any]


def read_columns(
    path: Path,
    readers: Mapping[str, Reader],
    *,
    field: str,
    names: Mapping[str, str] | None = None,
    optional: Sequence[str] = (),
    delimiter: str = ",",
) -> dict[str, list[Any]]:
    """The columns that ``readers`` names, in the order of the file.

    ``names`` says what a column is called in the file if not by its own name. An ``optional`` column that is not there
    is left out. InvalidValue with ``field`` for what cannot be read. O(file).
    """
    names = {name: (names or {}).get(name, name) for name in readers}
    if not path.is_file():
        raise InvalidValue(f"{path}: no such file", field=field)
    try:
        with closing(open_text(path)) as file:
            return _parse(path, csv.reader(file, delimiter=delimiter), readers, names, optional, field)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise InvalidValue(f"{path}: cannot be read: {error}", field=field) from None


def whole(text: str) -> int:
    """A whole number from 0 to MOST; ValueError otherwise."""
    number = int(text)
    if not 0 <= number <= MOST:
        raise ValueError(f"{text} is out of range")
    return number


def whole_or_0(text: str) -> int:
    """As ``whole``; nothing counts as 0."""
    return whole(text) if text else 0


def open_text(path: Path) -> IO[str]:
    """A file open as text, gzipped or not."""
    return gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="")


def _parse(
    path: Path,
    lines: Iterator[list[str]],
    readers: Mapping[str, Reader],
    names: Mapping[str, str],
    optional: Sequence[str],
    field: str,
) -> dict[str, list[Any]]:
    header = next(lines, [])
    missing = [names[name] for name in readers if names[name] not in header and name not in optional]
    if missing:
        hint = f"the columns are {', '.join(header)[:200]}" if header else "the file is empty"
        raise InvalidValue(f"{path}: no column {', '.join(missing)}", field=field, hint=hint)
    places = [(name, header.index(names[name]), read) for name, read in readers.items() if names[name] in header]
    values: dict[str, list[Any]] = {name: [] for name, _, _ in places}
    for number, line in enumerate(lines, 2):
        for name, place, read in places:
            try:
                values[name].append(read(line[place]))
            except IndexError:
                raise InvalidValue(
                    f"{path}, line {number}: no {names[name]}, {len(line)} fields", field=f"{field}.{name}"
                ) from None
            except (KeyError, ValueError):
                raise InvalidValue(
                    f"{path}, line {number}: {names[name]} is {line[place][:40]!r}", field=f"{field}.{name}"
                ) from None
    return values
