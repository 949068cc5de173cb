"""Traces as files of all kinds: what is read, what is refused, by which line, and in how much memory."""

from __future__ import annotations

import gzip
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler.placement.types.errors import HostlerError, InvalidValue
from hostler.placement.types.request import Flavor
from hostler.sim import progress as bars
from hostler.sim.trace import csv_columns
from hostler.sim.trace.files import read_trace
from hostler.sim.trace.workload import ALONE, NEVER, Workload

from .values import written

HEAD = "arrival_s,vcpus,memory_gb"


def read(folder: Path, text: str) -> Workload:
    return read_trace(Path(written(folder, text)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{HEAD}\n0,4,\n", "line 2: memory_gb is missing"),
        (f"{HEAD}\n0,,8\n", "line 2: vcpus is missing"),
        (f"{HEAD}\n0,nan,8\n", "line 2: vcpus is 'nan'"),
        (f"{HEAD}\nnan,4,8\n", "line 2: arrival_s is 'nan'"),
        (f"{HEAD}\n0,4,inf\n", "line 2: memory_gb is 'inf'"),
        (f"{HEAD}\n0,1,1\n2017-01-01,1,1\n", "line 3: arrival_s is '2017-01-01'"),
        (f"{HEAD},departure_s\n0,1,1,300\n600,1,1,300\n", "line 3: departure_s is 300, the arrival 600"),
        (f"{HEAD},lifetime_s\n0,1,1,-1\n", "line 2: lifetime_s is '-1'"),
        (f"{HEAD}\n0,1,1,7\n", "line 2: 4 fields, but 3 columns"),
        (f"{HEAD}\n0,1\n", "line 2: memory_gb is missing, there are 2 fields"),
        ("arrival_s,vcpus,vcpus,memory_gb\n0,1,2,3\n", "column vcpus is there 2 times"),
        (f"{HEAD},disk_gb\n0,1,1,99999999999\n", "line 2: disk_gb is '99999999999'"),
        (f"{HEAD},gpus\n0,1,1,1.5\n", "line 2: gpus is '1.5' (a whole number from 0 to 64)"),
        (f"{HEAD},gpus,gpu_milli\n0,1,1,1,2000\n", "line 2: gpu_milli is '2000' (0 to 1000)"),
        (f"{HEAD}\n0,1,1\n9007199254740992,1,1\n", "more than 20 years"),
        ("arrival_s:vcpus:memory_gb\n0:1:1\n", "the columns are arrival_s:vcpus:memory_gb"),
        ("arrival_s,flavor\n0,m1\n", "flavors, but no catalogue (--flavors FILE"),
        (f"{HEAD}\n\n300,1,1\n\n600,x,1\n", "line 5: vcpus is 'x'"),
        (f'{HEAD},zone\n0,1,1,"a\nb"\n300,x,1,\n', "line 4: vcpus is 'x'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_line_and_column(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidValue) as error:
        read(tmp_path, text)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        f"\ufeff{HEAD}\n0,4,8\n",
        "arrival_s, vcpus, memory_gb\n0, 4, 8\n",
        f"{HEAD}\r\n0,4,8\r\n",
        f"{HEAD}\n\n0,4,8\n\n",
        f"{HEAD}\n0,4,8,,\n",
        "Arrival_S,VCPUs,Memory GB\n0,4,8\n",
        f"sep=;\n{HEAD.replace(',', ';')}\n0;4;8,0\n",
        f"\n{HEAD}\n0,4,8\n",
        "arrival_s,cpu_milli,memory_mb\n0,4000,8192\n",
        "arrival_s,vcpus,cpu_milli,memory_mb,memory_gb\n0,,3100,,8\n",
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, text: str) -> None:
    workload = read(tmp_path, text)
    assert [(spec.flavor.vcpus, spec.flavor.memory_mb) for spec in workload.specs] == [(4, 8192)]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("0,0.5,8", "vcpus is '0.5' .*--machine"),
        ("0,2.5,8", "vcpus is '2.5' .*cpu_milli"),
        ("12/31/2025,2,8", "arrival_s is '12/31/2025' .*ISO 8601"),
    ],
)
def test_what_cannot_be_right_is_refused_with_what_helps(tmp_path: Path, rows: str, problem: str) -> None:
    with pytest.raises(InvalidValue, match=problem):
        read(tmp_path, f"{HEAD}\n{rows}\n")


