"""``move`` and ``resize`` place a guest again, all or nothing: it is never without a host, never counted twice, and
stays who it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hostler import (
    Decision,
    Engine,
    Flavor,
    Fleet,
    Host,
    InvalidValue,
    Policy,
    Request,
    RequestSpec,
    UnknownName,
    add_hosts,
)
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import PciPool
from hostler.placement.types.request import PciRequest

from ..numa.values import cell, guest, pinned, topology
from . import commands as c
from . import values
from .dump import dump
from .run import Run, outcome

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

again = st.builds(c.Replace, c.numbers, c.plain_asks, st.booleans())
quick = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))


@settings(quick)
@given(
    values.fleets(),
    st.one_of(st.just(Policy.nova_default()), values.policies()),
    values.some_specs,
    st.lists(c.groups, max_size=2),
    st.lists(c.placements, min_size=1, max_size=4),
    st.lists(st.one_of(again, again, again, c.changes), min_size=2, max_size=8),
)
def test_guests_are_placed_again_as_the_oracle_does(
    setup: values.Fleet,
    policy: Policy,
    specs: tuple[RequestSpec, ...],
    groups: list[c.Command],
    placed: list[c.Command],
    steps: list[c.Command],
) -> None:
    run = Run(setup, [policy], specs)
    for step in (*groups, *placed, *steps):
        run.do(step)


@settings(quick)
@given(
    values.fleets(),
    st.one_of(st.just(Policy.nova_default()), values.policies()),
    values.some_specs,
    st.lists(st.one_of(c.groups, c.placements), min_size=1, max_size=6),
    again,
)
def test_a_guest_stays_who_it_is_and_a_migration_leaves_its_host(
    setup: values.Fleet,
    policy: Policy,
    specs: tuple[RequestSpec, ...],
    steps: list[c.Command],
    command: c.Replace,
) -> None:
    run = Run(setup, [policy], specs)
    for step in steps:
        run.do(step)
    engine, placed = run.engine, sorted(uuid for uuid, each in run.world.guests.items() if each.flavor is not None)
    assume(placed)
    uuid = placed[command.guest % len(placed)]
    before, everything = engine.fleet.consumer(uuid), dump(engine)
    request = Request(spec=run.request(command.ask, (uuid,)).spec, now=command.ask.now)
    decision = outcome(lambda: (engine.move if command.leave else engine.resize)(uuid, request))
    after = engine.fleet.consumer(uuid)
    assert dump(engine)["consumers"].keys() == everything["consumers"].keys()
    if isinstance(decision, HostlerError) or not decision.placed:
        assert after == before
        assert dump(engine)["groups"] == everything["groups"]
    else:
        owner = ("uuid", "project_id", "user_id", "server_group")
        assert [getattr(after, name) for name in owner] == [getattr(before, name) for name in owner]
        assert after.provider == decision.selected.node
        old = engine.fleet._service_host(engine.fleet.row(before.provider))
        assert not command.leave or decision.host != old
    engine.fleet.check()


# single rules

GUEST, OTHER, GROUP = (f"00000000-0000-0000-0000-0000000000{number}" for number in ("01", "02", "aa"))
SMALL, BIG, HUGE = (Flavor(name=f"{vcpus}", vcpus=vcpus, memory_mb=512 * vcpus) for vcpus in (2, 6, 9))


def host(number: int, **fields: Any) -> Host:
    sizes = {"vcpus_total": 8, "cpu_allocation_ratio": 1.0, "total_usable_ram_mb": 8192}
    return Host(**{"host": f"h{number}", **sizes, **fields})


def engine(*hosts: Host, filters: tuple[str, ...] = ("ServerGroupAntiAffinityFilter",)) -> Engine:
    fleet = Fleet()
    add_hosts(fleet, hosts or [host(1), host(2)])
    return Engine(fleet, Policy.from_mapping({"filter_scheduler": {"enabled_filters": list(filters)}}))


def asks(flavor: Flavor = SMALL, **fields: Any) -> Request:
    return Request(spec=RequestSpec(flavor=flavor, **fields))


def on(of: Engine, uuid: str, node: str, flavor: Flavor = SMALL, group: str | None = None, **fields: Any) -> Decision:
    """A guest put on a host by force."""
    request = asks(flavor, force_nodes=(node,), **fields)
    decision = of.place(request.with_changes(instance_uuids=(uuid,), server_group=group, project_id="p", user_id="u"))
    assert decision.placed
    return decision


def free(of: Engine, name: str = "VCPU") -> dict[str, int]:
    known = {node: of.fleet.inventory(node)[name] for node in ("h1", "h2")}
    return {node: inventory.total - used for node, (inventory, used) in known.items()}


def test_a_resize_in_place_needs_only_the_difference() -> None:
    one = engine(host(1), host(2, vcpus_total=2))
    on(one, GUEST, "h1", BIG)
    assert one.resize(GUEST, asks(replace(BIG, vcpus=8))).host == "h1"
    assert free(one) == {"h1": 0, "h2": 2}
    assert one.resize(GUEST, asks(SMALL)).placed
    assert sum(free(one).values()) == 8


def test_a_resize_in_place_that_is_to_hold_both_is_a_guest_of_its_own() -> None:
    one = engine(host(1), host(2, vcpus_total=2))
    on(one, GUEST, "h1", BIG)
    assert not one.place(asks(BIG).with_changes(instance_uuids=(OTHER,))).placed


def test_a_resize_to_what_no_host_can_give_leaves_the_guest_as_it_was() -> None:
    two = engine()
    on(two, GUEST, "h1")
    before = dump(two)["consumers"]
    decision = two.resize(GUEST, asks(HUGE))
    assert decision.refusal is not None
    assert dump(two)["consumers"] == before
    assert free(two) == {"h1": 6, "h2": 8}


def test_a_migration_is_refused_where_only_its_own_host_has_room() -> None:
    two = engine(host(1), host(2, vcpus_used=7))
    on(two, GUEST, "h1")
    decision = two.move(GUEST, asks())
    assert {stage: count for stage, count in decision.removed.items() if count} == {"VCPU": 1, "host_selection": 1}
    assert two.fleet.consumer(GUEST).provider == "h1"


def test_a_migration_leaves_all_nodes_of_its_service_host() -> None:
    blades = engine(host(1, host="b", nodename="h1"), host(2, host="b", nodename="h2"), host(3, vcpus_used=4))
    on(blades, GUEST, "h1")
    assert blades.move(GUEST, asks()).host == "h3"


def test_hosts_that_the_request_ignores_stay_ignored() -> None:
    three = engine(host(1), host(2), host(3, vcpus_used=4))
    on(three, GUEST, "h1")
    assert three.what_if().move(GUEST, asks()).host == "h2"
    assert three.move(GUEST, asks(ignore_hosts=("h2",))).host == "h3"


def test_the_guest_keeps_owner_and_group_unless_the_request_names_others() -> None:
    two = engine()
    two.fleet.add_server_group(GROUP, "anti-affinity")
    on(two, GUEST, "h1", group=GROUP)
    two.move(GUEST, asks())
    kept = two.fleet.consumer(GUEST)
    assert (kept.project_id, kept.user_id, kept.server_group) == ("p", "u", GROUP)
    two.resize(GUEST, asks().with_changes(project_id="q", user_id="v"))
    given = two.fleet.consumer(GUEST)
    assert (given.project_id, given.user_id, given.server_group) == ("q", "v", GROUP)


def test_anti_affinity_keeps_members_apart_but_not_a_member_from_its_own_host() -> None:
    two = engine()
    two.fleet.add_server_group(GROUP, "anti-affinity")
    on(two, GUEST, "h1", group=GROUP)
    on(two, OTHER, "h2", group=GROUP)
    assert two.what_if().resize(GUEST, asks(BIG)).host == "h1"
    refused = two.move(GUEST, asks())
    assert refused.removed["ServerGroupAntiAffinityFilter"] == 1
    two.release(OTHER)
    assert two.move(GUEST, asks()).host == "h2"
    assert two.place(asks().with_changes(server_group=GROUP)).host == "h1"


def test_affinity_lets_a_lone_member_move_and_holds_one_of_two() -> None:
    two = engine(filters=("ServerGroupAffinityFilter",))
    two.fleet.add_server_group(GROUP, "affinity")
    on(two, GUEST, "h1", group=GROUP)
    assert two.move(GUEST, asks()).host == "h2"
    on(two, OTHER, "h2", group=GROUP)
    assert not two.move(GUEST, asks()).placed
    assert two.resize(GUEST, asks(replace(SMALL, vcpus=6))).host == "h2"


def test_cpus_and_devices_go_with_the_guest() -> None:
    pools = (PciPool(count=1, numa_node=None, tags={"vendor_id": "8086"}),)
    cells: dict[str, Any] = {"numa_topology": topology(cell(0)), "pci_pools": pools}
    two = engine(host(1, **cells), host(2, **cells), filters=("NUMATopologyFilter", "PciPassthroughFilter"))
    wish = PciRequest(count=1, spec=({"vendor_id": "8086"},))
    wants: dict[str, Any] = {"numa_topology": guest(pinned((0, 1, 2, 3))), "pci_requests": (wish,)}
    on(two, GUEST, "h1", **wants)
    started = dump(two)["providers"]
    assert two.fits(asks(**wants)).by_host == {"h2": 1}
    assert two.move(GUEST, asks(**wants)).host == "h2"
    assert two.fits(asks(**wants)).by_host == {"h1": 1}
    assert two.resize(GUEST, asks(**wants, ignore_hosts=("h1",))).host == "h2"
    assert two.move(GUEST, asks(**wants)).host == "h1"
    for name in ("numa_topology", "pci_pools"):
        assert [two_side[name] for two_side in dump(two)["providers"].values()] == [
            each[name] for each in started.values()
        ]
    two.fleet.check()


def test_a_guest_that_was_built_is_being_built_again() -> None:
    two = engine()
    on(two, GUEST, "h1")
    two.spawned(GUEST)
    assert list(two.fleet.column("num_io_ops")) == [0, 0]
    two.move(GUEST, asks())
    assert list(two.fleet.column("num_io_ops")) == [0, 1]


@pytest.mark.parametrize("leave", [True, False])
def test_claims_that_fail_leave_the_guest_where_it_is(leave: bool) -> None:
    two = engine()
    on(two, GUEST, "h1")
    before = dump(two)["consumers"], free(two)
    candidates = {two.fleet.uuid(row): ["candidate"] for row in range(2)}
    again = two.move if leave else two.resize
    refused = again(GUEST, asks(BIG), candidates=candidates, claim=lambda *claim: False)
    assert [ok for *_, ok in refused.claims] == [False] * (1 if leave else 2)
    assert (dump(two)["consumers"], free(two)) == before

    def breaks(*claim: object) -> bool:
        raise RuntimeError("the network is down")

    with pytest.raises(RuntimeError):
        again(GUEST, asks(BIG), candidates=candidates, claim=breaks)
    assert (dump(two)["consumers"], free(two)) == before
    two.fleet.check()


@pytest.mark.parametrize("leave", [True, False])
def test_bad_calls_leave_everything(leave: bool) -> None:
    two = engine()
    on(two, GUEST, "h1")
    before = dump(two)
    again = two.move if leave else two.resize
    for uuid, request, error in (
        (OTHER, asks(), UnknownName),
        ("no uuid", asks(), InvalidValue),
        (GUEST, asks(replace(SMALL, vcpus=-1)), InvalidValue),
        (GUEST, asks().with_changes(server_group=GROUP), UnknownName),
        (GUEST, asks().with_changes(now=float("nan")), InvalidValue),
    ):
        with pytest.raises(error):
            again(uuid, request)
        assert dump(two) == before
