"""Runs work in a forked child process, on a copy of the state at that moment, without blocking or changing this
process. ``Children`` answer long queries."""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import os
import re
import resource
import signal
import socket
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from ..placement.types.errors import HostlerError, InvalidValue
from .errors import ErrorValue, InternalError, Overloaded, from_value, to_value

_CHUNK: Final = 64 << 10
_TEXT: Final = 2_000
"""Characters of an error."""


CHILDREN: Final = 2
"""Long questions that are answered at a time, where there are processors for them beside the service's own."""
WAITING: Final = 64
"""Long questions of one who asks that may wait."""
NICENESS: Final = 10
"""Added to that of a child, so that it takes no processor from the service."""
_LIBC: Final = ctypes.CDLL(None)
_PR_SET_PDEATHSIG: Final = 1
_ANSWER, _REFUSAL = b"\0", b"\1"

log = logging.getLogger("hostler.child")

# From Python 3.12 on a fork beside other threads warns that the child may wait for a lock that one of them held. This
# child takes none: it computes from memory, writes to its pipe and files, and leaves by os._exit; the allocator's and
# the interpreter's own locks are reinitialised by the C library and by os.fork.
warnings.filterwarnings("ignore", r".*use of fork\(\) may lead to deadlocks", DeprecationWarning, re.escape(__name__))


class ChildFailed(Exception):
    """The work failed; the message says why."""


class NoChild(ChildFailed):
    """There was no child to do the work."""


class TookTooLong(ChildFailed):
    """The child has had the processor for as long as it might."""


async def in_child(
    work: Callable[[], bytes],
    *,
    seconds: float | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> bytes:
    """What ``work`` returns in a forked child; ChildFailed with the text of what it raises, and where there can be no
    child (no descriptors, no memory, too many processes). The task has started once the child is there. ``seconds`` of
    processor time, rounded up, are the most that the child may have: TookTooLong.

    The child does nothing else, and ends without running exit handlers and destructors. It is killed on cancellation,
    and does not outlive this thread: a service manager may wait for all processes of a service before it starts that
    again.
    """
    child, reading = _forked(work if seconds is None else partial(_within, seconds, work))
    task_status.started()
    said = bytearray()
    try:
        while True:
            await trio.lowlevel.wait_readable(reading)
            chunk = os.read(reading, _CHUNK)
            if not chunk:
                break
            said += chunk
        os.close(reading)
        reading = -1
        status = await _reap(child)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        trio.lowlevel.spawn_system_task(_reap, child)  # not awaited: the child may be in an uninterruptible sleep
        raise
    finally:
        if reading >= 0:
            os.close(reading)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        raise TookTooLong(f"the child had {seconds:g} s of processor time")
    if status != 0:
        reason = said.decode(errors="replace")
        raise ChildFailed(reason or f"the child ended with status {os.waitstatus_to_exitcode(status)}")
    return bytes(said)


def _within(seconds: float, work: Callable[[], bytes]) -> bytes:
    """What work returns, unless that takes this process more processor time, at which it is ended by SIGXCPU."""
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), resource.RLIM_INFINITY))
    return work()


def _forked(work: Callable[[], bytes]) -> tuple[int, int]:
    """(process id, descriptor to read from) of a new child that does ``work``. ChildFailed, with nothing left open."""
    try:
        reading, writing = os.pipe()
    except OSError as error:
        raise NoChild(f"no pipe to a child: {error}") from error
    try:
        child = os.fork()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        raise NoChild(f"no child: {error}") from error
    if child == 0:
        _child(work, writing)
    os.close(writing)
    return child, reading


def tried_in_child(work: Callable[[], None], *, out_of_memory_score: int = 0) -> None:
    """Do work in a forked child, and wait for it: nothing it does changes anything here. ChildFailed if it raises or
    dies, NoChild if there can be none. With an ``out_of_memory_score`` (0 to 1,000) the system ends the child first
    where memory runs out. For threads; blocks."""

    def tried() -> bytes:
        if out_of_memory_score:
            with suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text(str(out_of_memory_score))
        work()
        return b""

    child, reading = _forked(tried)
    said = bytearray()
    try:
        while chunk := os.read(reading, _CHUNK):
            said += chunk
    finally:
        os.close(reading)
        _, status = os.waitpid(child, 0)
    if status != 0:
        reason = said.decode(errors="replace")
        raise ChildFailed(reason or f"the child ended with status {os.waitstatus_to_exitcode(status)}")


