"""The pure-Python twin of _tables.pyx: the same answers and errors from dicts and lists, to test the kernel against."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_GAMMA = 0x9E37_79B9_7F4A_7C15
_UUID = re.compile("[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _plain(name: object) -> str:
    """The name as an exact str that UTF-8 can hold."""
    if not isinstance(name, str):
        raise TypeError(f"a name must be a str, not {type(name).__name__}")
    name.encode()
    return str.__str__(name)


def _listed(names: Any) -> list[str]:
    if isinstance(names, (str, bytes)):
        raise TypeError("names must be a sequence of names, not one")
    if isinstance(names, np.ndarray):
        if names.ndim != 1:
            raise ValueError("names must be one-dimensional")
        if names.dtype.kind not in "OSTU":
            raise TypeError(f"names must be strings, not {names.dtype}")
        names = [name.decode() if isinstance(name, bytes) else name for name in names.tolist()]
    return [_plain(name) for name in names]


def _column(arrays: Mapping[str, npt.NDArray[Any]], name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"array {name!r} is missing")
    array = arrays[name]
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"array {name!r} must be one-dimensional, of {np.dtype(dtype).name}")
    return array


class NameTable:
    """Dense ids 0, 1, 2, ... for unique strings, each way; see the kernel."""

    def __init__(self) -> None:
        self._names: list[str | None] = []  # by id; None: freed
        self._ids: dict[str, int] = {}
        self._free: list[int] = []  # the last freed last

    def __repr__(self) -> str:
        return f"<NameTable of {len(self)} names>"

    def __len__(self) -> int:
        """Number of names. O(1)."""
        return len(self._ids)

    @property
    def span(self) -> int:
        """Number of ids handed out, freed ones included: every id is below. O(1)."""
        return len(self._names)

    def find(self, name: str) -> int:
        """The name's id, or -1. O(1)."""
        return self._ids.get(_plain(name), -1)

    def get(self, id: int) -> str:
        """The id's name; KeyError for an id that is freed or was never given. O(1)."""
        id = index(id)
        name = self._names[id] if 0 <= id < len(self._names) else None
        if name is None:
            raise KeyError(id)
        return name

    def add(self, name: str) -> int:
        """The new name's id; KeyError if the name is present. O(1), amortised."""
        name = self._absent(name)
        if self._free:
            id = self._free.pop()
            self._names[id] = name
        else:
            id = len(self._names)
            self._names.append(name)
        self._ids[name] = id
        return id

    def intern(self, name: str) -> int:
        """The name's id; a new name is added. O(1), amortised."""
        id = self.find(name)
        return id if id >= 0 else self.add(name)

    def add_many(self, names: Sequence[str] | npt.NDArray[np.str_ | np.bytes_ | np.object_]) -> int:
        """The first of the new names' consecutive ids, which begin at ``span``; all or nothing. O(k) for k names."""
        first = len(self._names)
        new: dict[str, int] = {}
        for name in _listed(names):
            if name in self._ids or name in new:
                raise KeyError(name)
            new[name] = first + len(new)
        self._ids.update(new)
        self._names.extend(new)
        return first

    def rename(self, id: int, name: str) -> None:
        """Another name for the id; KeyError for an unknown id, or with the name if another id has it. O(1)."""
        id = index(id)
        old = self.get(id)
        if _plain(name) == old:
            return
        name = self._absent(name)
        del self._ids[old]
        self._ids[name] = id
        self._names[id] = name

    def discard(self, id: int) -> None:
        """Free the id and its name; KeyError for an unknown id. O(1)."""
        id = index(id)
        del self._ids[self.get(id)]
        self._names[id] = None
        self._free.append(id)

    def restore(self, id: int, name: str) -> None:
        """Undo ``discard(id)``: only of the last freed id, else ValueError; KeyError if the name is present. O(1)."""
        id = index(id)
        if not self._free or self._free[-1] != id:
            raise ValueError(f"id {id} is not the last freed one")
        self.add(name)

    def truncate(self, span: int) -> None:
        """Undo the adds that raised ``span``: ids from ``span`` on never were. ValueError if one is freed. O(k)."""
        span = index(span)
        if not 0 <= span <= len(self._names):
            raise ValueError(f"{span} is beyond the {len(self._names)} ids")
        gone = [name for name in self._names[span:] if name is not None]
        if len(gone) < len(self._names) - span:
            raise ValueError(f"id {self._names.index(None, span)} is freed: undo that first")
        for name in gone:
            del self._ids[name]
        del self._names[span:]

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The whole state: ``lengths`` by id (-1: freed), ``text`` in order of the ids, ``free``, the last freed last.

        Equal tables give equal arrays, whatever their history. O(n) for n ids.
        """
        texts = [None if name is None else name.encode() for name in self._names]
        return {
            "lengths": np.array([-1 if text is None else len(text) for text in texts], dtype=np.int32),
            "text": np.frombuffer(b"".join(text or b"" for text in texts), dtype=np.uint8).copy(),
            "free": np.array(self._free, dtype=np.int32),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[np.generic]]) -> NameTable:
        """The table that ``to_arrays`` described; ValueError for what no table can be. O(n) for n ids."""
        lengths: list[int] = _column(arrays, "lengths", np.int32).tolist()
        text = _column(arrays, "text", np.uint8).tobytes()
        free: list[int] = _column(arrays, "free", np.int32).tolist()
        if any(length < -1 for length in lengths):
            raise ValueError("a length is below -1")
        freed = {id for id, length in enumerate(lengths) if length < 0}
        if sum(length for length in lengths if length > 0) != len(text) or len(freed) != len(free):
            raise ValueError("the arrays disagree on the number of bytes or of freed ids")
        if set(free) != freed:
            raise ValueError("an id is no freed one, or comes twice")
        table = NameTable()
        at = 0
        for id, length in enumerate(lengths):
            name = None
            if length >= 0:
                name = text[at : at + length].decode()
                at += length
                if name in table._ids:
                    raise ValueError(f"the name {name!r} comes twice")
                table._ids[name] = id
            table._names.append(name)
        table._free = free
        return table

    def check(self) -> None:
        """Assert every invariant. O(n)."""
        assert self._ids == {name: id for id, name in enumerate(self._names) if name is not None}
        assert sorted(self._free) == [id for id, name in enumerate(self._names) if name is None]

    def _absent(self, name: str) -> str:
        name = _plain(name)
        if name in self._ids:
            raise KeyError(name)
        return name


class UuidTable:
    """128-bit uuids to int32 values >= 0; see the kernel, whose C functions other kernels call."""

    def __init__(self) -> None:
        self._values: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        """Number of uuids. O(1)."""
        return len(self._values)

    def get(self, uuid: str) -> int:
        """The uuid's value, or -1. O(1)."""
        return self._values.get(parse_uuid(uuid), -1)

    def add(self, uuid: str, value: int) -> None:
        """Put in a new uuid; KeyError if it is present, ValueError for a negative value. O(1), amortised."""
        value = index(value)
        if not -(1 << 31) <= value < 1 << 31:
            raise OverflowError(f"{value} is no int32")
        words = parse_uuid(uuid)
        if value < 0:
            raise ValueError(f"{value} is negative")
        if words in self._values:
            raise KeyError(format_uuid(*words))
        self._values[words] = value

    def pop(self, uuid: str) -> int:
        """Take the uuid out and answer its value; KeyError if it is absent. O(1)."""
        words = parse_uuid(uuid)
        if words not in self._values:
            raise KeyError(format_uuid(*words))
        return self._values.pop(words)

    def add_many(self, uuids: npt.NDArray[np.uint64], values: npt.NDArray[np.int32]) -> None:
        """Insert new uuids, (hi, lo) a row, all or none: KeyError with the first that is present or repeated.

        O(k) for k uuids, amortised.
        """
        if uuids.dtype != np.uint64 or values.dtype != np.int32 or uuids.ndim != 2 or values.ndim != 1:
            raise ValueError("add_many takes uint64[n, 2] and int32[n]")
        if not (uuids.flags.c_contiguous and values.flags.c_contiguous):
            raise ValueError("add_many takes C-contiguous arrays")
        if uuids.shape != (len(values), 2):
            raise ValueError(f"{len(values)} values need uuids of shape ({len(values)}, 2), not {uuids.shape}")
        if (values < 0).any():
            raise ValueError(f"{values[values < 0][0]} is negative")
        new: dict[tuple[int, int], int] = {}
        for (hi, lo), value in zip(uuids.tolist(), values.tolist(), strict=True):
            if (hi, lo) in self._values or (hi, lo) in new:
                raise KeyError(format_uuid(hi, lo))
            new[hi, lo] = value
        self._values.update(new)

    def put(self, uuids: Iterable[str], value: int) -> list[int]:
        """Have each of these uuids with a value, whether it is present or not; returns a list of the values that they
        had before, -1 for none. ValueError for a malformed uuid and for a negative value; then nothing is changed.

        O(k) for k uuids, amortised.
        """
        value = index(value)
        if not -(1 << 31) <= value < 1 << 31:
            raise OverflowError(f"{value} is no int32")
        if value < 0:
            raise ValueError(f"{value} is negative")
        before = []
        for words in list(map(parse_uuid, uuids)):
            before.append(self._values.get(words, -1))
            self._values[words] = value
        return before

    def discard(self, uuids: Iterable[str]) -> list[int]:
        """Remove these uuids, as far as they are present; returns a list of the values that they had, -1 for none.
        ValueError for a malformed uuid; then nothing is changed. O(k) for k uuids."""
        return [self._values.pop(words, -1) for words in list(map(parse_uuid, uuids))]

    def to_arrays(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int32]]:
        """All uuids in ascending order, (n, 2) uint64, and their values, (n,) int32. O(n log n)."""
        items = sorted(self._values.items())
        uuids = np.array([words for words, _ in items], np.uint64).reshape(-1, 2)
        return uuids, np.array([value for _, value in items], np.int32)

    def check(self) -> None:
        """Assert every invariant. O(n)."""
        assert all(0 <= value < 1 << 31 for value in self._values.values())


