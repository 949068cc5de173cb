"""The service's machine: every command does what it says, refused ones nothing, and a replay ends where the first run
did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core import engine_commands as p
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import AnyCommand, Order, PlacementWrite
from hostler.core.machine.provider_queries import Aggregates, aggregates
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.errors import QuotaExceeded
from hostler.core.tenancy.tenants import LOCAL
from hostler.placement.api import commands as api
from hostler.placement.fleet.inventories import Inventory
from hostler.placement.types.decision import Decision
from hostler.placement.types.errors import DuplicateName, HostlerError, InUse, InvalidValue, UnknownName
from hostler.placement.types.host import Aggregate
from hostler.placement.types.steps import finished

from .orders import NOW, asked, hosts, machine, order, place, uuid_of


def used(made: ServiceMachine, scope: str) -> dict[str, int]:
    return made.state.usage.of(scope)


def test_a_placement_is_decided_and_counted_for_its_project() -> None:
    made = machine()
    decision = made.apply(order(place(1, project="p1", vcpus=2)))
    assert isinstance(decision, Decision)
    assert decision.host == "node-0"
    assert used(made, "project:p1") == {"instances": 1, "VCPU": 2, "MEMORY_MB": 1024}
    assert made.apply(order(p.Release(uuids=(uuid_of(1),)))) == 1
    assert used(made, "project:p1") == {}


def test_many_placements_answer_by_position_with_refusals_in_words() -> None:
    made = machine()
    requests = (asked(1), asked(2, vcpus=1000), asked(1), asked(3))
    answer = made.apply(order(p.PlaceMany(requests=requests)))
    assert [host is None for host in answer.hosts] == [False, True, True, False]
    assert {position: code for position, (code, _) in answer.refusals.items()} == {
        1: "no_valid_host",
        2: "duplicate_name",
    }
    assert answer.instance_uuids == [uuid_of(1), uuid_of(2), "", uuid_of(3)]
    assert answer.placed == 2


def test_a_resize_counts_the_difference_and_a_refused_one_counts_nothing() -> None:
    made = machine()
    made.apply(order(place(1, project="p1", vcpus=2)))
    made.apply(order(p.Resize(uuid=uuid_of(1), request=asked(vcpus=4))))
    assert used(made, "project:p1")["VCPU"] == 4
    refused = made.apply(order(p.Resize(uuid=uuid_of(1), request=asked(vcpus=4000))))
    assert not refused.placed
    assert used(made, "project:p1")["VCPU"] == 4


def test_a_guest_that_is_moved_goes_to_another_host() -> None:
    made = machine()
    first = made.apply(order(place(1)))
    assert made.apply(order(p.Move(uuid=uuid_of(1), request=asked()))).host != first.host


def test_hosts_and_providers_can_be_edited() -> None:
    made = machine(1)
    edits: list[AnyCommand] = [
        p.SetService(name="node-0", disabled=True, disabled_reason="disk"),
        p.SetTraits(name="node-0", traits=("CUSTOM_A",)),
        p.Report(name="node-0", figures={"num_io_ops": 3}),
        p.Heartbeats(names=("node-0",)),
        p.AddProvider(name="gpu", parent="node-0"),
        p.SetInventory(name="gpu", inventories={"VGPU": Inventory(total=2)}),
        p.SetParent(name="gpu"),
        p.RemoveHost(name="gpu"),
        p.SetAggregates(name="node-0", aggregates=(Aggregate(uuid=uuid_of(50), name="a"),)),
        p.UpdateAggregate(aggregate=Aggregate(uuid=uuid_of(50), name="b")),
        p.AddServerGroup(uuid=uuid_of(60), policy="affinity"),
    ]
    for edit in edits:
        made.apply(order(edit))
    assert made.apply(order(place(1))).refusal.hint == "1 host would pass with their compute services enabled"
    made.apply(order(p.SetService(name="node-0", disabled=False)))
    assert made.apply(order(place(1))).host == "node-0"
    made.state.fleet.check()


@pytest.mark.parametrize(("memory_mb", "code"), [(40_960, "full"), (80_000, "impossible")])
def test_refusals_of_the_service_say_what_those_of_the_library_say(memory_mb: int, code: str) -> None:
    made = machine(2)
    for number in (1, 2):
        made.apply(order(place(number, memory_mb=30_000)))
    told = made.state.engine.fork().place(made.state.request(asked(memory_mb=memory_mb), NOW)).refusal
    assert told is not None
    assert (told.code, told.resource, told.asked) == (code, "MEMORY_MB", memory_mb)
    assert told.nearest is not None
    assert told.cut == memory_mb - told.nearest
    refused = [order(place(9, memory_mb=memory_mb)), order(p.Hold(request=asked(memory_mb=memory_mb), expires_in=9.0))]
    assert [made.apply(each).refusal for each in refused] == [told, told]
    together = finished(made.carry_out([order(place(memory_mb=memory_mb)) for _ in range(9)]))
    assert [each.refusal for each in together] == [told] * 9


def test_an_aggregate_is_removed_once_nobody_is_in_it_and_stays_removed(tmp_path: Path) -> None:
    made, rack = machine(2), Aggregate(uuid=uuid_of(50), name="a", metadata={"availability_zone": "z"})
    made.apply(order(p.SetAggregates(name="node-0", aggregates=(rack,))))
    with pytest.raises(InUse):
        made.apply(order(p.RemoveAggregate(uuid=rack.uuid)))
    made.apply(order(p.SetAggregates(name="node-0", aggregates=())))
    assert [line.name for line in aggregates(made.state, LOCAL, Aggregates())] == ["a"]
    made.apply(order(p.RemoveAggregate(uuid=rack.uuid)))
    made.save(tmp_path)
    again = ServiceMachine()
    again.load(tmp_path)
    for each in (made, again):
        assert aggregates(each.state, LOCAL, Aggregates()) == []
        with pytest.raises(UnknownName):
            each.apply(order(p.RemoveAggregate(uuid=rack.uuid)))


def test_a_deleted_pool_leaves_no_aggregate_behind() -> None:
    made = machine(2)
    made.apply(order(c.CreatePool(id="gold", hosts=("node-0",))))
    made.apply(order(c.DeletePool(id="gold")))
    assert aggregates(made.state, LOCAL, Aggregates()) == []
    made.state.fleet.check()


def test_a_policy_is_changed_by_a_command_and_outlives_a_snapshot(tmp_path: Path) -> None:
    made = machine(2)
    made.apply(order(place(1)))
    made.apply(order(p.SetPolicy(policy={"filter_scheduler": {"ram_weight_multiplier": -1.0}})))
    made.save(tmp_path)
    again = ServiceMachine()
    again.load(tmp_path)
    assert again.state.policy == {"filter_scheduler": {"ram_weight_multiplier": -1.0}}
    assert made.apply(order(place(2))) == again.apply(order(place(2)))
    assert again.state.engine.sequence == 2


def test_a_policy_that_is_none_is_refused_and_the_old_one_stays() -> None:
    made = machine(1)
    with pytest.raises(UnknownName):
        made.apply(order(p.SetPolicy(policy={"filter_scheduler": {"nonsense": 1}})))
    assert made.apply(order(place(1))).placed


# quotas


def limited(limits: dict[str, int]) -> ServiceMachine:
    """A domain with two projects, one with limits."""
    made = machine()
    for command in (
        c.CreateDomain(id="d"),
        c.CreateProject(id="p1", domain="d"),
        c.CreateProject(id="p2", parent="p1"),
        c.SetLimits(scope="project:p1", limits=limits),
    ):
        made.apply(order(command))
    return made


@pytest.mark.parametrize("limits", [{"instances": 2}, {"VCPU": 2}, {"MEMORY_MB": 2048}])
def test_a_limit_holds_exactly(limits: dict[str, int]) -> None:
    made = limited(limits)
    made.apply(order(place(1, project="p1")))
    made.apply(order(place(2, project="p2")))
    with pytest.raises(QuotaExceeded, match="a limit above project:p2 leaves too few"):
        made.apply(order(place(3, project="p2")))
    made.apply(order(p.Release(uuids=(uuid_of(1),))))
    made.apply(order(place(3, project="p2")))


def test_several_guests_of_one_request_count_together() -> None:
    made = limited({"instances": 2})
    with pytest.raises(QuotaExceeded):
        made.apply(order(place(1, 2, 3, project="p1")))
    made.apply(order(place(1, 2, project="p1")))


def test_what_the_hosts_refuse_takes_no_quota_from_those_behind_it() -> None:
    made = limited({"VCPU": 100})
    requests = (asked(1, project="p1", vcpus=99), asked(2, project="p1", vcpus=9), asked(3, project="p1", vcpus=91))
    answer = made.apply(order(p.PlaceMany(requests=requests)))
    assert {position: code for position, (code, _) in answer.refusals.items()} == {
        0: "no_valid_host",
        2: "no_valid_host",
    }
    assert used(made, "project:p1")["VCPU"] == 9


def test_a_resize_beyond_the_limit_is_refused_and_changes_nothing() -> None:
    made = limited({"VCPU": 4})
    made.apply(order(place(1, project="p1", vcpus=3)))
    with pytest.raises(QuotaExceeded):
        made.apply(order(p.Resize(uuid=uuid_of(1), request=asked(vcpus=5))))
    assert used(made, "project:p1")["VCPU"] == 3
    assert used(made, "domain:d")["VCPU"] == 3
    made.apply(order(p.Resize(uuid=uuid_of(1), request=asked(vcpus=4))))


# pools


def pooled(*, exclusive: bool) -> ServiceMachine:
    made = limited({})
    for command in (
        c.CreateProject(id="other", domain="d"),
        c.CreatePool(id="gold", hosts=("node-1",), exclusive=exclusive),
        c.GrantPool(id="gold", scope="project:p1"),
    ):
        made.apply(order(command))
    return made


@pytest.mark.parametrize("exclusive", [False, True])
def test_whoever_is_granted_a_pool_places_on_its_hosts_only(exclusive: bool) -> None:
    made = pooled(exclusive=exclusive)
    for number in range(3):
        assert made.apply(order(place(number, project="p2"))).host == "node-1"
    made.apply(order(c.UngrantPool(id="gold", scope="project:p1")))
    assert made.apply(order(place(9, project="p2"))).host != "node-1"


def test_an_exclusive_pools_hosts_are_for_nobody_else_and_a_shared_ones_are() -> None:
    found = {}
    for exclusive in (False, True):
        made = pooled(exclusive=exclusive)
        found[exclusive] = {made.apply(order(place(number, project="other"))).host for number in range(6)}
    assert found == {False: {"node-0", "node-1", "node-2"}, True: {"node-0", "node-2"}}


def test_a_pools_hosts_come_and_go_and_an_edit_of_aggregates_leaves_them_in_it() -> None:
    made = pooled(exclusive=True)
    made.apply(order(c.SetPoolHosts(id="gold", add=("node-2",), remove=("node-1",))))
    made.apply(order(p.SetAggregates(name="node-2", aggregates=())))
    assert made.state.pools.hosts(made.state.fleet, "gold") == ["node-2"]
    assert made.apply(order(place(1, project="p1"))).host == "node-2"
    made.apply(order(c.DeletePool(id="gold")))
    assert {made.apply(order(place(number, project="other"))).host for number in range(10, 16)} >= {"node-2"}


def test_a_user_cannot_give_himself_a_pool() -> None:
    with pytest.raises(InvalidValue, match="service's own"):
        machine().apply(order(place(1, scheduler_hints={"_hostler_pools": ["x"]})))


# the same whatever way


def test_a_result_can_be_kept_and_read_again() -> None:
    made = machine()
    for result in (
        made.apply(order(place(1))),
        made.apply(order(p.PlaceMany(requests=(asked(2), asked(2))))),
        made.apply(order(p.Release(uuids=(uuid_of(1),)))),
        None,
    ):
        assert made.decode_result(made.encode_result(result)) == result


numbers = st.integers(1, 12)
projects = st.sampled_from(["", "p1", "p2", "other"])
placements = st.builds(
    lambda number, project, vcpus: place(number, project=project, vcpus=vcpus),
    numbers,
    projects,
    st.sampled_from([1, 1, 1, 2, 20]),
)
nameless = st.builds(lambda project, vcpus: place(project=project, vcpus=vcpus), projects, st.sampled_from([1, 2, 20]))
placements = st.one_of(placements, nameless)
many = st.lists(placements, max_size=4).map(lambda each: p.PlaceMany(requests=tuple(place.request for place in each)))
changes: st.SearchStrategy[Any] = st.one_of(
    placements,
    placements,
    placements,
    many,
    st.builds(lambda number: p.Release(uuids=(uuid_of(number),)), numbers),
    st.builds(lambda number, vcpus: p.Resize(uuid=uuid_of(number), request=asked(vcpus=vcpus)), numbers, numbers),
    st.builds(lambda number: p.Move(uuid=uuid_of(number), request=asked()), numbers),
    st.builds(
        lambda scope, limit: c.SetLimits(scope=scope, limits={"instances": limit, "VCPU": max(2 * limit, -1)}),
        st.sampled_from(["project:p1", "project:p2", "domain:d"]),
        st.integers(-1, 4),
    ),
    st.builds(lambda project: c.GrantPool(id="gold", scope=f"project:{project}"), st.sampled_from(["p1", "other"])),
    st.builds(lambda project: c.UngrantPool(id="gold", scope=f"project:{project}"), st.sampled_from(["p1", "other"])),
    st.builds(lambda number: p.RemoveHost(name=f"node-{number % 3}"), numbers),
    st.builds(lambda number: p.SetService(name=f"node-{number % 3}", disabled=number % 2 == 0), numbers),
)


def outcome(made: ServiceMachine, each: Order) -> Any:
    try:
        return made.apply(each)
    except HostlerError as error:
        return error


def plain(result: Any) -> Any:
    return (result.code, str(result)) if isinstance(result, HostlerError) else msgspec.to_builtins(result)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(commands=st.lists(changes, max_size=25), cut=st.integers(0, 25), size=st.integers(1, 9))
def test_batches_and_snapshots_change_no_answer(
    tmp_path_factory: pytest.TempPathFactory, commands: list[AnyCommand], cut: int, size: int
) -> None:
    orders = [order(command, now=NOW + number // 7) for number, command in enumerate(commands)]
    single, batched = pooled(exclusive=True), pooled(exclusive=True)
    wanted = [plain(outcome(single, each)) for each in orders]
    got: list[Any] = []
    for start in range(0, len(orders), size):
        if start <= cut < start + size:
            folder = tmp_path_factory.mktemp("snapshot")
            batched.save(folder)
            batched = ServiceMachine()
            batched.load(folder)
        got += map(plain, batched.apply_batch(orders[start : start + size]))
    assert got == wanted
    assert msgspec.to_builtins(batched.state.usage) == msgspec.to_builtins(single.state.usage)
    single.state.fleet.check()
    check_usage(single)
    journal = [single.decode(single.encode(each)) for each in orders]
    again = pooled(exclusive=True)
    assert [plain(outcome(again, each)) for each in journal] == wanted


def check_usage(made: ServiceMachine) -> None:
    """What is counted is what the guests hold, and no limit that was set before is passed by a later placement."""
    total: dict[str, int] = {}
    fleet = made.state.fleet
    for uuid in {uuid for row in np.flatnonzero(fleet.is_host).tolist() for uuid in fleet.instances(row)}:
        project, amounts = made.state.holding(uuid)
        for name, amount in amounts.items() if project in ("p1", "p2", "other") else ():
            total[name] = total.get(name, 0) + amount
    assert used(made, "domain:d") == total


def test_a_malformed_spec_names_the_field() -> None:
    for spec, field in (
        ({"flavor": {"name": "f", "vcpus": "x", "memory_mb": 1}}, "spec.flavor.vcpus"),
        ({"flavour": {}}, "field"),
        ({"flavor": {"name": "f", "vcpus": 1, "memory_mb": 1, "color": 1}}, "field"),
        (7, "spec"),
    ):
        raw = msgspec.Raw(msgspec.msgpack.encode(spec))
        with pytest.raises(HostlerError) as error:
            machine().apply(order(p.Place(request=p.Asked(spec=raw))))
        assert error.value.field == field


def test_a_host_that_is_there_is_refused() -> None:
    with pytest.raises(DuplicateName):
        machine(1).apply(order(p.AddHosts(hosts=hosts(1))))


def test_requests_that_bring_their_uuids_and_others_are_decided_in_one_batch() -> None:
    decisions = machine().apply_batch([order(place(1)), order(place(2)), order(place())])
    assert [isinstance(decision, Decision) and decision.placed for decision in decisions] == [True] * 3


def test_disabled_hosts_and_migrations_without_a_type_are_in_a_replay_of_release_0_1_what_they_were() -> None:
    migration, guest = uuid_of(2), uuid_of(1)
    for rules, instances, placed in ((0, 2, True), (1, 1, False)):
        made = ServiceMachine()

        def do(command: Any, made: ServiceMachine = made, rules: int = rules) -> Any:
            return made.apply(msgspec.structs.replace(order(command), rules=rules))

        do(p.AddHosts(hosts=hosts(1)))
        do(place(1, project="p"))
        provider = made.state.fleet.uuid(made.state.fleet.row("node-0"))
        held = dict(made.state.fleet.consumer(guest).resources)
        consumers = {
            guest: api.ConsumerAllocations(allocations={}, project_id="p", user_id="u"),
            migration: api.ConsumerAllocations(allocations={provider: held}, project_id="p", user_id="u"),
        }
        both = {guest: api.ConsumerAllocations(allocations={provider: held}, project_id="p", user_id="u")}
        do(PlacementWrite(command=api.SetAllocations(consumers=consumers, now=NOW, infer_types=bool(rules))))
        do(PlacementWrite(command=api.SetAllocations(consumers=both, now=NOW, infer_types=bool(rules))))
        assert made.state.fleet.column("num_instances").tolist() == [instances]
        do(p.SetService(name="node-0", disabled=True))
        assert do(place(3, force_hosts=["node-0"])).placed is placed


def test_orders_of_release_0_1_are_decided_by_its_defaults_until_a_newer_one_comes(tmp_path: Path) -> None:
    made = ServiceMachine()
    made.apply(msgspec.structs.replace(order(p.AddHosts(hosts=hosts(1))), rules=0))
    policy = made.state.engine.policy
    assert (policy.own.prepare, policy.own.nova_release) == (False, "33")
    made.save(tmp_path)
    loaded = ServiceMachine()
    loaded.load(tmp_path)
    assert loaded.state.engine.policy == made.state.engine.policy
    for each in (made, loaded):
        each.apply(order(place(1)))
        assert each.state.engine.policy.own.prepare
    assert made.state.engine.policy == loaded.state.engine.policy
