"""docs/first-tenant.md is a session of a shell: its commands run in order, and print what is shown."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "first-tenant.md"
MARK: Final = "-- a command ends --"


def steps() -> list[tuple[str, str]]:
    """The commands, each with what is shown of its output."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            else:
                found[-1] = found[-1][0], f"{found[-1][1]}{line}\n"
    return found


def test_the_session_of_the_page_goes_as_it_is_shown(tmp_path: Path) -> None:
    commands = steps()
    script = "\n".join(["set -e", *(f"{command}\necho {MARK!r}" for command, _ in commands)])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**environment, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    printed = done.stdout.split(f"{MARK}\n")
    assert done.returncode == 0, printed[-1]
    for (command, shown), got in zip(commands, printed, strict=False):
        if shown:
            checker = doctest.OutputChecker()
            assert checker.check_output(shown, got, doctest.ELLIPSIS), f"{command} prints\n{got}"
    assert len(printed) == len(commands) + 1


def test_a_failing_command_of_the_page_would_be_noticed() -> None:
    done = subprocess.run(["bash", "-c", f"set -e\nfalse\necho {MARK!r}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
