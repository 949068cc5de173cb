"""The driver of docs/drivers.md is what the page says: about fifty lines, and it passes the conformance suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostler.drivers.conformance import ComputeBench, ComputeConformance

from .test_docs import blocks

PAGE = Path(__file__).parents[2] / "docs" / "drivers.md"


def driver_of_the_page() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    (block,) = [each for each in blocks(PAGE) if "class FolderDriver" in each.text]
    exec(compile(block.text, str(PAGE), "exec"), names)
    return names


class TestFolderDriver(ComputeConformance):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> ComputeBench:
        open_driver, options = driver_of_the_page()["open_driver"], {"folder": str(tmp_path)}
        return ComputeBench(open=lambda context: open_driver(options, context), node="folder")
