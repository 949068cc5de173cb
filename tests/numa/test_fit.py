"""Where a guest's NUMA cells go: memory, pages, CPUs, allocation ratios, and which host cells are preferred."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.placement.numa.cores import free_pcpus
from hostler.placement.numa.fit import FittedCell, FittedNuma, Limits, first_permutation
from hostler.placement.numa.fit import fit as numa_fit
from hostler.placement.types.host import NumaCell, NumaTopology, PciPool
from hostler.placement.types.request import InstanceNumaCell, InstanceNumaTopology, PciRequest

from . import values
from .values import cell, floating, guest, guests, mixed, pages, pinned, shared_cell, topologies, topology

NO_PAGES: dict[str, Any] = {"mempages": ()}
SMALL_AND_HUGE = (pages(4, 262144), pages(2048, 512), pages(1048576, 1))


def host_cells(host: NumaTopology, wanted: InstanceNumaTopology, **how: object) -> list[int] | None:
    """Ids of the host cells chosen, by guest cell."""
    fitted = numa_fit(host, wanted, **how)  # type: ignore[arg-type]
    return None if fitted is None else [part.host_cell for part in fitted.cells]


def fits(host: NumaCell, wanted: InstanceNumaCell, limits: Limits | None = None) -> bool:
    return host_cells(topology(host), guest(wanted), limits=limits) is not None


# counts


def test_a_guest_with_more_cells_than_the_host_does_not_fit() -> None:
    assert host_cells(topology(cell()), guest(pinned([0]), pinned([1], id=1))) is None


def test_every_guest_cell_gets_a_host_cell_of_its_own() -> None:
    host = topology(cell(0), cell(1))
    assert host_cells(host, guest(pinned([0]), pinned([1], id=1))) == [0, 1]


# memory


@pytest.mark.parametrize(
    ("used", "memory", "fit"),
    [(0, 4096, True), (0, 4097, False), (4000, 4096, True), (4096, 1024, True)],
)
def test_floating_memory_is_held_against_the_cell_s_total_without_limits(used: int, memory: int, fit: bool) -> None:
    assert fits(shared_cell(memory_usage=used, **NO_PAGES), floating(memory=memory)) is fit
    assert fits(shared_cell(mempages=(pages(4, 1048576, used * 256),)), floating(memory=memory)) is fit


@pytest.mark.parametrize(("used", "memory", "fit"), [(0, 4096, True), (1024, 3072, True), (1025, 3072, False)])
def test_memory_of_a_pinned_guest_must_be_free(used: int, memory: int, fit: bool) -> None:
    assert fits(cell(memory_usage=used, **NO_PAGES), pinned(memory=memory)) is fit
    assert fits(cell(mempages=(pages(4, 1048576, used * 256),)), pinned(memory=memory)) is fit


def test_without_a_page_size_the_smallest_pages_count_whatever_their_place() -> None:
    host = cell(mempages=(pages(2048, 2048), pages(4, 100)))
    assert not fits(host, pinned(memory=1024))


def test_a_page_size_does_not_ask_for_free_memory_beside_its_pages() -> None:
    host = cell(memory_usage=4096, mempages=(pages(4, 0), pages(2048, 2048)))
    assert fits(host, pinned(memory=4096, pagesize=2048))


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (None, 4),
        (values.SMALL_PAGES, 4),
        (values.LARGE_PAGES, 1048576),
        (values.ANY_PAGES, 1048576),
        (2048, 2048),
        (64, None),
    ],
)
def test_the_page_size_is_the_largest_of_the_class_asked_for(asked: int | None, chosen: int | None) -> None:
    fitted = numa_fit(topology(cell(mempages=SMALL_AND_HUGE)), guest(pinned(pagesize=asked)))
    assert (fitted.cells[0].page_kb if fitted else None) == chosen


@pytest.mark.parametrize(
    ("memory", "chosen"), [(1024, 1048576), (1022, 2048), (1023, 4)], ids=["whole GiB", "whole 2 MiB", "neither"]
)
def test_memory_must_be_whole_pages(memory: int, chosen: int) -> None:
    fitted = numa_fit(topology(cell(mempages=SMALL_AND_HUGE)), guest(pinned(memory=memory, pagesize=values.ANY_PAGES)))
    assert fitted is not None
    assert fitted.cells[0].page_kb == chosen


def test_used_and_reserved_pages_are_not_free() -> None:
    assert fits(cell(mempages=(pages(2048, 514, used=1, reserved=1),)), pinned(memory=1024, pagesize=2048))
    assert not fits(cell(mempages=(pages(2048, 514, used=2, reserved=1),)), pinned(memory=1024, pagesize=2048))


def test_large_pages_are_all_but_the_smallest() -> None:
    assert not fits(cell(mempages=(pages(2048, 2048),)), pinned(pagesize=values.LARGE_PAGES))
    assert fits(cell(mempages=(pages(2048, 2048),)), pinned(pagesize=values.SMALL_PAGES))


def test_a_page_size_fits_no_cell_that_reports_none() -> None:
    assert not fits(cell(**NO_PAGES), pinned(pagesize=values.SMALL_PAGES))


# CPUs and ratios


@pytest.mark.parametrize(("cpus", "fit"), [(4, True), (5, False)])
def test_a_guest_s_cpus_never_share_a_host_cpu(cpus: int, fit: bool) -> None:
    assert fits(cell(cores=4), pinned(range(cpus))) is fit
    assert fits(shared_cell(cores=4), floating(range(cpus)), Limits(16.0, 1.0)) is fit


@pytest.mark.parametrize(("usage", "fit"), [(6, True), (7, False)])
def test_floating_cpus_stay_within_the_cpu_ratio(usage: int, fit: bool) -> None:
    assert fits(shared_cell(cpu_usage=usage), floating([0, 1]), Limits(2.0, 1.0)) is fit


@pytest.mark.parametrize(("usage", "fit"), [(5120, True), (5121, False)])
def test_memory_of_floating_guests_stays_within_the_ram_ratio(usage: int, fit: bool) -> None:
    assert fits(shared_cell(memory_usage=usage), floating(memory=1024), Limits(16.0, 1.5)) is fit


def test_ratios_do_not_bind_a_dedicated_guest_but_a_mixed_one() -> None:
    tight = Limits(16.0, 0.1)
    host = replace(cell(), cpuset=frozenset(range(50, 54)))
    assert fits(host, pinned(), tight)
    assert not fits(host, mixed([0], [1]), tight)


def test_pinned_cpus_must_be_free() -> None:
    assert fits(cell(pinned_cpus=frozenset({0, 1})), pinned([0, 1]))
    assert not fits(cell(pinned_cpus=frozenset({0, 1, 2})), pinned([0, 1]))


def test_a_mixed_cell_may_have_no_cpu_to_pin() -> None:
    host = topology(legacy := values.legacy_cell(0), replace(legacy, id=1))
    assert host_cells(host, guest(mixed([0], [1]), mixed([2], [], id=1))) == [0, 1]


# order


def test_the_guest_spreads_to_the_cell_with_most_free_memory_then_least_used_cpus() -> None:
    by_memory = topology(shared_cell(0, memory_usage=10), shared_cell(1))
    assert host_cells(by_memory, guest(floating())) == [1]
    by_cpus = topology(shared_cell(0, cpu_usage=1), shared_cell(1, memory_usage=10))
    assert host_cells(by_cpus, guest(floating())) == [1]


def test_a_pinned_guest_spreads_to_the_cell_with_most_free_cpus() -> None:
    host = topology(cell(0, pinned_cpus=frozenset({0})), cell(1, memory_usage=10))
    assert host_cells(host, guest(pinned())) == [1]


def test_packing_turns_memory_and_cpus_round() -> None:
    used = cell(1, pinned_cpus=frozenset({100}))
    assert host_cells(topology(cell(0), used), guest(pinned()), packing=True) == [1]
    assert host_cells(topology(cell(0), used), guest(pinned()), packing=False) == [0]


@pytest.mark.parametrize("packing", [False, True])
def test_equal_cells_keep_the_host_s_order(packing: bool) -> None:
    host = topology(cell(2), cell(0), cell(1))
    assert host_cells(host, guest(pinned()), packing=packing) == [2]


@pytest.mark.parametrize("packing", [False, True])
def test_a_guest_without_pci_devices_leaves_cells_with_devices_for_last(packing: bool) -> None:
    near_0 = PciPool(count=2, numa_node=0)
    host = topology(cell(0), cell(1, pinned_cpus=frozenset({100})))
    assert host_cells(host, guest(pinned()), pci_pools=(near_0,), packing=packing) == [1]


def test_a_guest_with_pci_devices_goes_where_most_of_them_are() -> None:
    pools = (PciPool(count=2, numa_node=1, tags={"vendor_id": "8086"}), PciPool(count=9))
    wish = PciRequest(count=1, spec=({"vendor_id": "8086"},))
    host = topology(cell(0), cell(1, pinned_cpus=frozenset({100})))
    assert host_cells(host, guest(pinned()), pci_requests=(wish,), pci_pools=pools) == [1]


def test_with_as_many_cells_as_the_host_has_the_host_s_order_counts() -> None:
    host = topology(cell(0, memory_usage=1000), cell(1))
    assert host_cells(host, guest(pinned([0]), pinned([1], id=1))) == [0, 1]


def test_a_cell_that_only_a_later_guest_cell_fits_is_left_to_it() -> None:
    host = topology(cell(0, cores=8), cell(1, cores=2))
    assert host_cells(host, guest(pinned([0]), pinned(range(1, 6), id=1))) == [1, 0]


def test_devices_that_must_be_near_decide_the_permutation() -> None:
    pools = (PciPool(count=1, numa_node=0, tags={"vendor_id": "8086"}),)
    wish = PciRequest(count=1, spec=({"vendor_id": "8086"},), numa_policy="required")
    full = cell(0, pinned_cpus=frozenset({0, 1, 2, 3}))
    assert host_cells(topology(cell(0), cell(1)), guest(pinned()), pci_requests=(wish,), pci_pools=pools) == [0]
    assert host_cells(topology(full, cell(1)), guest(pinned()), pci_requests=(wish,), pci_pools=pools) is None


@pytest.mark.property
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=5), st.integers(0, 31))
def test_the_search_finds_what_trying_every_permutation_finds(table: list[list[bool]], forbidden: int) -> None:
    def accept(columns: object) -> bool:
        return sum(1 << column for column in columns) != forbidden  # type: ignore[attr-defined]

    every = permutations(range(5), len(table))
    fitting = (columns for columns in every if all(row[at] for row, at in zip(table, columns, strict=True)))
    expected = next((columns for columns in fitting if accept(columns)), None)
    assert first_permutation(table, accept) == expected


def test_many_cells_do_not_take_forever() -> None:
    """Eleven guest cells of which two fit only one host cell: 11! permutations, 2 ** 11 sets."""
    host = topology(*(cell(id, cores=1) for id in range(10)), cell(10, cores=9))
    small = (pinned([id], id=id) for id in range(9))
    wanted = guest(*small, pinned(range(9, 18), id=9), pinned(range(18, 27), id=10))
    assert host_cells(host, wanted) is None


# fitted values


def test_a_fitted_cell_tells_all_that_it_takes() -> None:
    fitted = numa_fit(topology(cell(cores=2, threads=2)), guest(pinned([5, 6], id=3), emulator="isolate"))
    assert fitted == FittedNuma(
        cells=(
            FittedCell(
                guest_cell=3,
                host_cell=0,
                memory=1024,
                page_kb=4,
                pinning=((5, 0), (6, 2)),
                emulator_cpus=frozenset({1}),
                taken_cpus=frozenset({0, 1, 2}),
            ),
        ),
        emulator_threads_policy="isolate",
    )


def test_nova_cannot_charge_a_cell_that_reports_no_page_sizes() -> None:
    with_pages = numa_fit(topology(cell()), guest(pinned()))
    without = numa_fit(topology(cell(**NO_PAGES)), guest(pinned()))
    assert with_pages is not None
    assert without is not None
    assert (with_pages.nova_charges, without.nova_charges) == (True, False)
    assert without.cells[0].page_kb is None


@pytest.mark.property
@given(topologies(), guests(), st.booleans())
def test_what_fits_is_free_and_distinct(host: NumaTopology, wanted: InstanceNumaTopology, packing: bool) -> None:
    fitted = numa_fit(host, wanted, packing=packing)
    if fitted is None:
        return
    cells = {each.id: each for each in host.cells}
    assert len({part.host_cell for part in fitted.cells}) == len(wanted.cells)
    for part, asked in zip(fitted.cells, wanted.cells, strict=True):
        held = {host_cpu for _, host_cpu in part.pinning} | part.emulator_cpus
        assert [guest_cpu for guest_cpu, _ in part.pinning] == sorted(asked.pcpuset)
        assert len(held) == len(part.pinning) + len(part.emulator_cpus)
        assert held <= part.taken_cpus <= free_pcpus(cells[part.host_cell])
