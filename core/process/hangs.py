"""Ends the process where it would hang for ever: a thread that others wait for has died without memory, or an event
loop stands still. What was acknowledged is on the disk, and recovered at the next start."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

import trio

TICK_SECONDS: Final = 3.0
STILL_TICKS: Final = 10
"""The process ends once the event loop has stood still for so many ticks. They are counted in the process, so that one
that was stopped, or slept with its machine, does not end when it goes on."""
STATUS: Final = 1
_NO_MEMORY: Final = b"hostler: a thread ended for lack of memory; the process ends, and recovers at its next start\n"
_STILL: Final = b"hostler: an event loop stands still; the process ends, and recovers at its next start\n"
_NOT_BEGUN: Final = "Exception ignored in thread started by"
"""What Python says of a thread that ended before its function began."""


def end_with_threads() -> None:
    """End this process with STATUS where a thread cannot begin, or raises MemoryError, from now on. (Where there is too
    little memory even to call a function in the new thread, the thread that started it waits for ever:
    ``LoopWatch``.)"""
    before_begun, before_ended = sys.unraisablehook, threading.excepthook

    def not_begun(unraisable: Any) -> None:
        if (unraisable.err_msg or "").startswith(_NOT_BEGUN):
            _end(_NO_MEMORY)
        before_begun(unraisable)

    def ended(arguments: Any) -> None:
        if issubclass(arguments.exc_type, MemoryError):
            _end(_NO_MEMORY)
        before_ended(arguments)

    sys.unraisablehook, threading.excepthook = not_begun, ended


class LoopWatch:
    """Ends the process with STATUS if the event loop, or another loop that ``beats`` counts, stands still while ``run``
    is running."""

    def __init__(self, *beats: Callable[[], int], tick_seconds: float = TICK_SECONDS) -> None:
        self._tick = tick_seconds
        self._turns = 0
        self._beats: tuple[Callable[[], int], ...] = (lambda: self._turns, *beats)
        self._over = False

    async def run(self) -> None:
        """Until cancelled, have a thread see that this task and the other loops have their turns."""
        threading.Thread(target=self._look, daemon=True, name="hostler-loop-watch").start()
        try:
            while True:
                self._turns += 1
                await trio.sleep(self._tick)
        finally:
            self._over = True

    def _look(self) -> None:
        seen, still = [0] * len(self._beats), [0] * len(self._beats)
        while not self._over:
            try:
                # Not time.sleep, whose absolute time fails (EINVAL) under libfaketime: the thread would end.
                select.select((), (), (), self._tick)
                for number, beats in enumerate(self._beats):
                    now = beats()
                    still[number] = still[number] + 1 if now == seen[number] else 0
                    seen[number] = now
                if max(still) >= STILL_TICKS and not self._over:
                    _end(_STILL)
            except MemoryError:
                continue


def _end(reason: bytes) -> None:
    try:
        os.write(2, reason)
    finally:
        os._exit(STATUS)
