"""docs/first-tenant.md is a session of a shell: its commands run in order, and print what is shown."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .sessions import DOCS, MARK, check_session


def test_the_session_of_the_page_goes_as_it_is_shown(tmp_path: Path) -> None:
    check_session(DOCS / "first-tenant.md", tmp_path)


def test_a_failing_command_of_the_page_would_be_noticed() -> None:
    done = subprocess.run(["bash", "-c", f"set -e\nfalse\necho {MARK!r}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
