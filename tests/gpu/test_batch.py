"""Guests that share GPUs: the batch kernel decides as the engine does, its twin as the kernel does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler import DuplicateName, Engine, InvalidValue, Request
from hostler.ext import _devices, devices_py
from hostler.placement.decide.gpu_batch import place_gpus
from hostler.placement.weighers.gpu import GPU_WEIGHERS

from .values import engine, request, spec

nodes = st.lists(
    st.tuples(st.sampled_from([4, 8, 16]), st.integers(0, 3), st.sampled_from(["T4", "G2"])), min_size=1, max_size=4
)
shapes = st.one_of(
    st.tuples(st.integers(1, 5), st.just(0), st.just(0)),
    st.tuples(st.integers(1, 5), st.sampled_from([100, 300, 500, 999]), st.just(1)),
    st.tuples(st.integers(1, 5), st.just(1000), st.integers(1, 3)),
    st.tuples(st.integers(1, 5), st.just(400), st.just(2)),
)
wishes = st.tuples(shapes, st.sampled_from(["", "T4", "T4|G2"]))


def used_by_class(trial: Engine) -> dict[str, list[int]]:
    fleet = trial.fleet
    used = fleet._store.inventory["used"][:, : fleet.rows].tolist()
    return {name: by_row for name, by_row in zip(fleet.resource_classes, used, strict=False) if any(by_row)}


@pytest.mark.property
@pytest.mark.parametrize("weigher", sorted(GPU_WEIGHERS))
@settings(deadline=None, max_examples=10)
@given(nodes=nodes, asked=st.lists(wishes, min_size=1, max_size=14))
def test_a_batch_decides_and_charges_as_the_engine_does_one_by_one(weigher: str, nodes: Any, asked: Any) -> None:
    one_by_one, batch = engine(nodes, weigher), engine(nodes, weigher)
    specs = {wish: spec(*wish[0], models=wish[1]) for wish in dict.fromkeys(asked)}
    expected = [one_by_one.place(Request(spec=specs[wish])) for wish in asked]
    decisions = place_gpus(batch, [Request(spec=specs[wish]) for wish in asked])
    chosen = [batch.fleet.name(row) if row >= 0 else None for row in decisions.rows.tolist()]
    assert chosen == [decision.host if decision.placed else None for decision in expected]
    assert used_by_class(one_by_one) == used_by_class(batch)
    assert one_by_one.sequence == batch.sequence
    batch.fleet.check()


@pytest.mark.property
@pytest.mark.parametrize("policy", range(6))
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_the_kernel_and_its_twin_agree_to_the_bit(policy: int, data: Any) -> None:
    n, width, p = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 4)), data.draw(st.integers(0, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    asked = np.array([[1000, 0, 0], [2000, 300, 1], [3000, 1000, 1], [500, 1000, 2], [0, 450, 2]], np.int64)
    typical = np.array([[1000, 0, 0], [4000, 500, 1], [2000, 1000, 2]], np.int64)
    share, typical_allowed = np.array([0.3, 0.5, 0.2]), rng.integers(0, 2, (3, n)).astype(np.uint8)
    idle = rng.choice([-1, 0, 250, 500, 750, 1000], (n, width)).astype(np.int32)
    arrays = [
        np.arange(n, dtype=np.int32),
        rng.integers(0, 9000, n),
        rng.integers(0, 20, (2, n)),
        idle,
        rng.integers(0, 2, (n, width + 2)).astype(np.int32),
        rng.integers(0, 2, (5, n)).astype(np.uint8),
        asked,
        rng.integers(0, 4, (5, 2)),
        rng.integers(0, 5, p).astype(np.int32),
        rng.integers(0, 2**64, p, dtype=np.uint64),
    ]
    copies = [array.copy() for array in arrays]
    answers = _devices.place(policy, 9000.0, 4000.0, typical, share, typical_allowed, *arrays)
    twins = devices_py.place(policy, 9000.0, 4000.0, typical, share, typical_allowed, *copies)
    for answer, twin in zip((*answers, *arrays), (*twins, *copies), strict=True):
        assert answer.dtype == twin.dtype
        assert answer.tolist() == twin.tolist()
    rows, cpu, _, idle, tags, *_ = arrays
    for shape in [tuple(each) for each in asked.tolist()]:
        scored = [
            kernel.score(policy, 9e3, 4e3, typical, share, typical_allowed, rows, cpu, idle, tags, shape, 5)
            for kernel in (_devices, devices_py)
        ]
        assert [each.tolist() for each in scored[0]] == [each.tolist() for each in scored[1]]
    lost = [kernel.fragmentation(typical, share, typical_allowed, cpu, idle) for kernel in (_devices, devices_py)]
    assert lost[0].tolist() == lost[1].tolist()


@pytest.mark.parametrize("kernel", [_devices, devices_py])
def test_arrays_that_do_not_belong_together_are_refused(kernel: Any) -> None:
    typical, share = np.zeros((0, 3), np.int64), np.zeros(0)
    allowed, rows, cpu = np.zeros((0, 1), np.uint8), np.zeros(1, np.int32), np.zeros(1, np.int64)
    idle, tags = np.zeros((1, 1), np.int32), np.zeros((1, 3), np.int32)
    good = [0, 1.0, 1.0, typical, share, allowed, rows, cpu, idle, tags, (1, 1, 1), 0]
    assert kernel.score(*good)[0].tolist() == [0.0]
    for place, value in [
        (0, 6),
        (1, 0.0),
        (4, np.zeros(1)),
        (6, np.zeros(2, np.int32)),
        (9, tags[:, 1:]),
        (10, (1, 0, 1)),
    ]:
        bad = [*good[:place], value, *good[place + 1 :]]
        with pytest.raises(ValueError, match=r"."):
            kernel.score(*[np.ascontiguousarray(each) if isinstance(each, np.ndarray) else each for each in bad])


def test_a_batch_is_all_or_nothing() -> None:
    trial = engine([(16, 2, "T4")], "GpuPackingWeigher")
    uuid = "6e750000-0000-4000-8000-000000000001"
    good = request(1, 500, 1).with_changes(instance_uuids=(uuid,))
    with pytest.raises(DuplicateName):
        place_gpus(trial, [good, good])
    with pytest.raises(InvalidValue, match="without alternates"):
        place_gpus(trial, [good, request(1).with_changes(alternates=1)])
    assert trial.sequence == 0
    assert place_gpus(trial, [good]).placed == 1
    assert place_gpus(trial, []).placed == 0


def test_a_batch_wants_one_gpu_weigher() -> None:
    trial = engine([(16, 2, "T4")], "CPUWeigher")
    with pytest.raises(InvalidValue, match="one GPU weigher"):
        place_gpus(trial, [request(1)])


def test_a_fork_takes_a_batch_and_the_fleet_is_as_before() -> None:
    trial = engine([(16, 2, "T4")], "GpuBestFitWeigher")
    fork = trial.what_if()
    assert place_gpus(fork, [request(1, 500, 1)] * 3).placed == 3
    assert trial.fleet.inventory("n0/gpu-0")["CUSTOM_GPU_MILLI"][1] == 0
    assert fork.fleet.inventory("n0/gpu-0")["CUSTOM_GPU_MILLI"][1] == 1000
    fork.fleet.check()
