"""Values by key within a bound of bytes, of which those that were used least recently are forgotten."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class RecentlyUsed(dict[Key, Value]):
    """What was used most recently: a dict for those who read it. When it holds half of ``most`` bytes, as ``keep`` was
    told, all of it becomes the older half, and the older half before it is forgotten. ``again`` brings a value back
    from the older half. So a hit costs a lookup in a dict, and bytes stay below ``most``, but for one value."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most, self._held = most, 0
        self._older: dict[Key, tuple[Value, int]] = {}
        self._sizes: dict[Key, int] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all values, those of the older half included. O(values)."""
        return self._held + sum(size for _, size in self._older.values())

    def keep(self, key: Key, value: Value, size: int) -> Value:
        """Remember a value of ``size`` bytes, key included, in place of what the key had; returns it. O(1),
        amortised."""
        self._held += size - self._sizes.get(key, 0)
        self[key], self._sizes[key] = value, size
        self._older.pop(key, None)
        if self._held > self._most // 2:
            self._older = {each: (known, self._sizes[each]) for each, known in self.items()}
            super().clear()
            self._sizes.clear()
            self._held = 0
        return value

    def again(self, key: Key) -> Value | None:
        """The value of a key that the dict itself does not have, if it was used before: it is recent again. O(1)."""
        found = self._older.pop(key, None)
        return None if found is None else self.keep(key, *found)

    def both(self) -> list[tuple[Key, Value]]:
        """All keys and values, those of the older half included. O(values)."""
        return [*self.items(), *((key, value) for key, (value, _) in self._older.items())]

    def forget(self, key: Key) -> None:
        """Forget a key. O(1)."""
        self.pop(key, None)
        self._older.pop(key, None)
        self._held -= self._sizes.pop(key, 0)

    def clear(self) -> None:
        """Forget all."""
        super().clear()
        self._older.clear()
        self._sizes.clear()
        self._held = 0
