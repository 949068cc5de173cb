"""The right of one member to write: held through a lease, and given up before that can end elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine is suspended, where there is such a clock."""

TICK: Final = 0.001
"""Seconds: a shorter sleep may end at the moment that it began at."""


def since_boot() -> float:
    """Seconds on a clock that cannot be set."""
    return time.clock_gettime(_CLOCK)


class Leadership:
    """One term of one member. ``lost`` is set once it is over, for whatever reason."""

    def __init__(self, term: int, lease: int, until: float, *, clock: Callable[[], float] = since_boot) -> None:
        """``term``: the revision at which the leader's key was created; ``until``: end of the lease on ``clock``."""
        self.term, self.lease, self.until, self._clock = term, lease, until, clock
        self.lost = trio.Event()
        self.reason = ""
        self.given_up = False
        """True: the lease is to end, for another member may do better."""

    @property
    def left(self) -> float:
        """Seconds for which commands may still be taken; 0 or less: none."""
        return 0.0 if self.lost.is_set() else self.until - self._clock()

    def extend(self, until: float) -> None:
        """The lease has been refreshed."""
        self.until = max(self.until, until)

    def lose(self, reason: str) -> None:
        """End it here. The first reason counts."""
        if not self.lost.is_set():
            self.reason = reason
            self.lost.set()

    def give_up(self, reason: str) -> None:
        """End it here although the lease lasts, and have that end as well."""
        self.given_up = not self.lost.is_set()
        self.lose(reason)

    async def over(self) -> None:
        """Wait until it is lost, or its lease has ended, which may be refreshed meanwhile."""
        while (left := self.left) > 0:
            with trio.move_on_after(max(left, TICK)):
                await self.lost.wait()
