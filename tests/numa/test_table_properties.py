"""The table against the rules: whatever is done, each row is what the rules on plain values make of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from hostler.placement.fleet.numa_table import NumaTable
from hostler.placement.numa.cores import has_threads
from hostler.placement.numa.fit import FittedNuma, Limits
from hostler.placement.numa.fit import fit as numa_fit
from hostler.placement.numa.usage import usage as numa_usage
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import NumaTopology, PciPool
from hostler.placement.types.request import InstanceNumaTopology

from .values import guests, topologies

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

ROWS = 6
rows = st.integers(0, ROWS - 1)
ratios = st.sampled_from([1.0, 1.5, 4.0, 0.3])
limits = st.builds(Limits, ratios, ratios)
pools = st.lists(st.builds(PciPool, count=st.integers(0, 3), numa_node=st.sampled_from([None, 0, 1, 8])), max_size=3)


@given(topologies(most_cells=6), limits)
def test_any_topology_comes_back_as_it_was_set(host: NumaTopology, limit: Limits) -> None:
    table = NumaTable()
    table.set_row(2, host, *limit)
    table.check()
    assert table.get_row(2) == host
    again = NumaTable.from_arrays(table.to_arrays())
    assert again.get_row(2) == host


@settings(max_examples=300)
@given(
    host=topologies(most_cells=6),
    wanted=guests(most_cells=6),
    limit=limits,
    packing=st.booleans(),
    limited=st.booleans(),
    needs_smt=st.booleans(),
    devices=pools,
)
def test_verdict_and_fit_are_those_of_the_rules(
    host: NumaTopology,
    wanted: InstanceNumaTopology,
    limit: Limits,
    packing: bool,
    limited: bool,
    needs_smt: bool,
    devices: list[PciPool],
) -> None:
    table = NumaTable(1)
    table.set_row(0, host, *limit)
    program = table.compile(wanted, packing=packing, limited=limited, needs_smt=needs_smt)
    bound = limit if limited else None
    expected = numa_fit(host, wanted, limits=bound, pci_pools=devices, packing=packing)
    if needs_smt and not has_threads(host.cells):
        expected = None
    assert table.fit(program, 0, pci_pools=devices) == expected
    assert table.judge(program, np.zeros(1, np.int32)).tolist() == [expected is not None]


class TableAndRules(RuleBasedStateMachine):
    """Random operations on a table, and on a dictionary by the plain rules."""

    placed = Bundle("placed")

    def __init__(self) -> None:
        super().__init__()
        self.table = NumaTable()
        self.hosts: dict[int, NumaTopology] = {}
        self.limits: dict[int, Limits] = {}

    @rule(row=rows, host=st.none() | topologies(), limit=limits)
    def report(self, row: int, host: NumaTopology | None, limit: Limits) -> None:
        self.table.set_row(row, host, *limit)
        self.hosts.pop(row, None)
        if host is not None:
            self.hosts[row], self.limits[row] = host, limit

    @rule(target=placed, row=rows, wanted=guests(), devices=pools)
    def place(
        self, row: int, wanted: InstanceNumaTopology, devices: list[PciPool]
    ) -> tuple[int, NumaTopology | None, FittedNuma | None]:
        found = self.table.fit(self.table.compile(wanted), row, pci_pools=devices)
        host = self.hosts.get(row)
        assert found == (host and numa_fit(host, wanted, limits=self.limits[row], pci_pools=devices))
        if host is not None and found is not None:
            self.table.consume(row, found)
            self.hosts[row] = numa_usage(host, found)
        return row, self.hosts.get(row), found

    @rule(guest=consumes(placed))
    def leave(self, guest: tuple[int, NumaTopology | None, FittedNuma | None]) -> None:
        """Only from the host as it was reported when the guest came: another one may not have its cells."""
        row, _, found = guest
        host = self.hosts.get(row)
        if found is None or host is None:
            return
        try:
            after = numa_usage(host, found, free=True)
        except InvalidValue:
            with pytest.raises(InvalidValue):
                self.table.release(row, found)
            return
        self.table.release(row, found)
        self.hosts[row] = after

    @rule(wanted=guests())
    def judge(self, wanted: InstanceNumaTopology) -> None:
        verdicts = self.table.judge(self.table.compile(wanted), np.arange(ROWS, dtype=np.int32))
        for row, verdict in enumerate(verdicts):
            host = self.hosts.get(row)
            assert verdict == (host is not None and numa_fit(host, wanted, limits=self.limits[row]) is not None)

    @rule(row=rows, source=rows)
    def copy(self, row: int, source: int) -> None:
        self.table.copy_row(row, self.table, source)
        host, limit = self.hosts.get(source), self.limits.get(source)
        self.hosts.pop(row, None)
        if host is not None and limit is not None:
            self.hosts[row], self.limits[row] = host, limit

    @rule(row=rows, other=rows)
    def compare(self, row: int, other: int) -> None:
        mine, theirs = ((self.hosts.get(each), self.limits.get(each)) for each in (row, other))
        assert self.table.same_row(row, self.table, other) == (mine == theirs or mine[0] is theirs[0] is None)

    @rule()
    def save_and_load(self) -> None:
        self.table = NumaTable.from_arrays(self.table.to_arrays())

    @invariant()
    def the_table_holds_what_the_rules_say(self) -> None:
        self.table.check()
        for row in range(ROWS):
            assert self.table.get_row(row) == self.hosts.get(row)


TestTableAndRules = TableAndRules.TestCase
