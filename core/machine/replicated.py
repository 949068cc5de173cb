"""Protocols between a writer, the state machine that it owns, and observers of replayed commands."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from ...placement.types.decision import PackedDecision
from ...placement.types.errors import HostlerError

Command = TypeVar("Command")
Result = TypeVar("Result")
T = TypeVar("T")


class Machine(Protocol[Command, Result]):
    """A deterministic state machine: the same commands in the same order make the same state and the same answers."""

    def apply(self, command: Command) -> Result:
        """Execute a command. A HostlerError refuses it and leaves the state unchanged."""

    def encode(self, command: Command) -> bytes:
        """The command as the journal holds it."""

    def decode(self, data: bytes) -> Command:
        """The command that ``encode`` was given."""

    def encode_result(self, result: Result) -> bytes:
        """A result as snapshots hold it, for repeated idempotency keys."""

    def decode_result(self, data: bytes) -> Result:
        """The result that ``encode_result`` was given."""

    def save(self, path: Path) -> None:
        """Write the whole state into new files in the folder ``path``."""

    def load(self, path: Path) -> None:
        """Load the state that ``save`` wrote. SnapshotError or DataDamaged if it is invalid."""


@runtime_checkable
class BatchMachine(Protocol):
    """A machine that applies many commands faster in batches, with the same outcome."""

    def carry_out(
        self, commands: Sequence[Any], wanted: Sequence[bool] | None = None
    ) -> Generator[None, None, Sequence[Any]]:
        """Returns for each command in order its result, or the HostlerError that refused it; unspecified if not
        ``wanted``. Yields after each step of about a millisecond: others may then read the machine, but not change
        it."""


@runtime_checkable
class GuardedMachine(Protocol):
    """A machine that gives old answers only to those who may still have them."""

    def needs(self, command: Any) -> tuple[tuple[str, str], ...] | None:
        """What a command needed that was just carried out, to be kept with its answer."""

    def check_needs(self, command: Any, needs: tuple[tuple[str, str], ...] | None) -> None:
        """HostlerError if the caller that repeats a command may no longer receive its answer."""


def unpacked(result: Any) -> Any:
    """A result as callers get it: of a decision that is passed on as MessagePack, the Decision."""
    return result.unpack() if type(result) is PackedDecision else result


class Replayed(NamedTuple, Generic[Command, Result]):
    """An observer that also receives the commands ``after`` a sequence number that a recovery replays."""

    after: int
    observer: Callable[[int, Command, Result | HostlerError], None]
