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
SNAPSHOT: Final = "snapshot/"
"""What keys of snapshots of guests begin with."""


class WorkQueue:
    """Keys that are due now or later. A key that is worked on is not handed out a second time; if it is added
    meanwhile, it is due again afterwards. Bounded by the number of keys."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: list[tuple[float, int, int, str]] = []
        """A heap of what is due later: (due, priority, number, key)."""
        self._ready: list[tuple[int, float, int, str]] = []
        """A heap of what was due when it was last looked at: (priority, due, number, key)."""
        self._due: dict[str, tuple[float, int, int]] = {}
        """By waiting key: when it is due, its priority, and the number of its entry in a heap; others are stale."""
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
            if before is not None:
                due, priority = min(due, before[0]), min(priority, before[1])
            self._again[key] = due, priority
            return
        known = self._due.get(key)
        if known is not None and known[0] <= due and known[1] <= priority:
            return
        if known is not None:
            due, priority = min(due, known[0]), min(priority, known[1])
        self._added += 1
        self._due[key] = due, priority, self._added
        heapq.heappush(self._waiting, (due, priority, self._added, key))
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

    async def take(self, most: int, held_back: Callable[[], float]) -> tuple[str, int]:
        """The next key that is due, and its priority, once fewer than ``most`` keys are worked on, or twice as many
        for an urgent one, and ``held_back`` returns 0 seconds. Of keys that are due, urgent ones first."""
        await trio.lowlevel.checkpoint()  # beforehand: a key that is taken is not lost
        while True:
            self._wake = trio.Event()
            wait = held_back()
            running = len(self.running)
            if wait <= 0 and running < 2 * most:
                found = self._pop(URGENT if running >= most else USUAL)
                if found is not None:
                    self.running.add(found[0])
                    return found
                wait = self._waiting[0][0] - self._clock() if self._waiting else float("inf")
            elif wait <= 0:
                wait = float("inf")
            with trio.move_on_after(wait):
                await self._wake.wait()

    def _pop(self, least: int) -> tuple[str, int] | None:
        """The most urgent key that is due, and its priority, if that is ``least`` or more urgent; of those, the one
        that has been due longest. O(log keys), amortised."""
        now, waiting, ready = self._clock(), self._waiting, self._ready
        while waiting and waiting[0][0] <= now:
            due, priority, number, key = heapq.heappop(waiting)
            heapq.heappush(ready, (priority, due, number, key))
        while ready and ready[0][0] <= least:
            priority, _, number, key = heapq.heappop(ready)
            known = self._due.get(key)
            if known is not None and known[2] == number:
                del self._due[key]
                return key, priority
        return None
