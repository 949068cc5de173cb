"""Requests for several instances: searches of the ranking, and what the scan keeps between two instances, give what
weighing all hosts again gives."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hostler.placement.decide import placement, scan, scan_placement
from hostler.placement.decide.engine import Engine
from hostler.placement.decide.remaining import Remaining
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.load.bulk import add_hosts
from hostler.placement.policy.policy import Policy
from hostler.placement.types.decision import Decision
from hostler.placement.types.host import Host
from hostler.placement.types.request import Flavor, Request, RequestSpec
from tests.seeds import seeds

from .dump import dump
from .values import guest_uuid

GROUPS = ("anti-affinity", "soft-anti-affinity", "soft-affinity", "affinity")
POLICIES: list[dict[str, Any]] = [
    {},
    {"filter_scheduler": {"ram_weight_multiplier": -1.0, "cpu_weight_multiplier": 2.5}},
    {"filter_scheduler": {"io_ops_weight_multiplier": -3.0, "soft_anti_affinity_weight_multiplier": 0.3}},
    {
        "filter_scheduler": {
            "enabled_filters": [
                *("ComputeFilter", "NumInstancesFilter", "IoOpsFilter"),
                *("ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter"),
            ],
            "max_instances_per_host": 3,
            "max_io_ops_per_host": 5,
        }
    },
]


def scan_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the scan decide every request for several instances."""
    monkeypatch.setattr(placement, "place_several", lambda context, request: None)


def engine(chance: random.Random, policy: dict[str, Any]) -> Engine:
    fleet = Fleet()
    sizes = chance.choice([[8], [8, 16], [4, 8, 16, 32]])
    add_hosts(
        fleet,
        [
            Host(
                host=f"n{number}",
                vcpus_total=chance.choice(sizes),
                total_usable_ram_mb=1_024 * chance.choice(sizes),
                total_usable_disk_gb=100,
                num_io_ops=chance.choice([0, 0, 3]),
            )
            for number in range(chance.randrange(1, 40))
        ],
    )
    for number, name in enumerate(GROUPS):
        most = chance.choice([1, 1, 2, 3]) if name == "anti-affinity" else 1
        fleet.add_server_group(guest_uuid(number), name, max_server_per_host=most)
    return Engine(fleet, Policy.from_mapping(policy))


def request(chance: random.Random, first: int) -> Request:
    flavor = Flavor(name="f", vcpus=chance.choice([1, 2]), memory_mb=chance.choice([256, 512, 1_024]), root_gb=1)
    uuids = tuple(guest_uuid(1_000 + first + number) for number in range(chance.choice([1, 2, 3, 4, 7, 20])))
    group = chance.choice([None, None, *(guest_uuid(number) for number in range(len(GROUPS)))])
    return Request(
        spec=RequestSpec(flavor=flavor),
        instance_uuids=uuids,
        server_group=group,
        alternates=chance.choice([0, 0, 2]),
    )


@pytest.mark.kernel_twin
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", seeds(12, "several instances"))
def test_keeping_what_is_left_gives_what_weighing_all_again_gives(
    seed: int, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_alone(monkeypatch)
    answers: list[tuple[list[Decision], Any]] = []
    for least in (1, 10**9):
        monkeypatch.setattr(scan_placement, "SEVERAL", least)
        monkeypatch.setattr(scan, "FEW", 64 if least == 1 else 0)
        chance = random.Random(seed)
        made = engine(chance, policy)
        decisions = [made.place(request(chance, 100 * number)) for number in range(8)]
        made.fleet.check()
        answers.append((decisions, dump(made)))
    assert answers[0] == answers[1]


@pytest.mark.kernel_twin
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", seeds(25, "several instances by the ranking"))
def test_searching_for_each_instance_gives_what_the_scan_gives(
    seed: int, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[tuple[list[Decision], Any]] = []
    for searching in (True, False):
        if not searching:
            scan_alone(monkeypatch)
        chance = random.Random(seed)
        made = engine(chance, policy)
        decisions = [
            made.place(request(chance, 100 * number).with_changes(server_group=None, alternates=0))
            for number in range(10)
        ]
        made.fleet.check()
        answers.append((decisions, dump(made)))
    assert answers[0] == answers[1]


def test_different_hosts_are_found_without_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    add_hosts(fleet, [Host(host=f"n{n}", vcpus_total=8, total_usable_ram_mb=4_096 + 64 * n) for n in range(30)])
    made = Engine(fleet)
    monkeypatch.setattr(placement, "ScanPlacement", None)
    spec = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=500))
    decision = made.place(Request(spec=spec, instance_uuids=tuple(guest_uuid(number) for number in range(10))))
    assert len({selection.host for selection in decision.selections}) > 1


def test_hosts_are_weighed_as_a_whole_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scan_alone(monkeypatch)
    made = engine(random.Random(3), {})
    weighed: list[int] = []
    real = Remaining._look

    def counted(self: Remaining, at: int) -> None:
        weighed.append(at)
        real(self, at)

    monkeypatch.setattr(Remaining, "_look", counted)
    monkeypatch.setattr(scan_placement.ScanPlacement, "_again", None)
    uuids = tuple(guest_uuid(number) for number in range(1_000, 1_010))
    assert made.place(Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=64)), instance_uuids=uuids))
    assert len(weighed) <= len(uuids)