def test_fractions_of_a_machine_are_read_where_the_machine_is_named(tmp_path: Path) -> None:
    path = Path(written(tmp_path, f"{HEAD}\n0,0.5,0.25\n0,0.03,0.01\n"))
    flavors = [spec.flavor for spec in read_trace(path, machine="64x256").specs]
    assert [(flavor.vcpus, flavor.memory_mb) for flavor in flavors] == [(32, 65_536), (2, 2_622)]
    with pytest.raises(InvalidValue, match="vcpus is '2'"):
        read_trace(Path(written(tmp_path, f"{HEAD}\n0,2,0.5\n")), machine="64x256")
    with pytest.raises(InvalidValue, match="no vcpus and memory_gb"):
        read_trace(Path(written(tmp_path, "arrival_s,cpu_milli,memory_mb\n0,500,512\n")), machine="64x256")


def test_lines_before_the_header_are_counted_and_thousands_are_read(tmp_path: Path) -> None:
    text = f"sep=;\n{HEAD.replace(',', ';')}\n0;4;1.024,5\n0;x;8\n"
    with pytest.raises(InvalidValue, match="line 4: vcpus is 'x'"):
        read(tmp_path, text)
    assert read(tmp_path, text.replace("x", "4")).specs[0].flavor.memory_mb == 1_049_088


def test_units_in_doubt_are_said(tmp_path: Path) -> None:
    assert "no guest has more than 16 MiB" in read(tmp_path, "arrival_s,vcpus,memory_mb\n0,2,16\n0,2,8\n").notes[0]
    notes = read(tmp_path, f"{HEAD}\n0,2,8\n60000,2,8\n7200000,2,8\n").notes
    assert "--time-unit ms" in notes[0]
    assert not read(tmp_path, f"{HEAD}\n0,2,8\n60300,2,8\n7200000,2,8\n").notes


def test_a_column_named_twice_in_different_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="column vcpus is there 2 times"):
        read(tmp_path, "arrival_s,vCPUs,VCPUS,memory_gb\n0,1,2,3\n")


@pytest.mark.parametrize("cut", [30, 200])
def test_a_file_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress((HEAD + "\n" + "".join(f"{n},1,1\n" for n in range(2000))).encode())[:cut])
    with pytest.raises(InvalidValue, match="cannot be read"):
        read_trace(path)


def test_the_first_row_at_fault_is_named_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_columns, "CHUNK", 3)
    rows = [f"{n},1,1,{n},1" for n in range(20)]
    rows[7], rows[8] = "7,1,1,7,-1", "x,1,1,8,1"
    with pytest.raises(InvalidValue, match="line 9: lifetime_s is '-1'") as error:
        read(tmp_path, f"{HEAD},batch,lifetime_s\n" + "\n".join(rows))
    assert error.value.field == "trace.lifetime_s"


def test_an_unknown_flavor_is_named_with_its_line_and_the_closest(tmp_path: Path) -> None:
    flavors = {"m1": Flavor(name="m1", vcpus=1, memory_mb=1024)}
    with pytest.raises(HostlerError, match=r"line 3: flavor is 'm2', .*closest: m1") as error:
        read_trace(Path(written(tmp_path, "arrival_s,flavor\n0,m1\n0,m2\n")), None, flavors)
    assert (error.value.code, error.value.field) == ("unknown_name", "trace.flavor")


def test_departures_are_brought_up_and_arrivals_down_to_steps(tmp_path: Path) -> None:
    text = f"{HEAD},departure_s,lifetime_s\n299.5,1,1,600.5,\n0,1,1,,300\n0,1,1,,\n300,1,1,300,9\n"
    workload = read(tmp_path, text)
    assert workload.arrival_s.tolist() == [0, 0, 0, 300]
    assert workload.departure_s.tolist() == [900, 300, NEVER, 600]


