"""Runs of requests for nested providers in one kernel call: as ``place`` decides them one by one, whatever changes in
between; what the kernel leaves to Python; and what it refuses."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler import Decision, Engine, Flavor, Inventory, Request, RequestSpec
from hostler.ext import devices, devices_py
from hostler.ext import fleet as kernel_fleet
from hostler.ext import fleet_py as twin_fleet
from hostler.ext.nested_batch import NestedShape, place
from hostler.ext.ranking import Ranking
from hostler.ext.shapes import Shapes
from hostler.placement.decide import batch, nested_run, nested_shapes
from hostler.placement.gpu.guest_kinds import GuestKinds
from hostler.placement.weighers.gpu import GpuWeigher

from ..kernels.world import empty_arrays, int32, words
from .test_batch import used_by_class
from .values import engine, spec

pytestmark = pytest.mark.kernel_twin
MILLI = "CUSTOM_GPU_MILLI"
TOGETHER = {f"resources_{name}:{MILLI}": "300" for name in "AB"}
MARKED = {f"resources1:{MILLI}": "250", "trait1:CUSTOM_FAST": "required"}


def _spec(name: str, cpus: int, extra: dict[str, str]) -> RequestSpec:
    return RequestSpec(flavor=Flavor(name=name, vcpus=cpus, memory_mb=512, extra_specs=extra))


SPECS = [
    spec(1),
    spec(2, 500, 1),
    spec(1, 1000, 2, models="T4"),
    _spec("together", 1, {**TOGETHER, "group_policy": "none"}),
    _spec("marked", 1, MARKED),
    _spec("large", 3, {}),
]


def _said(decision: Decision) -> tuple[Any, ...]:
    said = (decision.sequence, decision.seed, decision.considered, dict(decision.removed), decision.placed)
    if not decision.placed:
        return said
    chosen = decision.selected
    return (*said, chosen.instance_uuid, chosen.host, chosen.weight, chosen.allocations, chosen.mappings)


def _changed(trial: Engine, what: int, placed: list[str]) -> None:
    """One of the changes that may come between two batches."""
    fleet = trial.fleet
    if what == 1:
        disabled = fleet._classes.values[int(fleet._store.row["class_of"][fleet.row("n0")])].disabled
        fleet.set_service("n0", disabled=not disabled)
    elif what == 2:
        fleet._kernel.forget_log()
    elif what == 3 and placed:
        trial.release(placed[-1:])
        placed.pop()
    elif what == 4:
        name = f"n1/gpu-{fleet.rows}"
        fleet.add_provider(name, parent="n1", traits={"CUSTOM_FAST"})
        fleet.set_inventory(name, {MILLI: Inventory(total=1000, max_unit=1000)})


@pytest.mark.property
@pytest.mark.parametrize(
    "weigher", ["RAMWeigher", "GpuFragmentationWeigher", "GpuPackingWeigher", "GpuClusteringWeigher"]
)
@settings(deadline=None, max_examples=12)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from([0, 0, 1, 2, 3, 4]), st.lists(st.sampled_from(range(6)), max_size=8)), max_size=8
    )
)
def test_batches_between_changes_are_decided_as_one_by_one(weigher: str, parts: Any) -> None:
    single, many = (engine([(6, 2, "T4"), (8, 1, "G2"), (8, 0, "T4")], weigher) for _ in range(2))
    placed: list[str] = []
    for change, asked in parts:
        for each in (single, many):
            _changed(each, change, list(placed))
        if change == 3:
            placed = placed[:-1]
        requests = [Request(spec=SPECS[number]) for number in asked]
        expected = [single.place(request) for request in requests]
        assert [_said(each) for each in many.place_many(requests)] == [_said(each) for each in expected]
        placed += [each.selected.instance_uuid for each in expected if each.placed]
        assert used_by_class(single) == used_by_class(many)
    many.fleet.check()


def test_a_batch_takes_one_kernel_call(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = engine([(16, 4, "T4")] * 3, "GpuPackingWeigher")
    requests = [Request(spec=SPECS[number]) for number in (0, 1, 2, 0, 1)]
    trial.place_many(requests)
    calls: list[int] = []

    def noted(*call: Any) -> tuple[int, bool]:
        calls.append(1)
        return place(*call)

    monkeypatch.setattr(batch, "decide_nested", None)
    monkeypatch.setattr(nested_run, "place", noted)
    assert trial.place_many(requests).placed == 5
    assert calls == [1]


def test_guests_that_a_batch_places_are_counted_by_kind() -> None:
    trial = engine([(16, 4, "T4")] * 3, "GpuClusteringWeigher")
    (weigher,) = [each for each in trial.policy.weighers if isinstance(each, GpuWeigher)]
    rows = np.arange(trial.fleet.rows, dtype=np.int32)
    for _ in range(3):
        decisions = trial.place_many([Request(spec=SPECS[number]) for number in (0, 1, 2, 3, 1, 4)])
        assert decisions.placed > 3
        assert weigher.tags(trial.fleet, rows, 4).tolist() == GuestKinds(trial.fleet).of(rows, 4).tolist()
        trial.release([decisions[1].selected.instance_uuid])


def test_cpus_of_a_nested_provider_are_left_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host gives something of every class but CPUs, which its cell gives."""
    monkeypatch.setattr(nested_shapes, "MOST_DROPS", 2)
    single, many = (engine([(4, 1, "T4"), (4, 1, "T4")], "RAMWeigher") for _ in range(2))
    for each in (single, many):
        memory = each.fleet.inventory("n0")["MEMORY_MB"][0]
        each.fleet.set_inventory("n0", {"MEMORY_MB": memory})
        each.fleet.add_provider("n0/cell", parent="n0")
        each.fleet.set_inventory("n0/cell", {"VCPU": Inventory(total=8, max_unit=8)})
    requests = [Request(spec=spec(1, 200, 1)) for _ in range(10)]
    expected = [_said(single.place(request)) for request in requests]
    assert [_said(each) for each in many.place_many(requests)] == expected
    assert any("n0" in said[6] for said in expected if said[4])
    assert used_by_class(single) == used_by_class(many)


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(policy=st.integers(0, 5), seed=st.integers(0, 2**32))
def test_scores_of_hosts_are_those_of_gathered_columns(policy: int, seed: int) -> None:
    draw, capacity, rows, width = np.random.default_rng(seed), 64, 20, 3
    arrays = empty_arrays(capacity)
    arrays["avail"][:] = draw.choice([-5, 0, 1, 4, 250, 1000, 2000], arrays["avail"].shape)
    arrays["class_of"][:] = draw.integers(0, 2, capacity)
    below = draw.integers(-1, rows, (capacity, width)).astype(np.int32)
    typical, share = np.array([[1000, 0, 0], [2000, 500, 1], [500, 1000, 2]], np.int64), np.array([0.2, 0.3, 0.5])
    allowed = draw.integers(0, 2, (3, 2)).astype(np.uint8)
    asked = np.arange(rows, dtype=np.int32)
    tags = draw.integers(0, 2, (rows, width + 2)).astype(np.int32)
    idle = np.where(below >= 0, np.maximum(arrays["avail"][1][below], 0), -1).astype(np.int32)[:rows]
    cpu, classes = arrays["avail"][0][:rows] * 500, arrays["class_of"][:rows]
    for shape in ((1000, 0, 0), (500, 250, 1), (0, 1000, 2), (0, 100, 4)):
        rule = (policy, 9e3, 4e3, typical, share)
        gathered = devices.score(*rule, np.ascontiguousarray(allowed[:, classes]), asked, cpu, idle, tags, shape, seed)
        for module, columns in ((devices, kernel_fleet.Columns()), (devices_py, twin_fleet.Columns())):
            columns.attach(**{name: array.copy() for name, array in arrays.items()})
            columns.set_rows(rows)
            scores = module.HostScores(columns, *rule, allowed, below, 1, 0, 500, shape, seed)
            assert [each.tolist() for each in scores.of(asked, tags)] == [each.tolist() for each in gathered]


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(policy=st.sampled_from([devices.FRAGMENTATION, devices.BEST_FIT]), seed=st.integers(0, 2**32))
def test_scores_beside_others_are_those_of_each_alone_whatever_changes(policy: int, seed: int) -> None:
    """What fragmentation hosts have is kept by row, for all requests of one mix."""
    draw, capacity, rows, width = np.random.default_rng(seed), 16, 12, 2
    arrays = empty_arrays(capacity)
    below = draw.integers(-1, rows, (capacity, width)).astype(np.int32)
    typical, share = np.array([[1000, 0, 0], [2000, 500, 1], [500, 1000, 2]], np.int64), np.array([0.2, 0.3, 0.5])
    made_of = (policy, 9e3, 4e3, typical, share, draw.integers(0, 2, (3, 2)).astype(np.uint8), below, 1, 0, 500)
    asked, shapes = np.arange(rows, dtype=np.int32), [(500, 250, 1), (0, 0, 0), (0, 1000, 2)]
    for module, columns in ((devices, kernel_fleet.Columns()), (devices_py, twin_fleet.Columns())):
        columns.attach(**arrays)
        columns.set_rows(rows)
        first = module.HostScores(columns, *made_of, shapes[0])
        together = [first, *(module.HostScores(columns, *made_of, shape, beside=first) for shape in shapes[1:])]
        for _ in range(6):
            some = draw.integers(0, rows, 3)
            arrays["avail"][:, some] = draw.choice([-5, 0, 1, 250, 1000], (len(arrays["avail"]), 3))
            arrays["class_of"][some] = draw.integers(0, 2, 3)
            for shape, scores in zip(shapes, together, strict=True):
                alone = module.HostScores(columns, *made_of, shape)
                assert [each.tolist() for each in scores.of(asked)] == [each.tolist() for each in alone.of(asked)]


