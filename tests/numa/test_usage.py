"""What a fitted guest takes of its host cells, and giving it back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.placement.numa.fit import FittedNuma
from hostler.placement.numa.fit import fit as numa_fit
from hostler.placement.numa.usage import settled
from hostler.placement.numa.usage import usage as numa_usage
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import NumaTopology
from hostler.placement.types.request import InstanceNumaTopology

from . import values
from .values import cell, floating, guest, guests, mixed, pages, pinned, shared_cell, topologies, topology


def fitted(host: NumaTopology, wanted: InstanceNumaTopology) -> FittedNuma:
    found = numa_fit(host, wanted)
    assert found is not None
    return found


def test_a_floating_guest_takes_cpus_memory_and_the_smallest_pages() -> None:
    host = topology(shared_cell(mempages=(pages(2048, 1), pages(4, 1048576, used=1))))
    after = numa_usage(host, fitted(host, guest(floating([0, 1], memory=8)))).cells[0]
    assert (after.cpu_usage, after.memory_usage) == (2, 8)
    assert after.mempages == (pages(2048, 1), pages(4, 1048576, used=2049))


def test_a_pinned_guest_takes_its_cpus_and_no_shared_ones() -> None:
    host = topology(cell())
    after = numa_usage(host, fitted(host, guest(pinned([0, 1])))).cells[0]
    assert (after.cpu_usage, after.pinned_cpus) == (0, frozenset({0, 1}))


def test_a_mixed_guest_takes_both() -> None:
    host = topology(replace(cell(), cpuset=frozenset({50, 51})))
    after = numa_usage(host, fitted(host, guest(mixed([0], [1, 2])))).cells[0]
    assert (after.cpu_usage, after.pinned_cpus) == (1, frozenset({0, 1}))


def test_memory_in_a_page_size_is_counted_in_those_pages() -> None:
    host = topology(cell(mempages=(pages(4, 1048576), pages(2048, 1024))))
    after = numa_usage(host, fitted(host, guest(pinned(memory=1024, pagesize=2048)))).cells[0]
    assert after.mempages == (pages(4, 1048576), pages(2048, 1024, used=512))


def test_nothing_falls_below_zero() -> None:
    host = topology(shared_cell())
    after = numa_usage(host, fitted(host, guest(floating())), free=True)
    assert after == host


def test_a_cpu_is_neither_taken_nor_given_back_twice() -> None:
    host = topology(cell())
    part = fitted(host, guest(pinned([0, 1])))
    taken = numa_usage(host, part)
    with pytest.raises(InvalidValue, match=r"\[0, 1\] of NUMA cell 0 are not free"):
        numa_usage(taken, part)
    with pytest.raises(InvalidValue, match=r"\[0, 1\] of NUMA cell 0 are not pinned"):
        numa_usage(host, part, free=True)


def test_an_unknown_host_cell_is_refused() -> None:
    host = topology(cell())
    with pytest.raises(InvalidValue, match="no NUMA cell 0"):
        numa_usage(topology(cell(1)), fitted(host, guest(pinned())))


def test_two_guest_cells_on_one_host_cell_are_refused() -> None:
    host = topology(cell())
    part = fitted(host, guest(pinned([0])))
    with pytest.raises(InvalidValue, match="on one host cell"):
        numa_usage(host, replace(part, cells=part.cells * 2))


@pytest.mark.parametrize("asked", [values.SMALL_PAGES, values.ANY_PAGES])
def test_the_next_guest_of_a_request_asks_for_the_pages_that_the_first_got(asked: int) -> None:
    host = topology(cell(mempages=(pages(4, 1048576),)))
    wanted = guest(pinned(pagesize=asked))
    assert settled(wanted, fitted(host, wanted)).cells[0].pagesize == 4


def test_without_a_page_size_the_next_guest_asks_for_none_either() -> None:
    host, wanted = topology(cell()), guest(pinned())
    assert settled(wanted, fitted(host, wanted)) == wanted


@pytest.mark.property
@given(topologies(), st.lists(guests(most_cells=2), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_giving_back_in_any_order_restores_the_host(
    host: NumaTopology, arrivals: list[InstanceNumaTopology], order: object
) -> None:
    now, placed = host, []
    for wanted in arrivals:
        found = numa_fit(now, wanted)
        if found is not None:
            now = numa_usage(now, found)
            placed.append(found)
    order.shuffle(placed)  # type: ignore[attr-defined]
    for found in placed:
        now = numa_usage(now, found, free=True)
    assert now == host
