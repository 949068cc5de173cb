"""``hostler drift``: a cloud's databases compared with a service that was started from them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostler.core.cli import main
from tests.daemon.processes import Daemon

from .clouds import Cloud, instance_uuid, node_uuid

GPU = "eeeeeeee-0000-4000-8000-000000000001"


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """Two hosts in an aggregate, of which one has a nested provider, and two guests."""
    cloud = Cloud(tmp_path)
    now = time.time()
    first, second = cloud.host(1, seen=now, traits=("CUSTOM_FAST",)), cloud.host(2, seen=now)
    gpu = cloud.provider(GPU, "cmp1_gpu", {"CUSTOM_GPU": {"total": 4}}, parent=first)
    cloud.allocate(cloud.instance(1, 1, first), gpu, {"CUSTOM_GPU": 1})
    cloud.instance(2, 2, second)
    uuid = cloud.aggregate(1, "cmp1", "cmp2", availability_zone="az1")
    cloud.change(cloud.placement, "INSERT INTO placement_aggregates (id, uuid) VALUES (1, ?)", uuid)
    for provider in (first, second):
        cloud.write(cloud.placement, "resource_provider_aggregates", resource_provider_id=provider, aggregate_id=1)
    return cloud


@pytest.fixture
def daemon(cloud: Cloud, tmp_path: Path) -> Iterator[Daemon]:
    """A service on what was imported."""
    (tmp_path / "service").mkdir()
    assert not main(["import", "openstack", *cloud.options, "--data", str(tmp_path / "service" / "data")])
    with Daemon(tmp_path / "service") as started:
        yield started


def drift(cloud: Cloud, daemon: Daemon, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["drift", *cloud.options, "--server", daemon.address, *more])
    return code or 0, capsys.readouterr().out


def found(cloud: Cloud, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> dict[tuple[str, str, str], Any]:
    code, said = drift(cloud, daemon, capsys, "--json")
    lines = json.loads(said)
    assert code == (1 if lines else 0)
    return {(each["name"], each["what"], each["detail"]): (each["there"], each["here"]) for each in lines}


def test_what_was_imported_does_not_differ(cloud: Cloud, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert drift(cloud, daemon, capsys) == (0, "3 providers and 2 consumers compared: no difference\n")


def test_each_kind_of_difference_is_named(cloud: Cloud, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    change = cloud.change
    change(cloud.placement, "UPDATE inventories SET allocation_ratio = 2.0 WHERE id = 1")
    change(cloud.placement, "UPDATE inventories SET total = 8 WHERE resource_provider_id = 3")
    change(cloud.placement, "DELETE FROM resource_provider_traits WHERE resource_provider_id = 2")
    change(cloud.placement, "DELETE FROM allocations WHERE consumer_id = ?", instance_uuid(2))
    change(cloud.placement, "UPDATE allocations SET used = 2 WHERE resource_provider_id = 3")
    change(cloud.placement, "DELETE FROM resource_provider_aggregates WHERE resource_provider_id = 2")
    change(cloud.api, "UPDATE aggregate_metadata SET value = 'az2'")
    change(cloud.api, "DELETE FROM aggregate_hosts WHERE host = 'cmp2'")
    cloud.host(3)
    aggregate = "aaaaaaaa-0000-4000-8000-000000000001"
    assert found(cloud, daemon, capsys) == {
        ("cmp1", "allocation_ratio", "VCPU"): (2.0, 4.0),
        ("cmp1_gpu", "total", "CUSTOM_GPU"): (8, 4),
        ("cmp2", "trait", "OWNER_NOVA"): (None, "present"),
        ("cmp2", "aggregate", aggregate): (None, "present"),
        (node_uuid(3), "provider", ""): ("cmp3", None),
        (node_uuid(3), "compute node", ""): ("cmp3", None),
        (instance_uuid(1), "allocation of", GPU): ({"CUSTOM_GPU": 2}, {"CUSTOM_GPU": 1}),
        (instance_uuid(2), "allocation of", node_uuid(2)): (None, {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20}),
        (aggregate, "metadata", "availability_zone"): ("az2", "az1"),
        (aggregate, "host", "cmp2"): (None, "present"),
    }


def test_what_the_service_placed_since_is_a_difference_that_is_printed(
    cloud: Cloud, daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    with daemon.client() as client:
        client.call("release", {"uuids": [instance_uuid(2)]})
    code, said = drift(cloud, daemon, capsys)
    held = "DISK_GB=20, MEMORY_MB=2048, VCPU=2"
    assert code == 1
    assert said.splitlines() == [
        f"consumer {instance_uuid(2)}: allocation of {node_uuid(2)}: {held} in OpenStack, absent here",
        "3 providers and 2 consumers compared: 1 differences",
    ]


def test_a_source_that_fails_is_told_apart_from_a_difference(
    cloud: Cloud, daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drift", "--placement", cloud.url("cell"), "--server", daemon.address]) == 4
    assert "no table resource_providers" in capsys.readouterr().err
