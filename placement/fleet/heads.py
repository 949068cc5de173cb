"""Engines that share one fleet: which one's version the state is at, and how it gets to another's."""

from __future__ import annotations

import weakref

from ..versions.history import Version
from .change_log import Ledger
from .service_liveness import Services


class Tip:
    """Where an engine left the fleet; ``version`` is None while the state itself is there."""

    __slots__ = ("__weakref__", "now", "sequence", "version", "volume_sequence")

    def __init__(self) -> None:
        self.version: Version | None = None
        self.now: float | None = None
        self.sequence, self.volume_sequence = 0, 0


class Tips:
    """The tips of all engines on a fleet; the state is at one of them."""

    def __init__(self, ledger: Ledger, services: Services) -> None:
        self._history, self._services = ledger.history, services
        self._present: weakref.ref[Tip] | None = None
        self.sequence = 0
        """Number of the latest decision at the tip that the state is at."""
        self.volume_sequence = 0
        """The same for volumes."""

    def adopt(self, tip: Tip) -> Tip:
        """The tip that the state is at: ``tip`` if there is none yet, else the one that other engines share. O(1)."""
        present = self._there()
        if present is None:
            self._present = weakref.ref(tip)
            return tip
        return present

    def share(self, tip: Tip) -> None:
        """Let ``tip`` start from the state as it is now. O(1)."""
        tip.version, tip.now = self._history.hold(), self._services.now
        tip.sequence, tip.volume_sequence = self.sequence, self.volume_sequence

    def enter(self, tip: Tip) -> None:
        """Bring the state to where ``tip`` left it. O(1) if it is there, else O(changes between), and as
        ``Services.advance`` if the times differ."""
        present = self._there()
        if present is tip:
            return
        if tip.version is None:
            raise RuntimeError("a tip of another fleet")
        if present is not None:
            self.share(present)
        self._history.go(tip.version)
        tip.version = None
        self.sequence, self.volume_sequence = tip.sequence, tip.volume_sequence
        self._present = weakref.ref(tip)
        if self._services.now != tip.now:
            self._services.advance(tip.now, self._services.down_time)

    def _there(self) -> Tip | None:
        return self._present() if self._present is not None else None
