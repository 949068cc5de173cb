"""Services are up by Nova's rule at any time, whatever the order of heartbeats, and it costs little to know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hostler.placement.decide.engine import Engine
from hostler.placement.filters.base import Filter
from hostler.placement.fleet.derived_column import RowCache
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.fleet.host_view import FleetView, HostView
from hostler.placement.load.bulk import add_hosts, load_hosts
from hostler.placement.policy.policy import Policy
from hostler.placement.types.errors import HostlerError, InvalidValue, UnknownName
from hostler.placement.types.host import HostState, Service
from hostler.placement.types.request import Flavor, Request, RequestSpec

from .values import NOW, host

DOWN_TIME = 60


def make(count: int, seen: Any = None) -> Fleet:
    fleet = Fleet()
    load_hosts(fleet, [f"n{i}" for i in range(count)], [host("t")], last_seen_up=seen)
    return fleet


def up(fleet: Fleet) -> list[bool]:
    return [bool(value) for value in fleet.column("service_up")]


def by_rule(fleet: Fleet) -> list[bool]:
    """Nova's rule, host by host."""
    verdicts = []
    for row in range(fleet.rows):
        service = HostView(fleet, row).service
        seen = service.last_seen_up
        alive = seen is None or fleet.now is None or abs(fleet.now - seen) <= fleet.service_down_time
        verdicts.append(alive and not service.disabled and not service.forced_down)
    return verdicts


