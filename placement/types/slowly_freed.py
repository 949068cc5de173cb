"""Containers whose entries are freed a few at a time: freeing tens of thousands of objects together is a pause."""

from __future__ import annotations

from typing import Any


class SlowlyFreed:
    """What is not needed any more, ``parts``, until it has been freed."""

    def __init__(self) -> None:
        self.parts: list[dict[Any, Any] | list[Any]] = []

    def add(self, *parts: dict[Any, Any] | list[Any]) -> None:
        """Take over containers that are used nowhere else: they are emptied. O(containers)."""
        self.parts += filter(None, parts)

    def free(self, most: int) -> None:
        """Free so many entries at most. O(``most``)."""
        parts = self.parts
        for _ in range(most):
            if not parts:
                return
            last = parts[-1]
            if isinstance(last, dict):
                last.popitem()
            else:
                last.pop()
            if not last:
                parts.pop()

    def clear(self) -> None:
        """Free everything."""
        self.parts.clear()
