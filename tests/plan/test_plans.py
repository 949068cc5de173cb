"""Plans keep every rule in every state between, with both ends of the moves under way held."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from hostler import (
    Balance,
    Consolidate,
    Destination,
    Drain,
    Engine,
    Flavor,
    Fleet,
    Host,
    InvalidValue,
    MakeRoom,
    Plan,
    Policy,
    Request,
    RequestSpec,
    UnknownName,
    add_hosts,
    check_plan,
    load_fleet,
    load_requests,
    save_fleet,
)

from .clouds import Cloud, Guest, Ledger, Machine, engine_of, random_cloud, spec_of, uuid_of


def plain(sizes: list[tuple[int, ...]], memory_mb: int = 16_384) -> Cloud:
    """Hosts of 16 GiB, each with guests of the GiB given."""
    machines = [Machine(f"n{number}", 64, memory_mb, 1_000) for number in range(len(sizes))]
    guests, number = [], 0
    for host, each in enumerate(sizes):
        for gib in each:
            number += 1
            guests.append(Guest(uuid_of(number), f"n{host}", 1, gib * 1_024, 0))
    return Cloud(machines, guests)


def request(gib: int, **fields: Any) -> Request:
    return Request(spec=RequestSpec(flavor=Flavor(name=f"{gib}g", vcpus=1, memory_mb=gib * 1_024)), **fields)


GOALS = {
    "drain one": Drain(hosts=("n1",)),
    "drain in batches": Drain(hosts=("n0", "n2", "n3"), batch=1),
    "consolidate": Consolidate(),
    "balance": Balance(threshold=0.0, margin=0.0, most=1.0),
    "make room": MakeRoom(request=request(30)),
    "make room for three": MakeRoom(request=request(14, instance_uuids=(uuid_of(71), uuid_of(72), uuid_of(73)))),
}


@pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS)
@pytest.mark.parametrize("per_host", [0, 2])
def test_every_state_of_a_plan_keeps_every_rule(goal: Any, per_host: int) -> None:
    moved = 0
    for seed in range(4):
        cloud = random_cloud(seed, load=0.75 if isinstance(goal, MakeRoom) else 0.45)
        engine, asked = engine_of(cloud)
        plan = engine.plan(goal, asked=asked, per_host=per_host)
        ledger = Ledger(cloud)
        assert ledger.broken() is None
        ledger.replay(plan, per_host)
        moved += len(plan.moves)
        if isinstance(goal, Drain) and plan.complete and not goal.batch:
            assert not any(ledger.on(name) for name in goal.hosts)
        assert check_plan(engine, plan, asked=asked).valid
    assert moved


@pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS)
def test_the_engines_own_two_phase_moves_carry_a_plan_out(goal: Any) -> None:
    for seed in range(3):
        engine, asked = engine_of(random_cloud(seed, load=0.75 if isinstance(goal, MakeRoom) else 0.45))
        for wave in engine.plan(goal, asked=asked).waves:
            for move in wave.moves:
                to = Destination(host=move.target, node=move.target)
                spec = dataclasses.replace(asked[move.instance], requested_destination=to)
                decision = engine.begin_move(move.instance, Request(spec=spec), kind=move.kind)
                assert decision.placed, (seed, move, decision.refusal)
            for move in wave.moves:
                engine.confirm(move.instance)
                engine.spawned(move.instance)
        engine.fleet.check()


def test_making_a_plan_changes_nothing_and_is_deterministic() -> None:
    engine, asked = engine_of(random_cloud(3))
    sequence, version = engine.sequence, engine.fleet.column("free_ram_mb").tolist()
    first = engine.plan(Consolidate(), asked=asked)
    assert engine.plan(Consolidate(), asked=asked) == first
    assert (engine.sequence, engine.fleet.column("free_ram_mb").tolist()) == (sequence, version)
    assert engine.moves() == []
    engine.fleet.check()


def test_a_drained_host_is_empty_and_the_plan_says_after_which_wave() -> None:
    cloud = plain([(2, 2, 2, 2, 2), (4,), (4,)])
    engine, asked = engine_of(cloud)
    plan = engine.plan(Drain(hosts=("n0",)), asked=asked, per_host=2)
    assert [len(wave.moves) for wave in plan.waves] == [2, 2, 1]
    assert [wave.empty for wave in plan.waves] == [(), (), ("n0",)]
    assert plan.complete
    assert {move.reason for move in plan.moves} == {"drain n0"}


def test_hosts_drained_in_batches_are_in_use_again_for_later_batches() -> None:
    cloud = plain([(8, 6), (8, 6), ()])
    engine, asked = engine_of(cloud)
    together = engine.plan(Drain(hosts=("n0", "n1")), asked=asked)
    assert not together.complete, "one host is left for 28 GiB"
    rolling = engine.plan(Drain(hosts=("n0", "n1"), batch=1), asked=asked)
    assert rolling.complete
    Ledger(cloud).replay(rolling, 4)


def test_a_drain_makes_room_elsewhere_where_a_guest_fits_nowhere_as_it_is() -> None:
    cloud = plain([(12,), (3, 5), (5,)])  # 12 GiB fit on n2 when its 5 GiB have gone to n1
    engine, asked = engine_of(cloud)
    plan = engine.plan(Drain(hosts=("n0",)), asked=asked, per_host=0)
    assert plan.complete
    assert [(move.source, move.target) for move in plan.moves][-1][0] == "n0"
    assert plan.moves[0].reason == f"make room for {uuid_of(1)}"
    Ledger(cloud).replay(plan, 0)


def test_a_guest_that_cannot_move_is_named_with_the_reason() -> None:
    cloud = plain([(8, 8), (16,)])
    engine, asked = engine_of(cloud)
    plan = engine.plan(Drain(hosts=("n0",)), asked=asked)
    assert not plan.complete
    assert [each.reason for each in plan.left] == ["no host can take it"] * 2
    pinned = engine.plan(Drain(hosts=("n1",)), asked=asked, pinned=frozenset({uuid_of(3)}))
    assert [each.reason for each in pinned.left] == ["it is pinned"]


def test_keep_free_holds_back_room_on_the_targets() -> None:
    engine, asked = engine_of(plain([(4,), (8,), (2,)]))
    assert engine.plan(Drain(hosts=("n0",), keep_free=0.5), asked=asked).moves[0].target == "n2"
    assert not engine.plan(Drain(hosts=("n0",), keep_free=0.8), asked=asked).complete


def test_room_is_made_with_the_fewest_moves() -> None:
    cloud = plain([(6, 6), (9, 3), (5, 5)])
    engine, asked = engine_of(cloud)
    plan = engine.plan(MakeRoom(request=request(10)), asked=asked)
    assert plan.complete
    assert len(plan.moves) == 1
    assert [(m.name, m.after, m.bound) for m in plan.measures] == [("moves", 1, 1), ("instances_with_room", 1, 1)]
    Ledger(cloud).replay(plan, 4)
    for move in plan.moves:
        engine.begin_move(move.instance, Request(spec=asked[move.instance]))
        engine.confirm(move.instance)
    assert engine.place(request(10)).placed


def test_no_moves_are_needed_where_the_request_fits() -> None:
    engine, asked = engine_of(plain([(6,), (9,)]))
    plan = engine.plan(MakeRoom(request=request(10)), asked=asked)
    assert plan.complete
    assert plan.moves == ()


def test_what_no_host_can_hold_is_said() -> None:
    engine, asked = engine_of(plain([(6,), (9,)]))
    plan = engine.plan(MakeRoom(request=request(20)), asked=asked)
    assert not plan.complete
    assert "whatever moves" in plan.summary


def test_consolidation_names_the_bound_beside_the_answer() -> None:
    engine, asked = engine_of(plain([(4,), (4,), (4,), (4,), (9,)]))
    plan = engine.plan(Consolidate(), asked=asked)
    measure = plan.measures[0]
    assert (measure.name, measure.before, measure.after, measure.bound) == ("hosts_in_use", 5, 2, 2)
    assert engine.plan(Consolidate(most=1), asked=asked).measures[0].after == 4


def test_a_balanced_fleet_has_an_empty_plan_and_the_plan_balances_it() -> None:
    cloud = plain([(4, 4, 4), (2,), (2, 2)])
    engine, asked = engine_of(cloud)
    plan = engine.plan(Balance(most=1.0, threshold=0.15), asked=asked)
    assert plan.complete
    assert [(move.source, move.target) for move in plan.moves] == [("n0", "n1")]
    measure = plan.measures[0]
    assert (measure.before, measure.after) == (0.75, 0.5)
    assert measure.bound == pytest.approx(18 / 48)
    Ledger(cloud).replay(plan, 4)
    for move in plan.moves:
        to = Destination(host=move.target, node=move.target)
        spec = dataclasses.replace(asked[move.instance], requested_destination=to)
        assert engine.move(move.instance, Request(spec=spec)).placed
    assert engine.plan(Balance(most=1.0, threshold=0.15), asked=asked).moves == ()
    assert engine.plan(Balance(most=0.0), asked=asked).moves == ()


def test_guests_are_exchanged_where_no_single_move_helps() -> None:
    cloud = plain([(8, 6), (5, 5)])
    engine, asked = engine_of(cloud)
    plan = engine.plan(Balance(most=1.0, threshold=0.0, margin=0.0), asked=asked)
    assert plan.measures[0].after == 13 / 16
    Ledger(cloud).replay(plan, 4)


def test_balancing_settles_on_a_fleet_that_changes() -> None:
    rng = random.Random(1)
    cloud = random_cloud(4, machines=8, plain=True)
    engine, asked = engine_of(cloud)
    goal, moved = Balance(most=1.0, threshold=0.1, margin=0.02), list[int]()
    for number in range(12):
        plan = engine.plan(goal, asked=asked)
        moved.append(len(plan.moves))
        for move in plan.moves:
            to = Destination(host=move.target, node=move.target)
            spec = dataclasses.replace(asked[move.instance], requested_destination=to)
            assert engine.move(move.instance, Request(spec=spec)).placed
        assert engine.plan(goal, asked=asked).moves == (), "a second plan moves nothing back"
        if number % 3 == 2:
            gone = rng.choice(sorted(asked))
            engine.release(gone)
            del asked[gone]
    assert sum(moved[1:]) <= moved[0] + 8


def test_guests_without_a_known_request_are_judged_by_what_they_hold() -> None:
    cloud = plain([(4, 4), (4,), ()])
    engine, _ = engine_of(cloud)
    plan = engine.plan(Drain(hosts=("n0",)))
    assert plan.complete
    assert plan.derived == 2
    Ledger(cloud).replay(plan, 4)


def test_a_guest_without_a_known_request_stays_in_its_zone() -> None:
    cloud = plain([(4,), (4,), (4,)])
    cloud.machines[0].zone = cloud.machines[2].zone = "east"
    engine, _ = engine_of(cloud)
    assert engine.plan(Drain(hosts=("n0",))).moves[0].target == "n2"


def test_a_guest_whose_size_is_not_known_stays() -> None:
    fleet = Fleet()
    add_hosts(fleet, [Host(host="a", vcpus_total=8, total_usable_ram_mb=8_192, instances={uuid_of(1): {}})])
    add_hosts(fleet, [Host(host="b", vcpus_total=8, total_usable_ram_mb=8_192)])
    plan = Engine(fleet).plan(Drain(hosts=("a",)))
    assert [each.reason for each in plan.left] == ["its size is not known"]


def test_a_plan_is_a_document() -> None:
    engine, asked = engine_of(plain([(4, 4), (4,), ()]))
    plan = engine.plan(MakeRoom(request=request(13)), asked=asked, cost=lambda uuid, memory_mb, disk_mb: 1.5)
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.cost == 1.5 * len(plan.moves)
    with pytest.raises(InvalidValue, match="not a plan"):
        Plan.from_json(b"{}")
    for document in (b"\xff", b'{"goal": "\xff"}', b'{"goal": ' + b"[" * 100_000):
        with pytest.raises(InvalidValue, match="not a plan"):
            Plan.from_json(document)
    with pytest.raises(InvalidValue, match="format 9"):
        Plan.from_json(
            plan.to_json().replace(b'"format": 1', b'"format": 9').replace(b"}\n", b"}")
            if b'"format"' in plan.to_json()
            else b'{"goal":{},"summary":"","complete":true,"format":9}'
        )


def test_a_later_state_is_checked_and_differences_are_named() -> None:
    engine, asked = engine_of(plain([(4, 4), (4,), ()]))
    plan = engine.plan(Drain(hosts=("n0",)), asked=asked)
    engine.release(uuid_of(1))
    found = check_plan(engine, plan, asked=asked)
    assert not found.valid
    assert [(each.instance, each.reason) for each in found.differences] == [(uuid_of(1), "the instance is gone")]
    assert "n0" in found.changed


def test_a_plan_is_taken_back() -> None:
    cloud = plain([(4, 4), (4,), ()])
    engine, asked = engine_of(cloud)
    plan = engine.plan(Drain(hosts=("n0",)), asked=asked)
    ledger = Ledger(cloud)
    ledger.replay(plan, 4)
    ledger.replay(plan.rollback(), 4)
    assert {uuid: hosts[0] for uuid, hosts in ledger.at.items()} == {guest.uuid: guest.host for guest in cloud.guests}
    assert len(plan.rollback(waves=0).moves) == 0


def test_limits_beside_the_fleet_are_kept_while_moves_run() -> None:
    class OneAtATime:
        def __init__(self) -> None:
            self.under_way = self.most = 0

        def begin(self, project_id: str, amounts: Any) -> bool:
            if self.under_way:
                return False
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            return True

        def end(self, project_id: str, amounts: Any) -> None:
            self.under_way -= 1

    engine, asked = engine_of(plain([(2, 2, 2), ()]))
    plan = engine.plan(Drain(hosts=("n0",)), asked=asked, admission=OneAtATime())
    assert [len(wave.moves) for wave in plan.waves] == [1, 1, 1]


@pytest.mark.parametrize(
    ("goal", "error"),
    [
        (Drain(hosts=()), "at least one host"),
        (Drain(hosts=("n0", "n0")), "named twice"),
        (Drain(hosts=("n0",), batch=-1), "batch"),
        (Drain(hosts=("n0",), by="rack"), "has no rack"),
        (Drain(hosts=("n0",), keep_free=1.5), "keep_free"),
        (Consolidate(most=-1), "most"),
        (Balance(most=2.0), "most"),
        (Balance(margin=-1.0), "margin"),
    ],
)
def test_a_goal_that_makes_no_sense_is_an_error(goal: Any, error: str) -> None:
    engine, _ = engine_of(plain([(4,), ()]))
    with pytest.raises(InvalidValue, match=error):
        engine.plan(goal)


def test_a_host_that_does_not_exist_is_an_error() -> None:
    engine, _ = engine_of(plain([(4,), ()]))
    with pytest.raises(UnknownName):
        engine.plan(Drain(hosts=("n7",)))


def test_a_fleets_file_keeps_what_guests_were_asked_with(tmp_path: Any) -> None:
    cloud = random_cloud(5)
    engine, asked = engine_of(cloud)
    save_fleet(engine.fleet, tmp_path / "state", requests=asked)
    assert load_requests(tmp_path / "state") == asked
    loaded = Engine(load_fleet(tmp_path / "state"), engine.policy)
    goal = Drain(hosts=("n1",))
    assert loaded.plan(goal, asked=load_requests(tmp_path / "state")).moves == engine.plan(goal, asked=asked).moves
    save_fleet(engine.fleet, tmp_path / "bare")
    assert load_requests(tmp_path / "bare") == {}


def test_guests_of_groups_and_plain_ones_move_in_the_same_wave() -> None:
    cloud = plain([(2, 2, 2, 2), (), (), ()])
    cloud.groups[uuid_of(800_001)] = ("anti-affinity", 1)
    cloud.guests[0].group = uuid_of(800_001)
    engine, asked = engine_of(cloud)
    plan = engine.plan(Drain(hosts=("n0",)), asked=asked, per_host=0)
    assert [len(wave.moves) for wave in plan.waves] == [4]
    Ledger(cloud).replay(plan, 0)
    assert check_plan(engine, plan, asked=asked).valid


__all__ = ["Policy", "spec_of"]


def test_moves_of_instances_that_do_not_run_are_cold_and_copy_no_memory() -> None:
    engine = Engine(fleet := Fleet())
    add_hosts(
        fleet,
        [
            Host(host=f"h{number}", vcpus_total=8, total_usable_ram_mb=8_192, total_usable_disk_gb=99)
            for number in range(3)
        ],
    )
    spec = RequestSpec(flavor=Flavor(name="m", vcpus=2, memory_mb=1_024, root_gb=1))
    for number in range(2):
        engine.place(Request(spec=spec, instance_uuids=(uuid_of(number),)))
    nodes = tuple({fleet.consumer(uuid_of(number)).provider for number in range(2)})
    for kind, kinds in (("live_migrate", ["cold_migrate", "live_migrate"]), ("evacuate", ["evacuate"] * 2)):
        options: Any = {"asked": {uuid_of(0): spec, uuid_of(1): spec}, "kind": kind, "stopped": {uuid_of(0)}}
        plan = engine.plan(Drain(hosts=nodes), **options)
        moves = {move.instance: move for move in plan.moves}
        assert [moves[uuid_of(number)].kind for number in range(2)] == kinds
        if kind == "live_migrate":
            costs = [moves[uuid_of(number)].cost for number in range(2)]
            assert costs == [moves[uuid_of(0)].disk_mb, moves[uuid_of(1)].disk_mb + 1_024]
            assert check_plan(engine, Plan.from_json(plan.to_json()), asked=options["asked"]).valid
            assert plan.rollback().moves[-1].kind == plan.moves[0].kind
            started = check_plan(engine, plan, asked=options["asked"], stopped=frozenset())
            assert [each.reason for each in started.differences] == ["the instance runs: cold_migrate is planned"]
    held = engine.plan(Drain(hosts=nodes), stays=lambda uuid: "it is locked" if uuid == uuid_of(1) else "")
    assert [(each.instance, each.reason) for each in held.left] == [(uuid_of(1), "it is locked")]
