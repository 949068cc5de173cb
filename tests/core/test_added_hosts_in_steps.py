"""Hosts are added some at a time, with the outcome and the state that they have at once, to the bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hostler.core import engine_commands as p
from hostler.core.cluster.state_digest import state_digest
from hostler.core.machine import added_hosts
from hostler.core.machine.machine import ServiceMachine
from hostler.core.tenancy import commands as c
from hostler.placement.load import adding_in_steps, bulk
from hostler.placement.types.host import Aggregate, Host
from tests.core.orders import NOW, order, place
from tests.core.test_several_in_steps import look, outcome_of
from tests.fleet.dump import dump
from tests.fleet.values import aggregate, host, uuid_of
from tests.seeds import seeds

POOL_OF = "node-1"


@contextmanager
def a_step(few: int, chunk: int = bulk.CHUNK) -> Iterator[None]:
    """With hosts of so much weight a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adding_in_steps, "FEW", few)
        patch.setattr(added_hosts, "READ", few)
        patch.setattr(bulk, "CHUNK", chunk)
        yield


def world() -> ServiceMachine:
    """Hosts, a resource pool, freed rows, and providers that hosts may take over."""
    made = ServiceMachine()
    made.apply(order(p.AddHosts(hosts=tuple(host(f"node-{number}", number) for number in range(9)))))
    made.apply(order(c.CreatePool(id="pool", hosts=(POOL_OF,))))
    for number in (2, 4, 7):
        made.apply(order(p.RemoveHost(name=f"node-{number}")))
    for number in range(4):
        made.apply(order(p.AddProvider(name=f"provider-{number}", uuid=uuid_of(0xE000 + number))))
    return made


def coming(chance: random.Random, serial: int, number: int, pool: str) -> Host:
    """A host that may be added, and sometimes may not."""
    what: dict[str, Any] = {}
    name = f"new-{serial}-{number}"
    if chance.random() < 0.3:
        what["instances"] = {uuid_of(chance.randrange(8)): {} for _ in range(chance.randrange(3))}
    if chance.random() < 0.3:
        what["aggregates"] = (aggregate(chance.randrange(3)),)
    if chance.random() < 0.1:
        name = f"provider-{chance.randrange(4)}"
    if chance.random() < 0.1:
        what["uuid"] = uuid_of(0xE000 + chance.randrange(30))
    bad = chance.random()
    if bad < 0.01:
        name = "node-0"
    elif bad < 0.02:
        what["aggregates"] = (aggregate(0, 5),)
    elif bad < 0.03:
        what["cpu_allocation_ratio"] = -1.0
    elif bad < 0.04:
        what["aggregates"] = (Aggregate(uuid=pool, name="taken"),)
    return host(name, chance.randrange(24), **what)


def command(chance: random.Random, serial: int, made: ServiceMachine) -> p.AddHosts:
    pool = made.state.pools.pools["pool"].uuid
    hosts = tuple(coming(chance, serial, number, pool) for number in range(chance.randrange(12)))
    return p.AddHosts(hosts=hosts, negative_free=chance.random() < 0.7)


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("seed", seeds(5, "hosts in steps"))
def test_hosts_are_there_as_if_they_had_come_at_once(seed: int, looks: bool) -> None:
    chance, meanwhile = random.Random(seed), random.Random(seed)
    made, at_once = world(), world()
    refused = paused = 0

    def pause() -> None:
        nonlocal paused
        paused += 1
        made.state.fleet.check()
        if looks and meanwhile.random() < 0.5:
            look(made, meanwhile)

    for turn in range(20):
        given = command(chance, turn, made)
        now = NOW + turn
        with a_step(chance.choice([1, 2, 5]), chunk=5):
            found = outcome_of(made, given, pause, now=now)
        with a_step(10**6, chunk=5):
            assert found == outcome_of(at_once, given, now=now)
        refused += isinstance(found, tuple)
        made.state.fleet.check()
        assert state_digest(made.state) == state_digest(at_once.state)
        if not looks:  # classes of hosts that a look has made have numbers of their own
            assert dump(made.state.fleet) == dump(at_once.state.fleet)
    assert paused
    assert 0 < refused < 20


def test_hosts_that_were_added_so_far_take_guests_of_a_fork_and_are_gone_if_the_others_are_refused() -> None:
    made = ServiceMachine()
    hosts = tuple(host(f"node-{number}") for number in range(8))
    given = p.AddHosts(hosts=(*hosts, host("node-3")))
    seen: list[int] = []

    def pause() -> None:
        there = len(made.state.fleet)
        seen.append(there)
        decision = made.state.engine.what_if().place(made.state.request(place(1, memory_mb=64).request, NOW))
        assert (decision.refusal is None) == (there > 0)

    with a_step(2):
        assert outcome_of(made, given, pause)[0] == "DuplicateName"
    assert seen
    assert max(seen) > 2
    assert len(made.state.fleet) == 0
    with a_step(2):
        assert outcome_of(made, p.AddHosts(hosts=hosts)) == 8


def test_a_provider_that_several_of_the_hosts_are_is_in_the_end_what_it_is_at_once() -> None:
    made, at_once = world(), world()
    given = p.AddHosts(hosts=(host("provider-0", 2), host("provider-0", 0)), negative_free=True)
    with a_step(1):
        found = outcome_of(made, given)
    assert found == outcome_of(at_once, given) == 2
    assert state_digest(made.state) == state_digest(at_once.state)
