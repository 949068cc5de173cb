"""How often each user may call: token buckets, in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import trio

from .errors import Overloaded

USERS_KEPT: Final = 10_000
"""Users whose rate is remembered; the one who has been silent longest is forgotten first."""


class RateLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calls per second of one user, on all connections together; 0: no limit. ``burst``: seconds of silence that may
    be made up for at once."""

    commands_per_second: float = 0.0
    questions_per_second: float = 0.0
    burst: float = 2.0


class Rate:
    """One limit: ``spend`` takes from a user's bucket, which fills with ``per_second``."""

    def __init__(self, what: str, per_second: float, burst: float, clock: Callable[[], float] | None = None) -> None:
        self._what, self._per_second, self._most = what, per_second, max(per_second * burst, 1.0)
        self._clock = clock if clock is not None else trio.current_time
        self._buckets: dict[str, tuple[float, float]] = {}

    def spend(self, user: str, count: int = 1) -> None:
        """Overloaded, and nothing taken, if the user's bucket has not so much; one call of more than a whole bucket
        needs it full. O(1)."""
        if self._per_second <= 0:
            return
        now = self._clock()
        held, at = self._buckets.pop(user, (self._most, now))
        held = min(self._most, held + (now - at) * self._per_second)
        need = min(count, self._most)
        self._buckets[user] = (held - count if held >= need else held, now)
        if len(self._buckets) > USERS_KEPT:
            del self._buckets[next(iter(self._buckets))]
        if held < need:
            wait = (need - held) / self._per_second
            problem = f"more than {self._per_second:g} {self._what} a second"
            raise Overloaded(problem, field="rate", hint=f"ask again in {wait:.1f} s")
