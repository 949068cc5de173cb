"""The how-to pages: their Python blocks and their commands run in order, in one folder, and print what is shown."""

from __future__ import annotations

import doctest
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from itertools import pairwise
from pathlib import Path
from threading import Timer
from typing import Any, Final

import pytest

from ..patience import HANG_SECONDS
from .test_docs import Block, blocks

PAGES: Final = sorted((Path(__file__).parents[2] / "docs" / "how-to").glob("*.md"))
END: Final = "-- end of the command --"


class Shell:
    """One bash session in a folder; the commands of a page are run in it."""

    def __init__(self, folder: Path) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")}
        variables |= {"PATH": path, "COLUMNS": "100", "LC_ALL": "C.UTF-8"}
        pure = os.environ.get("HOSTLER_PURE")
        self.errors = folder / "stderr.txt"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                ["bash", "--norc"],
                cwd=folder,
                env=variables | ({} if pure is None else {"HOSTLER_PURE": pure}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )

    def run(self, command: str) -> str:
        """Standard output of a command."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\necho '{END}'\n")
        self.process.stdin.flush()
        lines: list[str] = []
        for line in self.process.stdout:
            if line.rstrip("\n") == END:
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended in {command!r}: {self.errors.read_text()}")


@contextmanager
def shell(folder: Path) -> Iterator[Shell]:
    """A shell; it and everything that it started is killed at the end."""
    session = Shell(folder)
    watchdog = Timer(HANG_SECONDS, os.killpg, (session.process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        yield session
    finally:
        watchdog.cancel()
        with suppress(ProcessLookupError):
            os.killpg(session.process.pid, signal.SIGKILL)
        session.process.communicate()


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown below it. Lines of a command after its first
    begin with ``> ``."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        while shown.startswith("> "):
            more, _, shown = shown.removeprefix("> ").partition("\n")
            command = f"{command}\n{more}"
        yield command, shown.rstrip("\n") and f"{shown.rstrip(chr(10))}\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_and_prints_what_is_shown(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    with shell(tmp_path) as session:
        for block, after in pairwise([*blocks(page), Block("", "", 0)]):
            if block.language == "python":
                code = compile("\n" * (block.line - 1) + block.text, str(page), "exec", dont_inherit=True)
                with redirect_stdout(StringIO()) as printed:
                    exec(code, names)
                check(page, block, after.text if after.language == "text" else "", printed.getvalue())
            elif block.language == "console":
                for command, shown in commands(block):
                    check(page, block, shown, session.run(command), session.errors)


def check(page: Path, block: Block, shown: str, got: str, errors: Path | None = None) -> None:
    """Fail unless the output is the one that is shown; ``...`` stands for any text."""
    same = doctest.OutputChecker().check_output(shown, got, doctest.ELLIPSIS)
    said = "" if errors is None else errors.read_text()
    assert same, f"{page.name}:{block.line} prints\n{got}\n{said}"
