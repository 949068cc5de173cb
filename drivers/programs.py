"""Programs that drivers run: one process to its end, and what it prints. What its failures mean is the driver's."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import trio

from ..core.tasks import background
from .protocol import DriverError, Permanent, Unknown

Texts = Sequence[tuple[re.Pattern[str], type[DriverError]]]
"""What programs print, by class: the first pattern that is found counts."""
LONGEST_TEXT: Final = 1_000
MOST_OUTPUT: Final = 256 * 2**20
"""Bytes that a program may print: the listing of a million volumes is smaller."""
END_SECONDS: Final = 5.0
"""How long a program that is ended may take, after SIGTERM and again after SIGKILL: one that waits for a device in the
kernel ends when that answers, and is not waited for."""
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
    ended. ``failed``: the class of a failure by its exit code and what was printed of it, without the paths that the
    program was given. Permanent if the program cannot be run, which the Debian ``package`` would have, or an argument
    is none that a program can be given. Unknown if it prints more than MOST_OUTPUT bytes."""
    for argument in line:  # beforehand: a process that does not begin leaves its pipes open
        if "\0" in argument or _HALF.search(argument):
            raise Permanent(f"{line[0]} cannot be given the argument {argument!r}")
    variables = {**os.environ, "LC_ALL": "C", **(environment or {})}
    try:
        process = await trio.lowlevel.open_process(
            list(line), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables
        )
    except OSError as error:
        raise Permanent(f"{line[0]} cannot be run: {error}", hint=f"install {package}") from error
    try:
        output, errors = await _printed(process)
    finally:
        await _ended(process)
    assert process.returncode is not None
    if process.returncode:
        text = errors.decode(errors="replace").strip()[-LONGEST_TEXT:]
        kind = failed(process.returncode, _without_paths(text, line))
        raise kind(text or f"{line[0]} ended with {process.returncode}", backend_code=str(process.returncode))
    return output.decode(errors="replace")


async def _printed(process: trio.Process) -> tuple[bytes, bytes]:
    """All that a process writes until it ends: its output, and the end of its errors."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = bytearray(), bytearray()
    too_much = False

    async def read_errors(stream: trio.abc.ReceiveStream) -> None:
        async for part in stream:
            errors.extend(part)
            del errors[: -4 * LONGEST_TEXT]

    async with background() as nursery:
        nursery.start_soon(read_errors, process.stderr)
        async for part in process.stdout:
            output += part
            if len(output) > MOST_OUTPUT:
                too_much = True
                nursery.cancel_scope.cancel()
                break
        else:
            await process.wait()
    if too_much:
        raise Unknown(f"the program prints more than {MOST_OUTPUT >> 20} MiB")
    return bytes(output), bytes(errors)


async def _ended(process: trio.Process) -> None:
    """End a process that has not ended, and close its pipes."""
    for end in (process.terminate, process.kill):
        if process.returncode is None:
            end()
            with trio.move_on_after(END_SECONDS, shield=True):
                await process.wait()
    with trio.CancelScope(shield=True), suppress(OSError):
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


def _without_paths(text: str, line: Sequence[str]) -> str:
    """A text without the paths among the arguments of a program: what they are called says nothing of a failure."""
    for argument in sorted((each for each in line[1:] if "/" in each), key=len, reverse=True):
        text = text.replace(argument, "")
    return text


def by_text(texts: Texts, otherwise: type[DriverError]) -> Callable[[int, str], type[DriverError]]:
    """Failures by what is printed, whatever the exit code; ``otherwise`` where no pattern is found."""

    def kind_of(code: int, text: str) -> type[DriverError]:
        return next((kind for pattern, kind in texts if pattern.search(text)), otherwise)

    return kind_of