times = st.one_of(
    st.integers(-100, 200).map(lambda seconds: NOW + seconds),
    st.floats(NOW - 100, NOW + 200),
    st.sampled_from([0.0, 60.0, -50.0, 10.0, 1e-20, 1e300, 1.7e9 + 0.1, 1.7e9 + 60.1]),
)
steps = st.one_of(
    st.tuples(st.just("advance"), times, st.sampled_from([60, 60, 60, 60, 90, 0, 0.1])),
    st.tuples(st.just("rewind"), st.one_of(st.none(), times), st.none()),
    st.tuples(st.just("heartbeats"), st.lists(st.integers(0, 5), max_size=6), st.lists(times, min_size=6, max_size=6)),
    st.tuples(st.just("heartbeat"), st.integers(0, 5), times),
    st.tuples(st.just("set"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("load"), st.integers(0, 3), times),
)


@pytest.mark.property
@given(st.lists(times, max_size=6), st.lists(steps, max_size=20))
@example([60.0], [("advance", 120.0, 60), ("advance", np.nextafter(120.0, 200.0), 60)])
@example([-50.0], [("advance", 10.0, 60), ("advance", float(np.nextafter(10.0, 20.0)), 60)])
@example([0.0], [("advance", 60.0, 0), ("rewind", 0.0, None)])
@settings(deadline=None, max_examples=300)
def test_services_are_up_by_the_rule_at_any_time(seen: list[float], history: list[Any]) -> None:
    fleet = make(len(seen), np.array(seen)) if seen else Fleet()
    for step, one, two in history:
        rows = [row for row in (one if isinstance(one, list) else [one]) if isinstance(row, int) and row < fleet.rows]
        if step == "advance":
            fleet.advance(one, two)
        elif step == "rewind":
            fleet._rewind(one)
        elif step == "heartbeats":
            fleet.heartbeats(np.array(rows, np.int64), np.array(two[: len(rows)]))
        elif step == "heartbeat" and rows:
            fleet.heartbeat(fleet.name(rows[0]), two)
        elif step == "set" and rows:
            fleet.set_service(fleet.name(rows[0]), disabled=two)
        elif step == "load" and one:
            first = fleet.rows
            names = [f"n{first + i}" for i in range(one)]
            load_hosts(fleet, names, [host("t", service=Service(last_seen_up=two if one > 1 else None))])
        assert up(fleet) == by_rule(fleet)
    fleet.check()


def test_a_service_is_up_for_exactly_the_down_time() -> None:
    fleet = make(2, np.array([NOW, NOW + 10]))
    for now, wanted in (
        (0, [0, 0]),
        (60, [1, 1]),
        (60.001, [0, 1]),
        (70, [0, 1]),
        (71, [0, 0]),
        (0, [1, 1]),
        (-60, [1, 0]),
    ):
        fleet.advance(NOW + now if now else NOW, DOWN_TIME)
        if now:
            assert up(fleet) == [bool(each) for each in wanted], now


def test_the_time_stays_where_it_is_unless_a_new_one_is_given() -> None:
    fleet = make(1, np.array([NOW]))
    fleet.advance(NOW)
    fleet.advance(None)
    assert fleet.now == NOW


def test_a_time_that_is_no_number_is_refused() -> None:
    fleet = make(1, np.array([NOW]))
    for now in (float("nan"), float("inf"), "now"):
        with pytest.raises(InvalidValue):
            fleet.advance(now)  # type: ignore[arg-type]
    fleet.check()


def test_a_disabled_or_forced_down_service_is_down_and_says_why() -> None:
    fleet = make(1)
    fleet.set_service("n0", disabled=True, disabled_reason="broken")
    assert HostView(fleet, 0).service == Service(disabled=True, disabled_reason="broken")
    fleet.set_service("n0", disabled=False, forced_down=True)
    assert HostView(fleet, 0).service == Service(forced_down=True)
    assert up(fleet) == [False]
    fleet.set_service("n0", forced_down=False)
    assert up(fleet) == [True]


def test_heartbeats_name_hosts_by_nodes_or_by_rows_at_one_time_or_one_each() -> None:
    fleet = make(3)
    fleet.heartbeats(["n2", "n0"], [NOW, NOW + 1])  # type: ignore[arg-type]
    fleet.heartbeats(np.array([1]), NOW + 2)
    assert fleet.column("last_seen_up").tolist() == [NOW + 1, NOW + 2, NOW]
    fleet.heartbeats(np.array([0, 0]), np.array([NOW + 5, NOW + 4]))
    assert fleet.column("last_seen_up")[0] == NOW + 4


@pytest.mark.parametrize(
    ("hosts", "at", "error"),
    [
        (["n0", "gone"], NOW, UnknownName),
        (["n0", 7], NOW, UnknownName),
        (np.array([0, 3]), NOW, InvalidValue),
        (np.array([-1]), NOW, InvalidValue),
        (np.array([0.0]), NOW, InvalidValue),
        (np.array([2]), NOW, InvalidValue),
        (["n0", "p"], NOW, InvalidValue),
        (["n0"], float("nan"), InvalidValue),
        (["n0", "n1"], [NOW, float("inf")], InvalidValue),
        (["n0", "n1"], [NOW], InvalidValue),
        (["n0"], "now", InvalidValue),
        (["n0"], True, InvalidValue),
        (["n0", "n1"], [[NOW, 1], [2]], InvalidValue),
    ],
)
def test_bad_heartbeats_are_refused_and_none_is_taken(hosts: Any, at: Any, error: type[HostlerError]) -> None:
    fleet = make(2)
    fleet.add_provider("p")
    with pytest.raises(error):
        fleet.heartbeats(hosts, at)
    assert np.isnan(fleet.column("last_seen_up")).all()


@pytest.mark.parametrize("command", ["heartbeat", "set_service", "report"])
def test_what_is_said_of_hosts_is_refused_for_other_providers(command: str) -> None:
    fleet = Fleet()
    fleet.add_provider("p")
    with pytest.raises(InvalidValue, match="p is not a compute host"):
        getattr(fleet, command)("p", **({"at": NOW} if command == "heartbeat" else {}))


# what it costs


class Looks:
    """Counts the rows that services are judged on."""

    def __init__(self, fleet: Fleet, patch: pytest.MonkeyPatch) -> None:
        self.rows = 0
        judge = fleet._services._judge

        def counted(rows: Any) -> None:
            self.rows += len(rows)
            judge(rows)

        patch.setattr(fleet._services, "_judge", counted)


def test_hosts_that_go_down_one_by_one_are_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 5000
    fleet = make(count, NOW + np.arange(count) / 100)
    fleet.advance(NOW + 55)
    looks = Looks(fleet, monkeypatch)
    for tick in range(5600):
        fleet.advance(NOW + 55 + tick / 100)
    assert not any(up(fleet))
    assert looks.rows <= 6 * count


def test_regular_heartbeats_cost_a_pass_over_the_hosts_per_down_time(monkeypatch: pytest.MonkeyPatch) -> None:
    count, rounds = 1000, 60
    fleet = make(count, NOW + np.arange(count) / 100)
    fleet.advance(NOW + 10)
    looks = Looks(fleet, monkeypatch)
    for beat in range(1, rounds):
        fleet.heartbeats(np.arange(count), NOW + 10 * beat + np.arange(count) / 100)
        beats = looks.rows
        for tick in range(10):
            fleet.advance(NOW + 10 * beat + 10 + tick)
            assert all(up(fleet))
        assert beats >= count
    seconds = 10 * rounds
    assert looks.rows - count * rounds <= 2.5 * count * seconds / 60


def test_time_that_goes_to_and_fro_between_engines_costs_nothing_while_no_verdict_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = make(100, np.full(100, NOW))
    engine = Engine(fleet)
    fork = engine.fork()
    engine.fleet.advance(NOW + 1)
    fork.fleet.advance(NOW + 30)
    looks = Looks(fleet, monkeypatch)
    for _ in range(5):
        assert engine.fleet.now == NOW + 1
        assert fork.fleet.now == NOW + 30
    assert looks.rows == 0


def test_only_services_that_go_up_or_down_are_logged_as_changed() -> None:
    fleet = make(10, np.full(10, NOW))
    fleet.advance(NOW)
    version = fleet.version
    fleet.heartbeats(np.arange(10), NOW + 50)
    assert fleet.version == version
    fleet.heartbeat("n3", NOW + 500)
    assert fleet._kernel.changed(version).tolist() == [3]  # type: ignore[union-attr]


# rules that read heartbeats as such


class QuietAtMost(Filter):
    """Hosts heard of within ten seconds; ``form`` says how it looks at them."""

    name = "QuietAtMost"

    def __init__(self, form: str) -> None:
        self.form = form

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"service"})

    def key(self, request: Request) -> None:
        return None

    def host_passes(self, host: HostState, request: Request) -> bool:
        seen = host.service.last_seen_up
        return seen is not None and seen >= NOW - 10

    def mask(self, view: FleetView, request: Request) -> Any:
        return view.column("last_seen_up") >= NOW - 10 if self.form == "mask" else None

    def reason(self, host: HostState, request: Request) -> str:
        return "quiet for too long"


