"""Programs that drivers run: what they print, and their failures by class."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import trio

from hostler.drivers import programs
from hostler.drivers.programs import LONGEST_TEXT, by_text, run_program
from hostler.drivers.protocol import Conflict, DriverError, Permanent, Unknown

from ..patience import HANG_SECONDS

FAILED = by_text(((re.compile("taken"), Conflict),), Unknown)


async def run(*line: str, **environment: str) -> str:
    return await run_program(line, FAILED, package="coreutils", environment=environment)


async def test_what_is_printed_is_returned_and_arguments_are_no_shell_s() -> None:
    assert await run("printf", "%s", "$(id); a' b") == "$(id); a' b"


async def test_programs_speak_english_and_have_further_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert await run("sh", "-c", "echo $LC_ALL $MORE $HOME", MORE="more", HOME="/h") == "C more /h\n"


@pytest.mark.parametrize(("said", "kind"), [("it is taken", Conflict), ("what", Unknown), ("", Unknown)])
async def test_a_failure_is_classed_by_what_is_printed(said: str, kind: type[DriverError]) -> None:
    with pytest.raises(DriverError) as caught:
        await run("sh", "-c", f"echo '{said}' >&2; exit 5")
    assert (type(caught.value), caught.value.backend_code) == (kind, "5")
    assert str(caught.value) == (said or "sh ended with 5")


async def test_a_long_text_is_cut_to_its_end() -> None:
    with pytest.raises(Conflict) as caught:
        await run("sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x >&2; echo taken >&2; exit 1")
    assert len(str(caught.value)) == LONGEST_TEXT


@pytest.mark.parametrize("line", [("/no/such/program",), ("echo", "a\0b"), ("echo", "\ud800")])
async def test_what_cannot_be_run_is_permanent(line: tuple[str, ...]) -> None:
    with pytest.raises(Permanent):
        await run(*line)


async def test_a_program_ends_with_its_call() -> None:
    with trio.move_on_after(0.05) as scope:
        await run("sleep", "1000")
    assert scope.cancelled_caught


async def test_the_name_of_a_path_says_nothing_of_a_failure() -> None:
    with pytest.raises(Unknown):
        await run("sh", "-c", 'echo "$0: it failed" >&2; exit 1', "/data/taken/disk")


async def test_a_program_that_prints_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "MOST_OUTPUT", 1 << 20)
    with trio.fail_after(HANG_SECONDS), pytest.raises(Unknown, match="prints more"):
        await run("cat", "/dev/zero")


async def test_a_program_that_does_not_end_is_killed_and_then_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(programs, "END_SECONDS", 0.2)
    pid = tmp_path / "pid"
    with trio.fail_after(HANG_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "sh", "-c", f"trap '' TERM; echo $$ > {pid}; while :; do sleep 0.1; done")
            while not (pid.exists() and pid.read_text()):  # noqa: ASYNC110  # it is another process
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
    number = int(pid.read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
