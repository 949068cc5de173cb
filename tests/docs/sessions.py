"""Pages that show a session of a shell: their commands run in order, and print what is shown."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
MARK: Final = "-- a command ends --"


def steps(page: Path) -> list[tuple[str, str]]:
    """The commands, each with what is shown of its output. Lines of a command after its first begin with ``> ``."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            elif line.startswith("> "):
                found[-1] = f"{found[-1][0]}\n{line[2:]}", ""
            else:
                found[-1] = found[-1][0], f"{found[-1][1]}{line}\n"
    return found


def check_session(page: Path, folder: Path) -> None:
    """Run the commands of a page in a folder; AssertionError if one fails or prints something else."""
    commands = steps(page)
    script = "\n".join(["set -e", *(f"{command}\necho {MARK!r}" for command, _ in commands)])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
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
