"""From which time on rows count as new: the time of the last look by the clocks of Nova's machines, less what these and
transactions that are long under way may be behind it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Final

log = logging.getLogger("hostler.nova")

OVERLAP: Final = timedelta(seconds=5)
"""By which a row's time may be behind another's that was read before it."""
LATELY: Final = timedelta(seconds=0.3)
"""Behind a row's time, rows that are read first: the changes between two looks, and what was committed late."""
LONGEST: Final = timedelta(minutes=15)
"""Up to which it grows where rows are found further behind."""


class Window:
    """That of one table of one cell. Rows further behind than it reaches are found otherwise, and may widen it; nothing
    narrows it."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._newest: datetime | None = None
        self._seen = 0.0
        """When it was seen."""
        self._read: float | None = None
        """When the last look that was taken in began."""
        self.overlap = OVERLAP

    def lately(self, now: float, steady: float) -> datetime:
        """As ``since``, for rows of which another look shows whether some are missing: it is no more than LATELY before
        the last look."""
        return max(self.since(now, steady) + self.overlap - LATELY, self.since(now, steady))

    def since(self, now: float, steady: float) -> datetime:
        """The time from which on rows are to be read: when the last look began that was taken in, however long ago, by
        the clocks of Nova's machines, which is the newest time of a row and what had passed since it was seen, less the
        overlap. ``now`` (seconds since the epoch) bounds it, so that one clock that is ahead hides no row of the
        others; ``steady``: by a clock that is not set."""
        began = steady if self._read is None else self._read
        mine = datetime.fromtimestamp(now - (steady - began), UTC).replace(tzinfo=None)
        if self._newest is not None:
            mine = min(mine, self._newest + timedelta(seconds=began - self._seen))
        return mine - self.overlap

    def saw(self, newest: datetime | None, steady: float) -> None:
        """A look that began at ``steady`` was taken in, and read rows up to a time; None for none."""
        self._read = steady
        if newest is not None and (
            self._newest is None or newest > self._newest + timedelta(seconds=steady - self._seen)
        ):
            self._newest, self._seen = newest, steady

    def missed(self, at: datetime | None, since: datetime) -> None:
        """A row with the time ``at`` has changed, and rows since ``since`` only would not have shown it."""
        if at is None or at >= since or self.overlap >= LONGEST:
            return
        self.overlap = min(LONGEST, self.overlap + 2 * (since - at))
        problem = (
            "rows of %s were written %s late: a clock is behind, or a transaction was long; rows are read again for %s"
        )
        log.warning(problem, self._table, since - at, self.overlap)


__all__ = ["LONGEST", "OVERLAP", "Window"]
