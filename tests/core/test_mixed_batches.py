"""What a batch of all kinds of requests leaves is what the same requests leave one by one: hosts, usage, kept specs."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest

from hostler.core.engine_commands import Asked, Place, Placed, PlaceMany
from hostler.core.machine.machine import ServiceMachine
from hostler.core.tenancy import commands as c
from hostler.placement.types.decision import Decision, PackedDecision
from hostler.placement.types.errors import NoValidHost

from ..seeds import seeds
from .orders import asked, machine, order, place, uuid_of

PROJECTS = ("a", "b", "limited")
FLAVORS = ((1, 512), (1, 1_024), (3, 4_096), (64, 1))
"""vCPUs and MiB; no host can take the last one."""


def started(*, limited: bool) -> ServiceMachine:
    made = machine(6)
    made.apply(order(c.CreateDomain(id="d")))
    for project in PROJECTS:
        made.apply(order(c.CreateProject(id=project, domain="d")))
    if limited:
        made.apply(order(c.SetLimits(scope="project:limited", limits={"instances": 7, "VCPU": 12})))
    made.apply(order(place(1, project="a")))
    return made


def requests(chance: random.Random, count: int) -> list[Asked]:
    """Runs of equal requests, with and without uuids, for one instance or several; some uuids exist."""
    found: list[Asked] = []
    number = 10
    while len(found) < count:
        vcpus, memory_mb = chance.choice(FLAVORS)
        project, named = chance.choice(PROJECTS), chance.random() < 0.5
        several = chance.choice([1, 1, 1, 3]) if named else 0
        for _ in range(chance.randint(1, 5)):
            uuids = range(number, number + several)
            number += several
            if named and chance.random() < 0.1:
                uuids = range(1, 2)
            found.append(asked(*uuids, project=project, vcpus=vcpus, memory_mb=memory_mb))
    return found[:count]


def left_by(made: ServiceMachine) -> tuple[dict[str, dict[str, int]], Counter[str], dict[str, bytes]]:
    """Usage by scope, guests by node, and the spec that is kept of each guest."""
    specs, of_guest, _, _ = made.state.requests.content()
    nodes = Counter(made.state.fleet.consumer(uuid).provider for uuid in of_guest)
    return made.state.usage.by_scope, nodes, {uuid: specs[at] for uuid, at in of_guest.items()}


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("seed", seeds(6, "mixed batches"))
def test_a_batch_leaves_what_its_requests_leave_one_by_one(seed: int, limited: bool) -> None:
    chance = random.Random(seed)
    together, apart = started(limited=limited), started(limited=limited)
    wanted = requests(chance, 60)
    placed: Placed = together.apply(order(PlaceMany(requests=tuple(wanted))))
    for position, each in enumerate(wanted):
        (outcome,) = apart.apply_batch([order(Place(request=each))])
        if isinstance(outcome, Decision) and outcome.placed:
            assert placed.hosts[position] == outcome.host
            assert placed.instance_uuids[position] == outcome.selected.instance_uuid
        else:
            assert placed.hosts[position] is None
            code = NoValidHost.code if isinstance(outcome, Decision) else outcome.code
            assert placed.refusals[position][0] == code
    assert left_by(together) == left_by(apart)
    by_hand: dict[str, Counter[str]] = {project: Counter() for project in PROJECTS}
    for uuid in together.state.requests.uuids():
        consumer = together.state.fleet.consumer(uuid)
        by_hand[consumer.project_id].update({"instances": 1, **consumer.resources})
    for project, counted in by_hand.items():
        assert together.state.usage.of(f"project:{project}") == counted
    together.state.fleet.check()


def test_the_first_guest_stands_where_a_batch_names_it_again() -> None:
    made = started(limited=False)
    placed: Placed = made.apply(order(PlaceMany(requests=(asked(1, project="b"), asked(project="b")))))
    assert placed.hosts[0] is None
    assert placed.refusals[0][0] == "duplicate_name"
    assert made.state.fleet.consumer(uuid_of(1)).project_id == "a"
    assert made.state.usage.of("project:b")["instances"] == 1


@pytest.mark.parametrize("limited", [False, True])
def test_equal_requests_under_one_claim_of_a_parent_get_one_decision(limited: bool) -> None:
    """However they are batched, and whether or not there is room for another one."""
    claimed = msgspec.structs.replace(asked(40, project="limited"), claim="c1")
    placed: Placed = started(limited=limited).apply(order(PlaceMany(requests=(claimed,) * 8)))
    assert len(set(placed.hosts)) == 1
    assert placed.instance_uuids == [uuid_of(40)] * 8
    assert not placed.refusals
    first, second = started(limited=limited).apply_batch([order(Place(request=claimed))] * 2)
    assert first.host == second.host == placed.hosts[0]


def test_a_refused_request_whose_instance_a_later_one_places_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    large, small = asked(40, vcpus=64, memory_mb=1, project="a"), asked(40, project="a")
    refused, placed = started(limited=False).apply_batch([order(Place(request=large)), order(Place(request=small))])
    assert isinstance(refused, Decision)
    assert refused.refusal is not None
    assert placed.instance_uuid == uuid_of(40) if isinstance(placed, PackedDecision) else placed.placed
    assert not caplog.records
