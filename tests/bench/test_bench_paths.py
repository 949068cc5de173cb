"""bench/paths.py: what its command prints, at a size that takes no time."""

from __future__ import annotations

import json

import pytest

from hostler.bench import paths as bench
from hostler.bench.engine import main


def test_the_command_prints_a_figure_for_each_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--hosts=200", "--calls=2", "--json"], bench.app) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [figure["path"] for figure in answer] == list(bench.PATHS)
    placed = {figure["path"]: figure["placed"] for figure in answer}
    assert placed["refused"] == placed["refused_again"] == placed["fits"] == 0 < placed["move"]
    assert all(figure["cpu_us"] > 0 for figure in answer)
