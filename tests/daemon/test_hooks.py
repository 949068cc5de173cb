"""The hooks of a running service, on the state that its other interfaces change."""

from __future__ import annotations

from pathlib import Path

import httpx

from hostler.core.engine_commands import AddHosts

from ..core.orders import hosts, uuid_of
from ..http.test_hooks import nova_request
from .processes import Daemon

SPEC = {"flavor": {"name": "small", "vcpus": 8, "memory_mb": 1_024}}


def test_hooks_see_what_is_placed_and_held_over_rpc_and_holds_outlast_a_kill(tmp_path: Path) -> None:
    config = """
[rpc]
auth = "none"
[hooks]
listen = "127.0.0.1:0"
prefix = "/hostler"
"""
    with Daemon(tmp_path, config=config) as daemon:
        url = f"{daemon.ready[-1]}/scheduler/nova/external"
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(3, cpu_allocation_ratio=1.0)))
            held = client.call(
                "hold", {"request": {"spec": SPEC, "instance_uuids": [uuid_of(1)]}, "expires_in": 3_600.0}
            )
            first = held.selected.host
            answer = httpx.post(url, json=nova_request("node-0", "node-1", "node-2"))
            assert answer.status_code == 200
            assert answer.json()["hosts"][-1] == first
        daemon.restart()
        url = f"{daemon.ready[-1]}/scheduler/nova/external"
        with daemon.client() as client:
            ranking = client.call("rank", {"request": {"spec": SPEC}, "hosts": [first, "nowhere"]})
            assert [each.host for each in ranking.hosts] == [first]
            assert ranking.unknown == ["nowhere"]
            assert client.call("confirm_hold", {"uuids": [uuid_of(1)]}) == 1
        assert httpx.post(url, content=b"{").status_code == 400
        assert daemon.terminate() == 0
