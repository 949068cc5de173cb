"""Whatever is done to a fleet, its invariants hold, and every version that is held can be returned to, bit for bit."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler.placement.fleet.fleet import Extras, Fleet
from hostler.placement.load.bulk import add_hosts, load_hosts
from hostler.placement.types.errors import InvalidValue
from hostler.placement.versions.history import Change, History

from .commands import Commands, commands
from .dump import dump
from .values import NOW, POOLS, aggregate, host, uuid_of

quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
steps = st.one_of(
    *[commands] * 4,
    st.just("hold"),
    st.tuples(st.just("go"), st.integers(0, 9)),
    st.tuples(st.just("drop"), st.integers(0, 9)),
)


@pytest.mark.property
@pytest.mark.kernel_twin
@given(st.lists(commands, max_size=25))
@settings(quick, max_examples=60)
def test_invariants_hold_after_every_command(history: list[Any]) -> None:
    fleet = Fleet(seed=1)
    for command in history:
        Commands(fleet).do(command)
        fleet.check()


@pytest.mark.property
@pytest.mark.kernel_twin
@given(st.lists(steps, max_size=30))
@settings(quick, max_examples=150)
def test_every_held_version_is_returned_to_exactly(history: list[Any]) -> None:
    fleet = Fleet(seed=1)
    held: list[Any] = []
    for step in history:
        if step == "hold":
            held.append((fleet._history.hold(), dump(fleet)))
        elif step[0] == "drop":
            del held[step[1] :]
        elif step[0] != "go":
            Commands(fleet).do(step)
        elif held:
            go(fleet, *held[step[1] % len(held)])
    for version, known in (*held, *reversed(held)):
        go(fleet, version, known)


def go(fleet: Fleet, version: Any, known: dict[str, Any]) -> None:
    """Return to a version, and to the time that it was: the clock is an engine's own."""
    fleet._history.go(version)
    fleet._rewind(known["now"])
    fleet.check()
    now = dump(fleet)
    assert [key for key in known if now[key] != known[key]] == []


def small() -> Fleet:
    fleet = Fleet(seed=3)
    add_hosts(fleet, [host(f"n{number}", number) for number in range(8)])
    return fleet


def test_a_history_that_was_left_is_walked_again_from_either_end() -> None:
    values: list[int] = []
    history = History()

    def add(value: int) -> None:
        history.record(Change(lambda: values.append(value), values.pop))
        values.append(value)

    root = history.hold()
    add(1)
    one = history.hold()
    history.go(root)
    add(2)
    two = history.hold()
    add(3)
    three = history.hold()
    for version, known in ((one, [1]), (three, [2, 3]), (root, []), (two, [2]), (one, [1]), (three, [2, 3])):
        history.go(version)
        assert values == known


def test_nothing_is_recorded_once_no_version_is_held() -> None:
    history = History()
    version = history.hold()
    assert history.recording
    del version
    assert not history.recording


def test_a_version_that_nothing_has_changed_is_held_twice_as_one() -> None:
    history = History()
    assert history.hold() is history.hold()


def test_a_long_chain_of_versions_is_let_go_without_deep_recursion() -> None:
    history = History()
    first = history.hold()
    for _ in range(100_000):
        history.record(Change(list, list))
        history.hold()
    del first
    gc.collect()
    assert not history.recording


def test_a_version_of_another_fleet_is_refused() -> None:
    with pytest.raises(RuntimeError, match="another state"):
        small()._history.go(small()._history.hold())


def test_a_bulk_load_under_a_held_version_is_undone_and_made_again() -> None:
    fleet = small()
    held, before = fleet._history.hold(), dump(fleet)
    load_hosts(fleet, [f"bulk{i}" for i in range(500)], [host("t", 4)], last_seen_up=np.full(500, NOW))
    loaded, after = fleet._history.hold(), dump(fleet)
    go(fleet, held, before)
    assert fleet.rows == 8
    assert fleet._rows_of_service_host("bulk7") == []
    go(fleet, loaded, after)
    assert fleet.name(fleet._rows_of_service_host("bulk7")[0]) == "bulk7"


def test_another_load_after_an_undone_one_gets_its_rows_and_uuids() -> None:
    fleet, twin = small(), small()
    held = fleet._history.hold()
    load_hosts(fleet, ["x1", "x2"], [host("t", 4)])
    fleet._history.go(held)
    for each in (fleet, twin):
        load_hosts(each, ["y1", "y2"], [host("t", 4)])
    assert dump(fleet) == dump(twin)


def test_a_host_that_was_removed_comes_back_at_its_row_with_its_cells_and_devices() -> None:
    fleet = small()
    held, before = fleet._history.hold(), dump(fleet)
    for name in ("n1", "n2"):
        fleet.remove_provider(name)
    add_hosts(fleet, [host("other", 5)])
    assert fleet.row("other") == 2
    go(fleet, held, before)
    assert fleet._numa.get_row(1) is not None
    assert fleet.pci_pools(2) == POOLS


