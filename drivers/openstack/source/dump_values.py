"""Texts in dumps of databases: with backslashes, and as the calls of functions that ``sqlite3 .dump`` writes for texts
with line ends, ``replace('a\\n','\\n',char(10))``, and since 3.50 for control characters, ``unistr('a\\u000a')``."""

from __future__ import annotations

import re
from typing import Final

_ESCAPES: Final = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a", "f": "\f", "v": "\v"}
_CALL: Final = re.compile(r"\s*(?P<name>replace|unistr|char)\s*\(", re.IGNORECASE)
_PART: Final = re.compile(r"\s*(?:'(?P<text>(?:[^']++|'')*+)'|(?P<number>\d{1,7}))")
_GAP: Final = re.compile(r"\s*(?P<end>[,)])")
_UNISTR: Final = re.compile(
    r"\\(?:(?P<back>\\)|(?:u|)(?P<short>[0-9a-f]{4})|\+(?P<plus>[0-9a-f]{6})|U(?P<long>[0-9a-f]{8}))", re.IGNORECASE
)
_BACKSLASH: Final = re.compile(r"\\(.)", re.DOTALL)
_DEEPEST: Final = 8
"""Calls within calls at most: .dump writes two."""


def unescaped(text: str) -> str:
    """A text without its backslashes and doubled quotes."""
    if "\\" in text or "''" in text:
        return re.sub(
            r"\\(.)|''",
            lambda found: "'" if found[1] is None else _ESCAPES.get(found[1], found[1]),
            text,
            flags=re.DOTALL,
        )
    return text


def copied(cell: str) -> str:
    """A cell of PostgreSQL's COPY without its backslashes; quotes are as they are."""
    return _BACKSLASH.sub(lambda found: _ESCAPES.get(found[1], found[1]), cell) if "\\" in cell else cell


def called(statement: str, at: int, depth: int = 0) -> tuple[str, int]:
    """The value of a call of ``replace``, ``char`` or ``unistr`` at a place of a statement, and the place behind it.
    ValueError for anything else."""
    begun = _CALL.match(statement, at)
    if begun is None or depth > _DEEPEST:
        raise ValueError("no call")
    given, at, end = list[str | int](), begun.end(), ","
    while end != ")":
        part = _PART.match(statement, at)
        if part is None:
            value, at = called(statement, at, depth + 1)
            given.append(value)
        else:
            at = part.end()
            given.append(int(part["number"]) if part["text"] is None else part["text"].replace("''", "'"))
        gap = _GAP.match(statement, at)
        if gap is None:
            raise ValueError("no end of a call")
        at, end = gap.end(), gap["end"]
    return _evaluated(begun["name"].lower(), given), at


def _evaluated(name: str, given: list[str | int]) -> str:
    match name, given:
        case "replace", [str(text), str(old), str(new)]:
            return text.replace(old, new) if old else text
        case "unistr", [str(text)]:
            return _UNISTR.sub(_character, text)
        case "char", [*codes] if all(isinstance(code, int) for code in codes):
            return "".join(chr(int(code)) for code in codes)
    raise ValueError("no such call")


def _character(found: re.Match[str]) -> str:
    if found["back"]:
        return "\\"
    return chr(int(found["short"] or found["plus"] or found["long"], 16))


__all__ = ["called", "copied", "unescaped"]
