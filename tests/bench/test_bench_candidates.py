"""bench/candidates.py: what its command prints, at a size that takes no time."""

from __future__ import annotations

import json

import pytest

from hostler.bench import candidates as bench
from hostler.bench.engine import main


def test_the_command_prints_a_figure_for_each_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--providers=20", "--repeat=1", "--json"], bench.app) == 0
    answer = json.loads(capsys.readouterr().out)
    found = {(figure["fleet"], figure["what"]): figure["candidates"] for figure in answer["figures"]}
    assert found == {
        ("flat", "limit 1"): 1,
        ("flat", "limit 1000"): 20,
        ("flat", "claim"): 0,
        ("flat", "limit 1 and claim"): 1,
        ("all but one full", "limit 1"): 1,
        ("nested", "limit 1"): 1,
        # Four hosts, two cells for CPUs, two for memory, two GPUs.
        ("nested", "limit 1000"): 4 * 8,
        ("8 children each", "8 groups, limit 1000"): 1000,
        ("8 children each", "8 groups, breadth first, limit 1000"): 1000,
        ("7 children each", "8 groups, none fits"): 0,
    }
    assert all(figure["cpu_us"] > 0 for figure in answer["figures"])


def test_a_wrong_command_line_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--providers=0"], bench.app) == 2
    assert "providers" in capsys.readouterr().err
