"""The table of NUMA cells by row: what it keeps, what it refuses, and copies of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hostler.placement.fleet.numa_table import NumaTable
from hostler.placement.numa.fit import fit as numa_fit
from hostler.placement.numa.usage import usage as numa_usage
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import NumaCell, NumaTopology, PciPool
from hostler.placement.types.request import InstanceNumaTopology, PciRequest

from .values import cell, floating, guest, pages, pinned, shared_cell, topology

pytestmark = pytest.mark.kernel_twin

TWO = topology(
    cell(0, threads=2), cell(8, threads=2, socket=1, mempages=(pages(2048, 512, 3, 1), pages(4, 1048576, 7)))
)
ODD = topology(
    NumaCell(
        id=2**31 - 1,
        cpuset=frozenset({0, 1023}),
        pcpuset=frozenset({63, 64, 500}),
        memory=2**42,
        cpu_usage=-1,
        memory_usage=-5,
        pinned_cpus=frozenset({64, 700}),
        siblings=(frozenset({1023, 64}), frozenset(), frozenset({0})),
        mempages=(pages(1048576, 7), pages(4, 2**42, 2**42, 2**42)),
        socket=None,
    ),
    NumaCell(id=0, cpuset=frozenset(), socket=2**31 - 1),
)


def table(*rows: Any) -> NumaTable:
    made = NumaTable()
    for row, hosts in enumerate(rows):
        made.set_row(row, hosts, 16.0, 1.5)
    return made


def verdicts(of: NumaTable, wanted: InstanceNumaTopology, rows: int, **how: bool) -> list[int]:
    out = np.full(rows, 9, np.uint8)
    of.mask(of.compile(wanted, **how), np.arange(rows, dtype=np.int32), out)
    assert of.judge(of.compile(wanted, **how), np.arange(rows, dtype=np.int32)).tolist() == out.tolist()
    return out.tolist()


# rows


@pytest.mark.parametrize("hosts", [TWO, ODD, topology(cell())], ids=["two", "odd", "one"])
def test_a_row_comes_back_as_it_was_set(hosts: NumaTopology) -> None:
    assert table(None, hosts).get_row(1) == hosts


def test_rows_never_set_cleared_or_without_cells_have_none() -> None:
    made = table(TWO, TWO, topology(), None)
    made.clear_row(0)
    made.set_row(1, None, 1.0, 1.0)
    assert [made.get_row(row) for row in (0, 1, 2, 3, 4, 10**6)] == [None] * 6
    made.check()


def test_a_row_may_be_set_again_to_another_shape() -> None:
    made = table(TWO, topology(cell()), TWO)
    for hosts in (topology(cell(3)), ODD, None, TWO, topology(cell())):
        made.set_row(1, hosts, 1.0, 1.0)
        assert made.get_row(1) == hosts
        made.check()
    assert made.get_row(0) == made.get_row(2) == TWO


def test_a_row_number_below_zero_is_an_error() -> None:
    made = table(TWO)
    for call in (made.get_row, made.clear_row, lambda row: made.set_row(row, TWO, 1.0, 1.0)):
        with pytest.raises(IndexError):
            call(-1)


@pytest.mark.parametrize(
    "broken",
    [
        topology(*(cell(id % 9, cores=1) for id in range(2)), cell(0)),
        topology(*(NumaCell(id=id, cpuset=frozenset()) for id in range(65))),
        topology(cell(-1)),
        topology(replace(cell(), cpuset=frozenset({1024}))),
        topology(replace(cell(), pcpuset=frozenset({-1}))),
        topology(replace(cell(), pinned_cpus=frozenset({4096}))),
        topology(cell(siblings=(frozenset({0, 1}), frozenset({1, 2})))),
        topology(cell(siblings=(frozenset({1024}),))),
        topology(cell(memory=-1)),
        topology(cell(memory=2**42 + 1)),
        topology(cell(memory=2**70)),
        topology(cell(memory_usage=2**42 + 1)),
        topology(cell(cpu_usage=-(2**43))),
        topology(cell(socket=-1)),
        topology(cell(mempages=(pages(4, 1), pages(4, 2)))),
        topology(cell(mempages=(pages(0, 1),))),
        topology(cell(mempages=(pages(2**30 + 1, 1),))),
        topology(cell(mempages=(pages(2**30, 2**31),))),
        topology(cell(mempages=(pages(4, -1),))),
        topology(cell(mempages=tuple(pages(4 << size, 1) for size in range(17)))),
    ],
    ids=lambda broken: repr(broken)[:60],
)
def test_what_cannot_be_kept_is_refused_and_changes_nothing(broken: Any) -> None:
    made = table(TWO)
    for row in (0, 1):
        with pytest.raises(InvalidValue):
            made.set_row(row, broken, 1.0, 1.0)
    assert (made.get_row(0), made.get_row(1)) == (TWO, None)
    made.check()


def test_an_allocation_ratio_must_be_a_number() -> None:
    with pytest.raises(InvalidValue, match="ratio"):
        table().set_row(0, TWO, float("nan"), 1.0)


# verdicts and fits


def test_the_mask_tells_each_row_named_and_leaves_the_others() -> None:
    made = table(TWO, None, topology(cell(cores=1)))
    out = np.full(5, 9, np.uint8)
    made.mask(made.compile(guest(pinned())), np.array([4, 2, 0, 1], np.int32), out)
    assert out.tolist() == [1, 0, 0, 9, 0]


@pytest.mark.parametrize("rows", [[-1], [0, 3], [5]])
def test_the_mask_refuses_rows_beyond_its_end(rows: list[int]) -> None:
    made = table(TWO, TWO)
    with pytest.raises(IndexError):
        made.mask(made.compile(guest(pinned())), np.array(rows, np.int32), np.zeros(3, np.uint8))


def test_ratios_bind_unless_told_otherwise() -> None:
    made = NumaTable()
    made.set_row(0, topology(shared_cell(cpu_usage=4)), 1.0, 1.0)
    made.set_row(1, topology(shared_cell(cpu_usage=4)), 1.5, 1.0)
    assert verdicts(made, guest(floating()), 2) == [0, 1]
    assert verdicts(made, guest(floating()), 2, limited=False) == [1, 1]


def test_smt_may_be_asked_for() -> None:
    made = table(topology(cell()), topology(cell(threads=2)))
    assert verdicts(made, guest(pinned()), 2) == [1, 1]
    assert verdicts(made, guest(pinned()), 2, needs_smt=True) == [0, 1]


def test_a_fit_is_the_fit_of_the_rules() -> None:
    made = table(TWO)
    wanted = guest(pinned([0, 1, 2]), emulator="isolate")
    assert made.fit(made.compile(wanted), 0) == numa_fit(TWO, wanted)
    assert made.fit(made.compile(wanted), 1) is None


def test_packing_and_devices_change_the_order() -> None:
    used = topology(cell(0), cell(1, pinned_cpus=frozenset({100})))
    made, wanted = table(used), guest(pinned())
    packing = made.fit(made.compile(wanted, packing=True), 0)
    assert packing == numa_fit(used, wanted, packing=True) != numa_fit(used, wanted)
    pools = (PciPool(count=1, numa_node=0), PciPool(count=5))
    assert made.fit(made.compile(wanted), 0, pci_pools=pools) == numa_fit(used, wanted, pci_pools=pools)


def test_a_fit_with_devices_near_is_the_fit_of_the_rules() -> None:
    made, wanted = table(TWO), guest(pinned())
    wish = PciRequest(count=1, spec=({},), numa_policy="required")
    pools = (PciPool(count=1, numa_node=8),)
    found = made.fit(made.compile(wanted), 0, pci_requests=(wish,), pci_pools=pools)
    assert found == numa_fit(TWO, wanted, pci_requests=(wish,), pci_pools=pools)
    assert found is not None
    assert made.fit(made.compile(wanted), 0, pci_requests=(wish,)) is None


@pytest.mark.parametrize(
    "wanted",
    [
        guest(),
        guest(*(floating([id], id=id) for id in range(65))),
        guest(floating(memory=-1)),
        guest(floating(memory=2**70)),
        guest(floating(pagesize=-4)),
    ],
    ids=["no cells", "65 cells", "negative memory", "endless memory", "unknown page class"],
)
def test_a_guest_beyond_measure_is_refused(wanted: InstanceNumaTopology) -> None:
    with pytest.raises(InvalidValue):
        table().compile(wanted)


def test_sixty_four_cells_are_matched() -> None:
    hosts = topology(*(NumaCell(id=id, cpuset=frozenset(range(16 * id, 16 * id + 1 + id % 16))) for id in range(64)))
    made = table(hosts)
    fitting = guest(*(floating(range(16 - id // 4), id=id, memory=0) for id in range(64)))
    too_much = guest(*(floating(range(16 - id // 5), id=id, memory=0) for id in range(64)))
    assert verdicts(made, fitting, 1) == [1]
    assert verdicts(made, too_much, 1) == [0]


# usage


def test_consuming_and_releasing_is_the_usage_of_the_rules() -> None:
    made = table(TWO, TWO)
    found = made.fit(made.compile(guest(pinned([0, 1, 2]), emulator="isolate")), 0)
    assert found is not None
    made.consume(0, found)
    assert made.get_row(0) == numa_usage(TWO, found)
    assert made.get_row(1) == TWO
    made.release(0, found)
    assert made.get_row(0) == TWO
    made.check()


def test_a_usage_that_the_rules_refuse_is_refused_and_changes_nothing() -> None:
    made = table(TWO, topology(cell(5)))
    found = made.fit(made.compile(guest(pinned([0, 1]), pinned([2], id=1))), 0)
    assert found is not None
    with pytest.raises(InvalidValue):
        made.release(0, found)
    with pytest.raises(InvalidValue):
        made.consume(1, found)
    with pytest.raises(InvalidValue):
        made.consume(2, found)
    with pytest.raises(InvalidValue):
        made.consume(0, replace(found, cells=found.cells[:1] * 2))
    assert made.get_row(0) == TWO
    made.consume(0, found)
    with pytest.raises(InvalidValue):
        made.consume(0, found)
    assert made.get_row(0) == numa_usage(TWO, found)
    made.check()


# copies


def test_a_row_may_be_copied_to_another_table() -> None:
    source, target = table(TWO, None, ODD), table(ODD, ODD)
    for row, source_row in ((0, 0), (1, 1), (7, 2), (3, 99)):
        target.copy_row(row, source, source_row)
    assert [target.get_row(row) for row in range(8)] == [TWO, None, None, None, None, None, None, ODD]
    target.check()
    assert verdicts(target, guest(pinned()), 8)[0] == verdicts(source, guest(pinned()), 3)[0]


def test_rows_are_the_same_if_nothing_of_their_cells_or_ratios_differs() -> None:
    one, other = table(TWO, None, ODD), table(ODD, TWO)
    assert one.same_row(0, other, 1)
    assert one.same_row(2, other, 0)
    assert one.same_row(1, other, 7)
    assert not one.same_row(0, other, 0)
    assert not one.same_row(0, other, 7)
    found = numa_fit(TWO, guest(pinned()))
    assert found is not None
    other.consume(1, found)
    assert not one.same_row(0, other, 1)
    one.consume(0, found)
    assert one.same_row(0, other, 1)
    other.set_row(1, other.get_row(1), 3.0, 1.0)
    assert not one.same_row(0, other, 1)


def test_arrays_hold_the_whole_table() -> None:
    made = table(TWO, None, ODD, TWO)
    again = NumaTable.from_arrays(made.to_arrays())
    again.check()
    assert [again.get_row(row) for row in range(5)] == [TWO, None, ODD, TWO, None]
    assert verdicts(again, guest(floating()), 4) == verdicts(made, guest(floating()), 4)


def test_equal_tables_have_equal_arrays_whatever_their_history() -> None:
    made = table(ODD, TWO, ODD)
    for row in (2, 0, 1):
        made.set_row(row, topology(cell(9)), 1.0, 1.0)
    for row, hosts in enumerate((TWO, ODD)):
        made.set_row(row, hosts, 16.0, 1.5)
    made.clear_row(2)
    one, other = made.to_arrays(), table(TWO, ODD).to_arrays()
    assert {name: values.tolist() for name, values in one.items()} == {
        name: values.tolist() for name, values in other.items()
    }


def test_an_empty_table_has_arrays_too() -> None:
    assert NumaTable.from_arrays(NumaTable().to_arrays()).get_row(0) is None


def test_damaged_arrays_are_refused() -> None:
    good = table(TWO, ODD).to_arrays()
    for name, values in good.items():
        with pytest.raises(InvalidValue):
            NumaTable.from_arrays({key: value for key, value in good.items() if key != name})
        if len(values):
            with pytest.raises(InvalidValue):
                NumaTable.from_arrays({**good, name: values[:-1]})


@pytest.mark.property
def test_no_changed_number_in_the_arrays_does_harm() -> None:
    made = table(TWO, topology(cell()), None, TWO)
    good = made.to_arrays()
    for name, values in good.items():
        for place in range(values.size):
            for bad in (-1, 3, 2**30, -(2**62), 2**62):
                damaged = values.copy()
                if damaged.dtype == np.int32 and not -(2**31) <= bad < 2**31:
                    continue
                damaged.flat[place] = bad
                try:
                    again = NumaTable.from_arrays({**good, name: damaged})
                except InvalidValue:
                    continue
                again.check()
                verdicts(again, guest(pinned()), 4)
                assert again.to_arrays() is not None
