"""Volumes in a real service: the command line, and kill -9 at any moment."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hostler.core import storage_commands as s
from hostler.core.rpc.client import BlockingClient
from tests.core.orders import uuid_of
from tests.volumes.values import report, reports, wish

from ..patience import HANG_SECONDS
from ..seeds import seeds
from .commands import Run
from .crash_load import CrashLoad
from .processes import Daemon

POOLS = [{"pool_name": name, "total_capacity_gb": 100, "free_capacity_gb": 100, "tier": "gold"} for name in "ab"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon"), config="[data]\nkeep_history = true\n") as started:
        yield started


@pytest.fixture(scope="module")
def storage(daemon: Daemon) -> Path:
    """Two backends, reported from a file, and the type gold."""
    file = daemon.folder / "backends.json"
    file.write_text(
        json.dumps([{"host": f"node-{number}@lvm", "capabilities": {"pools": POOLS}} for number in range(2)])
    )
    with daemon.client() as client:
        client.call("report_volume_backends", {"reports": json.loads(file.read_text())})
        client.call("create_volume_type", {"volume_type": {"name": "gold", "extra_specs": {"tier": "gold"}}})
        client.call("set_backup_service", {"host": "node-0"})
    return file


def created(run: Run, *options: str) -> str:
    """The uuid of a new volume."""
    code, said = run("volume", "create", "--json", *options)
    assert code == 0, said
    return str(json.loads(said)["selection"]["volume_id"])


def test_a_volume_lives_from_create_to_delete(run: Run, storage: Path) -> None:
    uuid = created(run, "--size-gb", "10", "--type", "gold")
    assert "gold" in run("volume", "list", "--type", "gold")[1]
    assert run("volume", "extend", uuid, "20")[0] == 0
    assert json.loads(run("volume", "show", uuid)[1])["size_gb"] == 20
    snapshot = json.loads(run("volume", "snapshot", "create", uuid, "--json")[1])["snapshot_id"]
    assert snapshot in run("volume", "snapshot", "list", "--volume", uuid)[1]
    code, said = run("volume", "delete", uuid)
    assert (code, "snapshots" in said) == (1, True)
    assert run("volume", "snapshot", "delete", snapshot)[0] == 0
    code, said = run("volume", "backup", "create", uuid)
    assert (code, "node-0" in said) == (0, True)
    assert "node-0" in run("volume", "backup", "list")[1]
    assert run("volume", "migrate", "begin", uuid, "--target", "node-1@lvm#b")[0] == 0
    assert "migrate from" in run("volume", "list")[1]
    assert "node-1@lvm#b" in run("volume", "migrate", "confirm", uuid)[1]
    assert run("volume", "delete", uuid) == (0, "1 deleted\n")


def test_a_type_is_changed_and_changed_back(run: Run, storage: Path) -> None:
    assert run("volume-type", "create", "plain", "--extra-spec", "tier=gold", "--qos", "iops=5")[0] == 0
    uuid = created(run, "--type", "gold")
    assert run("volume", "retype", "begin", uuid, "plain")[0] == 0
    assert "of type gold" in run("volume", "retype", "revert", uuid)[1]
    assert run("volume", "delete", uuid)[0] == 0
    assert "iops=5" in run("volume-type", "list")[1]
    assert run("volume-type", "delete", "plain")[0] == 0


def test_groups_questions_and_refusals(run: Run, storage: Path) -> None:
    code, said = run("volume", "group", "create", "10", "20", "--type", "gold", "--json")
    assert code == 0
    made = json.loads(said)
    assert "node-" in run("volume", "group", "list")[1]
    uuids = [each["volume_id"] for each in made["decision"]["selections"]]
    assert run("volume", "delete", *uuids)[0] == 0
    assert run("volume", "group", "delete", made["group_id"])[0] == 0
    assert run("volume", "create", "--size-gb", "101")[0] == 3
    assert "4 more fit" in run("volume", "fits", "--size-gb", "100")[1]
    assert "only room" in run("volume", "explain", "--size-gb", "101")[1]
    code, said = run("volume", "what-if", "--size-gb", "5", "--without", "node-0@lvm")
    assert (code, "node-1@lvm" in said) == (0, True)


def test_backends_are_reported_listed_disabled_and_removed(run: Run, storage: Path, tmp_path: Path) -> None:
    assert run("volume-backend", "report", str(storage)) == (0, "2 of 2 reports taken in\n")
    assert "node-1@lvm" in run("volume-backend", "list")[1]
    assert "node-1@lvm#b" in run("volume-backend", "pools", "--type", "gold", "--capability", "tier=gold")[1]
    assert run("volume-backend", "disable", "node-1@lvm")[0] == 0
    assert "node-1@lvm#b" not in run("volume-backend", "pools")[1]
    assert run("volume-backend", "enable", "node-1@lvm")[0] == 0
    assert run("volume-backend", "set", "node-1@lvm", "--down", "--zone", "az2")[0] == 0
    assert run("volume-backend", "set", "node-1@lvm", "--up", "--zone", "nova")[0] == 0
    file = tmp_path / "new.json"
    file.write_text('{"host": "new@lvm", "capabilities": {"total_capacity_gb": 1, "free_capacity_gb": 1}}')
    assert run("volume-backend", "report", str(file))[0] == 0
    assert run("volume-backend", "remove", "new@lvm")[0] == 0
    file.write_text('{"host": "new@lvm"}')
    code, said = run("volume-backend", "report", str(file))
    assert (code, "capabilities" in said) == (1, True)
    assert run("volume-backend", "set-backup-service", "far", "--disabled")[0] == 0
    assert "far" in run("volume-backend", "backup-services")[1]
    assert run("volume-backend", "remove-backup-service", "far")[0] == 0


def test_a_journal_with_volumes_is_replayed_and_simulated(
    run: Run, storage: Path, daemon: Daemon, tmp_path: Path
) -> None:
    created(run, "--size-gb", "1")
    with daemon.client() as client:
        client.call("add_hosts", {"hosts": [{"host": "node-0", "vcpus_total": 8, "total_usable_ram_mb": 32_768}]})
        spec = msgspec.Raw(msgspec.msgpack.encode({"flavor": {"name": "s", "vcpus": 1, "memory_mb": 1_024}}))
        asked = {"request": {"spec": spec}, "volumes": [wish(size_gb=2)]}
        assert client.call("place_together", asked).placed
    code, said = run("replay", str(daemon.folder / "data"))
    assert (code, "guests placed: 1" in said, "volumes placed: " in said) == (0, True, True)
    policy = tmp_path / "policy.toml"
    policy.write_text("[storage]\ncapacity_weight_multiplier = -1.0\n")
    code, said = run("replay", str(daemon.folder / "data"), "--policy", str(policy), "--json")
    assert (code, json.loads(said)["volumes"]["elsewhere"] > 0) == (0, True)
    from hostler.core.machine.guest_history import read_guests

    history = read_guests(daemon.folder / "data")
    assert len(history.guests) == 1
    assert history.volumes >= 2


def test_a_guest_is_placed_with_its_volumes(run: Run, storage: Path, daemon: Daemon) -> None:
    with daemon.client() as client:
        client.call("add_hosts", {"hosts": [{"host": "node-1", "vcpus_total": 8, "total_usable_ram_mb": 32_768}]})
    code, said = run("place", "--volume", "5:gold", "--volume", "3", "--near", "host", "--json")
    assert code == 0, said
    decision = json.loads(said)
    host = decision["guest"]["selections"][0]["host"]
    assert [each["selection"]["backend_id"].split("@")[0] for each in decision["volumes"]] == [host, host]
    assert decision["near"] == [True, True]
    assert "yes" in run("place", "--volume", "1:gold", "--near", "zone", "--prefer-near")[1]
    assert run("place", "--volume", "5000")[0] == 3
    for wrong in (["--volume", "0"], ["--volume", "5:"], ["--volume", "big"], ["--near", "host"]):
        assert run("place", *wrong)[0] == 1


# kill -9

CONFIG = "[data]\nsnapshot_every = 60\n"


class Load(CrashLoad[int]):
    """``there``: sizes of volumes in GiB."""

    def step(self, client: BlockingClient) -> None:
        known = sorted(self.there)
        kind = self.chance.choice(["place", "place", "extend", "delete", "move"]) if known else "place"
        uuid = self.chance.choice(known) if kind != "place" else uuid_of(self.number * 1_000_000 + self.next)
        self.unsure.add(uuid)
        if kind == "place":
            self.next += 1
            request = s.AskedVolume(spec=wish(size_gb=3).spec, volume_id=uuid, project_id=f"p{self.number}")
            if self.send(client, "place_volume", {"request": request})["refusal"] is None:
                self.there[uuid] = 3
        elif kind == "extend":
            size = self.there[uuid] + 1
            if self.send(client, "extend_volume", {"uuid": uuid, "new_size_gb": size})["refusal"] is None:
                self.there[uuid] = size
        elif kind == "delete":
            self.send(client, "delete_volumes", {"uuids": [uuid]})
            del self.there[uuid]
        else:
            self.send(client, "begin_volume_migration", {"uuid": uuid})
            self.send(client, self.chance.choice(["confirm_volume_move", "revert_volume_move"]), {"uuid": uuid})
        self.unsure.discard(uuid)


def crash_rounds(folder: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    there: dict[str, int] = {}
    with Daemon(folder, config=CONFIG) as daemon:
        with daemon.client() as client:
            backends = [report(f"node-{number}@lvm", ("a", 1_000_000)) for number in range(2)]
            client.call("report_volume_backends", {"reports": reports(*backends).reports})
        for turn in range(rounds):
            loads = [Load(daemon.address, n, random.Random(chance.random()), 10_000 * turn + 1) for n in (1, 2)]
            threads = [threading.Thread(target=load.run) for load in loads]
            for thread in threads:
                thread.start()
            threading.Event().wait(0.2 + chance.random())
            daemon.kill()
            for thread in threads:
                thread.join(HANG_SECONDS)
            daemon.start()
            acknowledged = there | loads[0].there | loads[1].there
            unsure = loads[0].unsure | loads[1].unsure
            there = check(daemon, acknowledged, unsure)
    assert daemon.process is not None
    assert daemon.process.stdout is not None
    daemon.process.stdout.close()


def check(daemon: Daemon, acknowledged: dict[str, int], unsure: set[str]) -> dict[str, int]:
    """What is there is what was acknowledged, but for what got no answer; pools and usage are its sums."""
    with daemon.client() as client:
        found = {line.uuid: line for line in client.call("volumes", {"limit": 10_000})}
        pools = client.call("volume_pools", {})
        used = {f"p{n}": client.call("usage", {"scope": f"project:p{n}"}).used for n in (1, 2)}
    sizes = {uuid: line.size_gb for uuid, line in found.items()}
    assert {uuid: size for uuid, size in sizes.items() if uuid not in unsure} == {
        uuid: size for uuid, size in acknowledged.items() if uuid not in unsure
    }
    charged = dict.fromkeys((pool.name for pool in pools), 0)
    for line in found.values():
        charged[line.backend_id] += line.size_gb
        if line.moved_from is not None:
            charged[line.moved_from] += line.size_gb
    assert {pool.name: 1_000_000 - pool.free_gb for pool in pools} == charged
    for project, amounts in used.items():
        mine = [line.size_gb for line in found.values() if line.project_id == project]
        assert (amounts.get("volumes", 0), amounts.get("gigabytes", 0)) == (len(mine), sum(mine))
    with daemon.client() as client:
        for uuid, line in found.items():
            if line.move is not None:
                client.call("revert_volume_move", {"uuid": uuid})
    return sizes


@pytest.mark.parametrize("seed", seeds(1, "volumes killed"))
def test_kill_at_any_moment_loses_nothing(seed: int, tmp_path: Path) -> None:
    crash_rounds(tmp_path, rounds=3, seed=seed)
