"""First answers by idempotency key: a command that comes again gets what it got, also after a recovery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from ..placement.errors import HostlerError
from .errors import DataDamaged, ErrorValue, KeyReused, from_value, to_value

Result = TypeVar("Result")

FILE: Final = "answers"


class Answer(NamedTuple, Generic[Result]):
    """What a command got: a result, or the error it was refused with."""

    fingerprint: bytes
    result: Result | None
    error: HostlerError | None


class _Kept(msgspec.Struct, array_like=True):
    key: str
    fingerprint: bytes
    result: bytes
    error: ErrorValue | None


class Answers(Generic[Result]):
    """The answers of the last ``limit`` commands that had a key, the oldest first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._answers: dict[str, Answer[Result]] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str, fingerprint: bytes) -> Answer[Result] | None:
        """The first answer; None for a new key, KeyReused if it was another command's. O(1)."""
        answer = self._answers.get(key)
        if answer is not None:
            check_fingerprint(key, answer.fingerprint, fingerprint)
        return answer

    def put(self, key: str, answer: Answer[Result]) -> None:
        """Keep an answer; the oldest goes if there are too many. O(1)."""
        self._answers[key] = answer
        if len(self._answers) > self._limit:
            del self._answers[next(iter(self._answers))]

    def save(self, folder: Path, encode: Callable[[Result], bytes]) -> None:
        """Write all into a file in ``folder``. O(answers)."""
        kept = [
            _Kept(key, fingerprint, b"", to_value(error))
            if error is not None
            else _Kept(key, fingerprint, encode(result), None)  # type: ignore[arg-type]  # no error, so a result
            for key, (fingerprint, result, error) in self._answers.items()
        ]
        (folder / FILE).write_bytes(msgspec.msgpack.encode(kept))

    def load(self, folder: Path, decode: Callable[[bytes], Result]) -> None:
        """Read what ``save`` wrote. DataDamaged if it cannot be. O(answers)."""
        try:
            kept = msgspec.msgpack.decode((folder / FILE).read_bytes(), type=list[_Kept])
            self._answers = {
                each.key: Answer(each.fingerprint, None, from_value(each.error))
                if each.error is not None
                else Answer(each.fingerprint, decode(each.result), None)
                for each in kept
            }
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise DataDamaged(f"{FILE} of {folder.name} cannot be read: {error}", field="data") from error


def check_fingerprint(key: str, known: bytes, given: bytes) -> None:
    """KeyReused unless both fingerprints are the same."""
    if known != given:
        raise KeyReused(
            f"the idempotency key {key[:100]!r} was used for another command", field="key", hint="make a new key"
        )
