"""A member whose state is not the leader's: it stops, says so, and its next start takes up the leader's state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostler.core import engine_commands as commands
from hostler.core.journal.snapshots import SnapshotFolder, write_folder
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.tenancy.tenants import LOCAL
from hostler.core.writer.idempotent_answers import Answers
from hostler.placement.types.host import Host

from ..daemon.processes import metrics
from ..etcd.servers import NEEDS_ETCD, EtcdServers
from .members import Members, running, until

pytestmark = [NEEDS_ETCD, pytest.mark.xdist_group("etcd")]

EVERY = 4


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    folder = tmp_path_factory.mktemp("differing")
    (folder / "etcd").mkdir()
    with (
        EtcdServers(folder / "etcd", 1) as etcd,
        running(Members(folder, etcd, more=f"digest_every = {EVERY}")) as both,
    ):
        until(lambda: all(line.alive for line in both.lines()))
        yield both


def add_hosts(members: Members, first: str, count: int) -> None:
    with members.client() as client:
        for number in range(count):
            client.call(
                "add_hosts", {"hosts": [{"host": f"{first}{number}", "vcpus_total": 8, "total_usable_ram_mb": 8_192}]}
            )


def hosts_of(members: Members, name: str) -> list[str]:
    with members.daemons[name].client() as client:
        return sorted(line.node for line in client.call("hosts"))


def give_other_snapshot(folder: Path, sequence: int) -> None:
    """Put an intact snapshot into a data folder whose state is not that of the journal's commands."""
    machine = ServiceMachine()
    hosts = (Host(host="of-another-state", vcpus_total=8, total_usable_ram_mb=8_192),)
    machine.apply_batch([Order(1.0, LOCAL, commands.AddHosts(hosts=hosts))])

    def write(path: Path) -> None:
        machine.save(path)
        Answers[Any](0, machine.encode_result, machine.decode_result).save(path)

    write_folder(SnapshotFolder(folder).path(sequence), sequence, write)


def test_a_follower_whose_state_differs_stops_and_takes_up_the_leaders_state_at_its_next_start(
    members: Members,
) -> None:
    leader = members.leader()
    (follower,) = set(members.daemons) - {leader}
    daemon = members.daemons[follower]
    add_hosts(members, "before-", 2)
    sequence = members.settle()
    daemon.kill()
    give_other_snapshot(daemon.folder / "data", sequence)
    daemon.start()
    process = daemon.process
    assert process is not None
    add_hosts(members, "while-", EVERY)
    until(lambda: process.poll() is not None)
    assert process.returncode == 1
    log = daemon.log()
    assert "differs from the leader's" in log
    assert f"snapshot {sequence} is now damaged-1-snapshot-{sequence:016d}" in log
    assert '"critical"' in log
    assert "\nhostler: " in log
    assert members.leader() == leader
    add_hosts(members, "after-", 1)
    daemon.start()
    members.settle()
    assert hosts_of(members, follower) == hosts_of(members, leader)
    assert len(hosts_of(members, leader)) == 3 + EVERY
    until(lambda: members.daemons[follower].process.poll() is None)  # type: ignore[union-attr]  # it was started
    assert metrics(daemon)["hostler_cluster_differences",] == 1
    assert metrics(members.daemons[leader])["hostler_cluster_differences",] == 0
