"""Log-ons that are refused are not tried again at once: calls that are under way at the same time would each try the
password, and back ends lock an account after a few of them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .protocol import Denied

DENIED_SECONDS: Final = 15.0
"""Seconds after a refused log-on in which none is tried."""


class LogOns:
    """Those of one account, one after another."""

    def __init__(self) -> None:
        self._refused_at, self._refusal = -math.inf, ""

    @contextmanager
    def one(self) -> Iterator[None]:
        """Within it, log on. Denied, without a try, soon after one that was refused."""
        if time.monotonic() - self._refused_at < DENIED_SECONDS:
            raise Denied(self._refusal)
        try:
            yield
        except Denied as error:
            self._refused_at, self._refusal = time.monotonic(), str(error)
            raise
