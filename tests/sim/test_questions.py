"""What the commands refuse before anything is played, and what they never lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hostler.core.cli import main
from hostler.sim.questions.least import lower_bound
from hostler.sim.run.fleet_plan import Hardware
from hostler.sim.trace.files import read_trace

from .values import written

ZONED = "arrival_s,vcpus,memory_gb,zone\n" + "0,4,4,b\n" * 3 + "0,1,1,\n"
SHAPE = ["--hosts", "6", "--vcpus", "4", "--memory-gb", "8"]


def refused(capsys: Any, folder: Path, command: list[str], text: str = ZONED) -> str:
    """What is said of a command that is refused, having said nothing of progress."""
    shape = () if "--fleet" in command else SHAPE
    trace = () if "--trace" in command else ("--trace", written(folder, text))
    assert main(["simulate", *command, *trace, *shape]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert "%" not in found.err
    return str(found.err)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["sweep", "--sizes", "1", "--hardware", "nope"], "hardware"),
        (["sweep", "--policies", "best-fit,nope"], "nope"),
        (["compare", "--policy", "best-fit"], "--policy says nothing beside --policies"),
        (["compare", "--policy", "nova"], "--policy says nothing beside --policies"),
        (["sweep", "--policy", "best-fit", "--policies", "nova"], "--policy says nothing beside --policies"),
        (["sweep", "--policy", "nova", "--policies", "best-fit"], "--policy says nothing beside --policies"),
        (["forecast", "--trace", "devops", "--until", "5"], "--days"),
        (["forecast", "--make-hours", "24"], "--days"),
        (["forecast", "--trace", "devops", "--hours", "5"], "hours"),
        (["run", "--trace", "devops", "--hours", "5", "--make-hours", "24"], "hours"),
        (["run", "--standing-stay"], "--state"),
        (["run", "--growth", "0.5"], "--make-hours"),
        (["compare", "--scale", "2"], "--make-hours"),
        (["run", "--columns", "vcpus=vcpus,vcpus=memory_gb"], "twice"),
        (["run", "--report", "r.pdf"], "ends with"),
        (["run", "--report", "none/r.json"], "cannot be written"),
        (["run", "--resume", "none/kept"], "cannot be written"),
        (["sweep", "--resume", "none/kept"], "cannot be kept in"),
        (["size", "--resume", "."], "cannot be kept in"),
    ],
)
def test_what_cannot_end_well_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, command: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refused(capsys, tmp_path, command)


def test_guests_of_a_zone_that_the_fleet_has_not_are_no_guests_of_it(tmp_path: Path, capsys: Any) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[hardware]]\nname = "h"\ncount = 2\nvcpus = 4\nmemory_gb = 8\nzones = ["a"]\n')
    assert "zone" in refused(capsys, tmp_path, ["run", "--fleet", str(fleet)])


@pytest.mark.parametrize("option", ["--hosts", "--vcpus", "--memory-gb", "--disk-gb"])
def test_a_fleet_is_given_by_its_file_or_by_its_shape(tmp_path: Path, capsys: Any, option: str) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[hardware]]\nname = "h"\ncount = 2\nvcpus = 4\nmemory_gb = 8\n')
    assert f"{option} says nothing" in refused(capsys, tmp_path, ["run", "--fleet", str(fleet), option, "4"])


def test_a_fleet_that_is_given_by_its_shape_has_the_zones_of_the_trace(tmp_path: Path, capsys: Any) -> None:
    trace = written(tmp_path, ZONED + "0,4,4,a\n")
    assert main(["simulate", "run", "--trace", trace, *SHAPE, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)["outcome"]
    assert (outcome["placed"], outcome["refused"]) == (5, 0)
    assert set(outcome["samples"][0]["used_percent"]) == {"all", "a", "b"}


def test_a_report_that_fails_at_the_end_loses_neither_the_answer_nor_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fails(report: object, path: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setitem(__import__("hostler.sim.report.report", fromlist=["_"])._WRITERS, ".csv", fails)
    reports = ["--report", str(tmp_path / "r.csv"), str(tmp_path / "r.json")]
    assert main(["simulate", "run", "--trace", written(tmp_path), *SHAPE, *reports]) == 1
    found = capsys.readouterr()
    assert "5 requests" in found.out
    assert "disk full" in found.err
    assert json.loads((tmp_path / "r.json").read_text())["outcomes"][0]["requests"] == 5


def test_the_lower_bound_counts_what_must_be_in_one_zone(tmp_path: Path) -> None:
    """Three guests that fill a host each, all of the second zone of two: hosts are dealt to the zones in turn."""
    trace = read_trace(Path(written(tmp_path, ZONED)))
    kind = Hardware(name="h", count=1, vcpus=4, memory_gb=8, zones=("a", "b"))
    assert lower_bound(trace, kind) == (4, 6)
    other = Hardware(name="o", count=2, vcpus=4, memory_gb=8, zones=("b",))
    assert lower_bound(trace, kind, [other]) == (4, 2)
