"""Work that is done in steps, as generators that pause between them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def finished(steps: Generator[None, None, T]) -> T:
    """What steps return, taken without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            outcome: T = end.value
            return outcome


def in_pieces(values: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Values, at most so many at a time."""
    return (values[first : first + most] for first in range(0, len(values), most))
