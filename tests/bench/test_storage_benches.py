"""bench/storage.py, and bench/vs_cinder.py without Cinder: what they print, and what they say where Cinder can't be
had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hostler.bench import engine, storage, vs_cinder
from hostler.placement.storage.engine import VolumeEngine
from hostler.placement.storage.pools.policy import VolumePolicy
from hostler.placement.storage.pools.reports import BackendReport
from hostler.placement.storage.pools.request import VolumeRequest, VolumeSpec, VolumeType


class Stand:
    """Answers as the driver does, by Hostler itself; ``wrong`` is the number of an answer that it gets wrong."""

    def __init__(self, wrong: int = -1) -> None:
        self.wrong = wrong
        self.placed = 0
        self.reports: list[dict[str, Any]] = []

    def ask(self, do: str, **command: Any) -> dict[str, Any]:
        command = json.loads(json.dumps(command))
        return dict(getattr(self, do)(**command))

    def pools(self, reports: list[dict[str, Any]]) -> dict[str, Any]:
        self.reports = reports
        return {}

    def policy(self, filters: list[str], weighers: list[str]) -> dict[str, Any]:
        options = {"scheduler_default_filters": filters, "scheduler_default_weighers": weighers}
        self.engine = VolumeEngine(policy=VolumePolicy.from_mapping({"storage": options}))
        self.engine.pools.load(BackendReport(at=1_000.0, **each) for each in self.reports)
        return {"pools": len(self.engine.pools)}

    def place(self, request: dict[str, Any]) -> dict[str, Any]:
        self.placed += 1
        spec = VolumeSpec(size_gb=request["size"], volume_type=VolumeType(extra_specs=request["extra_specs"]))
        chosen = self.engine.place(VolumeRequest(spec=spec)).selected.backend_id
        return {"backend": None if self.placed - 1 == self.wrong else chosen, "cpu": 0.5}


@pytest.mark.parametrize("functions", [False, True])
@pytest.mark.parametrize(("wrong", "differences"), [(-1, []), (2, [2])])
def test_every_answer_is_compared(functions: bool, wrong: int, differences: list[int]) -> None:
    found = vs_cinder.compare(Stand(wrong), 30, 5, functions=functions)  # type: ignore[arg-type]  # answers alike
    assert found.differences == differences
    assert found.cinder_ms == 500.0
    assert found.steady_ratio > 0


@pytest.mark.parametrize("functions", [False, True])
def test_the_storage_bench_tells_what_it_measured(functions: bool, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--functions"] if functions else []
    assert engine.main(["--pools", "40", "--requests", "30", "--json", *flags], storage.app) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pools"], told["placed"], told["functions"]) == (40, 30, functions)
    assert engine.main(["--pools", "40", "--requests", "30", *flags], storage.app) == 0
    assert "30 of 30 placed" in capsys.readouterr().out


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "thesis.txt"
    kept.write_text("years of work")
    assert engine.main([f"--venv={tmp_path}"], vs_cinder.app) == 3
    assert kept.exists()
    assert "is no virtual environment" in capsys.readouterr().err


def test_an_environment_that_cannot_be_made_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert engine.main([f"--venv={tmp_path / 'venv'}"], vs_cinder.app) == 3
    assert "could not be made" in capsys.readouterr().err
