"""Values that the driver hmc reads and writes, without a console."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.drivers.compute import hmc_values
from hostler.drivers.protocol import Mark

from .hmc_answers import Partition, System, entry, shown, shown_system
from .hmc_console import NAME

UUIDS = st.uuids() | st.sampled_from([uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.UUID(int=0xFB << 120)])


@given(st.lists(UUIDS, unique=True, max_size=20))
def test_names_of_partitions_differ_and_are_taken(made: list[uuid.UUID]) -> None:
    names = {hmc_values.name_of(str(each)) for each in made}
    assert len(names) == len(made)
    assert all(NAME.fullmatch(each) for each in names)


@given(UUIDS, st.text(max_size=400), st.integers(1, 10**17))
def test_a_description_is_printable_and_tells_the_mark(made: uuid.UUID, name: str, claim: int) -> None:
    mark = Mark("i" * 64, str(made), claim)
    text = hmc_values.description_of(mark, name)
    assert (text.isascii(), text.isprintable(), len(text) <= hmc_values.LONGEST_DESCRIPTION) == (True, True, True)
    shown_by_others = Partition("k", hmc_values.name_of(str(made)), "s", 1, 1, 1.0, description=text)
    partition = hmc_values.partition_of(hmc_values.parsed(shown(shown_by_others, described=True).encode()))
    assert partition.mark == mark
    assert hmc_values.guest_of(partition, "node").name == text.partition(" ")[2]


@pytest.mark.parametrize(
    ("units", "hundredths", "vcpus"),
    [("10", 1_000, 66), ("0.6", 60, 4), ("7.999", 799, 53), ("1E+1", 1_000, 66), ("", 0, 0), ("-1", 0, 0)],
)
def test_capacity_is_rounded_down(units: str, hundredths: int, vcpus: int) -> None:
    text = shown_system(System("k", "n")).replace(">20.0<", f">{units}<")
    system = hmc_values.system_of(hmc_values.parsed(text.encode()))
    assert (system.hundredths, hmc_values.node_of(system, [], 15).vcpus) == (hundredths, vcpus)


@pytest.mark.parametrize("units", ["many", "NaN", "Infinity", "-Infinity", "1e999999999", "1e13", "1,5"])
def test_an_amount_that_is_no_number_is_malformed(units: str) -> None:
    text = shown_system(System("k", "n")).replace(">20.0<", f">{units}<")
    with pytest.raises(ValueError, match="no number"):
        hmc_values.system_of(hmc_values.parsed(text.encode()))


@pytest.mark.parametrize("inner", ["", "<PartitionName/>", "<PartitionName>a</PartitionName>"])
def test_a_partition_that_lacks_what_identifies_it_is_malformed(inner: str) -> None:
    text = entry("LogicalPartition", "", inner)
    with pytest.raises(ValueError, match="has no"):
        hmc_values.partition_of(hmc_values.parsed(text.encode()))