@pytest.mark.parametrize("change", ["rule", "mix", "devices", "fleet"])
def test_scores_are_beside_none_made_of_other_arrays(change: str) -> None:
    for module, fleet in ((devices, kernel_fleet), (devices_py, twin_fleet)):
        columns, arrays = fleet.Columns(), empty_arrays(64)
        columns.attach(**arrays)
        columns.set_rows(3)
        typical, share = np.array([[1000, 500, 1]], np.int64), np.array([1.0])
        allowed, below = np.ones((1, 2), np.uint8), np.full((64, 1), 2, np.int32)
        one = module.HostScores(columns, 4, 1.0, 1.0, typical, share, allowed, below, 1, 0, 1, (0, 500, 1))
        rule, mix, other = 4, typical, columns
        if change == "rule":
            rule = 0
        elif change == "mix":
            mix = typical.copy()
        elif change == "devices":
            below = below.copy()
        else:
            other = fleet.Columns()
            other.attach(**arrays)
            other.set_rows(3)
        with pytest.raises(ValueError, match="beside"):
            module.HostScores(other, rule, 1.0, 1.0, mix, share, allowed, below, 1, 0, 1, (0, 0, 0), beside=one)


class Scene:
    """Three hosts without devices, and a ranking of them."""

    def __init__(self) -> None:
        self.columns = kernel_fleet.Columns()
        self.arrays = empty_arrays(64)
        self.columns.attach(**self.arrays)
        self.columns.set_rows(3)
        self.columns.add_shape(int32([0]), np.array([1]), 1, 512, 0)
        self.ranking = Ranking(self.columns, class_stage=np.zeros(2, np.uint8))
        self.root = np.arange(64, dtype=np.int32)
        none = np.zeros((0, 3), np.int64), np.zeros(0), np.zeros((0, 2), np.uint8)
        below = np.full((64, 1), -1, np.int32)
        self.scores = devices.HostScores(self.columns, 0, 1.0, 1.0, *none, below, 1, 0, 1, (0, 0, 0))

    def shape(self, **changes: Any) -> NestedShape:
        parts: dict[str, Any] = {"ranking": self.ranking, "root": self.root, "guest": 0, "seen": 0}
        return NestedShape(**(parts | changes))

    def place(self, **changes: Any) -> tuple[int, bool]:
        shapes = Shapes(self.columns)
        guests: dict[str, Any] = {name: np.zeros(2, np.int32) for name in ("which", "projects", "users")}
        guests |= {"uuids": words(1, 2), "building": True, "seed": 1, "sequence": 1, "nested_from": 0}
        guests |= {"out_row": int32([9, 9]), "out_consumer": int32([9, 9]), "out_score": np.zeros(2)}
        guests |= {"out_counts": np.zeros((2, 4), np.int64), "out_way": np.zeros((2, 1), np.int32)}
        guests |= {"marks": np.zeros(64, np.uint8), "nested": [self.shape()]}
        return place(self.columns, shapes, **(guests | changes))


