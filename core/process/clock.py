"""The wall clock, checked against a clock that cannot be set, so that a single wrong reading has no effect.

Time goes by as CLOCK_BOOTTIME does (suspension included) from the wall time at the start. A wall clock that drifts is
followed by at most STEP_SECONDS at a time; one that jumps further only once it has said the same for CONFIRM_SECONDS.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

STEP_SECONDS: Final = 1.0
"""Greatest correction that is taken over at once."""
CONFIRM_SECONDS: Final = 30.0
"""How long a jump must last before it is followed."""
POLL_SECONDS: Final = 5.0
"""Interval at which the daemon reads the clock when no call does."""

log = logging.getLogger("hostler.clock")


def boot_seconds() -> float:
    """Seconds since the system's start, also those in which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class HonestClock:
    """``clock()`` is the time in seconds since the epoch, in any thread. ``jumps`` counts readings that began a jump,
    ``followed`` those jumps that lasted and were taken over."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = boot_seconds) -> None:
        self._wall, self._steady = wall, steady
        self._offset = wall() - steady()
        self._jump: tuple[float, float] | None = None
        """The offset after a jump that is not followed yet, and when (steady clock) it was first seen."""
        self.jumps = self.followed = 0
        self._turn = threading.Lock()

    def __call__(self) -> float:
        wall = self._wall()
        offset = wall - self._steady()
        if self._jump is None and -STEP_SECONDS <= offset - self._offset <= STEP_SECONDS:  # as nearly always
            self._offset = offset
            return wall
        return self.read()[0]

    def read(self) -> tuple[float, float]:
        """(the checked time, the reading of the wall clock)."""
        with self._turn:
            wall, steady = self._wall(), self._steady()
            self._follow(wall - steady, steady)
            return steady + self._offset, wall

    def latest(self) -> float:
        """The later of the checked time and the wall clock's reading, which decides whether a token has expired."""
        return max(self.read())

    @property
    def disagreement(self) -> float:
        """Seconds by which the wall clock is ahead of the checked time (negative: behind)."""
        believed, wall = self.read()
        return wall - believed

    def _follow(self, offset: float, steady: float) -> None:
        if abs(offset - self._offset) <= STEP_SECONDS:
            self._offset, self._jump = offset, None
            return
        if self._jump is None or abs(offset - self._jump[0]) > STEP_SECONDS:
            self.jumps += 1
            self._jump = offset, steady
            seconds = offset - self._offset
            log.error("the clock jumped by %+.1f s; followed only if it stays so for %g s", seconds, CONFIRM_SECONDS)
        elif steady - self._jump[1] >= CONFIRM_SECONDS:
            self.followed += 1
            log.warning("the clock's jump by %+.1f s has lasted: time follows it", offset - self._offset)
            self._offset, self._jump = offset, None
