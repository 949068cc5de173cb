"""Guests that are held for a limited time: unless a hold is confirmed, they are released when it ends. It knows no
fleet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sortedcontainers import SortedList


class Holds:
    """Ends of holds, in seconds since the epoch, by instance uuid; in the order of their time."""

    def __init__(self, expires: Mapping[str, float] | None = None) -> None:
        self._expires = dict(expires or {})
        self._in_time: SortedList[tuple[float, str]] = SortedList((when, uuid) for uuid, when in self._expires.items())

    def __len__(self) -> int:
        return len(self._expires)

    def __contains__(self, uuid: object) -> bool:
        return uuid in self._expires

    def plain(self) -> dict[str, float]:
        """What ``Holds`` is made of again. O(holds)."""
        return dict(self._expires)

    def end_of(self, uuid: str) -> float | None:
        """When the hold of a guest ends; None if it is not held. O(1)."""
        return self._expires.get(uuid)

    def add(self, uuids: Iterable[str], expires: float) -> None:
        """Hold guests until ``expires``; a hold that there is gets the new end. O(guests * log holds)."""
        for uuid in uuids:
            self.end((uuid,))
            self._expires[uuid] = expires
            self._in_time.add((expires, uuid))

    def end(self, uuids: Iterable[str]) -> int:
        """End holds, where there are any; returns how many there were. O(guests * log holds)."""
        ended = 0
        for uuid in uuids:
            expires = self._expires.pop(uuid, None)
            if expires is not None:
                self._in_time.remove((expires, uuid))
                ended += 1
        return ended

    def due(self, now: float) -> list[str]:
        """Guests whose holds have ended by ``now``, in the order of their time, then uuid. O(1) if there is none."""
        found = []
        for expires, uuid in self._in_time:
            if expires > now:
                break
            found.append(uuid)
        return found
