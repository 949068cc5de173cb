"""The example unit under a real systemd: a guardian ends the lease of a member that dies, which is started again."""

from __future__ import annotations

import signal
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from ..daemon.processes import HOSTLER
from ..etcd.servers import NEEDS_ETCD, EtcdServers
from .members import until
from .systemd import Systemd, cgroups

UNIT = Path(__file__).parents[2] / "packaging" / "hostler.service"
LONG = 3_600
"""Seconds of a lease that does not end during a test."""

pytestmark = [
    NEEDS_ETCD,
    pytest.mark.skipif(cgroups() is None, reason="needs systemd, unshare, cgroups of the second version, and root"),
    pytest.mark.xdist_group("etcd"),
]


def changes(folder: Path, etcd: EtcdServers, more: str = "") -> str:
    """A drop-in that has the unit run this Hostler, as a member with a long lease."""
    config = folder / "hostler.toml"
    config.write_text(
        f'[rpc]\nlisten = ["unix:{folder}/rpc.sock"]\n[data]\nstore = "etcd"\nfolder = "{folder}/data"\n'
        f'[data.etcd]\nendpoints = ["{etcd.endpoints[0]}"]\nprefix = "/{folder.name}/"\n'
        f'[cluster]\nname = "a"\nlease_seconds = {LONG}\n'
    )
    return (
        "[Service]\nUser=root\nProtectHome=no\nPrivateTmp=no\nProtectSystem=no\nExecStartPre=\nExecStart=\n"
        f"ExecStart={sys.executable} {HOSTLER} serve --config {config}\nStandardError=append:{folder}/log\n{more}"
    )


def alive(etcd: EtcdServers, folder: Path) -> str:
    """The lease of the member, empty if it has none."""
    key = f"/{folder.name}/alive/a".encode()
    found = etcd.ask("/v3/kv/range", {"key": b64encode(key).decode()})
    kvs = found.get("kvs")
    return str(kvs[0]["lease"]) if isinstance(kvs, list) else ""


@pytest.mark.parametrize("ends", ["kill", pytest.param("watchdog", marks=pytest.mark.soak)])
def test_a_member_that_ends_unexpectedly_has_its_lease_ended_and_is_started_again(ends: str, tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    with EtcdServers(tmp_path / "etcd", 1) as etcd:
        more = "WatchdogSec=2\n" if ends == "watchdog" else ""
        with Systemd(tmp_path, UNIT, changes(tmp_path, etcd, more)) as systemd:
            lease = until(lambda: alive(etcd, tmp_path))
            until(lambda: systemd.main("guardian_process"))
            first = systemd.main("serve")
            systemd.kill(first, signal.SIGKILL if ends == "kill" else signal.SIGSTOP)
            until(lambda: alive(etcd, tmp_path) != lease)
            until(lambda: systemd.main("serve") not in (0, first))
            assert "Unknown key" not in systemd.log()
