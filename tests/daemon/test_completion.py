"""Completion as a person has it: real shells, and a real Tab."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ..patience import HANG_SECONDS
from .processes import HOSTLER

SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source $HOME/.bashrc"),
    "zsh": (["zsh", "-f", "-i"], "source $HOME/.zshrc; autoload -U compinit; compinit -u"),
}


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, command: list[str], home: Path) -> None:
        env = {
            "HOME": str(home),
            "PATH": f"{HOSTLER.parent}:{os.environ['PATH']}",
            "TERM": "dumb",
            "PS1": "",
            "PS2": "",
        }
        self._here, there = pty.openpty()
        self._shell = subprocess.Popen(
            command, stdin=there, stdout=there, stderr=there, env=env, start_new_session=True
        )
        os.close(there)

    def type(self, keys: str) -> None:
        os.write(self._here, keys.encode())

    def until(self, pattern: str, seconds: float = HANG_SECONDS) -> str:
        """What it shows, up to a pattern."""
        end, shown = time.monotonic() + seconds, ""
        while not re.search(pattern, shown):
            left = end - time.monotonic()
            assert left > 0, shown
            if select.select([self._here], [], [], left)[0]:
                shown += os.read(self._here, 65_536).decode(errors="replace")
        return shown

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._here)


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_commands_and_options(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    command, begin = SHELLS[shell]
    env = os.environ | {"HOME": str(tmp_path)}
    install = [str(HOSTLER), "--install-completion", "--shell", shell]
    subprocess.run(install, env=env, check=True, capture_output=True, timeout=HANG_SECONDS)
    terminal = Terminal(command, tmp_path)
    try:
        terminal.type(f"{begin}; echo rea''dy\n")
        terminal.until("ready")
        for typed, completed in (
            ("what", "what-if "),
            ("host dis", "host disable "),
            ("place --mem", "place --memory-mb "),
            ("user gr", "user grant "),
        ):
            terminal.type(f"echo hostler-is; hostler {typed}\t")
            terminal.until(re.escape(f"hostler {completed}".rstrip()))
            terminal.type("\x15")  # the line is not wanted
    finally:
        terminal.close()
