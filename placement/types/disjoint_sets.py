"""Disjoint sets of integers."""

from __future__ import annotations


class DisjointSets:
    """Disjoint sets of integers; each is in a set of its own until it is joined with another."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def of(self, value: int) -> int:
        """The value that stands for the set of a value."""
        above = self._above
        while (higher := above.get(value, value)) != value:
            above[value] = above.get(higher, higher)
            value = higher
        return value

    def join(self, one: int, other: int) -> None:
        """Make one set of those of two values; what stood for that of ``one`` stands for both."""
        one, other = self.of(one), self.of(other)
        if one != other:
            self._above[other] = one


__all__ = ["DisjointSets"]
