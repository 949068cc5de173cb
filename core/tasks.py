"""A nursery for tasks in the background of a context manager, whose body's errors come out as they are, and ways to
have long work done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import trio

T = TypeVar("T")


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


class Aside(Protocol):
    """A way to have work done that takes long."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """What the work returns or raises."""


async def at_once(work: Callable[[], T]) -> T:
    """Do it here and now, while everybody else waits."""
    return work()


async def in_thread(work: Callable[[], T]) -> T:
    """Do it in a thread, while other tasks have their turn now and then. Cancelled, it is left to itself."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)
