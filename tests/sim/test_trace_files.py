"""Traces as other programs, locales and types of columns write them."""

from __future__ import annotations

import datetime
import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hostler import InvalidValue
from hostler.sim.trace.files import read_trace
from hostler.sim.trace.prometheus import read_usage
from hostler.sim.trace.workload import Workload

HEADER = "arrival_s,lifetime_s,vcpus,memory_gb\n"
ONE = f"{HEADER}0,3600,1,2\n".encode()


def read(folder: Path, data: bytes | str, **options: Any) -> Workload:
    path = folder / "trace"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_trace(path, **options)


def read_parquet(folder: Path, **columns: Any) -> Workload:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"vcpus": [2], "memory_gb": [2], **columns}), folder / "trace")
    return read_trace(folder / "trace")


def lifetimes(workload: Workload) -> list[int]:
    return [int(each) for each in workload.departure_s - workload.arrival_s]


@pytest.mark.parametrize(
    "data", [ONE.decode().encode("utf-16-be"), gzip.compress(gzip.compress(ONE))], ids=["UTF-16", "compressed twice"]
)
def test_what_a_file_holds_is_found_by_its_content(tmp_path: Path, data: bytes) -> None:
    assert lifetimes(read(tmp_path, data)) == [3_600]


@pytest.mark.parametrize(
    ("text", "life_s", "memory_mb"),
    [
        ("arrival_s;lifetime_s;vcpus;memory_mb\n0;86.400;1;8.192\n", 86_400, 8_192),
        ("arrival_s;lifetime_s;vcpus;memory_mb;disk_gb\n0;3600;1;8.192;1,5\n", 3_600, 8_192),
        ("arrival_s;lifetime_s;vcpus;memory_gb;disk_gb\n0;3600;1;1.024;1,5\n", 3_600, 1_048_576),
        ("arrival_s;lifetime_s;vcpus;memory_gb\n0;3600;1;1.125\n", 3_600, 1_152),
        ("arrival_s;lifetime_s;vcpus;memory_gb;disk_gb\n0;3600;1;1.125;0.5\n", 3_600, 1_152),
        ("arrival_s\tlifetime_s\tvcpus\tmemory_gb\n0\t3600\t1\t1.125\n", 3_600, 1_152),
    ],
)
def test_points_between_thousands_are_known_by_the_other_numbers(
    tmp_path: Path, text: str, life_s: int, memory_mb: int
) -> None:
    workload = read(tmp_path, text)
    assert (lifetimes(workload), workload.specs[0].flavor.memory_mb) == ([life_s], memory_mb)


@pytest.mark.parametrize("at", ["2026/3/1 10:00:00", "2026-03-01 10:00:00 UTC", "2026-03-01T11:00:00+0100"])
def test_dates_with_slashes_and_utc_in_words_are_read(tmp_path: Path, at: str) -> None:
    workload = read(tmp_path, f"{HEADER}{at},3600,1,2\n")
    assert (workload.epoch_s, workload.arrival_s.tolist()) == (1_772_323_200, [36_000])


@pytest.mark.parametrize(("life", "seconds"), [("1:30:00", 5_400), ("26:00", 93_600), ("2 days, 1:00:00", 176_400)])
def test_lifetimes_with_colons_are_hours_in_whatever_unit_times_are(tmp_path: Path, life: str, seconds: int) -> None:
    rows = f'1772323200000,"{life}",1,2\n1772323200000,600000,1,2\n1772323200000,,1,2\n'
    assert lifetimes(read(tmp_path, HEADER + rows))[:2] == [seconds, 600]
    with pytest.raises(InvalidValue, match="lifetime_s is '1:70'"):
        read(tmp_path, f"{HEADER}0,1:70,1,2\n")


def test_whole_days_of_excel_are_seconds_and_a_note_says_so(tmp_path: Path) -> None:
    rows = "46082,1,1,2\n46083,1,1,2\n"
    assert "days of Excel" in read(tmp_path, HEADER + rows).notes[0]
    assert lifetimes(read(tmp_path, HEADER + rows, time_unit="days")) == [86_400, 86_400]


