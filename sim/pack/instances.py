"""Reads sets of items to pack: files of the Vectorpack format, folders of them, or tar archives."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...placement.errors import InvalidValue

SUFFIX: Final = ".vbp"
MOST: Final = 1 << 31


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """Items of several sizes, int64[items, dimensions], and what a bin holds of each."""

    name: str
    sizes: NDArray[np.int64]
    capacity: NDArray[np.int64]


def instance(name: str, sizes: Sequence[Sequence[int]] | NDArray[np.int64], capacity: Sequence[int]) -> Instance:
    """A checked instance. InvalidValue if there is no dimension, or an item is larger than a bin."""
    limits = np.array(capacity, np.int64)
    items = (
        np.array(sizes, np.int64).reshape(len(sizes), len(limits)) if len(sizes) else np.zeros((0, len(limits)), int)
    )
    if not len(limits) or (limits < 0).any() or (limits > MOST).any():
        raise InvalidValue(f"{name}: a bin must hold between 0 and {MOST} of one thing or more", field="capacity")
    for item in np.flatnonzero((items > limits).any(axis=1) | (items < -MOST).any(axis=1)).tolist():
        raise InvalidValue(f"{name}: item {item + 1} is larger than a bin", field="items")
    return Instance(name, items, limits)


def read_instances(paths: Sequence[Path]) -> Iterator[Instance]:
    """The instances of files (dimensions, capacities, number of items, a line of sizes each), of folders and of tar
    archives of them, in order of name. InvalidValue names the file and line at fault."""
    for path in paths:
        if path.is_dir():
            found = sorted(path.rglob(f"*{SUFFIX}"))
            if not found:
                raise InvalidValue(f"{path}: no {SUFFIX} files", field="files")
            yield from read_instances(found)
        elif ".tar" in path.suffixes or path.suffix == ".tgz":
            yield from _archived(path)
        else:
            yield parse(path.stem, _text(path), str(path))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path}: cannot be read: {error}", field="files") from None


def _archived(path: Path) -> Iterator[Instance]:
    try:
        with tarfile.open(path) as archive:
            members = sorted((each for each in archive if each.name.endswith(SUFFIX)), key=lambda each: each.name)
            for member in members:
                file = archive.extractfile(member)
                if file is not None:
                    yield parse(Path(member.name).stem, file.read().decode(), f"{path}:{member.name}")
    except (OSError, tarfile.TarError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path}: cannot be read: {error}", field="files") from None


def parse(name: str, text: str, source: str) -> Instance:
    """An instance from its text; a number after an item's sizes says how many there are of it."""
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    numbers = [_numbers(source, number, words) for number, words in lines]
    if len(numbers) < 3 or len(numbers[0]) != 1 or len(numbers[2]) != 1 or len(numbers[1]) != numbers[0][0]:
        raise InvalidValue(f"{source}: does not begin with dimensions, capacities and number of items", field="files")
    dimensions, items = numbers[0][0], numbers[3:]
    if len(items) != numbers[2][0]:
        raise InvalidValue(f"{source}: {len(items)} items, but {numbers[2][0]} are said to be there", field="files")
    sizes: list[list[int]] = []
    for (number, _), item in zip(lines[3:], items, strict=True):
        count = item[dimensions] if len(item) > dimensions else 1
        if len(item) not in (dimensions, dimensions + 1) or not 0 <= count <= 1_000_000:
            raise InvalidValue(f"{source}, line {number}: not {dimensions} sizes and a number", field="files")
        sizes += [item[:dimensions]] * count
    return instance(name, sizes, numbers[1])


def _numbers(source: str, number: int, words: list[str]) -> list[int]:
    try:
        return [int(word) for word in words]
    except ValueError:
        raise InvalidValue(f"{source}, line {number}: {' '.join(words)[:60]!r} are no numbers", field="files") from None


def read_orders(path: Path) -> dict[int, NDArray[np.int32]]:
    """Orders in which items come, by number of items: lines of a number and an order. InvalidValue for what is none."""
    orders: dict[int, NDArray[np.int32]] = {}
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            for number, line in enumerate(file, 1):
                values = _numbers(str(path), number, line.split())
                if not values or sorted(values[1:]) != list(range(values[0])):
                    raise InvalidValue(f"{path}, line {number}: not a number and an order", field="order")
                orders[values[0]] = np.array(values[1:], np.int32)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path}: cannot be read: {error}", field="order") from None
    return orders
