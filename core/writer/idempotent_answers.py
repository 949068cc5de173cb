"""Stored answers by idempotency key: a repeated command gets the first answer, also after a recovery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from ...placement.types.errors import HostlerError
from ..errors import DataDamaged, ErrorValue, KeyReused, from_value, to_value

Result = TypeVar("Result")

FILE: Final = "answers"
BYTES: Final = 256 << 20
"""Of all answers together."""
_ANSWER_BYTES: Final = 512
"""Of an answer, beside its contents."""
_NEED_BYTES: Final = 128


Needs = tuple[tuple[str, str], ...]
"""(role, scope) pairs."""


class _Kept(msgspec.Struct, array_like=True):
    fingerprint: bytes
    result: bytes
    error: ErrorValue | None = None
    needs: Needs | None = None


class Answers(Generic[Result]):
    """The answers of the last ``limit`` commands that had a key, the oldest first, and at most ``BYTES`` of them."""

    def __init__(
        self, limit: int, encode: Callable[[Result], bytes], decode: Callable[[bytes], Result], size: int = BYTES
    ) -> None:
        self._limit, self._encode, self._decode, self._size = limit, encode, decode, size
        self._answers: dict[str, _Kept] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str, fingerprint: bytes) -> tuple[Result | None, HostlerError | None] | None:
        """The first answer, a result or an error; None for a new key, KeyReused if it was another command's. O(1)."""
        kept = self._answers.get(key)
        if kept is None:
            return None
        check_fingerprint(key, kept.fingerprint, fingerprint)
        if kept.error is not None:
            return None, from_value(kept.error)
        return self._decode(kept.result), None

    def needs(self, key: str) -> Needs | None:
        """What the command of a known key needed; None if that was not kept, or the key is new. O(1)."""
        kept = self._answers.get(key)
        return kept.needs if kept is not None else None

    def put(self, key: str, fingerprint: bytes, outcome: Result | HostlerError, needs: Needs | None = None) -> None:
        """Keep an answer, and what its command needed; the oldest go if there are too many. O(1)."""
        if isinstance(outcome, HostlerError):
            kept = _Kept(fingerprint, b"", to_value(outcome), needs)
        else:
            kept = _Kept(fingerprint, self._encode(outcome), None, needs)
        before = self._answers.pop(key, None)
        if before is not None:
            self._bytes -= _size(key, before)
        self._answers[key] = kept
        self._bytes += _size(key, kept)
        while len(self._answers) > self._limit or self._bytes > self._size:
            oldest = next(iter(self._answers))
            self._bytes -= _size(oldest, self._answers.pop(oldest))

    def save(self, folder: Path) -> None:
        """Write all into a file in ``folder``. O(answers)."""
        (folder / FILE).write_bytes(msgspec.msgpack.encode(list(self._answers.items())))

    def load(self, folder: Path) -> None:
        """Read what ``save`` wrote. DataDamaged if it cannot be. O(answers)."""
        try:
            found = msgspec.msgpack.decode((folder / FILE).read_bytes(), type=list[tuple[str, _Kept]])
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise DataDamaged(f"{FILE} of {folder.name} cannot be read: {error}", field="data") from error
        self._answers = dict(found)
        self._bytes = sum(_size(key, kept) for key, kept in self._answers.items())


def _size(key: str, kept: _Kept) -> int:
    """About how many bytes of memory an answer takes. O(scopes that were needed)."""
    error, needs = kept.error, kept.needs or ()
    said = 0 if error is None else len(error.message) + len(error.hint or "") + len(error.field or "")
    return _ANSWER_BYTES + len(key) + len(kept.result) + said + sum(_NEED_BYTES + len(scope) for _, scope in needs)


def check_fingerprint(key: str, known: bytes, given: bytes) -> None:
    """KeyReused unless both fingerprints are the same."""
    if known != given:
        raise KeyReused(
            f"the idempotency key {key[:100]!r} was used for another command", field="key", hint="make a new key"
        )