def test_times_and_durations_of_parquet_are_read_in_any_resolution(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    hour = datetime.timedelta(hours=1, microseconds=5)
    for kind in (arrow.timestamp("ns", "Europe/Berlin"), arrow.timestamp("ns"), arrow.timestamp("s", "UTC")):
        at = arrow.array([1_772_359_200 * (1 if kind.unit == "s" else 10**9) + (kind.unit == "ns")], kind)
        workload = read_parquet(tmp_path, arrival_s=at, lifetime_s=arrow.array([hour], arrow.duration("ns")))
        assert (workload.arrival_s.tolist(), lifetimes(workload)) == ([36_000], [3_900])
    at_ms = read_parquet(tmp_path, arrival_s=[1_772_359_200_000], lifetime_s=arrow.array([datetime.timedelta(hours=1)]))
    assert lifetimes(at_ms) == [3_600], "a duration is in no unit"


def test_maps_and_bytes_of_parquet_are_read(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    resources = arrow.array([[("CUSTOM_A", 1), ("CUSTOM_B", 2)]], arrow.map_(arrow.string(), arrow.int32()))
    workload = read_parquet(tmp_path, arrival_s=[0], resources=resources, zone=arrow.array([b"z"]))
    assert workload.specs[0].availability_zone == "z"
    assert dict(workload.specs[0].flavor.extra_specs) == {"resources:CUSTOM_A": "1", "resources:CUSTOM_B": "2"}


def packing(path: Path, types: int) -> bytes:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE vm(vmId, tenantId, vmTypeId, priority, starttime REAL, endtime REAL)")
        database.execute("CREATE TABLE vmType(id, vmTypeId, machineId, core REAL, memory REAL)")
        database.execute("INSERT INTO vm VALUES(1, 1, 0, 1, 0.5, 1.5)")
        database.execute(f"INSERT INTO vmType VALUES(0, {types}, 0, 0.5, 0.25)")
        database.commit()
    return path.read_bytes()


def test_azures_packing_trace_is_read_compressed_and_under_any_name(tmp_path: Path) -> None:
    data = packing(tmp_path / "50%23 #1.sqlite", 0)
    assert lifetimes(read_trace(tmp_path / "50%23 #1.sqlite")) == [86_400]
    assert lifetimes(read(tmp_path, gzip.compress(data))) == [86_400]
    zstandard = pytest.importorskip("zstandard")
    assert lifetimes(read(tmp_path, zstandard.compress(data))) == [86_400]


def test_a_published_trace_without_guests_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"no guests \(1 guests of types that this machine cannot hold"):
        read(tmp_path, packing(tmp_path / "a", 7))


def test_azures_guests_of_unknown_usage_are_taken(tmp_path: Path) -> None:
    workload = read(tmp_path, "v1,s,d,0,600,,,,Unknown,2,4\nv2,s,d,300,900,9,5,7,Unknown,2,4\n")
    assert [terms.usage is None for terms in workload.terms] == [True, False]


def test_usage_is_read_compressed_with_a_mark_and_as_numbers(tmp_path: Path) -> None:
    series = [{"metric": {"domain": "a"}, "values": [[0, "0.5"], [300, 0.5], [600, "NaN"]]}]
    data = b"\xef\xbb\xbf" + json.dumps({"status": "success", "data": {"result": series}}).encode()
    zstandard = pytest.importorskip("zstandard")
    for content in (data, gzip.compress(data), zstandard.compress(data)):
        (tmp_path / "u").write_bytes(content)
        assert [usage.mean for usage in read_usage(tmp_path / "u").values()] == [0.5]
    (tmp_path / "u").write_bytes(data[:-9])
    with pytest.raises(InvalidValue, match="no range result"):
        read_usage(tmp_path / "u")
