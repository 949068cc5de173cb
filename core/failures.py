"""Failures of parts beside the writer (snapshots, audit, metrics, watchers, logs): counted and logged, never raised."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import trio

RESTART_SECONDS: Final = 1.0
"""Before a background task that failed is started again."""

log = logging.getLogger("hostler.failures")


class Failures:
    """Failures by part. A part that fails again and again is logged when it begins to fail and when it works again."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Failures since the start of the process, by part."""
        self._failing: set[str] = set()

    def failed(self, part: str, error: BaseException) -> None:
        """Count a failure of a part; log the first one since the part last worked."""
        self.counts[part] += 1
        if part not in self._failing:
            self._failing.add(part)
            log.error("%s failed; commands go on: %s", part, error or type(error).__name__, exc_info=error)

    def works(self, part: str) -> None:
        """Note that a part works. O(1)."""
        if part in self._failing:
            self._failing.discard(part)
            log.warning("%s works again", part)

    async def keep_running(self, part: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run a background task; one that raises is counted and started again after RESTART_SECONDS."""
        while True:
            try:
                await work()
            except Exception as error:
                self.failed(part, error)
            else:
                return
            await trio.sleep(RESTART_SECONDS)


def release_frames(error: BaseException) -> None:
    """Clear the frames that a handled error went through, and those of the errors that it came from. On Python 3.13 the
    frames of an error that a context manager has translated refer to each other, and to all that was in use there."""
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is not None and one.__traceback__ is not None:
            traceback.clear_frames(one.__traceback__)
            one.__traceback__ = None
            chain += [one.__cause__, one.__context__]


def name_of(observer: object) -> str:
    """A part's name in metrics: the function's or the object's type."""
    owner = getattr(observer, "__self__", None)
    return type(owner if owner is not None else observer).__name__
