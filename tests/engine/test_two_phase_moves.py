"""A move holds both ends until it is confirmed or reverted, and is judged by what was asked for the guest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from hostler import (
    Aggregate,
    Engine,
    Flavor,
    Fleet,
    Host,
    HostReport,
    InUse,
    InvalidValue,
    Policy,
    Request,
    RequestSpec,
    UnknownName,
    add_hosts,
    load_fleet,
    report_hosts,
    save_fleet,
)

from .dump import dump

MEMORY = 16_384


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


GUEST, OTHER, GROUP = uuid(1), uuid(2), uuid(500)


def host(name: str, **fields: Any) -> Host:
    sizes = {"vcpus_total": 4, "cpu_allocation_ratio": 1.0, "total_usable_ram_mb": MEMORY}
    return Host(**{"host": name, **sizes, **fields})


def engine(*hosts: Host) -> Engine:
    fleet = Fleet()
    add_hosts(fleet, hosts or [host("a"), host("b")])
    return Engine(fleet, Policy.nova_default())


def asks(vcpus: int = 4, **fields: Any) -> Request:
    request = {name: fields.pop(name) for name in ("instance_uuids", "server_group") if name in fields}
    return Request(spec=RequestSpec(flavor=Flavor(name=f"f{vcpus}", vcpus=vcpus, memory_mb=1024), **fields), **request)


def place(e: Engine, number: int, vcpus: int = 4, **fields: Any) -> str | None:
    decision = e.place(asks(vcpus, instance_uuids=(uuid(number),), **fields))
    return decision.host if decision.placed else None


def used(e: Engine, name: str) -> int:
    return e.fleet.inventory(name)["VCPU"][1]


def test_both_ends_are_held_until_the_move_is_confirmed() -> None:
    e = engine()
    assert place(e, 1) == "a"
    assert e.begin_move(GUEST, asks()).host == "b"
    assert [used(e, name) for name in "ab"] == [4, 4]
    assert place(e, 2) is None
    assert e.confirm(GUEST).source == "a"
    assert [used(e, name) for name in "ab"] == [0, 4]
    assert e.moves() == []
    e.fleet.check()


def test_a_revert_needs_no_room() -> None:
    e = engine()
    place(e, 1)
    before = dump(e)["consumers"]
    e.begin_move(GUEST, asks())
    e.revert(GUEST)
    assert dump(e)["consumers"] == before
    assert [used(e, name) for name in "ab"] == [4, 0]
    e.fleet.check()


@pytest.mark.parametrize("end", ["revert", "confirm"])
def test_a_move_whose_source_was_given_back_leaves_the_guest_on_its_target(end: str) -> None:
    e = engine()
    place(e, 1)
    e.begin_move(GUEST, asks())
    e.fleet.release([e.fleet.consumer_id(e.moves()[0].migration)])
    getattr(e, end)(GUEST)
    assert [used(e, name) for name in "ab"] == [0, 4]
    assert e.moves() == []
    e.fleet.check()


def test_a_resize_on_one_host_takes_both_sizes() -> None:
    e = engine(host("only"))
    place(e, 1, vcpus=1)
    assert not e.begin_resize(GUEST, asks(4)).placed, "5 are needed while both are held"
    assert e.begin_resize(GUEST, asks(3)).host == "only"
    assert used(e, "only") == 4
    e.revert(GUEST)
    assert used(e, "only") == 1


def test_a_refused_move_leaves_all_as_it_was() -> None:
    e = engine(host("a"))
    place(e, 1)
    before = dump(e)["consumers"]
    assert not e.begin_move(GUEST, asks()).placed
    assert dump(e)["consumers"] == before
    assert e.moves() == []


def test_a_guest_stands_on_both_hosts_while_it_moves() -> None:
    e = engine(host("a"), host("b"), host("c"))
    policy = Policy.from_mapping({"filter_scheduler": {"enabled_filters": ["DifferentHostFilter"]}})
    e = Engine(e.fleet, policy)
    place(e, 1)
    e.begin_move(GUEST, asks())
    assert [GUEST in e.fleet.instances(row) for row in range(3)] == [True, True, False]
    assert place(e, 2, vcpus=1, scheduler_hints={"different_host": (GUEST,)}) == "c"


def test_both_ends_count_in_a_server_group() -> None:
    e = engine(host("a"), host("b"), host("c"))
    e.fleet.add_server_group(GROUP, "anti-affinity")
    place(e, 1, vcpus=1, server_group=GROUP)
    assert e.begin_move(GUEST, asks(1)).host == "b"
    assert place(e, 2, vcpus=1, server_group=GROUP) == "c"
    assert place(e, 3, vcpus=1, server_group=GROUP) is None


def test_a_resize_may_stay_where_its_group_forbids_others() -> None:
    e = engine(host("a"))
    e.fleet.add_server_group(GROUP, "anti-affinity")
    place(e, 1, vcpus=1, server_group=GROUP)
    assert e.begin_resize(GUEST, asks(2)).host == "a"


def test_a_move_is_judged_by_zone_and_trait_and_cell() -> None:
    zone = {"aggregates": (Aggregate(uuid=uuid(900), name="z", metadata={"availability_zone": "z1"}),)}
    avx = {"traits": frozenset({"HW_CPU_X86_AVX512F"})}
    e = engine(host("a", **zone, **avx), host("plain"), host("zone", **zone), host("b", **zone, **avx))
    flavor = Flavor(name="f", vcpus=1, memory_mb=1, extra_specs={"trait:HW_CPU_X86_AVX512F": "required"})
    request = Request(spec=RequestSpec(flavor=flavor, availability_zone="z1"), instance_uuids=(GUEST,))
    assert e.place(request).host == "a"
    assert e.begin_move(GUEST, request).host == "b"


def test_a_guest_stays_in_its_cell() -> None:
    e = engine(host("a", cell_uuid=uuid(801)), host("b", cell_uuid=uuid(802)), host("c", cell_uuid=uuid(801)))
    place(e, 1)
    assert e.begin_move(GUEST, asks()).host == "c"


def test_forced_hosts_do_not_bind_a_move() -> None:
    e = engine()
    place(e, 1, force_hosts=("a",))
    assert e.begin_move(GUEST, asks(force_hosts=("a",))).host == "b"


def test_a_guest_may_be_unshelved_to_the_host_that_it_was_on() -> None:
    e = engine()
    place(e, 1, vcpus=2)
    assert e.what_if().begin_move(GUEST, asks(2), kind="cold_migrate").host == "b"
    assert e.begin_move(GUEST, asks(2, ignore_hosts=("b",)), kind="unshelve").host == "a"
    assert used(e, "a") == 4
    e.confirm(GUEST)
    assert used(e, "a") == 2


def test_only_a_host_that_is_down_is_evacuated() -> None:
    e = engine()
    place(e, 1)
    with pytest.raises(InvalidValue, match="the compute service of a is up"):
        e.begin_move(GUEST, asks(), kind="evacuate")
    e.fleet.set_service("a", forced_down=True)
    assert e.begin_move(GUEST, asks(), kind="evacuate").host == "b"


def test_a_disabled_host_is_evacuated_once_its_service_is_silent() -> None:
    e = engine()
    place(e, 1)
    e.fleet.set_service("a", disabled=True)
    with pytest.raises(InvalidValue, match="the compute service of a is up"):
        e.begin_move(GUEST, asks(), kind="evacuate")
    e.fleet.heartbeats(["a"], 100.0)
    with pytest.raises(InvalidValue, match="the compute service of a is up"):
        e.begin_move(GUEST, asks().with_changes(now=110.0), kind="evacuate")
    assert e.begin_move(GUEST, asks().with_changes(now=500.0), kind="evacuate").host == "b"


def test_one_move_at_a_time() -> None:
    e = engine()
    place(e, 1, vcpus=1)
    e.begin_move(GUEST, asks(1))
    for again in (e.begin_move, e.begin_resize, e.move, e.resize):
        with pytest.raises(InUse):
            again(GUEST, asks(1))
    e.confirm(GUEST)
    for end in (e.confirm, e.revert):
        with pytest.raises(UnknownName):
            end(GUEST)


def test_a_guest_is_released_with_both_ends() -> None:
    e = engine()
    place(e, 1)
    e.begin_move(GUEST, asks())
    assert e.release(GUEST) == 1
    assert [used(e, name) for name in "ab"] == [0, 0]
    assert e.moves() == []
    e.fleet.check()


@pytest.mark.parametrize(("end", "left"), [("revert", [4, 0]), ("confirm", [0, 4])])
def test_a_move_ends_when_its_time_is_over(end: Any, left: list[int]) -> None:
    e = engine()
    place(e, 1)
    e.begin_move(GUEST, asks(), expires=100.0, on_expiry=end)
    assert e.expire_moves(99.9) == []
    assert [move.instance for move in e.expire_moves(100.0)] == [GUEST]
    assert [used(e, name) for name in "ab"] == left


def test_a_guest_that_only_its_host_knows_can_be_moved_and_come_back() -> None:
    e = engine(host("a", instances={GUEST: {"os_distro": "x"}}, vcpus_used=2, free_ram_mb=MEMORY - 1024), host("b"))
    assert e.begin_move(GUEST, asks()).host == "b"
    assert [used(e, name) for name in "ab"] == [2, 4]
    e.revert(GUEST)
    assert [used(e, name) for name in "ab"] == [2, 0]
    assert e.fleet.consumer(GUEST).provider == "a"
    e.fleet.check()


def test_moves_are_in_the_file(tmp_path: Any) -> None:
    e = engine()
    place(e, 1)
    e.begin_move(GUEST, asks(), expires=5.0)
    save_fleet(e.fleet, tmp_path / "fleet")
    loaded = Engine(load_fleet(tmp_path / "fleet"))
    assert loaded.moves() == e.moves()
    loaded.revert(GUEST)
    assert used(loaded, "b") == 0
    loaded.fleet.check()


def test_a_fork_may_try_a_move() -> None:
    e = engine()
    place(e, 1)
    before = dump(e)
    trial = e.what_if()
    trial.begin_move(GUEST, asks())
    trial.confirm(GUEST)
    assert dump(e) == before


# any order of placements, moves, their ends and reports, against sums over who holds what


class Moving(RuleBasedStateMachine):
    """``ends``: what each guest holds, by host, the place it moves to last."""

    @initialize()
    def start(self) -> None:
        self.engine = engine(*map(host, "abc"))
        self.ends: dict[str, list[tuple[str, int]]] = {}
        self.number, self.time = 0, 100.0

    def pick(self, number: int, moving: bool) -> str | None:
        some = sorted(uuid for uuid, ends in self.ends.items() if (len(ends) == 2) == moving)
        return some[number % len(some)] if some else None

    @rule(vcpus=st.integers(1, 3))
    def place(self, vcpus: int) -> None:
        self.number += 1
        chosen = place(self.engine, self.number, vcpus)
        if chosen is not None:
            self.ends[uuid(self.number)] = [(chosen, vcpus)]

    @rule(number=st.integers(0, 9), vcpus=st.integers(1, 3), resize=st.booleans())
    def begin(self, number: int, vcpus: int, resize: bool) -> None:
        one = self.pick(number, moving=False)
        if one is None:
            return
        size = vcpus if resize else self.ends[one][0][1]
        decision = self.engine.begin_move(one, asks(size), kind="resize" if resize else "live_migrate")
        if decision.placed:
            assert resize or decision.host != self.ends[one][0][0]
            self.ends[one].append((decision.host, size))

    @rule(number=st.integers(0, 9), confirm=st.booleans())
    def end(self, number: int, confirm: bool) -> None:
        one = self.pick(number, moving=True)
        if one is not None:
            (self.engine.confirm if confirm else self.engine.revert)(one)
            del self.ends[one][0 if confirm else 1]

    @rule(number=st.integers(0, 9), moving=st.booleans())
    def release(self, number: int, moving: bool) -> None:
        one = self.pick(number, moving)
        if one is not None:
            self.engine.release(one)
            del self.ends[one]

    @rule(name=st.sampled_from("abc"), complete=st.booleans())
    def report(self, name: str, complete: bool) -> None:
        """The tracker of a host counts the guests that are there or leaving; a late one misses those that come."""
        self.time += 1
        leaving = {
            one: vcpus for one, ends in self.ends.items() for at, vcpus in ends[:1] if at == name and len(ends) == 2
        }
        here = {one: vcpus for one, ends in self.ends.items() for at, vcpus in ends if at == name and len(ends) == 1}
        coming = {one: ends[1][1] for one, ends in self.ends.items() if len(ends) == 2 and ends[1][0] == name}
        counted = [*leaving.values(), *here.values(), *(coming.values() if complete else ())]
        named = {**leaving, **here, **(coming if complete else {})}
        if not complete and leaving.keys() & coming.keys():
            return  # one uuid, two sizes: a report names both or none
        known = host(name, vcpus_used=sum(counted), free_ram_mb=MEMORY - 1024 * len(counted), num_instances=len(named))
        report_hosts(self.engine.fleet, [HostReport(host=known, at=self.time, includes=frozenset(named))])

    @invariant()
    def both_ends_are_counted_once(self) -> None:
        for name in "abc":
            held = sum(vcpus for ends in self.ends.values() for at, vcpus in ends if at == name)
            assert used(self.engine, name) == held
            assert self.engine.fleet.column("vcpus_used")[self.engine.fleet.row(name)] == held
        assert len(self.engine.fleet.drift()) == 0
        assert [move.instance for move in self.engine.moves()] == sorted(
            one for one, ends in self.ends.items() if len(ends) == 2
        )

    def teardown(self) -> None:
        self.engine.fleet.check()


@pytest.mark.property
@pytest.mark.kernel_twin
def test_no_order_of_moves_and_reports_loses_or_doubles_an_end() -> None:
    machine = settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Moving, settings=machine)
