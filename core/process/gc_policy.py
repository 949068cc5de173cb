"""Garbage collection policy of the daemon: frequent collections of the young generations, full ones when idle, after
which free memory goes back to the system.

Nearly all objects of a command are freed by reference counting. The automatic collector counts allocations less
deallocations, so that under an even load it runs rarely, and then stops the process for tens of milliseconds.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import trio

NEW_SECONDS: Final = 0.05
"""Seconds between collections of the young generations."""
ALL_SECONDS: Final = 60.0
"""Idle seconds before a full collection."""
LONGEST_SECONDS: Final = 3_600.0
"""Maximum seconds between full collections, under any load."""


@contextmanager
def no_automatic_collection() -> Iterator[None]:
    """Disable automatic collection in favour of ``collect``, and freeze existing objects. Restores both at the end."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


async def collect(progress: Callable[[], int], ended: Callable[[], int] = lambda: 0) -> None:
    """Look for garbage until cancelled. ``progress`` is a number that stays while nothing happens; ``ended`` counts
    what leaves garbage without that: connections, which are too old for the young generations when they end."""
    before, since = progress(), trio.current_time()
    looked, seen = since, ended()
    while True:
        await trio.sleep(NEW_SECONDS)
        now, number = trio.current_time(), progress()
        if number != before:
            before, since = number, now
        left = since > looked or ended() != seen
        quiet = left and now - max(since, looked) >= ALL_SECONDS
        if quiet or now - looked >= LONGEST_SECONDS:
            gc.collect()
            if quiet:
                give_back()
            looked, seen = trio.current_time(), ended()
        else:
            gc.collect(0)


def give_back() -> None:
    """Return free memory of the C library to the system, where the library can do that (glibc). The memory of many
    connections stays with the process otherwise."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
