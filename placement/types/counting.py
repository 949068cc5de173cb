"""Numbers with their nouns, for sentences that people read."""

from __future__ import annotations


def counted(number: int, word: str, several: str = "") -> str:
    """A number with its noun in singular or plural ("1 wave", "1,081 waves"). ``several``: the plural, where it is not
    the word and an s."""
    return f"{number:,} {word if number == 1 else several or f'{word}s'}"
