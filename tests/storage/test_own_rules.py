"""Filters and weighers of others on pools: by entry point, by Cinder's dotted names, and by paths of their own."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, ClassVar

import numpy as np
import pytest

from hostler.placement.storage.pools import catalogue
from hostler.placement.storage.pools.filter_properties import FilterProperties
from hostler.placement.storage.pools.filters.base import PoolFilter
from hostler.placement.storage.pools.policy import VolumePolicy
from hostler.placement.storage.pools.pools import Pools
from hostler.placement.storage.pools.weighers.base import Draw, PoolWeigher, Rows, Weights
from hostler.placement.types.errors import DuplicateName, InvalidValue, UnknownName
from tests.storage.values import engine, pool, report, wish

HERE = __name__
POOLS = (report("h0@b", pool("a", free=500, rack="r1")), report("h1@b", pool("a", free=900, rack="r2")))


class RackFilter(PoolFilter):
    """Passes pools of the rack that the metadata name."""

    name: ClassVar[str] = "RackFilter"

    def pool_passes(self, pools: Pools, filter_properties: FilterProperties, row: int) -> bool:
        wanted = filter_properties.spec.metadata.get("rack")
        return wanted in (None, pools.fact(row).capabilities["rack"])

    def why(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        return f"stands in {pools.fact(row).capabilities['rack']}"


class FirstWeigher(PoolWeigher):
    """The first pool is the best."""

    name: ClassVar[str] = "FirstWeigher"

    def raw(self, pools: Pools, filter_properties: FilterProperties, rows: Rows, draw: Draw) -> Weights:
        return -rows.astype(np.float64)


class CinderRack:
    """A filter in Cinder's form."""

    def backend_passes(self, backend_state: Any, filter_properties: dict[str, Any]) -> bool:
        assert filter_properties["request_spec"]["volume_properties"]["size"] == filter_properties["size"]
        return bool(backend_state.capabilities["rack"] == filter_properties["metadata"].get("rack", "r1"))


class CinderLeast:
    """A weigher in Cinder's form."""

    def weight_multiplier(self) -> float:
        return -2.0

    def _weigh_object(self, backend_state: Any, weight_properties: dict[str, Any]) -> float:
        return float(backend_state.free_capacity_gb)


class BaseWeigher:
    """As Cinder's, whose own method weighs one after the other."""

    def weigh_objects(self, weighed_obj_list: Any, weight_properties: Any) -> list[float]:
        return [self._weigh_object(each.obj, weight_properties) for each in weighed_obj_list]

    def _weigh_object(self, backend_state: Any, weight_properties: dict[str, Any]) -> float:
        return float(backend_state.free_capacity_gb)


class CinderAll(BaseWeigher):
    def weigh_objects(self, weighed_obj_list: Any, weight_properties: Any) -> list[float]:
        return [1.0 for _ in weighed_obj_list]


class CinderBounded(BaseWeigher):
    minval = 0.0


class CinderOne(CinderRack):
    """A filter that overrides Cinder's hook for one pool."""

    def _filter_one(self, obj: Any, filter_properties: dict[str, Any]) -> bool:
        return not self.backend_passes(obj, filter_properties)


class CinderAllFilter(CinderRack):
    def filter_all(self, filter_obj_list: Any, filter_properties: Any) -> Any:
        return list(filter_obj_list)[:1]


class CinderBroken:
    def backend_passes(self, backend_state: Any, filter_properties: dict[str, Any]) -> bool:
        if filter_properties["size"] == 2:
            raise RuntimeError("no database")
        return bool(backend_state.no_such_attribute)


def install(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str, str]) -> None:
    made = EntryPoints(EntryPoint(name, f"{HERE}:{value}", f"hostler.volume_{kind}") for kind, name, value in points)
    monkeypatch.setattr(catalogue, "entry_points", lambda *, group: made.select(group=group))


def test_installed_rules_are_found_by_their_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("filters", "RackFilter", "RackFilter"), ("weighers", "FirstWeigher", "FirstWeigher"))
    made = engine(*POOLS, scheduler_default_filters=["RackFilter"], scheduler_default_weighers=["FirstWeigher"])
    assert made.place(wish()).selected.backend_id == "h0@b#a"
    assert made.place(wish(metadata={"rack": "r2"})).selected.backend_id == "h1@b#a"
    assert made.explain(wish(metadata={"rack": "r2"})).refused[0].reason == "stands in r1"
    many = made.place_many([wish(metadata={"rack": rack}) for rack in ("r1", "r2", "r1")])
    assert [decision.selected.backend_id for decision in many] == ["h0@b#a", "h1@b#a", "h0@b#a"]


def test_cinders_dotted_names_are_its_own_rules() -> None:
    named = {
        "scheduler_default_filters": ["cinder.scheduler.filters.capacity_filter.CapacityFilter"],
        "scheduler_default_weighers": ["cinder.scheduler.weights.capacity.CapacityWeigher"],
    }
    policy = VolumePolicy.from_mapping({"storage": named})
    assert [rule.name for rule in policy.filters] == ["CapacityFilter"]
    assert not policy.has_own_rules


def test_rules_in_cinders_form_run_unchanged_by_their_paths() -> None:
    made = engine(
        *POOLS,
        scheduler_default_filters=[f"{HERE}.CinderRack"],
        scheduler_default_weighers=[f"{HERE}:CinderLeast"],
    )
    assert made.place(wish(metadata={"rack": "r2"})).selected.backend_id == "h1@b#a"
    least = engine(*POOLS, scheduler_default_filters=[], scheduler_default_weighers=[f"{HERE}.CinderLeast"])
    decision = least.place(wish())
    assert decision.selected.backend_id == "h0@b#a"
    assert decision.selected.parts[0].multiplier == -2.0


def test_a_filters_hook_for_one_pool_is_called_and_rules_for_all_pools_are_refused() -> None:
    made = engine(*POOLS, scheduler_default_filters=[f"{HERE}.CinderOne"], scheduler_default_weighers=[])
    assert made.place(wish(metadata={"rack": "r2"})).selected.backend_id == "h0@b#a"
    engine(*POOLS, scheduler_default_filters=[], scheduler_default_weighers=[f"{HERE}.BaseWeigher"])
    for rule, what in (("CinderAll", "weigh_objects"), ("CinderBounded", "minval")):
        with pytest.raises(InvalidValue, match=what):
            engine(*POOLS, scheduler_default_weighers=[f"{HERE}.{rule}"])
    with pytest.raises(InvalidValue, match="filter_all"):
        engine(*POOLS, scheduler_default_filters=[f"{HERE}.CinderAllFilter"])


def test_a_rule_that_fails_refuses_the_pool_or_names_itself() -> None:
    made = engine(*POOLS, scheduler_default_filters=[f"{HERE}.CinderBroken"])
    assert "no attribute" in made.explain(wish()).refused[0].reason
    with pytest.raises(InvalidValue, match="CinderBroken of the policy raised RuntimeError: no database"):
        made.place(wish(2))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("NoSuchFilter", UnknownName),
        ("no.such.module.Filter", InvalidValue),
        (f"{HERE}.CinderLeast", InvalidValue),
        (f"{HERE}.install", InvalidValue),
    ],
)
def test_a_name_that_is_no_filter_is_refused(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        engine(scheduler_default_filters=[name])


def test_an_installed_rule_that_is_wrong_is_refused_when_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("filters", "CapacityFilter", "RackFilter"), ("filters", "Other", "RackFilter"))
    with pytest.raises(DuplicateName):
        engine()
    with pytest.raises(InvalidValue, match="named 'RackFilter'"):
        engine(scheduler_default_filters=["Other"])
