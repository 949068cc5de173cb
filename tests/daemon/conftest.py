"""The command line, run in the tests' process against a module's own fixture ``daemon``."""

from __future__ import annotations

import pytest

from hostler.core.cli import main

from .commands import Run
from .processes import Daemon


@pytest.fixture
def run(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; its exit code and what it says."""
    monkeypatch.setenv("HOSTLER_SERVER", daemon.address)

    def call(*words: str) -> tuple[int, str]:
        try:
            code = main(words)
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code or 0, said.out + said.err

    return call
