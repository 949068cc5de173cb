"""Holds: guests placed for a limited time, which are released unless they are confirmed or a host reports them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.engine_commands import AddHosts, ConfirmHold, Hold, Release, ReportHosts
from hostler.core.machine.holds import Holds
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import PlacementWrite
from hostler.core.machine.ranking import Rank, rank
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.errors import NotAllowed, QuotaExceeded
from hostler.placement.api import commands as api
from hostler.placement.types.errors import InvalidValue, UnknownName

from .orders import NOW, asked, hosts, machine, order, place, uuid_of


def do(m: ServiceMachine, command: Any, *, now: float = NOW, user: str = "@local") -> Any:
    """Carry out a command as the journal has it."""
    return m.apply(m.decode(m.encode(order(command, now=now, user=user))))


def hold(*uuids: int, seconds: float = 60.0, **what: Any) -> Hold:
    return Hold(request=asked(*uuids, **what), expires_in=seconds)


def stands(m: ServiceMachine, number: int) -> bool:
    return m.state.fleet._kernel.consumers.get(uuid_of(number)) >= 0


def test_a_hold_that_nobody_confirms_is_released_when_its_time_is_over() -> None:
    m = machine()
    assert do(m, hold(1, 2)).placed
    do(m, place(3), now=NOW + 59.9)
    assert stands(m, 1)
    do(m, place(4), now=NOW + 60)
    assert not stands(m, 1)
    assert not stands(m, 2)
    assert stands(m, 3)


def test_a_confirmed_hold_stays() -> None:
    m = machine()
    do(m, hold(1, 2))
    assert do(m, ConfirmHold(uuids=(uuid_of(1),)), now=NOW + 1) == 1
    do(m, place(3), now=NOW + 100)
    assert stands(m, 1)
    assert not stands(m, 2)


def test_confirming_is_all_or_none_and_says_what_is_not_held() -> None:
    m = machine()
    do(m, hold(1))
    do(m, place(2))
    with pytest.raises(InvalidValue, match="is not held"):
        do(m, ConfirmHold(uuids=(uuid_of(1), uuid_of(2))))
    with pytest.raises(UnknownName):
        do(m, ConfirmHold(uuids=(uuid_of(9),)))
    do(m, place(3), now=NOW + 100)
    assert not stands(m, 1)


def test_a_refused_request_holds_nothing() -> None:
    m = machine()
    assert not do(m, hold(1, vcpus=1_000)).placed
    assert len(m.state.holds) == 0


def test_a_released_guest_is_held_no_more_and_its_uuid_may_come_again() -> None:
    m = machine()
    do(m, hold(1))
    do(m, Release(uuids=(uuid_of(1),)))
    do(m, place(1))
    do(m, place(3), now=NOW + 100)
    assert stands(m, 1)


def test_a_host_that_reports_a_held_guest_confirms_it() -> None:
    m = machine(1)
    do(m, hold(1))
    each: dict[str, list[Any]] = {
        "host": ["node-0"],
        "vcpus_total": [16],
        "total_usable_ram_mb": [65_536],
        "total_usable_disk_gb": [500],
    }
    do(m, ReportHosts(each={**each, "includes": [[uuid_of(1)]]}), now=NOW + 5)
    do(m, place(3), now=NOW + 100)
    assert stands(m, 1)


def test_a_held_guest_that_the_placement_api_deletes_does_not_stop_the_expiry_of_others() -> None:
    m = machine()
    do(m, hold(1))
    do(m, hold(2))
    do(m, PlacementWrite(command=api.DeleteAllocations(consumer=uuid_of(1), now=NOW)))
    do(m, place(1), now=NOW + 1)
    do(m, place(3), now=NOW + 100)
    assert stands(m, 1)
    assert not stands(m, 2)


def test_holds_count_in_quotas_until_they_end() -> None:
    m = machine()
    do(m, c.CreateDomain(id="d"))
    do(m, c.CreateProject(id="p", domain="d"))
    do(m, c.SetLimits(scope="project:p", limits={"instances": 1}))
    do(m, hold(1, project="p"))
    with pytest.raises(QuotaExceeded):
        do(m, place(2, project="p"))
    assert do(m, place(2, project="p"), now=NOW + 60).placed


def test_only_members_of_the_project_confirm() -> None:
    m = machine()
    for command in (
        c.CreateDomain(id="d"),
        c.CreateProject(id="p", domain="d"),
        c.CreateProject(id="q", domain="d"),
        c.CreateUser(id="ann", domain="d"),
        c.CreateUser(id="bob", domain="d"),
        c.Grant(user="ann", role="member", scope="project:p"),
        c.Grant(user="bob", role="member", scope="project:q"),
    ):
        do(m, command)
    do(m, hold(1, project="p"), user="ann")
    with pytest.raises(NotAllowed):
        do(m, ConfirmHold(uuids=(uuid_of(1),)), user="bob")
    with pytest.raises(NotAllowed):
        do(m, hold(2, project="p"), user="bob")
    assert do(m, ConfirmHold(uuids=(uuid_of(1),)), user="ann") == 1


def test_holds_outlast_a_snapshot(tmp_path: Path) -> None:
    m = machine()
    do(m, hold(1))
    (tmp_path / "s").mkdir()
    m.save(tmp_path / "s")
    again = ServiceMachine()
    again.load(tmp_path / "s")
    do(again, place(3), now=NOW + 100)
    assert not stands(again, 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 10) | st.none())), st.floats(0, 10))
def test_what_is_due_is_what_a_plain_dictionary_says(changes: list[tuple[int, float | None]], now: float) -> None:
    holds, plain = Holds(), dict[str, float]()
    for number, expires in changes:
        uuid = uuid_of(number)
        if expires is None:
            assert holds.end([uuid]) == (plain.pop(uuid, None) is not None)
        else:
            holds.add([uuid], expires)
            plain[uuid] = expires
    assert holds.due(now) == [uuid for when, uuid in sorted((w, u) for u, w in plain.items()) if when <= now]
    assert Holds(holds.plain()).due(now) == holds.due(now)
    assert len(holds) == len(plain)


# ranking


def test_named_hosts_are_ranked_among_each_other_and_the_rest_is_accounted_for() -> None:
    m = ServiceMachine()
    do(m, AddHosts(hosts=hosts(6, cpu_allocation_ratio=1.0)))
    for number in range(1, 4):
        do(m, place(number, vcpus=number, force_hosts=[f"node-{number}"]))
    names = ("node-3", "node-1", "nowhere", "node-2")
    answer = rank(m.state, "@local", Rank(request=asked(memory_mb=2_048), hosts=names))
    assert [each.host for each in answer.hosts] == ["node-1", "node-2", "node-3"]
    assert answer.unknown == ["nowhere"]
    assert answer.passed == 3
    full = rank(m.state, "@local", Rank(request=asked(vcpus=14), hosts=names))
    assert [each.host for each in full.hosts] == ["node-1", "node-2"]
    assert set(full.refused) == {"node-3"}


def test_weights_of_named_hosts_are_those_of_a_fleet_of_these_alone() -> None:
    m, alone = machine(6), machine(3)
    for number in range(3):
        command = place(number + 1, vcpus=3 - number, memory_mb=1_024 * (number + 1), force_hosts=[f"node-{number}"])
        do(m, command)
        do(alone, command)
    request = asked(memory_mb=2_048)
    some = rank(m.state, "@local", Rank(request=request, hosts=("node-0", "node-1", "node-2")))
    assert some.hosts == rank(alone.state, "@local", Rank(request=request)).hosts
    assert len(rank(m.state, "@local", Rank(request=request, limit=2)).hosts) == 2
