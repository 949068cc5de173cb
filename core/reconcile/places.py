"""Places for the calls on one back end: so many at once, those of removals first."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Places:
    """Some places, which callers hold one each. Who waits is served in order; the urgent before all others."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._urgent, self._usual = deque[trio.Event](), deque[trio.Event]()

    @asynccontextmanager
    async def one(self, *, urgent: bool) -> AsyncIterator[None]:
        """Hold a place, once there is one."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(self._urgent if urgent else self._usual)
        try:
            yield
        finally:
            self._leave()

    async def _wait(self, waiting: deque[trio.Event]) -> None:
        mine = trio.Event()
        waiting.append(mine)
        try:
            await mine.wait()
        except trio.Cancelled:
            if mine.is_set():
                self._leave()
            else:
                waiting.remove(mine)
            raise

    def _leave(self) -> None:
        """Give a place to the next one that waits."""
        waiting = self._urgent or self._usual
        if waiting:
            waiting.popleft().set()
        else:
            self._free += 1
