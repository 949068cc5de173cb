"""A rule that lies, answers junk or raises: the caller hears which rule it was, and nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from hostler.placement.decide.engine import Engine
from hostler.placement.filters.base import Bound, Filter
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.load.bulk import add_hosts
from hostler.placement.policy.policy import Policy
from hostler.placement.storage.pools.filters.base import PoolFilter
from hostler.placement.storage.pools.options import StorageOptions
from hostler.placement.storage.pools.weighers.base import PoolWeigher
from hostler.placement.types.errors import HostlerError, InvalidValue, MetricNotFound, RuleFailed, UnknownName
from hostler.placement.types.host import Aggregate, Host, Service
from hostler.placement.types.request import Flavor, Request, RequestSpec
from hostler.placement.weighers.base import ColumnWeigher, Weigher

from ..engine.dump import dump
from ..engine.values import guest_uuid

pytestmark = pytest.mark.kernel_twin


class OwnFilter(Filter):
    """Passes every host, by rows."""

    name: ClassVar[str] = "OwnFilter"

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"num_instances"})

    def key(self, request: Request) -> None:
        return None

    def host_passes(self, host: Any, request: Request) -> bool:
        return True


class OwnWeigher(Weigher):
    """The same raw value for every host, by rows."""

    name: ClassVar[str] = "OwnWeigher"
    option: ClassVar[str] = "own_multiplier"

    def configured(self) -> float:
        return 1.0

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"num_instances"})

    def raw(self, host: Any, request: Request) -> float:
        return 1.0


def variant(base: type[Any], **methods: Any) -> type[Any]:
    """The rule with other methods, given as functions of their arguments without self; other values are answers."""

    def method(answer: Any) -> Callable[..., Any]:
        return lambda self, *arguments: answer(*arguments) if callable(answer) else answer

    return type(base.__name__, (base,), {name: method(answer) for name, answer in methods.items()})


def engine_with(rule: type[Any]) -> Engine:
    fleet = Fleet()
    near = (Aggregate(uuid=guest_uuid(7000), name="near"),)
    add_hosts(fleet, [Host(host=f"h{i}", vcpus_total=8, total_usable_ram_mb=8192, aggregates=near) for i in range(3)])
    fleet.add_provider("child", parent="h0")
    rules = {"filters": [rule]} if issubclass(rule, Filter) else {"weighers": [rule]}
    return Engine(fleet, Policy.from_mapping({}, **rules))


def request(*guests: int) -> Request:
    spec = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=512))
    return Request(spec=spec, instance_uuids=tuple(map(guest_uuid, guests)))


def first(values: Any) -> Any:
    """Bad only for the first host."""
    return lambda host, _: values if host.nodename == "h0" else 1.0


def holes(view: Any, _: Request) -> Any:
    return np.where(view.row_ids == 1, np.nan, 1.0)


JUNK: list[tuple[type[Any], type[HostlerError]]] = [
    (variant(OwnFilter, mask=lambda view, _: np.ones(view.rows + 1, bool)), InvalidValue),
    (variant(OwnFilter, mask=lambda view, _: np.ones((view.rows, 1), bool)), InvalidValue),
    (variant(OwnFilter, mask=lambda view, _: np.ones(view.rows)), InvalidValue),
    (variant(OwnFilter, mask=lambda view, _: [True] * view.rows), InvalidValue),
    (variant(OwnFilter, mask=True), InvalidValue),
    (variant(OwnFilter, bounds=(Bound("free_ram"),)), UnknownName),
    (variant(OwnFilter, bounds=(Bound("free_ram_mb", low=float("nan")),)), InvalidValue),
    (variant(OwnFilter, bounds=("free_ram_mb",)), InvalidValue),
    (variant(OwnFilter, selection="h0"), InvalidValue),
    (variant(OwnFilter, fields=frozenset({"free_ram"})), UnknownName),
    (variant(OwnWeigher, values=lambda view, _: np.ones(view.rows + 1)), InvalidValue),
    (variant(OwnWeigher, values=lambda view, _: [1.0] * view.rows), InvalidValue),
    (variant(OwnWeigher, values=lambda view, _: np.array(["1"] * view.rows)), InvalidValue),
    (variant(OwnWeigher, values=holes), InvalidValue),
    (variant(OwnWeigher, column="free_ram"), UnknownName),
    (variant(OwnWeigher, raw=float("nan")), InvalidValue),
    (variant(OwnWeigher, raw=float("inf")), InvalidValue),
    (variant(OwnWeigher, raw="1"), InvalidValue),
    (variant(OwnWeigher, raw=first(None)), InvalidValue),
    (variant(OwnWeigher, raw=float("nan"), fields=frozenset({"traits"})), InvalidValue),
    (variant(OwnWeigher, fields=frozenset({"free_ram"})), UnknownName),
    (variant(OwnWeigher, configured=float("nan")), InvalidValue),
    (variant(OwnWeigher, multiplier="1"), InvalidValue),
    (variant(OwnWeigher, host_multiplier=float("inf")), InvalidValue),
]


def many(engine: Engine) -> None:
    """Raise the first error of a batch, whose requests have outcomes of their own."""
    for error in engine.place_many([request(1), request(2)]).errors.values():
        raise error


ways = pytest.mark.parametrize(
    "way",
    [
        lambda engine: engine.place(request(1)),
        lambda engine: engine.place(request(1, 2)),
        many,
        lambda engine: engine.rank(request(1)),
    ],
    ids=["place", "several", "many", "rank"],
)


@ways
@pytest.mark.parametrize(("rule", "error"), JUNK)
def test_junk_is_an_error_that_names_the_rule(
    rule: type[Any], error: type[HostlerError], way: Callable[[Engine], object]
) -> None:
    engine = engine_with(rule)
    before = dump(engine)
    with pytest.raises(error) as failure:
        way(engine)
    assert failure.value.field == rule.name
    assert rule.name in str(failure.value)
    assert dump(engine) == before


def fail(error: Exception) -> Callable[..., Any]:
    def method(*arguments: Any) -> Any:
        raise error

    return method


REFUSAL, CRASH = MetricNotFound("no such metric"), ZeroDivisionError("oops")
RAISING = [
    variant(base, **{method: fail(error)})
    for base, methods in ((OwnFilter, ("host_passes", "mask", "key")), (OwnWeigher, ("raw", "values", "configured")))
    for method in methods
    for error in (REFUSAL, CRASH)
]


@ways
@pytest.mark.parametrize("rule", RAISING)
def test_what_a_rule_raises_reaches_the_caller_and_nothing_has_changed(
    rule: type[Any], way: Callable[[Engine], object]
) -> None:
    try:
        engine = engine_with(rule)
    except (MetricNotFound, RuleFailed):
        return  # a policy may ask for the multiplier at once
    before = dump(engine)
    with pytest.raises((MetricNotFound, RuleFailed), match=rf"no such metric|{rule.name}\.\w+ failed.*oops"):
        way(engine)
    assert dump(engine) == before


def test_a_rule_that_raises_for_a_later_instance_leaves_none_of_them() -> None:
    def crowded(host: Any, _: Request) -> float:
        if host.num_instances:
            raise MetricNotFound(f"{host.host} is crowded")
        return 1.0

    engine = engine_with(variant(OwnWeigher, raw=crowded))
    before = dump(engine)
    with pytest.raises(MetricNotFound, match="is crowded"):
        engine.place(request(1, 2, 3))
    assert dump(engine) == before


def test_a_rule_that_raises_for_a_later_request_leaves_those_before_it() -> None:
    def crowded(host: Any, _: Request) -> float:
        if host.num_instances:
            raise MetricNotFound(f"{host.host} is crowded")
        return 1.0

    decisions = engine_with(variant(OwnWeigher, raw=crowded)).place_many([request(1), request(2)])
    assert decisions[0].placed
    assert [(at, type(error)) for at, error in decisions.errors.items()] == [(1, MetricNotFound)]


def test_a_host_that_does_not_pass_is_not_asked_for_a_number() -> None:
    engine = engine_with(variant(OwnWeigher, raw=first(float("nan"))))
    engine.fleet.set_service("h0", disabled=True)
    assert engine.place(request(1)).host == "h1"


def test_one_host_alone_is_not_weighed() -> None:
    engine = engine_with(variant(OwnWeigher, raw=float("nan")))
    for name in ("h1", "h2"):
        engine.fleet.set_service(name, disabled=True)
    decision = engine.place(request(1))
    assert (decision.host, decision.selected.weight) == ("h0", 0.0)


def test_a_rule_of_static_fields_that_reads_another_fails_loudly() -> None:
    reads_name = variant(OwnFilter, fields=frozenset({"aggregates"}), host_passes=lambda host, _: host.nodename != "h0")
    engine = engine_with(reads_name)
    before = dump(engine)
    with pytest.raises(RuleFailed, match="'nodename' that it does not declare"):
        engine.place(request(1))
    assert dump(engine) == before


@pytest.mark.parametrize(
    ("base", "missing"), [(Filter, "fields, host_passes"), (Weigher, "fields, raw")], ids=["filter", "weigher"]
)
def test_a_rule_that_leaves_out_its_methods_says_which(base: type[Any], missing: str) -> None:
    bare = type("Bare", (base,), {"name": "Bare", "option": "own_multiplier"})
    with pytest.raises(RuleFailed, match=f"abstract class Bare with abstract methods {missing}"):
        engine_with(bare)


@pytest.mark.parametrize(("base", "missing"), [(PoolFilter, "pool_passes, why"), (PoolWeigher, "raw")])
def test_a_rule_of_pools_that_leaves_out_its_methods_says_which(base: type[Any], missing: str) -> None:
    bare = type("Bare", (base,), {"name": "Bare"})
    with pytest.raises(TypeError, match=f"abstract class Bare with abstract methods? {missing}"):
        bare(StorageOptions())


def test_any_true_or_false_answer_of_a_host_form_counts() -> None:
    engine = engine_with(variant(OwnFilter, host_passes=lambda host, _: [] if host.nodename == "h0" else "yes"))
    assert engine.place(request(1)).host == "h1"
    assert engine.explain(request(2)).removed["OwnFilter"] == 1


class LatestHeartbeat(ColumnWeigher):
    """Weighs a column that is NaN where a service does not say when it was seen."""

    name: ClassVar[str] = "LatestHeartbeat"
    option: ClassVar[str] = "own_multiplier"
    fleet_column: ClassVar[str] = "last_seen_up"
    reads: ClassVar[frozenset[str]] = frozenset({"service"})

    def configured(self) -> float:
        return 1.0

    def raw(self, host: Any, request: Request) -> float:
        seen: float = host.service.last_seen_up
        return seen


@pytest.mark.parametrize("known", [True, False])
def test_a_column_with_unknown_values_is_no_raw_value(known: bool) -> None:
    fleet = Fleet()
    seen = [1_000.0, 1_001.0 if known else None, 1_002.0]
    add_hosts(
        fleet,
        [
            Host(host=f"n{n}", vcpus_total=8, total_usable_ram_mb=8_192, service=Service(last_seen_up=at))
            for n, at in enumerate(seen)
        ],
    )
    engine = Engine(fleet, Policy.from_mapping({}, weighers=[LatestHeartbeat]))
    asked = Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=64)))
    if known:
        assert engine.place(asked).host == "n2"
    else:
        with pytest.raises(InvalidValue, match="LatestHeartbeat: raw value is nan"):
            engine.place(asked)
