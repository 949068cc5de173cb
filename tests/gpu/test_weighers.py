"""The weighers for GPUs: their formulas by hand, the GPUs they take, and what they refuse."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from hostler import Engine, InvalidValue, Policy
from hostler.placement.fleet.host_view import HostView
from hostler.placement.gpu.guest_kinds import GuestKinds
from hostler.placement.gpu.providers import GPU_MILLI, GpuTable, gpu_wish

from .values import NodeValues, engine, policy, request


def scores(trial: Engine, *shape: int) -> list[float]:
    """Raw values by row, of the policy's only weigher."""
    weigher, asked = trial.policy.weighers[0], request(*shape)
    return [weigher.raw(HostView(trial.fleet, row), asked) for row in np.flatnonzero(trial.fleet.is_host).tolist()]


NODES: list[NodeValues] = [(16, 2, "T4"), (64, 8, "G2")]


@pytest.mark.parametrize(
    ("weigher", "shape", "expected"),
    [
        ("GpuBestFitWeigher", (8, 500, 1), [1 - (8 / 256 + 1.5 / 16), 1 - (56 / 256 + 7.5 / 16)]),
        ("GpuDotProductWeigher", (8, 1000, 1), [1 - (128 / 128**2 + 2 / 64) / 2, 1 - (512 / 128**2 + 8 / 64) / 2]),
        ("GpuPackingWeigher", (1, 500, 1), [0.31, 0.25]),
        ("GpuPackingWeigher", (1,), [0, 0]),
        ("GpuClusteringWeigher", (1, 500, 1), [0.25 + 0.18, 0.25]),
    ],
)
def test_formulas_on_an_empty_fleet(weigher: str, shape: tuple[int, ...], expected: list[float]) -> None:
    assert scores(engine(NODES, weigher), *shape) == [int(100 * each + 1e-9) for each in expected]


