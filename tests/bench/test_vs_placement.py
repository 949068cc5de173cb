"""bench/vs_placement.py without the real service: its cloud, its calls, what it says where there is no Placement."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler.bench import engine, placement_database, vs_placement
from hostler.bench.environments import ServiceUnavailable
from hostler.bench.placement_database import Kind, database
from hostler.bench.placement_fill import rows_of
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


def test_the_rows_of_a_cloud_have_parents_and_roots() -> None:
    cloud = [
        {"name": "a", "uuid": "u1", "parent": None, "inventories": {}, "traits": ["T"], "aggregates": ["g"]},
        {"name": "b", "uuid": "u2", "parent": "a", "inventories": {}, "traits": [], "aggregates": []},
        {"name": "c", "uuid": "u3", "parent": "b", "inventories": {}, "traits": [], "aggregates": []},
    ]
    ids = {"traits": {"T": 7}, "placement_aggregates": {"g": 9}, "resource_classes": {}}
    rows = rows_of({"nodes": cloud}, ids)
    assert [row[3:] for row in rows["resource_providers"]] == [(3, 1, None), (1, 1, 1), (1, 1, 2)]
    assert (rows["resource_provider_traits"], rows["resource_provider_aggregates"]) == ([(1, 7)], [(1, 9)])


def test_without_postgresql_it_is_said_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(placement_database, "PROGRAMS", ("hostler-has-no-such-program",))
    with pytest.raises(ServiceUnavailable, match="PostgreSQL is not installed"), database("postgresql", tmp_path):
        pass


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_real_service_has_the_same_candidates(kind: Kind, tmp_path: Path) -> None:
    rows, same = vs_placement.compare(None, kind, 20, True, (1,), 0.1)
    assert same
    assert all(row.placement.failed == row.hostler.failed == 0 for row in rows)
