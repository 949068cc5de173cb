"""Requests of several points of time in one call: guests of earlier ones have been built when later ones are placed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from hostler.placement.decide.engine import Engine
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.gpu.providers import add_gpus, gpu_extra_specs
from hostler.placement.load.bulk import add_hosts
from hostler.placement.policy.policy import Policy
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import Host
from hostler.placement.types.request import Flavor, Request, RequestSpec
from tests.seeds import seeds

from .dump import dump
from .values import guest_uuid

FILTERS = ["ComputeFilter", "NUMATopologyFilter"]
POLICY = {"filter_scheduler": {"io_ops_weight_multiplier": -5.0, "enabled_filters": FILTERS}}
"""Hosts on which guests are being built are avoided above all."""
EXTRA: list[dict[str, Any]] = [{}, {}, gpu_extra_specs(300, 1), {"hw:numa_nodes": "1"}, {"resources:CUSTOM_NONE": "1"}]


def engine() -> Engine:
    fleet = Fleet(seed=1)
    add_hosts(fleet, [Host(host=f"h{at}", vcpus_total=16, total_usable_ram_mb=16_000) for at in range(6)])
    add_gpus(fleet, {"h1": 2, "h4": 1})
    return Engine(fleet, Policy.from_mapping(POLICY), seed=3)


def request(chance: random.Random, number: int) -> Request:
    flavor = Flavor(name="f", vcpus=chance.randint(1, 3), memory_mb=1_000, extra_specs=chance.choice(EXTRA))
    uuids = [guest_uuid(10 * number + at) for at in range(chance.choice([1, 1, 1, 2]))]
    return Request(spec=RequestSpec(flavor=flavor), instance_uuids=tuple(uuids))


@pytest.mark.property
@pytest.mark.parametrize("seed", seeds(8))
def test_parts_of_a_call_are_placed_as_calls_after_which_all_have_been_built(seed: int) -> None:
    chance = random.Random(seed)
    requests = [request(chance, number) for number in range(30)]
    built_at = sorted(chance.choices(range(30), k=4))
    parts, together = engine(), engine()
    expected = []
    for first, last in zip([0, *built_at], [*built_at, 30], strict=True):
        decisions = list(parts.place_many(requests[first:last]))
        expected += decisions
        if last < 30:
            parts.spawned([each.instance_uuid for decision in decisions for each in decision.selections])
    found = together.place_many(requests, built_at=built_at)
    assert [(each.sequence, each.removed, each.selections) for each in found] == [
        (each.sequence, each.removed, each.selections) for each in expected
    ]
    assert found.placed > 0
    assert dump(together) == dump(parts)
    together.fleet.check()


NO_POSITIONS: list[Any] = [
    *([2, 1], [-1], [4], [1.0], [1.5], ["a"], "12", [True], [None], [[1]], 2, None, np.bool_(True), [np.True_]),
    *(
        np.array([1.0]),
        np.array([True]),
        np.array([[1, 2]]),
        np.array([[1]]),
        np.array(1),
        np.array(["1"]),
        [np.array([1])],
    ),
]


@pytest.mark.parametrize("built_at", NO_POSITIONS, ids=repr)
def test_positions_that_are_none_are_refused(built_at: Any) -> None:
    trial = engine()
    with pytest.raises(InvalidValue, match="built_at"):
        trial.place_many([request(random.Random(1), number) for number in range(3)], built_at=built_at)
    assert trial.sequence == 0


def test_guests_that_are_built_bring_their_uuids() -> None:
    spec = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1_000))
    trial, own = engine(), Request(spec=spec, instance_uuids=(guest_uuid(1),))
    with pytest.raises(InvalidValue, match="bring the uuids"):
        trial.place_many([Request(spec=spec), own], built_at=[1])
    assert trial.place_many([own, Request(spec=spec)], built_at=[1]).placed == 2


def test_a_guest_whose_uuid_was_taken_before_stays_as_it_is() -> None:
    """An error of the call says nothing of the guest that has the uuid."""
    spec, trial = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1_000)), engine()
    same, other = (Request(spec=spec, instance_uuids=(guest_uuid(number),)) for number in (1, 2))
    trial.place(same)
    found = trial.place_many([same, other], built_at=[1])
    assert list(found.errors) == [0]
    building = trial.fleet.column("num_io_ops").sum()
    assert building == 2


@pytest.mark.parametrize("built_at", [[3], (3,), np.array([3]), [np.uint8(3)], [0, 3, 3]], ids=repr)
def test_all_may_have_been_built(built_at: Any) -> None:
    spec, trial = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1_000)), engine()
    requests = [Request(spec=spec, instance_uuids=(guest_uuid(number),)) for number in range(3)]
    assert trial.place_many(requests, built_at=built_at).placed == 3
    assert trial.fleet.column("num_io_ops").sum() == 0
    trial.fleet.check()


@pytest.mark.parametrize("built_at", [[], np.array([], np.int64), [1, 2], [2]], ids=repr)
def test_what_is_no_request_is_answered_as_without_positions(built_at: Any) -> None:
    spec, trial = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1_000)), engine()
    asked: list[Any] = [Request(spec=spec, instance_uuids=(guest_uuid(1),)), 7]
    with pytest.raises(InvalidValue) as plain:
        trial.place_many(asked)
    with pytest.raises(InvalidValue) as found:
        trial.place_many(asked, built_at=built_at)
    assert str(found.value) == str(plain.value)
    decisions = trial.place_many(asked, strict=False, built_at=built_at)
    assert (decisions.placed, list(decisions.errors)) == (1, [1])
    assert trial.fleet.column("num_io_ops").sum() == (0 if len(built_at) else 1)
