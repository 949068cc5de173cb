"""Work in a forked child, which sees this process as it is at that moment: nobody waits for it, and nothing it does
changes anything here."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from typing import Final

import trio

from ..placement.errors import HostlerError

_CHUNK: Final = 64 << 10
_TEXT: Final = 2_000
"""Characters of an error."""


class ChildFailed(Exception):
    """The work was not done; the text says why."""


async def in_child(
    work: Callable[[], bytes], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> bytes:
    """What ``work`` returns in a forked child; ChildFailed with the text of what it raises. The task has started once
    the child is there.

    The child does nothing else, and ends without running anything of ours: no exit handlers, no destructors. Cancelled,
    it is killed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _child(work, writing)
    os.close(writing)
    task_status.started()
    said = bytearray()
    try:
        while True:
            await trio.lowlevel.wait_readable(reading)
            chunk = os.read(reading, _CHUNK)
            if not chunk:
                break
            said += chunk
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.close(reading)
        status = _reap(child)
    if status != 0:
        reason = said.decode(errors="replace")
        raise ChildFailed(reason or f"the child ended with status {os.waitstatus_to_exitcode(status)}")
    return bytes(said)


def _reap(child: int) -> int:
    """Status of a child that has ended or is about to."""
    return os.waitpid(child, 0)[1]


def _child(work: Callable[[], bytes], writing: int) -> None:
    status = 1
    try:
        gc.disable()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        # What the parent closes must be closed: connections, and the lock of its data folder.
        os.closerange(3, writing)
        os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
        _say(writing, work())
        status = 0
    except (HostlerError, OSError) as error:
        _say(writing, str(error).encode()[:_TEXT])
    except BaseException as error:
        _say(writing, repr(error).encode()[:_TEXT])
    finally:
        os._exit(status)


def _say(writing: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(writing, rest) :]
