"""Random pools and wishes: nothing is made or lost, and the three ways to ask agree."""

from __future__ import annotations

import pytest
from hypothesis import given

from hostler.placement.devices import pci
from hostler.placement.types.errors import CapacityExceeded
from hostler.placement.types.host import NumaTopology, PciPool
from hostler.placement.types.request import PciRequest

from .oracle import devices, devices_left
from .values import hosts, places, pool_lists, wishes

pytestmark = pytest.mark.property


@given(pool_lists, wishes, places, hosts)
def test_what_is_left_is_what_nova_s_narrowing_leaves(
    pools: list[PciPool], asked: list[PciRequest], cells: list[int] | None, host: NumaTopology
) -> None:
    expected = devices_left(pools, asked, cells, host)
    assert pci.supports(pools, asked, cells, topology=host) is (expected is not None)
    if expected is not None:
        assert devices(pci.consume(pools, asked, cells, topology=host)) == expected


@given(pool_lists, wishes, places, hosts)
def test_what_is_supported_can_be_consumed_and_given_back(
    pools: list[PciPool], asked: list[PciRequest], cells: list[int] | None, host: NumaTopology
) -> None:
    if not pci.supports(pools, asked, cells, topology=host):
        with pytest.raises(CapacityExceeded):
            pci.consume(pools, asked, cells, topology=host)
        return
    left = pci.consume(pools, asked, cells, topology=host)
    drawn = pci.taken(pools, asked, cells, topology=host)
    assert sum(pool.count for pool in drawn) == sum(wish.count for wish in asked)
    assert devices(left) + devices(drawn) == devices(pools)
    assert devices(pci.take(pools, drawn)) == devices(left)
    assert devices(pci.give_back(left, drawn)) == devices(pools)


@given(pool_lists, wishes, places, hosts)
def test_the_explanation_agrees_with_the_verdict(
    pools: list[PciPool], asked: list[PciRequest], cells: list[int] | None, host: NumaTopology
) -> None:
    told = pci.explain(pools, asked, cells, topology=host)
    assert (told == "the PCI devices are there") is pci.supports(pools, asked, cells, topology=host)


@given(pool_lists, wishes, places, hosts)
def test_drawing_never_leaves_a_drawn_pool_empty(
    pools: list[PciPool], asked: list[PciRequest], cells: list[int] | None, host: NumaTopology
) -> None:
    full = [pool for pool in pools if pool.count]
    if pci.supports(full, asked, cells, topology=host):
        assert all(pool.count > 0 for pool in pci.consume(full, asked, cells, topology=host))
