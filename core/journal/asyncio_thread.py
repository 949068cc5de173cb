"""An asyncio loop in a thread of its own, for libraries that know no other loop: trio tasks have coroutines run there.

The process's asyncio policy stays as it is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import outcome
import trio

T = TypeVar("T")
BEAT_SECONDS: Final = 2.0


class AsyncioThread:
    """One loop in one daemon thread; ``run`` may be called from any trio task of any thread until ``stop``."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self.beats = 0
        """Grows every BEAT_SECONDS while the loop has its turns."""
        self._loop.call_soon(self._beat)
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        self.beats += 1
        self._loop.call_later(BEAT_SECONDS, self._beat)

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await ``work()`` over there and return or raise what it does. A cancelled caller waits for its end."""
        task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()

        def finished(done: asyncio.Task[T]) -> None:
            result: outcome.Outcome[T] = outcome.capture(done.result)
            token.run_sync_soon(trio.lowlevel.reschedule, task, result)

        def start() -> None:
            try:
                self._loop.create_task(work()).add_done_callback(finished)
            except BaseException as error:  # the caller must not wait for what has not begun
                token.run_sync_soon(trio.lowlevel.reschedule, task, outcome.Error(error))

        self._loop.call_soon_threadsafe(start)
        result: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return result

    def stop(self) -> None:
        """End the loop and its thread. Nothing may be running in it."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
