"""A misspelt keyword of the public API is an error of the type checker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import numpy as np
from hostler import Decision, Decisions, Engine, Explanation, Fit, Fleet, Flavor, Host, Ranked, Request, RequestSpec
from hostler import VolumeEngine, add_hosts, load_hosts

fleet = Fleet()
add_hosts(fleet, [Host(host="n1", vcpus_total=4, total_usable_ram_mb=4096)])
engine = Engine(fleet)
request = Request(spec=RequestSpec(flavor=Flavor(name="x", vcpus=1, memory_mb=1)))
many: Decisions = engine.place_many([request])
one: Decision = many[0]
why: Explanation = engine.explain(request)
room: Fit = engine.fits(request)
ranked: Ranked = engine.rank(request)
fleet.report("n1", fre_ram_mb=3.0)  # typo
fleet.set_service("n1", disabld=True)  # typo
fleet.add_provider("p", parnt="n1")  # typo
fleet.add_server_group("g", "affinity", max_servers_per_host=2)  # typo
engine.move("u", request, candidatez={})  # typo
engine.resize("u", request, candidatez={})  # typo
engine.place(request, candidatez={})  # typo
engine.begin_resize("u", request, migrationn="m")  # typo
request.with_changes(projct_id="p")  # typo
load_hosts(fleet, ["a"], [], vcpus_totl=np.zeros(1, np.int64))  # typo
VolumeEngine(fleet).pools.set_service("h", frozn=True)  # typo
"""


def test_misspelt_keywords_are_errors_and_nothing_else_is(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--follow-imports=silent", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    wrong = {
        int(line) for line in re.findall(rf"{program.name}:(\d+): error: Unexpected keyword argument", done.stdout)
    }
    assert wrong == {number for number, line in enumerate(PROGRAM.splitlines(), 1) if "# typo" in line}, done.stdout
    assert done.stdout.count("error:") == len(wrong), done.stdout