def parse_uuid(text: str) -> tuple[int, int]:
    """(hi, lo) of a uuid in 8-4-4-4-12 or 32 hexadecimal digits of either case; ValueError for anything else. O(1)."""
    if not isinstance(text, str):
        raise TypeError(f"a uuid must be a str, not {type(text).__name__}")
    if not _UUID.fullmatch(text):
        raise ValueError(f"not a uuid: {text[:200]!r}")
    number = int(text.replace("-", ""), 16)
    return number >> 64, number & _WORD


def format_uuid(hi: int, lo: int) -> str:
    """The uuid in lower-case 8-4-4-4-12 form. O(1)."""
    hi, lo = index(hi), index(lo)
    if not (0 <= hi <= _WORD and 0 <= lo <= _WORD):
        raise OverflowError(f"no two words of 64 bits: {hi}, {lo}")
    digits = f"{hi << 64 | lo:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def parse_many(uuids: Sequence[str] | npt.NDArray[np.str_ | np.object_]) -> npt.NDArray[np.uint64]:
    """(n, 2) uint64 of n uuids in text; ValueError as ``parse_uuid``. O(n)."""
    if isinstance(uuids, (str, bytes)):
        raise TypeError("uuids must be a sequence of uuids, not one")
    items: Iterable[Any] = uuids.tolist() if isinstance(uuids, np.ndarray) else uuids
    return np.array([parse_uuid(text) for text in items], dtype=np.uint64).reshape(-1, 2)