@pytest.mark.parametrize("form", ["mask", "host"])
def test_a_rule_that_reads_heartbeats_is_asked_again_after_each(form: str) -> None:
    fleet = make(2, np.full(2, NOW - 20))
    rule, request = QuietAtMost(form), Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1)))

    def evaluate(rows: Any) -> Any:
        mask = rule.mask(FleetView(fleet, rows), request)
        if mask is None:
            mask = np.array([rule.host_passes(HostView(fleet, int(row)), request) for row in rows])
        return mask.astype(np.uint8)

    cache = RowCache(fleet, np.uint8, evaluate)
    cache.refresh()
    assert cache.array[:2].tolist() == [0, 0]
    fleet.heartbeat("n1", NOW)
    cache.refresh()
    assert cache.array[:2].tolist() == [0, 1]


def test_looking_at_a_service_without_keeping_a_verdict_has_nothing_logged() -> None:
    fleet = make(2, np.full(2, NOW))
    fleet.advance(NOW)
    assert HostView(fleet, 0).service.last_seen_up == NOW
    version = fleet.version
    fleet.heartbeats(np.arange(2), NOW + 1)
    assert fleet.version == version


def test_a_json_query_on_heartbeats_sees_each_of_them() -> None:
    fleet = Fleet()
    add_hosts(fleet, [host("a", service=Service(last_seen_up=NOW)), host("b", service=Service(last_seen_up=NOW))])
    policy = Policy.from_mapping({"filter_scheduler": {"enabled_filters": ["JsonFilter"]}})
    engine = Engine(fleet, policy)
    spec = RequestSpec(
        flavor=Flavor(name="f", vcpus=1, memory_mb=1),
        scheduler_hints={"query": (f'[">", "$service.last_seen_up", {NOW}]',)},
    )
    assert not engine.place(Request(spec=spec, now=NOW)).placed
    engine.fleet.heartbeat("b", NOW + 1)
    assert engine.place(Request(spec=spec, now=NOW)).selected.host == "b"


def test_the_services_of_several_hosts_are_set_together_or_not_at_all() -> None:
    fleet = Fleet()
    add_hosts(fleet, [host(name) for name in ("a", "b", "c")])
    engine = Engine(fleet)
    trial = engine.fork()
    trial.fleet.set_service(["a", "c"], forced_down=True)
    assert trial.fleet.column("service_up").tolist() == [0.0, 1.0, 0.0]
    with pytest.raises(UnknownName):
        trial.fleet.set_service(["b", "nobody"], disabled=True)
    assert not trial.fleet._host_class(1).disabled
    trial.fleet.check()
    assert engine.fleet.column("service_up").tolist() == [1.0, 1.0, 1.0]
    engine.fleet.check()
