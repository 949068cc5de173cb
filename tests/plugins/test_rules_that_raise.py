"""Rules of others that raise, at any of their methods: every door answers with a HostlerError that names the rule, and
goes on."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from hostler import Engine, Flavor, Fleet, Host, Policy, Request, RequestSpec, add_hosts
from hostler.core import engine_commands as p
from hostler.core.machine.machine import ServiceMachine
from hostler.placement.filters.base import Filter
from hostler.placement.storage.pools.filters.base import PoolFilter
from hostler.placement.storage.pools.policy import VolumePolicy
from hostler.placement.storage.pools.weighers.base import PoolWeigher
from hostler.placement.types.errors import HostlerError, InvalidValue, RuleFailed
from hostler.placement.weighers.base import Weigher
from tests.core.orders import NOW, asked, hosts, order, uuid_of
from tests.storage.values import engine, pool, report, wish
from tests.volumes.values import place, reports

HERE = __name__
REQUEST = Request(spec=RequestSpec(flavor=Flavor(name="m", vcpus=1, memory_mb=1)))


class NoDatabase(RuntimeError):
    """One that cannot even say what it is."""

    def __str__(self) -> str:
        raise ValueError


class Filtering(Filter):
    name: ClassVar[str] = "Filtering"

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"host"})

    def host_passes(self, host: Any, request: Request) -> bool:
        return False


class OwnPasses(Filtering):
    name: ClassVar[str] = "OwnPasses"

    def host_passes(self, host: Any, request: Request) -> bool:
        raise NoDatabase


class OwnKey(Filtering):
    name: ClassVar[str] = "OwnKey"

    def key(self, request: Request) -> None:
        raise NoDatabase


class OwnApplies(Filtering):
    name: ClassVar[str] = "OwnApplies"

    def applies(self, request: Request) -> bool:
        raise NoDatabase


class OwnInit(Filtering):
    name: ClassVar[str] = "OwnInit"

    def __init__(self, options: Any) -> None:
        raise NoDatabase


class OwnRaw(Weigher):
    name: ClassVar[str] = "OwnRaw"
    option: ClassVar[str] = "ram_weight_multiplier"

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"host"})

    def raw(self, host: Any, request: Request) -> float:
        raise NoDatabase


class NovaInit:
    def __init__(self) -> None:
        raise NoDatabase

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        return True


class NovaPasses:
    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        raise NoDatabase


class NovaWeigherInit:
    def __init__(self) -> None:
        raise NoDatabase

    def _weigh_object(self, host_state: Any, spec_obj: Any) -> float:
        return 1.0


class PoolPasses(PoolFilter):
    name: ClassVar[str] = "PoolPasses"

    def pool_passes(self, pools: Any, filter_properties: Any, row: int) -> bool:
        raise NoDatabase

    def why(self, pools: Any, filter_properties: Any, row: int) -> str:
        return "never"


class PoolRaw(PoolWeigher):
    name: ClassVar[str] = "PoolRaw"

    def raw(self, pools: Any, filter_properties: Any, rows: Any, draw: Any) -> Any:
        raise NoDatabase


class PoolMultiplier(PoolWeigher):
    name: ClassVar[str] = "PoolMultiplier"

    @property
    def multiplier(self) -> float:
        raise NoDatabase

    def raw(self, pools: Any, filter_properties: Any, rows: Any, draw: Any) -> Any:
        return np.zeros(len(rows))


class CinderInit:
    def __init__(self) -> None:
        raise NoDatabase

    def backend_passes(self, backend_state: Any, filter_properties: dict[str, Any]) -> bool:
        return True


class CinderMultiplier:
    def weight_multiplier(self) -> float:
        raise NoDatabase

    def _weigh_object(self, backend_state: Any, weight_properties: dict[str, Any]) -> float:
        return 1.0


class CinderNan:
    def weight_multiplier(self) -> float:
        return float("nan")

    def _weigh_object(self, backend_state: Any, weight_properties: dict[str, Any]) -> float:
        return 1.0


def table(rule: type[Any]) -> dict[str, dict[str, Any]]:
    path = f"{HERE}.{rule.__name__}"
    if rule.__name__.startswith(("Pool", "Cinder")):
        is_filter = hasattr(rule, "pool_passes") or hasattr(rule, "backend_passes")
        return {"storage": {f"scheduler_default_{'filters' if is_filter else 'weighers'}": [path]}}
    if hasattr(rule, "host_passes"):
        available = ["nova.scheduler.filters.all_filters", path]
        return {"filter_scheduler": {"available_filters": available, "enabled_filters": [rule.__name__]}}
    return {"filter_scheduler": {"weight_classes": [path]}}


RULES = [OwnPasses, OwnKey, OwnApplies, OwnInit, OwnRaw, NovaInit, NovaPasses, NovaWeigherInit]
POOL_RULES = [PoolPasses, PoolRaw, PoolMultiplier, CinderInit, CinderMultiplier, CinderNan]


@pytest.mark.parametrize("rule", [OwnInit, NovaInit, NovaWeigherInit, CinderInit])
def test_a_rule_that_cannot_be_made_is_named_by_the_policy(rule: type[Any]) -> None:
    with pytest.raises(RuleFailed, match=rule.__name__):
        (VolumePolicy if rule in POOL_RULES else Policy).from_mapping(table(rule))


@pytest.mark.parametrize("rule", [OwnPasses, OwnKey, OwnApplies, OwnRaw, NovaPasses])
def test_a_rule_of_hosts_that_raises_is_named_by_every_question(rule: type[Any]) -> None:
    fleet = Fleet()
    add_hosts(fleet, [Host(host=name, vcpus_total=4, total_usable_ram_mb=4_096) for name in "ab"])
    made = Engine(fleet, Policy.from_mapping(table(rule)))
    for ask in (made.place, made.rank, made.explain, made.fits):
        with pytest.raises(InvalidValue, match=rule.__name__):
            ask(REQUEST)
    assert rule.__name__ in str(made.place_many([REQUEST], strict=False).errors[0])


@pytest.mark.parametrize("rule", [PoolPasses, PoolRaw, PoolMultiplier, CinderMultiplier, CinderNan])
def test_a_rule_of_pools_that_raises_is_named_by_every_question(rule: type[Any]) -> None:
    (options,) = table(rule).values()
    made = engine(*(report(f"h{number}@b", pool("a", free=500)) for number in range(2)), **options)
    for ask in (made.place, made.rank, made.explain, lambda each: made.place_many([each])):
        with pytest.raises(InvalidValue, match=rule.__name__):
            ask(wish())


@pytest.mark.parametrize("rule", [*RULES, *POOL_RULES])
def test_the_service_answers_with_the_name_of_the_rule_and_goes_on(rule: type[Any]) -> None:
    made = ServiceMachine()

    def do(command: Any) -> Any:
        (answer,) = made.apply_batch([made.decode(made.encode(order(command, now=NOW)))])
        return answer

    do(p.AddHosts(hosts=hosts(2)))
    do(reports(report("h0@b", pool("a", free=500)), report("h1@b", pool("a", free=500))))
    answer = do(p.SetPolicy(policy=table(rule)))
    if not isinstance(answer, HostlerError):
        of_pools = rule in POOL_RULES
        answer = do(place(11, 1, project="") if of_pools else p.Place(request=asked(1)))
        if not of_pools:
            assert rule.__name__ in do(p.PlaceMany(requests=(asked(2),))).refusals[0][1]
    assert isinstance(answer, InvalidValue)
    assert rule.__name__ in str(answer)
    do(p.SetPolicy(policy={}))
    assert do(p.Place(request=asked(1))).selected.instance_uuid == uuid_of(1)


def test_the_service_answers_for_a_rule_that_cannot_be_imported_and_goes_on() -> None:
    made = ServiceMachine()
    tables: list[dict[str, dict[str, Any]]] = [
        {"filter_scheduler": {"available_filters": ["no.such.module.Rule"]}},
        {"filter_scheduler": {"weight_classes": ["no.such.module.Rule"]}},
        {"hostler": {"nova_filters": ["no.such.module:Rule"]}},
        {"storage": {"scheduler_default_filters": ["no.such.module.Rule"]}},
    ]
    for each in tables:
        (answer,) = made.apply_batch([made.decode(made.encode(order(p.SetPolicy(policy=each), now=NOW)))])
        assert isinstance(answer, RuleFailed)
        assert "no.such.module" in str(answer)
