"""Clients that work until their daemon is killed, and know what of their commands was acknowledged."""

from __future__ import annotations

import random
from abc import abstractmethod
from typing import Any, Generic, TypeVar

from hostler.core.errors import DeadlineExceeded
from hostler.core.rpc.caller import ConnectionLost
from hostler.core.rpc.client import BlockingClient

Kept = TypeVar("Kept")


class CrashLoad(Generic[Kept]):
    """One client. ``number``: of this client; ``first``: of the uuids that it gives."""

    def __init__(self, address: str, number: int, chance: random.Random, first: int) -> None:
        self.address, self.number, self.chance, self.next = address, number, chance, first
        self.there: dict[str, Kept] = {}
        """What there is by uuid, as acknowledged."""
        self.unsure: set[str] = set()
        """Uuids whose last command got no answer."""

    def run(self) -> None:
        """Give commands until the daemon dies."""
        with BlockingClient(self.address, within=5.0) as client:
            try:
                while True:
                    self.step(client)
            except (ConnectionLost, DeadlineExceeded):
                return

    @abstractmethod
    def step(self, client: BlockingClient) -> None:
        """Give one command."""

    def send(self, client: BlockingClient, method: str, params: object) -> Any:
        """One try only: a daemon that is killed stays dead until the test starts it again."""
        ((error, result),) = client.call("batch", {"calls": [(method, [params])]}, within=0.5)
        assert error is None, error
        return result
