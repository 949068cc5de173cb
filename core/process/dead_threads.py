"""Ends the process where a thread dies for lack of memory. Callers that wait for its work would wait for ever, and what
was acknowledged is on the disk."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, Final

_MESSAGE: Final = b"hostler: a thread ended for lack of memory; the process ends, and recovers at its next start\n"
_NOT_BEGUN: Final = "Exception ignored in thread started by"
"""What Python says of a thread that ended before its function began."""
STATUS: Final = 1


def end_with_threads() -> None:
    """End this process with STATUS where a thread cannot begin, or raises MemoryError, from now on. The hooks allocate
    next to nothing."""
    before_begun, before_ended = sys.unraisablehook, threading.excepthook

    def not_begun(unraisable: Any) -> None:
        if (unraisable.err_msg or "").startswith(_NOT_BEGUN):
            _end()
        before_begun(unraisable)

    def ended(arguments: Any) -> None:
        if issubclass(arguments.exc_type, MemoryError):
            _end()
        before_ended(arguments)

    sys.unraisablehook, threading.excepthook = not_begun, ended


def _end() -> None:
    os.write(2, _MESSAGE)
    os._exit(STATUS)
