"""Reads named columns of a table in a file, some rows at a time; errors name the file, line and column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...placement.types.errors import HostlerError, InvalidValue
from ..progress import reading
from .rows import opened, place_of

MOST: Final = 2**31 - 1
"""Greatest number of anything, seconds and MiB included."""
CHUNK: Final = 1_000
"""Rows that are in memory as texts."""

Reader = Callable[[str], Any]
Texts = Mapping[str, Sequence[str]]
"""What stands in some rows, by column."""
_T = TypeVar("_T")


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
    with opened(path, field=field) as rows, reading(path) as advance:
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
            advance(rows.at_byte())


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


def read_header(path: Path, *, field: str) -> list[str]:
    """What the columns of a file are called. InvalidValue with ``field`` for what cannot be read."""
    with opened(path, field=field) as rows:
        return [name.strip() for name in next(rows, [])]


def _places(
    path: Path, header: Sequence[str], names: Mapping[str, str], field: str, optional: Sequence[str]
) -> dict[str, int]:
    """Column -> its place in a row."""
    found = {name: named_in(header, called, path=path, field=field) for name, called in names.items()}
    missing = [names[name] for name, called in found.items() if called is None and name not in optional]
    if missing:
        raise InvalidValue(f"{path}: no column {', '.join(missing)}", field=field, hint=columns_hint(header))
    return {name: header.index(called) for name, called in found.items() if called is not None}


def named_in(header: Sequence[str], name: str, *, path: Path, field: str) -> str | None:
    """What a column is called in a header: as it is named, or else in upper and lower case, with blanks or hyphens in
    place of underscores. None if it is not there; InvalidValue if it is there more than once."""
    called = [each for each in header if each == name] or [each for each in header if _folded(each) == _folded(name)]
    if len(called) > 1:
        raise InvalidValue(f"{path}: column {name} is there {len(called)} times", field=field)
    return called[0] if called else None


def _folded(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


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
            problem = f"{path}, {place_of(path, before + place, field=field)}: {words}"
            return wrong.kind(problem, field=f"{field}.{column}" if column else field, hint=wrong.hint)
    raise AssertionError("rows that are wrong together but not alone")
