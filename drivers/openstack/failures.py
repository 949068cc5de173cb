"""Failures of Hostler inside a stock scheduler: counted by the class of the exception, logged with a traceback the
first time that each place fails. Decides nothing: what a failure leads to is up to the caller."""

from __future__ import annotations

import logging
import threading
import traceback
from typing import Final

from .metrics import Metrics

LOG = logging.getLogger(__name__)
PLACES: Final = 256
"""Places whose failures are told apart; further ones are logged without a traceback."""


class Failures:
    """What has failed since the start. Thread-safe."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seen: set[tuple[type[BaseException], str, int]] = set()
        self._lock = threading.Lock()

    def note(self, error: BaseException, doing: str) -> str:
        """Count and log a failure; returns the name of its class. ``doing``: what failed, such as "choosing a host".
        O(frames of the traceback)."""
        name = type(error).__name__
        self._metrics.failures.labels(name).inc()
        if self._is_new(error):
            LOG.error("%s failed: %s", doing, name, exc_info=error)
        else:
            LOG.warning("%s failed again: %s: %s", doing, name, str(error)[:300])
        return name

    def _is_new(self, error: BaseException) -> bool:
        frames = traceback.extract_tb(error.__traceback__)
        place = (type(error), frames[-1].filename if frames else "", (frames[-1].lineno or 0) if frames else 0)
        with self._lock:
            if place in self._seen or len(self._seen) >= PLACES:
                return False
            self._seen.add(place)
            return True
