"""Programs that drivers run: what they print, and their failures by class."""

from __future__ import annotations

import re

import pytest
import trio

from hostler.drivers.programs import LONGEST_TEXT, by_text, run_program
from hostler.drivers.protocol import Conflict, DriverError, Permanent, Unknown

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
