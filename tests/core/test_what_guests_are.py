"""Migrations and volumes hold allocations and are no guests; a guest that is placed again keeps what it was asked
with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core import lifecycle_commands as g
from hostler.core.machine import queries as q
from hostler.core.machine.group_queries import ServerGroups
from hostler.core.machine.instance_queries import Instances
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order, PlacementWrite
from hostler.core.machine.provider_queries import Allocations
from hostler.core.machine.what_if import WhatIf
from hostler.placement.api import commands as api
from hostler.placement.api.placement_model import PlacementModel
from hostler.placement.types.errors import UnknownName
from hostler.placement.types.host import Aggregate, Host
from hostler.placement.types.request import Destination, Flavor, RequestSpec

from .orders import LOCAL, NOW, asked, hosts, machine, order, place, uuid_of

GUEST, GROUP, VOLUME = uuid_of(1), uuid_of(500), uuid_of(70)
NOBODY = "00000000-0000-0000-0000-000000000000"


def do(m: ServiceMachine, command: Any, *, now: float = NOW) -> Any:
    """Carry out a command as the journal has it."""
    return m.apply(m.decode(m.encode(order(command, now=now))))


def ask(m: ServiceMachine, query: Any) -> Any:
    return q.answer(m.state, "@local", query)


def moving() -> tuple[ServiceMachine, str]:
    """A guest of a server group on its way from node-0 to node-1, and the uuid of its migration."""
    m = machine(2)
    do(m, p.AddServerGroup(uuid=GROUP, policy="anti-affinity"))
    do(m, p.Place(request=msgspec.structs.replace(asked(1, vcpus=2), server_group=GROUP)))
    do(m, p.BeginMove(uuid=GUEST))
    (move,) = ask(m, q.ShowMoves())
    return m, move.migration


def test_a_migration_is_listed_shown_and_counted_as_no_guest() -> None:
    m, migration = moving()
    assert [line.uuid for line in ask(m, Instances())] == [GUEST]
    assert [line.uuid for line in ask(m, Instances(node="node-0"))] == [GUEST]  # it is on both
    assert [line.uuid for line in ask(m, Instances(node="node-1"))] == [GUEST]
    assert ask(m, Instances(node="node-9")) == []
    assert [line.members for line in ask(m, ServerGroups())] == [1]
    with pytest.raises(UnknownName, match="of type MIGRATION"):
        ask(m, q.Instance(uuid=migration))
    do(m, p.RevertMove(uuid=GUEST))
    assert [(line.uuid, line.node) for line in ask(m, Instances())] == [(GUEST, "node-0")]
    assert ask(m, Instances(node="node-1")) == []


def test_consumers_tell_what_they_are() -> None:
    m, migration = moving()
    node = m.state.fleet.uuid(0)
    held = api.ConsumerAllocations(
        allocations={node: {"DISK_GB": 40}}, project_id="p", user_id="u", consumer_type="VOLUME", generation=None
    )
    do(m, PlacementWrite(command=api.SetAllocations(now=NOW, consumers={VOLUME: held}, infer_types=True)))
    types = {line.consumer: line.consumer_type for line in ask(m, Allocations())}
    assert types == {GUEST: "INSTANCE", migration: "MIGRATION", VOLUME: "VOLUME"}
    assert [line.uuid for line in ask(m, Instances())] == [GUEST]
    with pytest.raises(UnknownName, match="of type VOLUME"):
        ask(m, q.Instance(uuid=VOLUME))
    usages = PlacementModel(m.state.fleet).usages_by_type(NOBODY)
    assert {name: used.consumer_count for name, used in usages.items()} == {"INSTANCE": 1, "MIGRATION": 1}
    assert PlacementModel(m.state.fleet).usages(NOBODY) == {"VCPU": 4, "MEMORY_MB": 2_048}


def test_a_volume_on_a_host_that_has_drifted_is_no_lost_instance() -> None:
    m = machine(1)
    node = m.state.fleet.uuid(0)
    held = api.ConsumerAllocations(
        allocations={node: {"DISK_GB": 40}}, project_id="p", user_id="u", consumer_type="VOLUME", generation=None
    )
    do(m, PlacementWrite(command=api.SetAllocations(now=NOW, consumers={VOLUME: held}, infer_types=True)))
    do(m, p.SetInventory(name="node-0", inventories={"DISK_GB": {"total": 10}}))  # type: ignore[dict-item]
    (line,) = ask(m, q.ShowDrift())
    assert (line.beyond_capacity, line.lost_instances) == ({"DISK_GB": 30}, [])


# what is kept of a request


def zones() -> ServiceMachine:
    """Four hosts, two in each of two zones, and a guest of the second one, whose image has a property."""
    m = machine(0)
    size: dict[str, Any] = {"vcpus_total": 16, "total_usable_ram_mb": 65_536, "total_usable_disk_gb": 500}
    made = []
    for name, zone, number in (("a", "one", 901), ("b", "one", 901), ("c", "two", 902), ("d", "two", 902)):
        group = Aggregate(uuid=uuid_of(number), name=zone, metadata={"availability_zone": zone})
        made.append(Host(host=name, aggregates=(group,), **size))
    do(m, p.AddHosts(hosts=tuple(made)))
    do(m, p.Place(request=asked(1, availability_zone="two", image={"properties": {"os_type": "linux"}})))
    return m


def kept(m: ServiceMachine) -> Any:
    return m.state.specs.of(m.state.asked_of(GUEST).spec)


@pytest.mark.parametrize(
    "command",
    [
        p.Resize(uuid=GUEST, request=asked(vcpus=3), changes=("flavor",)),
        p.BeginMove(uuid=GUEST, kind="resize", request=asked(vcpus=3), changes=("flavor",)),
        p.Move(uuid=GUEST, request=asked(vcpus=3), changes=("flavor",)),
    ],
)
def test_what_a_change_does_not_name_is_as_it_was_asked(command: Any) -> None:
    m = zones()
    for node in "cd":
        do(m, p.SetService(name=node, disabled=True))
    (tried,) = ask(m, WhatIf(commands=[command]))
    assert tried.error is None
    assert not tried.result.placed
    assert not do(m, command).placed  # the hosts of the other zone are not for it
    do(m, p.SetService(name="c", disabled=False))
    do(m, p.SetService(name="d", disabled=False))
    assert do(m, command).host in "cd"
    assert (kept(m).flavor.vcpus, kept(m).availability_zone) == (3, "two")
    assert kept(m).image.properties == {"os_type": "linux"}
    m.state.fleet.check()


def test_a_guest_whose_zone_has_another_name_goes_on_under_that_one() -> None:
    m = zones()
    renamed = Aggregate(uuid=uuid_of(902), name="two", metadata={"availability_zone": "due"})
    do(m, p.UpdateAggregate(aggregate=renamed))
    with pytest.raises(UnknownName, match="unknown availability zone 'two'"):
        do(m, p.Move(uuid=GUEST))
    before = m.state.fleet.consumer(GUEST).provider
    request = asked(availability_zone="due")
    assert do(m, p.Move(uuid=GUEST, request=request, changes=("availability_zone",))).host in {"c", "d"} - {before}
    assert kept(m).availability_zone == "due"
    assert kept(m).image.properties == {"os_type": "linux"}
    assert do(m, p.Move(uuid=GUEST)).host == before


def test_changes_of_a_guest_whose_request_is_not_known_are_the_request() -> None:
    m = zones()
    m.state.requests.forget([GUEST])
    assert ask(m, q.Instance(uuid=GUEST)).asked is False
    assert do(m, p.Resize(uuid=GUEST, request=asked(vcpus=3), changes=("flavor",))).placed
    assert kept(m).availability_zone is None


def test_a_forced_host_is_not_kept_by_a_change() -> None:
    m = machine(2)
    do(m, place(1, force_hosts=["node-0"]))
    do(m, p.SetService(name="node-0", disabled=True))
    assert do(m, p.Resize(uuid=GUEST, request=asked(vcpus=3), changes=("flavor",))).host == "node-1"


@pytest.mark.parametrize(
    "named",
    [
        {"requested_destination": {"host": "node-0"}},
        {"requested_destination": {"host": "node-0", "node": "node-0"}},
        {"ignore_hosts": ["node-1"]},
        {"force_hosts": ["node-0"]},
        {"force_nodes": ["node-0"]},
        {"availability_zone": "nova:node-0"},
        {"availability_zone": "nova:node-0:node-0"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "move",
    [
        p.Move(uuid=GUEST),
        p.BeginMove(uuid=GUEST),
        p.BeginMove(uuid=GUEST, kind="live_migrate"),
        p.BeginMove(uuid=GUEST, kind="evacuate"),
        p.Resize(uuid=GUEST, request=asked(vcpus=3), changes=("flavor",)),
    ],
    ids=lambda move: getattr(move, "kind", type(move).__name__),
)
def test_hosts_that_were_named_for_a_guest_do_not_bind_its_moves(named: dict[str, Any], move: Any) -> None:
    """As Nova keeps a RequestSpec: without its destination, and hosts ignored or forced."""
    m = machine(2)
    assert do(m, place(1, **named)).host == "node-0"
    do(m, p.SetService(name="node-0", forced_down=True))
    assert do(m, move).host == "node-1"
    spec = m.state.spec_of(m.state.asked_of(GUEST))
    assert (spec.availability_zone or "nova") == "nova"
    assert spec == spec.as_kept()


def test_hosts_that_were_named_bound_the_moves_of_old_journals() -> None:
    m = ServiceMachine()
    commands: list[Any] = [p.AddHosts(hosts=hosts(2)), place(1, ignore_hosts=["node-1"]), p.Move(uuid=GUEST)]
    answers = m.apply_batch([m.decode(m.encode(Order(NOW, LOCAL, command, 9))) for command in commands])
    assert [answer.placed for answer in answers[1:]] == [True, False]


@pytest.mark.parametrize(
    "named",
    [
        {"ignore_hosts": ["a-1"]},
        {"force_hosts": ["a-0"]},
        {"availability_zone": "nova:a-0"},
        {"requested_destination": {"host": "a-0"}},
    ],
    ids=lambda named: next(iter(named)),
)
@pytest.mark.parametrize("target", ["a-1", None])
def test_hosts_that_were_named_for_a_guest_do_not_bind_its_resizes(named: dict[str, Any], target: str | None) -> None:
    """Nor those to a node by name, nor on its own node of a back end that moves no guests any more."""
    m = ServiceMachine()

    def report(*can: str) -> g.ReportBackend:
        nodes = tuple(g.NodeReport(f"a-{number}", 8, 16_384, 100) for number in range(2))
        return g.ReportBackend(name="a", at=NOW, nodes=nodes, can=can)

    do(m, report("move", "resize"))
    assert do(m, g.CreateGuest(request=asked(1, **({"requested_destination": {"host": "a-0"}} | named)))).host == "a-0"
    do(m, g.BeginBuild(uuid=GUEST, claim=1))
    do(m, g.ConfirmGuest(uuid=GUEST, claim=1, power="on"))
    do(m, g.MoveGuest(uuid=GUEST, target="a-1"))
    claim = m.state.lives.guests[GUEST].move.claim  # type: ignore[union-attr]  # it has just begun
    do(m, g.BeginMigration(uuid=GUEST, claim=claim))
    do(m, g.EndMigration(uuid=GUEST, claim=claim, moved=True, power="on"))
    if target is None:
        do(m, report("resize"))
    assert do(m, g.ResizeGuest(uuid=GUEST, request=asked(vcpus=2), target=target)).host == "a-1"


def test_a_spec_that_names_no_host_is_kept_as_it_is() -> None:
    spec = RequestSpec(
        flavor=Flavor(name="m", vcpus=1, memory_mb=1), availability_zone="z", scheduler_hints={"a": ("b",)}
    )
    assert spec.as_kept() is spec
    named = replace(spec, availability_zone="z:h", requested_destination=Destination(host="h"), ignore_hosts=("i",))
    assert named.as_kept() == spec
    assert replace(spec, availability_zone=":h").as_kept().availability_zone is None
