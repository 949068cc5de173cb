"""kill -9 at any moment under load: every acknowledged command is there afterwards, none twice, none half."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from hostler.core.engine_commands import AddHosts
from hostler.core.rpc.client import BlockingClient
from hostler.placement.types.errors import UnknownName
from tests.core.orders import hosts, uuid_of

from ..seeds import seeds
from .crash_load import CrashLoad
from .processes import Daemon

SPEC = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1024}}
CONFIG = "[data]\nsnapshot_every = 150\n"
UUIDS = 100_000_000
"""Numbers of uuids of one client, 10,000 a round."""


class Load(CrashLoad[str]):
    """``there``: hosts of instances."""

    def step(self, client: BlockingClient) -> None:
        if self.there and self.chance.random() < 0.4:
            uuid = self.chance.choice(sorted(self.there))
            self.unsure.add(uuid)
            self.send(client, "release", {"uuids": [uuid]})
            del self.there[uuid]
            self.unsure.discard(uuid)
            return
        uuid = uuid_of(self.number * UUIDS + self.next)
        self.next += 1
        self.unsure.add(uuid)
        request = {"spec": SPEC, "instance_uuids": [uuid], "project_id": f"p{self.number}"}
        decision = self.send(client, "place", {"request": request})
        if decision["refusal"] is None:
            self.there[uuid] = decision["selections"][0]["host"]
        self.unsure.discard(uuid)


def crash_rounds(folder: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    daemon = Daemon(folder, config=CONFIG)
    there: dict[str, str] = {}
    with daemon:
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(50)))
        for number in range(rounds):
            loads = [Load(daemon.address, each, random.Random(chance.random()), number * 10_000) for each in range(3)]
            for load in loads:
                load.there = {uuid: host for uuid, host in there.items() if owner(uuid) == load.number}
            threads = [threading.Thread(target=load.run) for load in loads]
            for thread in threads:
                thread.start()
            threads[0].join(chance.uniform(0.05, 0.4))
            daemon.kill()
            for thread in threads:
                thread.join()
            daemon.start()
            there = check(daemon, loads, f"seed {seed}, round {number}")
        assert daemon.terminate() == 0
        assert "damage" not in daemon.log()


def owner(uuid: str) -> int:
    return int(uuid[-12:], 16) // UUIDS


def check(daemon: Daemon, loads: list[Load], where: str) -> dict[str, str]:
    """What the daemon has is what was acknowledged, and of what was not, all or nothing."""
    found: dict[str, str] = {}
    with daemon.client() as client:
        listed = {uuid for node in range(50) for uuid in client.call("host", {"name": f"node-{node}"}).instances}
        for load in loads:
            for uuid in {*load.there, *load.unsure}:
                try:
                    found[uuid] = client.call("instance", {"uuid": uuid}).node
                except UnknownName:
                    assert uuid in load.unsure, f"{where}: {uuid} is lost"
                else:
                    assert load.there.get(uuid, found[uuid]) == found[uuid], f"{where}: {uuid} is elsewhere"
        assert listed == set(found), f"{where}: {listed ^ set(found)}"
        used = client.call("capacity")["VCPU"].used
        assert used == len(found), f"{where}: {used} vCPUs for {len(found)} guests"
        for load in loads:
            usage = client.call("usage", {"scope": f"project:p{load.number}"}).used
            assert usage.get("instances", 0) == sum(owner(uuid) == load.number for uuid in found), where
    return found


def test_what_was_acknowledged_outlives_dozens_of_crashes(tmp_path: Path) -> None:
    crash_rounds(tmp_path, rounds=24, seed=1)


@pytest.mark.soak
def test_what_was_acknowledged_outlives_hundreds_of_crashes_of_one_state(tmp_path: Path) -> None:
    crash_rounds(tmp_path, rounds=500, seed=100 + seeds(1, "crashes")[0])


def test_a_command_repeated_with_its_key_across_a_crash_is_done_once(tmp_path: Path) -> None:
    params = {"request": {"spec": SPEC}}
    with Daemon(tmp_path, config=CONFIG) as daemon:
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(2)))
            first = [client.call("place", params, key=f"k{number}") for number in range(20)]
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            again = [client.call("place", params, key=f"k{number}") for number in range(20)]
            assert client.call("capacity")["VCPU"].used == 20
    assert again == first


def test_a_client_that_repeats_across_a_crash_gets_its_answer(tmp_path: Path) -> None:
    with Daemon(tmp_path, config=CONFIG) as daemon, daemon.client() as client:
        client.call("add_hosts", AddHosts(hosts=hosts(2)))
        killer = threading.Timer(0.3, daemon.restart)
        killer.start()
        answers = [client.call("place", {"request": {"spec": SPEC}}) for _ in range(60)]
        killer.join()
        answers += [client.call("place", {"request": {"spec": SPEC}}) for _ in range(5)]
        assert [answer.sequence for answer in answers] == list(range(1, 66))
