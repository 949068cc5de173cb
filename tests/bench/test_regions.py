"""bench/regions.py: what it counts, on regions that are small and nearly full."""

from __future__ import annotations

import json

import pytest

from hostler.bench import regions


def test_refusals_are_counted_and_put_to_all_regions(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--regions", "3", "--hosts", "30", "--open", "15", "--seconds", "4", "--rate", "50", "--as-json"]
    assert regions.app([*options, "--fill", "0.99"], result_action="return_value") == 0
    full = json.loads(capsys.readouterr().out)
    assert full["requests"] == 200
    assert 0 < full["refused"] < 200
    assert 0 <= full["regretted"] <= full["refused"]
    assert full["summaries_a_second"] > 0
    assert 50 < full["summary_bytes"] < 10_000
    assert regions.app([*options, "--fill", "0.5"], result_action="return_value") == 0
    assert json.loads(capsys.readouterr().out)["refused"] == 0
