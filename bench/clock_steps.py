"""Steps of the wall clock of single processes: a library, loaded before libc, that adds an offset from a file to
CLOCK_REALTIME. All other clocks are left alone, as when an operator sets the time of a machine."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

COMPILER: Final = shutil.which("cc")
_TRIAL_SECONDS: Final = 3_600
_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static volatile const long long *offset;
static int (*real)(clockid_t, struct timespec *);
__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("CLOCK_OFFSET_FILE");
    int file = name ? open(name, O_RDONLY) : -1;
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (file >= 0) {
        void *map = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
        if (map != MAP_FAILED) offset = map;
    }
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME && offset) now->tv_sec += *offset;
    return failed;
}
"""


class ClockLibrary:
    """The library, built in a folder."""

    def __init__(self, folder: Path) -> None:
        """RuntimeError where it cannot be built, or has no effect on processes of this interpreter."""
        assert COMPILER is not None
        source, self.path = folder / "clock.c", folder / "clock.so"
        source.write_text(_SOURCE)
        command = [COMPILER, "-shared", "-fPIC", "-O2", "-o", str(self.path), str(source), "-ldl"]
        built = subprocess.run(command, check=False, capture_output=True, text=True)
        if built.returncode:
            raise RuntimeError(f"the library that steps clocks cannot be built: {built.stderr[-1000:]}")
        trial = ClockSteps(self, folder / "clock-trial")
        trial.set(_TRIAL_SECONDS)
        trial.check()


class ClockSteps:
    """The clock of the processes that are started with ``env``: ``file`` holds the ``seconds`` by which it is ahead."""

    def __init__(self, library: ClockLibrary, file: Path) -> None:
        self._file, self.seconds = file, 0
        file.write_bytes(bytes(8))
        self.env = {"LD_PRELOAD": str(library.path), "CLOCK_OFFSET_FILE": str(file)}

    def set(self, seconds: int) -> None:
        """Set the clock ahead of the true time, or (negative) behind it."""
        self.seconds = seconds
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", self.seconds))

    def step(self, seconds: int) -> None:
        """Set the clock forward, or back."""
        self.set(self.seconds + seconds)

    def check(self) -> None:
        """RuntimeError unless a process that is started with ``env`` now reads a clock that is so far ahead."""
        command = [sys.executable, "-c", "import time; print(time.time(), time.monotonic())"]
        steady, wall = time.monotonic(), time.time()
        answer = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **self.env})
        passed = time.monotonic() - steady
        if answer.returncode:
            raise RuntimeError(f"no process starts with the library that steps clocks: {answer.stderr[-1000:]}")
        found = [float(each) for each in answer.stdout.split()]
        if not 0 <= found[0] - wall - self.seconds <= passed + 1 or not 0 <= found[1] - steady <= passed + 1:
            ahead = found[0] - wall
            raise RuntimeError(
                f"the library that steps clocks has no effect: {ahead:+.1f} s instead of {self.seconds:+} s"
            )
