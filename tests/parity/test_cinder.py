"""Every recorded answer of the real Cinder 29: expressions, capacities, filters, weighers, whole pipelines, groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler.bench.parity import cinder_command
from hostler.bench.parity_cinder import SUITES, compare_cinder, read_suites
from hostler.placement.types.errors import InvalidValue

CASES = Path(__file__).parents[2] / ".." / "shared" / "parity" / "cinder"
here = pytest.mark.skipif(not CASES.is_dir(), reason="the recorded answers of Cinder (shared/parity/cinder) are absent")

pytestmark = pytest.mark.parity


@here
@pytest.mark.parametrize("suite", SUITES)
def test_every_case_of_a_suite_is_equal_but_where_cinder_crashes(suite: str) -> None:
    tally = compare_cinder(read_suites(CASES / f"{suite}.json.gz"))
    assert not tally.differences
    assert tally.cases
    crashed = {"filters": 32, "weighers": 8, "weigher_edges": 4, "pipeline": 4}
    assert len(tally.known) <= crashed.get(suite, 0)


@here
def test_the_command_ends_with_the_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert cinder_command(CASES / "capacity_factors.json.gz") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "cinder parity: 120 of 120 cases equal"


def test_a_difference_is_printed_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.json"
    path.write_text('{"suite": "extra_specs_match", "cases": [{"id": "m", "value": 1, "req": "= 2", "result": true}]}')
    assert cinder_command(path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "DIFFERS m: False != True"
    assert lines[-1] == "cinder parity: 0 of 1 cases equal"


@pytest.mark.parametrize("content", ["", "[]", '{"suite": "other", "cases": []}'])
def test_a_file_that_holds_no_suite_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "none.json"
    path.write_text(content)
    with pytest.raises(InvalidValue):
        cinder_command(path)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="does not exist"):
        cinder_command(tmp_path / "nowhere")
    with pytest.raises(InvalidValue, match="at least one"):
        cinder_command()
