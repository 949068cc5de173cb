"""Commands that wait for the writer, within bounds and with fair turns for users: how they come in, are taken back,
taken up, and answered.

A command with the key of a queued one follows it: both get the same answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic

import msgspec
import trio

from ...placement.types.errors import HostlerError
from ..errors import DeadlineExceeded, Overloaded
from ..failures import Failures
from ..machine.replicated import Command, Result
from .idempotent_answers import check_fingerprint

QUEUE_LIMIT: Final = 20_000
QUEUE_BYTES: Final = 256 << 20
"""Of all commands that are queued or executed."""
BATCH_LIMIT: Final = 1_024
BATCH_BYTES: Final = 8 << 20
BATCH_COST: Final = 20_000
"""Microseconds of estimated work in one batch; a command of more is a batch of its own."""
SHARED_BATCH_COST: Final = 4_000
"""The same while several users have commands: who comes during a batch waits for its end, and for that of the next."""
SHARED_BATCHES: Final = 32
"""Batches for which a user counts after the last command."""
OWN_WAIT: Final = 0.01
"""Seconds for which commands of the service itself wait for those of users: in a batch of their own they would make
those wait that come meanwhile."""
OWN_BATCHES: Final = 4
"""Batches for which a command of the service itself expects those of users, to be journalled with them."""
QUANTUM: Final = 1_000
"""Microseconds of estimated work of one user before the next user has a turn."""
USUAL_COST: Final = 15
"""Microseconds of a command of which nothing else is known."""
OWN_LANE: Final = ""
"""The lane of the service itself: its commands have turns as a user's, and make no batch shorter, as no user waits for
them."""


class Pending(msgspec.Struct, Generic[Command, Result], eq=False):
    """A queued command: ``done`` is called with it once, when ``result`` or ``error`` is set."""

    command: Command
    body: bytes
    done: Callable[[Pending[Command, Result]], None]
    key: str | None
    fingerprint: bytes
    deadline: float | None
    lane: str = OWN_LANE
    cost: int = USUAL_COST
    result: Result | None = None
    error: BaseException | None = None
    followers: list[Pending[Command, Result]] | None = None
    state: str = "queued"
    """queued, following (another with its key), taken, done or cancelled."""


class _Lane(msgspec.Struct, Generic[Command, Result], eq=False):
    """The commands of one user that wait, in order, and their ``bytes``. ``deficit``: cost that the lane may still take
    in this round."""

    waiting: deque[Pending[Command, Result]] = msgspec.field(default_factory=deque)
    deficit: int = 0
    bytes: int = 0


class CommandQueue(Generic[Command, Result]):
    """Pending commands, a lane per user. ``bytes``: length of all that wait or are being carried out.

    Lanes take turns by deficit round robin: each may have QUANTUM microseconds of estimated work a round, and what it
    does not use is kept while it has commands. One lane's commands keep their order. When the queue is full, the lane
    that has most in it loses its last command to a newcomer of another.
    """

    def __init__(
        self,
        limit: int = QUEUE_LIMIT,
        byte_limit: int = QUEUE_BYTES,
        batch_limit: int = BATCH_LIMIT,
        failures: Failures | None = None,
    ) -> None:
        self.limit = limit
        """Commands that may wait, of all users together."""
        self._byte_limit, self._batch_limit = byte_limit, batch_limit
        self._failures = failures if failures is not None else Failures()
        self.bytes = 0
        self.pushed_out = 0
        """Commands that lost their place to those of other users."""
        self.count = 0
        """Commands that wait."""
        self._lanes: dict[str, _Lane[Command, Result]] = {}
        """Those with commands, in the order of their turns."""
        self._by_key: dict[str, Pending[Command, Result]] = {}
        self._batches = 0
        self._served: tuple[tuple[str, int], tuple[str, int]] = (("", 0), ("", 0))
        """The user served last and the one before them, each with the number of their last batch."""

    def __len__(self) -> int:
        return self.count

    # in

    def require_place(self, lane: str = "") -> None:
        """Overloaded if no more of this lane may wait. O(1) unless the queue is full, then O(lanes)."""
        if self.count >= self.limit and self._is_longest(lane):
            raise Overloaded(f"{self.count} commands wait already", hint="wait a little, then ask again")

    def _is_longest(self, lane: str) -> bool:
        mine = self._lanes.get(lane)
        own = 0 if mine is None else len(mine.waiting)
        return own >= max((len(each.waiting) for each in self._lanes.values()), default=0) - 1

    def add(self, pending: Pending[Command, Result]) -> None:
        """Have a command wait. Overloaded if it is too long for what waits already, KeyReused if its key is another
        command's."""
        size = len(pending.body)
        if self.bytes and self.bytes + size > self._byte_limit:
            self._push_out_bytes(pending.lane, size)
        if self.count >= self.limit and (pending.key is None or pending.key not in self._by_key):
            self._push_out(pending.lane, lambda lane: len(lane.waiting), 1)
        lane = self._lanes.get(pending.lane)
        if pending.key is not None or lane is None:
            self._line_up(pending)
        else:
            lane.waiting.append(pending)
            lane.bytes += size
            self.count += 1
        self.bytes += size

    def _push_out_bytes(self, newcomer: str, size: int) -> None:
        while self.bytes and self.bytes + size > self._byte_limit:
            self._push_out(newcomer, lambda lane: lane.bytes, size)

    def _push_out(self, newcomer: str, held: Callable[[_Lane[Command, Result]], int], more: int) -> None:
        """Refuse the last command of the lane that holds most; Overloaded if that is the newcomer's own."""
        name, lane = max(self._lanes.items(), key=lambda item: held(item[1]), default=("", None))
        mine = self._lanes.get(newcomer)
        if lane is None or held(lane) <= (0 if mine is None else held(mine)) + more:
            problem = f"the commands that wait already have {self.bytes} bytes together"
            raise Overloaded(problem, hint="wait a little, then ask again")
        last = lane.waiting.pop()
        self._left(name, lane, last)
        if last.state == "cancelled":
            self._promote(last)
            return
        self.pushed_out += 1
        error = Overloaded("the command lost its place in a full queue to another user's", hint="wait, then ask again")
        self.finish(last, None, error)

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
        lane = self._lanes.get(pending.lane)
        if lane is None:
            lane = self._lanes[pending.lane] = _Lane()
        lane.waiting.append(pending)
        lane.bytes += len(pending.body)
        self.count += 1

    def _left(self, name: str, lane: _Lane[Command, Result], pending: Pending[Command, Result]) -> None:
        """A command is no longer in its lane."""
        self.count -= 1
        lane.bytes -= len(pending.body)
        if not lane.waiting:
            self._lanes.pop(name, None)

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
        """The next batch, of some BATCH_COST or SHARED_BATCH_COST; what was taken back is dropped, and what is too late
        refused."""
        now, batch = trio.current_time(), list[Pending[Command, Result]]()
        size = cost = 0
        self._batches += 1
        most = SHARED_BATCH_COST if self.shared else BATCH_COST
        while self._lanes and len(batch) < self._batch_limit and size < BATCH_BYTES and cost < most:
            name = next(iter(self._lanes))
            lane = self._lanes[name]
            if name != OWN_LANE:
                last, before = self._served
                self._served = (name, self._batches), (before if name == last[0] else last)
            alone, first = len(self._lanes) == 1, lane.waiting[0].cost
            if batch and cost + first > most:
                break
            deficit = max(most - cost, first) if alone else lane.deficit + QUANTUM
            waiting = lane.waiting
            while waiting and (own := waiting[0].cost) <= deficit and len(batch) < self._batch_limit:
                pending = waiting.popleft()
                nbytes = len(pending.body)
                self.count -= 1
                lane.bytes -= nbytes
                if pending.deadline is not None or pending.state != "queued":
                    if not self._taken(pending, now):
                        continue
                else:
                    pending.state = "taken"
                deficit -= own
                cost += own
                size += nbytes
                batch.append(pending)
                if cost >= most or size >= BATCH_BYTES:
                    break
            lane.deficit = deficit
            if not waiting:
                if self._lanes.get(name) is lane:
                    del self._lanes[name]
            elif alone:
                lane.deficit = 0
            else:
                self._lanes[name] = self._lanes.pop(name)  # its next turn comes after the others'
        return batch

    @property
    def shared(self) -> bool:
        """True while several users have commands, or had some within the last batches. O(1)."""
        users = len(self._lanes) - (OWN_LANE in self._lanes)
        if users > 1:
            return True
        last, before = self._served
        if users and last[0] not in self._lanes:
            return last[1] > 0 and self._batches - last[1] <= SHARED_BATCHES
        return before[1] > 0 and self._batches - min(last[1], before[1]) <= SHARED_BATCHES

    @property
    def own_alone(self) -> bool:
        """True while only commands of the service itself wait, and users had some within the last batches. O(1)."""
        served = self._served[0][1]
        return len(self._lanes) == 1 and OWN_LANE in self._lanes and 0 < served > self._batches - OWN_BATCHES

    @property
    def next_alone(self) -> bool:
        """True if the commands that wait are one user's, for which no one else has to. O(1)."""
        return not self.shared and not self.own_alone

    def _taken(self, pending: Pending[Command, Result], now: float) -> bool:
        """True for a command that is taken up now."""
        late = pending.deadline is not None and pending.deadline <= now
        if late and pending.state == "queued":
            self.tell(pending, None, _too_late())
        if late or pending.state == "cancelled":
            self._promote(pending)
            return False
        pending.state = "taken"
        return True

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
        state = pending.state
        if state == "cancelled" or state == "done":
            return
        self.bytes -= len(pending.body)
        pending.result = result
        pending.state = "done"
        if error is not None and pending.error is None:
            pending.error = error
        done = pending.done
        pending.done = _told_already
        try:
            done(pending)
        except Exception as failure:  # the command is done; only its caller is not informed
            self._failures.failed("answers", failure)

    def finish(self, pending: Pending[Command, Result], result: Result | None, error: HostlerError | None) -> None:
        """Answer a command and its repetitions."""
        if pending.key is not None:
            self._by_key.pop(pending.key, None)
        self.tell(pending, result, error)
        for follower in pending.followers or ():
            self.tell(follower, result, error)

    def refuse_all(self, error: Callable[[], HostlerError]) -> None:
        """Answer all that wait with an error, each its own."""
        while self._lanes:
            name, lane = next(iter(self._lanes.items()))
            pending = lane.waiting.popleft()
            self._left(name, lane, pending)
            self.finish(pending, None, error())


def _told_already(_: object) -> None:
    """Callback of an answered command: does nothing, and keeps no references."""


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the command's turn; nothing was done", field="deadline")
