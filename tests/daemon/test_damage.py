"""Bits that flip while a daemon is down: what is damaged is said, all before it is kept, and the service goes on."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from hostler.core.engine_commands import AddHosts
from hostler.core.rpc.client import BlockingClient
from hostler.placement.types.errors import UnknownName
from tests.core.orders import hosts, uuid_of

from ..patience import HANG_SECONDS
from .processes import Daemon, metrics

SPEC = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1024}}
HTTP = ("--http", "127.0.0.1:0")


def place(client: BlockingClient, *numbers: int) -> None:
    for number in numbers:
        client.call("place", {"request": {"spec": SPEC, "instance_uuids": [uuid_of(number)]}})


def there(client: BlockingClient, *numbers: int) -> list[int]:
    """Those of the guests that the service has."""
    found = []
    for number in numbers:
        try:
            found.append(int(client.call("instance", {"uuid": uuid_of(number)}).uuid[-4:], 16))
        except UnknownName:
            continue
    return found


def flip(path: Path, at: float) -> None:
    """Flip a bit that far into a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("clean", [False, True])
def test_a_flipped_bit_in_the_journals_tail_costs_what_is_behind_it_and_no_more(tmp_path: Path, clean: bool) -> None:
    """After a kill the tail is in the write-ahead log, after a clean end in the file itself."""
    with Daemon(tmp_path, *HTTP) as daemon:
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(20)))
            place(client, *range(60))
        if clean:
            assert daemon.terminate() == 0
        else:
            daemon.kill()
        (tail,) = (tmp_path / "data").glob("journal-*.sqlite" if clean else "journal-*.sqlite-wal")
        flip(tail, 0.9)
        daemon.start()
        with daemon.client() as client:
            kept = there(client, *range(60))
            assert kept == list(range(len(kept)))
            assert 10 < len(kept) < 60
            assert client.call("status").sequence == len(kept) + 1
            assert metrics(daemon)["hostler_recovery_damages",] >= 1
            assert f"kept all commands up to {len(kept) + 1}" in daemon.log()
            place(client, *range(100, 110))
        assert list((tmp_path / "data").glob("damaged-*"))
        daemon.restart()
        with daemon.client() as client:
            assert there(client, *range(60), *range(100, 110)) == [*kept, *range(100, 110)]
            assert metrics(daemon)["hostler_recovery_damages",] == 0


@pytest.mark.parametrize("victim", ["manifest.json", "fleet"])
def test_a_flipped_bit_in_the_newest_snapshot_costs_nothing(tmp_path: Path, victim: str) -> None:
    with Daemon(tmp_path, *HTTP) as daemon:
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(20)))
            place(client, *range(5))
            client.call("snapshot")
            place(client, *range(5, 10))
            newest = client.call("snapshot")
            place(client, *range(10, 15))
        daemon.kill()
        flip(tmp_path / "data" / f"snapshot-{newest:016d}" / victim, 0.5)
        daemon.start()
        with daemon.client() as client:
            assert there(client, *range(15)) == list(range(15))
            assert client.call("capacity")["VCPU"].used == 15
            place(client, 15)
        assert metrics(daemon)["hostler_recovery_damages",] == 1
        assert f"snapshot-{newest:016d} is damaged" in daemon.log()
        assert (tmp_path / "data" / f"damaged-1-snapshot-{newest:016d}").is_dir()


def test_with_nothing_left_to_begin_with_the_start_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(20)))
            for first in (0, 5):
                place(client, *range(first, first + 5))
                client.call("snapshot")
            data = tmp_path / "data"
            for _ in range(600):  # the first segment is deleted beside the service
                if not (data / "journal-0000000000000001.sqlite").exists():
                    break
                time.sleep(0.1)
        daemon.kill()
        assert not (data / "journal-0000000000000001.sqlite").exists(), "compacted"
        for snapshot in data.glob("snapshot-*"):
            flip(snapshot / "state", 0.5)
        shutil.copytree(data, tmp_path / "before")
        with pytest.raises(AssertionError, match="put back a copy of the data folder"):
            daemon.start()
        assert daemon.process is not None
        assert daemon.process.wait(HANG_SECONDS) == 1
    assert "Traceback" not in daemon.log()
    before = {path.name: path.read_bytes() for path in (tmp_path / "before").rglob("*") if path.is_file()}
    assert {path.name: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