@pytest.mark.parametrize(
    "fields",
    [
        {"ranking": None},
        {"root": np.zeros(2, np.int32)},
        {"values": np.zeros(64)},
        {"known": np.zeros(64, np.uint8)},
        {"device_slot": 0},
        {"stage": 1, "searched": "ranking"},
        {"kinds": np.zeros((64, 3), np.int32)},
    ],
)
def test_parts_that_do_not_belong_together_are_refused(fields: dict[str, Any]) -> None:
    scene = Scene()
    if "searched" in fields:
        fields = fields | {"searched": scene.ranking}
    with pytest.raises(ValueError, match=r"need|place|slot|row"):
        scene.shape(**fields)
    with pytest.raises(ValueError, match="each row"):
        scene.shape(scores=scene.scores, values=np.zeros(3))
    with pytest.raises(IndexError):
        scene.shape(guest=9)
    weighed: dict[str, Any] = {"scores": scene.scores, "values": np.zeros(64)}
    for wrong in ({"kinds": np.zeros((64, 2), np.int32)}, {"kind": -2}):
        with pytest.raises(ValueError, match="kind"):
            scene.shape(**weighed, **wrong)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"which": int32([0, 1])}, IndexError),
        ({"nested": [None]}, IndexError),
        ({"projects": int32([0])}, ValueError),
        ({"marks": np.zeros(3, np.uint8)}, ValueError),
        ({"out_way": np.zeros((2, 0), np.int32)}, ValueError),
        ({"out_counts": np.zeros((1, 4), np.int64)}, ValueError),
    ],
)
def test_batches_that_do_not_fit_are_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    scene = Scene()
    with pytest.raises(error):
        scene.place(**changes)
    assert scene.columns.consumer_count == 0
    assert scene.place() == (2, False)
    assert scene.columns.consumer_count == 2
    assert scene.place() == (0, False)


