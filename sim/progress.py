"""How far a command has come, on standard error, and Ctrl-C between two steps of it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

INTERRUPTED: Final = 130
"""Exit code of a command that Ctrl-C ended early."""


class Stop:
    """Notes Ctrl-C, so that the loop can end between two steps; a second Ctrl-C is not caught."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Stop:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, self._before)


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """What the caller calls after every step: moves a bar on standard error, which is gone at the end. Unless both
    standard output and error are terminals, it prints a line every 10 % instead."""
    if not (sys.stderr.isatty() and sys.stdout.isatty()):
        yield _lines(label, total)
        return
    # Takes longer to import than a short run takes.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    shown = (TextColumn(f"[bold]{label}"), BarColumn(None), TaskProgressColumn())
    with Progress(
        *shown, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def _lines(label: str, total: int) -> Callable[[], None]:
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done * 10 // total > (done - 1) * 10 // total:
            print(f"{label}: {done * 10 // total * 10} %", file=sys.stderr, flush=True)

    return advance
