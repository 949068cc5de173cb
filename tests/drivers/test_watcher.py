"""Strategies for Watcher, by Watcher's own base classes and model; skipped where Watcher is not installed."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("watcher", reason="Watcher (python-watcher) is not installed")

from watcher.common import exception, utils
from watcher.decision_engine.model import element, model_root

from hostler.drivers.openstack.watcher.strategies import Balancing, Consolidation, Maintenance

UUID = "00000000-0000-4000-8000-{:012}"


def model(*nodes: tuple[str, list[tuple[int, int]]], closed: str = "") -> Any:
    """Hosts of 8 CPUs and 16 GiB with guests of so many CPUs and MiB."""
    root, number = model_root.ModelRoot(), 0
    for name, guests in nodes:
        node = element.ComputeNode(
            uuid=name,
            hostname=name,
            vcpus=8,
            vcpu_ratio=1.0,
            memory=16_384,
            memory_ratio=1.0,
            memory_mb_reserved=0,
            disk=1000,
            disk_ratio=1.0,
            disk_gb_reserved=0,
            vcpu_reserved=0,
            status="disabled" if name == closed else "enabled",
            state="up",
        )
        root.add_node(node)
        for vcpus, memory in guests:
            number += 1
            instance = element.Instance(
                uuid=UUID.format(number),
                name=f"guest-{number}",
                vcpus=vcpus,
                memory=memory,
                disk=10,
                state="active",
                watcher_exclude=False,
                metadata={},
                project_id=UUID.format(999),
            )
            root.add_instance(instance)
            root.map_instance(instance, node)
    return root


def audited(kind: type[Any], root: Any, **parameters: Any) -> Any:
    """The solution of a strategy on a model."""
    strategy = kind(config=utils.Struct())
    strategy._compute_model = root
    strategy.input_parameters = utils.Struct(parameters)
    return strategy.execute()


def moves(solution: Any) -> list[tuple[str, str, str]]:
    """Guest, source and destination of the migrations."""
    told = [each["input_parameters"] for each in solution.actions if each["action_type"] == "migrate"]
    return [(each["resource_name"], each["source_node"], each["destination_node"]) for each in told]


def test_consolidation_empties_the_hosts_that_can_be() -> None:
    root = model(("a", [(4, 4096)]), ("b", [(2, 2048)]), ("c", [(2, 2048)]))
    solution = audited(Consolidation, root)
    assert len({source for _, source, _ in moves(solution)}) == 2
    assert {each.name: each.value for each in solution.efficacy_indicators}["released_compute_nodes_count"] == 2


def test_a_balanced_fleet_is_left_alone_and_another_is_evened_out() -> None:
    assert not moves(audited(Balancing, model(("a", [(1, 4096)]), ("b", [(1, 4096)]))))
    root = model(("a", [(1, 4096)] * 3), ("b", [(1, 4096)]))
    solution = audited(Balancing, root, most=0.5)
    assert [(source, target) for _, source, target in moves(solution)] == [("a", "b")]
    told = {each.name: each.value for each in solution.efficacy_indicators}
    assert told["standard_deviation_after_audit"] < told["standard_deviation_before_audit"]


def test_maintenance_closes_the_host_and_moves_its_guests() -> None:
    root = model(("a", [(4, 4096), (2, 2048)]), ("b", []), ("c", []), closed="c")
    solution = audited(Maintenance, root, maintenance_node="a")
    assert {target for _, _, target in moves(solution)} == {"b"}
    assert [each["action_type"] for each in solution.actions] == ["migrate", "migrate", "change_nova_service_state"]


def test_guests_that_the_audit_excludes_stay() -> None:
    root = model(("a", [(4, 4096)]), ("b", []))
    root.get_instance_by_uuid(UUID.format(1)).watcher_exclude = True
    assert not moves(audited(Maintenance, root, maintenance_node="a"))


def test_guests_that_are_pinned_to_a_zone_stay_in_it() -> None:
    """Host b has a guest of the same zone; c has one of another, and which zone d is in is not known."""
    root = model(("a", [(4, 4096)]), ("b", [(1, 1024)]), ("c", [(1, 1024)]), ("d", []))
    for number, zone in enumerate(("one", "one", "two"), 1):
        root.get_instance_by_uuid(UUID.format(number)).pinned_az = zone
    assert [target for _, _, target in moves(audited(Maintenance, root, maintenance_node="a"))] == ["b"]
    root.get_instance_by_uuid(UUID.format(2)).pinned_az = ""
    assert not moves(audited(Maintenance, root, maintenance_node="a"))


def test_a_host_that_is_not_there_is_an_error_of_watchers() -> None:
    with pytest.raises(exception.WatcherException, match="nope"):
        audited(Maintenance, model(("a", [])), maintenance_node="nope")
