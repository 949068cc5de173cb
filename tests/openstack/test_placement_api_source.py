"""Placement read over its API: what the service's own Placement API tells is what its state has."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from hostler.core.cli import main
from hostler.drivers.openstack.source.databases import Database, SourceFailed
from hostler.drivers.openstack.source.placement_api import PlacementApi, read_placement_api
from hostler.drivers.openstack.source.placement_database import read_placement
from tests.daemon.processes import Daemon

from .clouds import Cloud


def test_the_api_tells_what_the_database_has(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    root = cloud.host(1, seen=time.time(), traits=("CUSTOM_FAST",))
    gpu = "eeeeeeee-0000-4000-8000-000000000001"
    aggregate = "aaaaaaaa-0000-4000-8000-000000000001"
    nested = cloud.provider(gpu, "cmp1_gpu", {"CUSTOM_GPU": {"total": 4}}, parent=root, aggregates=(aggregate,))
    cloud.allocate(cloud.instance(1, 1, root), nested, {"CUSTOM_GPU": 1})
    (tmp_path / "service").mkdir()
    assert not main(["import", "openstack", *cloud.options, "--data", str(tmp_path / "service" / "data")])
    options = ("--placement", "127.0.0.1:0", "--auth", "none", "--insecure")
    with Daemon(tmp_path / "service", *options) as daemon:
        told = read_placement_api(PlacementApi(daemon.ready[1]))
    kept = read_placement(Database("placement", cloud.url("placement")))
    for provider in (*told.providers.values(), *kept.providers.values()):
        provider.generation = 0
    assert told.providers == kept.providers
    assert told.consumers == kept.consumers


@pytest.mark.parametrize(
    ("status", "problem"), [(401, "does not know the token"), (500, "answered 500"), (200, "answered no JSON")]
)
def test_an_answer_that_is_none_is_one_clear_error(status: int, problem: str) -> None:
    client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(status, text="<html>")))
    with pytest.raises(SourceFailed, match=problem):
        read_placement_api(PlacementApi("http://placement", client=client))


def test_an_older_placement_is_asked_by_an_older_microversion() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["openstack-api-version"])
        if asked[-1] == "placement 1.38":
            return httpx.Response(406)
        empty: dict[str, list[str]] = {"resource_classes": [], "traits": [], "resource_providers": []}
        return httpx.Response(200, json=empty)

    client = httpx.Client(transport=httpx.MockTransport(answer))
    assert read_placement_api(PlacementApi("http://placement", client=client)).providers == {}
    assert asked == ["placement 1.38", *["placement 1.28"] * 3]
