"""The work of one back end: keys, each at most once, by due time and priority."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

import trio

URGENT: Final = 0
"""Removals: they make room."""
USUAL: Final = 1
VOLUME: Final = "volume/"
"""What keys of volumes begin with; those of guests are their uuids."""


class WorkQueue:
    """Keys that are due now or later. A key that is worked on is not handed out a second time; if it is added
    meanwhile, it is due again afterwards. Bounded by the number of keys."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, int, str]] = []
        self._due: dict[str, tuple[float, int]] = {}
        """By waiting key: when it is due, and its priority."""
        self._added = 0
        self.running: set[str] = set()
        self._again: dict[str, tuple[float, int]] = {}
        self._wake = trio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: str, after: float = 0.0, priority: int = USUAL) -> None:
        """Have a key worked on, in ``after`` seconds or earlier if it is due earlier already. O(log keys)."""
        due = self._clock() + after
        if key in self.running:
            before = self._again.get(key)
            self._again[key] = (due, priority) if before is None else min(before, (due, priority))
            return
        known = self._due.get(key)
        if known is not None and known[0] <= due and known[1] <= priority:
            return
        if known is not None:
            due, priority = min(due, known[0]), min(priority, known[1])
        self._due[key] = (due, priority)
        self._added += 1
        heapq.heappush(self._heap, (due, priority, self._added, key))
        self.wake()

    def wake(self) -> None:
        """Have ``take`` look again."""
        self._wake.set()

    def done(self, key: str) -> None:
        """A key is no longer worked on."""
        self.running.discard(key)
        again = self._again.pop(key, None)
        if again is not None:
            self.add(key, max(0.0, again[0] - self._clock()), again[1])
        self.wake()

    async def take(self, most: int, held_back: Callable[[], float]) -> str:
        """The next key that is due, once fewer than ``most`` keys are worked on and ``held_back`` returns 0 seconds.
        Of keys that are due, urgent ones first."""
        while True:
            self._wake = trio.Event()
            wait = held_back()
            if wait <= 0 and len(self.running) < most:
                key = self._pop()
                if key is not None:
                    self.running.add(key)
                    await trio.lowlevel.checkpoint()
                    return key
                wait = self._heap[0][0] - self._clock() if self._heap else float("inf")
            elif wait <= 0:
                wait = float("inf")
            with trio.move_on_after(wait):
                await self._wake.wait()

    def _pop(self) -> str | None:
        now, due = self._clock(), list[tuple[float, int, int, str]]()
        while self._heap and self._heap[0][0] <= now and len(due) < 64:
            entry = heapq.heappop(self._heap)
            if self._due.get(entry[3]) == entry[:2]:
                due.append(entry)
        if not due:
            return None
        first = min(due, key=lambda entry: (entry[1], entry[0], entry[2]))
        for entry in due:
            if entry is not first:
                heapq.heappush(self._heap, entry)
        del self._due[first[3]]
        return first[3]
