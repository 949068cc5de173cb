"""Whose a guest is, is a fact of the guest: it does not change because names, projects or users come and go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostler.core import engine_commands as p
from hostler.core.machine import queries as q
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import PlacementWrite
from hostler.core.machine.what_if import WhatIf
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.errors import NotAllowed, QuotaExceeded
from hostler.placement.api import commands as api
from hostler.placement.fleet.aggregates import NONE
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import Aggregate, Host
from tests.core.orders import NOW, hosts, order, place, uuid_of

from .worlds import asking, do, node_of, old, placed, refused, replayed, two_domains


def test_a_project_does_not_take_over_guests_that_were_placed_under_its_name() -> None:
    made = two_domains()
    do(made, place(1, project="payroll"))
    by_guests = refused(made, c.CreateProject(id="payroll", domain="b"), "bea")
    by_a_project = refused(made, c.CreateProject(id="a1", domain="b"), "bea")
    assert by_guests[0] == by_a_project[0] == "duplicate_name"
    assert by_guests[1].replace("payroll", "a1") == by_a_project[1]
    assert refused(made, c.CreateProject(id="payroll", domain="b"), "@local")[0] == "duplicate_name"
    with pytest.raises(NotAllowed):
        q.answer(made.state, "bea", q.Instance(uuid=uuid_of(1)))
    assert made.state.usage.of("domain:b") == {}


def test_a_cloud_admin_has_a_project_adopt_its_guests_which_are_charged_from_then_on() -> None:
    made = two_domains()
    do(made, place(1, project="payroll", vcpus=4))
    do(made, c.CreateProject(id="payroll", domain="b", adopt=True), user="root")
    assert made.state.usage.of("domain:b")["VCPU"] == 4
    do(made, p.Release(uuids=(uuid_of(1),)), user="bea")
    assert made.state.usage.of("domain:b") == {}
    do(made, c.DeleteProject(id="payroll"), user="bea")


def test_the_sums_are_those_of_all_guests_after_any_change_of_the_tree() -> None:
    made = two_domains()
    do(made, c.CreateProject(id="b2", parent="b1"), place(1, project="b2"), place(2, project="b1"), place(3))
    do(made, place(4, project="other"), c.CreateProject(id="other", parent="b2", adopt=True))
    before = dict(made.state.usage.by_scope)
    assert before["domain:b"]["instances"] == 3
    made.state.sum_up()
    assert made.state.usage.by_scope == before


def test_a_journal_of_the_first_rules_is_carried_out_under_these_and_then_summed_up_anew() -> None:
    made = two_domains()
    orders = [
        old(place(1, project="payroll")),
        old(c.CreateProject(id="payroll", domain="b"), "bea"),
        old(p.Release(uuids=(uuid_of(1),)), "bea"),
        old(place(2, project="b1", ignore_hosts=["node-0"]), "bob"),
    ]
    outcomes = replayed(made, *orders)
    assert not any(isinstance(outcome, HostlerError) for outcome in outcomes)


def test_old_orders_make_the_same_state_whatever_comes_after(tmp_path: Path) -> None:
    def first(made: ServiceMachine) -> list[Any]:
        return replayed(
            made,
            old(p.AddHosts(hosts=hosts(2))),
            old(c.CreateDomain(id="b")),
            old(place(1, project="payroll", vcpus=2)),
            old(c.CreateProject(id="payroll", domain="b")),
        )

    made = ServiceMachine()
    first(made)
    assert made.state.rules == 0
    assert made.state.usage.of("domain:b") == {}  # as it was then
    made.save(tmp_path)
    loaded = ServiceMachine()
    loaded.load(tmp_path)
    for each in (made, loaded):
        do(each, c.CreateDomain(id="c"))
        assert each.state.usage.of("domain:b")["VCPU"] == 2  # as it is


# pools


def pooled() -> ServiceMachine:
    """node-0 is of a pool that a1 is granted, node-1 of an exclusive one of b1's; all hosts take what is asked for."""
    made = two_domains()
    do(
        made,
        c.CreatePool(id="tin", hosts=("node-0",)),
        c.GrantPool(id="tin", scope="project:a1"),
        c.CreatePool(id="gold", hosts=("node-1",), exclusive=True),
        c.GrantPool(id="gold", scope="project:b1"),
    )
    return made


@pytest.mark.parametrize("project", ["", "a1"])
def test_a_guest_that_is_resized_stays_in_the_pools_of_its_project(project: str) -> None:
    made = pooled()
    assert node_of(placed(made, "ann", "a1", 1)) == "node-0"
    for vcpus in range(2, 8):
        request = asking(project, flavor={"vcpus": vcpus})
        assert node_of(do(made, p.Resize(uuid=uuid_of(1), request=request), user="ann")) == "node-0"


def test_a_guest_that_is_moved_stays_in_the_pools_of_its_project() -> None:
    made = pooled()
    placed(made, "bob", "b1", 1)
    assert do(made, p.Move(uuid=uuid_of(1), request=asking(""))).refusal is not None  # gold has one host
    do(made, c.SetPoolHosts(id="gold", add=("node-2",)))
    assert node_of(do(made, p.Move(uuid=uuid_of(1), request=asking("")))) == "node-2"


def test_what_if_keeps_guests_in_their_pools_too() -> None:
    made = pooled()
    placed(made, "ann", "a1", 1)
    for command in (p.Move(uuid=uuid_of(1), request=asking("")), p.Resize(uuid=uuid_of(1), request=asking(""))):
        (tried,) = q.answer(made.state, "@local", WhatIf(commands=[command]))
        assert tried.error is None
        assert tried.result.refusal is not None or tried.result.selections[0].node == "node-0"


