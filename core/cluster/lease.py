"""The lease of one member: by it the others know that this one is alive, and under it is the key of the leader."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from ...placement.types.errors import InvalidValue
from ..etcd.client import Etcd
from ..etcd.errors import EtcdError, EtcdLeaseGone, EtcdUnavailable
from ..etcd.values import created_at, get, put
from ..journal.leadership import Leadership, since_boot
from .registration import VERSION

NAMESAKE_LEASES: Final = 4
"""After so many leases a key of this member's name, under another lease, is another process's."""
SIT_OUT_LEASES: Final = 3
"""For so many leases a leader whose writes etcd has not answered has none, so that another member is elected."""
LEAST_PATIENCE: Final = 0.3
"""Seconds for etcd to answer."""
RETRY_SECONDS: Final = 0.1

log = logging.getLogger("hostler.cluster")


class Lease:
    """The lease that a member has now, refreshed while ``keep`` runs."""

    def __init__(self, etcd: Etcd, key: str, name: str, seconds: int) -> None:
        """``key``: of this member's name, which it holds under its lease."""
        self._etcd, self._key, self._name, self._wish = etcd, key, name, seconds
        self._number = 0
        self.guard: Callable[[int], None] = lambda number: None
        """Called with each number that it has, for what ends it when this process dies."""
        self.seconds = float(seconds)
        """As etcd has granted it."""
        self.leadership: Leadership | None = None
        """What lasts as long as the lease."""
        self.leaving = False
        """True: no new one is to be had."""
        self._until = 0.0
        self._told_alive = False
        self._namesake_since: float | None = None
        self._none_until = 0.0

    @property
    def number(self) -> int:
        """0: there is none."""
        return self._number

    @number.setter
    def number(self, number: int) -> None:
        if number != self._number:
            self._number = number
            self.guard(number)

    def until(self, number: int) -> float:
        """When a lease ends, as far as known; long ago for one that this member has no more."""
        return self._until if number == self.number else 0.0

    @property
    def left(self) -> float:
        """Seconds, as far as known."""
        return self._until - since_boot() if self.number else 0.0

    def sit_out(self) -> None:
        """Let it end, and have none for some time."""
        self._none_until = since_boot() + SIT_OUT_LEASES * self.seconds
        self.number = 0

    async def keep(self) -> None:
        """Have a lease, and refresh it at a third. An answer that is late is waited for the longer each time: given up
        early each time, it would never come."""
        patience = 0.0
        while True:
            third, asked = self.seconds / 3, since_boot()
            if asked < self._none_until:
                self.number = 0
                await trio.sleep(RETRY_SECONDS)
                continue
            try:
                if not self.number:
                    if self.leaving:
                        return
                    self.number, self.seconds = await self._etcd.grant(self._wish)
                    self._told_alive, self._until = False, 0.0
                number, least = self.number, max(third, LEAST_PATIENCE)
                patience = min(max(least, 2 * patience), max(self.seconds, LEAST_PATIENCE))
                left = await self._etcd.keep_alive(number, within=patience, attempt=patience / 2)
                patience = 0.0
                if not self._told_alive:
                    await self._tell_alive(number)
                if number == self.number:
                    self._until = asked + left
                    if self.leadership is not None and self.leadership.lease == number:
                        self.leadership.extend(self._until)
            except EtcdLeaseGone:
                self.number = 0
                if self.leadership is not None:
                    self.leadership.lose("the lease has expired")
                continue
            except EtcdError as error:
                log.debug("the lease could not be refreshed: %s", error)
                await trio.sleep(min(RETRY_SECONDS, third))
                continue
            await trio.sleep(max(asked + third - since_boot(), 0))

    async def _tell_alive(self, number: int) -> None:
        """Have the key of this member's name, under a lease; before that it does not stand for election. EtcdError;
        InvalidValue where another process has the name and keeps it."""
        answer = await self._etcd.transaction(
            [created_at(self._key, 0)], [put(self._key, VERSION.encode(), number)], [get(self._key)]
        )
        if answer.succeeded or any(item.lease == number for item in answer.found[0]):
            self._told_alive, self._namesake_since = True, None
            return
        if self._namesake_since is None:
            self._namesake_since = since_boot()
        if since_boot() - self._namesake_since > NAMESAKE_LEASES * self.seconds:
            hint = "give each member a name of its own"
            problem = f"another process is member {self._name} of the cluster"
            raise InvalidValue(problem, field="cluster.name", hint=hint)
        raise EtcdUnavailable(f"the last lease of member {self._name} has not ended yet")
