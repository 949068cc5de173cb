"""Objects that are there before a run, which garbage collections during it leave out."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

COLLECTED: Final = 8
"""Number of runs of a process from one collection of all objects to the next."""
_runs: Final = itertools.count(1)


@contextmanager
def spared() -> Iterator[None]:
    """Have garbage collections go through what is made within alone: a trace, its requests and the modules in memory
    are many times as many objects as a run makes, and stay. Does nothing where objects are frozen already, or where
    automatic collections are off.

    Runs refer to themselves, and thawed objects count as old ones, which automatic collections hardly ever reach: every
    COLLECTED-th time begins with a collection of all, so that no more than so many runs are there at once. Collections
    that are asked for within (``gc.collect``) leave out the older objects too; what an application freezes within by
    itself (``gc.freeze``) is thawed at the end. O(1); O(frozen objects) where others have frozen some; O(objects) every
    COLLECTED-th time.
    """
    if not gc.isenabled() or gc.get_freeze_count():
        yield
        return
    if next(_runs) % COLLECTED == 0:
        gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
