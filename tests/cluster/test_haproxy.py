"""The example configuration of HAProxy sends writes to the member that leads, and reads to every one."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest

from hostler.bench.free_ports import free_ports
from hostler.core.rpc.blocking_client import BlockingClient
from hostler.placement.types.errors import HostlerError

from ..daemon.processes import http_of
from ..etcd.servers import NEEDS_ETCD, EtcdServers
from .members import Members, running, until

HAPROXY: Final = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
EXAMPLE: Final = Path(__file__).parents[2] / "packaging" / "haproxy.cfg"

pytestmark = [
    NEEDS_ETCD,
    pytest.mark.skipif(HAPROXY is None, reason="needs HAProxy (Debian: haproxy)"),
    pytest.mark.xdist_group("etcd"),
]


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    """Two members with Placement."""
    (tmp_path / "etcd").mkdir()
    with EtcdServers(tmp_path / "etcd", 1) as etcd:
        rest = '[rpc]\nauth = "none"\n[placement]\nlisten = "127.0.0.1:0"\nauth = "none"\n'
        with running(Members(tmp_path, etcd, rest=rest)) as both:
            yield both


@contextmanager
def balanced(members: Members, folder: Path) -> Iterator[tuple[str, str]]:
    """HAProxy before members, as the example has it: URL of Placement, and address of RPC."""
    assert HAPROXY is not None
    placement, rpc = free_ports(2)
    text = re.sub(r"bind :8778", f"bind 127.0.0.1:{placement}", EXAMPLE.read_text(encoding="utf-8"))
    text = re.sub(r"bind :7777", f"bind 127.0.0.1:{rpc}", text).replace(" port 9464", "")
    text = re.sub(r"    server c .*\n", "", text)
    for name, daemon in members.daemons.items():
        checked = f"port {urlsplit(http_of(daemon)).port} addr 127.0.0.1"
        text = re.sub(
            rf"server {name} \S+:8778", f"server {name} {daemon.ready[1].removeprefix('http://')} {checked}", text
        )
        text = re.sub(rf"server {name} \S+:7777", f"server {name} unix@{daemon.folder}/rpc.sock {checked}", text)
    (folder / "haproxy.cfg").write_text(text)
    with subprocess.Popen([HAPROXY, "-db", "-q", "-f", str(folder / "haproxy.cfg")]) as process:
        try:
            yield f"http://127.0.0.1:{placement}/resource_providers", f"tcp:127.0.0.1:{rpc}"
        finally:
            process.kill()


def test_a_write_at_a_member_that_follows_is_redirected_whoever_leads_meanwhile(members: Members) -> None:
    until(lambda: all(line.alive for line in members.lines()))
    for number in range(2):
        leader = members.leader()
        at_leader, at_follower = (members.daemons[name].ready[1] for name in (leader, {"a": "b", "b": "a"}[leader]))

        def told(url: str = at_follower, expected: str = at_leader) -> bool:
            answer = httpx.post(f"{url}/resource_providers?a=b%2Fc", json={"name": "none"})
            return answer.status_code == 307 and answer.headers["location"] == f"{expected}/resource_providers?a=b%2Fc"

        until(told)
        with httpx.Client(follow_redirects=True, headers={"openstack-api-version": "placement 1.20"}) as http:
            made = http.post(f"{at_follower}/resource_providers", json={"name": f"n{number}"})
            assert made.status_code == 200
            assert made.json()["name"] == f"n{number}"
        members.settle()
        assert len(httpx.get(f"{at_follower}/resource_providers").json()["resource_providers"]) == number + 1
        with members.client() as client:
            client.call("lead")


def test_a_write_whose_leader_changes_between_redirects_is_carried_out_once(members: Members) -> None:
    until(lambda: all(line.alive for line in members.lines()))
    leader = members.leader()
    follower = {"a": "b", "b": "a"}[leader]
    at_leader, at_follower = (members.daemons[name].ready[1] for name in (leader, follower))
    body = {"name": "moved"}
    with httpx.Client(headers={"openstack-api-version": "placement 1.20"}) as http:

        def redirected(url: str, to: str) -> str:
            answer = http.post(f"{url}/resource_providers", json=body)
            found = answer.headers.get("location", "") if answer.status_code == 307 else ""
            return found if found.startswith(to) else ""

        location = until(lambda: redirected(at_follower, at_leader))
        with members.client() as client:
            assert client.call("lead") == follower
        assert members.leader(among=[follower]) == follower
        back = until(lambda: redirected(location.removesuffix("/resource_providers"), at_follower))
        made = http.post(back, json=body)
        assert made.status_code == 200
        assert http.post(back, json=body).status_code == 409
        members.settle()
        for url in (at_leader, at_follower):
            found = http.get(f"{url}/resource_providers?name=moved").json()["resource_providers"]
            assert [each["uuid"] for each in found] == [made.json()["uuid"]]


def test_writes_reach_the_member_that_leads_and_reads_any(members: Members, tmp_path: Path) -> None:
    with balanced(members, tmp_path) as (providers, rpc), httpx.Client() as http:

        def writes(name: str) -> bool:
            try:
                return http.post(providers, json={"name": name}).status_code in (201, 409)
            except httpx.TransportError:
                return False

        def names() -> set[str]:
            try:
                return {each["name"] for each in http.get(providers).json()["resource_providers"]}
            except (httpx.TransportError, ValueError, KeyError):
                return set()

        def hand_over() -> str:
            try:
                with BlockingClient(rpc) as client:
                    return str(client.call("lead"))
            except HostlerError:  # HAProxy has not found the leader yet
                return ""

        until(lambda: writes("n1"))
        until(lambda: all(line.alive for line in members.lines()))
        until(hand_over)
        until(lambda: writes("n2"))
        members.daemons[members.leader()].kill()
        until(lambda: writes("n3"))
        until(lambda: names() >= {"n1", "n2", "n3"})
