"""bench/vs_placement.py without the real service: its cloud, its calls, what it says where there is no Placement."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler.bench import engine, vs_placement
from hostler.bench.placement_services import hostler
from hostler.bench.placement_workload import OPERATIONS, Client, load, nodes


def test_the_cloud_has_parents_first_and_is_the_same_each_time() -> None:
    cloud = list(nodes(3, nested=True))
    assert len(cloud) == 3 * 5
    names = [node.name for node in cloud]
    assert all(node.parent is None or names.index(node.parent) < names.index(node.name) for node in cloud)
    assert cloud == list(nodes(3, nested=True))


def test_every_operation_succeeds_on_hostler() -> None:
    with hostler() as service:
        client = Client(service.port, "seed")
        assert load(client, nodes(20, nested=False)) == 20
        cloud = list(nodes(20, nested=False))
        assert all(operation(client, cloud, False) for operation in OPERATIONS.values())
        assert all(vs_placement.candidates(service, nested=False))
        assert service.cpu_seconds() > 0


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "thesis.txt"
    kept.write_text("years of work")
    assert engine.main([f"--venv={tmp_path}"], vs_placement.app) == 3
    assert kept.exists()
    assert "is no virtual environment" in capsys.readouterr().err