def test_equal_sizes_are_one_spec_however_they_are_written(tmp_path: Path) -> None:
    workload = read(tmp_path, f"{HEAD}\n0,4,8\n0,4.0,8\n0,4,8.0\n")
    assert len(workload.specs) == 1


def test_batches_without_a_name_are_of_one_guest(tmp_path: Path) -> None:
    batch = read(tmp_path, f"{HEAD},batch\n0,1,1,\n0,1,1,7\n0,1,1,\n0,1,1,7\n0,1,1,x\n0,1,1,07\n0,1,1,x\n").batch
    assert len(set(batch.tolist())) == 5
    assert batch[1] == batch[3]
    assert batch[4] == batch[6]


TEXT = st.sampled_from(["", "0", "1", "7", "07", "a", "b", "12345678901234567890"])
ROW = st.tuples(
    st.integers(0, 5000), st.sampled_from(["", "1", "400", "3000.5"]), st.integers(1, 4), st.integers(1, 3), TEXT, TEXT
)


def slowly(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Arrival, departure, vCPUs and memory of each guest, and who shares its batch and its group, in order."""
    found = []
    for number, (arrival, lifetime, vcpus, memory, batch, group) in enumerate(rows):
        comes = arrival // 300 * 300
        leaves = max(math.ceil((arrival + float(lifetime)) / 300) * 300, comes + 300) if lifetime else NEVER
        mates = {n for n, row in enumerate(rows) if row[4] == batch and batch} or {number}
        apart = {n for n, row in enumerate(rows) if row[5] == group and group}
        found.append((comes, leaves, vcpus, memory * 1024, frozenset(mates), frozenset(apart), number))
    return sorted(found, key=lambda guest: (guest[0], guest[-1]))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=30), chunk=st.integers(1, 10))
def test_a_trace_is_what_its_rows_say_one_by_one(tmp_path: Path, rows: list[tuple[Any, ...]], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_columns, "CHUNK", chunk)
        lines = "\n".join(",".join(map(str, row)) for row in rows)
        got = read(tmp_path, f"arrival_s,lifetime_s,vcpus,memory_gb,batch,group\n{lines}\n")
    wanted = slowly(rows)
    assert got.arrival_s.tolist() == [guest[0] for guest in wanted]
    assert got.departure_s.tolist() == [guest[1] for guest in wanted]
    flavors = [got.specs[spec].flavor for spec in got.spec.tolist()]
    assert [(flavor.vcpus, flavor.memory_mb) for flavor in flavors] == [guest[2:4] for guest in wanted]
    numbers = [guest[-1] for guest in wanted]
    for column, place in ((got.batch.tolist(), 4), (got.group.tolist(), 5)):
        for mine, guest in zip(column, wanted, strict=True):
            shared = {n for n, other in zip(numbers, column, strict=True) if other == mine and mine != ALONE}
            assert shared == guest[place] or (place == 4 and shared | guest[place] == {guest[-1]})


def test_a_trace_is_read_in_little_more_memory_than_its_columns_need(tmp_path: Path) -> None:
    guests = 60_000
    path = Path(written(tmp_path, f"{HEAD},batch\n" + "".join(f"{n},{n % 7 + 1},4,{n // 2}\n" for n in range(guests))))
    tracemalloc.start()
    try:
        workload = read_trace(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(workload) == guests
    assert peak < 70 * guests


def test_a_long_file_moves_a_bar_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []

    class Bar:
        def __init__(self, label: str, total: int) -> None:
            self.label = label

        def __enter__(self) -> Any:
            return moved.append

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(bars, "_bar", Bar)
    path = Path(written(tmp_path, HEAD + "\n" + "0,1,1\n" * 5000))
    read_trace(path)
    monkeypatch.setattr(bars, "_on_terminal", lambda: True)
    read_trace(path)
    assert moved == []
    monkeypatch.setattr(bars, "LONG_FILE", 1000)
    read_trace(path)
    assert sum(moved) == path.stat().st_size
