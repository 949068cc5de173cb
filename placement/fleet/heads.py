"""Versions of engines that share one fleet: which of them the state is at, and how it moves to another."""

from __future__ import annotations

import weakref

from ..versions.history import Version
from .change_log import ChangeLog
from .service_liveness import Services


class Head:
    """The version of the fleet that an engine works on; ``version`` is None while the state is at it."""

    __slots__ = ("__weakref__", "now", "sequence", "version", "volume_sequence")

    def __init__(self) -> None:
        self.version: Version | None = None
        self.now: float | None = None
        self.sequence, self.volume_sequence = 0, 0


class Heads:
    """The heads of all engines on a fleet; the state is at one of them."""

    def __init__(self, change_log: ChangeLog, services: Services) -> None:
        self._history, self._services = change_log.history, services
        self._present: weakref.ref[Head] | None = None
        self.sequence = 0
        """Number of the latest decision at the current head."""
        self.volume_sequence = 0
        """Number of the latest volume decision at the current head."""

    def adopt(self, head: Head) -> Head:
        """The current head: ``head`` if there is none yet, else the one that other engines share. O(1)."""
        present = self._there()
        if present is None:
            self._present = weakref.ref(head)
            return head
        return present

    def share(self, head: Head) -> None:
        """Start ``head`` at the current state. O(1)."""
        head.version, head.now = self._history.hold(), self._services.now
        head.sequence, head.volume_sequence = self.sequence, self.volume_sequence

    def enter(self, head: Head) -> None:
        """Move the state to ``head``. O(1) if it is there, else O(changes between the two), plus the cost of
        ``Services.advance`` if the times differ."""
        present = self._there()
        if present is head:
            return
        if head.version is None:
            raise RuntimeError("a head of another fleet")
        if present is not None:
            self.share(present)
        self._history.go(head.version)
        head.version = None
        self.sequence, self.volume_sequence = head.sequence, head.volume_sequence
        self._present = weakref.ref(head)
        if self._services.now != head.now:
            self._services.advance(head.now, self._services.down_time)

    def _there(self) -> Head | None:
        return self._present() if self._present is not None else None
