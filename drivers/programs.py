"""Programs that drivers run: one process to its end, and what it prints. What its failures mean is the driver's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio

from .protocol import DriverError, Permanent

Texts = Sequence[tuple[re.Pattern[str], type[DriverError]]]
"""What programs print, by class: the first pattern that is found counts."""
LONGEST_TEXT: Final = 1_000
_HALF: Final = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs, which stand for no character."""


async def run_program(
    line: Sequence[str],
    failed: Callable[[int, str], type[DriverError]],
    *,
    package: str,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What a program prints, in English, with ``environment`` beside the variables of this process. Cancelled, it is
    ended. ``failed``: the class of a failure by its exit code and what was printed of it. Permanent if the program
    cannot be run, which the Debian ``package`` would have, or an argument is none that a program can be given."""
    for argument in line:  # beforehand: a process that does not begin leaves its pipes open
        if "\0" in argument or _HALF.search(argument):
            raise Permanent(f"{line[0]} cannot be given the argument {argument!r}")
    variables = {**os.environ, "LC_ALL": "C", **(environment or {})}
    try:
        done = await trio.run_process(list(line), capture_stdout=True, capture_stderr=True, check=False, env=variables)
    except OSError as error:
        raise Permanent(f"{line[0]} cannot be run: {error}", hint=f"install {package}") from error
    if done.returncode:
        text = done.stderr.decode(errors="replace").strip()[-LONGEST_TEXT:]
        kind = failed(done.returncode, text)
        raise kind(text or f"{line[0]} ended with {done.returncode}", backend_code=str(done.returncode))
    return done.stdout.decode(errors="replace")


def by_text(texts: Texts, otherwise: type[DriverError]) -> Callable[[int, str], type[DriverError]]:
    """Failures by what is printed, whatever the exit code; ``otherwise`` where no pattern is found."""

    def kind_of(code: int, text: str) -> type[DriverError]:
        return next((kind for pattern, kind in texts if pattern.search(text)), otherwise)

    return kind_of
