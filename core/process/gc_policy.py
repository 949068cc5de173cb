"""When a daemon looks for garbage: for what is new, often, so that it is little each time; for all, when nobody waits.

Nearly all that a command makes is freed without that. Left to itself the collector counts what is made less what is
freed, so that under an even load it comes seldom, and then stops everybody for tens of milliseconds.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

NEW_SECONDS: Final = 0.05
"""Between two looks at what is new."""
ALL_SECONDS: Final = 60.0
"""How long nothing must have happened for a look at all there is."""
LONGEST_SECONDS: Final = 3_600.0
"""Between two looks at all there is, however much happens."""


@contextmanager
def no_automatic_collection() -> Iterator[None]:
    """Only ``collect`` looks for garbage; what is there now stays, and is not walked again and again. At the end all is
    as it was."""
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
