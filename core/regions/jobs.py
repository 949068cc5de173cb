"""What is being done for calls, each in a task of its own, so that it is seen through even if its caller has gone."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from ...placement.types.errors import HostlerError
from ..errors import InternalError, LeadershipLost, Overloaded
from ..failures import Failures
from ..writer.idempotent_answers import check_fingerprint

JOBS: Final = 8_192
"""Calls that are being seen through at a time: beyond that no more are begun. What is on record already goes on."""
JOBS_OF_A_USER: Final = 2_048

log = logging.getLogger("hostler.regions")


class Job:
    """What is being done for a call; several callers may wait for it."""

    def __init__(self, fingerprint: bytes, failures: Failures) -> None:
        self.fingerprint, self._failures = fingerprint, failures
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
        except Exception as error:  # what was begun is on record, and is gone on with
            self._failures.counts["regions"] += 1
            log.exception("%s has failed unexpectedly: %r", name, error)
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

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._by_key: dict[str, Job] = {}
        self._of_users: Counter[str] = Counter()
        self._count = 0

    def check(self, key: str, fingerprint: bytes) -> None:
        """KeyReused for the key of a job for another call."""
        job = self._by_key.get(key)
        if job is not None:
            check_fingerprint(key, job.fingerprint, fingerprint)

    def get(self, key: str, fingerprint: bytes) -> Job | None:
        """The job for a key. KeyReused if it is for another call."""
        self.check(key, fingerprint)
        return self._by_key.get(key)

    def require_place(self, user: str) -> None:
        """Overloaded where no more may be begun for a user. O(1)."""
        of_user = self._of_users.get(user, 0)
        if self._count >= JOBS or of_user >= JOBS_OF_A_USER:
            which = f"{of_user} calls of user {user}" if of_user >= JOBS_OF_A_USER else "too many calls"
            raise Overloaded(f"{which} wait for regions", hint="try again a little later")

    def begin(
        self,
        nursery: trio.Nursery,
        name: str,
        work: Callable[[], Awaitable[Any]],
        key: str | None = None,
        fingerprint: bytes = b"",
        user: str = "",
    ) -> Job:
        """Begin one; ``name`` is what the log calls it; ``user``: who called, empty where it is gone on with."""
        job = Job(fingerprint, self._failures)
        self._count += 1
        self._of_users[user] += 1
        if key is not None:
            self._by_key[key] = job

        async def run() -> None:
            try:
                await job.run(name, work)
            finally:
                self._count -= 1
                self._of_users[user] -= 1
                if not self._of_users[user]:
                    del self._of_users[user]
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
