"""``fits`` counts the guests that can be placed one after the other, host by host, and changes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler import (
    Aggregate,
    Engine,
    Flavor,
    Fleet,
    Host,
    Inventory,
    Policy,
    Request,
    RequestSpec,
    ServerGroup,
    add_hosts,
)
from hostler.placement.decide.fits import Fit
from hostler.placement.filters.base import Bound, Filter
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import HostState, PciPool
from hostler.placement.types.request import InstanceNumaTopology, PciRequest

from ..numa.values import cell, guest, pinned, topology
from . import commands as c
from . import values
from .dump import dump
from .run import Run, outcome

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

SMALL = Flavor(name="small", vcpus=2, memory_mb=512)


def one_by_one(engine: Engine, request: Request, limit: int | None = None) -> Fit:
    """Guests placed on a fork until one is refused. Where the caller keeps the server group, each joins it."""
    trial, placed = engine.what_if(), Counter[str]()
    while limit is None or placed.total() < limit:
        decision = trial.place(request.with_changes(instance_uuids=()))
        if not decision.placed:
            break
        placed[decision.selected.node] += 1
        group = request.server_group
        if isinstance(group, ServerGroup):
            members, hosts = group.members | {decision.selected.instance_uuid}, group.hosts | {decision.host}
            request = request.with_changes(server_group=replace(group, members=members, hosts=hosts))
    return Fit(placed.total(), dict(placed))


def same(engine: Engine, request: Request, limit: int | None = None) -> Fit:
    """What ``fits`` says, once it is shown to be so and to have changed nothing."""
    engine.advance(request.now)
    before = dump(engine)
    fit = outcome(lambda: engine.fits(request, limit=limit))
    assert dump(engine) == before
    expected = outcome(lambda: one_by_one(engine, request, limit))
    if isinstance(expected, HostlerError):
        assert type(fit) is type(expected)
        return Fit(0, {})
    assert fit == expected
    assert fit.count == sum(fit.by_host.values())
    counted: Fit = expected
    return counted


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    values.fleets(most=5),
    st.one_of(st.just(Policy.nova_default()), values.policies()),
    values.some_specs,
    st.lists(st.one_of(c.changes, c.placements), max_size=5),
    c.asks,
    st.sampled_from([None, None, None, 0, 1, 4]),
)
def test_as_many_fit_as_can_be_placed(
    setup: values.Fleet,
    policy: Policy,
    specs: tuple[RequestSpec, ...],
    steps: list[c.Command],
    ask: c.Ask,
    limit: int | None,
) -> None:
    run = Run(setup, [policy], specs)
    for step in steps:
        run.do(step)
    same(run.engine, run.request(ask), limit)


# one kind of limit each


def host(number: int, **fields: Any) -> Host:
    sizes = {"vcpus_total": 8, "cpu_allocation_ratio": 1.0, "total_usable_ram_mb": 8192, "total_usable_disk_gb": 100}
    return Host(**{"host": f"h{number}", **sizes, **fields})


def engine(*hosts: Host, options: dict[str, Any] | None = None, filters: tuple[type[Filter], ...] = ()) -> Engine:
    fleet = Fleet()
    add_hosts(fleet, hosts or [host(1), host(2)])
    return Engine(fleet, Policy.from_mapping({"filter_scheduler": options or {}}, filters=filters))


def asks(flavor: Flavor = SMALL, **fields: Any) -> Request:
    return Request(spec=RequestSpec(flavor=flavor, **fields))


def test_the_scarcest_resource_limits() -> None:
    assert same(engine(host(1), host(2, total_usable_ram_mb=1600)), asks()) == Fit(7, {"h1": 4, "h2": 3})


def test_nothing_fits_where_no_host_passes() -> None:
    assert same(engine(), asks(replace(SMALL, vcpus=9))) == Fit(0, {})
    assert same(Engine(), asks()) == Fit(0, {})


def test_under_a_limit_guests_are_where_they_would_be_placed() -> None:
    assert same(engine(), asks(), limit=3) == Fit(3, {"h1": 2, "h2": 1})
    assert same(engine(), asks(), limit=8) == same(engine(), asks()) == Fit(8, {"h1": 4, "h2": 4})
    assert same(engine(), asks(), limit=9).count == 8


@pytest.mark.parametrize("option", ["max_io_ops_per_host", "max_instances_per_host"])
def test_filters_that_count_guests_limit(option: str) -> None:
    name = {"max_io_ops_per_host": "IoOpsFilter", "max_instances_per_host": "NumInstancesFilter"}[option]
    counted = engine(host(1, num_instances=1, num_io_ops=1), host(2), options={"enabled_filters": [name], option: 3})
    assert same(counted, asks()) == Fit(5, {"h1": 2, "h2": 3})


def test_filters_that_forced_hosts_skip_do_not_limit() -> None:
    counted = engine(options={"enabled_filters": ["IoOpsFilter"], "max_io_ops_per_host": 1})
    assert same(counted, asks()) == Fit(2, {"h1": 1, "h2": 1})
    assert same(counted, asks(force_hosts=("h2",))) == Fit(4, {"h2": 4})


@pytest.mark.parametrize(
    ("bound", "count"),
    [
        (Bound("free_ram_mb", low=7000), 6),
        (Bound("vcpus_used", high=3), 4),
        (Bound("free_vcpus", low=5), 4),
        (Bound("free_disk_mb", low=0), 8),
        (Bound("total_usable_ram_mb", low=1), 8),
    ],
)
def test_bounds_of_ones_own_limit_as_guests_fill_the_column(bound: Bound, count: int) -> None:
    class Own(Filter):
        name: ClassVar[str] = "Own"

        def fields(self, request: Request) -> frozenset[str]:
            return frozenset({bound.column}) - {"free_vcpus"} or frozenset({"vcpus_used"})

        def key(self, request: Request) -> None:
            return None

        def bounds(self, request: Request) -> tuple[Bound, ...]:
            return (bound,)

        def host_passes(self, host: HostState, request: Request) -> bool:
            raise AssertionError("the column form is asked")

    assert same(engine(filters=(Own,)), asks()).count == count


@pytest.mark.parametrize(
    ("policy", "at_most", "count"),
    [("anti-affinity", 1, 2), ("anti-affinity", 2, 4), ("affinity", 1, 4), ("soft-anti-affinity", 1, 8)],
)
@pytest.mark.parametrize("kept", [True, False])
def test_server_groups_limit_whoever_keeps_them(policy: str, at_most: int, count: int, kept: bool) -> None:
    grouped, uuid = engine(), "00000000-0000-0000-0000-0000000000aa"
    grouped.fleet.add_server_group(uuid, policy, max_server_per_host=at_most)
    value = ServerGroup(uuid=uuid, policy=policy, max_server_per_host=at_most)
    assert same(grouped, asks().with_changes(server_group=uuid if kept else value)).count == count


def numa_hosts(*cells: int, **fields: Any) -> list[Host]:
    """A host for each number of cells, four dedicated CPUs each."""
    return [
        host(number, numa_topology=topology(*(cell(id) for id in range(count))), **fields)
        for number, count in enumerate(cells)
    ]


@pytest.mark.parametrize(
    ("wanted", "fit"),
    [
        (guest(pinned((0, 1), memory=512)), Fit(6, {"h0": 2, "h1": 4})),
        (guest(pinned((0, 1, 2), memory=512)), Fit(3, {"h0": 1, "h1": 2})),
        (guest(pinned((0,), memory=256), pinned((1,), id=1, memory=256)), Fit(4, {"h1": 4})),
    ],
)
def test_numa_cells_limit(wanted: InstanceNumaTopology, fit: Fit) -> None:
    celled = engine(*numa_hosts(1, 2), options={"enabled_filters": ["NUMATopologyFilter"]})
    assert same(celled, asks(replace(SMALL, vcpus=1), numa_topology=wanted)) == fit


def test_pci_devices_limit() -> None:
    pools = (PciPool(count=3, numa_node=None, tags={"vendor_id": "8086", "product_id": "1572"}),)
    wish = PciRequest(count=1, spec=({"vendor_id": "8086"},))
    cards = engine(host(1), host(2, pci_pools=pools), options={"enabled_filters": ["PciPassthroughFilter"]})
    assert same(cards, asks(replace(SMALL, vcpus=1), pci_requests=(wish,))) == Fit(3, {"h2": 3})
    assert same(cards, asks(replace(SMALL, vcpus=1), pci_requests=(replace(wish, count=2),))) == Fit(1, {"h2": 1})


@pytest.mark.parametrize(("policy", "fit"), [("none", Fit(2, {"h1": 2})), ("isolate", Fit(1, {"h1": 1}))])
def test_granular_groups_on_nested_providers_limit(policy: str, fit: Fit) -> None:
    nested = engine()
    for name, total in (("gpu-0", 3), ("gpu-1", 1)):
        nested.fleet.add_provider(name, parent="h1")
        nested.fleet.set_inventory(name, {"VGPU": Inventory(total=total)})
    specs = {"resources1:VGPU": "1", "resources2:VGPU": "1", "group_policy": policy}
    assert same(nested, asks(replace(SMALL, extra_specs=specs))) == fit


def test_a_sharing_provider_limits_all_its_members_together() -> None:
    shared = engine()
    rack = Aggregate(uuid="5fd0b3a4-2f3e-4d6e-9a66-9a3f0a6b1c01", name="rack", metadata={})
    for name in ("h1", "h2"):
        shared.fleet.set_aggregates(name, [rack])
        known = {each: inventory for each, (inventory, _) in shared.fleet.inventory(name).items()}
        shared.fleet.set_inventory(name, {each: known[each] for each in ("VCPU", "MEMORY_MB")})
    shared.fleet.add_provider("nfs", traits=["MISC_SHARES_VIA_AGGREGATE"], aggregates=[rack])
    shared.fleet.set_inventory("nfs", {"DISK_GB": Inventory(total=50)})
    assert same(shared, asks(replace(SMALL, root_gb=10))).count == 5