def test_consumers_come_back_in_the_order_in_which_they_came() -> None:
    fleet = small()
    shape = fleet._shape({0: 1}, 1, 0, 0)
    ids = [fleet.claim(uuid_of(number), 0, shape) for number in range(5)]
    held, before = fleet._history.hold(), dump(fleet)
    fleet.release([ids[1], ids[4], ids[3]])
    go(fleet, held, before)
    assert fleet._kernel.consumers_on(0) == ids[::-1]
    assert list(fleet.instances(0)) == [uuid_of(number) for number in reversed(range(5))]


def test_a_providers_generation_comes_back_too() -> None:
    fleet = small()
    generations = fleet._store.row["generation"]
    held, before = fleet._history.hold(), generations[0].item()
    fleet.claim(uuid_of(1), 0, fleet._shape({0: 1}, 1, 0, 0))
    assert generations[0] > before
    fleet._history.go(held)
    assert generations[0] == before


def test_devices_come_back_in_the_order_in_which_they_were_drawn_from() -> None:
    fleet = small()
    shape = fleet._shape({0: 1}, 1, 0, 0)
    held, before = fleet._history.hold(), fleet.pci_pools(2)
    consumer = fleet.claim(uuid_of(1), 2, shape, extras=Extras(pci=(POOLS[0],)))
    assert fleet.pci_pools(2) == POOLS[1:]
    fleet.release([consumer])
    fleet._history.go(held)
    assert fleet.pci_pools(2) == before


def test_an_aggregate_of_one_version_may_be_another_one_elsewhere() -> None:
    fleet = small()
    held = fleet._history.hold()
    fleet.set_aggregates("n0", [aggregate(1, 1)])
    one = fleet._history.hold()
    fleet._history.go(held)
    assert list(fleet.aggregates[: len(fleet._aggregate_table)]) == []
    fleet.set_aggregates("n0", [aggregate(1, 2), aggregate(2)])
    assert fleet.aggregate(aggregate(1).uuid) == aggregate(1, 2)
    fleet._history.go(one)
    assert fleet.aggregate(aggregate(1).uuid) == aggregate(1, 1)
    fleet.check()


def test_a_server_group_of_one_version_is_not_there_in_another() -> None:
    fleet = small()
    held = fleet._history.hold()
    fleet.add_server_group(uuid_of(1), "affinity")
    fleet._history.go(held)
    assert fleet._groups == {}
    fleet.add_server_group(uuid_of(2), "anti-affinity")
    assert fleet._group_id(uuid_of(2)) == 0


def test_services_are_judged_for_the_present_time_after_a_return() -> None:
    fleet = Fleet()
    load_hosts(fleet, ["a", "b"], [host("t", 0)], last_seen_up=np.array([NOW, NOW]))
    fleet.advance(NOW)
    held = fleet._history.hold()
    fleet.set_service("a", disabled=True)
    fleet.heartbeat("b", NOW + 60)
    fleet.advance(NOW + 100)
    assert fleet.column("service_up").tolist() == [0, 1]
    fleet._history.go(held)
    assert fleet.column("service_up").tolist() == [0, 0]
    fleet.advance(NOW + 60)
    assert fleet.column("service_up").tolist() == [1, 1]


def test_the_static_epoch_never_goes_back() -> None:
    fleet = small()
    held, epoch = fleet._history.hold(), fleet._static_epoch
    fleet.report("n0", failed_builds=7)
    assert fleet._static_epoch > epoch
    epoch = fleet._static_epoch
    fleet._history.go(held)
    assert fleet._static_epoch > epoch


@pytest.mark.parametrize("name", ["editing", "undoing"])
def test_an_edit_that_fails_half_way_is_put_back(name: str) -> None:
    fleet = small()
    before = dump(fleet)
    change = fleet._change_log.editing(np.array([0, 1], np.int32)) if name == "editing" else fleet._history.undoing()

    def fail_half_way() -> None:
        with change:
            if name == "editing":
                fleet._store.host[:, :2] = 99
            else:
                fleet.set_traits("n0", ["CUSTOM_X"])
            raise InvalidValue("no")

    with pytest.raises(InvalidValue):
        fail_half_way()
    assert dump(fleet) == before
    fleet.check()


@pytest.mark.parametrize(("failure", "raised"), [(MemoryError(), MemoryError), (KeyboardInterrupt(), RuntimeError)])
def test_after_a_move_that_stopped_half_way_there_are_no_more(failure: BaseException, raised: type[Exception]) -> None:
    def fail() -> None:
        raise failure

    history = History()
    held = history.hold()
    history.record(Change(list, fail))
    with pytest.raises(type(failure)):
        history.go(held)
    assert not history.moving
    with pytest.raises(raised):
        history.go(held)
