"""Replays the commands of a journal on a machine, each with its first outcome. Those that were executing when the last
process died are tried in a child process first."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final, Generic

from ...placement.types.errors import HostlerError
from ...placement.types.steps import finished
from ..errors import InternalError, StateUnknown, UnreadableCommand, checked_outcome
from ..forks import ChildFailed, NoChild, tried_in_child
from ..journal.journal import Record
from ..journal.progress import Apart, CommandSetApart, UnderWay, read_apart, set_apart
from ..machine.replicated import BatchMachine, Command, GuardedMachine, Machine, Replayed, Result
from .idempotent_answers import Answers

OUT_OF_MEMORY_SCORE: Final = 1_000

log = logging.getLogger("hostler.writer")


def outcomes_of(
    machine: Machine[Any, Any], commands: Sequence[Any], wanted: Sequence[bool] | None = None
) -> Generator[None, None, Sequence[Any]]:
    """What a machine returns for each command, in steps; a HostlerError for one that it refuses. Any other error is
    raised: the machine's state is then unknown."""
    if isinstance(machine, BatchMachine):
        return (yield from machine.carry_out(commands, wanted))
    return [_outcome(machine, command) for command in commands]


def _outcome(machine: Machine[Any, Any], command: Any) -> Any:
    try:
        return machine.apply(command)
    except HostlerError as error:
        return checked_outcome(error)


def decoded(machine: Machine[Command, Result], record: Record) -> Command:
    """A command that another member has journalled. StateUnknown if it cannot be read here."""
    try:
        return machine.decode(record.body)
    except Exception as error:
        text = f"command {record.sequence} of another member cannot be read here: {error!r}"
        log.critical("%s: is this Hostler older than the leader's? The process ends", text)
        raise StateUnknown(text) from error


def keep_answer(
    answers: Answers[Result],
    guard: GuardedMachine | None,
    key: str,
    fingerprint: bytes,
    command: Command,
    outcome: Result | HostlerError,
) -> None:
    """Keep an answer for those who repeat the command, with what they then need."""
    answers.put(key, fingerprint, outcome, None if guard is None else guard.needs(command))


class Replay(Generic[Command, Result]):
    """One recovery. ``set_apart``: what was set apart in it, in words."""

    def __init__(
        self,
        machine: Machine[Command, Result],
        answers: Answers[Result],
        replayed: Replayed[Command, Result] | None,
        under_way: UnderWay | None = None,
        folder: Path | None = None,
    ) -> None:
        self._machine, self._answers, self._replayed = machine, answers, replayed
        self._guard = machine if isinstance(machine, GuardedMachine) else None
        self._under_way, self._folder = under_way, folder
        self._apart: dict[int, Apart] = read_apart(folder) if folder is not None else {}
        self.set_apart: list[str] = []
        if under_way is not None and under_way.found_trial and under_way.found is not None:
            first, last = under_way.found
            if first <= under_way.found_trial <= last:
                self._set_apart(under_way.found_trial, "it killed the service, and a start that tried it alone")

    def load(self, folder: Path) -> None:
        """Take up a snapshot."""
        self._machine.load(folder)
        self._answers.load(folder)

    def replay(self, records: Sequence[Record]) -> None:
        """Replay records, in order. UnreadableCommand for one of another version."""
        found = None if self._under_way is None else self._under_way.found
        if found is None or records[-1].sequence < found[0] or records[0].sequence > found[1]:
            self._carry_out(records)
            return
        before = [each for each in records if each.sequence < found[0]]
        suspects = [each for each in records if found[0] <= each.sequence <= found[1]]
        self._carry_out(before)
        while suspects:
            survived = self._try(suspects)
            for record in suspects[:survived]:  # each alone, on record: should it kill this process, the next one knows
                self._trying(record.sequence)
                self._carry_out([record])
            self._trying(0)
            self._carry_out(suspects[survived : survived + 1])  # which is set apart now
            suspects = suspects[survived + 1 :]
        self._carry_out([each for each in records if each.sequence > found[1]])

    def _trying(self, sequence: int) -> None:
        assert self._under_way is not None
        self._under_way.trying(sequence)

    def _try(self, suspects: Sequence[Record]) -> int:
        """Carry records out in a child, which changes nothing here; how many it survives. The next one is set apart."""
        under_way = self._under_way
        assert under_way is not None

        def work() -> None:
            for record in suspects:
                under_way.trying(record.sequence)
                self._carry_out([record])
            under_way.trying(0)

        under_way.trying(0)
        try:
            tried_in_child(work, out_of_memory_score=OUT_OF_MEMORY_SCORE)
        except NoChild as error:
            raise InternalError(f"commands under way at the last death cannot be tried: {error}") from error
        except ChildFailed as error:
            sequence = under_way.trial
            position = next((at for at, each in enumerate(suspects) if each.sequence == sequence), None)
            if position is None:
                raise InternalError(f"commands under way at the last death cannot be tried: {error}") from error
            self._set_apart(sequence, f"it was under way when the service died, and killed a child too: {error}")
            return position
        return len(suspects)

    def _set_apart(self, sequence: int, reason: str) -> None:
        assert self._folder is not None
        self._apart[sequence] = set_apart(self._folder, sequence, reason)
        text = f"command {sequence} is set apart and counts as refused: {reason}"
        self.set_apart.append(text)
        log.error("%s; see set-apart.jsonl in the data folder", text)

    def _carry_out(self, records: Sequence[Record]) -> None:
        if not records:
            return
        apart = self._apart
        if apart and any(each.sequence in apart for each in records):
            for each in records:
                self._carry_out_some([each]) if each.sequence not in apart else self._refuse(each)
            return
        self._carry_out_some(records)

    def _refuse(self, record: Record) -> None:
        reason = self._apart[record.sequence].reason
        error = CommandSetApart(f"the command was not carried out: {reason}", hint="ask the operator")
        self._tell(record, self._decoded(record), error)

    def _carry_out_some(self, records: Sequence[Record]) -> None:
        told_after = float("inf") if self._replayed is None else self._replayed.after
        commands = [self._decoded(record) for record in records]
        wanted = [each.key is not None or each.sequence > told_after for each in records]
        outcomes = finished(outcomes_of(self._machine, commands, wanted))
        for record, command, outcome in zip(records, commands, outcomes, strict=True):
            self._tell(record, command, outcome)

    def _tell(self, record: Record, command: Command, outcome: Result | HostlerError) -> None:
        if record.key is not None:
            keep_answer(self._answers, self._guard, record.key, record.fingerprint, command, outcome)
        if self._replayed is not None and record.sequence > self._replayed.after:
            self._replayed.observer(record.sequence, command, outcome)

    def _decoded(self, record: Record) -> Command:
        try:
            return self._machine.decode(record.body)
        except HostlerError:
            raise
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            text = f"command {record.sequence} of the journal is whole, but this Hostler cannot read it: {error}"
            raise UnreadableCommand(text, field="data", hint="use the Hostler that wrote it, or upgrade") from error
