"""What is being done for calls, each in a task of its own, so that it is seen through even if its caller has gone."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ...placement.types.errors import HostlerError
from ..errors import InternalError, LeadershipLost
from ..writer.idempotent_answers import check_fingerprint

log = logging.getLogger("hostler.regions")


class Job:
    """What is being done for a call; several callers may wait for it."""

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.waiting = 0
        self._done = trio.Event()
        self._result: Any = None
        self._error: HostlerError | None = None

    async def outcome(self) -> Any:
        """The result. HostlerError."""
        self.waiting += 1
        try:
            await self._done.wait()
        finally:
            self.waiting -= 1
        if self._error is not None:
            raise self._error
        return self._result

    async def run(self, name: str, work: Callable[[], Awaitable[Any]]) -> None:
        """Do the work. Whatever it raises is the outcome of this job alone."""
        try:
            self._result = await work()
        except HostlerError as error:
            self._error = error
            if not self.waiting:
                log.warning("%s has failed, and nobody waits for it: %s", name, error)
        except Exception:
            log.exception("%s has failed unexpectedly", name)
            self._error = InternalError("the call failed unexpectedly; see the log of the service")
            self._error.maybe_done = True
        except BaseException:
            hint = "ask again with the same idempotency key"
            self._error = LeadershipLost("this service has stopped asking regions; what was begun goes on", hint=hint)
            self._error.maybe_done = True
            raise
        finally:
            self._done.set()


class Jobs:
    """The jobs of one parent, those for idempotency keys by key."""

    def __init__(self) -> None:
        self._by_key: dict[str, Job] = {}

    def check(self, key: str, fingerprint: bytes) -> None:
        """KeyReused for the key of a job for another call."""
        job = self._by_key.get(key)
        if job is not None:
            check_fingerprint(key, job.fingerprint, fingerprint)

    def get(self, key: str, fingerprint: bytes) -> Job | None:
        """The job for a key. KeyReused if it is for another call."""
        self.check(key, fingerprint)
        return self._by_key.get(key)

    def begin(
        self,
        nursery: trio.Nursery,
        name: str,
        work: Callable[[], Awaitable[Any]],
        key: str | None = None,
        fingerprint: bytes = b"",
    ) -> Job:
        """Begin one; ``name`` is what the log calls it."""
        job = Job(fingerprint)
        if key is not None:
            self._by_key[key] = job

        async def run() -> None:
            try:
                await job.run(name, work)
            finally:
                if key is not None and self._by_key.get(key) is job:
                    del self._by_key[key]

        nursery.start_soon(run)
        return job


class Pauses:
    """When what has failed is tried again: after a pause that doubles each time."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._of: dict[str, tuple[float, float]] = {}

    def is_due(self, name: str) -> bool:
        """True unless it has failed lately."""
        return trio.current_time() >= self._of.get(name, (0.0, 0.0))[0]

    def failed(self, name: str) -> None:
        """It has failed."""
        pause = min(2 * self._of[name][1], self._longest) if name in self._of else self._first
        self._of[name] = trio.current_time() + pause, pause

    def keep(self, names: set[str]) -> None:
        """Forget all others."""
        for name in self._of.keys() - names:
            del self._of[name]
