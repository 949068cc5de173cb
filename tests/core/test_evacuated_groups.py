"""Members of a server group that Nova evacuates one after the other: what an evacuation gave counts at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from hostler import Fleet, Inventory, add_hosts, report_hosts
from hostler.core import engine_commands as p
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import PlacementWrite, SelectDestinations
from hostler.core.machine.report_columns import columns_of
from hostler.placement.api import commands as api
from hostler.placement.fleet.consumers import Extras
from hostler.placement.fleet.group_members import doubled_rows, kept_members, uuids_of_kept
from hostler.placement.policy.policy import Policy
from hostler.placement.types.host import Host
from hostler.placement.types.host_report import HostReport
from hostler.placement.types.request import Destination, Flavor, Request, RequestSpec, ServerGroup
from tests.core.orders import NOW, asked, hosts, order, uuid_of

FLAVOR = Flavor(name="m", vcpus=1, memory_mb=1_024)
MEMBERS = (uuid_of(1), uuid_of(2))


def host(name: str, memory_mb: int = 65_536) -> Host:
    return Host(host=name, vcpus_total=32, total_usable_ram_mb=memory_mb)


def asks(policy: str, uuid: str, hosts: frozenset[str], **spec: Any) -> SelectDestinations:
    group = ServerGroup(uuid=uuid_of(500), policy=policy, members=frozenset(MEMBERS), hosts=hosts)
    asked = RequestSpec(flavor=FLAVOR, prepare=False, **spec)
    request = Request(spec=asked, instance_uuids=(uuid,), project_id="p", server_group=group)
    return SelectDestinations(request=p.asked(request), replaces=True)


@pytest.mark.parametrize(
    ("policy", "targets"),
    [("anti-affinity", ["c", "d"]), ("soft-anti-affinity", ["c", "d"]), ("soft-affinity", ["c", "c"])],
)
def test_an_evacuated_member_counts_on_its_new_host_before_that_reports_it(policy: str, targets: list[str]) -> None:
    """Host c has more memory than d after an evacuation too, so only the group keeps the second member off it."""
    made = ServiceMachine()

    def do(command: Any) -> Any:
        (answer,) = made.apply_batch([made.decode(made.encode(order(command, now=NOW)))])
        return answer

    do(p.AddHosts(hosts=(host("a"), host("b"), host("c"), host("d", 16_384))))
    for uuid, at in zip(MEMBERS, "ab", strict=True):
        do(asks(policy, uuid, frozenset(), requested_destination=Destination(host=at)))
        known = replace(host(at), instances={uuid: {}})
        do(columns_of([HostReport(host=known, at=NOW + 1, includes=frozenset({uuid}))]))
        do(p.SetService(name=at, forced_down=True))
    found = [
        do(asks(policy, uuid, frozenset("ab"), ignore_hosts=(at,))).host for uuid, at in zip(MEMBERS, "ab", strict=True)
    ]
    assert found == targets
    fleet = made.state.fleet
    on_c = {uuid for uuid, target in zip(MEMBERS, targets, strict=True) if target == "c"}
    assert fleet.instances(fleet.row("c")).keys() == on_c
    hints = Policy.from_mapping({"filter_scheduler": {"enabled_filters": ["ComputeFilter", "SameHostFilter"]}})
    near = RequestSpec(flavor=FLAVOR, scheduler_hints={"same_host": (MEMBERS[0],)})
    assert made.state.engine.what_if(hints).place(Request(spec=near)).host == "c"
    fleet.check()


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        ("anti-affinity", "node-2"),
        ("affinity", "node-1"),
        ("soft-anti-affinity", "node-2"),
        ("soft-affinity", "node-1"),
    ],
)
def test_a_kept_group_counts_a_member_on_its_second_host(policy: str, chosen: str) -> None:
    """A lone request, requests together, and a rule of Nova's that reads the group find it there; without the second
    host's allocations it is gone from it."""
    made, rules = ServiceMachine(), ("ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter")

    def do(command: Any) -> Any:
        (answer,) = made.apply_batch([made.decode(made.encode(order(command, now=NOW)))])
        return answer

    def grouped(number: int, **spec: Any) -> p.Asked:
        return msgspec.structs.replace(asked(number, **spec), server_group=uuid_of(500))

    def hold(*names: str) -> None:
        amounts = {"VCPU": 1, "MEMORY_MB": 1_024}
        taken = {fleet.uuid(fleet.row(name)): amounts for name in names}
        held = api.ConsumerAllocations(allocations=taken, project_id="", user_id="")
        do(PlacementWrite(command=api.SetAllocations(now=NOW, consumers={MEMBERS[0]: held})))

    do(p.AddHosts(hosts=hosts(3)))
    do(p.SetPolicy(policy={"filter_scheduler": {"enabled_filters": ["ComputeFilter", *rules]}}))
    do(p.AddServerGroup(uuid=uuid_of(500), policy=policy))
    do(p.Place(request=grouped(1, requested_destination={"host": "node-0"})))
    fleet, kept = made.state.fleet, made.state.fleet._group_id(uuid_of(500))
    hold("node-0", "node-1")
    assert kept_members(fleet, kept) == {fleet.row("node-0"): 1, fleet.row("node-1"): 1}
    assert set(uuids_of_kept(fleet, kept, [fleet.row("node-1")])) == {MEMBERS[0]}
    fleet.check()
    new = grouped(2, ignore_hosts=["node-0"])
    assert do(p.PlaceMany(requests=(new,))).hosts == [chosen]
    do(p.Release(uuids=(MEMBERS[1],)))
    assert do(p.Place(request=new)).host == chosen
    hold("node-0")
    assert kept_members(fleet, kept) == {fleet.row("node-0"): 1, fleet.row(chosen): 1}
    fleet.check()


def test_a_host_that_was_another_provider_is_doubled_from_its_report_on() -> None:
    """What a host's children are taken of does not double it."""
    fleet = Fleet()
    add_hosts(fleet, [host("a")])
    for name, parent in (("b", None), ("child", "a")):
        fleet.add_provider(name, parent=parent)
        fleet.set_inventory(name, {"VGPU": Inventory(total=4)})
    shape = fleet._shape({}, 0, 0, 0)
    index = fleet.resource_classes.index("VGPU")
    parts = tuple((fleet.row(name), index, 1) for name in ("b", "child"))
    consumer = fleet.claim(MEMBERS[0], fleet.row("a"), shape, extras=Extras(elsewhere=parts))
    assert not doubled_rows(fleet._consumers)
    report_hosts(fleet, [HostReport(host=host("b"), at=NOW)])
    assert doubled_rows(fleet._consumers) == {fleet.row("b")}
    fleet.check()
    fleet.release([consumer])
    assert not doubled_rows(fleet._consumers)
