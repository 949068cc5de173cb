"""CPU time of a process with all that it has started."""

from __future__ import annotations

import os
import subprocess
import sys

from hostler.bench.placement_services import TICKS, cpu_seconds

WORK = "import time\nwhile time.process_time() < 0.1: pass"


def test_a_child_that_has_ended_counts() -> None:
    before = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-S", "-c", WORK], check=True)
    assert cpu_seconds(os.getpid()) - before >= 0.1 - 2 / TICKS


def test_a_process_that_is_not_there_takes_nothing() -> None:
    assert cpu_seconds(2**30) == 0.0, "more than any id of a process"
