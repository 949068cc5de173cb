"""How fast the reconciler goes on while the event loop has other work: placements share the loop with it, and lose no
more than a small part of it."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, Final, TypeVar

import trio

T = TypeVar("T")
SHARE: Final = 0.015
"""Part of the loop's time that the reconciler has while there are MANY commands of others; with fewer it has more,
without any all of it."""
MANY: Final = 1_000.0
"""Commands a second that are not about guests which a back end has."""
HALF_LIFE: Final = 0.05
"""Seconds after which a command counts half."""
SAVED: Final = 0.01
"""Seconds that the reconciler may save up: it is not to take long at once."""
LOOK: Final = 0.005
"""Seconds between two looks whether it may go on."""
_MANY_AT_ONCE: Final = MANY * HALF_LIFE / 0.693
_OBJECTS: Final = ("requests", "uuids", "reports", "hosts")
"""Fields of commands that hold what they are on."""


def objects_of(command: object) -> int:
    """On how many objects a command is; at least 1."""
    held = (getattr(command, name, None) for name in _OBJECTS)
    return max((len(each) for each in held if isinstance(each, tuple)), default=0) or 1


class Pace:
    """What the reconciler has taken of the loop of one thread, and may take."""

    def __init__(self) -> None:
        self._left = SAVED
        self._looked_at = time.perf_counter()
        self._others = 0
        """Commands of others since it was looked at."""
        self._pressure = 0.0
        """Commands of others before, each the less the longer it is ago."""

    def told(self, weight: int = 1) -> None:
        """A command of someone else was carried out, on so many objects."""
        self._others += weight

    def spend(self, seconds: float) -> None:
        """Note time of the loop that the reconciler has taken. Of one long step, which may be a pause of the whole
        process, no more than SAVED is made good."""
        self._left = max(self._left - seconds, -SAVED)

    async def turn(self) -> None:
        """Return when the reconciler may take the next step: at once on a loop that has no other work."""
        while not self._may_go_on():  # noqa: ASYNC110  # time makes it true
            await trio.sleep(LOOK)

    def _may_go_on(self) -> bool:
        now = time.perf_counter()
        passed = now - self._looked_at
        if passed > LOOK or self._left <= 0:
            self._looked_at = now
            self._pressure = self._pressure * 0.5 ** (passed / HALF_LIFE) + self._others
            self._others = 0
            free = 1.0 - self._pressure / _MANY_AT_ONCE
            if free > 1.0 - SHARE:
                self._left = SAVED
            else:
                self._left = min(self._left + passed * max(free, SHARE), SAVED)
        return self._left > 0

    @coroutine
    def metered(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Do some work, and note the time of the loop that it takes. Asking for its processor time would take longer
        than many a part of it."""
        value, error = None, None
        while True:
            began = time.perf_counter()
            try:
                asked = work.send(value) if error is None else work.throw(error)
            except StopIteration as done:
                result: T = done.value
                return result
            finally:
                self.spend(time.perf_counter() - began)
            try:
                value, error = (yield asked), None
            except BaseException as caught:  # trio throws what a wait ends with: cancellations too
                value, error = None, caught
