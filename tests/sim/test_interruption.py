"""Ctrl-C: what was played by then is answered and reported, and what is resumed ends as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hostler.core.cli import main
from hostler.placement.types.errors import HostlerError
from hostler.sim.questions.tasks import outcomes, start, workload_of
from hostler.sim.run import checkpoint
from hostler.sim.run.fleet_plan import FleetPlan, Hardware, Maintenance, Outage
from hostler.sim.run.headroom import Busiest
from hostler.sim.run.policies import policy_of
from hostler.sim.run.run import Run
from hostler.sim.trace.files import read_trace
from tests.daemon.processes import HOSTLER

from ..patience import HANG_SECONDS
from .values import plan, task, written

FLEET = """
[[hardware]]
name = "general"
count = 30
vcpus = 64
memory_gb = 256
disk_gb = 4000
zones = ["cloud-1", "cloud-2", "cloud-3"]
racks = 2
[[growth]]
hardware = "general"
add = 3
at_hours = 30
[[failures]]
zone = "cloud-1"
at_hours = 12
hours = 5
[[maintenance]]
rack = "cloud-2/general-r1"
at_hours = 14
hours = 2
"""
RUN = ["run", "--trace", "devops", "--fleet", "fleet.toml", "--make-hours", "1440", "--wait", "2"]
SWEEP = ["sweep", "--trace", "devops", "--hosts", "30", "--make-hours", "120", "--seeds", "5", "--sizes", "28,30"]
COMPARE = ["compare", "--trace", "devops", "--hosts", "30", "--make-hours", "120", "--seeds", "5"]
FORECAST = ["forecast", "--trace", "devops", "--hosts", "30", "--days", "14", "--seeds", "5", "--target", "90"]
SIZE = ["size", "--trace", "devops", "--make-hours", "720"]
QUESTIONS = {
    "run": RUN,
    "sweep": [*SWEEP, "--workers", "2"],
    "compare": [*COMPARE, "--policies", "nova,best-fit", "--workers", "1"],
    "forecast": [*FORECAST, "--workers", "1"],
    "size": SIZE,
}
ENOUGH = {"size": "trial of 79 hosts: 10 %"}
"""What is said when there is something to be answered, where that is not the first 20 %."""


def simulate(folder: Path, arguments: list[str], *, interrupt_after: str = "") -> tuple[int, str, str]:
    """Run it in a folder; with Ctrl-C once it has said so. Exit code, output and what it said."""
    command = [str(HOSTLER), "simulate", *arguments, "--json", "--report", "r.json", "--report", "r.csv"]
    with (folder / "out").open("w+") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = ""
        while interrupt_after and interrupt_after not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        if interrupt_after:
            process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=HANG_SECONDS)[1]
    return process.returncode, (folder / "out").read_text(), said


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_ctrl_c_ended_is_reported_and_resumed_to_the_same_bytes(tmp_path: Path, question: str) -> None:
    arguments = [*QUESTIONS[question], "--resume", "kept"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
        (folder / "fleet.toml").write_text(FLEET)
    code, wanted, _ = simulate(whole, arguments)
    assert code == 0
    code, out, said = simulate(cut, arguments, interrupt_after=ENOUGH.get(question, ": 20 %"))
    assert code == 130, said
    assert "Traceback" not in said
    answer = json.loads(out)
    assert answer["interrupted"] if question != "run" else answer["outcome"]["interrupted"]
    partial = json.loads((cut / "r.json").read_text())
    assert partial["outcomes"]
    assert (cut / "r.csv").read_bytes() != (whole / "r.csv").read_bytes()
    code, out, _ = simulate(cut, arguments)
    assert (code, out) == (0, wanted)
    for name in ("r.json", "r.csv"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def outages() -> FleetPlan:
    kind = Hardware(name="small", count=4, vcpus=4, memory_gb=8, racks=2, price_per_hour=1.0)
    failure = Outage(host="small-00002", at_hours=0.5, hours=2)
    maintenance = Maintenance(rack="zone-1/small-r1", at_hours=2, hours=0.5, notice_hours=0.5)
    return FleetPlan(hardware=(kind,), failures=(failure,), maintenance=(maintenance,))


@pytest.mark.parametrize("policy", ["nova", "random"])
@pytest.mark.parametrize("steps", [1, 7, 24, 29])
def test_a_run_that_was_cut_anywhere_goes_on_as_if_it_had_not_been(tmp_path: Path, policy: str, steps: int) -> None:
    lines = [
        f"{200 * n},{900 + 977 * (n % 7)},{1 + n % 3},{1 + n % 4},{'g' if n % 5 == 0 else ''}\n" for n in range(60)
    ]
    trace = read_trace(Path(written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb,group\n" + "".join(lines))))

    def fresh() -> Run:
        return Run(outages(), trace, policy_of(policy), seed=7, wait_hours=1.0)

    whole = fresh().play()
    assert whole.disruption is not None
    assert min(whole.disruption.stopped, whole.waited, whole.refused) > 0
    cut = fresh()
    cut.play(lambda: cut.played < steps)
    checkpoint.save(cut, Busiest(cut), "task", tmp_path / "kept")
    again = fresh()
    checkpoint.resume(again, Busiest(again), "task", tmp_path / "kept")
    again.engine.fleet.check()
    assert again.play() == whole


def test_what_is_no_interrupted_run_or_another_one_is_refused(tmp_path: Path) -> None:
    kept, trace = tmp_path / "kept", written(tmp_path)
    kept.write_bytes(b"no")
    arguments = ["simulate", "run", "--trace", trace, "--resume", str(kept)]
    assert main(arguments) == 1
    run = start(task(trace))
    run.play(lambda: False)
    checkpoint.save(run, Busiest(run), "another", kept)
    again = start(task(trace))
    with pytest.raises(HostlerError, match="of another run"):
        checkpoint.resume(again, Busiest(again), task(trace).digest, kept)
    with pytest.raises(HostlerError, match="cannot be written"):
        checkpoint.save(run, Busiest(run), "task", tmp_path / "none" / "kept")


def test_a_changed_trace_is_another_task(tmp_path: Path) -> None:
    before = task(written(tmp_path)).digest
    assert task(written(tmp_path)).digest == before
    assert task(written(tmp_path, "arrival_s,vcpus,memory_gb\n0,1,1\n")).digest != before
    assert plan().name == "fleet"


def test_a_trace_that_was_copied_over_with_its_time_is_read_again(tmp_path: Path) -> None:
    head = "arrival_s,lifetime_s,vcpus,memory_gb\n"
    asked = task(written(tmp_path, head + "0,3600,1,1\n"))
    path, before = Path(asked.source.trace), asked.digest
    assert workload_of(asked.source, 0).specs[0].flavor.vcpus == 1
    then = path.stat()
    while path.stat().st_ctime_ns == then.st_ctime_ns:  # the clock of a file system goes in ticks
        path.write_text(head + "0,3600,2,1\n")
        os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert workload_of(asked.source, 0).specs[0].flavor.vcpus == 2
    assert asked.digest != before


@pytest.mark.parametrize("question", ["sweep", "size"])
@pytest.mark.parametrize("text", ["notes", '{"a": 1}', '{"a": 1}\n', '{"task":1}\n'])
def test_a_file_of_something_else_is_refused_and_stays_as_it_is(
    tmp_path: Path, capsys: Any, question: str, text: str
) -> None:
    other = tmp_path / "report.json"
    other.write_text(text)
    arguments = ["simulate", question, "--trace", written(tmp_path), "--resume", str(other)]
    assert main(arguments) == 1
    assert "report.json, line 1: " in capsys.readouterr().err
    assert other.read_text() == text


@pytest.mark.parametrize("cut", [1, 5, 30, 300])
def test_an_outcome_that_was_kept_in_part_is_played_again(tmp_path: Path, cut: int) -> None:
    kept, asked = tmp_path / "kept", task(written(tmp_path))
    (whole,) = (outcome for _, outcome in outcomes([asked], resume=kept))
    text = kept.read_bytes()
    kept.write_bytes(text + text[:cut])
    assert [outcome for _, outcome in outcomes([asked], resume=kept)] == [whole]
    assert kept.read_bytes() == text
    kept.write_bytes(text[:cut])
    assert [outcome for _, outcome in outcomes([asked], resume=kept)] == [whole]
    assert kept.read_bytes() == text
