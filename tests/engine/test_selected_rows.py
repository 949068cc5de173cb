"""Requests that select hosts by row are decided beside the ranking as the scan of all hosts decides them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hostler.placement.decide import placement
from hostler.placement.decide.engine import Engine
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.load.bulk import add_hosts
from hostler.placement.policy.policy import Policy
from hostler.placement.types.decision import Decision
from hostler.placement.types.host import Aggregate, Host
from hostler.placement.types.request import Destination, Flavor, Request, RequestSpec, ServerGroup
from tests.seeds import seeds

from .values import guest_uuid

FILTERS = (
    *("ComputeFilter", "IoOpsFilter", "ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter"),
    *("SameHostFilter", "DifferentHostFilter", "AggregateInstanceExtraSpecsFilter"),
)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"host_subset_size": 3},
    {"shuffle_best_same_weighed_hosts": True},
    {"ram_weight_multiplier": -1.0, "soft_affinity_weight_multiplier": 0.5},
]
GROUPS = ("anti-affinity", "soft-anti-affinity", "soft-affinity", "affinity")


def engine(chance: random.Random, options: dict[str, Any]) -> Engine:
    fleet, sizes = Fleet(), chance.choice([[8], [8, 16], [4, 8, 16, 32]])
    ssd = Aggregate(uuid=guest_uuid(900), name="ssd", metadata={"ssd": "true"})
    hosts = [
        Host(
            host=f"Node-{number // chance.choice([1, 1, 1, 2])}",
            nodename=f"node-{number}",
            vcpus_total=chance.choice(sizes),
            total_usable_ram_mb=1_024 * chance.choice(sizes),
            total_usable_disk_gb=100,
            num_io_ops=chance.choice([0, 0, 3]),
            aggregates=chance.choice([(), (ssd,)]),
        )
        for number in range(chance.randrange(1, 40))
    ]
    add_hosts(fleet, hosts)
    for number, name in enumerate(GROUPS):
        fleet.add_server_group(guest_uuid(number), name)
    policy = {"filter_scheduler": {"enabled_filters": list(FILTERS), "max_io_ops_per_host": 5, **options}}
    return Engine(fleet, Policy.from_mapping(policy))


def asks(chance: random.Random, of: Engine, guests: list[str]) -> Request:
    """A request that names hosts, guests or a group."""
    fleet = of.fleet
    rows = [chance.randrange(fleet.rows) for _ in range(3)]
    names, some = [fleet._service_host(row) for row in rows], tuple(chance.sample(guests, min(len(guests), 2)))
    fields: dict[str, Any] = chance.choice(
        [
            {"ignore_hosts": tuple(name.lower() for name in names)},
            {"ignore_hosts": (*names, "nowhere"), "requested_destination": Destination(host=names[0])},
            {"force_hosts": (names[0],)},
            {"force_nodes": (fleet.name(rows[0]),)},
            {"requested_destination": Destination(host=names[0], node=fleet.name(rows[0]))},
            {"scheduler_hints": {"different_host": some}},
            {"scheduler_hints": {"same_host": some}, "ignore_hosts": (names[0],)},
            {"scheduler_hints": {"same_host": ("",), "different_host": some[:1]}},
            {},
        ]
    )
    flavor = Flavor(
        name="f", vcpus=chance.randrange(1, 5), memory_mb=1_024, extra_specs=chance.choice([{}, {"ssd": "true"}])
    )
    members = frozenset(some)
    group: Any = chance.choice(
        [
            None,
            guest_uuid(chance.randrange(4)),
            ServerGroup(uuid=guest_uuid(99), policy=chance.choice(GROUPS), members=members, hosts=frozenset(names[:2])),
        ]
    )
    return Request(
        spec=RequestSpec(flavor=flavor, **fields),
        server_group=group,
        alternates=chance.choice([0, 0, 2]),
        project_id="p",
    )


def told(decision: Decision) -> tuple[Any, ...]:
    return decision.selections, decision.considered, decision.removed, decision.refusal, decision.seed


@pytest.mark.kernel_twin
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("seed", seeds(6))
def test_the_answer_is_that_of_the_scan(options: dict[str, Any], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    of, guests, beside = engine(chance, options), list[str](), 0
    for number in range(60):
        uuid = guest_uuid(1_000 + number)
        moves = bool(guests) and chance.random() < 0.2
        call = (lambda on, uuid, request: on.move(uuid, request)) if moves else _place
        uuid = chance.choice(guests) if moves else uuid
        request = asks(chance, of, guests)
        with monkeypatch.context() as patch:
            patch.setattr(placement, "place_selected", lambda *_: None)
            patch.setattr(placement, "_place_ranked", lambda *_: None)
            expected = call(of.fork(), uuid, request)
        decision = call(of, uuid, request)
        assert told(decision) == told(expected)
        beside += decision.placed
        if decision.placed and not moves:
            guests.append(uuid)
        of.fleet.check()
    assert beside


def _place(on: Engine, uuid: str, request: Request) -> Decision:
    return on.place(request.with_changes(instance_uuids=(uuid,)))
