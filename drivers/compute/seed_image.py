"""Disk images from which cloud-init reads a guest's user data (its source NoCloud): ISO 9660 with the names of Joliet,
labelled ``cidata``. ECMA-119 says what is where."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from typing import Final

SECTOR: Final = 2_048
LABEL: Final = "cidata"
_FIRST: Final = 16
"""Sectors before this one are the system's."""
_HOSTNAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
_NO_TIME: Final = b"0" * 16 + b"\0"
_TIME: Final = bytes((100, 1, 1, 0, 0, 0, 0))
"""The first second of the year 2000, of all files: the same data make the same image."""


def seed_image(uuid: str, name: str, user_data: str) -> bytes:
    """The image of a guest. ``name`` is its host name, if it can be one."""
    about = {"instance-id": uuid, **({"local-hostname": name} if _HOSTNAME.fullmatch(name) else {})}
    return iso_image(LABEL, {"meta-data": json.dumps(about).encode(), "user-data": user_data.encode()})


def iso_image(label: str, files: Mapping[str, bytes]) -> bytes:
    """An image with files in its root, of names in lower case."""
    plain, joliet = _FIRST + 3, _FIRST + 5  # path tables, little endian and big endian
    plain_root, joliet_root = _FIRST + 7, _FIRST + 8
    at, places = _FIRST + 9, dict[str, tuple[int, int]]()
    for name in sorted(files):
        places[name] = at, len(files[name])
        at += -(-len(files[name]) // SECTOR)
    sectors = [
        _descriptor(1, label.upper(), at, plain, plain_root),
        _descriptor(2, label, at, joliet, joliet_root),
        b"\xffCD001\x01",
        *(_path_table(order, root) for root in (plain_root, joliet_root) for order in "<>"),
        _directory(plain_root, {f"{name.upper()}.;1".encode(): place for name, place in places.items()}),
        _directory(joliet_root, {name.encode("utf-16-be"): place for name, place in places.items()}),
        *(files[name] for name in sorted(files)),
    ]
    return bytes(_FIRST * SECTOR) + b"".join(part.ljust(-(-len(part) // SECTOR) * SECTOR, b"\0") for part in sectors)


def _both(form: str, number: int) -> bytes:
    """A number in little endian and in big endian."""
    return struct.pack(f"<{form}", number) + struct.pack(f">{form}", number)


def _record(name: bytes, sector: int, size: int, *, folder: bool = False) -> bytes:
    """An entry of a directory (9.1)."""
    length = 33 + len(name) + (len(name) + 1) % 2
    head = bytes((length, 0)) + _both("I", sector) + _both("I", size) + _TIME
    return (head + bytes((2 * folder, 0, 0)) + _both("H", 1) + bytes((len(name),)) + name).ljust(length, b"\0")


def _directory(sector: int, files: Mapping[bytes, tuple[int, int]]) -> bytes:
    """The root with its files, in the order of their names."""
    own = [_record(name, sector, SECTOR, folder=True) for name in (b"\0", b"\1")]
    return b"".join((*own, *(_record(name, *files[name]) for name in sorted(files))))


def _path_table(order: str, root: int) -> bytes:
    """The one entry of the root (9.4)."""
    return struct.pack(f"{order}BBIHBx", 1, 0, root, 1, 0)


def _descriptor(kind: int, label: str, sectors: int, table: int, root: int) -> bytes:
    """A primary (1) or supplementary (2) volume descriptor (8.4, 8.5); the second has the names of Joliet."""
    code, blank = ("ascii", b" ") if kind == 1 else ("utf-16-be", b"\0 ")

    def text(value: str, length: int) -> bytes:
        coded = value.encode(code)
        return (coded + blank * length)[: length - length % len(blank)].ljust(length, b"\0")

    return b"".join(
        (
            bytes((kind,)) + b"CD001\x01\0" + text("", 32) + text(label, 32) + bytes(8) + _both("I", sectors),
            (b"" if kind == 1 else b"%/E").ljust(32, b"\0") + _both("H", 1) + _both("H", 1) + _both("H", SECTOR),
            _both("I", 10) + struct.pack("<II", table, 0) + struct.pack(">II", table + 1, 0),
            _record(b"\0", root, SECTOR, folder=True),
            b"".join(text("", length) for length in (128, 128, 128, 128, 37, 37, 37)),
            _NO_TIME * 4 + b"\x01",
        )
    )
