"""A small state machine for the writer's tests: accounts that may not go below zero."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from hostler.placement.types.errors import CapacityExceeded, HostlerError


class Pay(NamedTuple):
    """Add ``amount``, which may be negative, to ``account``; the answer is what the account then holds."""

    account: str
    amount: int


class Ledger:
    """Accounts, and all that was ever applied, refused or not."""

    def __init__(self) -> None:
        self.accounts: dict[str, int] = {}
        self.applied: list[Pay] = []

    def apply(self, command: Pay) -> int:
        self.applied.append(command)
        if command.account == "broken":
            raise ZeroDivisionError
        balance = self.accounts.get(command.account, 0) + command.amount
        if balance < 0:
            raise CapacityExceeded(f"{command.account} has {balance - command.amount}", field="amount")
        self.accounts[command.account] = balance
        return balance

    def encode(self, command: Pay) -> bytes:
        return msgspec.msgpack.encode(command)

    def decode(self, data: bytes) -> Pay:
        return Pay(*msgspec.msgpack.decode(data))

    def encode_result(self, result: int) -> bytes:
        return msgspec.msgpack.encode(result)

    def decode_result(self, data: bytes) -> int:
        return msgspec.msgpack.decode(data, type=int)

    def save(self, path: Path) -> None:
        (path / "ledger").write_bytes(msgspec.msgpack.encode((self.accounts, self.applied)))

    def load(self, path: Path) -> None:
        self.accounts, applied = msgspec.msgpack.decode((path / "ledger").read_bytes())
        self.applied = [Pay(*each) for each in applied]


class BatchLedger(Ledger):
    """The same, with many commands at once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def carry_out(
        self, commands: Sequence[Pay], wanted: Sequence[bool] | None = None
    ) -> Generator[None, None, list[int | HostlerError]]:
        self.batches.append(len(commands))
        outcomes: list[int | HostlerError] = []
        for command in commands:
            try:
                outcomes.append(self.apply(command))
            except HostlerError as error:
                outcomes.append(error)
            yield
        return outcomes
