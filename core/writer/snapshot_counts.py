"""What became of the snapshots of a process."""

from __future__ import annotations

import time


class SnapshotCounts:
    """What became of the snapshots of this process."""

    def __init__(self) -> None:
        self.completed = self.failed = 0
        self.sequence = 0
        """Of the newest complete one, also of those before this process; 0 if there is none."""
        self.at = time.monotonic()
        """When that was complete; the start of the process, if none was in it."""

    def taken(self, sequence: int) -> None:
        """A snapshot is complete."""
        self.completed += 1
        self.sequence, self.at = sequence, time.monotonic()
