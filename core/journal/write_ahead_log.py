"""Reads SQLite's write-ahead log, to detect whether it is corrupt before its end.

SQLite silently ignores the log from the first frame with a wrong checksum. That is right after a crash in the middle of
a write, but wrong if a bit was flipped. Layout: https://www.sqlite.org/fileformat2.html#walformat
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct(">IIIIIIII")
_FRAME: Final = struct.Struct(">IIII8x")
_MAGIC: Final = 0x377F0682
_WORD: Final = 0xFFFFFFFF


class Log(NamedTuple):
    """Contents of a log: whether its header is valid, and the frames, from 1, that end transactions."""

    whole: bool
    commits: list[int]

    def lost(self, frames: int) -> int:
        """Transactions after the ``frames`` that SQLite accepts."""
        return sum(commit > frames for commit in self.commits)


def look(path: Path) -> Log:
    """Look at a log. A file that is not there, or empty, is a whole log without frames. O(frames)."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return Log(True, [])
    with file:
        header = file.read(_HEADER.size)
        if not header:
            return Log(True, [])
        if len(header) < _HEADER.size or not _is_whole(header):
            return Log(False, [])
        _, _, page, _, first_salt, second_salt, _, _ = _HEADER.unpack(header)
        commits, number, size = [], 0, os.fstat(file.fileno()).st_size
        while len(frame := file.read(_FRAME.size)) == _FRAME.size:
            number += 1
            _, pages, *salts = _FRAME.unpack(frame)
            whole = file.seek(page, 1) <= size
            if whole and pages and salts == [first_salt, second_salt]:  # other salts are of older generations
                commits.append(number)
        return Log(True, commits)


def _is_whole(header: bytes) -> bool:
    """True if the header's checksum is right; its words are in the byte order that the magic number names."""
    magic = int.from_bytes(header[:4], "big")
    if magic & ~1 != _MAGIC:
        return False
    words = struct.unpack(">6I" if magic & 1 else "<6I", header[:24])
    first = second = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & _WORD
        second = (second + odd + first) & _WORD
    return (first, second) == struct.unpack(">2I", header[24:32])