def format_many(words: npt.NDArray[np.uint64]) -> list[str]:
    """The uuids of ``words``, (n, 2), in text."""
    return [format_uuid(high, low) for high, low in words.tolist()]


def make_many(seed: int, first: int, count: int) -> npt.NDArray[np.uint64]:
    """(count, 2) uint64: uuids number ``first``, ``first + 1``, ... of the seed's endless sequence, as of version 4.

    Uuid i is elements 2i and 2i + 1 of splitmix64 from a state that is itself mixed from the seed. O(count).
    """
    first, count = index(first), index(count)
    if first < 0 or count < 0:
        raise ValueError(f"first and count must not be negative: {first}, {count}")
    state = int(_splitmix(np.array([(index(seed) + _GAMMA) & _WORD], dtype=np.uint64))[0])
    start = np.uint64((state + (2 * first + 1) * _GAMMA) & _WORD)
    words = _splitmix(start + np.arange(2 * count, dtype=np.uint64) * np.uint64(_GAMMA)).reshape(count, 2)
    words[:, 0] = words[:, 0] & np.uint64(0xFFFF_FFFF_FFFF_0FFF) | np.uint64(0x4000)
    words[:, 1] = words[:, 1] & np.uint64(0x3FFF_FFFF_FFFF_FFFF) | np.uint64(0x8000_0000_0000_0000)
    return words


def _splitmix(states: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    states = (states ^ states >> np.uint64(30)) * np.uint64(0xBF58_476D_1CE4_E5B9)
    states = (states ^ states >> np.uint64(27)) * np.uint64(0x94D0_49BB_1331_11EB)
    return states ^ states >> np.uint64(31)
