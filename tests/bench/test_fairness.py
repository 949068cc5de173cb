"""bench/fairness.py: what its command prints, at a size that takes no time."""

from __future__ import annotations

import contextlib
import json

import pytest

from hostler.bench import fairness as bench
from hostler.bench.engine import main


def test_the_command_prints_the_latencies_of_a_tenant_beside_each_hostile_thing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ["nothing", "repeated uuids, pipelined", "status of strangers"]
    options = [part for name in names for part in ("--only", name)]
    with contextlib.suppress(SystemExit):  # a machine that does other work is slower than the bar
        main(["--hosts=20", "--seconds=0.3", "--json", *options], bench.app)
    answer = json.loads(capsys.readouterr().out)
    assert list(answer["figures"]) == names
    for figures in answer["figures"].values():
        assert figures["placements"] > 0
        assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]


@pytest.mark.parametrize("name", bench.HOSTILE)
def test_hostile_calls_are_of_the_other_tenant(name: str) -> None:
    calls = bench.HOSTILE[name]()
    assert calls
    for _, params in calls:
        for request in params.get("requests", [params["request"]] if "request" in params else []):
            assert isinstance(request, dict) or request.project_id == bench.EVIL
