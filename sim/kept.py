"""Outcomes in a file, by the digest of their task: what was played once need not be played again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..placement.errors import InvalidValue
from .run import Outcome


class _Line(msgspec.Struct):
    task: str
    outcome: Outcome


class Kept:
    """The outcomes in the file at ``path``, a line each; without a path nothing is kept. InvalidValue for a file that
    is none, or cannot be read or written; a last line that was being written when a command was ended is left out."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._outcomes: dict[str, Outcome] = {}
        if path is not None:
            with _files(path):
                path.open("ab").close()  # what cannot be kept should not be played first
                self._outcomes = _read(path)

    def get(self, digest: str) -> Outcome | None:
        """What came of a task; None if it is not known."""
        return self._outcomes.get(digest)

    def put(self, digest: str, outcome: Outcome) -> Outcome:
        """Keep an outcome, which is given back."""
        if self.path is None:
            return outcome
        self._outcomes[digest] = outcome
        with _files(self.path):
            text = self.path.read_bytes()
            if text and not text.endswith(b"\n"):
                self.path.write_bytes(text[: text.rfind(b"\n") + 1])
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(_Line(digest, outcome)) + b"\n")
        return outcome


@contextmanager
def _files(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidValue(f"{path}: cannot be kept in: {error}", field="resume") from None


def _read(path: Path) -> dict[str, Outcome]:
    found = {}
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            kept = msgspec.json.decode(line, type=_Line)
        except msgspec.MsgspecError as error:
            if not line.endswith(b"\n"):
                break
            raise InvalidValue(f"{path}, line {number}: {error}", field="resume") from None
        found[kept.task] = kept.outcome
    return found
