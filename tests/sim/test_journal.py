"""A service's journal as a trace: what its guests asked for, when they came and left, on another fleet and policy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from hostler.core.cli import main
from hostler.core.engine_commands import (
    AddHosts,
    AddServerGroup,
    BeginMove,
    Move,
    Place,
    PlaceMany,
    Release,
    Resize,
    SetPolicy,
)
from hostler.core.journal.journal import Journal
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.writer.writer import Writer
from hostler.placement.types.errors import HostlerError, InvalidValue
from hostler.sim.run.policies import policy_of
from hostler.sim.run.run import Run
from hostler.sim.trace.files import read_trace
from hostler.sim.trace.journal import is_journal, read_journal
from hostler.sim.trace.workload import ALONE, NEVER
from tests.core.orders import NOW, asked, hosts, order, place, uuid_of
from tests.daemon.processes import Daemon

from .values import plan

MIDNIGHT = NOW // 86_400 * 86_400


def journal(folder: Path, *orders: Order, snapshot_after: int = 0) -> Path:
    """A data folder with these orders, and a snapshot after so many of them, the history before it deleted."""

    async def fill() -> None:
        kept = Journal.in_folder(folder)
        writer = Writer(ServiceMachine(), kept)
        await writer.recover()
        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run)
            for number, each in enumerate(orders, 1):
                await writer.submit(each)
                if number == snapshot_after:
                    await writer.snapshot()
            writer.stop()
        await kept.close()

    trio.run(fill)
    for first in sorted(folder.glob("journal-*.sqlite*"))[:-1] if snapshot_after else ():
        first.unlink()
    return folder


def at(minutes: float, command: Any) -> Order:
    return order(command, now=MIDNIGHT + 60 * minutes)


def three_hosts() -> AddHosts:
    """Of 16 vCPUs each, not over-committed."""
    return AddHosts(hosts=hosts(3, cpu_allocation_ratio=1.0))


def test_guests_come_and_leave_when_they_did(tmp_path: Path) -> None:
    folder = journal(
        tmp_path / "data",
        at(0, three_hosts()),
        at(61, place(1, vcpus=2)),
        at(62, place(2, 3)),
        at(130, Release(uuids=(uuid_of(1),))),
    )
    found = read_journal(folder)
    assert found.arrival_s.tolist() == [3600, 3600, 3600]
    assert found.departure_s.tolist() == [7800, NEVER, NEVER]
    assert [found.specs[each].flavor.vcpus for each in found.spec.tolist()] == [2, 1, 1]
    assert found.batch.tolist() == [0, 1, 1]
    assert (found.start_s, found.end_s) == (0, 8100)


def test_guests_are_known_by_the_uuids_that_the_engine_made(tmp_path: Path) -> None:
    told = ServiceMachine()
    orders = [at(0, three_hosts()), at(5, place())]
    made = [told.apply(each) for each in orders][1].selections[0].instance_uuid
    found = read_journal(journal(tmp_path / "data", *orders, at(20, Release(uuids=(made,)))))
    assert found.departure_s.tolist() == [1200]


def test_what_was_refused_then_stays_as_long_as_others_of_its_flavor(tmp_path: Path) -> None:
    orders = [at(0, three_hosts())]
    orders += [at(0, place(number, vcpus=16)) for number in (1, 2, 3)]
    orders += [at(10, PlaceMany(requests=(asked(4, vcpus=16), asked(5, vcpus=1))))]
    orders += [at(60 * number, Release(uuids=(uuid_of(number),))) for number in (1, 2, 3)]
    found = read_journal(journal(tmp_path / "data", *orders))
    assert ((found.departure_s - found.arrival_s) // 60).tolist() == [60, 120, 180, 120, 120]


def test_what_is_asked_for_again_has_waited_since(tmp_path: Path) -> None:
    orders = [at(0, three_hosts()), *(at(0, place(number, vcpus=16)) for number in (1, 2, 3)), at(5, place(4, vcpus=9))]
    orders += [at(60, Release(uuids=(uuid_of(1),))), at(65, place(4, vcpus=9)), at(95, Release(uuids=(uuid_of(4),)))]
    found = read_journal(journal(tmp_path / "data", *orders))
    assert found.arrival_s.tolist() == [0, 0, 0, 300]
    assert found.departure_s.tolist()[3] == 5700


def test_a_guest_that_is_resized_comes_again_with_its_new_size(tmp_path: Path) -> None:
    orders = [at(0, three_hosts()), at(0, place(1, vcpus=2)), at(60, Resize(uuid=uuid_of(1), request=asked(vcpus=4)))]
    found = read_journal(journal(tmp_path / "data", *orders, at(90, Release(uuids=(uuid_of(1),)))))
    assert [found.specs[each].flavor.vcpus for each in found.spec.tolist()] == [2, 4]
    assert list(zip(found.arrival_s.tolist(), found.departure_s.tolist(), strict=True)) == [(0, 3600), (3600, 5400)]


def test_members_of_anti_affinity_groups_stay_apart(tmp_path: Path) -> None:
    group = uuid_of(99)
    members = [msgspec.structs.replace(asked(number), server_group=group) for number in (1, 2, 3)]
    orders = [at(0, three_hosts()), at(0, AddServerGroup(uuid=group, policy="anti-affinity"))]
    orders += [at(1, PlaceMany(requests=(*members, asked(4))))]
    found = read_journal(journal(tmp_path / "data", *orders))
    assert found.group.tolist() == [0, 0, 0, ALONE]
    outcome = Run(plan(2), found, policy_of("best-fit")).play()
    assert outcome.refusals == {"server group": 1}


def test_guests_that_only_a_snapshot_has_stand_from_the_beginning(tmp_path: Path) -> None:
    orders = [at(0, three_hosts()), at(1, place(1, vcpus=3)), at(2, place(2, vcpus=5))]
    orders += [at(65, place(3)), at(70, Release(uuids=(uuid_of(1),)))]
    found = read_journal(journal(tmp_path / "data", *orders, snapshot_after=3))
    assert found.standing == 2
    assert sorted(found.specs[each].flavor.vcpus for each in found.spec[:2].tolist()) == [3, 5]
    outcome = Run(plan(3), found, policy_of("nova")).play()
    assert outcome.requests == 3


def test_a_guest_of_a_snapshot_that_moves_stands_once(tmp_path: Path) -> None:
    nodes = tuple(replace(each, host="ironic", nodename=each.host) for each in hosts(2))
    orders = [at(0, AddHosts(hosts=nodes)), at(1, place(1, vcpus=3)), at(2, place(2, vcpus=5))]
    orders += [at(3, AddHosts(hosts=(replace(hosts(1)[0], host="other"),))), at(4, BeginMove(uuid=uuid_of(1)))]
    orders += [at(70, Release(uuids=(uuid_of(1),)))]
    found = read_journal(journal(tmp_path / "data", *orders, snapshot_after=5))
    assert found.standing == 2
    assert sorted(found.specs[each].flavor.vcpus for each in found.spec.tolist()) == [3, 5]


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="no journal"):
        read_trace(tmp_path)
    with pytest.raises(InvalidValue, match="no guests"):
        read_trace(journal(tmp_path / "data", at(0, three_hosts())))
    with pytest.raises(InvalidValue, match="no columns"):
        read_trace(tmp_path / "data", {"vcpus": "cpu"})
    segment = next((tmp_path / "data").glob("journal-*.sqlite"))
    assert is_journal(segment)
    segment.write_bytes(b"SQLite format 3\0" + bytes(4000))
    with pytest.raises(HostlerError, match="damaged"):
        read_trace(segment)


def test_a_real_service_is_replayed_under_another_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(tmp_path) as daemon, daemon.client() as client:
        sizes = {
            "vcpus_total": 8,
            "cpu_allocation_ratio": 1.0,
            "total_usable_ram_mb": 16_384,
            "total_usable_disk_gb": 100,
        }
        client.call("add_hosts", {"hosts": [{"host": f"node-{number}", **sizes} for number in range(3)]})
        refused = 0
        for number in range(1, 31):
            spec = {"flavor": {"name": "one", "vcpus": 1, "memory_mb": 1024}}
            decision = client.call("place", {"request": {"spec": spec, "instance_uuids": [uuid_of(number)]}})
            refused += not decision.placed
        client.call("release", {"uuids": [uuid_of(number) for number in (1, 2, 3)]})
        assert daemon.terminate() == 0
    assert refused == 6
    shape = ["--hosts", "4", "--vcpus", "8", "--memory-gb", "16", "--policy", "best-fit", "--json"]
    assert main(["simulate", "run", "--trace", str(tmp_path / "data"), *shape]) == 0
    outcome = json.loads(capsys.readouterr().out)["outcome"]
    assert (outcome["requests"], outcome["placed"], outcome["refused"]) == (30, 30, 0)
    assert outcome["policy"] == "best-fit"
    assert main(["simulate", "size", "--trace", str(tmp_path / "data"), *shape]) == 0
    assert json.loads(capsys.readouterr().out)["hosts"] == 4


def test_a_change_of_a_guest_leaves_what_it_does_not_name(tmp_path: Path) -> None:
    folder = journal(
        tmp_path,
        at(0, three_hosts()),
        at(0, place(1, vcpus=2, availability_zone="nova")),
        at(10, Move(uuid=uuid_of(1), request=asked(vcpus=9), changes=())),
        at(20, Resize(uuid=uuid_of(1), request=asked(vcpus=4), changes=("flavor",))),
    )
    trace = read_journal(folder)
    assert [(spec.flavor.vcpus, spec.availability_zone) for spec in trace.specs] == [(2, "nova"), (4, "nova")]


def test_guests_with_devices_are_not_played_as_if_they_had_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "devices.csv"
    file.write_text("arrival_s,vcpus,memory_gb,extra_specs\n0,2,4,pci_passthrough:alias=gpu:1\n")
    assert main(["simulate", "run", "--trace", str(file), "--hosts", "2"]) == 1
    assert "unknown PCI alias 'gpu'" in capsys.readouterr().err
    rules = {"filter_scheduler": {"enabled_filters": ["ComputeFilter", "NUMATopologyFilter"]}}
    spec = {"flavor": {"name": "g", "vcpus": 2, "memory_mb": 1_024, "extra_specs": {"hw:numa_nodes": "1"}}}
    numa = msgspec.structs.replace(asked(1), spec=msgspec.Raw(msgspec.msgpack.encode(spec)))
    folder = journal(
        tmp_path / "left", at(0, three_hosts()), at(0, SetPolicy(policy=rules)), at(1, Place(request=numa))
    )
    assert [each.prepare for each in read_journal(folder).specs] == [True]