def companion(work: Callable[[socket.socket], None]) -> tuple[int, socket.socket]:
    """(process id, socket to speak with it) of a new child that does ``work`` with its end of the socket, on a copy of
    the state at this moment, scheduled where a processor is idle. The caller closes the socket, at which the child
    should end, and has it ``dismissed``. NoChild if there can be none."""
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise NoChild(f"no socket to a child: {error}") from error

    def accompanied() -> bytes:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        gc.enable()
        work(theirs)
        return b""

    with theirs:
        try:
            child = os.fork()
        except OSError as error:
            ours.close()
            raise NoChild(f"no child: {error}") from error
        if child == 0:
            _child(accompanied, theirs.fileno())
    return child, ours


def dismissed(child: int) -> None:
    """End a companion, without waiting for it."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    trio.lowlevel.spawn_system_task(_reap, child)


class Children:
    """Answers questions in child processes, up to a maximum at a time; callers take turns."""

    def __init__(self, at_a_time: int | None = None, waiting: int = WAITING) -> None:
        others = len(os.sched_getaffinity(0)) - 1
        self._free, self._waiting = at_a_time or max(1, min(CHILDREN, others)), waiting
        self._lanes: dict[str, deque[trio.Event]] = {}

    async def ask(self, question: Callable[[], bytes], *, lane: str = "", seconds: float | None = None) -> bytes:
        """What ``question`` returns in a child that sees the state as it is when its turn comes, or the HostlerError
        that it raises. InternalError if the child fails, Overloaded if too many questions of this ``lane`` wait,
        InvalidValue if it takes more than so many ``seconds`` of processor time."""
        await self._turn(lane)
        try:
            said = await in_child(lambda: _answered(question), seconds=seconds)
        except TookTooLong as error:
            text = f"the question takes more than {seconds:g} s of processor time"
            hint = "ask for less, such as with a limit, or have the operator raise question_seconds in [limits]"
            raise InvalidValue(text, field="limits.question_seconds", hint=hint) from error
        except ChildFailed as error:
            log.error("a question was not answered: %s", error)
            raise InternalError("the answer could not be made; the service's log says why") from error
        finally:
            self._give_back()
        if said[:1] == _REFUSAL:
            raise from_value(msgspec.msgpack.decode(said[1:], type=ErrorValue))
        return said[1:]

    async def _turn(self, lane: str) -> None:
        if self._free and not self._lanes:
            self._free -= 1
            return
        mine = self._lanes.setdefault(lane, deque())
        if len(mine) >= self._waiting:
            raise Overloaded(f"{len(mine)} long questions wait already", hint="wait for their answers first")
        turn = trio.Event()
        mine.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._give_back()
            else:
                mine.remove(turn)
                if not mine:
                    self._lanes.pop(lane, None)
            raise

    def _give_back(self) -> None:
        """The next lane in turn has the place, if any waits."""
        if not self._lanes:
            self._free += 1
            return
        lane = next(iter(self._lanes))
        waiting = self._lanes.pop(lane)
        waiting.popleft().set()
        if waiting:
            self._lanes[lane] = waiting


def _answered(question: Callable[[], bytes]) -> bytes:
    try:
        return _ANSWER + question()
    except HostlerError as error:
        return _REFUSAL + msgspec.msgpack.encode(to_value(error))


async def _reap(child: int) -> int:
    """Status of a child that has ended or is about to. Needs no thread and no descriptor: there may be none left."""
    pause = 0.0
    while True:
        found, status = os.waitpid(child, os.WNOHANG)  # noqa: ASYNC222  # does not wait
        if found:
            return status
        await trio.sleep(pause)
        pause = min(pause + 0.001, 0.1)


def _child(work: Callable[[], bytes], writing: int) -> None:
    status = 1
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        gc.disable()
        os.nice(NICENESS)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
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
