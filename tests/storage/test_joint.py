"""A guest and its volumes placed together: all or nothing, near if that is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from hostler import Aggregate, Engine, Flavor, Fleet, Host, Request, RequestSpec, add_hosts
from hostler.placement.storage.engine import VolumeEngine
from hostler.placement.storage.with_guests import JointRequest, Locality, place_together
from hostler.placement.types.errors import DuplicateName, InvalidValue, UnknownName

from .values import pool, report, wish

UUID = "11111111-2222-3333-4444-55555555555{}"
RACKS = [Aggregate(uuid=UUID.format(rack), name=f"rack-{rack}", metadata={}) for rack in range(2)]
NAMED = wish(1).with_changes(volume_id=UUID.format(1))
ZONE = Aggregate(uuid=UUID.format(9), name="az1", metadata={"availability_zone": "az1"})


def world(free: dict[str, Any], ram: tuple[int, ...] = (8_192, 16_384, 32_768)) -> tuple[Engine, VolumeEngine]:
    """Hosts node-0, node-1, ... (the last has most memory, so it is best), and a pool on each host named."""
    fleet = Fleet()
    hosts = [
        Host(
            host=f"node-{index}",
            vcpus_total=16,
            total_usable_ram_mb=each,
            total_usable_disk_gb=500,
            aggregates=(RACKS[index % 2], *([ZONE] if index == 1 else [])),
        )
        for index, each in enumerate(ram)
    ]
    add_hosts(fleet, hosts)
    compute, storage = Engine(fleet), VolumeEngine(fleet)
    for name, size in free.items():
        zone = "az1" if name == "node-1" else "nova"
        storage.pools.report(report(f"{name}@lvm", pool("p", 1_000, size)), availability_zone=zone)
    return compute, storage


def joint(sizes: list[int], locality: Locality | None = None) -> JointRequest:
    guest = Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1_024)))
    return JointRequest(guest=guest, volumes=tuple(map(wish, sizes)), locality=locality)


def test_without_locality_each_goes_where_its_policy_likes_it() -> None:
    compute, storage = world({"node-0": 1_000, "node-1": 10})
    decision = place_together(compute, storage, joint([5, 5]))
    assert decision.guest is not None
    assert decision.guest.host == "node-2"
    assert [each.selected.backend_id for each in decision.volumes] == ["node-0@lvm#p"] * 2
    compute.fleet.check()


@pytest.mark.parametrize(("level", "host"), [("host", "node-0"), ("aggregate", "node-2"), ("zone", "node-2")])
def test_as_a_filter_the_best_host_that_is_near_enough_wins(level: str, host: str) -> None:
    compute, storage = world({"node-0": 1_000})
    decision = place_together(compute, storage, joint([5], Locality(level=level)))
    assert decision.guest is not None
    assert decision.guest.host == host
    assert decision.near == (True,)
    assert decision.volumes[0].selected.backend_id == "node-0@lvm#p"


def test_all_volumes_must_fit_near_the_host() -> None:
    compute, storage = world({"node-0": 1_000, "node-1": 12, "node-2": 8})
    decision = place_together(compute, storage, joint([6, 6], Locality(level="host")))
    assert decision.guest is not None
    assert decision.guest.host == "node-1"
    assert {each.selected.backend_id for each in decision.volumes} == {"node-1@lvm#p"}


def test_nothing_is_left_where_not_all_fit() -> None:
    compute, storage = world({"node-0": 9, "node-1": 9})
    before = [storage.pools.columns["allocated"].tolist(), compute.fleet.column("free_ram_mb").tolist()]
    decision = place_together(compute, storage, joint([6, 6, 6], Locality(level="zone")))
    assert not decision.placed
    assert decision.refusal is not None
    assert decision.refusal.sentence.startswith("3 hosts can take the guest, but none has room for its volumes in its")
    assert before == [storage.pools.columns["allocated"].tolist(), compute.fleet.column("free_ram_mb").tolist()]
    assert (len(storage.pools.volumes), compute.sequence, storage.sequence) == (0, 0, 0)
    compute.fleet.check()


def test_a_refusal_says_that_it_would_work_far_away() -> None:
    compute, storage = world({"elsewhere": 100})
    decision = place_together(compute, storage, joint([6], Locality(level="host")))
    assert decision.refusal is not None
    assert decision.refusal.hint == "without locality all would be placed"
    assert not storage.pools.volumes


@pytest.mark.parametrize(("weight", "host", "near"), [(100.0, "node-0", (True,)), (0.0, "node-2", (False,))])
def test_as_a_weight_near_storage_competes_with_the_host_s_own_weight(
    weight: float, host: str, near: tuple[bool, ...]
) -> None:
    compute, storage = world({"node-0": 50, "far": 900})
    locality = Locality(level="host", mode="weight", weight=weight)
    decision = place_together(compute, storage, joint([5], locality))
    assert decision.guest is not None
    assert decision.guest.host == host
    assert decision.near == near


def test_hosts_that_see_the_same_storage_are_tried_once() -> None:
    compute, storage = world({"far": 3}, ram=(8_192,) * 30)
    decision = place_together(compute, storage, joint([5], Locality(level="zone")))
    assert not decision.placed
    assert decision.tried <= 3


def test_a_volume_may_ask_for_the_host_of_its_guest() -> None:
    compute, storage = world({"node-0": 100, "node-1": 100})
    storage = VolumeEngine(
        compute.fleet,
        type(storage.policy).from_mapping(
            {"storage": {"scheduler_default_filters": ["CapacityFilter", "InstanceLocalityFilter"]}}
        ),
    )
    uuid = UUID.format(0)
    request = joint([5], Locality(level="host"))
    request = JointRequest(
        guest=request.guest.with_changes(instance_uuids=(uuid,)),
        volumes=(wish(5, scheduler_hints={"local_to_instance": uuid}),),
        locality=request.locality,
    )
    decision = place_together(compute, storage, request)
    assert decision.guest is not None
    assert decision.volumes[0].selected.backend_id.startswith(decision.guest.host)


def test_engines_on_a_fork_place_together_and_leave_no_trace() -> None:
    compute, storage = world({"node-0": 100})
    trial = compute.fork()
    together = place_together(trial, VolumeEngine(trial.fleet), joint([5]))
    assert together.placed
    assert not storage.pools.volumes
    assert place_together(compute, storage, joint([5])).placed


def test_engines_of_different_versions_are_refused() -> None:
    compute, storage = world({"node-0": 100})
    with pytest.raises(InvalidValue, match="one version"):
        place_together(compute.fork(), storage, joint([5]))
    with pytest.raises(InvalidValue, match="one version"):
        place_together(compute, VolumeEngine(), joint([5]))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (joint([5], Locality(level="planet")), UnknownName),
        (joint([5], Locality(level="host", mode="maybe")), UnknownName),
        (joint([5], Locality(level="host", weight=-1.0)), InvalidValue),
        (joint([5], Locality(level="host", weight=float("nan"))), InvalidValue),
        (joint([5], "host"), InvalidValue),  # type: ignore[arg-type]  # that is the point
        (joint([-5]), InvalidValue),
        (JointRequest(guest=None, volumes=()), InvalidValue),  # type: ignore[arg-type]  # that is the point
        (
            JointRequest(guest=joint([]).guest, volumes=(wish(1).with_changes(volume_id=UUID.format(1)),) * 2),
            DuplicateName,
        ),
    ],
)
def test_bad_input_changes_nothing(request_: JointRequest, error: type[Exception]) -> None:
    compute, storage = world({"node-0": 100})
    with pytest.raises(error):
        place_together(compute, storage, request_)
    assert (compute.sequence, storage.sequence) == (0, 0)
    assert compute.place(joint([]).guest).placed
