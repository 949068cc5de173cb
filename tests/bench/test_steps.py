"""bench/steps.py: what its command prints, at a size that takes no time."""

from __future__ import annotations

import json
import subprocess
import sys


def test_the_steps_of_a_long_command_are_told() -> None:
    command = [sys.executable, "-m", "hostler.bench.steps", "--hosts", "200", "--json"]
    command += ["--only", "place 100", "--only", "place_volume_group 100"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert told["hosts"] == 200
    assert set(told["figures"]) == {"place 100", "place_volume_group 100"}
    for figures in told["figures"].values():
        assert figures["steps"] > 5
        assert figures["longest_ms"] <= figures["all_ms"]
