"""Commands that are taken up together: how they become durable, and the parts in which they are applied."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from typing import Final, Generic, TypeVar

import msgspec
import trio

from ..journal.journal import Entry
from ..journal.protocol import CommandJournal
from ..machine.replicated import Command, Result
from ..tracing import span
from .command_queue import Pending

T = TypeVar("T")
SLICE: Final = 128
"""Commands applied at a time, in about a millisecond; between slices readers get their turn."""
SLICE_COST: Final = 2_000
"""Microseconds of estimated work between two turns of readers."""


class Batch(msgspec.Struct, Generic[Command, Result], eq=False):
    """Commands that were taken up together. ``written`` is set once the journal has them, or else ``error``; that took
    ``seconds``."""

    pendings: Sequence[Pending[Command, Result]]
    written: trio.Event
    error: BaseException | None = None
    seconds: float = 0.0


async def write(batch: Batch[Command, Result], journal: CommandJournal | None) -> Batch[Command, Result]:
    """Make a batch durable, also if cancelled, and return it; an error is left in it."""
    began, pendings = time.perf_counter(), batch.pendings
    try:
        if journal is not None:
            entries = [Entry(pending.key, pending.fingerprint, pending.body) for pending in pendings]
            with trio.CancelScope(shield=True), span("hostler.journal", commands=len(pendings)):
                if len(pendings) > SLICE:
                    await others_turn()  # taking up a thousand commands was a step of its own
                await journal.append(entries)
    except Exception as error:
        batch.error = error
    except BaseException as error:
        batch.error = error  # or it would count as durable
        raise
    finally:
        batch.seconds = time.perf_counter() - began
        batch.written.set()
    return batch


def slices(batch: Sequence[Pending[Command, Result]]) -> Iterator[Sequence[Pending[Command, Result]]]:
    """Consecutive parts of a batch, of at most SLICE commands and, unless it is one command, SLICE_COST."""
    first = cost = 0
    for position, pending in enumerate(batch):
        if position > first and (position - first == SLICE or cost + pending.cost > SLICE_COST):
            yield batch[first:position]
            first, cost = position, 0
        cost += pending.cost
    yield batch[first:]


async def others_turn() -> None:
    """Yield to readers. Requests that arrive during a step are served in the scheduler round after it, which the writer
    skips."""
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()


async def in_turns(steps: Generator[None, None, T]) -> T:
    """Take steps, with the turns of readers between them; returns what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value
        await others_turn()
