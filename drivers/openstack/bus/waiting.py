"""How long a message may have waited with the broker before it was taken, which brokers do not tell. A bound: the truth
is the same or less. It decides whether the caller of a call that was taken after a restart may have given up."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

BEAT_SECONDS: Final = 0.1
QUIET_SECONDS: Final = 1.0
"""If nothing came for so long, nothing was waiting: brokers deliver what waits within less."""


def age_of(context: Mapping[str, Any], now: float) -> float | None:
    """Seconds since the request of a call began, by the context that Nova sends with it and the clock of its API's
    machine; None if it does not say, or says that it is yet to begin."""
    try:
        begun = datetime.fromisoformat(str(context.get("timestamp")))
        begun = begun if begun.tzinfo is not None else begun.replace(tzinfo=UTC)
        age = now - begun.timestamp()
    except (ValueError, OverflowError):
        return None
    return age if age >= 0 else None


class WaitBound:
    """Bounds of the messages of one connection. Messages that wait come in the order in which they were sent, so each
    was sent after the one before it; a message that comes after a pause in which this process was running and connected
    was sent just now; and a call was sent after its request began."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent_after = -math.inf
        self._ready_at: float | None = None
        self._beats = -math.inf, -math.inf
        """The last two times at which this process was seen running."""

    def beat(self) -> None:
        """This process is running. To be called every ``BEAT_SECONDS``, in any thread."""
        self._beats = self._beats[1], self._clock()

    def beat_until(self, end: threading.Event) -> None:
        """`beat` until an event is set."""
        while not end.wait(BEAT_SECONDS):
            self.beat()

    def ready(self) -> None:
        """The thread that takes messages waits for the next one."""
        self._ready_at = self._clock()

    def interrupted(self) -> None:
        """A connection was lost: messages may wait until it is there again."""
        self._ready_at = None

    def taken(self, age: float | None) -> float:
        """Seconds that the message that is taken now may have waited, infinite if nothing is known. ``age``: of its
        request, if known."""
        now = self._clock()
        runs = now - self._beats[0] < QUIET_SECONDS + 2 * BEAT_SECONDS
        if runs and self._ready_at is not None and now - self._ready_at >= QUIET_SECONDS:
            self._sent_after = now
        elif age is not None:
            self._sent_after = max(self._sent_after, now - age)
        return now - self._sent_after


__all__ = ["BEAT_SECONDS", "QUIET_SECONDS", "WaitBound", "age_of"]
