"""What a name or a command imports: no more than it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hostler
from hostler.core.cli import main
from hostler.placement.filters.base import Selection


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
    assert not {"numpy", "hostler.placement.decide.engine"} & imported(
        "from hostler.core.cli import build_app; build_app()"
    )


def test_compute_needs_no_volume_engine_and_simulations_no_pictures() -> None:
    assert "hostler.placement.storage.engine" not in imported("from hostler import Engine")
    simulate = imported("from hostler.sim.cli import app")
    assert (
        not {"rich.progress", "hostler.sim.report.screen", "hostler.sim.pack.command", "plotly", "matplotlib"}
        & simulate
    )


def test_what_is_imported_late_is_described_early(capsys: pytest.CaptureFixture[str]) -> None:
    for command, purpose in (("openb", "OpenB experiments"), ("pack", "equal bins")):
        for arguments in (["simulate", "--help"], ["simulate", command, "--help"]):
            main(arguments)
            assert purpose in " ".join(capsys.readouterr().out.replace("│", " ").split())
