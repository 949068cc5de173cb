"""The operator's procedures, as docs/operation.md has them: back up, restore, upgrade and downgrade, audit anew."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from hostler.core.engine_commands import AddHosts
from tests.core.orders import hosts

from ..patience import HANG_SECONDS
from .processes import HOSTLER, Daemon
from .test_damage import place, there


def hostler(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HOSTLER), *arguments], capture_output=True, text=True, timeout=HANG_SECONDS)


def test_back_up_a_running_service_restore_it_and_refuse_a_newer_format(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "backup"
    with Daemon(tmp_path) as daemon:
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(5)))
            place(client, *range(10))
            done = hostler("backup", str(copy), "--server", daemon.address, "--json")
            assert json.loads(done.stdout)["sequence"] == 11, done.stderr
            place(client, *range(10, 20))
        assert daemon.terminate() == 0

        # A newer Hostler has written the folder: the older one refuses it, and leaves it as it is.
        segment = max(data.glob("journal-*.sqlite"))
        changed = bytearray(segment.read_bytes())
        changed[60:64] = (99).to_bytes(4, "big")  # SQLite's user_version
        segment.write_bytes(changed)
        refused = hostler("serve", "--rpc", daemon.address, "--data", str(data))
        assert refused.returncode == 1
        assert "has format 99" in refused.stderr
        assert segment.read_bytes()[60:64] == changed[60:64]

        # Downgrade: put the backup back that was made before the upgrade.
        data.rename(tmp_path / "newer")
        shutil.copytree(copy, data)
        daemon.start()
        with daemon.client() as client:
            assert there(client, *range(20)) == list(range(10))
            place(client, 30)
        daemon.restart()
        with daemon.client() as client:
            assert there(client, 5, 30) == [5, 30]


def test_the_audit_log_is_made_anew_from_the_journal_and_completed_after_a_kill(tmp_path: Path) -> None:
    log = tmp_path / "data" / "audit.jsonl"
    with Daemon(tmp_path) as daemon:
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(5)))
            place(client, *range(20))
        daemon.kill()
        lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
        log.write_bytes(b"".join(lines[:5]) or b"")
        daemon.start()
        with daemon.client() as client:
            place(client, 50)
        assert daemon.terminate() == 0
    written = [json.loads(line) for line in log.read_text().splitlines()]
    if lines:
        assert [line["sequence"] for line in written] == list(range(1, 23))
    anew = hostler("audit", str(tmp_path / "data"))
    assert anew.returncode == 0, anew.stderr
    made = [json.loads(line) for line in anew.stdout.splitlines()]
    assert [line["sequence"] for line in made] == list(range(1, 23))
    assert made[-len(written) :] == written
    later = hostler("audit", str(tmp_path / "data"), "--after", "20")
    assert [json.loads(line)["sequence"] for line in later.stdout.splitlines()] == [21, 22]
