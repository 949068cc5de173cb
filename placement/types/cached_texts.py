"""A cache for functions of texts, which long texts do not fill."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from typing import Final, TypeVar

Text = TypeVar("Text", str, tuple[tuple[str, str], ...])
Result = TypeVar("Result")

LONGEST: Final = 1_024
"""Characters of a text, or of several ones together, whose result is kept."""


def cached_texts(entries: int) -> Callable[[Callable[[Text], Result]], Callable[[Text], Result]]:
    """``lru_cache`` of so many entries for a function of a text, or of pairs of texts. Longer ones are read each time:
    what callers send, up to a megabyte each, does not stay."""

    def around(function: Callable[[Text], Result]) -> Callable[[Text], Result]:
        cached = lru_cache(maxsize=entries)(function)

        @wraps(function)
        def found(text: Text) -> Result:
            return cached(text) if _length(text) <= LONGEST else function(text)

        return found

    return around


def _length(text: str | Iterable[tuple[str, str]]) -> int:
    return len(text) if isinstance(text, str) else sum(len(name) + len(value) for name, value in text)
