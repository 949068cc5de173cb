"""Versions of engines that share one fleet: which of them the state is at, and how it moves to another."""

from __future__ import annotations

import weakref
from typing import Protocol

from ..versions.history import Version
from .change_log import ChangeLog
from .service_liveness import Services


class Handle(Protocol):
    """What a caller holds of a version; it is told when the state comes and goes."""

    def _set_present(self, present: bool) -> None: ...


class Head:
    """The version of the fleet that an engine works on; ``version`` is None while the state is at it."""

    __slots__ = ("handle", "now", "sequence", "version", "volume_sequence")

    def __init__(self, handle: Handle) -> None:
        self.handle = weakref.ref(handle)
        self.version: Version | None = None
        self.now: float | None = None
        self.sequence, self.volume_sequence = 0, 0

    def tell(self, present: bool) -> None:
        """Tell the handle, if it is still referred to, whether the state is at its version."""
        handle = self.handle()
        if handle is not None:
            handle._set_present(present)


class Heads:
    """The heads of all handles on a fleet; the state is at one of them."""

    def __init__(self, change_log: ChangeLog, services: Services) -> None:
        self._history, self._services = change_log.history, services
        self.present: Head | None = None
        self.sequence = 0
        """Number of the latest decision at the current head."""
        self.volume_sequence = 0
        """Number of the latest volume decision at the current head."""
        self.turns = 0
        """Number of times that a version was made, or the state went to one."""

    def adopt(self, head: Head) -> Head:
        """Take the first head; the state is there. O(1)."""
        self.present = head
        return head

    def share(self, head: Head) -> None:
        """Start ``head`` at the current state. O(1)."""
        self.turns += 1
        head.version, head.now = self._history.hold(), self._services.now
        head.sequence, head.volume_sequence = self.sequence, self.volume_sequence
        head.tell(False)

    def replace(self, head: Head, other: Head) -> None:
        """Have ``head`` go on from the version of ``other``, which is not used any more. O(1) if the state is there,
        else O(changes between the two)."""
        self.enter(other)
        other.tell(False)
        head.version = other.version = None
        self.present = head
        head.tell(True)

    def drop(self, head: Head, other: Head) -> None:
        """Go back to ``head``; ``other`` is not used any more. O(changes between the two)."""
        self.enter(head)
        other.version = None

    def enter(self, head: Head) -> None:
        """Move the state to ``head``. O(1) if it is there, else O(changes between the two), plus the cost of
        ``Services.advance`` if the times differ. No-op while the history moves: an operation that is undone or redone
        works on the state as it is, whichever handle it was made with."""
        present = self.present
        if present is head or self._history.moving:
            return
        if head.version is None:
            raise RuntimeError("a head of another fleet")
        self.turns += 1
        self._history.before_leaving()
        if present is not None and present.handle() is not None:
            self.share(present)
        self._history.go(head.version)
        head.version = None
        self.sequence, self.volume_sequence = head.sequence, head.volume_sequence
        self.present = head
        head.tell(True)
        if self._services.now != head.now:
            self._services.advance(head.now, self._services.down_time)
