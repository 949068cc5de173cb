"""Garbage collection policy of the daemon: frequent collections of the young generations, full ones when idle.

Nearly all objects of a command are freed by reference counting. The automatic collector counts allocations less
deallocations, so that under an even load it runs rarely, and then stops the process for tens of milliseconds.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


async def collect(progress: Callable[[], int]) -> None:
    """Look for garbage until cancelled; ``progress`` is a number that stays while nothing happens."""
    before, since = progress(), trio.current_time()
    looked = since
    while True:
        await trio.sleep(NEW_SECONDS)
        now, number = trio.current_time(), progress()
        if number != before:
            before, since = number, now
        quiet = since > looked and now - since >= ALL_SECONDS
        if quiet or now - looked >= LONGEST_SECONDS:
            gc.collect()
            looked = trio.current_time()
        else:
            gc.collect(0)
