"""Runs work in a forked child process, on a copy of the state at that moment, without blocking or changing this
process. ``Children`` answer long queries."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import warnings
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from ..placement.types.errors import HostlerError
from .errors import ErrorValue, InternalError, from_value, to_value

_CHUNK: Final = 64 << 10
_TEXT: Final = 2_000
"""Characters of an error."""


CHILDREN: Final = 2
"""Long questions that are answered at a time."""
_ANSWER, _REFUSAL = b"\0", b"\1"

log = logging.getLogger("hostler.child")

# From Python 3.12 on a fork beside other threads warns that the child may wait for a lock that one of them held. This
# child takes none: it computes from memory, writes to its pipe and files, and leaves by os._exit; the allocator's and
# the interpreter's own locks are reinitialised by the C library and by os.fork.
warnings.filterwarnings("ignore", r".*use of fork\(\) may lead to deadlocks", DeprecationWarning, re.escape(__name__))


class ChildFailed(Exception):
    """The work failed; the message says why."""


async def in_child(
    work: Callable[[], bytes], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> bytes:
    """Run ``work`` in a forked child and return its result; ChildFailed with the message of its exception. The task has
    started when the child exists.

    The child does nothing else and exits without exit handlers or destructors. Cancellation kills it.
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


class Children:
    """Answers queries in children, a limited number at a time."""

    def __init__(self, at_a_time: int = CHILDREN) -> None:
        self._room = trio.CapacityLimiter(at_a_time)

    async def ask(self, question: Callable[[], bytes]) -> bytes:
        """Run ``question`` in a child, on the state at the time the child starts, and return its result or raise its
        HostlerError. InternalError if the child fails."""
        async with self._room:
            try:
                said = await in_child(lambda: _answered(question))
            except ChildFailed as error:
                log.error("a question was not answered: %s", error)
                raise InternalError("the answer could not be computed; see the log of the service") from error
        if said[:1] == _REFUSAL:
            raise from_value(msgspec.msgpack.decode(said[1:], type=ErrorValue))
        return said[1:]


def _answered(question: Callable[[], bytes]) -> bytes:
    try:
        return _ANSWER + question()
    except HostlerError as error:
        return _REFUSAL + msgspec.msgpack.encode(to_value(error))


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
