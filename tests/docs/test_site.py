"""The documentation site: `make docs` builds it and checks links; what is listed by hand is checked here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import hostler

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    pages = sorted((DOCS / "reference").glob("*.md"))
    listed = [name for page in pages for name in re.findall(r"^::: hostler\.(\w+)$", page.read_text(), re.MULTILINE)]
    assert sorted(listed) == sorted(hostler.__all__)


def test_the_example_s_trace_is_what_its_program_writes() -> None:
    program = DOCS / "examples" / "make_guests.py"
    made = subprocess.run([sys.executable, program], check=True, capture_output=True, text=True).stdout
    assert made == (DOCS / "examples" / "guests.csv").read_text(encoding="utf-8")


def test_the_example_of_capacity_planning_answers_what_the_readme_shows() -> None:
    console = re.findall(
        r"^\$ (hostler simulate size [^#\n]*)[^\n]*\n(.+)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert console
    wide = {**os.environ, "COLUMNS": "112"}
    for command, answer in console:
        done = subprocess.run(
            [sys.executable, "-m", *command.split()], check=True, capture_output=True, text=True, cwd=ROOT, env=wide
        )
        assert done.stdout.splitlines()[0] == answer
