"""Many guests with GPUs by ``place_many``: the answers and charges of ``place``, one after the other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler import Decision, DuplicateName, Engine, Request
from hostler.placement.fleet.consumers import Consumers, Extras
from hostler.placement.weighers.gpu import GPU_WEIGHERS
from tests.engine.dump import dump

from .test_batch import nodes, used_by_class, wishes
from .values import engine, spec

pytestmark = pytest.mark.kernel_twin
UUID = "00000000-0000-4000-8000-{:012x}"


def _said(decision: Decision) -> tuple[object, ...]:
    """All of a decision that ``place_many`` says, too."""
    answer = (decision.sequence, decision.seed, decision.considered, dict(decision.removed), decision.placed)
    if not decision.placed:
        assert decision.refusal is not None
        return (*answer, decision.refusal.sentence, decision.refusal.stage)
    chosen = decision.selected
    what = (chosen.instance_uuid, chosen.host, chosen.node, chosen.provider_uuid, chosen.weight)
    return (*answer, *what, chosen.allocations, chosen.mappings, chosen.availability_zone)


@pytest.mark.property
@pytest.mark.parametrize("weigher", [*sorted(GPU_WEIGHERS), "RAMWeigher"])
@settings(deadline=None, max_examples=6)
@given(nodes=nodes, asked=st.lists(wishes, min_size=1, max_size=14), named=st.booleans())
def test_many_are_placed_as_one_by_one(weigher: str, nodes: Any, asked: Any, named: bool) -> None:
    single, many = engine(nodes, weigher), engine(nodes, weigher)
    specs = {wish: spec(*wish[0], models=wish[1]) for wish in dict.fromkeys(asked)}
    for part in range(3):
        uuids = [(UUID.format(100 * part + at),) if named or at % 2 else () for at in range(len(asked))]
        requests = [Request(spec=specs[wish], instance_uuids=uuid) for wish, uuid in zip(asked, uuids, strict=True)]
        expected = [single.place(request) for request in requests]
        decisions = many.place_many(requests)
        assert decisions.placed == sum(decision.placed for decision in expected)
        assert [_said(decision) for decision in decisions] == [_said(decision) for decision in expected]
        here = [decision.selected.instance_uuid for decision in expected if decision.placed]
        assert [uuid for uuid, row in zip(decisions.uuids(), decisions.rows.tolist(), strict=True) if row >= 0] == here
        sizes = [
            size if row >= 0 else None for size, row in zip(decisions.sizes(), decisions.rows.tolist(), strict=True)
        ]
        amounts = {at: decisions.amounts_of(size) for at, size in enumerate(sizes) if size is not None}
        assert amounts == {at: decision.amounts() for at, decision in enumerate(expected) if decision.placed}
        for each in (single, many):
            each.release(here[::2])
        assert used_by_class(single) == used_by_class(many)
    many.fleet.check()


def _gpus() -> Engine:
    return engine([(8, 2, "T4"), (8, 0, "T4")], "RAMWeigher")


def test_a_guest_that_exists_does_not_stop_those_behind_it() -> None:
    trial, wanted = _gpus(), spec(1, 500, 1)
    requests = [Request(spec=wanted, instance_uuids=(UUID.format(number),)) for number in (1, 1, 2)]
    decisions = trial.place_many(requests)
    assert list(decisions.errors) == [1]
    assert isinstance(decisions.errors[1], DuplicateName)
    assert [decision.sequence for decision in decisions] == [1, 0, 2]


def test_decisions_stay_what_they_were_when_hosts_are_gone() -> None:
    trial, wanted = _gpus(), spec(1, 500, 1)
    decisions = trial.place_many([Request(spec=wanted, instance_uuids=(UUID.format(1),))])
    trial.release([UUID.format(1)])
    fleet = trial.fleet
    for row in [row for row in range(fleet.rows) if fleet._store.row["parent"][row] == fleet.row("n0")]:
        fleet.remove_provider(fleet.name(row))
    fleet.remove_provider("n0")
    assert decisions[0].host == "n0"
    assert len(decisions[0].selected.allocations) == 2


def test_what_many_took_is_given_back_on_the_way_to_an_earlier_version() -> None:
    trial, wanted = _gpus(), spec(1, 500, 1)
    before = used_by_class(trial)
    version = trial.what_if()
    assert version.place_many([Request(spec=wanted)] * 5).placed == 4
    assert used_by_class(trial) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("weigher", ["RAMWeigher", "GpuClusteringWeigher"])
def test_an_interrupted_call_leaves_the_fleet_as_it_was(
    monkeypatch: pytest.MonkeyPatch, weigher: str, error: type[BaseException]
) -> None:
    """It comes while what guests take of their GPUs is noted."""
    trial = engine([(32, 4, "T4")] * 4, weigher)
    trial.place(Request(spec=spec(1, 0, 0)))
    before = dump(trial)
    keep, calls = Consumers.keep_extras, 0

    def interrupted(consumers: Consumers, consumer: int, extras: Extras) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error
        keep(consumers, consumer, extras)

    monkeypatch.setattr(Consumers, "keep_extras", interrupted)
    with pytest.raises(error):
        trial.place_many([Request(spec=spec(1, 300, 1)) for _ in range(5)])
    assert calls > 3
    trial.fleet.check()
    assert dump(trial) == before
    assert trial.place_many([Request(spec=spec(1, 300, 1)) for _ in range(5)]).placed == 5