def test_devices_are_chosen_one_by_one_where_no_host_has_any() -> None:
    """The scores read no device then, and the kernel would refuse to be given one."""
    made = engine([(6, 0, "T4")], "GpuFragmentationWeigher")
    signature = made._context.signature(Request(spec=spec(1_000, 250, 1)))
    (weigher,) = [each for each in signature.weighers if isinstance(each, GpuWeigher)]
    counted = mock.Mock()
    assert nested_shapes._device_slot(made.fleet, signature, weigher, counted) is None
    assert not counted.mock_calls


def test_guests_of_unknown_kinds_are_left_undecided_where_kinds_are_counted() -> None:
    scene, kinds = Scene(), np.zeros((64, 3), np.int32)
    weighed: dict[str, Any] = {"scores": scene.scores, "values": np.zeros(64), "kinds": kinds}
    unknown, second = scene.shape(**weighed), scene.shape(**weighed, kind=1)
    assert scene.place(nested=[unknown], kinds=kinds) == (0, True)
    assert scene.place(nested=[second, unknown], which=int32([0, 1]), kinds=kinds) == (1, True)
    assert kinds.sum(axis=0).tolist() == [0, 1, 0]
    for others in ({}, {"kinds": kinds.copy()}, {"kinds": np.zeros((3, 3), np.int32)}):
        with pytest.raises(ValueError, match="kinds"):
            scene.place(nested=[second], uuids=words(3, 2), **others)
    with pytest.raises(ValueError, match="kinds"):
        scene.place(nested=[scene.shape(kind=3)], uuids=words(3, 2), kinds=kinds)
    assert scene.columns.consumer_count == 1
