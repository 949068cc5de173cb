"""Hooks of Cinder and Manila: pools of a request sorted, in the form that their own clients send and validate."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from hostler.core.http.hooks.config import HooksConfig
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.volume_ranking import RankVolume, rank_volume
from hostler.core.storage_commands import ReportVolumeBackends, VolumeBackendReport

from ..core.orders import order
from ..volumes.values import wish
from .test_hooks import ANSWER, post

CINDER, MANILA = "/scheduler/cinder/external", "/scheduler/manila/external"


def pools(**free: float) -> ServiceMachine:
    """Pools of 1,000 GiB, one a backend, named for their service."""
    made = ServiceMachine()
    reports = [
        VolumeBackendReport(
            host=f"{name}@lvm",
            capabilities={
                "pools": [{"pool_name": "p", "total_capacity_gb": 1000, "free_capacity_gb": gb, "ssd": name != "slow"}]
            },
            at=1.0,
        )
        for name, gb in free.items()
    ]
    made.apply(order(ReportVolumeBackends(reports=tuple(reports))))
    return made


def pool(name: str) -> str:
    return f"{name}@lvm#p"


def cinder_request(*names: str, size: int = 10, **more: Any) -> dict[str, Any]:
    properties = {"size": size, "availability_zone": None, "project_id": "p", "user_id": "u", "status": "creating"}
    kind = {"id": "t", "name": "fast", "extra_specs": {"ssd": "<is> True"}, "qos_specs_id": None}
    return {
        "spec": {"volume_id": "v", "volume_properties": properties, "volume_type": kind, "resource_backend": None},
        "context": {"user": "u", "project_id": "p", "request_id": "req-1"},
        "hosts": [{"host": pool(name)} for name in names],
        "weights": {pool(name): float(len(names) - position) for position, name in enumerate(names)},
        **more,
    }


async def test_cinder_gets_the_pools_of_its_request_best_first() -> None:
    status, answer = await post(CINDER, cinder_request("a", "b", "c"), on=pools(a=100, b=900, c=500, other=990))
    assert status == 200
    jsonschema.validate(answer, ANSWER)
    assert answer == {"hosts": [pool("b"), pool("c"), pool("a")]}


async def test_pools_that_are_refused_or_not_known_come_last_or_are_left_out() -> None:
    request = cinder_request("gone", "full", "slow", "a")
    on = pools(full=5, slow=900, a=100)
    assert (await post(CINDER, request, on=on))[1] == {"hosts": [pool("a"), pool("gone"), pool("full"), pool("slow")]}
    _, answer = await post(CINDER, request, on=on, config=HooksConfig(refuse=True))
    assert answer == {"hosts": [pool("a"), pool("gone")]}


async def test_cinder_keeps_its_own_order_where_no_pool_is_known() -> None:
    status, answer = await post(CINDER, cinder_request("x", "y"), on=pools(a=100))
    assert status == 400
    assert "keep your own order" in answer["error"]


@pytest.mark.parametrize("spec", [{}, {"volume_properties": {}}, {"volume_properties": {"size": "10"}}, []])
async def test_a_malformed_request_of_cinder_is_400(spec: Any) -> None:
    status, answer = await post(CINDER, {**cinder_request("a"), "spec": spec}, on=pools(a=100))
    assert status == 400
    assert answer["error"]


async def test_manila_gets_the_pools_of_its_shares() -> None:
    request = cinder_request("a", "b")
    spec = request["spec"]
    request["spec"] = {"share_properties": spec["volume_properties"], "share_type": spec["volume_type"]}
    assert await post(MANILA, request, on=pools(a=100, b=900)) == (200, {"hosts": [pool("b"), pool("a")]})


def test_named_pools_are_weighed_among_each_other_and_the_rest_is_accounted_for() -> None:
    state, alone = pools(a=100, b=900, full=5, other=990).state, pools(a=100, b=900, full=5).state
    asked = wish()
    names = (pool("b"), pool("gone"), pool("a"), pool("full"))
    answer = rank_volume(state, "@local", RankVolume(request=asked, pools=names))
    assert answer.pools == rank_volume(alone, "@local", RankVolume(request=asked)).pools
    assert (answer.passed, answer.unknown) == (2, [pool("gone")])
    assert set(answer.refused) == {pool("full")}
    assert len(rank_volume(state, "@local", RankVolume(request=asked, limit=1)).pools) == 1
