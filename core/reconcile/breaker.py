"""Circuit breaker of one back end, and the waits between repetitions."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

FAILURES_TO_OPEN: Final = 5
OPEN_SECONDS: Final = 15.0
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 60.0
LONGEST_ASKED: Final = 300.0
"""The longest wait that a back end is granted when it asks for one: what it says may be wrong, and a guest is not to
wait beyond the time for its build."""


class Breaker:
    """Open after FAILURES_TO_OPEN calls in succession that the back end did not answer: then no call is made for
    OPEN_SECONDS, and one call after that decides whether it closes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False
        self.opened = 0
        """How often it has opened."""

    @property
    def state(self) -> str:
        """closed, open or half_open."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    def wait(self) -> float:
        """Seconds until a call may be made; 0.0: now. While half open, one call is let through."""
        if self._open_until is None:
            return 0.0
        left = self._open_until - self._clock()
        if left > 0:
            return left
        return OPEN_SECONDS / 10 if self._probing else 0.0

    def begin(self) -> None:
        """A call is made."""
        if self._open_until is not None:
            self._probing = True

    def answered(self) -> None:
        """A call was answered, be it by a refusal."""
        self._failures, self._open_until, self._probing = 0, None, False

    def unanswered(self) -> None:
        """A call was not answered."""
        self._failures += 1
        self._probing = False
        if self._failures >= FAILURES_TO_OPEN:
            self.opened += self._open_until is None
            self._open_until = self._clock() + OPEN_SECONDS

    def given_up(self) -> None:
        """A call was cancelled: nothing is known of the back end."""
        self._probing = False


class Backoff:
    """Waits that double for each key from FIRST_WAIT to LONGEST_WAIT, each shortened by up to a half at random, so that
    what failed together is not repeated together."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._tries: dict[str, int] = {}

    def next(self, key: str, least: float = 0.0) -> float:
        """Seconds to wait after one more failure, at least ``least``, of which LONGEST_ASKED count."""
        tries = self._tries[key] = self._tries.get(key, 0) + 1
        wait = min(FIRST_WAIT * 2.0 ** min(tries - 1, 16), LONGEST_WAIT)
        return max(min(least, LONGEST_ASKED), wait * self._chance.uniform(0.5, 1.0))

    def forget(self, key: str) -> None:
        """The key has succeeded."""
        self._tries.pop(key, None)
