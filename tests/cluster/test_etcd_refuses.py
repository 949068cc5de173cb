"""Members that start while etcd is full, or does not take them for its user, or where TLS with it fails: they say so,
and go on once that is mended."""

from __future__ import annotations

import signal
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from hostler.placement.types.errors import HostlerError

from ..daemon.processes import HOSTLER, Daemon, http_of, metrics
from ..etcd.servers import NEEDS_ETCD, EtcdServers
from .members import until

pytestmark = [NEEDS_ETCD, pytest.mark.xdist_group("etcd")]


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServers]:
    with EtcdServers(tmp_path_factory.mktemp("etcd"), 1, quota=6 << 20) as servers:
        yield servers


@contextmanager
def begun(folder: Path, etcd: EtcdServers, more: str = "", scheme: str = "http") -> Iterator[Daemon]:
    """A member that has been started, and is not ready yet."""
    endpoint = etcd.endpoints[0].replace("http:", f"{scheme}:")
    config = f'[data]\nstore = "etcd"\n[data.etcd]\nendpoints = ["{endpoint}"]\nprefix = "/{folder.name}/"\n{more}\n'
    config += '[cluster]\nname = "a"\n'
    daemon = Daemon(folder, "--http", "127.0.0.1:0", config=config)
    command = [str(HOSTLER), "serve", "--rpc", daemon.address, "--data", str(folder / "data")]
    with (folder / "log").open("ab") as log:
        daemon.process = subprocess.Popen(
            [*command, "--config", str(folder / "config.toml"), "--http", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield daemon
    finally:
        daemon.kill()
        assert daemon.process.stdout is not None
        daemon.process.stdout.close()


def troubles(daemon: Daemon) -> set[str]:
    """The reasons in its metrics; on a busy machine an attempt may end for lack of time, and the next one tell more."""
    return {name[1] for name, value in metrics(daemon).items() if name[0] == "hostler_etcd_trouble" and value}


def check_waits(daemon: Daemon, reason: str, text: str) -> None:
    """It runs, is not ready, and names the reason in one line of its log, in /readyz and in its metrics."""
    until(lambda: any("this member waits for etcd" in line and text in line for line in daemon.log().splitlines()))
    until(lambda: text in httpx.get(f"{http_of(daemon)}/readyz").json().get("trouble", ""))
    answer = httpx.get(f"{http_of(daemon)}/readyz")
    assert answer.status_code == 503
    assert answer.json()["state"] == "recovering"
    until(lambda: troubles(daemon) == {reason})
    assert "Traceback" not in daemon.log()


def check_goes_on(daemon: Daemon) -> None:
    """It becomes ready by itself, and tells of no trouble any more."""
    process = daemon.process
    assert process is not None
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready"), daemon.log()[-2000:]
    until(lambda: httpx.get(f"{http_of(daemon)}/readyz").status_code == 200)
    until(lambda: "trouble" not in httpx.get(f"{http_of(daemon)}/readyz").json())
    until(lambda: not troubles(daemon))
    with daemon.client() as client:
        client.call("add_hosts", {"hosts": [{"host": "h0", "vcpus_total": 8, "total_usable_ram_mb": 8_192}]})


def test_a_member_that_starts_while_etcd_is_full_waits_until_there_is_room(tmp_path: Path, etcd: EtcdServers) -> None:
    fill(etcd)
    try:
        with begun(tmp_path, etcd) as daemon:
            check_waits(daemon, "full", "etcd is full")
            make_room(etcd)
            check_goes_on(daemon)
    finally:
        make_room(etcd)


def test_a_member_with_a_wrong_password_waits_for_the_right_one_as_it_starts_and_as_it_runs(
    tmp_path: Path, etcd: EtcdServers
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong")
    etcd.ask("/v3/auth/user/add", {"name": "root", "password": "secret"})
    etcd.ask("/v3/auth/role/add", {"name": "root"})
    etcd.ask("/v3/auth/user/grant", {"user": "root", "role": "root"})
    etcd.ask("/v3/auth/enable", {})
    try:
        with begun(tmp_path, etcd, f'user = "root"\npassword_file = "{password}"') as daemon:
            check_waits(daemon, "denied", "etcd denies it")
            password.write_text("secret")
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
            check_goes_on(daemon)
            change = {"name": "root", "password": "another"}
            token = etcd.ask("/v3/auth/authenticate", change | {"password": "secret"})["token"]
            headers = {"authorization": str(token)}
            httpx.post(f"{etcd.endpoints[0]}/v3/auth/user/changepw", json=change, headers=headers).raise_for_status()
            until(lambda: troubles(daemon) == {"denied"})
            until(lambda: "etcd denies it" in httpx.get(f"{http_of(daemon)}/readyz").json().get("trouble", ""))
            with daemon.client() as client:
                assert [line.node for line in client.call("hosts")] == ["h0"]
                with pytest.raises(HostlerError):
                    client.call("remove_host", {"name": "h0"}, within=2)
            password.write_text("another")
            until(lambda: "denied" not in troubles(daemon))
            until(lambda: httpx.get(f"{http_of(daemon)}/readyz").status_code == 200)
            with daemon.client() as client:
                client.call("remove_host", {"name": "h0"})
            assert "Traceback" not in daemon.log()
    finally:
        for password_now in ("secret", "another"):
            found = etcd.ask("/v3/auth/authenticate", {"name": "root", "password": password_now})
            token = found.get("token", "")
            httpx.post(f"{etcd.endpoints[0]}/v3/auth/disable", json={}, headers={"authorization": str(token)})


def test_a_member_whose_etcd_speaks_no_tls_waits(tmp_path: Path, etcd: EtcdServers) -> None:
    with begun(tmp_path, etcd, scheme="https") as daemon:
        check_waits(daemon, "unavailable", "SSL")


def fill(servers: EtcdServers) -> None:
    for number in range(40):
        key, value = b64encode(b"fill%d" % number).decode(), b64encode(bytes(400_000)).decode()
        if "error" in servers.ask("/v3/kv/put", {"key": key, "value": value}):
            return
    raise AssertionError("it did not become full")


def make_room(servers: EtcdServers) -> None:
    """Delete, compact, defragment and disarm the alarm, as operators do."""
    ends = {"key": b64encode(b"fill").decode(), "range_end": b64encode(b"film").decode()}
    found: Any = servers.ask("/v3/kv/deleterange", ends)["header"]
    servers.ask("/v3/kv/compaction", {"revision": found["revision"], "physical": True})
    servers.ask("/v3/maintenance/defragment", {})
    alarms: Any = servers.ask("/v3/maintenance/alarm", {"action": "GET"}).get("alarms", [])
    for alarm in alarms:
        servers.ask("/v3/maintenance/alarm", {"action": "DEACTIVATE"} | alarm)