def test_old_orders_resize_as_they_did_then() -> None:
    made = pooled()
    placed(made, "ann", "a1", 1)
    placed(made, "ann", "a1", 2, flavor={"memory_mb": 40_000})  # other hosts have more room now
    (outcome,) = replayed(made, old(p.Resize(uuid=uuid_of(1), request=asking("", flavor={"vcpus": 15})), "ann"))
    assert node_of(outcome) != "node-0"


def test_no_door_takes_a_host_out_of_its_pool_but_that_of_pools() -> None:
    made = pooled()
    fleet = made.state.fleet
    row = fleet.row("node-1")
    do(made, p.SetAggregates(name="node-1", aggregates=()))
    do(made, PlacementWrite(command=api.SetAggregates(now=NOW, provider=fleet.uuid(row), aggregates=())))
    assert made.state.pools.hosts(fleet, "gold") == ["node-1"]


def test_no_door_puts_a_host_into_a_pool_or_changes_what_it_is_but_that_of_pools() -> None:
    made = pooled()
    gold = made.state.pools.pools["gold"].uuid
    fake = Aggregate(uuid=gold, name="pool gold", metadata={"hostler_exclusive_pool": "true"})
    provider = made.state.fleet.uuid(made.state.fleet.row("node-3"))
    for command in (
        p.SetAggregates(name="node-3", aggregates=(fake,)),
        p.UpdateAggregate(aggregate=Aggregate(uuid=gold, name="x")),
        p.RemoveAggregate(uuid=gold),
        p.RemoveAggregate(uuid=gold.upper()),
        p.AddProvider(name="new", aggregates=(fake,)),
        p.AddHosts(hosts=(Host(host="new", vcpus_total=1, total_usable_ram_mb=1, aggregates=(fake,)),)),
        PlacementWrite(command=api.SetAggregates(now=NOW, provider=provider, aggregates=(gold,))),
    ):
        refused(made, command, "@local")
    assert made.state.pools.hosts(made.state.fleet, "gold") == ["node-1"]


# server groups


def test_a_group_belongs_to_the_project_that_it_is_kept_for() -> None:
    made = two_domains()
    do(made, p.AddServerGroup(uuid=uuid_of(9), policy="anti-affinity", project_id="a1"), user="ann")
    placed(made, "ann", "a1", 1, group=uuid_of(9))
    of_others, of_none = refused(made, place_in(uuid_of(9)), "bob"), refused(made, place_in(uuid_of(8)), "bob")
    assert of_others[0] == of_none[0] == "not_allowed"
    assert of_others[1].replace(uuid_of(9), "") == of_none[1].replace(uuid_of(8), "")
    refused(made, p.RemoveServerGroup(uuid=uuid_of(9)), "bob")
    do(made, p.RemoveServerGroup(uuid=uuid_of(9)), user="ann")
    assert made.state.usage.of("project:a1")["instances"] == 1
    assert "server_groups" not in made.state.usage.of("project:a1")


def place_in(group: str) -> p.Place:
    return p.Place(request=asking("b1", group=group))


def test_a_group_of_no_project_belongs_to_that_of_its_members() -> None:
    made = two_domains()
    do(made, p.AddServerGroup(uuid=uuid_of(9), policy="anti-affinity"))
    placed(made, "ann", "a1", 1, group=uuid_of(9))
    assert refused(made, place_in(uuid_of(9)), "bob")[0] == "not_allowed"
    placed(made, "ann", "a1", 2, group=uuid_of(9))


def test_a_group_is_not_shared_by_requests_that_come_at_once() -> None:
    orders = [order(p.Place(request=asking(f"{user[0]}1", group=uuid_of(9))), user=user) for user in ("ann", "bob")]
    together, one_by_one = two_domains(), two_domains()
    for made in (together, one_by_one):
        do(made, p.AddServerGroup(uuid=uuid_of(9), policy="affinity"))
    first, second = together.apply_batch(orders)
    assert first.refusal is None
    assert isinstance(second, NotAllowed)
    assert one_by_one.apply(orders[0]) == first
    with pytest.raises(NotAllowed):
        one_by_one.apply(orders[1])


def test_the_groups_of_a_project_are_limited() -> None:
    made = two_domains()
    do(made, c.SetLimits(scope="domain:a", limits={"server_groups": 1}))
    do(made, p.AddServerGroup(uuid=uuid_of(9), policy="affinity", project_id="a1"), user="ann")
    with pytest.raises(QuotaExceeded):
        do(made, p.AddServerGroup(uuid=uuid_of(8), policy="affinity", project_id="a1"), user="ann")
    do(made, p.RemoveServerGroup(uuid=uuid_of(9)), user="ann")
    do(made, p.AddServerGroup(uuid=uuid_of(8), policy="affinity", project_id="a1"), user="ann")


def test_pools_that_were_deleted_leave_no_aggregates_behind() -> None:
    made = two_domains()
    known = len(made.state.fleet.aggregates)
    for number in range(700):
        name = f"pool {number}"
        do(made, c.CreatePool(id=name, hosts=("node-0",), exclusive=True), c.DeletePool(id=name))
    left = made.state.fleet.aggregates[known:]
    assert len(left) < 600
    assert all(each is NONE for each in left)
    made.state.fleet.check()
