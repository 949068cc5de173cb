"""docs/drivers.md is right: its driver passes the conformance suite, and its tables and figures are those of the
code."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from hostler.core import lifecycle_commands
from hostler.core.backends.errors import FAILURES
from hostler.core.machine import lives
from hostler.core.reconcile import breaker
from hostler.core.reconcile.backend import BackendConfig
from hostler.drivers.conformance import ComputeBench, ComputeConformance

from .test_docs import blocks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "drivers.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DRIVERS: dict[str, str] = PROJECT["entry-points"]["hostler.drivers"]
EVERYWHERE = {"poll", "concurrency"}
"""Options of all drivers, which the tables leave out."""


def rows(head: str) -> dict[str, list[str]]:
    """The rows of the tables that begin with a head, by their first cell."""
    found = {}
    for table in TEXT.split(f"\n| {head} |")[1:]:
        for line in table.split("\n\n")[0].splitlines()[2:]:
            first, *cells = (cell.strip() for cell in line.strip("| ").split(" | "))
            found[first.strip("`")] = cells
    return found


def names(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def driver_of_the_page() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    (block,) = [each for each in blocks(PAGE) if "class FolderDriver" in each.text]
    exec(compile(block.text, str(PAGE), "exec"), names)
    return names


class TestFolderDriver(ComputeConformance):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> ComputeBench:
        open_driver, options = driver_of_the_page()["open_driver"], {"folder": str(tmp_path)}
        return ComputeBench(open=lambda context: open_driver(options, context), node="folder")


def test_every_driver_has_its_rows_and_its_extra() -> None:
    described = rows("driver | back end | options beside `poll` and `concurrency`")
    tested = rows("driver | tested on | what that cannot show")
    assert set(described) == set(DRIVERS)
    assert set(tested) == set(DRIVERS) - {"model"}
    assert list(tested) == sorted(tested)
    assert set(DRIVERS) - {"model"} <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("driver", sorted(DRIVERS))
def test_the_options_of_a_driver_are_those_of_its_row(driver: str) -> None:
    module = DRIVERS[driver].partition(":")[0]
    try:
        options = importlib.import_module(module).Options
    except ImportError as error:
        pytest.skip(f"the driver cannot be imported: {error}")
    known = {field.name for field in msgspec.structs.fields(options)} - EVERYWHERE
    text = rows("driver | back end | options beside `poll` and `concurrency`")[driver][-1]
    named = names(text)
    if "(#openstack-accounts)" in text:
        section = TEXT.split("### OpenStack accounts")[1].split("\n#")[0]
        account = {field.name for field in msgspec.structs.fields(options.__mro__[1])} - EVERYWHERE
        assert account <= names(section)
        named |= account
    assert named == known


def test_classes_and_statuses_are_those_of_the_code() -> None:
    classes = {name.strip() for row in rows("class | what follows") for name in row.replace("`", "").split(",")}
    assert classes == {kind.__name__ for kind in FAILURES.values()}
    statuses = {name.strip() for row in rows("status | meaning") for name in row.replace("`", "").split(",")}
    assert statuses == set(lives.SHOWN)
    assert set(get_args(lives.GuestStatus)) <= statuses


def test_figures_are_those_of_the_code() -> None:
    grace = next(field.default for field in msgspec.structs.fields(BackendConfig) if field.name == "grace")
    assert f"an orphan is removed ({grace:g})" in " ".join(TEXT.split())
    for said, value in (
        ("from 0.5 s to 60 s", (breaker.FIRST_WAIT, breaker.LONGEST_WAIT) == (0.5, 60.0)),
        ("After five calls in succession", breaker.FAILURES_TO_OPEN == 5),
        ("for 15 seconds", breaker.OPEN_SECONDS == 15.0),
        ("hosts (3) are tried", lifecycle_commands.ATTEMPTS == 3),
        ("longer than an hour", lifecycle_commands.MOVE_SECONDS == 3_600.0),
        ("within ten minutes", lifecycle_commands.DETACH_SECONDS == 600.0),
    ):
        assert said in " ".join(TEXT.split()), said
        assert value, said


def test_metrics_are_those_of_the_service() -> None:
    source = (ROOT / "core" / "process" / "reconcile_metrics.py").read_text(encoding="utf-8")
    said = re.findall(r"`(hostler_\w+)`", TEXT.split("Metrics: ")[1].split("\n\n")[0])
    assert len(said) > 5
    assert [name for name in said if name.removesuffix("_total") not in source] == []
