"""Digests of a member's state behind some commands, made by forked children beside the work, and compared with the
leader's.

A digest is due at each block that passes a multiple of ``every`` commands. One is made at a time. Where they fall due
faster than they are made, one of a multiple by a higher power of two takes the place of the one under way, and one of a
lower power is left out: so all members make the same ones, however fast each of them is, and some are always completed.
A leader at rest has the others compare once more behind its last command.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio

from ..failures import Failures
from ..forks import ChildFailed, NoChild, in_child
from ..journal.etcd_keys import DigestValue
from ..machine.machine import ServiceMachine
from ..machine.orders import RULES, Order
from ..writer.writer import Writer
from .registration import VERSION
from .state_digest import state_digest

DIGESTS_KEPT: Final = 8
COMPARABLE: Final = f"{VERSION}, rules {RULES}"
"""Members whose digests say the same here compute them alike."""
REST_SECONDS: Final = 10.0
"""Without a command, after which a leader is at rest."""
LOOK_SECONDS: Final = 1.0
"""Between two looks at whether it is."""
REST_PART: Final = 100
"""The last digest took at most one of so many parts of the time since then, when one is made at rest."""
DIFFERENCES: Final = "differences"
"""A file in the data folder with a line for each difference that was found."""

log = logging.getLogger("hostler.cluster")


class _Making(NamedTuple):
    """A digest that is being made. ``level``: of the multiple, as in ``Digests.level``."""

    sequence: int
    level: int
    scope: trio.CancelScope


class Digests:
    """The last digests of one member and of its leader."""

    def __init__(self, machine: ServiceMachine, writer: Writer[Order, Any], failures: Failures, every: int) -> None:
        """``every``: commands after which one is due."""
        self._every, self._machine, self._writer, self._failures = every, machine, writer, failures
        self._made: dict[int, str] = {}
        self._theirs: dict[int, str] = {}
        """The leader's; empty: compared."""
        self._making: _Making | None = None
        self._tried = self._published = -1
        self._took = self._ended = 0.0
        self.needed = False
        """True: there are others to compare what a leader makes."""
        self.compared = 0
        """How many of the leader's digests were compared with this member's."""

    def level(self, first: int, last: int) -> int | None:
        """For a block of these commands: which power of two divides the multiple that it passes, the highest one of
        several; None: it passes none."""
        before, behind = (first - 1) // self._every, last // self._every
        return (before ^ behind).bit_length() - 1 if before != behind else None

    async def make(
        self, level: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> DigestValue | None:
        """The digest of the state as it is now; started once a child has that state, so that commands go on. None where
        one of this level or a higher one is being made, or takes this one's place, and where there can be no child."""
        if self._making is not None:
            if self._making.level >= level:
                task_status.started()
                return None
            self._making.scope.cancel()
        made, began, sequence = b"", trio.current_time(), self._writer.sequence
        with trio.CancelScope() as scope:
            making = self._making = _Making(sequence, level, scope)
            try:
                made = await in_child(partial(state_digest, self._machine.state), task_status=task_status)
            except ChildFailed as error:
                self._failures.failed("digest", error)
                if isinstance(error, NoChild):
                    task_status.started()
            finally:
                if self._making is making:
                    self._making = None
        if not made:
            return None
        self._ended = trio.current_time()
        self._took = self._ended - began
        _keep(self._made, sequence, made.decode())
        return DigestValue(sequence, made.decode(), COMPARABLE)

    # the leader

    async def lead(self, publish: Callable[[DigestValue], Awaitable[bool]]) -> None:
        """For ever, make digests where they are due, and behind the last command at rest; ``publish`` returns True once
        the others have one to compare."""
        async with trio.open_nursery() as nursery:

            def applied(count: int, _journal: float, _apply: float) -> None:
                last = self._writer.sequence
                level = self.level(last - count + 1, last)
                if level is not None:  # its task has its turn before the writer's next step
                    nursery.start_soon(self._make_and_publish, last, level, publish)

            self._writer.batch_observers.append(applied)
            try:
                while True:
                    await self._rest()
                    await self._make_and_publish(self._writer.sequence, 0, publish)
            finally:
                self._writer.batch_observers.remove(applied)

    async def _make_and_publish(
        self, sequence: int, level: int, publish: Callable[[DigestValue], Awaitable[bool]]
    ) -> None:
        """Have the others compare the state behind a command, if this one is there."""
        if sequence == self._writer.sequence and not self._machine.carrying_out and self.needed:
            mine = await self.make(level)
            if mine is not None and await publish(mine):
                self._published = sequence
                _keep(self._theirs, sequence, "")  # it is not to be compared with itself

    async def _rest(self) -> None:
        """Wait until the state has rested for some time, and the others have no digest of it."""
        seen, since = self._writer.sequence, trio.current_time()
        while True:
            await trio.sleep(LOOK_SECONDS)
            now, sequence = trio.current_time(), self._writer.sequence
            if sequence != seen:
                seen, since = sequence, now
            elif (
                self.needed
                and not self._machine.carrying_out  # else the state is behind none of them
                and self._published != sequence
                and self._making is None
                and now - since >= REST_SECONDS
                and now - self._ended >= REST_PART * self._took
            ):
                return

    # followers

    def note(self, theirs: DigestValue) -> None:
        """Keep a digest of the leader for comparison."""
        if theirs.version == COMPARABLE and theirs.digest and theirs.sequence not in self._theirs:
            _keep(self._theirs, theirs.sequence, theirs.digest)

    def is_wanted(self) -> bool:
        """True once for a state of which the leader has made a digest, and this member none."""
        sequence = self._writer.sequence
        if not self._theirs.get(sequence) or sequence in self._made or self._tried == sequence:
            return False
        if self._making is not None:
            return False  # asked again once that one is made
        self._tried = sequence
        return True

    def difference(self) -> int | None:
        """A command behind which the leader's state was another one than this member's, None if none is known."""
        for sequence, digest in self._theirs.items():
            mine = self._made.get(sequence)
            if digest and mine:
                self._theirs[sequence] = ""
                self.compared += 1
                if mine != digest:
                    return sequence
        return None


def _keep(digests: dict[int, str], sequence: int, digest: str) -> None:
    digests[sequence] = digest
    while len(digests) > DIGESTS_KEPT:
        del digests[next(iter(digests))]


def differences(folder: Path | None) -> int:
    """How often a member with this data folder has found its state to differ from the leader's."""
    try:
        return 0 if folder is None else (folder / DIFFERENCES).read_bytes().count(b"\n")
    except OSError:
        return 0


def note_difference(folder: Path | None, sequence: int) -> None:
    """Keep a line about a difference behind a command, for the next starts to count."""
    if folder is None:
        return
    try:
        with (folder / DIFFERENCES).open("a", encoding="utf-8") as file:
            file.write(f"command {sequence}, {time.strftime('%FT%TZ', time.gmtime())}\n")
    except OSError as error:
        log.error("the difference is not kept for the metrics of the next start: %s", error)
