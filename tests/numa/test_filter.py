"""NUMATopologyFilter: whom it asks, what its verdict depends on, and what it says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from hostler.placement.filters.numa import NUMATopologyFilter
from hostler.placement.fleet.host_view import FleetView
from hostler.placement.fleet.numa_table import NumaTable
from hostler.placement.types.host import Host, NumaTopology, PciPool
from hostler.placement.types.options import Options
from hostler.placement.types.request import Flavor, Image, InstanceNumaTopology, PciRequest, Request, RequestSpec

from .values import cell, floating, guest, pinned, shared_cell, topology

JUDGE = NUMATopologyFilter(Options())
NIC = PciRequest(count=1, spec=({"vendor_id": "8086"},), numa_policy="required")
REQUIRE = {"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require"}


def host(numa_topology: NumaTopology | None, **changes: Any) -> Host:
    return Host(host="h", vcpus_total=8, total_usable_ram_mb=8192, numa_topology=numa_topology, **changes)


def request(
    wanted: InstanceNumaTopology | None,
    *pci_requests: PciRequest,
    specs: dict[str, str] | None = None,
    image: dict[str, str] | None = None,
) -> Request:
    flavor = Flavor(name="f", vcpus=2, memory_mb=1024, extra_specs=specs or {})
    spec = RequestSpec(
        flavor=flavor, image=Image(properties=image or {}), numa_topology=wanted, pci_requests=pci_requests
    )
    return Request(spec=spec)


def test_a_guest_without_numa_cells_passes_everywhere() -> None:
    assert not JUDGE.applies(request(None))
    assert JUDGE.host_passes(host(None), request(None))
    assert JUDGE.host_passes(host(None), request(guest()))


def test_a_guest_with_numa_cells_needs_a_host_with_some() -> None:
    wanted = request(guest(pinned()))
    assert JUDGE.applies(wanted)
    assert JUDGE.host_passes(host(topology(cell())), wanted)
    assert not JUDGE.host_passes(host(None), wanted)
    assert not JUDGE.host_passes(host(topology()), wanted)
    assert JUDGE.reason(host(None), wanted) == "requests 1 NUMA cells, the host reports none"


def test_the_host_s_allocation_ratios_bind_floating_cpus() -> None:
    full = topology(shared_cell(cpu_usage=4))
    wanted = request(guest(floating()))
    assert JUDGE.host_passes(host(full, cpu_allocation_ratio=1.5), wanted)
    assert not JUDGE.host_passes(host(full, cpu_allocation_ratio=1.0), wanted)


@pytest.mark.parametrize("where", ["flavor", "image", "both"])
def test_dedicated_with_require_needs_smt_whatever_cells_are_asked_for(where: str) -> None:
    image = {name.replace("hw:", "hw_"): value for name, value in REQUIRE.items()}
    asked = request(None, specs=REQUIRE if where != "image" else None, image=image if where != "flavor" else None)
    assert JUDGE.applies(asked)
    assert JUDGE.host_passes(host(topology(cell(threads=2))), asked)
    assert not JUDGE.host_passes(host(topology(cell())), asked)
    assert JUDGE.host_passes(host(None), asked)
    assert "several threads" in JUDGE.reason(host(topology(cell())), asked)


def test_the_policies_may_be_named_by_flavor_and_image_in_turn() -> None:
    asked = request(None, specs={"hw:cpu_policy": "dedicated"}, image={"hw_cpu_thread_policy": "require"})
    assert not JUDGE.host_passes(host(topology(cell())), asked)


def test_pci_devices_must_be_near() -> None:
    two = topology(cell(0, pinned_cpus=frozenset({0, 1, 2})), cell(1))
    far, near = (PciPool(count=1, numa_node=node, tags={"vendor_id": "8086"}) for node in (0, 1))
    assert not JUDGE.host_passes(host(two, pci_pools=(far,)), request(guest(pinned()), NIC))
    assert JUDGE.host_passes(host(two, pci_pools=(near,)), request(guest(pinned()), NIC))


@pytest.mark.kernel_twin
def test_the_mask_is_the_verdict_on_each_host() -> None:
    reported = [topology(cell()), None, topology(cell(threads=2)), topology(shared_cell(cpu_usage=4))]
    table = NumaTable()
    for row, cells in enumerate(reported):
        table.set_row(row, cells, 1.0, 1.0)
    rows = np.array([3, 0, 1, 2], np.int32)
    view = cast(FleetView, SimpleNamespace(fleet=SimpleNamespace(_numa=table), row_ids=rows))
    for asked in (request(guest(pinned())), request(guest(floating())), request(guest(pinned()), specs=REQUIRE)):
        hosts = (host(reported[row], cpu_allocation_ratio=1.0) for row in rows)
        mask = JUDGE.mask(view, asked)
        assert mask is not None
        assert mask.tolist() == [JUDGE.host_passes(each, asked) for each in hosts]


def test_there_is_no_mask_where_devices_must_be_near_or_no_cells_are_asked_for() -> None:
    view = cast(FleetView, SimpleNamespace())
    assert JUDGE.mask(view, request(guest(pinned()), NIC)) is None
    assert JUDGE.mask(view, request(None, specs=REQUIRE)) is None


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        (request(guest(pinned())), {"numa_topology"}),
        (request(guest(floating())), {"numa_topology", "cpu_allocation_ratio", "ram_allocation_ratio"}),
        (request(guest(pinned()), NIC), {"numa_topology", "pci_pools"}),
        (request(None, specs=REQUIRE), {"numa_topology"}),
    ],
    ids=["pinned", "floating", "pinned with devices", "only a policy"],
)
def test_a_verdict_depends_on_no_more_than_it_must(asked: Request, fields: set[str]) -> None:
    assert JUDGE.fields(asked) == fields


def test_equal_wishes_have_equal_keys() -> None:
    assert JUDGE.key(request(guest(pinned()), NIC)) == JUDGE.key(request(guest(pinned()), NIC))
    assert hash(JUDGE.key(request(guest(pinned()), NIC)))
    assert JUDGE.key(request(guest(pinned()))) != JUDGE.key(request(guest(pinned([0]))))
    assert JUDGE.key(request(guest(pinned()))) != JUDGE.key(request(guest(pinned()), specs=REQUIRE))
