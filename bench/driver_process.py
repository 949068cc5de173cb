"""A program of the environment of another service, which is sent commands and answers them, a line of JSON each."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .environments import ServiceUnavailable, clean


class DriverProcess:
    """Values in, values out. ``service`` is what it drives, for errors."""

    def __init__(self, service: str, python: Path, program: Path, errors: IO[str]) -> None:
        self._service, self._errors = service, errors
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=clean(),
        )

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Send a command and wait for its answer. ServiceUnavailable, with the last words of the program, if it ends
        first."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            process.wait()
            self._errors.seek(0)
            said = [each for each in self._errors.read().splitlines() if each.strip()] or ["no message"]
            raise ServiceUnavailable(f"the driver of {self._service} ended at {do!r}: {said[-1]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def driving(service: str, python: Path, program: Path) -> Iterator[DriverProcess]:
    """A program that runs while the body does."""
    with tempfile.TemporaryFile("w+") as errors:
        process = DriverProcess(service, python, program, errors)
        try:
            yield process
        finally:
            process.close()
