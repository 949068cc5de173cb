"""Garbage collection policy of the daemon: frequent collections of the young generations, full ones when idle, and of
what is new since then when the process has grown; after both free memory goes back to the system.

What a collection has found in use is frozen, so that the next one under load, which stops the process meanwhile, does
not go through it again; full ones thaw it first.

Nearly all objects of a command are freed by reference counting. The automatic collector counts allocations less
deallocations, so that under an even load it runs rarely, and then stops the process for tens of milliseconds.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import trio

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
NEW_SECONDS: Final = 0.05
"""Seconds between collections of the young generations."""
FEW: Final = 1_000
"""New objects in ``NEW_SECONDS`` below which they are looked at less often,"""
REST_SECONDS: Final = 0.4
"""up to so many seconds later: an idle service spends most of its time on these looks."""
ALL_SECONDS: Final = 60.0
"""Idle seconds before a full collection."""
LONGEST_SECONDS: Final = 3_600.0
"""Maximum seconds between full collections, under any load."""
GROWN_SECONDS: Final = 10.0
"""Seconds between two looks at how much the process has grown."""
GROWN_BYTES: Final = 64 << 20
GROWN_PART: Final = 4
"""All that was made since the last collection of all is looked at when the process has grown by so many bytes since
then, and by a quarter: what caches let go of may be garbage, and what commands took that added many hosts is free."""
MANY_ENDED: Final = 1_000
"""After the end of so many connections free memory goes back to the system even under load."""


@contextmanager
def no_automatic_collection() -> Iterator[None]:
    """Disable automatic collection in favour of ``collect``, and freeze existing objects, once free memory, such
    as that which a recovery took, went back to the system. Restores both at the end."""
    enabled = gc.isenabled()
    gc.collect()
    give_back()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


async def collect(
    progress: Callable[[], int], ended: Callable[[], int] = lambda: 0, resident: Callable[[], int] | None = None
) -> None:
    """Look for garbage until cancelled. ``progress`` is a number that stays while nothing happens; ``ended`` counts
    what leaves garbage without that: connections, which are too old for the young generations when they end.
    ``resident``: bytes of the process."""
    size = resident if resident is not None else resident_bytes
    before, since = progress(), trio.current_time()
    looked = measured = since
    seen, kept = ended(), size()
    given_back, pause = seen, NEW_SECONDS
    while True:
        await trio.sleep(pause)
        now, number = trio.current_time(), progress()
        if number != before:
            before, since = number, now
        left = since > looked or ended() != seen
        quiet = left and now - max(since, looked) >= ALL_SECONDS
        grown = False
        if now - measured >= GROWN_SECONDS:
            measured = now
            grown = size() - kept > max(GROWN_BYTES, kept // GROWN_PART)
            if ended() - given_back >= MANY_ENDED:
                give_back()
                given_back = ended()
        if quiet or now - looked >= LONGEST_SECONDS:
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            if quiet:
                give_back()
                given_back = ended()
            looked = trio.current_time()
            seen, kept = ended(), size()
        elif grown:
            gc.collect()
            gc.freeze()
            give_back()
            given_back, kept = ended(), size()
        else:
            pause = NEW_SECONDS if gc.get_count()[0] >= FEW else min(2 * pause, REST_SECONDS)
            gc.collect(0)


def resident_bytes() -> int:
    """Bytes of memory that the process has; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:  # memory, not a disk; each few seconds
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return 0


def give_back() -> None:
    """Return free memory of the C library to the system, where the library can do that (glibc). The memory of many
    connections stays with the process otherwise."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
