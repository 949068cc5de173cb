"""Changes that go on when their caller is cancelled: what was sent to a back end cannot be taken back, so the next
change of the same object waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

import outcome
import trio

from ..core.tasks import background
from .protocol import Unknown

T = TypeVar("T")
CLOSE_SECONDS = 30.0
"""How long changes whose callers were cancelled may take to end before the driver is closed."""


class _Change(Generic[T]):
    """One change: its work, and what came of it."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self.work = work
        self.wanted, self.done = True, trio.Event()
        self.result: outcome.Outcome[T] | None = None


class Ongoing:
    """Changes, one at a time for each object."""

    def __init__(self, nursery: trio.Nursery, timeout: float) -> None:
        """``timeout``: seconds after which a change is given up."""
        self._nursery, self._timeout = nursery, timeout
        self._locks: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()
        self._count = 0
        self._none = trio.Event()
        self._none.set()

    async def run(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do work after what was begun before for the same object. Cancelled, work that has begun goes on."""
        change = _Change(work)
        self._count += 1
        if self._none.is_set():
            self._none = trio.Event()
        self._nursery.start_soon(self._do, key, change)
        try:
            await change.done.wait()
        finally:
            change.wanted = False
        assert change.result is not None
        return change.result.unwrap()

    async def ended(self) -> None:
        """Return once no change is under way."""
        await self._none.wait()

    async def _do(self, key: str, change: _Change[T]) -> None:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = trio.Lock()
        try:
            async with lock:
                if change.wanted:
                    change.result = await self._outcome(change.work)
        finally:
            change.done.set()
            self._count -= 1
            if not self._count:
                self._none.set()

    async def _outcome(self, work: Callable[[], Awaitable[T]]) -> outcome.Outcome[T]:
        try:
            with trio.fail_after(self._timeout):
                return outcome.Value(await work())
        except trio.TooSlowError:
            return outcome.Error(Unknown(f"no answer in {self._timeout:g} s"))
        except Exception as error:
            return outcome.Error(error)


async def look_until(look: Callable[[], Awaitable[T]], right: Callable[[T], bool], *, seconds: float = 1.0) -> T:
    """Look every few ``seconds`` until what is seen is right. The caller's deadline bounds it."""
    while True:
        found = await look()
        if right(found):
            return found
        await trio.sleep(seconds)


@asynccontextmanager
async def open_ongoing(seconds: float) -> AsyncIterator[Ongoing]:
    """Changes of one driver, given up after ``seconds``. At the end those under way have ``CLOSE_SECONDS`` to end, and
    are cancelled then."""
    async with background() as nursery:
        ongoing = Ongoing(nursery, seconds)
        try:
            yield ongoing
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await ongoing.ended()
            nursery.cancel_scope.cancel()
