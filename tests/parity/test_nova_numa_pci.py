"""NUMA and PCI rules against the recorded answers of the real Nova 33: derivation, verdicts, and what guests take."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tests.numa.oracle import passes

from hostler.bench import nova_cases
from hostler.placement.devices import pci
from hostler.placement.filters import Filter
from hostler.placement.filters.numa import NUMATopologyFilter, needs_threads
from hostler.placement.filters.pci import PciPassthroughFilter
from hostler.placement.fleet.numa_table import NumaTable
from hostler.placement.numa.derive import derive as numa_derive
from hostler.placement.types.host import Host, NumaTopology, PciPool
from hostler.placement.types.options import Options
from hostler.placement.types.request import Request

RECORDED = Path(__file__).resolve().parents[2].parent / "shared" / "parity" / "nova" / "cases.jsonl.gz"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.kernel_twin,
    pytest.mark.skipif(not RECORDED.exists(), reason="the recorded answers ../shared/parity/nova are not here"),
]


@cache
def cases() -> tuple[nova_cases.Case, ...]:
    return tuple(nova_cases.read_cases(RECORDED))


def judged_alone(name: str) -> Iterator[tuple[nova_cases.Case, list[Host], list[str]]]:
    """Cases that have the filter: the hosts it saw, and the names of those it refused."""
    for case in cases():
        alone = (case["expected"].get("each_filter_alone") or {}).get(name)
        if alone is not None:
            by_name = {(host.host, host.nodename): host for host in nova_cases.hosts(case)}
            seen = [by_name[service_host, node] for service_host, node in case["expected"]["host_selection"]]
            yield case, seen, [service_host for service_host, _ in alone["eliminated"]]


def test_flavor_and_image_ask_for_the_cells_that_nova_derives() -> None:
    for case in cases():
        request = nova_cases.request(case)
        assert numa_derive(request.flavor, request.image) == request.spec.numa_topology, case["id"]


@pytest.mark.parametrize(("judge", "least"), [(NUMATopologyFilter, 56), (PciPassthroughFilter, 41)])
def test_the_filter_refuses_the_hosts_that_nova_refuses(judge: type[Filter], least: int) -> None:
    compared = 0
    for case, hosts, refused in judged_alone(judge.name):
        request, rule = nova_cases.request(case), judge(Options.from_mapping(nova_cases.option_values(case)))
        passed = {host.host for host in hosts if not rule.applies(request) or rule.host_passes(host, request)}
        assert [host.host for host in hosts if host.host not in passed] == refused, case["id"]
        assert all(rule.reason(host, request) for host in hosts if host.host not in passed)
        compared += 1
    assert compared >= least


def test_the_oracle_of_other_tests_refuses_the_hosts_that_nova_refuses() -> None:
    compared = 0
    for case, hosts, refused in judged_alone("NUMATopologyFilter"):
        request, options = nova_cases.request(case), Options.from_mapping(nova_cases.option_values(case))
        assert [host.host for host in hosts if not passes(host, request, options)] == refused, case["id"]
        compared += 1
    assert compared >= 56


def test_the_table_refuses_the_hosts_that_nova_refuses() -> None:
    compared = 0
    for case, hosts, refused in judged_alone("NUMATopologyFilter"):
        request = nova_cases.request(case)
        if request.spec.numa_topology is None or request.spec.pci_requests:
            continue
        table = NumaTable()
        for row, host in enumerate(hosts):
            table.set_row(row, host.numa_topology, host.cpu_allocation_ratio, host.ram_allocation_ratio)
            assert table.get_row(row) == host.numa_topology
        program = table.compile(request.spec.numa_topology, needs_smt=needs_threads(request))
        verdicts = table.judge(program, np.arange(len(hosts), dtype=np.int32))
        assert [host.host for host, fits in zip(hosts, verdicts, strict=True) if not fits] == refused, case["id"]
        compared += 1
    assert compared >= 34


class Consumed:
    """A host as guests come to it: what Nova's consume_from_request leaves of its cells and devices."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.pools = pci.arranged(host.pci_pools)
        self.table = NumaTable()
        self.table.set_row(0, host.numa_topology, host.cpu_allocation_ratio, host.ram_allocation_ratio)

    @property
    def topology(self) -> NumaTopology | None:
        return self.table.get_row(0)

    def take(self, request: Request, limited: bool) -> None:
        wanted, wishes = request.spec.numa_topology, request.spec.pci_requests
        cells = None
        if wanted is not None and self.topology is not None:
            program = self.table.compile(wanted, limited=limited)
            fitted = self.table.fit(program, 0, pci_requests=wishes, pci_pools=self.pools)
            assert fitted is not None
            if not fitted.nova_charges:
                return
            self.table.consume(0, fitted)
            cells = [part.host_cell for part in fitted.cells]
        self.pools = pci.consume(self.pools, wishes, cells, topology=self.topology)


def recorded_state(state: dict[str, object]) -> tuple[NumaTopology | None, tuple[PciPool, ...]]:
    return (
        nova_cases._numa_topology(state["numa_topology"]),  # type: ignore[arg-type]
        tuple(nova_cases._pci_pool(pool) for pool in state["pci_pools"] or ()),  # type: ignore[attr-defined]
    )


def test_guests_take_the_cells_and_devices_that_nova_gives_them() -> None:
    compared = 0
    for case in cases():
        if case["tag"] != "schedule:numa_pci":
            continue
        request, schedule = nova_cases.request(case), case["expected"]["schedule"]
        hosts = {host.uuid: Consumed(host) for host in nova_cases.hosts(case)}
        limited = "NUMATopologyFilter" in case["config"]["filter_scheduler"]["enabled_filters"]
        for _, provider, accepted in schedule["claims"]:
            if accepted is True and provider in hosts:
                hosts[provider].take(request, limited)
        by_name = {each.host.host: each for each in hosts.values()}
        for state in schedule["host_state_after"]:
            each = by_name[state["host"]]
            assert (each.topology, each.pools) == recorded_state(state), (case["id"], state["host"])
            compared += 1
    assert compared >= 132