def test_packing_prefers_gpus_in_use_then_hosts_in_use() -> None:
    trial = engine([(16, 2, "T4")], "GpuPackingWeigher")
    trial.place(request(1, 500, 1))
    assert scores(trial, 1, 300, 1) == [100 - 50 // 10]
    assert scores(trial, 1, 1000, 1) == [50 - 1]


def test_clustering_tells_kinds_of_guests_apart() -> None:
    trial = engine([(16, 2, "T4")], "GpuClusteringWeigher")
    trial.place(request(1, 500, 1))
    base = 25 * (8000 - 1500) // 8000
    assert scores(trial, 1, 200, 1) == [base + 75]
    assert scores(trial, 1, 1000, 1) == [base]
    trial.place(request(1, 1000, 1))
    base = 25 * (8000 - 500) // 8000
    assert scores(trial, 1, 200, 1) == [base + 50]


def test_fragmentation_by_hand() -> None:
    """Typical: half a GPU (0.5), a whole T4 (0.25), none (0.15), two whole ones (0.1), all with CPUs to spare."""
    trial = engine([(32, 2, "T4")], "GpuFragmentationWeigher")
    before = 0.15 * 2000
    # A guest with 600 of the first: 400 are too small for half a GPU or a whole one, and there are no two.
    after = 0.5 * 400 + 0.25 * 400 + 0.15 * 1400 + 0.1 * 1400
    assert scores(trial, 1, 600, 1) == [int(100 / (1 + math.exp(-(before - after) / 1000)))]


def test_a_share_comes_from_the_fullest_gpu_that_has_it_and_whole_ones_from_the_first() -> None:
    trial = engine([(64, 3, "T4")], "GpuBestFitWeigher")
    placed = [trial.place(request(1, *wish)).selected for wish in [(600, 1), (300, 1), (500, 1), (400, 1), (1000, 1)]]
    taken = [uuid for guest in placed for uuid in guest.allocations if uuid != guest.provider_uuid]
    gpus = [trial.fleet.uuid(trial.fleet.row(f"n0/gpu-{number}")) for number in range(3)]
    assert [gpus.index(uuid) for uuid in taken] == [0, 0, 1, 1, 2]


def test_guests_give_their_gpus_back() -> None:
    trial = engine([(64, 1, "T4")], "GpuFragmentationWeigher")
    guest = trial.place(request(1, 700, 1)).selected.instance_uuid
    assert not trial.place(request(1, 700, 1)).placed
    trial.release(guest)
    assert trial.fleet.inventory("n0/gpu-0")[GPU_MILLI][1] == 0
    assert trial.place(request(1, 700, 1)).placed


def test_only_hosts_with_a_model_that_is_named_will_do() -> None:
    trial = engine([(64, 1, "T4"), (64, 1, "V100-32")], "GpuBestFitWeigher")
    decision = trial.place(request(1, 100, 1, models="A10|V100-32"))
    assert decision.host == "n1"
    why = trial.explain(request(1, 100, 1, models="A10")).reason("n0")
    assert why is not None
    assert why.reason == "has no GPU of model A10"


def test_random_choices_follow_the_seed_and_reach_all_hosts() -> None:
    def chosen(seed: int) -> list[str]:
        trial = engine([(64, 1, "T4")] * 4, "GpuRandomWeigher", seed=seed)
        return [trial.place(request(1, 100, 1)).host for _ in range(20)]

    assert chosen(1) == chosen(1) != chosen(2)
    assert set(chosen(3)) == {"n0", "n1", "n2", "n3"}


@pytest.mark.parametrize(
    "typical", [["4000:500=1"], ["a:500:1=1"], ["4000:1001:1=1"], ["1:1:1=0"], ["1:1:65=1"], ["1:1:1:T4:x=1"]]
)
def test_typical_requests_that_make_no_sense_are_refused(typical: list[str]) -> None:
    with pytest.raises(InvalidValue, match="typical"):
        policy("GpuFragmentationWeigher", typical=typical)


def test_fragmentation_needs_typical_requests() -> None:
    with pytest.raises(InvalidValue, match="needs typical requests"):
        policy("GpuFragmentationWeigher", typical=[])


@pytest.mark.parametrize("amounts", [("500", "400"), ("1001",), ("0",), ("x",)])
def test_shares_that_make_no_sense_are_refused(amounts: tuple[str, ...]) -> None:
    with pytest.raises(InvalidValue, match=GPU_MILLI):
        gpu_wish({f"resources{number}:{GPU_MILLI}": amount for number, amount in enumerate(amounts)})


def test_policies_with_gpu_options_are_written_and_read() -> None:
    made = policy("GpuFragmentationWeigher", largest_gpu_milli=4000)
    assert Policy.from_toml(made.to_toml()) == made


@pytest.mark.parametrize("seed", [1, 2])
def test_counts_of_guests_by_kind_are_those_of_a_new_count_after_any_changes(seed: int) -> None:
    draw = random.Random(seed)
    trial = engine([(16, 3, "T4")] * 4, "GpuClusteringWeigher", seed=seed)
    rows, kinds, held = np.arange(4, dtype=np.int32), GuestKinds(trial.fleet), list[str]()
    for _ in range(60):
        gpus, milli = draw.choice([(0, 0), (1, 300), (1, 1000), (2, 1000)])
        if held and draw.random() < 0.4:
            trial.release(held.pop(draw.randrange(len(held))))
        elif draw.random() < 0.2:
            trial.what_if().place(request(1, milli, gpus))
        else:
            decision = trial.place(request(1, milli, gpus))
            held += [decision.selected.instance_uuid] if decision.placed else []
        assert kinds.of(rows, 3).tolist() == GuestKinds(trial.fleet).of(rows, 3).tolist()
    assert kinds.of(rows, 3).sum() == len(held)
    assert np.count_nonzero(kinds.of(rows, 3).sum(axis=0)) > 2


@pytest.mark.parametrize("asked_before", [False, True])
def test_inventories_of_gpus_that_a_provider_is_given_later_count(asked_before: bool) -> None:
    trial = engine([(8, 1, "T4"), (8, 0, "T4")], "GpuFragmentationWeigher")
    fleet = trial.fleet
    fleet.add_provider("n1/gpu-0", parent="n1")
    table, rows = GpuTable(fleet), np.array([fleet.row("n0"), fleet.row("n1")])
    if asked_before:
        assert trial.place(request(1, 300, 1)).host == "n0"
        assert (table.below(rows) >= 0).tolist() == [[True], [False]]
    fleet.set_inventory("n1/gpu-0", {GPU_MILLI: fleet.inventory("n0/gpu-0")[GPU_MILLI][0]})
    assert (table.below(rows) >= 0).tolist() == [[True], [True]]
    assert trial.place_many([request(1, 1000, 1)] * (2 - asked_before)).rows.tolist().count(-1) == 0
    if asked_before:
        fork = trial.what_if()
        fork.fleet.add_provider("n0/gpu-1", parent="n0")
        fork.fleet.set_inventory("n0/gpu-1", {GPU_MILLI: fleet.inventory("n0/gpu-0")[GPU_MILLI][0]})
        assert (GpuTable(fork.fleet).below(rows) >= 0).sum() == 3
        assert (table.below(rows) >= 0).sum() == 2
