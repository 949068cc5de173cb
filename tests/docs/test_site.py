"""The documentation site: `make docs` builds it and checks links; what is listed by hand is checked here."""

from __future__ import annotations

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


def test_the_example_of_capacity_planning_runs() -> None:
    page = (DOCS / "simulation.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^\$ hostler (simulate .*docs/examples/.*)$", page, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "hostler", *command.split()], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.startswith("17 hosts of host refuse no more than 0 %")


def test_examples_import_what_is_public_only() -> None:
    public = re.compile(r"hostler(\.drivers\.(protocol|conformance)|\.sim(\.questions)?\.api)?")
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    found = {
        f"{page.name}: {module}"
        for page in pages
        for code in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for module in re.findall(r"^\s*(?:from|import) (hostler[\w.]*)", code, re.MULTILINE)
        if not public.fullmatch(module)
    }
    assert found == set()
