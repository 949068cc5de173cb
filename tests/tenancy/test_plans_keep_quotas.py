"""Plans of the service keep quotas and pools in every state between, by a second statement of the rules."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from hostler import Plan
from hostler.core.engine_commands import Place
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.plan_queries import PlanMoves, plan_moves
from hostler.core.tenancy import commands as c
from hostler.placement.plan.goals import Balance, Consolidate, Drain
from tests.core.orders import LOCAL, uuid_of

from .worlds import asking, do, two_domains

DOMAIN_OF = {"a1": "a", "b1": "b"}


def world(seed: int) -> tuple[ServiceMachine, dict[str, tuple[str, int]], dict[str, int]]:
    """Two projects with guests; of each, and of a domain, little more vCPUs may be used than are. Instance -> project
    and vCPUs; scope -> limit of vCPUs."""
    rng, made, guests = random.Random(seed), two_domains(4), dict[str, tuple[str, int]]()
    for number in range(10):
        project, vcpus = rng.choice(["a1", "b1"]), rng.choice([1, 1, 2])
        asked = asking(project, number, flavor={"name": f"m{vcpus}", "vcpus": vcpus})
        if do(made, Place(request=asked)).placed:
            guests[uuid_of(number)] = (project, vcpus)
    used = Counter[str]()
    for project, vcpus in guests.values():
        used.update({f"project:{project}": vcpus, f"domain:{DOMAIN_OF[project]}": vcpus})
    limits = {"project:a1": used["project:a1"] + 2, "domain:b": used["domain:b"] + 3}
    do(made, *(c.SetLimits(scope=scope, limits={"VCPU": limit}) for scope, limit in limits.items()))
    return made, guests, limits


def goals(nodes: list[str]) -> list[Drain | Consolidate | Balance]:
    """Each node drained, and goals of all of them."""
    drains: list[Drain | Consolidate | Balance] = [Drain(hosts=(node,)) for node in nodes]
    return [*drains, Consolidate(), Balance(threshold=0.0, margin=0.0, most=1.0)]


def most_used(plan: Plan, guests: dict[str, tuple[str, int]]) -> Counter[str]:
    """The most vCPUs that each scope uses at any moment, both ends of a move held until its wave ends."""
    standing, most = Counter[str](), Counter[str]()
    for project, vcpus in guests.values():
        standing.update({f"project:{project}": vcpus, f"domain:{DOMAIN_OF[project]}": vcpus})
    most |= standing
    for wave in plan.waves:
        held = Counter(standing)
        for move in wave.moves:
            project, vcpus = guests[move.instance]
            assert move.project_id == project
            held.update({f"project:{project}": vcpus, f"domain:{DOMAIN_OF[project]}": vcpus})
            most |= held
    return most


@pytest.mark.parametrize("seed", range(4))
def test_limits_of_projects_and_domains_hold_in_every_state_between(seed: int) -> None:
    made, guests, limits = world(seed)
    moved = 0
    nodes = sorted({made.state.fleet.name(row) for row in range(made.state.fleet.rows)})
    for goal in goals(nodes):
        plan = plan_moves(made.state, LOCAL, PlanMoves(goal=goal, per_host=0))
        most = most_used(plan, guests)
        assert all(most[scope] <= limit for scope, limit in limits.items()), (goal, most, limits)
        moved += len(plan.moves)
    assert moved


@pytest.mark.parametrize("seed", range(3))
def test_guests_stay_within_the_pools_that_their_projects_may_use(seed: int) -> None:
    """Of six hosts, two are the exclusive pool of a project, whose guests may be nowhere else."""
    made = two_domains(6)
    nodes = sorted({made.state.fleet.name(row) for row in range(made.state.fleet.rows)})
    pool = nodes[seed : seed + 2]
    do(made, c.CreatePool(id="own", hosts=tuple(pool), exclusive=True), c.GrantPool(id="own", scope="project:a1"))
    project_of = {}
    for number in range(10):
        project = "a1" if number % 3 == 0 else "b1"
        assert do(made, Place(request=asking(project, number))).placed
        project_of[uuid_of(number)] = project
    moved = 0
    for goal in goals(nodes):
        plan = plan_moves(made.state, LOCAL, PlanMoves(goal=goal))
        for move in plan.moves:
            assert (move.target in pool) == (project_of[move.instance] == "a1"), (goal, move)
        moved += len(plan.moves)
    assert moved
