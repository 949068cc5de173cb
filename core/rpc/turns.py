"""Turns of users in taking in messages: however many connections a user has, others wait for few of them."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

ROUND_TURNS: Final = 2
"""Turns of one user in one round of the event loop."""


class Turns:
    """Counts turns by user. While ``run`` is not running, all are free."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, deque[trio.lowlevel.Task]] = {}
        self._wake: trio.lowlevel.ParkingLot | None = None

    async def take(self, user: str) -> None:
        """Wait for a turn. Returns at once, without a checkpoint, for the first ROUND_TURNS of a round. O(1)."""
        if self._wake is None:
            return
        taken = self._taken.get(user, 0)
        if taken < ROUND_TURNS and user not in self._waiting:
            self._taken[user] = taken + 1
            self._wake.unpark_all()
            return
        task, line = trio.lowlevel.current_task(), self._waiting.setdefault(user, deque())
        line.append(task)

        def gives_up(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            line.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(gives_up)

    async def run(self) -> None:
        """Begin a new round after each round of the event loop, until cancelled."""
        self._wake = trio.lowlevel.ParkingLot()
        try:
            while True:
                if not self._taken and not self._waiting:
                    await self._wake.park()
                await trio.lowlevel.checkpoint()
                self._begin_round()
        finally:
            self._wake = None
            while self._waiting:
                self._begin_round()

    def _begin_round(self) -> None:
        self._taken.clear()
        for user, line in list(self._waiting.items()):
            while line and self._taken.get(user, 0) < ROUND_TURNS:
                self._taken[user] = self._taken.get(user, 0) + 1
                trio.lowlevel.reschedule(line.popleft())
            if not line:
                del self._waiting[user]
