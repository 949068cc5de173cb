"""Calls of blocking libraries, each in a thread, one at a time for each object. A call that is cancelled in its thread
goes on there: the next one on the same object waits for it, without a thread, and those on other objects do not."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

import trio

T = TypeVar("T")
MOST_LEFT: Final = 64
"""Threads whose callers were cancelled and that others need not wait for; those beyond count as calls under way."""


class Turns:
    """Whose turn it is, by object: one holder each, and those who wait in the order in which they came. Nothing is kept
    of objects that no one uses."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[trio.Event]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def take(self, key: str) -> None:
        """Return once it is the caller's turn, who then has to call ``give``."""
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque()
            return
        turn = trio.Event()
        waiting.append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn.is_set():
                self.give(key)
            else:
                waiting.remove(turn)
            raise

    def give(self, key: str) -> None:
        """Let the next one have its turn."""
        waiting = self._waiting[key]
        if waiting:
            waiting.popleft().set()
        else:
            del self._waiting[key]


class _Call(Generic[T]):
    """One call: whether its thread or its caller ends it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work, self._lock = work, threading.Lock()
        self._state = "new"
        """new, running, ended, given_up or left."""

    def do(self, left: Callable[[], None]) -> T | None:
        """In the thread: the work, unless the caller has given it up. ``left`` is called if it was left alone."""
        with self._lock:
            if self._state == "given_up":
                return None
            self._state = "running"
        try:
            return self._work()
        finally:
            with self._lock:
                alone, self._state = self._state == "left", "ended"
            if alone:
                left()

    def cancelled(self) -> bool:
        """By the caller: True if the thread is left alone, False if it does nothing any more."""
        with self._lock:
            runs = self._state == "running"
            if self._state != "ended":
                self._state = "left" if runs else "given_up"
            return runs


class Threads:
    """The threads of one driver, ``most`` at a time, and those that were left alone."""

    def __init__(self, most: int) -> None:
        self._most, self._left, self._busy = most, 0, 0
        self._limiter = trio.CapacityLimiter(most)
        self._idle = trio.Event()
        self._idle.set()
        self.turns = Turns()

    async def run(self, work: Callable[[], T], key: str = "") -> T:
        """Do work in a thread, after what was begun before for the same ``key``; without one, at once."""
        if key:
            await self.turns.take(key)
        call, loop = _Call(work), trio.lowlevel.current_trio_token()

        def left() -> None:
            with suppress(trio.RunFinishedError):  # no one is there to wait for it
                loop.run_sync_soon(self._end, key, True)

        if not self._busy:
            self._idle = trio.Event()
        self._busy += 1
        alone = False
        try:
            result = await trio.to_thread.run_sync(call.do, left, abandon_on_cancel=True, limiter=self._limiter)
        except trio.Cancelled:
            alone = call.cancelled()
            raise
        finally:
            self._leave() if alone else self._end(key, alone=False)
        return result  # type: ignore[return-value]  # it is None only for calls that were given up

    def _leave(self) -> None:
        """A thread is left alone: another call may have its place."""
        self._left += 1
        self._limiter.total_tokens = self._most + min(self._left, MOST_LEFT)

    def _end(self, key: str, alone: bool) -> None:
        """A call has ended."""
        if alone:
            self._left -= 1
            self._limiter.total_tokens = self._most + min(self._left, MOST_LEFT)
        if key:
            self.turns.give(key)
        self._busy -= 1
        if not self._busy:
            self._idle.set()

    async def ended(self) -> None:
        """Return once no thread is at work."""
        await self._idle.wait()
