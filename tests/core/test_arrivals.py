"""Guests that come with hosts are charged to their projects, as a sum over all guests has it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from hostler.core.engine_commands import AddHosts, Release
from hostler.core.machine import arrivals
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import RULES, Order
from hostler.core.machine.report_columns import columns_of
from hostler.core.tenancy import commands as c
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import Host, RunningInstance
from hostler.placement.types.host_report import HostReport

from .orders import LOCAL, NOW, machine, order, place, uuid_of

GUEST = RunningInstance(resources={"VCPU": 4, "MEMORY_MB": 100}, project_id="p")
HELD = {"instances": 1, "VCPU": 4, "MEMORY_MB": 100}


def with_project() -> ServiceMachine:
    made = machine()
    made.apply(order(c.CreateDomain(id="d")))
    made.apply(order(c.CreateProject(id="p", domain="d")))
    return made


def host(name: str, *guests: int) -> Host:
    instances = {uuid_of(each): GUEST for each in guests}
    return Host(host=name, vcpus_total=16, total_usable_ram_mb=65_536, total_usable_disk_gb=500, instances=instances)


def summed(made: ServiceMachine) -> None:
    """What is kept is what the sum over all guests is."""
    kept = made.state.usage.by_scope
    made.state.sum_up()
    assert made.state.usage.by_scope == kept


@pytest.mark.parametrize("hosts", [1, 100])
def test_guests_of_hosts_that_are_added_are_charged_until_they_are_released(hosts: int) -> None:
    made = with_project()
    made.apply(order(AddHosts(hosts=tuple(host(f"new-{number}", number) for number in range(hosts)))))
    assert made.state.usage.of("project:p") == {name: hosts * amount for name, amount in HELD.items()}
    assert made.state.usage.of("domain:d") == made.state.usage.of("project:p")
    summed(made)
    made.apply(order(Release(uuids=tuple(map(uuid_of, range(hosts))))))
    assert made.state.usage.of("project:p") == {}


@pytest.mark.parametrize("name", ["node-0", "new"])
def test_guests_that_a_report_tells_of_are_charged_once(name: str) -> None:
    made = with_project()
    made.apply(order(place(1, project="p", vcpus=2, memory_mb=64)))
    placed = made.state.fleet.consumer(uuid_of(1)).provider
    for at in (NOW, NOW + 1):
        there = host(name, *((1, 5) if name == placed else (5,)))
        made.apply(order(columns_of([HostReport(host=there, at=at)]), now=at))
        summed(made)
    made.apply(order(Release(uuids=(uuid_of(5),)), now=NOW + 2))
    assert made.state.usage.of("project:p")["instances"] == 1
    summed(made)


def test_what_is_refused_charges_nothing() -> None:
    made = with_project()
    with pytest.raises(HostlerError):
        made.apply(order(AddHosts(hosts=(host("new", 1), host("node-0", 2), host("new", 3)))))
    assert made.state.usage.of("project:p") == {}
    summed(made)


def test_a_journal_of_the_rules_before_counts_as_it_did_until_those_of_now_are_followed() -> None:
    made = ServiceMachine()
    for command in (c.CreateDomain(id="d"), c.CreateProject(id="p", domain="d"), AddHosts(hosts=(host("new", 1),))):
        made.apply(Order(NOW, LOCAL, command, RULES - 1))
    assert made.state.usage.of("project:p") == {}
    made.apply(order(msgspec.structs.replace(place(2, project="q"))))
    assert made.state.usage.of("project:p") == HELD


def test_a_guest_that_two_hosts_report_counts_once_however_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "COUNTED", 1)
    made, there = with_project(), uuid_of(0xAB)
    reports = [
        HostReport(host=replace(host(name), instances={uuid: GUEST}), at=NOW + at)
        for at, (name, uuid) in enumerate([("new-0", there), ("new-1", there.upper())])
    ]
    made.apply(order(columns_of(reports), now=NOW + 1))
    assert made.state.usage.of("project:p") == HELD
    summed(made)
