"""A thread that dies for lack of memory ends the process, which would hang otherwise."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = "from hostler.core.process.dead_threads import end_with_threads; import threading, time; end_with_threads()\n"
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
    done = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=60, check=False)
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
