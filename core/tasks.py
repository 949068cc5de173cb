"""A nursery for background tasks of a context manager that raises errors of its body unwrapped, and functions for
long-running work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import trio

T = TypeVar("T")


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery. An exception of the body is raised again, not in a group, once all tasks have ended; errors of the
    tasks are raised as groups."""
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
    """Run the work in the calling task, which blocks the event loop."""
    return work()


async def in_thread(work: Callable[[], T]) -> T:
    """Do it in a thread, while other tasks have their turn now and then. Cancelled, it is left to itself."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def in_threads_of(limiter: trio.CapacityLimiter) -> Aside:
    """Runs work in threads, as many at a time as a limiter allows. Work that is cancelled is abandoned, not stopped."""

    async def aside(work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=limiter)

    return aside
