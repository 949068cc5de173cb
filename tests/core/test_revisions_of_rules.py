"""Journals are replayed under the rules that their orders were given under, whatever the rules have become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core import lifecycle_commands as g
from hostler.core import storage_commands as s
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import RULES, Order, PlacementWrite
from hostler.core.machine.report_columns import columns_of
from hostler.core.tenancy import commands as c
from hostler.placement.api import commands as api
from hostler.placement.api.commands import DeleteAllocations
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import Service
from hostler.placement.types.host_report import HostReport
from tests.core.orders import LOCAL, NOW, asked, hosts, uuid_of
from tests.volumes.values import free, place, report, reports, wish

POOL, MEMORY = "node-1@lvm#a", 65_536


def journal(rules: int) -> list[bytes]:
    """Commands whose outcome differs by revision: a policy with a malformed table for volumes, a move that a report
    from before its claim knows nothing of, a backend that goes and comes, and a volume that is taken over, grows and
    goes."""
    late = [replace(each, free_ram_mb=MEMORY) for each in hosts(2)]
    known = columns_of([HostReport(host=each, at=NOW - 5, includes=frozenset()) for each in late])
    commands: Sequence[Any] = (
        p.AddHosts(hosts=hosts(2)),
        c.CreateDomain(id="d"),
        c.CreateProject(id="p", domain="d"),
        p.SetPolicy(policy={"storage": {"scheduler_max_attempts": "many"}}),
        p.Place(request=asked(1, project="p", vcpus=2)),
        p.BeginMove(uuid=uuid_of(1)),
        known,
        reports(report("node-1@lvm", ("a", 700))),
        place(11, 100, project="p"),
        s.SetVolumeBackend(host="node-1@lvm", disabled=True),
        s.SetVolumeBackend(host="node-1@lvm", disabled=False),
        s.ManageVolume(request=wish(12, 50, project="p"), backend=POOL),
        s.ExtendVolume(uuid=uuid_of(12), new_size_gb=70),
        s.DeleteVolumes(uuids=(uuid_of(12),)),
    )
    encode = msgspec.msgpack.Encoder().encode
    given = [encode(Order(NOW + at, LOCAL, command, rules)) for at, command in enumerate(commands)]
    return given if rules else [encode(msgspec.msgpack.decode(each)[:3]) for each in given]


def replay(made: ServiceMachine, data: Sequence[bytes]) -> list[bool]:
    """Which orders were carried out."""
    return [not isinstance(each, HostlerError) for each in made.apply_batch(list(map(made.decode, data)))]


def figures(made: ServiceMachine) -> tuple[Any, ...]:
    usage = made.state.usage.of("project:p")
    memory = made.state.fleet.column("free_ram_mb").tolist()
    return usage["instances"], usage["VCPU"], memory, free(made, POOL)


@pytest.mark.parametrize(
    ("rules", "policy", "source_mb", "left"),
    [
        (0, True, 0, 680.0),
        (1, True, 0, 680.0),
        (2, False, 0, 680.0),
        (3, False, 0, 680.0),
        (4, False, 1_024, 600.0),
        (5, False, 1_024, 600.0),
    ],
)
def test_a_journal_is_replayed_under_the_rules_of_its_time(
    rules: int, policy: bool, source_mb: int, left: float, tmp_path: Path
) -> None:
    made, data = ServiceMachine(), journal(rules)
    done = replay(made, data)
    assert done == [True] * 3 + [policy] + [True] * (len(data) - 4)
    assert figures(made) == (1, 4, [MEMORY - source_mb, MEMORY - 1_024], left)
    again, half = ServiceMachine(), ServiceMachine()
    replay(again, data[:9])
    again.save(tmp_path)
    half.load(tmp_path)
    replay(half, data[9:])
    assert figures(half) == figures(made)


@pytest.mark.parametrize("rules", range(RULES))
def test_orders_of_today_follow_those_of_an_earlier_revision(rules: int) -> None:
    """What was counted under older rules is counted anew; what was claimed stays."""
    made = ServiceMachine()
    replay(made, journal(rules))
    assert replay(made, [made.encode(Order(NOW + 100, LOCAL, p.ConfirmMove(uuid=uuid_of(1))))]) == [True]
    assert made.state.rules == RULES
    assert made.state.usage.of("project:p") == {
        "instances": 1,
        "VCPU": 2,
        "MEMORY_MB": 1_024,
        "volumes": 1,
        "gigabytes": 100,
    }
    made.state.fleet.check()
    made.state.storage.pools.check()


@pytest.mark.parametrize(("rules", "version"), [(6, None), (7, 70)])
def test_old_reports_without_a_service_forget_its_version(rules: int, version: int | None) -> None:
    made = ServiceMachine()
    known, silent = (
        columns_of([HostReport(host=each, at=NOW, service=service) for each in hosts(1)])
        for service in (Service(version=70), None)
    )
    told = p.AddHosts(hosts=tuple(replace(each, service=Service(version=70)) for each in hosts(1)))
    data = [made.encode(Order(NOW, LOCAL, command, rules)) for command in (told, silent)]
    assert replay(made, data) == [True, True]
    assert made.state.fleet.minimum_compute_version == version
    assert replay(made, [made.encode(Order(NOW, LOCAL, known))]) == [True]
    assert made.state.fleet.minimum_compute_version == 70


@pytest.mark.parametrize("end", [p.Heartbeats(names=("node-0",)), p.RevertMove(uuid=uuid_of(1))])
@pytest.mark.parametrize(("rules", "kept"), [(6, 0), (7, 2)])
def test_old_moves_are_reverted_though_clients_of_placement_have_confirmed_them(
    rules: int, kept: int, end: Any
) -> None:
    made = ServiceMachine()
    deletes = PlacementWrite(command=DeleteAllocations(consumer=uuid_of(9), now=NOW))
    commands: Sequence[Any] = (
        p.AddHosts(hosts=hosts(2)),
        p.Place(request=asked(1, vcpus=2)),
        p.BeginMove(uuid=uuid_of(1), migration=uuid_of(9), expires_in=10.0),
        deletes,
    )
    data = [made.encode(Order(NOW, LOCAL, command, rules)) for command in commands]
    at = NOW + 11 if isinstance(end, p.Heartbeats) else NOW
    data.append(made.encode(Order(at, LOCAL, end, rules)))
    assert replay(made, data) == [True] * 5
    assert made.state.engine.moves() == []
    assert made.state.fleet.column("vcpus_used").sum() == kept


def guest_with_volume() -> list[Any]:
    """A back end with one node and one pool, beside a host of none, and a guest and a volume that are made there."""
    guest = asked(1, project="p", memory_mb=1_024)
    return [
        p.AddHosts(hosts=hosts(1)),
        g.ReportBackend(name="a", at=NOW, nodes=(g.NodeReport("a-0", 8, 16_384, 100),), can=("move", "resize")),
        g.ReportPools(name="a", kind="model", at=NOW, pools=(g.PoolReport("gold", 1_000, 1_000, 0),)),
        g.CreateGuest(request=msgspec.structs.replace(guest, spec=msgspec.Raw(with_host(guest.spec, "a-0")))),
        g.BeginBuild(uuid=uuid_of(1), claim=1),
        g.ConfirmGuest(uuid=uuid_of(1), claim=1, power="on"),
        g.CreateVolume(request=wish(12, 50, project="p")),
        g.BeginVolume(volume=uuid_of(12), claim=2),
        g.ConfirmVolume(volume=uuid_of(12), claim=2),
    ]


def with_host(spec: msgspec.Raw, host: str) -> bytes:
    return msgspec.msgpack.encode({**msgspec.msgpack.decode(spec), "force_hosts": [host]})


def given(rules: int, *commands: Any) -> tuple[ServiceMachine, list[bool]]:
    """A machine that has carried out orders of a revision, and which of ``commands`` it did."""
    made, first = ServiceMachine(), guest_with_volume()
    data = [made.encode(Order(NOW, LOCAL, command, rules)) for command in (*first, *commands)]
    done = replay(made, data)
    assert all(done[: len(first)])
    return made, done[len(first) :]


@pytest.mark.parametrize(("rules", "placed"), [(7, True), (8, False)])
def test_old_resizes_to_a_node_of_no_back_end_were_claimed(rules: int, placed: bool) -> None:
    larger = g.ResizeGuest(uuid=uuid_of(1), request=asked(project="p", memory_mb=32_768))
    made, done = given(rules, larger)
    assert done == [placed]
    assert made.state.fleet.inventory("node-0")["VCPU"][1] == placed
    assert (made.state.lives.guests[uuid_of(1)].move is not None) == placed


@pytest.mark.parametrize(("rules", "kept"), [(7, 0), (8, 1)])
def test_old_detachments_lost_their_time_when_the_volume_was_found_attached(rules: int, kept: int) -> None:
    on: dict[str, Any] = {"uuid": uuid_of(1), "volume": uuid_of(12)}
    made, done = given(
        rules,
        g.AttachVolume(**on),
        g.DetachVolume(**on),
        g.ConfirmAttachment(**on, claim=1, attached=True),
    )
    assert done == [True] * 3
    guest = made.state.lives.guests[uuid_of(1)]
    assert (guest.volumes, guest.attached, len(guest.detaching)) == ([], [uuid_of(12)], kept)


@pytest.mark.parametrize(("rules", "members", "home"), [(9, 2, False), (10, 1, True)])
def test_old_groups_counted_consumers_and_old_unshelvings_left_the_host(rules: int, members: int, home: bool) -> None:
    """A member that is resized where it is had two consumers of its group there."""
    made, group = ServiceMachine(), uuid_of(50)
    commands: Sequence[Any] = (
        p.AddHosts(hosts=hosts(1)),
        p.AddServerGroup(uuid=group, policy="anti-affinity", max_server_per_host=2),
        p.Place(request=msgspec.structs.replace(asked(1, vcpus=2), server_group=group)),
        p.BeginMove(uuid=uuid_of(1), kind="resize", request=asked(vcpus=3)),
        p.Place(request=msgspec.structs.replace(asked(2, vcpus=1), server_group=group)),
        p.Place(request=asked(3, vcpus=1)),
        p.BeginMove(uuid=uuid_of(3), kind="unshelve"),
    )
    *_, second, _, unshelved = made.apply_batch(
        [made.decode(made.encode(Order(NOW, LOCAL, command, rules))) for command in commands]
    )
    assert second.placed == (members < 2)
    assert unshelved.placed == home


def test_a_snapshot_between_revisions_changes_no_answer(tmp_path: Path) -> None:
    """An instance holds allocations on two hosts, which counts from revision 10 on; what weighers found of its hosts
    is known from before."""
    image, full = {"properties": {"os_distro": "x"}}, hosts(3)
    policy: dict[str, Any] = {"weight_classes": ["ImagePropertiesWeigher"], "image_props_weight_multiplier": -1.0}
    policy["enabled_filters"] = ["ComputeFilter", "SameHostFilter"]
    near: dict[str, Any] = {"scheduler_hints": {"same_host": [uuid_of(1)]}, "ignore_hosts": ["node-0"]}

    def answers(*, snapshot: bool) -> list[Any]:
        made = ServiceMachine()

        def do(command: Any, rules: int) -> Any:
            (answer,) = made.apply_batch([made.decode(made.encode(Order(NOW, LOCAL, command, rules)))])
            return answer

        do(p.AddHosts(hosts=full), 9)
        do(p.SetPolicy(policy={"filter_scheduler": policy}), 9)
        do(p.Place(request=asked(1, requested_destination={"host": "node-0"}, image=image)), 9)
        fleet, amounts = made.state.fleet, {"VCPU": 1, "MEMORY_MB": 1_024}
        taken = {fleet.uuid(fleet.row(name)): amounts for name in ("node-0", "node-1")}
        held = api.ConsumerAllocations(allocations=taken, project_id="", user_id="")
        do(PlacementWrite(command=api.SetAllocations(now=NOW, consumers={uuid_of(1): held})), 9)
        do(p.Place(request=asked(2, image=image, requested_destination={"host": "node-0"})), 9)
        do(p.Place(request=asked(5, image=image, vcpus=99)), 9)
        refused = do(p.Place(request=asked(3, **near)), 9)
        if snapshot:
            (tmp_path / "fleet").mkdir()
            made.save(tmp_path / "fleet")
            made = ServiceMachine()
            made.load(tmp_path / "fleet")
        placed = [do(p.Place(request=asked(4, image=image)), 10), do(p.Place(request=asked(3, **near)), 10)]
        assert (refused.placed, placed[1].host) == (False, "node-1")
        return [each.host for each in placed]

    assert answers(snapshot=False) == answers(snapshot=True)
