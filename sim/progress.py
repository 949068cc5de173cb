"""How far a command has come, on standard error, and Ctrl-C between two steps of it."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

INTERRUPTED: Final = 130
"""Exit code of a command that Ctrl-C ended early."""
LONG_FILE: Final = 16_000_000
"""Bytes of a file, gzipped or not, from which reading it takes long enough to be shown."""


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


class Advance(Protocol):
    """So many more steps are done."""

    def __call__(self, steps: int = 1) -> None: ...


class Reached:
    """Advances by what was done since the last call. Call it with the number of steps done so far."""

    def __init__(self, advance: Advance, done: int = 0) -> None:
        self._advance, self._done = advance, done

    def __call__(self, done: int) -> None:
        self._advance(done - self._done)
        self._done = done


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """A callback for steps that are done: advances a bar on standard error, which is removed at the end. Unless both
    standard output and error are terminals, it prints a line every 10 % instead."""
    if not _on_terminal():
        yield _lines(label, total)
        return
    with _bar(label, total) as move:
        yield lambda steps=1: move(steps)


@contextmanager
def reading(path: Path) -> Iterator[Callable[[int], None]]:
    """What the caller calls with the number of bytes of a file that it has read: moves a bar, where the file is long,
    and a terminal looks at this process."""
    size = path.stat().st_size
    if size < LONG_FILE or not _on_terminal() or multiprocessing.parent_process() is not None:
        yield lambda _: None
        return
    done = 0
    with _bar(f"reading {path.name}", size) as move:

        def reached(at_byte: int) -> None:
            nonlocal done
            move(at_byte - done)
            done = at_byte

        yield reached


def _on_terminal() -> bool:
    return sys.stderr.isatty() and sys.stdout.isatty()


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A callback that advances a bar on standard error by a number of steps; the bar is removed at the end."""
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
        yield lambda steps: bar.advance(task, steps)


def _lines(label: str, total: int) -> Advance:
    done = 0

    def advance(steps: int = 1) -> None:
        nonlocal done
        done, before = min(done + steps, total), done
        if done * 10 // total > before * 10 // total:
            print(f"{label}: {done * 10 // total * 10} %", file=sys.stderr, flush=True)

    return advance
