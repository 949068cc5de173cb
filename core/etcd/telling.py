"""Log lines about a trouble that lasts: the first one at once, others once in a while."""

from __future__ import annotations

import logging
from typing import Final

import trio

TOLD_EVERY: Final = 10.0
"""Seconds between two log lines about an etcd that is not there."""


class OnceInAWhile:
    """Warnings of one kind, about troubles that may be several."""

    def __init__(self, log: logging.Logger) -> None:
        self._log, self._told_at = log, dict[str, float]()

    def warning(self, text: str, *arguments: object, about: str = "") -> None:
        """Log a warning, unless that was done lately ``about`` the same trouble."""
        if trio.current_time() - self._told_at.get(about, -TOLD_EVERY) >= TOLD_EVERY:
            self._told_at[about] = trio.current_time()
            self._log.warning(text, *arguments)
