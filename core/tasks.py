"""A nursery for tasks in the background of a context manager, whose body's errors come out as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery. What the body raises is raised again once all tasks have ended, and not as a group of one; errors of
    the tasks come as groups."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure
