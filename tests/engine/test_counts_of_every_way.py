"""What a decision says of the hosts that it left out, whichever way it was made: by the ranking, beside it, or by the
scan, which looks at every host."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.decide.engine import Engine
from hostler.placement.filters.base import Bound, Filter
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.load.bulk import add_hosts
from hostler.placement.policy.policy import Policy
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import Host, MemoryPages, NumaCell, NumaTopology, Service
from hostler.placement.types.request import Flavor, Request, RequestSpec
from hostler.placement.weighers.base import Weigher


def engine_of(hosts: list[Host], *filters: type[Filter], **options: Any) -> Engine:
    fleet = Fleet()
    add_hosts(fleet, hosts)
    return Engine(fleet, Policy.from_mapping({"filter_scheduler": options} if options else {}, filters=filters))


def wish(vcpus: int = 1, memory_mb: int = 64, **extra_specs: str) -> Request:
    flavor = Flavor(name="f", vcpus=vcpus, memory_mb=memory_mb, extra_specs=extra_specs)
    return Request(spec=RequestSpec(flavor=flavor))


def host(number: int, **figures: Any) -> Host:
    values = {"vcpus_total": 8, "total_usable_ram_mb": 8_192, "total_usable_disk_gb": 100, **figures}
    return Host(host=f"h{number}", **values)


def cell(number: int) -> NumaCell:
    cpus = frozenset(range(4 * number, 4 * number + 4))
    return NumaCell(
        id=number,
        cpuset=cpus,
        pcpuset=cpus,
        memory=4_096,
        siblings=tuple(frozenset({cpu}) for cpu in sorted(cpus)),
        mempages=(MemoryPages(size_kb=4, total=4_096 * 256),),
    )


def test_counts_are_those_of_the_scan_when_a_ranking_lets_its_rows_go() -> None:
    """A shape is asked for often, then hardly, and the index has counted for another shape in between."""
    hosts = [
        host(
            number,
            cpu_allocation_ratio=4.0,
            traits=frozenset({f"CUSTOM_{number % 50}"}),
            numa_topology=NumaTopology(cells=(cell(0), cell(1))) if number % 3 else None,
            service=Service(forced_down=number % 5 == 0),
        )
        for number in range(500)
    ]
    engine = engine_of(hosts, enabled_filters=["ComputeFilter", "NUMATopologyFilter"])
    numa = wish(2, 512, **{"hw:numa_nodes": "1"}).with_changes(alternates=40)
    large = wish(1, 7_000)

    def placed(count: int) -> list[str]:
        return [each.selected.instance_uuid for each in engine.place_many([large] * count)]

    def change(times: int) -> None:
        for _ in range(times):
            engine.release(placed(1))

    for _ in range(4):
        for _ in range(3):
            engine.place(numa)
        change(49)
    placed(166)
    change(300)
    engine.place(wish(3, 5_000))
    wanted = engine.rank(numa).removed
    assert sum(wanted.values())
    assert engine.place(numa).removed == wanted


class EveryHost(Filter):
    """Passes all hosts, of one request at a time."""

    name = "EveryHost"

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"host"})

    def host_passes(self, host: Any, request: Request) -> bool:
        return bool(host.host)


def test_advice_is_that_of_explain_where_each_request_is_compiled_by_itself() -> None:
    engine = engine_of([host(0), host(1)], EveryHost)
    asked = wish(memory_mb=8_000)
    assert engine.place(asked).placed
    assert engine.place(asked).placed
    found, explained = engine.place(asked).refusal, engine.explain(asked).refusal
    assert found is not None
    assert explained is not None
    assert (found.code, found.fits_empty, found.hint) == (explained.code, explained.fits_empty, explained.hint)
    assert found.code == "full"


SEEN = [None, 400.0, 1_000.0, 2_000.0, -1e30, -1.7e308]


def seen_within(low: float, high: float) -> type[Filter]:
    class SeenWithin(Filter):
        name = "SeenWithin"
        spec_only = True

        def fields(self, request: Request) -> frozenset[str]:
            return frozenset({"service"})

        def key(self, request: Request) -> None:
            return None

        def bounds(self, request: Request) -> tuple[Bound, ...]:
            return (Bound("last_seen_up", low=low, high=high),)

        def host_passes(self, host: Any, request: Request) -> bool:
            seen = host.service.last_seen_up
            return seen is not None and low <= seen <= high

    return SeenWithin


@pytest.mark.property
@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.sampled_from(SEEN)),
        min_size=1,
        max_size=300,
    ),
    st.sampled_from([(1_000.0, math.inf), (-math.inf, 1_500.0), (500.0, 1_500.0), (-math.inf, math.inf), (-1e31, 0.0)]),
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([60, 100])), min_size=1, max_size=12),
)
def test_no_bound_lets_a_heartbeat_pass_that_is_unknown(
    hosts: list[tuple[int, float | None]], bounds: tuple[float, float], sizes: list[tuple[int, int]]
) -> None:
    made = [
        host(number, vcpus_total=vcpus, total_usable_ram_mb=1_000, service=Service(last_seen_up=seen))
        for number, (vcpus, seen) in enumerate(hosts)
    ]
    engine = engine_of(made, seen_within(*bounds))
    seen_of = {f"h{number}": seen for number, (_, seen) in enumerate(hosts)}
    for vcpus, memory_mb in sizes:
        asked = wish(vcpus, memory_mb)
        scanned, decision = engine.rank(asked), engine.place(asked)
        assert decision.removed == scanned.removed
        assert decision.placed == bool(len(scanned.rows))
        if decision.placed:
            seen = seen_of[decision.selected.host]
            assert seen is not None
            assert bounds[0] <= seen <= bounds[1]
            assert decision.selected.host == engine.fleet.name(int(scanned.rows[0]))


def test_a_bound_on_heartbeats_follows_those_that_come_later() -> None:
    made = [host(number, service=Service(last_seen_up=900.0)) for number in range(3)]
    engine = engine_of(made, seen_within(1_000.0, math.inf))
    assert not engine.place(wish()).placed
    engine.fleet.heartbeat("h1", 1_001.0)
    assert engine.place(wish()).host == "h1"


def test_two_filters_that_refuse_unknown_heartbeats_are_named() -> None:
    other = type("Other", (seen_within(1_000.0, math.inf),), {"name": "Other"})
    engine = engine_of([host(number) for number in range(3)], seen_within(1_000.0, math.inf), other)
    refusal = engine.place(wish()).refusal
    assert refusal is not None
    assert refusal.hint is not None
    assert "SeenWithin" in refusal.hint
    assert "Other" in refusal.hint


def test_fits_counts_guests_whatever_uuids_exist() -> None:
    engine = engine_of([host(0)])
    engine.place(wish())
    engine.sequence = 0  # so that the uuid that comes next is one that exists
    assert engine.fits(wish(), limit=1).count == 1


class Endless(Weigher):
    """A raw value whose distance from another is no number."""

    name = "Endless"

    def configured(self) -> float:
        return 1.0

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"host"})

    def raw(self, host: Any, request: Request) -> float:
        return 1.7e308 if host.host == "h0" else 0.0


def test_a_raw_value_whose_range_would_overflow_is_an_error_of_its_weigher() -> None:
    fleet = Fleet()
    add_hosts(fleet, [host(0), host(1)])
    engine = Engine(fleet, Policy.from_mapping({}, weighers=[Endless]))
    with pytest.raises(InvalidValue, match=r"Endless: raw value is 1\.7e\+308, but must be within 2\*\*1022"):
        engine.place(wish())
