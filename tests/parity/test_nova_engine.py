"""The engine's public API against all recorded answers of the real Nova 33, and the command that compares them."""

from __future__ import annotations

import copy
import gzip
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from hostler.bench import nova_cases, parity
from hostler.core import cli

from ..patience import HANG_SECONDS

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
RECORDED, CHECKER = SHARED / "parity" / "nova" / "cases.jsonl.gz", SHARED / "tools" / "check_parity.py"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not RECORDED.exists(), reason="the recorded answers ../shared/parity/nova are not here"),
]

KNOWN = Counter(
    {"Nova forgets to charge the NUMA cells": 15, "Nova raises ValueError": 1, "Nova raises AttributeError": 1}
)


@cache
def recorded() -> tuple[nova_cases.Case, ...]:
    return tuple(nova_cases.read_cases(RECORDED))


def cases(count: int | None = None, *, step: int = 1) -> list[nova_cases.Case]:
    """Copies: what compares them takes their expected answers out. The first few, or every so many, or all."""
    return [dict(case) for case in recorded()[:count:step]]


@cache
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_parity", CHECKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# the answers


def test_every_case_is_equal_but_the_known_differences() -> None:
    tally = parity.compare_nova(iter(cases()))
    assert tally.differences == []
    assert Counter(reason for _, reason in tally.known) == KNOWN
    assert (tally.cases, tally.equal) == (598, 598 - KNOWN.total())


@pytest.mark.skipif(not CHECKER.exists(), reason="the independent checker ../shared/tools is not here")
def test_an_independent_checker_finds_the_same() -> None:
    for case in cases(step=3):
        expected = case.pop("expected")
        assert checker().check(case, expected, parity.nova(case), True) is None, case["id"]


def test_an_answer_does_not_depend_on_the_cases_before_it() -> None:
    some = cases(40)
    for case in some:
        case.pop("expected")
    forwards = [parity.nova(copy.deepcopy(case)) for case in some]
    backwards = [parity.nova(copy.deepcopy(case)) for case in reversed(some)]
    assert forwards == backwards[::-1]


def altered(case: nova_cases.Case) -> nova_cases.Case | None:
    """The case with one figure that Nova never gave; None if it has no such figure."""
    expected = copy.deepcopy(case["expected"])
    if case["kind"] == "schedule":
        expected["schedule"]["claims"].append(["nobody", "nowhere", True])
    elif case["kind"] == "query" and not expected["placement_query"]["error"]:
        expected["placement_query"]["queries"][0] += "&limit=1"
    elif case["kind"] == "sorted" and expected["ordered"]:
        expected["ordered"][0]["weight"] += 1e-6
    else:
        return None
    return case | {"expected": expected}


def test_a_wrong_answer_is_found() -> None:
    """The comparison can fail: each figure that is altered is told."""
    some = [wrong for case in cases(step=17) if (wrong := altered(case)) is not None]
    assert {case["kind"] for case in some} == set(nova_cases.KINDS)
    tally = parity.compare_nova(iter(some))
    assert len(tally.differences) == tally.cases == len(some)


# the command


def write(path: Path, some: list[nova_cases.Case]) -> Path:
    """Cases in the form that the path's name says."""
    lines = "".join(json.dumps(case) + "\n" for case in some)
    if path.suffix == ".gz":
        with gzip.open(path, "wt") as file:
            file.write(lines)
    elif path.suffix == ".jsonl":
        path.write_text(lines)
    elif path.suffix == ".json":
        path.write_text(json.dumps(some[0], indent=1))
    else:
        path.mkdir()
        for number, case in enumerate(some):
            (path / f"{number:03}.json").write_text(json.dumps(case))
        (path / "README.json").write_text("no case")
    return path


def run(*paths: Path | str) -> int:
    return int(cli.main(["parity", "nova", *map(str, paths)]) or 0)


@pytest.mark.parametrize(("name", "count"), [("folder", 3), ("one.json", 1), ("some.jsonl", 3), ("some.jsonl.gz", 3)])
def test_cases_come_in_several_forms(name: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write(tmp_path / name, cases(3))) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"nova parity: {count} of {count} cases equal"


def test_several_paths_are_one_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write(tmp_path / "a.jsonl", cases(3)), write(tmp_path / "folder", cases(2))) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nova parity: 5 of 5 cases equal"


def test_known_differences_are_counted_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = [case for case in cases() if case["id"].startswith(("515", "037", "000"))]
    assert run(write(tmp_path / "some.jsonl", known)) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "2 known differences (docs/nova-differences.md)",
        f"nova parity: {len(known) - 2} of {len(known)} cases equal",
    ]
    assert told.err.count("known difference") == 2


def test_a_difference_is_printed_and_the_exit_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = copy.deepcopy(cases(3))
    [wrong] = [case for case in some if case["kind"] == "sorted"][:1]
    wrong["expected"]["ordered"] = wrong["expected"]["ordered"][::-1]
    assert run(write(tmp_path / "some.jsonl", some)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"DIFFERS {wrong['id']}: ") for line in lines)
    assert lines[-1] == "nova parity: 2 of 3 cases equal"


def test_a_case_that_breaks_is_a_difference_and_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = copy.deepcopy(cases(3))
    del some[1]["request"]["flavor"]
    assert run(write(tmp_path / "some.jsonl", some)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert f"DIFFERS {some[1]['id']}: failed: KeyError: 'flavor'" in lines
    assert lines[-1] == "nova parity: 2 of 3 cases equal"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("nowhere.jsonl", None, "does not exist"),
        ("empty.jsonl", b"", "holds no cases"),
        ("torn.jsonl", b'{"id": \n', "torn.jsonl:1 is not JSON"),
        ("list.json", b"[]", "is not a recorded case: it has no aggregates, config"),
        ("text.json", b'{"id": "1"}', "it has no aggregates, config"),
        ("binary.jsonl", b"\xff\xfe\x00", "cannot be read"),
        ("plain.jsonl.gz", b"{}", "cannot be read"),
        ("torn.jsonl.gz", gzip.compress(b"{}\n" * 10_000, mtime=0)[:-12], "not a recorded case|cannot be read"),
        ("deep.json", b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(
    name: str, content: bytes | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert run(tmp_path / name) == 1
    told = capsys.readouterr()
    assert "nova parity" not in told.out
    [line] = told.err.splitlines()
    assert line.startswith(f"hostler: {tmp_path / name}")
    assert any(each in line for each in says.split("|"))


def test_a_folder_without_cases_and_no_path_at_all_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path) == 1
    assert run() == 1
    empty, missing = capsys.readouterr().err.splitlines()
    assert "holds no cases" in empty
    assert "name at least one folder" in missing


def test_an_unknown_kind_of_case_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [case] = cases(1)
    assert run(write(tmp_path / "one.json", [case | {"kind": "guessed"}])) == 1
    assert "of no known kind: 'guessed'" in capsys.readouterr().err


def test_the_command_is_installed(tmp_path: Path) -> None:
    hostler, path = Path(sys.executable).with_name("hostler"), write(tmp_path / "a.jsonl", cases(2))
    done = subprocess.run(
        [hostler, "parity", "nova", path], capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["nova parity: 2 of 2 cases equal"]), done.stderr
