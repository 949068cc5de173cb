"""Values by key within a bound of bytes, of which those that were used least recently are forgotten."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, TypeVar

from .slowly_freed import SlowlyFreed

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

FREED: Final = 8
"""Forgotten values that are freed whenever one is kept: thousands of them together would be a pause."""


class RecentlyUsed(dict[Key, Value]):
    """What was used most recently: a dict for those who read it. When it holds half of ``most`` bytes, as ``keep`` was
    told, all of it becomes the older half, and the older half before it is forgotten. ``again`` brings a value back
    from the older half. So a hit costs a lookup in a dict, and bytes stay below ``most``, but for one value, and what
    was forgotten lately, of which each ``keep`` frees a little."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most, self._held = most, 0
        self._older: dict[Key, Value] = {}
        self._sizes: dict[Key, int] = {}
        self._older_sizes: dict[Key, int] = {}
        self._freed = SlowlyFreed()
        """What was forgotten."""

    @property
    def nbytes(self) -> int:
        """Bytes of all values, those of the older half included. O(values)."""
        return self._held + sum(self._older_sizes.values())

    def keep(self, key: Key, value: Value, size: int) -> Value:
        """Remember a value of ``size`` bytes, key included, in place of what the key had; returns it. O(1),
        amortised."""
        self._held += size - self._sizes.get(key, 0)
        self[key], self._sizes[key] = value, size
        if key in self._older:
            del self._older[key], self._older_sizes[key]
        if self._held > self._most // 2:
            self._freed.add(self._older)
            self._older, self._older_sizes = dict(self), self._sizes
            super().clear()
            self._sizes, self._held = {}, 0
        if self._freed.parts:
            self._freed.free(FREED)
        return value

    def again(self, key: Key) -> Value | None:
        """The value of a key that the dict itself does not have, if it was used before: it is recent again. O(1)."""
        found = self._older.pop(key, None)
        return None if found is None else self.keep(key, found, self._older_sizes.pop(key))

    def both(self) -> list[tuple[Key, Value]]:
        """All keys and values, those of the older half included. O(values)."""
        return [*self.items(), *self._older.items()]

    def forget(self, key: Key) -> None:
        """Forget a key. O(1)."""
        self.pop(key, None)
        self._older.pop(key, None)
        self._older_sizes.pop(key, None)
        self._held -= self._sizes.pop(key, 0)

    def clear(self) -> None:
        """Forget all."""
        super().clear()
        self._freed.clear()
        for part in (self._older, self._sizes, self._older_sizes):
            part.clear()
        self._held = 0
