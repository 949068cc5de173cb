"""The bounded queue of commands for the writer: submission, withdrawal, batching and answers.

A command with the key of a queued one follows it: both get the same answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic

import trio

from ...placement.types.errors import HostlerError
from ..errors import DeadlineExceeded, Overloaded
from ..machine.replicated import Command, Result
from .idempotent_answers import check_fingerprint

QUEUE_LIMIT: Final = 20_000
QUEUE_BYTES: Final = 256 << 20
"""Of all commands that wait or are being carried out."""
BATCH_LIMIT: Final = 1_024
BATCH_BYTES: Final = 8 << 20


class Pending(Generic[Command, Result]):
    """A queued command: ``done`` is called with it once, when ``result`` or ``error`` is set."""

    __slots__ = ("body", "command", "deadline", "done", "error", "fingerprint", "followers", "key", "result", "state")

    def __init__(
        self,
        command: Command,
        body: bytes,
        done: Callable[[Pending[Command, Result]], None],
        key: str | None,
        fingerprint: bytes,
        deadline: float | None,
    ) -> None:
        self.command, self.body, self.done = command, body, done
        self.key, self.fingerprint, self.deadline = key, fingerprint, deadline
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.followers: list[Pending[Command, Result]] | None = None
        self.state = "queued"
        """queued, following (another with its key), taken, done or cancelled."""


class CommandQueue(Generic[Command, Result]):
    """Pending commands. ``bytes``: length of all that wait or are being carried out."""

    def __init__(self, limit: int = QUEUE_LIMIT, byte_limit: int = QUEUE_BYTES, batch_limit: int = BATCH_LIMIT) -> None:
        self._limit, self._byte_limit, self._batch_limit = limit, byte_limit, batch_limit
        self.bytes = 0
        self._waiting: deque[Pending[Command, Result]] = deque()
        self._by_key: dict[str, Pending[Command, Result]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    # in

    def require_place(self) -> None:
        """Overloaded if the queue is full."""
        if len(self._waiting) >= self._limit:
            raise Overloaded(f"{len(self._waiting)} commands wait already", hint="wait a little, then ask again")

    def add(self, pending: Pending[Command, Result]) -> None:
        """Have a command wait. Overloaded if it is too long for what waits already, KeyReused if its key is another
        command's."""
        if self.bytes and self.bytes + len(pending.body) > self._byte_limit:
            problem = f"the commands that wait already have {self.bytes} bytes together"
            raise Overloaded(problem, hint="wait a little, then ask again")
        self._line_up(pending)
        self.bytes += len(pending.body)

    def _line_up(self, pending: Pending[Command, Result]) -> None:
        if pending.key is not None:
            first = self._by_key.get(pending.key)
            if first is not None:
                check_fingerprint(pending.key, first.fingerprint, pending.fingerprint)
                first.followers = first.followers or []
                first.followers.append(pending)
                pending.state = "following"
                return
            self._by_key[pending.key] = pending
        self._waiting.append(pending)

    # back

    def cancel(self, pending: Pending[Command, Result]) -> bool:
        """Take a command back if it has not been taken up yet. Its ``done`` is then never called."""
        if pending.state not in ("queued", "following"):
            return False
        pending.state = "cancelled"
        self.bytes -= len(pending.body)
        return True

    def give_up(self, pending: Pending[Command, Result]) -> None:
        """The caller's deadline is over."""
        if pending.state == "queued" and self.cancel(pending):
            pending.error = _too_late()
            return
        self.cancel(pending)
        text = "the deadline passed while the command was being written: it may be carried out"
        pending.error = DeadlineExceeded(text, field="deadline", hint="ask again with the same idempotency key")

    # out

    def take(self) -> list[Pending[Command, Result]]:
        """The next batch; withdrawn commands are dropped, and those past their deadline are refused."""
        now, size, batch = trio.current_time(), 0, list[Pending[Command, Result]]()
        while self._waiting and len(batch) < self._batch_limit and size < BATCH_BYTES:
            pending = self._waiting.popleft()
            late = pending.deadline is not None and pending.deadline <= now
            if late and pending.state == "queued":
                self.tell(pending, None, _too_late())
            if late or pending.state == "cancelled":
                self._promote(pending)
                continue
            pending.state = "taken"
            size += len(pending.body)
            batch.append(pending)
        return batch

    def _promote(self, dropped: Pending[Command, Result]) -> None:
        """A command that will not be applied is replaced by its first repetition."""
        if dropped.key is None:
            return
        self._by_key.pop(dropped.key, None)
        for follower in dropped.followers or ():
            if follower.state == "following":
                follower.state = "queued"
                self._line_up(follower)

    # answers

    def tell(self, pending: Pending[Command, Result], result: Result | None, error: BaseException | None) -> None:
        """Answer one command, if it has not been taken back or answered."""
        if pending.state in ("cancelled", "done"):
            return
        self.bytes -= len(pending.body)
        pending.result, pending.state = result, "done"
        pending.error = pending.error or error
        done, pending.done = pending.done, _told_already
        done(pending)

    def finish(self, pending: Pending[Command, Result], result: Result | None, error: HostlerError | None) -> None:
        """Answer a command and its repetitions."""
        if pending.key is not None:
            self._by_key.pop(pending.key, None)
        self.tell(pending, result, error)
        for follower in pending.followers or ():
            self.tell(follower, result, error)

    def refuse_all(self, error: Callable[[], HostlerError]) -> None:
        """Answer all that wait with an error, each its own."""
        while self._waiting:
            self.finish(self._waiting.popleft(), None, error())


def _told_already(_: object) -> None:
    """Callback of an answered command: does nothing, and keeps no references."""


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the command's turn; nothing was done", field="deadline")
