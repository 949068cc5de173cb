"""What would hang for ever ends: a thread that dies for lack of memory, an event loop that stands still."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..patience import HANG_SECONDS

BEGIN = "from hostler.core.process.hangs import end_with_threads; import threading, time; end_with_threads()\n"
NOT_BEGUN = """
def fails(self):
    raise MemoryError
threading.Thread._bootstrap_inner = fails
threading.Thread(target=time.sleep, args=(0,), daemon=True).start()  # waits for ever
"""
ENDED = """
def fails():
    raise {error}
thread = threading.Thread(target=fails)
thread.start()
thread.join()
time.sleep(0.1)
print("goes on")
"""


def outcome(code: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("code", [NOT_BEGUN, ENDED.format(error="MemoryError")], ids=["before it began", "at work"])
def test_a_thread_without_memory_ends_the_process(code: str) -> None:
    status, said, complaint = outcome(code)
    assert (status, said) == (1, "")
    assert "for lack of memory" in complaint


def test_another_error_of_a_thread_is_reported_and_no_more() -> None:
    status, said, complaint = outcome(ENDED.format(error="ValueError"))
    assert (status, said) == (0, "goes on\n")
    assert "ValueError" in complaint


STILL = """
import trio, os, signal
from hostler.core.process.hangs import LoopWatch
async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(LoopWatch(tick_seconds=0.02).run)
        await trio.sleep(0.1)
        {stall}
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
trio.run(main)
print("goes on")
"""


def test_an_event_loop_that_stands_still_ends_the_process() -> None:
    status, said, complaint = outcome(STILL.format(stall="threading.Event().wait()"))
    assert (status, said) == (1, "")
    assert "an event loop stands still" in complaint


def test_another_loop_that_stands_still_ends_the_process() -> None:
    other = STILL.replace("LoopWatch(tick", "LoopWatch(lambda: 7, tick")
    status, said, complaint = outcome(other.format(stall="await trio.sleep(5)"))
    assert (status, said) == (1, "")
    assert "an event loop stands still" in complaint


def test_a_process_that_was_stopped_goes_on() -> None:
    stopped = "os.system(f'(sleep 1; kill -CONT {os.getpid()}) & kill -STOP {os.getpid()}')"
    slowly = STILL.replace("tick_seconds=0.02", "tick_seconds=0.2")  # a shell takes a while to start
    status, said, _ = outcome(slowly.format(stall=stopped))
    assert (status, said) == (0, "goes on\n")


TELLS = """
import logging, os, signal, sys, trio
from hostler.core.process.task_tree import tell_on_signal
logging.basicConfig(stream=sys.stdout)
async def waits_for_ever():
    await trio.sleep_forever()
async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell_on_signal)
        nursery.start_soon(waits_for_ever)
        await trio.testing.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGUSR1)
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
import trio.testing
trio.run(main)
print("goes on")
"""


def test_on_sigusr1_a_process_tells_what_its_threads_and_tasks_wait_for() -> None:
    status, said, complaint = outcome(TELLS)
    assert status == 0
    assert "__main__.waits_for_ever: waits_for_ever:" in said
    assert said.endswith("goes on\n")
    assert "most recent call first" in complaint
