"""Outcomes in a file, by the digest of their task: what was played once need not be played again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from ...placement.types.errors import InvalidValue
from ..run.run import Outcome


class _Line(msgspec.Struct):
    task: str
    outcome: Outcome


_LINE: Final = b'{"task":"'
"""What a line begins with."""


class Kept:
    """The outcomes in the file at ``path``, a line each; without a path nothing is kept. InvalidValue for a file that
    is none, or cannot be read or written, which stays as it is; a last line that was being written when a command was
    ended is taken off."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._outcomes: dict[str, Outcome] = {}
        if path is not None:
            with _files(path):
                path.open("ab").close()  # what cannot be kept should not be played first
                self._outcomes, whole = _read(path)
                os.truncate(path, whole)

    def get(self, digest: str) -> Outcome | None:
        """The stored outcome of a task; None if there is none."""
        return self._outcomes.get(digest)

    def put(self, digest: str, outcome: Outcome) -> Outcome:
        """Keep an outcome, which is given back."""
        if self.path is None:
            return outcome
        self._outcomes[digest] = outcome
        with _files(self.path), self.path.open("ab") as file:
            file.write(msgspec.json.encode(_Line(digest, outcome)) + b"\n")
        return outcome


@contextmanager
def _files(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidValue(f"{path}: cannot be kept in: {error}", field="resume") from None


def _read(path: Path) -> tuple[dict[str, Outcome], int]:
    """The outcomes, and the length of all whole lines."""
    found, whole = {}, 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n") and (line.startswith(_LINE) or _LINE.startswith(line)):
            break
        try:
            kept = msgspec.json.decode(line, type=_Line)
        except msgspec.MsgspecError as error:
            raise InvalidValue(f"{path}, line {number}: {error}", field="resume") from None
        found[kept.task] = kept.outcome
        whole += len(line)
    return found, whole
