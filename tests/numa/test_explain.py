"""Why a guest does not fit: one sentence per guest cell, about the host cell that came closest, with numbers."""

from __future__ import annotations

import pytest
from hypothesis import given

from hostler.placement.numa.explain import explain as numa_explain
from hostler.placement.numa.fit import Limits
from hostler.placement.numa.fit import fit as numa_fit
from hostler.placement.types.host import NumaCell, NumaTopology, PciPool
from hostler.placement.types.request import InstanceNumaCell, InstanceNumaTopology, PciRequest

from .values import ANY_PAGES, cell, floating, guest, guests, pages, pinned, shared_cell, topologies, topology

FITS = "each guest NUMA cell fits, but not in the order in which nova-compute tries the host's cells"
"""What is left to say of a guest that fits when its cells are judged by themselves."""

LIMITS = Limits(2.0, 1.5)


@pytest.mark.parametrize(
    ("host", "wanted", "reason"),
    [
        (cell(), pinned(pagesize=2048), "has no pages of 2048 KiB"),
        (cell(mempages=()), pinned(pagesize=ANY_PAGES), "has no pages of any size"),
        (cell(mempages=(pages(2048, 9),)), pinned(memory=15), "cannot hold 15 MiB in whole pages of 2048 KiB"),
        (cell(mempages=(pages(2048, 9, 2),)), pinned(memory=16), "lacks pages for 16 MiB: 14 MiB are there"),
        (cell(mempages=(), memory_usage=96), pinned(memory=4096), "lacks memory for 4096 MiB: 4000 MiB are there"),
        (cell(), pinned(range(5)), "has 4 CPUs to dedicate, 5 are requested"),
        (shared_cell(), floating(range(5)), "has 4 shared CPUs, 5 are requested"),
        (
            cell(pinned_cpus=frozenset({0, 1, 2})),
            pinned(),
            "has 1 of its dedicated CPUs free, 2 are requested",
        ),
        (
            cell(),
            pinned(cpu_thread_policy="require"),
            "has 4 of its dedicated CPUs free, but not 2 on cores as the thread policy asks",
        ),
        (
            shared_cell(cpu_usage=7),
            floating(),
            "would carry 9 shared guest CPUs, its allocation ratio allows 8",
        ),
        (
            shared_cell(memory_usage=6000),
            floating(),
            "would carry 7024 MiB, its allocation ratio allows 6144",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_first_check_that_refuses_is_told(host: NumaCell, wanted: InstanceNumaCell, reason: str) -> None:
    told = numa_explain(topology(host), guest(wanted), limits=LIMITS)
    assert told == f"guest NUMA cell 0: host cell 0 {reason}"


def test_a_host_without_cells_and_one_with_too_few_are_told_apart() -> None:
    two = guest(pinned([0]), pinned([1], id=1))
    assert numa_explain(None, two) == "requests 2 NUMA cells, the host reports none"
    assert numa_explain(topology(cell()), two) == "requests 2 NUMA cells, the host has 1"


def test_of_several_host_cells_the_closest_is_told() -> None:
    host = topology(cell(0, mempages=()), cell(1, pinned_cpus=frozenset({100, 101, 102})), cell(2, cores=1))
    told = numa_explain(host, guest(pinned(pagesize=4)))
    assert told == "guest NUMA cell 0: host cell 1 has 1 of its dedicated CPUs free, 2 are requested"


def test_each_guest_cell_that_fits_nowhere_is_told() -> None:
    host = topology(cell(0), cell(1))
    told = numa_explain(host, guest(pinned(range(5)), pinned(range(5, 11), id=1)))
    assert told == (
        "guest NUMA cell 0: host cell 0 has 4 CPUs to dedicate, 5 are requested; "
        "guest NUMA cell 1: host cell 0 has 4 CPUs to dedicate, 6 are requested"
    )


def test_cells_that_fit_one_by_one_but_not_together_are_told() -> None:
    host = topology(cell(0), cell(1, cores=1))
    told = numa_explain(host, guest(pinned([0, 1]), pinned([2, 3], id=1)))
    assert told == "each guest NUMA cell fits some host cell, but there are no 2 different cells for all"


def test_missing_devices_and_devices_too_far_away_are_told_apart() -> None:
    host = topology(cell(0, pinned_cpus=frozenset({0, 1, 2})), cell(1))
    wish = PciRequest(count=1, spec=({"vendor_id": "8086"},), alias_name="nic", numa_policy="required")
    near_0 = PciPool(count=1, numa_node=0, tags={"vendor_id": "8086"})
    told = numa_explain(host, guest(pinned()), pci_requests=(wish,), pci_pools=())
    assert told == ("the guest fits, its PCI devices do not: needs 1 PCI devices nic, but only 0 match its attributes")
    told = numa_explain(host, guest(pinned()), pci_requests=(wish,), pci_pools=(near_0,))
    assert told == (
        "the guest fits, its PCI devices do not: the NUMA cells that fit lack PCI devices with the required affinity"
    )


@pytest.mark.property
@given(topologies(), guests())
def test_it_says_that_the_guest_fits_exactly_when_it_does(host: NumaTopology, wanted: InstanceNumaTopology) -> None:
    told = numa_explain(host, wanted, limits=LIMITS)
    assert (told == FITS) == (numa_fit(host, wanted, limits=LIMITS) is not None)
