"""The table of limits in docs/contributing.md has the numbers of the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Final

import pytest

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "contributing.md"
ROW: Final = re.compile(r"^\| ([^|]+) \| `([\w.]+):([\w.]+)` \| (\d+) \|$", re.MULTILINE)
LIMITS: Final = ROW.findall(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("what", "module", "name", "limit"), LIMITS, ids=[row[0] for row in LIMITS])
def test_a_limit_is_that_of_the_code(what: str, module: str, name: str, limit: str) -> None:
    found = importlib.import_module(f"hostler.{module}")
    first, _, field = name.partition(".")
    value = getattr(found, first)
    if field:
        value = getattr(value(), field)
    assert value == int(limit), what


def test_the_table_is_not_empty() -> None:
    assert len(LIMITS) > 30
