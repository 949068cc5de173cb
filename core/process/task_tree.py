"""What each task of this process waits for, told on SIGUSR1: for a service that does not go on. The stacks of its
threads, which a loop that stands still cannot tell of, are told by ``faulthandler``."""

from __future__ import annotations

import faulthandler
import logging
import signal
from collections.abc import Iterator
from typing import Final

import trio

STDERR: Final = 2
DEEPEST: Final = 40
"""Frames of one task."""
MOST: Final = 2_000
"""Tasks: a service may have thousands of connections."""

log = logging.getLogger("hostler.daemon")


async def tell_on_signal() -> None:
    """For ever: on SIGUSR1, write the stacks of all threads to standard error, also while the event loop stands still,
    and have the log tell of all tasks."""
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        faulthandler.register(signal.SIGUSR1, file=STDERR, all_threads=True, chain=True)
        try:
            async for _ in signals:
                log.warning("the tasks of this process:\n%s", task_tree())
        finally:
            faulthandler.unregister(signal.SIGUSR1)


def task_tree() -> str:
    """All tasks of the running event loop, each indented below the one whose nursery it is in, with the functions that
    it is in, outermost first. To be called in a task. O(tasks); those beyond MOST are counted only."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    lines: list[str] = []
    left_out = 0
    for number, (depth, task) in enumerate(_tasks(root)):
        if number >= MOST:
            left_out += 1
            continue
        lines.append(f"{'  ' * depth}{task.name}: {' > '.join(_frames(task))}")
    if left_out:
        lines.append(f"and {left_out} tasks more")
    return "\n".join(lines)


def _tasks(root: trio.lowlevel.Task) -> Iterator[tuple[int, trio.lowlevel.Task]]:
    waiting = [(0, root)]
    while waiting:
        depth, task = waiting.pop()
        yield depth, task
        waiting += [(depth + 1, each) for nursery in task.child_nurseries for each in nursery.child_tasks]


def _frames(task: trio.lowlevel.Task) -> list[str]:
    found = []
    for frame, line in task.iter_await_frames():
        if frame.f_globals.get("__name__", "").startswith("trio."):
            continue
        found.append(f"{frame.f_code.co_qualname}:{line}")
        if len(found) == DEEPEST:
            break
    return found
