"""What a name or a command imports: no more than it needs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hostler
from hostler.core.cli import main
from hostler.placement.filters.base import Selection

pytestmark = pytest.mark.usefixtures("no_collections")


def generator() -> ModuleType:
    """docs/generate_map.py, which reads the imports of the code."""
    path = Path(__file__).resolve().parent.parent / "docs" / "generate_map.py"
    spec = importlib.util.spec_from_file_location("generate_map", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_modules_and_no_rooms_import_each_other_in_a_circle() -> None:
    code = generator()
    assert code.circles(code.imports()) == []
    assert code.circles(code.rooms()) == []


def test_the_map_of_the_architecture_is_the_map_of_the_code() -> None:
    code = generator()
    page = code.PAGE.read_text(encoding="utf-8")
    assert code.with_map(page) == page, "run: python docs/generate_map.py"


def imported(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after the statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_all_names_are_there_and_no_others() -> None:
    assert all(getattr(hostler, name) is not None for name in hostler.__all__)
    assert set(hostler.__all__) == set(hostler._HOME) <= set(dir(hostler))
    assert hostler.FilterSelection is Selection
    with pytest.raises(AttributeError, match="Enginee"):
        hostler.Enginee  # noqa: B018


def test_the_command_line_itself_imports_no_engine() -> None:
    program = "from importlib.metadata import entry_points; from hostler.core import cli; "
    built = imported(program + "cli.build_app(entry_points(group=cli.COMMAND_GROUP))")
    assert not {"numpy", "hostler.placement.decide.engine"} & built


def test_compute_needs_no_volume_engine_and_simulations_no_pictures() -> None:
    assert "hostler.placement.storage.engine" not in imported("from hostler import Engine")
    simulate = imported("from hostler.sim.cli import app")
    assert (
        not {"rich.progress", "hostler.sim.report.screen", "hostler.sim.pack.command", "bokeh", "matplotlib"} & simulate
    )


def test_what_is_imported_late_is_described_early(capsys: pytest.CaptureFixture[str]) -> None:
    for command, purpose in (("openb", "OpenB experiments"), ("pack", "equal bins")):
        for arguments in (["simulate", "--help"], ["simulate", command, "--help"]):
            main(arguments)
            assert purpose in " ".join(capsys.readouterr().out.replace("│", " ").split())
